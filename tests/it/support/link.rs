//! The way between a gateway and Postgres, to be cut and mended.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Database;

/// Passes connections on to Postgres, until it is cut.
pub(crate) struct Link {
    url: reqwest::Url,
    postgres: SocketAddr,
    address: SocketAddr,
    /// Aborted when this is dropped, which cuts all connections.
    running: JoinSet<()>,
}

impl Link {
    pub(crate) async fn to(database: &Database) -> Self {
        let mut url: reqwest::Url = database.url().parse().unwrap();
        let postgres = SocketAddr::from(([127, 0, 0, 1], url.port().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        url.set_port(Some(address.port())).unwrap();
        Self {
            url,
            postgres,
            address,
            running: pass_on(listener, postgres),
        }
    }

    /// The database's URL, through this.
    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Postgres is away from now on: what was connected is reset, and nothing
    /// connects.
    pub(crate) async fn cut(&mut self) {
        self.running.shutdown().await;
    }

    /// And back.
    pub(crate) async fn mend(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.running = pass_on(listener, self.postgres);
    }

    /// And another server is there, with a database of the same name.
    pub(crate) async fn mend_to(&mut self, database: &Database) {
        let url: reqwest::Url = database.url().parse().unwrap();
        self.postgres.set_port(url.port().unwrap());
        self.mend().await;
    }
}

fn pass_on(listener: TcpListener, to: SocketAddr) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                // Either side may go away.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    tasks
}
