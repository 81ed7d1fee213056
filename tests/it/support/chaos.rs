//! A network between a gateway and Postgres that plays tricks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Database;

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Weather {
    /// They pass.
    Fair,
    /// They pass after so long.
    Slow(Duration),
    /// They vanish, both ways, and so does what comes later on the same
    /// connection: the other side is not told.
    Silent,
    /// What the server says vanishes, and so does what comes later.
    NoAnswers,
    /// Of what the server says next on a connection so many bytes pass, then the
    /// connection is cut.
    Halfway(usize),
    /// New connections are cut at once.
    Refusing,
}

/// Stands between a gateway and its database.
pub(crate) struct Chaos {
    url: reqwest::Url,
    sky: Arc<Sky>,
    /// Aborted when this is dropped, which cuts all connections.
    _connections: JoinSet<()>,
}

struct Sky {
    weather: Mutex<Weather>,
    /// Connections up to this number are silent, whatever the weather.
    silent_to: AtomicU64,
    made: AtomicU64,
    /// Cancelled to cut all connections there are.
    cut: Mutex<CancellationToken>,
}

impl Chaos {
    pub(crate) async fn over(database: &Database) -> Self {
        let mut url: reqwest::Url = database.url().parse().unwrap();
        let postgres = SocketAddr::from(([127, 0, 0, 1], url.port().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port()))
            .unwrap();
        let sky = Arc::new(Sky {
            weather: Mutex::new(Weather::Fair),
            silent_to: AtomicU64::new(0),
            made: AtomicU64::new(0),
            cut: Mutex::default(),
        });
        let mut connections = JoinSet::new();
        let above = Arc::clone(&sky);
        connections.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let sky = Arc::clone(&above);
                all.spawn(async move { sky.connect(client, postgres).await });
            }
        });
        Self {
            url,
            sky,
            _connections: connections,
        }
    }

    /// The database's URL, through this.
    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// From now on, on old connections and new ones.
    pub(crate) fn weather(&self, weather: Weather) {
        *self.sky.weather.lock().unwrap() = weather;
    }

    /// On all connections there are nothing passes any more, and nobody is told;
    /// new ones are as the weather is.
    pub(crate) fn silence_old(&self) {
        let made = self.sky.made.load(Ordering::SeqCst);
        self.sky.silent_to.store(made, Ordering::SeqCst);
    }

    /// Resets all connections there are.
    pub(crate) fn reset(&self) {
        let mut cut = self.sky.cut.lock().unwrap();
        std::mem::take(&mut *cut).cancel();
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> u64 {
        self.sky.made.load(Ordering::SeqCst)
    }
}

impl Sky {
    async fn connect(&self, mut client: TcpStream, to: SocketAddr) {
        let number = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        let cut = self.cut.lock().unwrap().clone();
        if self.weather() != Weather::Refusing {
            let mut server = TcpStream::connect(to).await.unwrap();
            for socket in [&client, &server] {
                socket.set_nodelay(true).unwrap();
            }
            let ((from_client, to_client), (from_server, to_server)) =
                (client.split(), server.split());
            tokio::select! {
                () = self.pass(number, from_client, to_server, false) => {}
                () = self.pass(number, from_server, to_client, true) => {}
                () = cut.cancelled() => {}
            }
        }
        // Not a polite end.
        let _ = client.set_zero_linger();
    }

    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap()
    }

    /// Returns when the connection is to be cut.
    async fn pass(
        &self,
        number: u64,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        is_answer: bool,
    ) {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut bytes).await.unwrap_or(0);
            let mut weather = self.weather();
            if number <= self.silent_to.load(Ordering::SeqCst) {
                weather = Weather::Silent;
            }
            match weather {
                Weather::Silent => Self::silence(&mut from).await,
                Weather::NoAnswers if is_answer => Self::silence(&mut from).await,
                Weather::Halfway(most) if is_answer => {
                    let _ = to.write_all(&bytes[..read.min(most)]).await;
                    return;
                }
                Weather::Slow(delay) => tokio::time::sleep(delay).await,
                _ => {}
            }
            if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    }

    /// Swallows everything, for ever. What went missing is never made up for.
    async fn silence<T>(from: &mut (impl AsyncRead + Unpin)) -> T {
        let mut bytes = vec![0; 64 * 1024];
        while from.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
        std::future::pending().await
    }
}
