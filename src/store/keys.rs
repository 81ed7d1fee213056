//! API keys as they are stored: hashes only.
//!
//! Gateways keep keys in memory. So that a revoked one ends everywhere within
//! seconds, each change that takes something away moves `cluster.keys_version`,
//! which every gateway reads with its heartbeat; a key is only used from memory
//! if it was read under the newest version that is known, and either that or the
//! heartbeat is recent ([`KeysVersion::vouches_for`]).

use std::sync::RwLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{Error, Store};
use crate::domain::{Scope, Scopes, Seconds};

/// An API key.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// The part that is no secret.
    pub id: String,
    /// What its maker calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// How often it may be used at each gateway.
    pub rate: Option<KeyRate>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when it is no good any more.
    pub expires_at: Option<DateTime<Utc>>,
    /// Its last request, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Until when the key before the last rotation is good, too.
    pub previous_expires_at: Option<DateTime<Utc>>,
}

/// A key's rate limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyRate {
    /// Requests a second.
    pub per_second: f64,
    /// Requests that may come at once.
    pub burst: u32,
}

/// A key as one is checked against it.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// The key.
    pub key: ApiKey,
    /// The hash of its secret.
    pub hash: [u8; 32],
    /// That of the secret before the last rotation, while it is good, and for
    /// how long that is.
    pub previous: Option<([u8; 32], Duration)>,
    /// For how long it is good; `None` is for ever.
    pub good_for: Option<Duration>,
    /// The version of all keys that it was read under.
    pub version: i64,
}

/// A key to store.
#[derive(Debug)]
pub struct NewApiKey<'a> {
    /// Its id.
    pub id: &'a str,
    /// What its maker calls it.
    pub name: &'a str,
    /// The hash of its secret.
    pub hash: &'a [u8; 32],
    /// What it may do.
    pub scopes: &'a Scopes,
    /// How often it may be used.
    pub rate: Option<KeyRate>,
    /// For how long it is good; `None` is for ever.
    pub expires_in: Option<Seconds>,
}

/// What became of a key to revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedKey {
    /// It is gone.
    Gone,
    /// There is none.
    Missing,
    /// It is the only admin key, and stays.
    LastAdmin,
}

/// What is known of the version of all keys.
#[derive(Debug, Default)]
pub struct KeysVersion(RwLock<Option<(i64, Instant)>>);

/// How old what is known of a key may be: with the gap between two heartbeats a
/// revoked key is refused everywhere within 5 s.
const VOUCHED: Duration = Duration::from_millis(4500);

impl KeysVersion {
    /// A heartbeat that began at `asked` has read this version.
    pub(super) fn note(&self, version: i64, asked: Instant) {
        let mut known = self
            .0
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if known.is_none_or(|(before, _)| before <= version) {
            *known = Some((version, asked));
        }
    }

    /// Whether a key that was read under `version` at `read` is still as it was.
    #[must_use]
    pub fn vouches_for(&self, version: i64, read: Instant) -> bool {
        let known = self
            .0
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let newest = match *known {
            Some((newest, _)) if newest > version => return false,
            Some((_, asked)) => asked.max(read),
            None => read,
        };
        newest.elapsed() < VOUCHED
    }
}

const COLUMNS: &str = "id, name, scopes, requests_per_second, burst, created_at, expires_at,
    last_used_at, CASE WHEN previous_expires_at > now() THEN previous_expires_at END
        AS previous_expires_at";

