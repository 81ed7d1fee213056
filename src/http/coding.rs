//! Compressed request bodies: gzip and zstd.
//!
//! A body is expanded while it arrives, a small piece at a time, and given up as
//! soon as it is over the limit: what a bomb takes is what anybody may take.

use std::io::{self, Write as _};

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation as _};

use super::body::next_piece;
use super::capacity::BodyRoom;
use super::problem::Problem;

/// What is taken.
const ACCEPTED: &str = "gzip, zstd";

/// Bytes that are expanded at once.
const PIECE: usize = 32 * 1024;

/// Pieces after which other requests get their turn: about a millisecond.
const PIECES_A_TURN: usize = 16;

/// How far back zstd may refer, as a power of two: what RFC 9659 allows for
/// HTTP, 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// What the headers say; `None` is not at all.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let coding = match (values.next(), values.next()) {
            (None, _) => return Ok(None),
            (Some(one), None) => one.as_bytes().trim_ascii().to_ascii_lowercase(),
            // Several, one around the other.
            (Some(_), Some(_)) => Vec::new(),
        };
        match coding.as_slice() {
            b"identity" => Ok(None),
            b"gzip" | b"x-gzip" => Ok(Some(Self::Gzip)),
            b"zstd" => Ok(Some(Self::Zstd)),
            _ => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-content-encoding",
                format!("Send the body as it is, or with one Content-Encoding of: {ACCEPTED}."),
            )
            .with_field(ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED))),
        }
    }
}

/// Why there is no expanded body.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is over the limit, compressed or expanded.
    TooLarge,
    /// The connection broke.
    CutOff,
    /// All bodies together take as much as they may.
    NoRoom,
    /// It is not what the header says, or not all of it.
    Broken,
}

/// Reads a body and expands it to at most `limit` bytes. No bytes at all are
/// nothing in either coding.
pub(super) async fn expand(
    coding: Coding,
    body: &mut Body,
    limit: usize,
    room: &mut BodyRoom<'_>,
) -> Result<Bytes, Failure> {
    let mut decoder = Decoder::new(coding, limit).map_err(|_| Failure::Broken)?;
    let (mut received, mut pieces, mut expanded) = (0, 0, 0);
    while let Some(frame) = next_piece(body).await {
        let frame = frame.map_err(|_| Failure::CutOff)?;
        received += frame.len();
        if received > limit {
            return Err(Failure::TooLarge);
        }
        let mut rest = &frame[..];
        loop {
            let (taken, is_done) = decoder.step(rest).map_err(|error| failure(&error))?;
            rest = &rest[taken..];
            let grown = decoder.expanded() - expanded;
            room.grow(grown).map_err(|_| Failure::NoRoom)?;
            expanded += grown;
            if rest.is_empty() && is_done {
                break;
            }
            pieces += 1;
            if pieces % PIECES_A_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    if received == 0 {
        return Ok(Bytes::new());
    }
    decoder.finish().map_err(|error| failure(&error))
}

fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::FileTooLarge => Failure::TooLarge,
        _ => Failure::Broken,
    }
}

/// What has been expanded.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Limited>>),
    Zstd {
        decoder: ZstdDecoder<'static>,
        into: Limited,
        piece: Box<[u8]>,
        /// Whether a frame has been begun and not ended.
        is_within: bool,
    },
}

