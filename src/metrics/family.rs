//! Every metric's name, type, labels and help. `METRICS.md` has the same for
//! users; a test holds them together.

/// A metric: one number, or as many as its labels have values.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram(Scale),
}

/// Bounds of a histogram, as integers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) bounds: &'static [u64],
    /// Recorded numbers in one of what is shown: nanoseconds in a second.
    pub(super) per_unit: f64,
}

const ROWS: Scale = Scale {
    bounds: &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000],
    per_unit: 1.0,
};

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

/// What a statement or a request takes.
const SHORT: Scale = Scale {
    bounds: &[
        MS / 2,
        MS,
        2 * MS,
        5 * MS,
        10 * MS,
        20 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        500 * MS,
        S,
        5 * S,
        30 * S,
    ],
    per_unit: 1e9,
};

/// What messages wait for: milliseconds or days.
const LONG: Scale = Scale {
    bounds: &[
        MS,
        2 * MS,
        5 * MS,
        10 * MS,
        50 * MS,
        100 * MS,
        500 * MS,
        S,
        5 * S,
        30 * S,
        60 * S,
        300 * S,
        3600 * S,
        86_400 * S,
    ],
    per_unit: 1e9,
};

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind,
        labels,
        help,
    }
}

/// Declares the metrics, and the list of all.
macro_rules! families {
    ($($id:ident = $name:literal $kind:expr, [$($label:literal),*], $help:literal;)+) => {
        $(pub(super) static $id: Family = family($name, $kind, &[$($label),*], $help);)+
        #[cfg(test)]
        pub(super) static ALL: &[&Family] = &[$(&$id),+];
    };
}

use Kind::{Counter, Gauge, Histogram};

