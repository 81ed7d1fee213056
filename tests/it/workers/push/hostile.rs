//! Endpoints that are slow, dead or out for mischief: what they cost others, and
//! themselves.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Hook, drained, hook, publish_many, pushed_id};
use crate::support::{App, Receiver, Reply};

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_costs_the_others_nothing() {
    const EACH: usize = 200;
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.usually_on("/q0", Reply::hang());
    for n in 0..6 {
        let (name, url) = (format!("q{n}"), receiver.url(&format!("/q{n}")));
        let settings = json!({"timeout_seconds": 60, "max_in_flight": 10});
        hook(&app, &name, &url, settings, json!({})).await;
    }
    publish_many(&app, "q0", 50).await;
    receiver.wait_for(10).await;
    let begun = Instant::now();
    for n in 1..6 {
        publish_many(&app, &format!("q{n}"), EACH).await;
    }
    for n in 1..6 {
        drained(&app, &format!("q{n}")).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
    let requests = receiver.requests();
    let hanging = requests.iter().filter(|r| r.path == "/q0").count();
    assert_eq!(hanging, 10, "all in flight, and no more");
    assert_eq!(requests.len(), 10 + 5 * EACH);
    assert_eq!(app.counts("q0").await["leased"], 10);
    let distinct: HashSet<&str> = requests.iter().map(pushed_id).collect();
    assert_eq!(distinct.len(), requests.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hostile_endpoints_send_ends_within_the_timeout() {
    let settings = json!({"timeout_seconds": 1, "max_in_flight": 20});
    let hook = Hook::start(settings, json!({"max_attempts": 1})).await;
    let cases = [
        ("/drip", Reply::drip(), "timed out"),
        ("/drip-head", Reply::drip_head(), "timed out"),
        ("/endless-head", Reply::endless_head(), ""),
        ("/promise", Reply::promise(), "timed out"),
        ("/reset", Reply::reset(), ""),
        ("/reset-after-head", Reply::reset_after_head(), ""),
        ("/not-http", Reply::raw(b"SSH-2.0-OpenSSH_9.6\r\n"), ""),
        ("/nothing", Reply::raw(b""), ""),
        ("/endless-500", Reply::endless(500), "answered 500"),
    ];
    for (path, reply, error) in cases {
        hook.receiver.usually_on(path, reply);
        let name = path[1..].to_owned();
        let (settings, queue) = (json!({"timeout_seconds": 1}), json!({"max_attempts": 1}));
        super::hook(&hook, &name, &hook.receiver.url(path), settings, queue).await;
        let begun = Instant::now();
        publish_many(&hook, &name, 1).await;
        drained(&hook, &name).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{path}");
        let list = hook
            .get(&format!("/v1/queues/{name}/dead-letters"))
            .await
            .json();
        let letters = list["dead_letters"].as_array().unwrap();
        assert_eq!(letters.len(), 1, "{path}");
        let kept = letters[0]["last_error"].as_str().unwrap();
        assert!(!kept.is_empty() && kept.contains(error), "{path}: {kept}");
        let attempts = super::attempts(&hook, &name, "status=failed").await;
        assert_eq!(attempts.len(), 1, "{path}");
        let took = attempts[0]["duration_seconds"].as_f64().unwrap();
        assert!(took < 2.0, "{path} took {took} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_with_more_body_than_is_read_is_one_and_nothing_is_unpacked() {
    let hook = Hook::start(json!({"timeout_seconds": 5}), json!({})).await;
    for reply in [Reply::endless(200), Reply::gzip_bomb()] {
        hook.receiver.next(reply);
        let id = hook.publish("orders", json!({"body": 1})).await;
        let attempts = hook.wait_for_attempts(&format!("message_id={id}"), 1).await;
        assert_eq!(attempts[0]["outcome"], "delivered");
        let kept = match &attempts[0]["answer"] {
            Value::String(text) => text.len(),
            _ => attempts[0]["answer_base64"].as_str().unwrap().len() / 4 * 3,
        };
        assert!((1000..=1026).contains(&kept), "{kept}");
    }
    hook.drained().await;
    assert_eq!(hook.receiver.requests().len(), 2);
}
