//! The accept loop: connections in, requests to the router.
//!
//! Our own rather than axum's, which clones the routing table for each
//! connection and reads through a protocol sniffer with a buffer of its own:
//! 20 KiB of the 35 that a waiting receiver took.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use super::Gateway;
use super::envelope::Interface;

/// How long it waits after it could not accept: with all file descriptors in
/// use, one has to be closed first.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until the gateway is told to stop, then until the requests in hand
/// are answered.
pub async fn listen(listener: TcpListener, gateway: Arc<Gateway>) {
    let interface = Interface::new(&gateway);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gateway.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                serve(stream, interface.of_peer(peer.ip()), &connections, &gateway);
            }
            Err(error) if is_of_one_client(error.kind()) => {}
            Err(error) => {
                tracing::error!(%error, "connections are not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Serves a connection in a task of its own.
fn serve(
    stream: TcpStream,
    interface: Interface,
    connections: &GracefulShutdown,
    gateway: &Gateway,
) {
    // An answer is one small write; waiting to fill a packet only delays it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(interface));
    // Not in an async block: that would have room for the connection twice.
    let ended = connections.watch(connection).map(|outcome| {
        if let Err(error) = outcome {
            tracing::debug!(%error, "a connection broke");
        }
    });
    gateway.tracker.spawn(ended);
}

/// Whether accepting failed because of the client that wanted in.
fn is_of_one_client(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}
