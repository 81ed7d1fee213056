//! Gateways knowing of each other, and what they tell each other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sqlx::Row as _;
use sqlx::postgres::{PgListener, PgPoolOptions};

use super::{CONNECT, Error, SESSION, Store, connect, statements};

statements! {
    HEARTBEAT = "heartbeat";
}

/// The channel that all gateways listen on.
const CHANNEL: &str = "postrider_ready";

/// After so long without a word the connection is tried: it may be dead, and
/// nothing else would ever tell.
const QUIET: Duration = Duration::from_secs(30);

/// How long it may take to answer.
const ASKING: Duration = Duration::from_secs(5);

impl Store {
    /// Says that this gateway lives and how many receivers wait here; asks along
    /// what has to be known every two seconds. Reads the version of the API keys
    /// and the time too.
    ///
    /// # Errors
    /// Any.
    pub async fn heartbeat(
        &self,
        gateway_id: i64,
        waiting: &HashMap<i64, usize>,
    ) -> Result<Beat, Error> {
        let door = self.door.since();
        let asked = Instant::now();
        let row = sqlx::query(HEARTBEAT)
            .bind(gateway_id)
            .bind(sqlx::types::Json(waiting))
            .bind(&door.xmax)
            .bind(&door.running)
            .bind(door.seconds)
            .bind(self.schedules.seconds())
            .fetch_one(&self.pool)
            .await?;
        self.keys_version.note(row.try_get("keys_version")?, asked);
        self.clock.note(row.try_get("now")?, asked);
        Ok(Beat {
            others: row.try_get("others")?,
            door: self.door.note(&door, &row)?,
            next_run_in: row
                .try_get::<Option<i64>, _>("next_run_in_ms")?
                .map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
        })
    }

    /// Takes this gateway off the list.
    ///
    /// # Errors
    /// Any.
    pub async fn farewell(&self, gateway_id: i64) -> Result<(), Error> {
        sqlx::query("DELETE FROM postrider.gateways WHERE id = $1")
            .bind(gateway_id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Tells the other gateways that these queues have messages ready, and that
    /// there are replies to these requests; nothing at all is a greeting. A hint: it
    /// may be lost.
    ///
    /// # Errors
    /// Any.
    pub async fn announce(&self, gateway_id: i64, news: &News) -> Result<(), Error> {
        let is_greeting = news.queues.is_empty() && news.replies.is_empty();
        // A payload holds 8,000 bytes; 300 ids of 20 digits fit.
        let queues = news
            .queues
            .chunks(300)
            .chain(is_greeting.then_some(&[][..]))
            .map(|some| (QUEUES, some));
        let replies = news.replies.chunks(300).map(|some| (REPLIES, some));
        for (kind, some) in queues.chain(replies) {
            let ids: Vec<String> = some.iter().map(i64::to_string).collect();
            sqlx::query("SELECT pg_notify($1, $2)")
                .bind(CHANNEL)
                .bind(format!("{gateway_id}{kind}{}", ids.join(",")))
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// Listens to the other gateways, on a connection of its own.
    ///
    /// # Errors
    /// Any.
    pub async fn announcements(&self, gateway_id: i64) -> Result<Announcements, Error> {
        let session = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(SESSION).execute(connection).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(self.pool.options().clone());
        let mut listener = PgListener::connect_with(&session).await?;
        listener.listen(CHANNEL).await?;
        Ok(Announcements {
            listener,
            gateway_id,
        })
    }
}

/// What the functions of the SQL door tell (`migrations/0014_door.sql`).
const DOOR: &str = "door:";

/// What stands between the teller and the ids in an announcement of queues.
const QUEUES: char = ':';

/// The same of replies.
const REPLIES: char = ';';

/// What a gateway tells.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct News {
    /// Queues with messages that became ready.
    pub queues: Vec<i64>,
    /// The first halves of the ids of requests that were answered.
    pub replies: Vec<i64>,
}

impl News {
    /// Reads an announcement: who tells, and what.
    fn read(payload: &str) -> Option<(&str, Self)> {
        let (from, ids) = payload.split_once([QUEUES, REPLIES])?;
        let is_of_replies = payload[from.len()..].starts_with(REPLIES);
        let ids = ids.split(',').filter_map(|id| id.parse().ok()).collect();
        let mut news = Self::default();
        if is_of_replies {
            news.replies = ids;
        } else {
            news.queues = ids;
        }
        Some((from, news))
    }
}

/// What a heartbeat has found.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// Whether other gateways live.
    pub others: bool,
    /// Whether something has come through the SQL door.
    pub door: bool,
    /// How long until the next tick of a schedule; `None`: there is none.
    pub next_run_in: Option<Duration>,
}

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// Another gateway; nothing in it is a greeting.
    News(News),
    /// Something has come through the SQL door.
    Door,
}

/// What other gateways tell, and the SQL door.
#[derive(Debug)]
pub struct Announcements {
    listener: PgListener,
    gateway_id: i64,
}

impl Announcements {
    /// The next announcement. `None` when the connection was lost in between:
    /// what was said meanwhile is lost.
    ///
    /// # Errors
    /// Any; the caller connects anew.
    pub async fn next(&mut self) -> Result<Option<Heard>, Error> {
        loop {
            // Reading is all it does, so it can be broken off.
            let Ok(heard) = tokio::time::timeout(QUIET, self.listener.try_recv()).await else {
                let asking = sqlx::raw_sql("SELECT 1").execute(&mut self.listener);
                connect::in_time(ASKING, asking).await?;
                continue;
            };
            let Some(notification) = heard? else {
                return Ok(None);
            };
            if notification.payload() == DOOR {
                return Ok(Some(Heard::Door));
            }
            match News::read(notification.payload()) {
                Some((from, news)) if from != self.gateway_id.to_string() => {
                    return Ok(Some(Heard::News(news)));
                }
                _ => {}
            }
        }
    }
}
