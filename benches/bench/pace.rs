//! A steady rate.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Says when the next message of a client was due, counted from the start.
pub(crate) type Due = mpsc::UnboundedReceiver<Duration>;

/// Tells so many clients in turn when something is due, `rate` times a second in all,
/// until `end`. A client that is busy then finds out late, and knows by how much.
///
/// By a thread of its own: the runtime's timers round up to the next millisecond, which
/// would count as the gateway's.
pub(crate) fn pace(clients: u32, rate: u32, started: Instant, end: Duration) -> Vec<Due> {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..clients).map(|_| mpsc::unbounded_channel()).unzip();
    std::thread::spawn(move || {
        for (number, sender) in (0..).zip(senders.iter().cycle()) {
            let due = Duration::from_secs(1) * number / rate;
            if due >= end {
                break;
            }
            std::thread::sleep(due.saturating_sub(started.elapsed()));
            if sender.send(due).is_err() {
                break;
            }
        }
    });
    receivers
}
