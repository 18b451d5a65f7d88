//! A body in pieces of bounded size, unpacked in bounded memory and received in bounded time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use reqwest::header::{CONTENT_ENCODING, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use zstd::stream::raw::{DParameter, Decoder, Operation};

/// What is asked for in `Accept-Encoding` by those who have a place for zstd,
const ZSTD: HeaderValue = HeaderValue::from_static("zstd, gzip");
/// and by the others. The HTTP client unpacks gzip by itself, in little memory.
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
/// Responses in zstd that are read at a time: as many as queries of one project. The window of each takes memory.
const MOST_ZSTD: usize = 3;
/// Largest window of zstd, as a power of two: 2 MiB, which servers use at their ordinary levels, where they may
/// want 8 MiB (RFC 9659). What cannot be unpacked is asked for in gzip.
const WINDOW: u32 = 21;
/// A body has this much time in any case,
const PATIENCE: Duration = Duration::from_mins(10);
/// and more while it brings at least so many bytes a second.
const SLOWEST: u64 = 1_024;

/// Hands out places for responses in zstd. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ZstdPlaces(Arc<Semaphore>);

impl Default for ZstdPlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_ZSTD)))
    }
}

impl ZstdPlaces {
    /// A place, if one is free now.
    pub(crate) fn take(&self) -> ZstdPlace {
        ZstdPlace(Arc::clone(&self.0).try_acquire_owned().ok())
    }
}

/// The place of a response among those that are in zstd, or none; then it has to be in gzip.
#[derive(Default)]
pub(crate) struct ZstdPlace(Option<OwnedSemaphorePermit>);

impl ZstdPlace {
    /// What to ask for.
    pub(crate) fn accepts(&self) -> HeaderValue {
        if self.0.is_some() { ZSTD } else { GZIP }
    }
}

/// The body of a response. What has come at once, which can be half a megabyte, is handed out in
/// small pieces, so that what is made of each stays in the processor's cache and in small buffers.
pub(crate) struct Body {
    response: reqwest::Response,
    unpacker: Option<Unpacker>,
    place: ZstdPlace,
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
        let place = ZstdPlace::default();
        Self { response, unpacker: None, place, rest: Bytes::new(), most, begin: Instant::now(), received: 0 }
    }

    /// The same, unpacked. It has been asked for what `place` accepts.
    pub(crate) fn unpacked(response: reqwest::Response, most: usize, place: ZstdPlace) -> Self {
        let coding = response.headers().get(CONTENT_ENCODING);
        let is_zstd = coding.is_some_and(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"zstd"));
        // A place that is not needed is free for others.
        let place = if is_zstd { place } else { ZstdPlace::default() };
        Self { unpacker: is_zstd.then(Unpacker::default), place, ..Self::new(response, most) }
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
                Some(_) if self.place.0.is_none() => return Err(BodyError::Packed(io::ErrorKind::Unsupported.into())),
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
            if pause > 0 {
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            Ok::<_, io::Error>(piece)
        });
        let response = http::Response::builder().header(CONTENT_ENCODING, encoding);
        let response = response.body(reqwest::Body::wrap_stream(pieces)).unwrap();
        Body::unpacked(response.into(), 1_000, ZstdPlaces::default().take())
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

    #[tokio::test]
    async fn zstd_is_unpacked_for_a_few_at_a_time() {
        let places = ZstdPlaces::default();
        let taken: Vec<ZstdPlace> = (0..MOST_ZSTD).map(|_| places.take()).collect();
        assert!(taken.iter().all(|place| place.accepts() == ZSTD));
        let without = places.take();
        assert_eq!(without.accepts(), GZIP);
        let mut body = body(vec![zstd::encode_all(&b"text"[..], 3).unwrap()], 0, "zstd");
        body.place = without;
        assert!(matches!(body.next().await, Err(BodyError::Packed(_))), "it was not asked for");
        drop(taken);
        assert_eq!(places.take().accepts(), ZSTD);
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
