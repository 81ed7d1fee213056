//! Signals, and what a process takes at most.

use std::io::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::support::{Database, Process, certificate, eventually, http_client, https_client};

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_reads_the_certificate_anew() {
    let database = Database::migrated().await;
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
    let write = |pair: &(String, String)| {
        std::fs::write(&cert, &pair.0).unwrap();
        std::fs::write(&key, &pair.1).unwrap();
    };
    let (old, new) = (certificate(), certificate());
    write(&old);
    let process = Process::start(&[
        "--database-url",
        &database.url(),
        "--tls-cert",
        cert.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ]);
    assert!(process.url.starts_with("https://"), "{}", process.url);
    let url = format!("{}/livez", process.url);
    let asked = async |trusted: &str| {
        let response = https_client(trusted, false).get(&url).send().await;
        response.is_ok_and(|response| response.status() == 200)
    };
    assert!(asked(&old.0).await);
    assert!(!asked(&new.0).await);
    write(&new);
    process.signal(Signal::HUP);
    eventually("the new one is served", async || asked(&new.0).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_without_tls_ends_nothing() {
    let database = Database::migrated().await;
    let mut process = Process::start(&["--database-url", &database.url()]);
    let url = format!("{}/livez", process.url);
    for _ in 0..3 {
        process.signal(Signal::HUP);
        let livez = http_client().get(&url).send().await.unwrap();
        assert_eq!(livez.status(), 200);
    }
    process.signal(Signal::TERM);
    let ended = process.ends_within(Duration::from_secs(20));
    assert!(ended.success(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_take_no_more_than_the_limit_on_bodies() {
    const BOMBS: u64 = 12;
    let database = Database::migrated().await;
    let process = Process::start(&[
        "--database-url",
        &database.url(),
        // Enough for all of them.
        "--body-memory-mib",
        "1024",
    ]);
    let queue = format!("{}/v1/queues/work", process.url);
    let made = http_client().put(&queue).send().await.unwrap();
    assert_eq!(made.status(), 201);
    // A GiB in a MiB.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; 16 << 20]).unwrap();
    let gzip = encoder.finish().unwrap().repeat(64);
    let zstd = zstd::encode_all(&vec![0; 16 << 20][..], 3)
        .unwrap()
        .repeat(64);
    let before = process.peak_mib();
    let mut bombs = JoinSet::new();
    for n in 0..BOMBS {
        let (coding, bomb) = [("gzip", &gzip), ("zstd", &zstd)][usize::from(n % 2 == 0)];
        let request = http_client()
            .post(format!("{queue}/messages"))
            .header("content-type", "text/plain")
            .header("content-encoding", coding)
            .body(bomb.clone());
        bombs.spawn(async move { request.send().await.map(|r| r.status().as_u16()) });
    }
    while let Some(refused) = bombs.join_next().await {
        assert_eq!(refused.unwrap().unwrap(), 413);
    }
    // Each may have 16 MiB, and as much again while its buffer grows. Whole they
    // would be 12 GiB.
    let grown = process.peak_mib() - before;
    assert!(grown < 2 * 16 * BOMBS + 64, "{grown} MiB");
}
