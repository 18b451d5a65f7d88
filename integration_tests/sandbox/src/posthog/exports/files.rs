//! The files of a run, and the ways in which they come broken.

use std::io::{Read as _, Write as _};

use axum::body::Bytes;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use tokio::time::Instant;
use uuid::Uuid;

use super::Exports;
use super::request::Asked;
use crate::posthog::faults::Action;

/// Below this path are the files.
pub(super) const FOLDER: &str = "/posthog-file-downloads";

/// A file of a run.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) id: Uuid,
    /// Its path on the file host.
    pub(super) path: String,
    pub(super) body: Bytes,
    pub(super) entity_tag: String,
    /// When it ceases to exist.
    pub(super) until: Option<Instant>,
    pub(super) expired: bool,
}

impl File {
    pub(super) fn is_expired(&self) -> bool {
        self.expired || self.until.is_some_and(|until| until <= Instant::now())
    }
}

/// Lines in files, each as large as it may be.
pub(super) fn pack(
    lines: &[Vec<u8>],
    project: u64,
    run: Uuid,
    asked: &Asked,
    config: &Exports,
    member_per_line: bool,
) -> std::io::Result<Vec<File>> {
    let most_rows = config.rows_per_file.unwrap_or(usize::MAX).max(1);
    let most_bytes = asked.max_bytes.unwrap_or(usize::MAX);
    let mut texts: Vec<(usize, Vec<u8>)> = Vec::new();
    for line in lines {
        match texts.last_mut() {
            Some((rows, text)) if *rows < most_rows && text.len() + line.len() < most_bytes => {
                *rows += 1;
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            _ => texts.push((1, [line.as_slice(), b"\n"].concat())),
        }
    }
    let suffix = if asked.gzip { ".gz" } else { "" };
    let file = |(index, (_, text)): (usize, (usize, Vec<u8>))| {
        let body = match (asked.gzip, member_per_line) {
            (false, _) => text,
            (true, false) => compress(&text)?,
            (true, true) => compress_lines(&text)?,
        };
        Ok(File {
            id: Uuid::now_v7(),
            path: format!("{FOLDER}/{project}/{run}/{}-{index:05}.jsonl{suffix}", asked.model.name()),
            entity_tag: format!("\"{}\"", Uuid::new_v5(&Uuid::NAMESPACE_URL, &body).simple()),
            body: body.into(),
            // A lifetime beyond all clocks is none.
            until: config.file_lifetime.and_then(|lifetime| Instant::now().checked_add(lifetime)),
            expired: false,
        })
    };
    texts.into_iter().enumerate().map(file).collect()
}

fn compress(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

/// Every line as a gzip member of its own, which is how PostHog writes them.
fn compress_lines(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 2);
    // Making a new encoder takes far longer than a line.
    let mut deflate = Compress::new(Compression::fast(), false);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        out.extend_from_slice(&HEADER);
        deflate.reset();
        out.reserve(line.len() + 64);
        let (mut rest, mut done) = (line, Status::Ok);
        while done != Status::StreamEnd {
            let before = deflate.total_in();
            out.reserve(64);
            done = deflate.compress_vec(rest, &mut out, FlushCompress::Finish).map_err(std::io::Error::other)?;
            let read = usize::try_from(deflate.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(read..).unwrap_or_default();
        }
        let mut sum = Crc::new();
        sum.update(line);
        out.extend_from_slice(&sum.sum().to_le_bytes());
        out.extend_from_slice(&sum.amount().to_le_bytes());
    }
    Ok(out)
}

/// What a gzip member begins with: the format, no name, no time, an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The position in the middle, or a little later where a reader would notice another byte.
fn middle(body: &[u8]) -> usize {
    let middle = body.len() / 2;
    let in_header = (4..HEADER.len()).find(|offset| {
        let start = middle.checked_sub(*offset);
        start.and_then(|start| body.get(start..)).is_some_and(|rest| rest.starts_with(&HEADER))
    });
    in_header.map_or(middle, |offset| middle + HEADER.len() - offset)
}

/// The file as a fault leaves it.
pub(super) fn spoil(body: Bytes, fault: Option<&Action>) -> std::io::Result<Bytes> {
    let middle = body.len() / 2;
    Ok(match fault {
        Some(Action::CorruptByte) => {
            let mut bytes = body.to_vec();
            let at = self::middle(&bytes);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x55;
            }
            bytes.into()
        }
        Some(Action::Bomb { megabytes }) => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            let zeros = vec![b'0'; 1024 * 1024];
            for _ in 0..*megabytes {
                encoder.write_all(&zeros)?;
            }
            encoder.finish()?.into()
        }
        Some(Action::CutGzip) => body.slice(..middle),
        Some(Action::BrokenLine | Action::DropRows { .. } | Action::DuplicateRows { .. }) => {
            let mut text = Vec::new();
            let compressed = body.starts_with(&[0x1f, 0x8b]);
            if compressed {
                MultiGzDecoder::new(&*body).read_to_end(&mut text)?;
            } else {
                text.extend_from_slice(&body);
            }
            let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            let text = match fault {
                Some(Action::DropRows { rows }) => {
                    let start = lines.len().saturating_sub(*rows) / 2;
                    lines.drain(start..lines.len().min(start + rows));
                    lines.concat()
                }
                Some(Action::DuplicateRows { rows }) => {
                    let copies: Vec<&[u8]> = lines.iter().take(*rows).copied().collect();
                    lines.extend(copies);
                    lines.concat()
                }
                _ => break_line(&lines),
            };
            if compressed { compress(&text)?.into() } else { text.into() }
        }
        _ => body,
    })
}

