//! What a receiver of webhooks answers.

use std::time::Duration;

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(super) delay: Duration,
    pub(super) how: How,
}

#[derive(Debug, Clone)]
pub(super) enum How {
    /// Head and body in one piece, and the connection stays.
    Whole(Vec<u8>),
    /// This, then these bytes again and again, with pauses.
    Forever(Vec<u8>, Vec<u8>, Duration),
    /// This, and nothing more; the connection stays open.
    Stall(Vec<u8>),
    /// This, then a reset.
    Reset(Vec<u8>),
    /// This, then an orderly end.
    Close(Vec<u8>),
}

impl Reply {
    fn new(how: How) -> Self {
        Self {
            delay: Duration::ZERO,
            how,
        }
    }

    /// An ordinary answer.
    pub(crate) fn status(status: u16) -> Self {
        Self::with(status, &[], b"")
    }

    /// An ordinary answer with headers and a body.
    pub(crate) fn with(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let length = body.len().to_string();
        let mut all = headers.to_vec();
        all.push(("content-length", &length));
        let mut bytes = head(status, &all);
        bytes.extend(body);
        Self::new(How::Whole(bytes))
    }

    /// The same, later.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// 200, then a body of one byte a second.
    pub(crate) fn drip() -> Self {
        let head = head(200, &[("content-length", "1000000")]);
        Self::new(How::Forever(head, b"x".to_vec(), Duration::from_secs(1)))
    }

    /// One byte of the head a second.
    pub(crate) fn drip_head() -> Self {
        let line = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
        Self::new(How::Forever(line, b"x".to_vec(), Duration::from_secs(1)))
    }

    /// A head that never ends, as fast as it is read.
    pub(crate) fn endless_head() -> Self {
        let line = b"HTTP/1.1 200 OK\r\n".to_vec();
        Self::new(How::Forever(line, b"x: y\r\n".repeat(1000), Duration::ZERO))
    }

    /// A body that never ends, as fast as it is read.
    pub(crate) fn endless(status: u16) -> Self {
        let head = head(status, &[("transfer-encoding", "chunked")]);
        let mut chunk = b"2000\r\n".to_vec();
        chunk.extend([b'z'; 0x2000]);
        chunk.extend(b"\r\n");
        Self::new(How::Forever(head, chunk, Duration::ZERO))
    }

    /// 200 and the promise of 10 GB, none of which come.
    pub(crate) fn promise() -> Self {
        Self::new(How::Stall(head(200, &[("content-length", "10000000000")])))
    }

    /// 200 and 12 KiB of gzip that stand for 2 MB.
    pub(crate) fn gzip_bomb() -> Self {
        Self::with(200, &[("content-encoding", "gzip")], &gzip_bomb(12 * 1024))
    }

    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        Self::with(status, &[("location", location)], b"over there")
    }

    /// A reset instead of an answer.
    pub(crate) fn reset() -> Self {
        Self::new(How::Reset(Vec::new()))
    }

    /// A head, half a body, then a reset.
    pub(crate) fn reset_after_head() -> Self {
        let mut bytes = head(200, &[("content-length", "10")]);
        bytes.extend(b"half");
        Self::new(How::Reset(bytes))
    }

    /// These bytes, then the end.
    pub(crate) fn raw(bytes: &[u8]) -> Self {
        Self::new(How::Close(bytes.to_vec()))
    }

    /// Nothing, and the connection stays open.
    pub(crate) fn hang() -> Self {
        Self::new(How::Stall(Vec::new()))
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let lines = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let lines: String = lines.collect();
    format!("HTTP/1.1 {status} Because\r\n{lines}\r\n").into_bytes()
}

/// A gzip stream: one block of fixed Huffman codes, a zero and then "the last
/// 258 bytes again" in 13 bits, as long as there is room.
fn gzip_bomb(length: usize) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits: Vec<bool> = Vec::new();
    let mut push = |code: u32, width: u32| {
        bits.extend((0..width).rev().map(|at| code >> at & 1 == 1));
    };
    // Last block, fixed codes (least bit first), the literal 0.
    push(0b110, 3);
    push(0b0011_0000, 8);
    for _ in 0..(length - 16) * 8 / 13 {
        push(0b1100_0101, 8);
        push(0, 5);
    }
    for byte in bits.chunks(8) {
        let set = byte.iter().enumerate().filter(|(_, bit)| **bit);
        bytes.push(set.fold(0, |byte, (at, _)| byte | 1 << at));
    }
    bytes
}
