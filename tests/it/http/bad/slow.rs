//! Requests that never come to their end: what there is of them is not waited for
//! for longer than is promised, and not stored.

use std::ops::Range;
use std::time::Duration;

use super::check::check;
use super::http::publish;
use super::table::{Row, raw, raw_dripping};

/// A head has 10 s, and the machine some for all that runs beside it.
const HEAD: Range<f64> = 9.9..15.0;

/// A body has 30 s.
const BODY: Range<f64> = 29.9..37.0;

/// So little, and so seldom, that a limit of each read would not see it.
const DRIP: Duration = Duration::from_secs(5);

fn heads() -> Vec<Row> {
    let begun = "GET /livez HTTP/1.1\r\nHost: x\r\nX";
    [
        raw(""),
        raw(begun),
        raw_dripping("", DRIP),
        raw_dripping(begun, DRIP),
        raw_dripping(format!("{begun}: "), DRIP),
    ]
    .map(|row| row.rejected(&[0, 408]).taking(HEAD))
    .into()
}

fn bodies() -> Vec<Row> {
    let mut rows = Vec::new();
    for content_type in ["application/json", "text/plain"] {
        for (framing, sent) in [
            ("Content-Length: 12", r#"{"body": 1}"#),
            ("Content-Length: 1000", r#"{"body": 1}"#),
            ("Content-Length: 1000", ""),
            ("Transfer-Encoding: chunked", "3e8\r\n{\"body\": 1}"),
        ] {
            let headers = format!("Content-Type: {content_type}\r\n{framing}");
            let request = publish(&headers, sent.as_bytes());
            rows.push(raw(request.clone()).needs_postgres());
            if framing != "Content-Length: 12" {
                rows.push(raw_dripping(request, DRIP).needs_postgres());
            }
        }
    }
    // Where the body is read before anything is asked.
    let ack = "POST /v1/queues/orders/ack HTTP/1.1\r\nHost: x\r\n\
               Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    rows.push(raw(ack));
    rows.push(raw_dripping(ack, DRIP));
    rows.into_iter()
        .map(|row| row.refused(408, "body-timeout").taking(BODY))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_given_up_in_time_and_not_stored() {
    // Two runs, so that none waits for its turn.
    tokio::join!(check(|_| heads()), check(|_| bodies()));
}
