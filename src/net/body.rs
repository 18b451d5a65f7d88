//! A body in pieces of bounded size, unpacked in bounded memory and received in bounded time.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes};
use reqwest::header::CONTENT_ENCODING;
use tokio::time::{Instant, timeout_at};
use zstd::stream::raw::{DParameter, Decoder, Operation};

/// What can be asked for in `Accept-Encoding` where bodies are read with [`Body::unpacked`].
pub(crate) const ENCODINGS: &str = "zstd, gzip";
/// Largest window of zstd, as a power of two: 2 MiB, which servers use at their ordinary levels. A dozen
/// responses that are read at a time, each with the 8 MiB that a server may want at most (RFC 9659), would
/// take more memory than this program does; what cannot be unpacked is asked for in gzip.
const WINDOW: u32 = 21;
/// A body has this much time in any case,
const PATIENCE: Duration = Duration::from_mins(10);
/// and more while it brings at least so many bytes a second.
const SLOWEST: u64 = 1_024;

/// The body of a response. What has come at once, which can be half a megabyte, is handed out in
/// small pieces, so that what is made of each stays in the processor's cache and in small buffers.
pub(crate) struct Body {
    response: reqwest::Response,
    unpacker: Option<Unpacker>,
    rest: Bytes,
    most: usize,
    begin: Instant,
    received: u64,
}

/// Why a body could not be read to its end.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// It was cut or has stalled.
    Transport(reqwest::Error),
    /// It goes on, but not in reasonable time.
    TooSlow,
    /// It cannot be unpacked, or only with more memory than it should take.
    Packed(io::Error),
}

impl Body {
    /// The body of `response` as it comes, in pieces of at most `most` bytes.
    pub(crate) fn new(response: reqwest::Response, most: usize) -> Self {
        Self { response, unpacker: None, rest: Bytes::new(), most, begin: Instant::now(), received: 0 }
    }

    /// The same, unpacked. The HTTP client unpacks gzip by itself, in little memory.
    pub(crate) fn unpacked(response: reqwest::Response, most: usize) -> Self {
        let coding = response.headers().get(CONTENT_ENCODING);
        let is_zstd = coding.is_some_and(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"zstd"));
        Self { unpacker: is_zstd.then(Unpacker::default), ..Self::new(response, most) }
    }

    /// The response without what has been taken from its body.
    pub(crate) fn response(&self) -> &reqwest::Response {
        &self.response
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the body is cut, stalls, takes too long or cannot be unpacked.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let piece = match &mut self.unpacker {
                Some(unpacker) => unpacker.unpack(&mut self.rest, self.most).map_err(BodyError::Packed)?,
                None => self.rest.split_to(self.most.min(self.rest.len())),
            };
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
            let deadline = self.begin + PATIENCE + Duration::from_secs(self.received / SLOWEST);
            let chunk = timeout_at(deadline, self.response.chunk()).await.map_err(|_| BodyError::TooSlow)?;
            match chunk.map_err(BodyError::Transport)? {
                Some(chunk) => {
                    self.received += chunk.len() as u64;
                    self.rest = chunk;
                }
                None if self.unpacker.as_ref().is_some_and(|unpacker| unpacker.is_inside) => {
                    return Err(BodyError::Packed(io::ErrorKind::UnexpectedEof.into()));
                }
                None => return Ok(None),
            }
        }
    }
}

/// Unpacks zstd.
#[derive(Default)]
struct Unpacker {
    decoder: Option<Decoder<'static>>,
    /// Whether more is to come of what has begun.
    is_inside: bool,
    /// Whether the decoder may hold more than it has handed out.
    is_full: bool,
}

impl Unpacker {
    /// At most `most` bytes of what is packed in `packed`, from which they are taken; none when more of it
    /// is needed.
    fn unpack(&mut self, packed: &mut Bytes, most: usize) -> io::Result<Bytes> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => {
                let mut decoder = Decoder::new()?;
                decoder.set_parameter(DParameter::WindowLogMax(WINDOW))?;
                none.insert(decoder)
            }
        };
        while !packed.is_empty() || self.is_full {
            let mut unpacked = vec![0; most];
            let status = decoder.run_on_buffers(packed, &mut unpacked)?;
            packed.advance(status.bytes_read);
            self.is_full = status.bytes_written == most;
            if status.bytes_read > 0 || status.bytes_written > 0 {
                self.is_inside = status.remaining > 0;
            }
            if status.bytes_written > 0 {
                unpacked.truncate(status.bytes_written);
                return Ok(unpacked.into());
            }
        }
        Ok(Bytes::new())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    /// A body that comes in these pieces, with a pause of so many seconds before each.
    fn body(pieces: Vec<Vec<u8>>, pause: u64, encoding: &str) -> Body {
        let pieces = stream::iter(pieces).then(move |piece| async move {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            Ok::<_, io::Error>(piece)
        });
        let response = http::Response::builder().header(CONTENT_ENCODING, encoding);
        Body::unpacked(response.body(reqwest::Body::wrap_stream(pieces)).unwrap().into(), 1_000)
    }

    async fn read(mut body: Body) -> Result<Vec<u8>, BodyError> {
        let mut read = Vec::new();
        while let Some(piece) = body.next().await? {
            assert!((1..=1_000).contains(&piece.len()));
            read.extend_from_slice(&piece);
        }
        Ok(read)
    }

    #[tokio::test]
    async fn zstd_is_unpacked_however_it_is_cut() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(|number| (number * number / 7).to_le_bytes()).collect();
        // Two frames are one body.
        let (first, second) = text.split_at(33_333);
        let packed = [zstd::encode_all(first, 3).unwrap(), zstd::encode_all(second, 19).unwrap()].concat();
        for size in [1, 7, 1_000, 100_000] {
            let pieces: Vec<Vec<u8>> = packed.chunks(size).map(<[u8]>::to_vec).collect();
            assert!(read(body(pieces, 0, "zstd")).await.unwrap() == text, "in pieces of {size}");
        }
        let most_of_it = packed[..packed.len() - 1].to_vec();
        assert!(matches!(read(body(vec![most_of_it], 0, "zstd")).await, Err(BodyError::Packed(_))));
        assert!(matches!(read(body(vec![b"plain".to_vec()], 0, "zstd")).await, Err(BodyError::Packed(_))));
        assert_eq!(read(body(vec![b"plain".to_vec()], 0, "identity")).await.unwrap(), b"plain");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_but_not_endlessly_so() {
        let in_pieces = |length: usize, count: usize| vec![vec![b'x'; length]; count];
        let slow = read(body(in_pieces(60 * 1_024, 200), 60, "identity")).await;
        assert_eq!(slow.unwrap().len(), 200 * 60 * 1_024, "three hours at a kilobyte a second");
        let (begin, dripping) = (Instant::now(), read(body(in_pieces(1, 100_000), 1, "identity")).await);
        assert!(matches!(dripping, Err(BodyError::TooSlow)));
        assert_eq!(begin.elapsed(), PATIENCE);
    }
}
