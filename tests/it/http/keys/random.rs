//! Keys are not to be guessed.

use std::collections::HashSet;

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::Guarded;

/// What the API says: 160 random bits at least.
const LEAST_BITS: usize = 160;

/// The secret's bits, which are written in hexadecimal digits.
fn bits(key: &str) -> Vec<bool> {
    let secret = key.rsplit('_').next().unwrap();
    let digits = secret.chars().map(|digit| digit.to_digit(16).unwrap());
    digits
        .flat_map(|digit| [8, 4, 2, 1].map(|bit| digit & bit != 0))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bit_of_a_secret_is_random_also_when_the_key_is_rotated() {
    let app = Guarded::start().await;
    let (mut made, mut rotated) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        let key = app.key(&["monitor"]).await;
        let path = format!("/v1/keys/{}/rotate", &key[3..15]);
        let anew = app.as_admin(Method::POST, &path, json!({})).await;
        let anew = anew.expect(StatusCode::OK)["key"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(anew[..16], key[..16], "its id stays");
        made.push(key);
        rotated.push(anew);
    }
    let ids: HashSet<&str> = made.iter().map(|key| &key[..16]).collect();
    assert_eq!(ids.len(), made.len());
    let all: HashSet<Vec<bool>> = made.iter().chain(&rotated).map(|key| bits(key)).collect();
    assert_eq!(all.len(), made.len() + rotated.len());
    for keys in [made, rotated] {
        let secrets: Vec<Vec<bool>> = keys.iter().map(|key| bits(key)).collect();
        assert!(secrets[0].len() >= LEAST_BITS, "{}", secrets[0].len());
        for at in 0..secrets[0].len() {
            // That a random bit is the same in all of them: once in 2^63.
            let ones = secrets.iter().filter(|secret| secret[at]).count();
            assert!((1..secrets.len()).contains(&ones), "bit {at}: {ones} ones");
        }
    }
}