families! {
    BUILD_INFO = "postrider_build_info" Gauge, ["version"],
        "Always 1; says which version runs.";
    GATEWAYS = "postrider_gateways" Gauge, [],
        "Gateways alive on the database, this one included.";

    REQUESTS = "postrider_http_requests_total" Counter, ["operation", "status"],
        "Requests answered, by operation of the OpenAPI document and status.";
    REQUEST_SECONDS = "postrider_http_request_duration_seconds" Histogram(SHORT), ["operation"],
        "From a request's headers to its answer, without the time a receive waited for messages.";
    IN_FLIGHT = "postrider_http_requests_in_flight" Gauge, ["operation"],
        "Requests in hand, receives that wait for messages included.";
    RECEIVE_WAIT = "postrider_receive_wait_seconds" Histogram(LONG), [],
        "How long receives that found nothing waited, until a claim brought something or in vain.";

    MESSAGES = "postrider_queue_messages" Gauge, ["queue", "state"],
        "Messages in a queue that are ready, leased, delayed or dead letters.";
    OLDEST_READY = "postrider_queue_oldest_ready_age_seconds" Gauge, ["queue"],
        "Since the publish of the oldest of the next messages to be received; 0 if none is ready.";
    CONSUMERS = "postrider_queue_consumers" Gauge, ["queue"],
        "Receivers that wait, at any gateway, and receives that hold leases.";
    PUBLISHED = "postrider_queue_published_total" Counter, ["queue"],
        "Messages stored.";
    DELIVERED = "postrider_queue_delivered_total" Counter, ["queue"],
        "Leases given.";
    ACKED = "postrider_queue_acked_total" Counter, ["queue"],
        "Messages acked.";
    NACKED = "postrider_queue_nacked_total" Counter, ["queue"],
        "Messages given back by a nack, or by a webhook whose push failed.";
    FAILED = "postrider_queue_failed_attempts_total" Counter, ["queue"],
        "Attempts that failed: nacks, and leases that ran out.";
    DEAD_LETTERED = "postrider_queue_dead_lettered_total" Counter, ["queue"],
        "Messages that became dead letters.";
    EXPIRED = "postrider_queue_expired_total" Counter, ["queue"],
        "Messages dropped because their time to live had passed.";
    REMOVED = "postrider_queue_removed_total" Counter, ["queue"],
        "Messages purged, cancelled or dropped.";

    FIRST_DELIVERY = "postrider_publish_to_first_delivery_seconds" Histogram(LONG), [],
        "From a message's publish to its first lease, a delay it was published with included.";
    LEASE_TO_ACK = "postrider_lease_to_ack_seconds" Histogram(LONG), [],
        "From a message's lease to its ack.";

    PUSHES = "postrider_webhook_attempts_total" Counter, ["queue", "outcome"],
        "Pushes to a queue's webhook that were delivered, failed, told to wait, or met a 410.";
    PUSH_SECONDS = "postrider_webhook_attempt_duration_seconds" Histogram(SHORT), ["queue"],
        "Time of one push, from connecting to the end of the answer.";
    BREAKER = "postrider_webhook_breaker_state" Gauge, ["queue"],
        "Circuit breaker of a queue's webhook: 0 closed, 1 half-open or recovering, 2 open.";

    BATCH_ROWS = "postrider_batch_rows" Histogram(ROWS), ["verb"],
        "Messages that one statement dealt with.";
    BATCH_SECONDS = "postrider_batch_duration_seconds" Histogram(SHORT), ["verb"],
        "Time of one statement.";
    BATCH_WAIT = "postrider_batch_wait_seconds" Histogram(SHORT), ["verb"],
        "How long the first request of a statement waited for it.";

    DATABASE_UP = "postrider_database_up" Gauge, [],
        "Whether the database answered when this scrape, or one shortly before, asked it.";
    CONNECTIONS = "postrider_database_connections" Gauge, ["pool", "state"],
        "Open connections to the database, idle or busy.";
    MOST_CONNECTIONS = "postrider_database_connections_max" Gauge, ["pool"],
        "Connections that a pool may open.";
    ACQUIRE_SECONDS = "postrider_database_acquire_duration_seconds" Histogram(SHORT), ["pool"],
        "How long a statement waited for a connection.";

    VIOLATIONS = "postrider_watermark_violations_total" Counter, ["table"],
        "Places in which the sweep found a message where nobody looks any more; must stay 0.";
    VACUUMS = "postrider_vacuums_total" Counter, [],
        "Vacuums of the narrow tables by this gateway.";
    VACUUM_SECONDS = "postrider_vacuum_duration_seconds" Histogram(SHORT), [],
        "Time of one vacuum of the narrow tables.";
    DEAD_ROWS = "postrider_dead_rows" Gauge, ["table"],
        "Dead rows of a narrow table, as Postgres' statistics have it.";
    OLDEST_SNAPSHOT = "postrider_oldest_snapshot_age_seconds" Gauge, [],
        "How long somebody has kept dead rows from being vacuumed, as /v1/health/storage has it.";

    CPU = "process_cpu_seconds_total" Counter, [],
        "Processor time of the gateway, user and system.";
    OPEN_FDS = "process_open_fds" Gauge, [],
        "Open file descriptors of the gateway.";
    MAX_FDS = "process_max_fds" Gauge, [],
        "File descriptors that the gateway may open.";
    VIRTUAL_BYTES = "process_virtual_memory_bytes" Gauge, [],
        "Address space of the gateway.";
    RESIDENT_BYTES = "process_resident_memory_bytes" Gauge, [],
        "Memory of the gateway.";
    START_TIME = "process_start_time_seconds" Gauge, [],
        "When the gateway started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_only_they_end_in_total_and_times_in_seconds() {
        for family in ALL {
            let name = family.name;
            let is_counter = matches!(family.kind, Kind::Counter);
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            if let Kind::Histogram(scale) = family.kind {
                assert_eq!(name.ends_with("_seconds"), scale.per_unit > 1.0, "{name}");
                assert!(scale.bounds.is_sorted(), "{name}");
            }
            assert!(family.help.ends_with('.'), "{name}");
        }
    }
}
