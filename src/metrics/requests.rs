//! Requests, by operation and status.
//!
//! Each operation has its row of numbers, made once and found by the
//! operation's number, each status its place in the row: counting a request
//! looks nothing up by name and allocates nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cells::{Counter, Gauge, Histogram};
use super::family::{IN_FLIGHT, REQUEST_SECONDS, REQUESTS};
use super::text::Text;

/// The name of what is no operation: unknown paths and methods.
const NONE: &str = "none";

/// Statuses from 100 to 599; no known one ends higher than 51.
const CLASSES: usize = 5;
const IN_CLASS: usize = 52;

/// All operations; the last is none.
#[derive(Debug)]
pub struct Requests(Box<[Arc<Operation>]>);

#[derive(Debug)]
struct Operation {
    name: &'static str,
    in_flight: Gauge,
    seconds: Histogram,
    by_status: Box<[Counter]>,
}

/// A request in hand, until it is answered or its client has gone. Small, since
/// ten thousand may wait.
#[derive(Debug)]
pub struct InHand {
    operation: Arc<Operation>,
    began: Instant,
}

impl Requests {
    pub(super) fn new(operations: impl IntoIterator<Item = &'static str>) -> Self {
        let names = operations.into_iter().chain([NONE]);
        Self(names.map(|name| Arc::new(Operation::new(name))).collect())
    }

    /// A request has come; `operation` is its number in the list that this was
    /// made from, if it has one.
    #[must_use]
    pub fn begin(&self, operation: Option<usize>) -> InHand {
        let none = self.0.len() - 1;
        let place = operation.map_or(none, |place| place.min(none));
        let operation = Arc::clone(&self.0[place]);
        operation.in_flight.add(1);
        InHand {
            operation,
            began: Instant::now(),
        }
    }

    pub(super) fn write(&self, text: &mut Text) {
        let mut requests = text.family(&REQUESTS);
        for operation in &*self.0 {
            for (place, count) in operation.by_status.iter().enumerate() {
                let status = (place / IN_CLASS + 1) * 100 + place % IN_CLASS;
                if count.get() > 0 {
                    requests.value(&[operation.name, &status.to_string()], count.get());
                }
            }
        }
        // What nobody has asked for yet is left out: most operations are rare.
        let used = || self.0.iter().filter(|operation| operation.is_used());
        let mut seconds = text.family(&REQUEST_SECONDS);
        for operation in used() {
            seconds.histogram(&[operation.name], &operation.seconds);
        }
        let mut in_flight = text.family(&IN_FLIGHT);
        for operation in used() {
            in_flight.value(&[operation.name], operation.in_flight.get());
        }
    }
}

impl Operation {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            in_flight: Gauge::default(),
            seconds: Histogram::new(&REQUEST_SECONDS),
            by_status: (0..CLASSES * IN_CLASS)
                .map(|_| Counter::default())
                .collect(),
        }
    }

    fn is_used(&self) -> bool {
        self.in_flight.get() > 0 || self.seconds.counts().iter().any(|count| *count > 0)
    }
}

impl InHand {
    /// It was answered; of the time it took, so much went by waiting for
    /// messages.
    pub fn answered(self, status: u16, waited: Duration) {
        let took = self.began.elapsed().saturating_sub(waited);
        self.operation.seconds.record_time(took);
        let status = usize::from(status.clamp(100, 599));
        let place = (status / 100 - 1) * IN_CLASS + (status % 100).min(IN_CLASS - 1);
        self.operation.by_status[place].increment(1);
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.operation.in_flight.add(-1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(requests: &Requests) -> String {
        let mut text = Text::default();
        requests.write(&mut text);
        text.finish()
    }

    #[test]
    fn each_status_is_counted_as_it_is() {
        let requests = Requests::new(["publish", "ack"]);
        for status in [100, 200, 201, 404, 431, 451, 500, 511] {
            requests.begin(Some(1)).answered(status, Duration::ZERO);
        }
        requests.begin(None).answered(404, Duration::ZERO);
        let text = written(&requests);
        for status in [100, 200, 201, 404, 431, 451, 500, 511] {
            let line = format!(
                "postrider_http_requests_total{{operation=\"ack\",status=\"{status}\"}} 1\n"
            );
            assert!(text.contains(&line), "{line}: {text}");
        }
        let none = "postrider_http_requests_total{operation=\"none\",status=\"404\"} 1\n";
        assert!(text.contains(none), "{text}");
        assert!(!text.contains("publish"), "{text}");
    }

    #[test]
    fn a_request_whose_client_goes_is_no_longer_in_hand() {
        let requests = Requests::new(["receive"]);
        let waiting = requests.begin(Some(0));
        let in_hand =
            |n| format!("postrider_http_requests_in_flight{{operation=\"receive\"}} {n}\n");
        assert!(written(&requests).contains(&in_hand(1)));
        requests.begin(Some(0)).answered(200, Duration::ZERO);
        drop(waiting);
        assert!(written(&requests).contains(&in_hand(0)));
    }

    #[test]
    fn waiting_is_not_in_the_time() {
        let requests = Requests::new(["receive"]);
        requests
            .begin(Some(0))
            .answered(200, Duration::from_mins(1));
        let sum = "postrider_http_request_duration_seconds_sum{operation=\"receive\"} 0\n";
        assert!(written(&requests).contains(sum));
    }
}
