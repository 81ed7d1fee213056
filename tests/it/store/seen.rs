//! Lists are filtered by what a key sees in SQL, single requests in Rust: the two
//! have to agree.

use postrider::domain::{QueueName, QueueSettings, Scope, Scopes, TopicSettings};

use crate::support::App;

/// Every name of up to three of these, and some that go to the ends: letters of
/// both cases, and what means something to `LIKE` and to regular expressions.
fn names() -> Vec<String> {
    const CHARACTERS: [&str; 6] = ["a", "A", "1", "_", ".", "-"];
    let mut names = vec![String::new()];
    let mut found = Vec::new();
    for _ in 0..3 {
        names = names
            .iter()
            .flat_map(|name| CHARACTERS.map(|c| format!("{name}{c}")))
            .collect();
        found.extend(names.clone());
    }
    found.extend(["x".repeat(80), "x".repeat(79), "a.b.c".to_owned()]);
    found.retain(|name| QueueName::parse(name, "").is_ok());
    found
}

/// Scopes on each name and on each beginning, and some together.
fn keys(names: &[String]) -> Vec<Vec<String>> {
    let mut keys: Vec<Vec<String>> = names
        .iter()
        .flat_map(|name| [name.clone(), format!("{name}*")])
        // Nothing begins with a name of 80 characters and goes on.
        .filter(|pattern| pattern.len() <= 80)
        .map(|pattern| vec![format!("consume:{pattern}")])
        .collect();
    keys.extend(
        [
            &["publish:*"][..],
            &["admin"],
            &["monitor"],
            &["monitor", "manage:a"],
            &["publish:a.*", "consume:A", "manage:_-*"],
            &["consume:a", "consume:a*", "admin"],
        ]
        .map(|scopes| scopes.iter().map(|&scope| scope.to_owned()).collect()),
    );
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_hold_what_a_key_sees_and_nothing_else() {
    let app = App::start().await;
    let names = names();
    let store = app.app.store();
    for name in &names {
        let name = QueueName::parse(name, "").unwrap();
        let queue = store.put_queue(&name, &QueueSettings::default()).await;
        let topic = store.put_topic(&name, &TopicSettings::default()).await;
        assert!(
            queue.unwrap().created && topic.unwrap().1,
            "{name} was there"
        );
    }
    let mut most = 0;
    for scopes in keys(&names) {
        let parsed = scopes.iter().map(|text| Scope::parse(text, "").unwrap());
        let key = Scopes(parsed.collect());
        let patterns = key.patterns();
        let queues = store.list_queues("", "", patterns.as_deref(), 1000).await;
        let queues = queues.unwrap().into_iter().map(|queue| queue.name);
        let topics = store.list_topics("", "", patterns.as_deref(), 1000).await;
        let topics = topics.unwrap().into_iter().map(|topic| topic.name);
        for listed in [queues.collect::<Vec<_>>(), topics.collect()] {
            let listed: Vec<_> = listed.into_iter().filter(|n| !n.is_system()).collect();
            most = most.max(listed.len());
            let mut seen: Vec<QueueName> = names
                .iter()
                .map(|name| QueueName::parse(name, "").unwrap())
                .filter(|name| key.sees(name))
                .collect();
            // As Postgres has them, byte by byte.
            seen.sort();
            assert_eq!(listed, seen, "{scopes:?}");
        }
    }
    assert_eq!(most, names.len());
}
