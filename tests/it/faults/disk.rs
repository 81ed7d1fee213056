//! A disk that is full: what makes room still works.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{App, Database, Gateway, Postgres, config, eventually};

/// What the disk holds besides the log: a fresh cluster and its databases take
/// some fifty of it.
const DISK_MIB: u64 = 128;

/// No file larger than this where no disk can be had: the log's are 16 MiB.
const FILE_MIB: u64 = 20;

/// A disk of its own for a server's data, but not for its log: with that full,
/// Postgres itself stops until there is room.
struct Disk(PathBuf);

impl Disk {
    /// Root's privilege.
    fn mount() -> Option<Self> {
        let path = std::env::temp_dir().join(format!("postrider-disk-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let size = format!("size={DISK_MIB}m,mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        let _ = std::fs::remove_dir(&path);
        None
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Leaves not a page.
    fn fill(&self) {
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        let full = std::io::copy(&mut std::io::BufReader::new(zeros), &mut ballast).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The server may not be gone yet.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn wal() -> PathBuf {
    std::env::temp_dir().join(format!("postrider-wal-{}", std::process::id()))
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn gateway_on(postgres: Postgres) -> App {
    let database = Database::on(postgres).await;
    let gateway = Gateway::start(&config(&database.url())).await;
    App { database, gateway }
}

/// Leases everything.
async fn lease_all(app: &App, queue: &str) -> Vec<Value> {
    let mut leased = Vec::new();
    loop {
        let messages = app
            .receive(queue, json!({"max_messages": 500, "lease_seconds": 3600}))
            .await;
        if messages.is_empty() {
            return leased;
        }
        leased.extend(messages);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_full_disk_publishes_are_refused_and_acks_work() {
    let Some(disk) = Disk::mount() else {
        eprintln!("LOUD: no disk could be mounted (not root?); a limit on files stands in for it");
        return with_a_limit_on_files().await;
    };
    let wal = Removed(wal());
    let app = gateway_on(Postgres::start(disk.0.join("pg"), Some(&wal.0), None)).await;
    app.queue("work", json!({"backoff": {"initial_seconds": 0.1}}))
        .await;
    for _ in 0..6 {
        let messages: Vec<Value> = (0..500).map(|n| json!({"body": n})).collect();
        app.post("/v1/queues/work/messages", json!({"messages": messages}))
            .await
            .expect(StatusCode::CREATED);
    }
    let leased = lease_all(&app, "work").await;
    assert_eq!(leased.len(), 3000);

    disk.fill();
    // Some find room in pages that are there. Large ones do not.
    let body = "x".repeat(200_000);
    let refused = app
        .post("/v1/queues/work/messages", json!({"body": body}))
        .await;
    let problem = refused.expect_problem(503, "storage-full");
    assert_eq!(refused.headers["retry-after"], "30", "{problem}");
    // Each by itself: 2,000 rows in tallies, for which there is no room.
    for message in &leased[..2000] {
        app.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    // These need room themselves; they find some, or say so.
    let mut nacked = 0;
    for message in &leased[2000..2500] {
        let answer = app
            .settle("nack", "work", &[&message["receipt"]], json!({}))
            .await;
        match answer.status {
            StatusCode::OK => nacked += 1,
            _ => drop(answer.expect_problem(503, "storage-full")),
        }
    }
    eprintln!("{nacked} of 500 nacks found room");
    app.get("/readyz").await.expect(StatusCode::OK);

    disk.make_room();
    eventually("publishes work", async || {
        let publish = app.post("/v1/queues/work/messages", json!({"body": body}));
        publish.await.status == 201
    })
    .await;
    for message in &leased[2500..] {
        app.settle("ack", "work", &[&message["receipt"]], json!({}))
            .await
            .expect(StatusCode::OK);
    }
    app.assert_conserved(&app.database, "work").await;
    let acked: (i64,) = sqlx::query_as("SELECT acked FROM postrider.queue_counts")
        .fetch_one(&mut app.database.connect().await)
        .await
        .unwrap();
    assert_eq!(acked.0, 2500);
    app.gateway.app.shut_down().await.unwrap();
}

/// Without root: no file of the server's may grow beyond a limit.
async fn with_a_limit_on_files() {
    let folder =
        Removed(std::env::temp_dir().join(format!("postrider-small-{}", std::process::id())));
    let largest = FILE_MIB * 1024 * 1024;
    let app = gateway_on(Postgres::start(
        Path::new(&folder.0).join("pg"),
        None,
        Some(largest),
    ))
    .await;
    app.queue("work", json!({})).await;
    let leased: Vec<Value> = {
        app.publish("work", json!({"body": 1})).await;
        lease_all(&app, "work").await
    };
    let mut body = String::new();
    while body.len() < 900_000 {
        // What cannot be compressed.
        body += rand::random::<u128>().to_string().as_str();
    }
    let mut stored = 0;
    loop {
        let answer = app
            .post("/v1/queues/work/messages", json!({"body": body}))
            .await;
        if answer.status != StatusCode::CREATED {
            answer.expect_problem(503, "storage-full");
            break;
        }
        stored += 1;
        assert!(stored < 100, "the limit does not hold");
    }
    app.settle("ack", "work", &[&leased[0]["receipt"]], json!({}))
        .await
        .expect(StatusCode::OK);
    app.assert_conserved(&app.database, "work").await;
    app.gateway.app.shut_down().await.unwrap();
}
