//! A receiver that is not ours: Python, with the package that Standard Webhooks
//! publishes for it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use postrider::webhook::PushOutcome;

use super::support::{PATIENT, push, pusher, secret};

/// Ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The Python that has the package; installed at first.
fn python() -> String {
    let output = Command::new("scripts/python-with")
        .args(["standardwebhooks", "tests/it/webhook/requirements.txt"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let folder = String::from_utf8(output.stdout).unwrap();
    format!("{}/bin/python", folder.trim())
}

/// The receiver and its URL.
fn receiver(python: &str, secret: &str) -> (Running, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/webhook/receiver.py");
    let child = Command::new(python)
        .arg(script)
        .env("WEBHOOK_SECRET", secret)
        .stdout(Stdio::piped())
        .spawn();
    let mut running = Running(child.unwrap());
    let stdout = running.0.stdout.take().unwrap();
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    (running, line.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_library_verifies_our_signatures() {
    let python = tokio::task::spawn_blocking(python).await.unwrap();
    let (_running, url) = receiver(&python, &secret().reveal());
    let pushed = push(&pusher(), &url, PATIENT).await;
    assert_eq!(pushed.outcome, PushOutcome::Delivered, "{pushed:?}");
    assert_eq!(pushed.status, Some(204));

    let other = postrider::domain::WebhookSecret::new([1; 32]).reveal();
    let (_running, url) = receiver(&python, &other);
    let pushed = push(&pusher(), &url, PATIENT).await;
    assert_eq!(pushed.status, Some(401), "{pushed:?}");
    assert_eq!(pushed.answer, b"No matching signature found");
}