/// The lines, with only the first half of the middle one.
fn break_line(lines: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if index == lines.len() / 2 {
            out.extend_from_slice(line.get(..line.len() / 2).unwrap_or_default());
            out.push(b'\n');
        } else {
            out.extend_from_slice(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_leave_their_marks() {
        let text = b"{\"a\":1}\n{\"bb\":22}\n{\"c\":3}\n";
        let body = Bytes::from(compress(text).unwrap());
        let read = |body: &Bytes| {
            let mut text = Vec::new();
            MultiGzDecoder::new(&**body).read_to_end(&mut text).map(|_| text)
        };
        let corrupt = spoil(body.clone(), Some(&Action::CorruptByte)).unwrap();
        assert!(corrupt.len() == body.len() && read(&corrupt).is_err());
        let cut = spoil(body.clone(), Some(&Action::CutGzip)).unwrap();
        assert!(cut.len() == body.len() / 2 && read(&cut).is_err());
        let broken = spoil(body.clone(), Some(&Action::BrokenLine)).unwrap();
        assert_eq!(read(&broken).unwrap(), b"{\"a\":1}\n{\"bb\"\n{\"c\":3}\n");
        let plain = spoil(Bytes::from_static(text), Some(&Action::BrokenLine)).unwrap();
        assert_eq!(&plain[..], b"{\"a\":1}\n{\"bb\"\n{\"c\":3}\n");
        let dropped = spoil(body.clone(), Some(&Action::DropRows { rows: 1 })).unwrap();
        assert_eq!(read(&dropped).unwrap(), b"{\"a\":1}\n{\"c\":3}\n");
        let doubled = spoil(body.clone(), Some(&Action::DuplicateRows { rows: 1 })).unwrap();
        assert_eq!(read(&doubled).unwrap(), b"{\"a\":1}\n{\"bb\":22}\n{\"c\":3}\n{\"a\":1}\n");
        assert_eq!(spoil(body.clone(), None).unwrap(), body);
    }

    #[test]
    fn each_line_is_a_gzip_member() {
        let long = "x".repeat(300_000);
        let text = format!("{{\"a\":1}}\n{{\"long\":\"{long}\"}}\n{{\"c\":3}}\n");
        let packed = compress_lines(text.as_bytes()).unwrap();
        let members = packed.windows(HEADER.len()).filter(|window| **window == HEADER).count();
        let mut unpacked = String::new();
        MultiGzDecoder::new(packed.as_slice()).read_to_string(&mut unpacked).unwrap();
        assert_eq!((members, unpacked == text), (3, true));
        let mut first = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut first).unwrap();
        assert_eq!(first, "{\"a\":1}\n");
        let at = middle(&[&[0; 6][..], &HEADER].concat());
        assert_eq!(at, 8, "the method of compression can't change unnoticed");
        assert_eq!(middle(&[&[0; 4][..], &HEADER, &[7; 4]].concat()), 14, "the time can");
    }
}
