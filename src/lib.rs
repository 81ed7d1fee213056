//! Message queues over plain HTTP, kept in Postgres. This page is the map.
//!
//! # Words
//!
//! - A **message** is what a producer publishes: a body with some properties. It
//!   lives in a **queue**, from its publish until it is acked, expired, purged,
//!   or removed from the dead letters.
//! - A **topic** is published to with a routing key, and holds no messages that
//!   wait: a **subscription** binds it to a queue, which gets each message that
//!   the subscription's filter takes. A topic may retain its messages for a
//!   time, as a **stream** that is read without taking.
//! - A **schema** says what bodies have to be that are published to a queue or
//!   topic. It has numbered **versions**, one of which may be in force.
//! - A **delivery** gives a message to a **consumer**, under a **lease**: until
//!   the lease ends, by the database's clock, nobody else gets the message.
//! - A **receipt** names one lease. Whoever shows it **settles** the delivery:
//!   **ack** (done), **nack** (give back), or **extend**s the lease.
//! - An **attempt** is one delivery, counted from 1. A delivery that is nacked,
//!   or whose lease runs out, is a failed attempt.
//! - A **disposition** is what becomes of a message after a failed attempt: back
//!   to the queue at some time, or to the **dead letters**, from which a
//!   **redrive** brings it back.
//! - A **key** says which messages belong together. In an ordered queue, and for
//!   fair messages, those of one key stand in a **line** and have their **turn** one
//!   after the other ([`store::Turn`]).
//! - A **webhook** is a consumer that the gateways run: it pushes the messages of
//!   its queue to a URL. Its **lane** is the right to do so, which one gateway at
//!   a time owns ([`store::Lane`]), so that its limits hold over all gateways. Its
//!   **breaker** ([`domain::Breaker`]) is *closed* while pushes go out and *open*
//!   while none does, because too many failed.
//! - A **request** is a message whose publisher waits for a **reply**; whoever has
//!   received it answers and acks it in one ([`domain::Asked`]).
//! - A consumer's **claim** is the right to do a thing that must be done once
//!   ([`store::Store::take_claim`]); not to be taken for [`store::Store::claim`],
//!   which leases messages.
//! - A **schedule** publishes a message at the times that a pattern of cron names,
//!   its **ticks**: each once, over all gateways.
//! - The **SQL door** is two functions in the database: an application publishes
//!   with them in a transaction of its own, and a gateway takes what was committed
//!   from there.
//! - A **gateway** is one process of this program. Any number of them share one
//!   Postgres and know of each other only through it.
//!
//! # The life of a message
//!
//! 1. **Publish.** [`http`] parses the request; [`domain::Message::check`] makes
//!    it valid or says what is wrong, and so does [`domain::Schema::check`] where there
//!    is a schema; [`batch::Broker::publish`] joins it with
//!    what others publish at the same moment; [`store::Store::publish`] stores
//!    them in one statement (`store/sql/publish.sql`): a wide row in `messages`,
//!    which never moves, and a narrow one in `ready`, or in `parked` if the
//!    message has to wait. Postgres has committed and flushed when the producer
//!    gets its 201.
//!    Where receivers wait at this gateway and nothing is ready, it is leased to the
//!    first of them by the same statement (`batch/receivers/handover.rs`): steps 2 and
//!    3 are left out.
//!    In an ordered queue, and if it is fair, a message with a key goes to the end
//!    of its key's line in `lined_up` instead, until [`store::Store::next_turns`]
//!    lets it out (`publish_lined.sql`, `next_turn.sql`).
//!    A publish to a topic first finds its way: [`store::Topology::route`] asks
//!    every subscription's [filter](domain::Filter). Then
//!    [`store::Store::publish_topic`] stores the wide row once and a narrow one
//!    for each queue (`publish_topic.sql`); from here on each copy has a life of
//!    its own.
//!    What came through the SQL door, and what a schedule has due, is stored by
//!    the same statements, in one transaction with its removal
//!    ([`store::Store::look_at_door`]) or with the schedule's next tick
//!    ([`store::Store::fire_schedules`]).
//! 2. **Wake.** Receivers that wait at this gateway are served at once; others
//!    hear of it from [`workers`], over NOTIFY.
//! 3. **Claim.** [`store::Store::claim`] moves narrow rows from `ready` to
//!    `parked`, with the lease's token and end, for all waiting receivers of the
//!    queue at once (`claim.sql`).
//! 4. **Deliver.** The consumer gets the body as it came, and a
//!    [receipt](domain::ReceiptKey).
//! 5. **Ack.** [`store::Store::ack`] deletes the narrow row (`ack.sql`). The body
//!    stays until its whole partition is dropped.
//! 6. **Decide.** If it ends otherwise (nack, lease run out, time to live over)
//!    [`domain::decide`] says what becomes of it, and
//!    [`store::Store::settle`] does it (`settle.sql`).
//! 7. **Promote.** What waits in `parked` is made ready at its time by the
//!    promote worker (`due.sql`), at the tail of its queue.
//!
//! # The rooms
//!
//! | module | owns | sees |
//! | --- | --- | --- |
//! | [`domain`] | the rules, pure | nothing |
//! | [`store`] | Postgres: the only place that knows sqlx | `domain`, `metrics` |
//! | [`batch`] | group commit, waiting receivers | `domain`, `store`, `metrics`, `spans` |
//! | [`http`] | the interface: the only place that knows axum and utoipa | `domain`, `store`, `batch`, `metrics`, `webhook`, `spans`, `telemetry` |
//! | [`webhook`] | pushes: the only place that knows the outbound HTTP client | `domain` |
//! | [`workers`] | what runs besides requests | `domain`, `store`, `batch`, `metrics`, `webhook`, `spans` |
//! | [`embedded`] | the private Postgres | nothing |
//! | [`metrics`] | all metrics: what they are called, and their numbers | nothing |
//! | [`spans`] | traces: the only place that knows OpenTelemetry | `domain` |
//! | [`secrets`] | the key file that webhooks' secrets are sealed with | `domain` |
//! | [`config`], [`telemetry`] | settings, logging | `domain`, `store`, `metrics` for their options |
//! | [`app`] | the wiring: start and drain in order | all |
//!
//! Read a verb from top to bottom: `http/publish.rs`, `domain/message.rs`,
//! `store/publish.rs`, `store/sql/publish.sql`.

pub mod app;
pub mod batch;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod http;
pub mod metrics;
pub mod secrets;
pub mod spans;
pub mod store;
pub mod telemetry;
pub mod webhook;
pub mod workers;