impl Decoder {
    fn new(coding: Coding, limit: usize) -> io::Result<Self> {
        let into = Limited {
            bytes: Vec::new(),
            limit,
        };
        match coding {
            Coding::Gzip => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(into)))),
            Coding::Zstd => {
                let mut decoder = ZstdDecoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))?;
                Ok(Self::Zstd {
                    decoder,
                    into,
                    piece: vec![0; PIECE].into(),
                    is_within: true,
                })
            }
        }
    }

    /// Bytes so far.
    fn expanded(&self) -> usize {
        match self {
            Self::Gzip(decoder) => decoder.get_ref().bytes.len(),
            Self::Zstd { into, .. } => into.bytes.len(),
        }
    }

    /// Expands a piece: how many bytes of the input it took, and whether there
    /// is nothing more to come of those.
    fn step(&mut self, input: &[u8]) -> io::Result<(usize, bool)> {
        match self {
            // It keeps no more than a piece inside, which the next input or the
            // end takes out.
            Self::Gzip(decoder) => Ok((decoder.write(input)?, true)),
            Self::Zstd {
                decoder,
                into,
                piece,
                is_within,
            } => {
                let status = decoder.run_on_buffers(input, piece)?;
                into.write_all(&piece[..status.bytes_written])?;
                *is_within = status.remaining != 0;
                let is_done = !*is_within || status.bytes_written < piece.len();
                Ok((status.bytes_read, is_done))
            }
        }
    }

    fn finish(self) -> io::Result<Bytes> {
        match self {
            Self::Gzip(decoder) => Ok(decoder.finish()?.bytes.into()),
            Self::Zstd {
                is_within: true, ..
            } => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Zstd { into, .. } => Ok(into.bytes.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::capacity::Capacity;
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).expect("in memory")
    }

    /// Expands what arrives in frames of this size.
    async fn expanded(coding: Coding, bytes: &[u8], frame: usize) -> Result<Bytes, Failure> {
        let frames: Vec<_> = bytes
            .chunks(frame)
            .map(|chunk| io::Result::Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        let mut body = Body::from_stream(futures_util::stream::iter(frames));
        let capacity = Capacity::new(1, 0, 2 * LIMIT);
        expand(coding, &mut body, LIMIT, &mut capacity.body()).await
    }

    fn both(bytes: &[u8]) -> [(Coding, Vec<u8>); 2] {
        [(Coding::Gzip, gzip(bytes)), (Coding::Zstd, zstd(bytes))]
    }

    #[tokio::test]
    async fn what_is_compressed_comes_back_however_it_is_cut() {
        let text = "many words, and many of them again. ".repeat(5000);
        for (coding, bytes) in both(text.as_bytes()) {
            for frame in [1, 7, 1000, 1 << 20] {
                let back = expanded(coding, &bytes, frame).await.expect("whole");
                assert!(back == text.as_bytes(), "{coding:?} {frame}");
            }
        }
    }

    #[tokio::test]
    async fn members_after_one_another_are_one_body() {
        for (coding, bytes) in both(b"half") {
            let back = expanded(coding, &bytes.repeat(2), 5).await.expect("whole");
            assert_eq!(&back[..], b"halfhalf", "{coding:?}");
        }
    }

    #[tokio::test]
    async fn the_limit_is_exact() {
        for (coding, bytes) in both(&vec![7; LIMIT]) {
            let back = expanded(coding, &bytes, 4096).await.expect("not over it");
            assert_eq!(back.len(), LIMIT, "{coding:?}");
        }
        for (coding, bytes) in both(&vec![7; LIMIT + 1]) {
            let failed = expanded(coding, &bytes, 4096).await;
            assert!(matches!(failed, Err(Failure::TooLarge)), "{coding:?}");
        }
    }

    #[tokio::test]
    async fn nothing_that_is_broken_is_taken_for_whole() {
        let text = "many words, and many of them again. ".repeat(50);
        for (coding, bytes) in both(text.as_bytes()) {
            for end in 1..bytes.len() {
                let cut = expanded(coding, &bytes[..end], 64).await;
                assert!(matches!(cut, Err(Failure::Broken)), "{coding:?} {end}");
            }
            let trailing = [&bytes[..], b"garbage"].concat();
            let failed = expanded(coding, &trailing, 64).await;
            assert!(matches!(failed, Err(Failure::Broken)), "{coding:?}");
            let failed = expanded(coding, text.as_bytes(), 64).await;
            assert!(matches!(failed, Err(Failure::Broken)), "{coding:?}");
        }
        let huge_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
        let failed = expanded(Coding::Zstd, &huge_window, 64).await;
        assert!(matches!(failed, Err(Failure::Broken)));
    }

    #[tokio::test]
    async fn what_is_expanded_takes_room() {
        let capacity = Capacity::new(1, 0, LIMIT / 2);
        for (coding, bytes) in both(&vec![7; LIMIT]) {
            let mut body = Body::from(bytes);
            let failed = expand(coding, &mut body, LIMIT, &mut capacity.body()).await;
            assert!(matches!(failed, Err(Failure::NoRoom)), "{coding:?}");
        }
        assert!(capacity.body().would_hold(LIMIT / 2));
    }

    #[tokio::test]
    async fn no_bytes_are_no_body() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            assert!(expanded(coding, b"", 1).await.expect("nothing").is_empty());
        }
    }

    #[test]
    fn one_known_coding_is_taken_in_any_spelling() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().expect("a value"));
            }
            Coding::of(&headers).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["identity"]), Ok(None));
        assert_eq!(of(&["gzip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["X-GZip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(of(&["ZSTD"]), Ok(Some(Coding::Zstd)));
        for refused in [
            &["br"][..],
            &["deflate"],
            &[""],
            &["gzip, zstd"],
            &["gzip", "gzip"],
        ] {
            assert_eq!(of(refused), Err(415), "{refused:?}");
        }
    }
}
