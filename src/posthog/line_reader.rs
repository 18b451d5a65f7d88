//! Unpacks a gzip file of JSON lines while it arrives.
//!
//! # What it guarantees
//! Every line is handed over once and whole. [`LineReader::finish`] fails unless the file has ended
//! as gzip demands, checksum included, and with a line feed or the end of a line: a file that was cut
//! or altered is never taken for a whole one. What was handed over before such an end may be wrong;
//! [`Emitted`] keeps track of it, so that it is corrected when the file is read again.
//!
//! # Memory
//! One line and what one piece of input unpacks to, whatever the size of the file; for [`Emitted`]
//! four bytes a line. A line longer than [`LONGEST`] is refused: a small file that unpacks to
//! gigabytes without a line feed cannot fill the memory.

use std::io::Write;

use flate2::write::MultiGzDecoder;

use super::row_reader::{LONGEST, Malformed};

/// Input is unpacked in pieces of this size: at gzip's best ratio of 1:1000, 4 MiB.
const PIECE: usize = 4 * 1024;

/// Reads one file.
pub struct LineReader {
    unpacked: MultiGzDecoder<Vec<u8>>,
    /// Compressed bytes taken in.
    taken: u64,
}

impl Default for LineReader {
    fn default() -> Self {
        Self { unpacked: MultiGzDecoder::new(Vec::new()), taken: 0 }
    }
}

impl LineReader {
    /// Compressed bytes taken in: where the rest of the file begins.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes that it holds: the line that is not complete.
    pub fn held(&self) -> usize {
        self.unpacked.get_ref().len()
    }

    /// Takes the next bytes and hands complete lines to `take`.
    ///
    /// # Errors
    /// When the bytes are not gzip, a line is longer than [`LONGEST`], or `take` does not accept a line.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut dyn FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        for piece in bytes.chunks(PIECE) {
            self.unpacked.write_all(piece).map_err(corrupt)?;
            self.hand_over(take)?;
        }
        self.taken += bytes.len() as u64;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When the file is incomplete, its checksum is wrong, or `take` does not accept the last line.
    pub fn finish(mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
        if self.taken == 0 {
            return Err(Malformed("a file is empty".to_owned()));
        }
        self.unpacked.try_finish().map_err(corrupt)?;
        self.hand_over(take)?;
        // A last line without a line feed is a line, too.
        let rest = self.unpacked.get_ref();
        if rest.is_empty() { Ok(()) } else { take(rest) }
    }

    fn hand_over(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
        let buffer = self.unpacked.get_mut();
        let Some(end) = memchr::memrchr(b'\n', buffer) else {
            let too_long = || Malformed(format!("a line is longer than {} MiB", LONGEST / (1024 * 1024)));
            return if buffer.len() > LONGEST { Err(too_long()) } else { Ok(()) };
        };
        let mut begin = 0;
        for line_end in memchr::memchr_iter(b'\n', buffer) {
            let line = buffer.get(begin..line_end).unwrap_or_default();
            begin = line_end + 1;
            if !line.is_empty() {
                take(line)?;
            }
        }
        buffer.drain(..=end);
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn corrupt(error: std::io::Error) -> Malformed {
    Malformed(format!("a file is cut or corrupt: {error}"))
}

/// The lines of one file that have been handed over, over several attempts.
///
/// Checksums show whether a repeated line is the same as before.
#[derive(Debug, Default)]
pub struct Emitted {
    checksums: Vec<u32>,
    next: usize,
}

impl Emitted {
    /// The file is read from its beginning again.
    pub fn restart(&mut self) {
        self.next = 0;
    }

    /// Whether a line is new: not handed over before, or not like this.
    pub fn is_new(&mut self, line: &[u8]) -> bool {
        let checksum = crc32fast::hash(line);
        let place = self.next;
        self.next += 1;
        match self.checksums.get_mut(place) {
            Some(known) if *known == checksum => false,
            Some(known) => {
                *known = checksum;
                true
            }
            None => {
                self.checksums.push(checksum);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn read(file: &[u8], size: usize) -> Result<Vec<String>, Malformed> {
        let mut lines = Vec::new();
        let mut take = |line: &[u8]| {
            lines.push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        };
        let mut reader = LineReader::default();
        for piece in file.chunks(size) {
            reader.feed(piece, &mut take)?;
        }
        assert_eq!(reader.taken(), file.len() as u64);
        reader.finish(&mut take)?;
        Ok(lines)
    }

    #[test]
    fn truncation_and_every_changed_byte_are_detected() {
        let text = (0..200).fold(String::new(), |text, number| format!("{text}{{\"number\":{number}}}\n"));
        let file = packed(&text);
        for end in 0..file.len() {
            assert!(read(&file[..end], 100).is_err(), "cut at {end}");
        }
        // Bytes 4 to 9 of a gzip header are time and system, which mean nothing.
        for place in (0..4).chain(10..file.len()) {
            let mut file = file.clone();
            file[place] ^= 0x10;
            assert!(read(&file, 100).is_err(), "byte {place}");
        }
        assert!(read(b"", 1).is_err());
        assert!(read(text.as_bytes(), 100).is_err());
    }

    #[test]
    fn files_with_several_gzip_members_and_no_final_line_feed_are_read() {
        let file = [packed("a\nb"), packed("c\n\nd")].concat();
        for size in 1..file.len() {
            assert_eq!(read(&file, size).unwrap(), ["a", "bc", "d"], "by {size}");
        }
        assert!(read(&[packed("a\n"), b"no gzip".to_vec()].concat(), 5).is_err());
        assert_eq!(read(&packed(""), 3).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn rereading_a_file_emits_only_changed_lines() {
        let mut emitted = Emitted::default();
        assert!(["a", "b", "c"].iter().all(|line| emitted.is_new(line.as_bytes())));
        emitted.restart();
        let again: Vec<bool> = ["a", "B", "c", "d"].iter().map(|line| emitted.is_new(line.as_bytes())).collect();
        assert_eq!(again, [false, true, false, true]);
        emitted.restart();
        assert!(!emitted.is_new(b"a") && !emitted.is_new(b"B"));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_chunk_borders(lines in prop::collection::vec("[^\n\r]{1,40}", 0..30), size in 1usize..50) {
            let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
            prop_assert_eq!(read(&packed(&text), size).unwrap(), lines);
        }
    }
}
