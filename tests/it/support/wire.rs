//! What a gateway and Postgres say to each other.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use postrider::store::Store;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Database;

/// Stands between a gateway and its database, and counts the statements that
/// pass: exactly and at once, which Postgres' own statistics do not.
pub(crate) struct Wire {
    url: reqwest::Url,
    heard: Arc<Mutex<Heard>>,
    /// Aborted when this is dropped, which cuts all connections.
    _connections: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    statements: Vec<String>,
    /// The same by connection, in the order in which they were made.
    sessions: Vec<Vec<String>>,
    warnings: Vec<String>,
}

impl Heard {
    fn statement(&mut self, session: usize, statement: String) {
        self.sessions[session].push(statement.clone());
        self.statements.push(statement);
    }
}

/// A message of the protocol: its type and what follows the length.
struct Message {
    kind: u8,
    body: Vec<u8>,
}

impl Wire {
    pub(crate) async fn tap(database: &Database) -> Self {
        let mut url: reqwest::Url = database.url().parse().unwrap();
        let postgres = SocketAddr::from(([127, 0, 0, 1], url.port().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port()))
            .unwrap();
        let heard = Arc::<Mutex<Heard>>::default();
        let mut connections = JoinSet::new();
        let hearing = Arc::clone(&heard);
        connections.spawn(async move {
            let mut both_ways = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(postgres).await.unwrap();
                for socket in [&client, &server] {
                    socket.set_nodelay(true).unwrap();
                }
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let (asked, answered) = (Arc::clone(&hearing), Arc::clone(&hearing));
                let session = {
                    let sessions = &mut hearing.lock().unwrap().sessions;
                    sessions.push(Vec::new());
                    sessions.len() - 1
                };
                // Either side may go away.
                both_ways.spawn(async move {
                    let _ = pass_questions(from_client, to_server, &asked, session).await;
                });
                both_ways.spawn(async move {
                    let _ = pass_answers(from_server, to_client, &answered).await;
                });
            }
        });
        Self {
            url,
            heard,
            _connections: connections,
        }
    }

    /// The database's URL, through this.
    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The statements that were sent so far; those in one message count as one.
    pub(crate) fn statements(&self) -> Vec<String> {
        self.heard.lock().unwrap().statements.clone()
    }

    /// How many of them are in `.sql` files whose names begin so.
    pub(crate) fn count(&self, name: &str) -> usize {
        let known = Store::statements().into_iter();
        let texts: HashSet<&str> = known
            .filter(|(file, _)| file.starts_with(name))
            .map(|(_, text)| text)
            .collect();
        assert!(!texts.is_empty(), "there is no {name} any more");
        let heard = self.heard.lock().unwrap();
        let of_it = heard.statements.iter();
        of_it.filter(|sent| texts.contains(sent.as_str())).count()
    }

    /// What was sent over each connection, also over those that are closed.
    pub(crate) fn sessions(&self) -> Vec<Vec<String>> {
        self.heard.lock().unwrap().sessions.clone()
    }

    /// What the server warned of since this was last asked.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().unwrap().warnings)
    }
}

async fn pass_questions(
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    heard: &Mutex<Heard>,
    session: usize,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    // The first message has no type: who is there.
    let length = from.read_u32().await?;
    let mut hello = vec![0; length as usize - 4];
    from.read_exact(&mut hello).await?;
    to.write_u32(length).await?;
    to.write_all(&hello).await?;

    let mut prepared = HashMap::<String, String>::new();
    loop {
        let message = read(&mut from).await?;
        let mut texts = message.body.split(|byte| *byte == 0).map(text);
        match message.kind {
            b'P' => {
                let name = texts.next().unwrap_or_default();
                prepared.insert(name, texts.next().unwrap_or_default());
            }
            // To a portal, from a statement: it is run once.
            b'B' => {
                let statement = texts.nth(1).unwrap_or_default();
                let statement = prepared.get(&statement).cloned().unwrap_or_default();
                heard.lock().unwrap().statement(session, statement);
            }
            b'Q' => {
                let statement = texts.next().unwrap_or_default();
                heard.lock().unwrap().statement(session, statement);
            }
            _ => {}
        }
        write(&mut to, &message).await?;
    }
}

async fn pass_answers(
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    heard: &Mutex<Heard>,
) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    loop {
        let message = read(&mut from).await?;
        if message.kind == b'N' {
            let mut fields = message.body.split(|byte| *byte == 0);
            let said = fields.find(|field| field.first() == Some(&b'M'));
            if let Some(said) = said {
                heard.lock().unwrap().warnings.push(text(&said[1..]));
            }
        }
        write(&mut to, &message).await?;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Message> {
    let kind = from.read_u8().await?;
    let mut body = vec![0; from.read_u32().await? as usize - 4];
    from.read_exact(&mut body).await?;
    Ok(Message { kind, body })
}

async fn write(to: &mut (impl AsyncWrite + Unpin), message: &Message) -> std::io::Result<()> {
    let length = u32::try_from(message.body.len() + 4).unwrap();
    let mut bytes = Vec::with_capacity(message.body.len() + 5);
    bytes.push(message.kind);
    bytes.extend(length.to_be_bytes());
    bytes.extend(&message.body);
    to.write_all(&bytes).await
}
