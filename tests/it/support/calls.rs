//! Calls past HTTP, where a test needs to know that they have begun.

use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use postrider::domain::{Content, Headers, Message};

/// A future that has been polled once: as far as it gets by itself.
pub(crate) type Begun<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Polls a future once; its result if that was all.
pub(crate) async fn begin<'a, T>(
    future: impl Future<Output = T> + Send + 'a,
) -> Result<Begun<'a, T>, T> {
    let mut future: Begun<'a, T> = Box::pin(future);
    let first = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
    match first.await {
        Poll::Pending => Ok(future),
        Poll::Ready(result) => Err(result),
    }
}

/// The same, for what may be done by then where this thread was held up.
pub(crate) async fn begun<'a, T: Send + 'a>(
    future: impl Future<Output = T> + Send + 'a,
) -> Begun<'a, T> {
    match begin(future).await {
        Ok(begun) => begun,
        Err(result) => Box::pin(std::future::ready(result)),
    }
}

/// A message with nothing but a JSON body.
pub(crate) fn message(body: impl std::fmt::Display) -> Message {
    let content = Content {
        body: Bytes::from(body.to_string()),
        content_type: None,
    };
    Message::new(content, Headers::new())
}
