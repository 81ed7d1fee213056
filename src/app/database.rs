//! Where the messages are: a Postgres that somebody else runs, or one of our own;
//! and what a gateway must have from it before it can serve.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Auth, Config};
use crate::domain::{KeyHasher, Scope, Scopes, SealingKey};
use crate::embedded::{self, Embedded};
use crate::secrets;
use crate::store::{self, ConnectOptions, NewApiKey, Store};

/// Where the messages are.
#[derive(Debug)]
pub struct Database {
    options: ConnectOptions,
    pub(super) description: String,
    private: Option<Private>,
}

/// A database that is ready, and what a gateway reads there once.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) secret: Vec<u8>,
    pub(super) gaps: Vec<String>,
    /// Made now.
    pub(super) admin_key: Option<String>,
}

/// A private Postgres and the task that watches over it.
#[derive(Debug)]
struct Private {
    /// Not always the one that was asked for.
    data_dir: PathBuf,
    stop: CancellationToken,
    watch: JoinHandle<Result<(), embedded::Error>>,
}

impl Database {
    /// The one that the configuration names, or a private one, started.
    ///
    /// # Errors
    /// [`embedded::Error`].
    pub async fn open(config: &Config) -> Result<Self, embedded::Error> {
        if let Some(url) = &config.database_url {
            return Ok(Self {
                options: url.options(),
                description: format!("database: {url}"),
                private: None,
            });
        }
        let postgres = Embedded::start(embedded::Options {
            data_dir: config.data_dir.clone(),
            fallback_dir: config
                .data_dir_is_default
                .then(|| embedded::SYSTEM_DATA_DIR.into()),
            bin_dir: config.pg_bin.clone(),
        })
        .await?;
        let stop = CancellationToken::new();
        Ok(Self {
            options: Store::socket_options(postgres.socket_dir(), postgres.user()),
            description: format!(
                "database: private Postgres {} in {}",
                postgres.version(),
                postgres.data_dir().display()
            ),
            private: Some(Private {
                data_dir: postgres.data_dir().to_owned(),
                watch: TaskTracker::new().spawn(postgres.supervise(stop.clone())),
                stop,
            }),
        })
    }

    /// A store on it, its schema up to date. Waits while the database is away,
    /// saying so.
    ///
    /// # Errors
    /// What waiting does not mend: no such database, wrong password, a schema
    /// that is newer.
    pub async fn store(&self, config: &Config) -> Result<Store, store::Error> {
        Ok(self.opened(config, None).await?.store)
    }

    /// The same, and what a gateway has to know. `address` is where it listens
    /// meanwhile.
    pub(super) async fn opened(
        &self,
        config: &Config,
        address: Option<SocketAddr>,
    ) -> Result<Opened, store::Error> {
        let store = Store::new(
            self.options.clone(),
            config.database_connections,
            config.partition_messages,
        );
        let mut attempt = 0u32;
        loop {
            let opened = async {
                store.migrate().await?;
                let secret = store.secret().await?;
                let gaps = store.durability_gaps().await?;
                // The last, since it can be told only once.
                let admin_key = match (address, config.auth) {
                    (Some(_), Auth::Required) => first_admin_key(&store, &secret).await?,
                    _ => None,
                };
                Ok::<_, store::Error>((secret, gaps, admin_key))
            };
            match opened.await {
                Ok((secret, gaps, admin_key)) => {
                    return Ok(Opened {
                        store,
                        secret,
                        gaps,
                        admin_key,
                    });
                }
                Err(error) if error.may_pass() && !error.is_refused() => {
                    if attempt.is_multiple_of(10) {
                        tracing::warn!("{}; waiting for it: {error}", self.description);
                    }
                    if let Some(address) = address.filter(|_| attempt == 0) {
                        tracing::info!("listening on {address}, to say that it waits");
                    }
                    attempt += 1;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The key that seals webhooks' secrets; `None` if nobody gave one for a
    /// database that is not ours.
    ///
    /// # Errors
    /// [`secrets::Error`].
    pub(super) fn sealing_key(
        &self,
        config: &Config,
    ) -> Result<Option<SealingKey>, secrets::Error> {
        let data_dir = self
            .private
            .as_ref()
            .map(|private| private.data_dir.as_path());
        secrets::sealing_key(config.secret_key_file.as_deref(), data_dir)
    }

    /// Stops it, if it is ours.
    ///
    /// # Errors
    /// [`embedded::Error`].
    pub async fn close(self) -> Result<(), embedded::Error> {
        let Some(private) = self.private else {
            return Ok(());
        };
        private.stop.cancel();
        match private.watch.await {
            Ok(result) => result,
            Err(panic) => {
                tracing::error!(%panic, "the watch over the private Postgres ended");
                Ok(())
            }
        }
    }
}

/// The first key of a database: whoever starts a gateway on it first gets it.
async fn first_admin_key(store: &Store, secret: &[u8]) -> Result<Option<String>, store::Error> {
    let new = KeyHasher::new(secret).make(None, rand::random(), rand::random());
    let made = store
        .create_first_api_key(&admin(&new.id, &new.hash))
        .await?;
    Ok(made.then_some(new.key))
}

/// Another admin key.
///
/// # Errors
/// Any.
pub async fn another_admin_key(store: &Store) -> Result<String, store::Error> {
    let secret = store.secret().await?;
    let new = KeyHasher::new(&secret).make(None, rand::random(), rand::random());
    store.create_api_key(&admin(&new.id, &new.hash)).await?;
    Ok(new.key)
}

fn admin<'a>(id: &'a str, hash: &'a [u8; 32]) -> NewApiKey<'a> {
    static ADMIN: LazyLock<Scopes> = LazyLock::new(|| Scopes(vec![Scope::Admin]));
    NewApiKey {
        id,
        name: "admin",
        hash,
        scopes: &ADMIN,
        rate: None,
        expires_in: None,
    }
}
