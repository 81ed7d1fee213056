//! A receiver of webhooks on a real socket, that answers by script: well, badly,
//! or out of spite.

mod reply;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub(crate) use reply::Reply;

use reply::How;

/// A receiver; gone, with its connections, when it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
    _connections: JoinSet<()>,
}

/// A request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case, in the order of their arrival.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

impl Received {
    /// The header's value, if it came exactly once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} came twice: {self:?}");
        Some(value)
    }
}

#[derive(Default)]
struct State {
    script: Mutex<Script>,
    seen: Mutex<Seen>,
    changed: Notify,
}

/// The next of a path's own replies, or else the next of all, or else the path's
/// usual one, or else the usual one.
struct Script {
    next: VecDeque<Reply>,
    next_on: HashMap<String, VecDeque<Reply>>,
    usual: Reply,
    usual_on: HashMap<String, Reply>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            next: VecDeque::new(),
            next_on: HashMap::new(),
            usual: Reply::status(204),
            usual_on: HashMap::new(),
        }
    }
}

#[derive(Default)]
struct Seen {
    requests: Vec<Received>,
    connections: usize,
    /// Being answered, and the most there ever were.
    now: usize,
    most: usize,
}

/// Counts a request as being answered until it is dropped.
struct Answering<'a>(&'a State);

impl<'a> Answering<'a> {
    fn begin(state: &'a State, request: Received) -> Self {
        let mut seen = state.seen.lock().unwrap();
        seen.requests.push(request);
        seen.now += 1;
        seen.most = seen.most.max(seen.now);
        drop(seen);
        state.changed.notify_waiters();
        Self(state)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.seen.lock().unwrap().now -= 1;
        self.0.changed.notify_waiters();
    }
}

impl Receiver {
    /// On a free port of 127.0.0.1; answers 204 until it is told otherwise.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same over TLS.
    pub(crate) async fn start_tls(config: rustls::ServerConfig) -> Self {
        Self::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::<State>::default();
        let mut accepting = JoinSet::new();
        let shared = Arc::clone(&state);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                shared.seen.lock().unwrap().connections += 1;
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move { connection(socket, tls, &state).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            scheme,
            state,
            _connections: accepting,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// What it answers when nothing else is due.
    pub(crate) fn usually(&self, reply: Reply) {
        self.state.script.lock().unwrap().usual = reply;
    }

    /// The same for one path.
    pub(crate) fn usually_on(&self, path: &str, reply: Reply) {
        let mut script = self.state.script.lock().unwrap();
        script.usual_on.insert(path.to_owned(), reply);
    }

    /// What it answers next, once; several are answered in their order.
    pub(crate) fn next(&self, reply: Reply) {
        self.state.script.lock().unwrap().next.push_back(reply);
    }

    /// The same for one path.
    pub(crate) fn next_on(&self, path: &str, reply: Reply) {
        let mut script = self.state.script.lock().unwrap();
        let replies = script.next_on.entry(path.to_owned()).or_default();
        replies.push_back(reply);
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.state.seen.lock().unwrap().requests.clone()
    }

    /// Waits for so many requests; panics after 30 s.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        let waiting = async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let requests = self.requests();
                if requests.len() >= count {
                    return requests;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap_or_else(|_| panic!("{count} requests never came: {:?}", self.requests()))
    }

    /// The most requests that were ever being answered at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state.seen.lock().unwrap().most
    }

    /// Connections that were ever made.
    pub(crate) fn connections(&self) -> usize {
        self.state.seen.lock().unwrap().connections
    }
}

async fn connection(socket: TcpStream, tls: Option<TlsAcceptor>, state: &State) {
    let _ = socket.set_nodelay(true);
    // A socket that is closed with this set is reset.
    let reset = |socket: &TcpStream| socket.set_zero_linger();
    match tls {
        None => {
            let mut socket = socket;
            if let End::Reset = serve(&mut socket, state).await {
                let _ = reset(&socket);
            }
        }
        Some(tls) => {
            if let Ok(mut socket) = tls.accept(socket).await
                && let End::Reset = serve(&mut socket, state).await
            {
                let _ = reset(socket.get_ref().0);
            }
        }
    }
}

enum End {
    Closed,
    Reset,
}

/// Answers requests until the connection's end.
async fn serve(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), state: &State) -> End {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(socket, &mut buffer).await {
        // Taken before anybody can know of the request: who was waiting for it may
        // script the next reply, which is not this one's.
        let reply = reply(state, &request.path);
        let answering = Answering::begin(state, request);
        tokio::time::sleep(reply.delay).await;
        // Over before the answer is sent whole: who reads it may send the next at once.
        let answering = (!matches!(reply.how, How::Whole(_))).then_some(answering);
        let answered = answer(socket, &reply.how).await;
        drop(answering);
        match answered {
            Ok(true) => {}
            Ok(false) | Err(_) => {
                return match reply.how {
                    How::Reset(_) => End::Reset,
                    _ => End::Closed,
                };
            }
        }
    }
    End::Closed
}

fn reply(state: &State, path: &str) -> Reply {
    let mut script = state.script.lock().unwrap();
    let own = script.next_on.get_mut(path).and_then(VecDeque::pop_front);
    let next = own.or_else(|| script.next.pop_front());
    next.or_else(|| script.usual_on.get(path).cloned())
        .unwrap_or_else(|| script.usual.clone())
}

/// Whether the connection stays.
async fn answer(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    how: &How,
) -> std::io::Result<bool> {
    match how {
        How::Whole(bytes) => {
            socket.write_all(bytes).await?;
            socket.flush().await?;
            Ok(true)
        }
        How::Forever(first, again, pause) => {
            socket.write_all(first).await?;
            loop {
                socket.write_all(again).await?;
                socket.flush().await?;
                tokio::time::sleep(*pause).await;
            }
        }
        How::Stall(bytes) => {
            socket.write_all(bytes).await?;
            socket.flush().await?;
            // Until the other side gives up.
            while socket.read(&mut [0; 1024]).await? > 0 {}
            Ok(false)
        }
        How::Reset(bytes) | How::Close(bytes) => {
            socket.write_all(bytes).await?;
            socket.flush().await?;
            if matches!(how, How::Reset(_)) && !bytes.is_empty() {
                // A reset also throws away what was not yet read.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(false)
        }
    }
}

/// The next request; `buffer` holds what came after the one before.
async fn read_request(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<Received> {
    let (mut received, head, length) = loop {
        if let Some(parsed) = parse(buffer) {
            break parsed;
        }
        more(socket, buffer).await?;
    };
    while buffer.len() < head + length {
        more(socket, buffer).await?;
    }
    received.body = buffer[head..head + length].to_vec();
    received.at = Instant::now();
    buffer.drain(..head + length);
    Some(received)
}

async fn more(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    match socket.read_buf(buffer).await {
        Ok(1..) => Some(()),
        _ => None,
    }
}

/// A request without its body, the length of its head, and that of its body.
fn parse(bytes: &[u8]) -> Option<(Received, usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes).unwrap() else {
        return None;
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|header| (header.name.to_lowercase(), text(header.value)))
        .collect();
    let received = Received {
        method: request.method?.to_owned(),
        path: request.path?.to_owned(),
        headers,
        body: Vec::new(),
        at: Instant::now(),
    };
    // The pusher always knows its length.
    let length = received.header("content-length").unwrap_or("0").parse();
    Some((received, head, length.unwrap()))
}