impl Store {
    /// The key with this id, if it has not expired.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn api_key(&self, id: &str) -> Result<Option<StoredKey>, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS}, hash, previous_hash, keys_version,
                extract(epoch FROM previous_expires_at - now())::double precision
                    AS previous_good_for,
                extract(epoch FROM expires_at - now())::double precision AS good_for
             FROM postrider.api_keys, postrider.cluster
             WHERE id = $1 AND (expires_at IS NULL OR expires_at > now())"
        )))
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            let previous = match (
                row.try_get::<Option<Vec<u8>>, _>("previous_hash")?,
                duration(&row, "previous_good_for")?,
            ) {
                (Some(hash), Some(left)) if left > Duration::ZERO => Some((sha256(&hash)?, left)),
                _ => None,
            };
            Ok(StoredKey {
                key: api_key(&row)?,
                hash: sha256(row.try_get("hash")?)?,
                previous,
                good_for: duration(&row, "good_for")?,
                version: row.try_get("keys_version")?,
            })
        })
        .transpose()
    }

    /// Stores a key.
    ///
    /// # Errors
    /// Any.
    pub async fn create_api_key(&self, new: &NewApiKey<'_>) -> Result<ApiKey, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "INSERT INTO postrider.api_keys
                (id, name, hash, scopes, requests_per_second, burst, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, now() + $7 * interval '1 ms')
             RETURNING {COLUMNS}"
        )))
        .bind(new.id)
        .bind(new.name)
        .bind(&new.hash[..])
        .bind(texts(new.scopes))
        .bind(new.rate.map(|rate| rate.per_second))
        .bind(new.rate.map(|rate| rate.burst.cast_signed()))
        .bind(new.expires_in.map(Seconds::as_millis))
        .fetch_one(&self.pool)
        .await?;
        api_key(&row)
    }

    /// Stores the first key of this database, once in its life. Whether it was
    /// this time: of several gateways that start together it is one's.
    ///
    /// # Errors
    /// Any.
    pub async fn create_first_api_key(&self, new: &NewApiKey<'_>) -> Result<bool, Error> {
        let done = sqlx::query(
            "WITH first AS (
                UPDATE postrider.cluster SET first_key_made = true WHERE NOT first_key_made
                RETURNING true
             )
             INSERT INTO postrider.api_keys (id, name, hash, scopes)
             SELECT $1, $2, $3, $4 FROM first",
        )
        .bind(new.id)
        .bind(new.name)
        .bind(&new.hash[..])
        .bind(texts(new.scopes))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Up to `limit` keys in order of id, from behind `after`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn list_api_keys(&self, after: &str, limit: i64) -> Result<Vec<ApiKey>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM postrider.api_keys WHERE id > $1 ORDER BY id LIMIT $2"
        )))
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(api_key).collect()
    }

    /// The key with this id, expired or not, without what it is checked against.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn find_api_key(&self, id: &str) -> Result<Option<ApiKey>, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM postrider.api_keys WHERE id = $1"
        )))
        .bind(id)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(api_key).transpose()
    }

    /// Gives a key another secret; the one it had is good for `overlap` more.
    ///
    /// # Errors
    /// Any.
    pub async fn rotate_api_key(
        &self,
        id: &str,
        hash: &[u8; 32],
        overlap: Seconds,
    ) -> Result<Option<ApiKey>, Error> {
        let asked = Instant::now();
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "WITH rotated AS (
                UPDATE postrider.api_keys
                SET previous_hash = hash, previous_expires_at = now() + $3 * interval '1 ms',
                    hash = $2
                WHERE id = $1 AND (expires_at IS NULL OR expires_at > now())
                RETURNING {COLUMNS}
             ), changed AS (
                UPDATE postrider.cluster SET keys_version = keys_version + 1
                WHERE EXISTS (SELECT FROM rotated)
                RETURNING keys_version
             )
             SELECT rotated.*, keys_version FROM rotated, changed"
        )))
        .bind(id)
        .bind(&hash[..])
        .bind(overlap.as_millis())
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            self.keys_version.note(row.try_get("keys_version")?, asked);
            api_key(&row)
        })
        .transpose()
    }

    /// Revokes a key: here at once, at other gateways within 5 s.
    ///
    /// The last admin key stays. (Two admin keys that revoke each other in the
    /// same instant both go: `postrider admin-key` makes another.)
    ///
    /// # Errors
    /// Any.
    pub async fn revoke_api_key(&self, id: &str) -> Result<RevokedKey, Error> {
        let asked = Instant::now();
        let row = sqlx::query(
            "WITH gone AS (
                DELETE FROM postrider.api_keys AS k
                WHERE id = $1
                  AND (NOT 'admin' = ANY (scopes) OR EXISTS (
                    SELECT FROM postrider.api_keys AS other
                    WHERE other.id <> k.id AND 'admin' = ANY (other.scopes)
                      AND (other.expires_at IS NULL OR other.expires_at > now())))
                RETURNING true
             ), changed AS (
                UPDATE postrider.cluster SET keys_version = keys_version + 1
                WHERE EXISTS (SELECT FROM gone)
                RETURNING keys_version
             )
             SELECT (SELECT keys_version FROM changed), EXISTS (SELECT FROM gone) AS gone,
                EXISTS (SELECT FROM postrider.api_keys WHERE id = $1) AS was_there",
        )
        .bind(id)
        .fetch_one(&self.pool)
        .await?;
        if let Some(version) = row.try_get("keys_version")? {
            self.keys_version.note(version, asked);
        }
        Ok(match (row.try_get("gone")?, row.try_get("was_there")?) {
            (true, _) => RevokedKey::Gone,
            (false, true) => RevokedKey::LastAdmin,
            (false, false) => RevokedKey::Missing,
        })
    }

    /// Notes that these keys were used within the last minute.
    ///
    /// # Errors
    /// Any.
    pub async fn note_key_uses(&self, ids: &[String]) -> Result<(), Error> {
        sqlx::query("UPDATE postrider.api_keys SET last_used_at = now() WHERE id = ANY ($1)")
            .bind(ids)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// What is known of the version of all keys.
    #[must_use]
    pub fn keys_version(&self) -> &KeysVersion {
        &self.keys_version
    }
}

fn texts(scopes: &Scopes) -> Vec<String> {
    scopes.0.iter().map(Scope::to_string).collect()
}

fn decode(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    sqlx::Error::Decode(Box::new(error)).into()
}

fn sha256(bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(decode)
}

/// From a number of seconds, which may be over.
fn duration(row: &PgRow, column: &str) -> Result<Option<Duration>, Error> {
    let seconds: Option<f64> = row.try_get(column)?;
    // What is further away than a Duration can tell never comes.
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()))
}

fn api_key(row: &PgRow) -> Result<ApiKey, Error> {
    let scopes: Vec<String> = row.try_get("scopes")?;
    let scopes: Result<_, _> = scopes.iter().map(|text| Scope::parse(text, "")).collect();
    let rate: (Option<f64>, Option<i32>) =
        (row.try_get("requests_per_second")?, row.try_get("burst")?);
    Ok(ApiKey {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        scopes: Scopes(scopes.map_err(decode)?),
        rate: match rate {
            (Some(per_second), Some(burst)) => Some(KeyRate {
                per_second,
                burst: burst.cast_unsigned(),
            }),
            _ => None,
        },
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
        previous_expires_at: row.try_get("previous_expires_at")?,
    })
}
