//! Requests that have their effect once, however often they are sent: those with
//! an idempotency key.
//!
//! The effect and its answer commit together, in one transaction. So there is no
//! row that says "running", which a gateway that is killed would leave behind: who
//! runs has the key's advisory lock, which ends with his transaction, however that
//! ends. Who comes meanwhile is told so at once; nobody waits for a lock.
//!
//! Keys are kept for 24 hours, in a partition for each day.

use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::transaction::{End, Transaction};
use super::{Error, Store, statements};

statements! {
    TAKE_KEYS = "take_keys";
    KEEP_ANSWERS = "keep_answers";
    KEPT_ANSWER = "kept_answer";
}

/// A request that is to have its effect once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// Stands for its key: whose, for what, and which.
    pub digest: [u8; 32],
    /// Stands for what it asks for.
    pub fingerprint: [u8; 32],
}

/// What a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The HTTP status, of success.
    pub status: u16,
    /// Byte for byte.
    pub body: Vec<u8>,
}

/// What is known of a request with a key before it has its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: it is the first, and nobody else is at it until the transaction ends.
    New,
    /// Somebody is at it.
    Running,
    /// The key was used for something else.
    Reused,
    /// It has had its effect, and was answered this.
    Answered(Kept),
}

/// What came of it.
#[derive(Debug)]
pub enum Effect<T, R> {
    /// It has had an effect, and this is the answer that is kept.
    Done(T, Kept),
    /// It was refused: as if it had not been asked for.
    Refused(R),
}

impl Once {
    /// What is known, from a row of a key that was looked up.
    fn seen(&self, row: &PgRow) -> Result<Option<Seen>, Error> {
        let Some(fingerprint) = row.try_get::<Option<&[u8]>, _>("fingerprint")? else {
            return Ok(None);
        };
        if fingerprint != self.fingerprint {
            return Ok(Some(Seen::Reused));
        }
        Ok(Some(Seen::Answered(Kept {
            status: u16::try_from(row.try_get::<i16, _>("status")?).unwrap_or(200),
            body: row.try_get("answer")?,
        })))
    }

    /// The advisory lock of whoever is at it.
    fn lock(&self) -> i64 {
        let mut number = [0; 8];
        number.copy_from_slice(&self.digest[..8]);
        i64::from_be_bytes(number)
    }
}

impl Transaction {
    /// What is known of these requests. Those that are new are this transaction's
    /// until it ends.
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn take(&mut self, requests: &[Once]) -> Result<Vec<Seen>, Error> {
        let digests: Vec<&[u8]> = requests.iter().map(|once| &once.digest[..]).collect();
        let locks: Vec<i64> = requests.iter().map(Once::lock).collect();
        let query = sqlx::query(TAKE_KEYS).bind(digests).bind(locks);
        let rows = self.on()?.fetch_all(query).await?;
        let mut seen = Vec::with_capacity(requests.len());
        for (at, (row, once)) in rows.iter().zip(requests).enumerate() {
            let known = once.seen(row)?;
            let is_free: bool = row.try_get("taken")?;
            // A lock that one has can be had again: of two with one key in the
            // same transaction it is the first who is at it.
            let comes_again = requests[..at].iter().any(|o| o.digest == once.digest);
            seen.push(match known {
                Some(known) => known,
                None if is_free && !comes_again => Seen::New,
                None => Seen::Running,
            });
        }
        Ok(seen)
    }

    /// Keeps answers to requests that were new to this transaction.
    ///
    /// # Errors
    /// Any; the transaction has failed.
    pub async fn keep(&mut self, answers: &[(Once, &Kept)]) -> Result<(), Error> {
        if answers.is_empty() {
            return Ok(());
        }
        let column = |of: fn(&Once) -> &[u8; 32]| -> Vec<&[u8]> {
            answers.iter().map(|(once, _)| &of(once)[..]).collect()
        };
        let kept = || answers.iter().map(|(_, kept)| *kept);
        let query = sqlx::query(KEEP_ANSWERS)
            .bind(column(|once| &once.digest))
            .bind(column(|once| &once.fingerprint))
            .bind(kept().map(|k| k.status.cast_signed()).collect::<Vec<_>>())
            .bind(kept().map(|k| &k.body[..]).collect::<Vec<_>>());
        let rows = self.on()?.fetch_all(query).await?;
        if rows.len() == answers.len() {
            Ok(())
        } else {
            Err(Error::Conflict)
        }
    }
}

impl Store {
    /// Has an effect once: what came of it, or what is known of the request from
    /// before.
    ///
    /// # Errors
    /// Any; of [`Error::Unavailable`] it is not known whether it took effect. The
    /// same request may be sent again.
    pub async fn once<T: Send + 'static, R: Send + 'static>(
        &self,
        once: Once,
        effect: impl for<'t> Fn(&'t mut Transaction) -> BoxFuture<'t, Result<Effect<T, R>, Error>>
        + Clone
        + Send
        + Sync
        + 'static,
    ) -> Result<Result<Effect<T, R>, Seen>, Error> {
        self.transaction_again(move |transaction| {
            let effect = effect.clone();
            Box::pin(async move {
                match transaction.take(&[once]).await?.pop() {
                    Some(Seen::New) => {}
                    Some(seen) => return Ok(End::Rollback(Err(seen))),
                    None => return Err(Error::Conflict),
                }
                match effect(transaction).await? {
                    Effect::Done(done, kept) => {
                        transaction.keep(&[(once, &kept)]).await?;
                        Ok(End::Commit(Ok(Effect::Done(done, kept))))
                    }
                    refused @ Effect::Refused(_) => Ok(End::Rollback(Ok(refused))),
                }
            })
        })
        .await
    }

    /// What a request with a key was answered before; `None` if it was not, or was
    /// refused.
    ///
    /// # Errors
    /// Any.
    pub async fn answered(&self, once: Once) -> Result<Option<Seen>, Error> {
        let row = sqlx::query(KEPT_ANSWER)
            .bind(&once.digest[..])
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map_or(Ok(None), |row| once.seen(row))
    }
}
