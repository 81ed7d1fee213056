//! A client's frames of HTTP/2, as far as it has to finish what it has begun.
//!
//! hyper bounds how long an HTTP/1.1 client may take for a head, but of one that
//! speaks HTTP/2 it asks only that it answers pings. Half a head would hold the
//! connection for as long as that, with all that waits on it: nothing else may
//! come before its end. So the stream counts along, and breaks when a head, or any
//! other frame that is no body, is begun and not finished in time. Bodies have
//! their own time (`http/body.rs`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes of a frame's own head: length, type, flags, stream.
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where a client is in its frames.
#[derive(Debug)]
struct Frames {
    head: [u8; HEAD],
    /// Bytes of it that have come.
    heard: usize,
    /// Bytes of the frame's payload that have not; at first of the preface.
    payload: usize,
    /// Whether more of a head is to follow this frame.
    is_continued: bool,
}

impl Frames {
    fn after_preface(preface: usize) -> Self {
        Self {
            head: [0; HEAD],
            heard: 0,
            payload: preface,
            is_continued: false,
        }
    }

    /// Takes what has come: whether what was begun before it is finished.
    fn hear(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_finished = false;
        while !bytes.is_empty() {
            is_finished |= !self.is_amid();
            if self.payload > 0 {
                let skipped = self.payload.min(bytes.len());
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            // The frame before is over.
            self.heard %= HEAD;
            let taken = (HEAD - self.heard).min(bytes.len());
            self.head[self.heard..self.heard + taken].copy_from_slice(&bytes[..taken]);
            self.heard += taken;
            bytes = &bytes[taken..];
            if self.heard == HEAD {
                let [a, b, c, kind, flags, ..] = self.head;
                self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
                if matches!(kind, HEADERS | CONTINUATION) {
                    self.is_continued = flags & END_HEADERS == 0;
                }
            }
        }
        is_finished | !self.is_amid()
    }

    /// Whether something is begun that has to be finished.
    fn is_amid(&self) -> bool {
        let is_cut = match self.heard {
            // The preface, which the first head's time is for.
            0 => false,
            HEAD => self.payload > 0 && self.head[3] != DATA,
            _ => true,
        };
        is_cut || self.is_continued
    }
}

/// An HTTP/2 connection's stream, which breaks if the client leaves off in the
/// middle.
pub(super) struct Framed<I> {
    stream: I,
    frames: Frames,
    time: Duration,
    /// There while something is begun; from when it was.
    amid: Option<Pin<Box<Sleep>>>,
}

impl<I> Framed<I> {
    /// Of a stream that begins with a preface of so many bytes, and whose client may
    /// take so long for a head.
    pub(super) fn new(stream: I, preface: usize, time: Duration) -> Self {
        Self {
            stream,
            frames: Frames::after_preface(preface),
            time,
            amid: None,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Framed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let heard = &buffer.filled()[before..];
        if !heard.is_empty() {
            if this.frames.hear(heard) {
                this.amid = None;
            }
            if this.frames.is_amid() && this.amid.is_none() {
                this.amid = Some(Box::pin(sleep(this.time)));
            }
        }
        if read.is_pending()
            && let Some(amid) = &mut this.amid
            && amid.as_mut().poll(cx).is_ready()
        {
            tracing::debug!("a head over HTTP/2 took too long");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Framed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame; only its kind, flags and length matter.
    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![b'x'; length.into()]);
        frame
    }

    #[test]
    fn what_is_begun_is_finished_by_its_last_byte_however_it_comes() {
        const SETTINGS: u8 = 4;
        let whole = [
            frame(SETTINGS, 0, 0),
            frame(HEADERS, END_HEADERS, 13),
            frame(DATA, 0, 200),
            frame(HEADERS, 0, 5),
            frame(CONTINUATION, 0, 0),
            frame(CONTINUATION, END_HEADERS, 5),
            frame(HEADERS, END_HEADERS, 0),
        ];
        for step in [1, 2, 7, 30, 1000] {
            let mut frames = Frames::after_preface(3);
            assert!(frames.hear(b"PRI"));
            for (at, frame) in whole.iter().enumerate() {
                // Half a head is finished by the last of its frames only.
                let is_within = matches!(at, 3 | 4);
                let mut left = frame.len();
                for piece in frame.chunks(step) {
                    let finished = frames.hear(piece);
                    left -= piece.len();
                    let is_data = frame[3] == DATA && frame.len() - left >= HEAD;
                    let is_amid = is_within || (left > 0 && !is_data);
                    assert_eq!(frames.is_amid(), is_amid, "{at}, {left} of it left");
                    if matches!(at, 4 | 5) {
                        assert_eq!(finished, !is_amid, "{at}, {left} of it left");
                    }
                }
            }
        }
        // Another one that is begun at once is another one.
        let mut frames = Frames::after_preface(0);
        assert!(frames.hear(&frame(HEADERS, 0, 5)), "nothing was before it");
        assert!(!frames.hear(&frame(CONTINUATION, 0, 5)));
        let next = [frame(CONTINUATION, END_HEADERS, 1), frame(HEADERS, 0, 5)];
        assert!(frames.hear(&next.concat()));
        assert!(frames.is_amid());
    }
}
