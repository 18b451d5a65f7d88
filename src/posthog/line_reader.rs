//! Unpacks a gzip file of JSON lines while it arrives.
//!
//! # What it guarantees
//! Every line is handed over once and whole. [`LineReader::finish`] fails unless the file has ended
//! as gzip demands, checksum included, and with a line feed or the end of a line: a file that was cut
//! or altered is never taken for a whole one. What was handed over before such an end may be wrong;
//! [`Emitted`] keeps track of it, so that it is corrected when the file is read again.
//!
//! # Memory
//! One line and 64 KiB, whatever the size of the file and of what a byte of it unpacks to; for
//! [`Emitted`] a megabyte. A line longer than [`LONGEST`] is refused: a small file that unpacks to
//! gigabytes without a line feed cannot fill the memory.

use std::io::Write;

use flate2::write::MultiGzDecoder;

use super::row_reader::{LONGEST, Malformed};
use crate::large::{give_back, make_room};

/// Once so much has been unpacked, its records are to be sent before there are more.
const STEP: usize = 64 * 1024;

/// Reads one file.
pub struct LineReader {
    unpacked: MultiGzDecoder<Vec<u8>>,
    /// Compressed bytes taken in.
    taken: u64,
    /// Unpacked bytes of the line that is not complete, which have no line feed.
    searched: usize,
}

impl Default for LineReader {
    fn default() -> Self {
        Self { unpacked: MultiGzDecoder::new(Vec::new()), taken: 0, searched: 0 }
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

    /// Takes some of the next bytes and hands complete lines to `take`. Returns how many bytes it has taken,
    /// which are few where they unpack to much: it wants the others afterwards.
    ///
    /// # Errors
    /// When the bytes are not gzip, a line is longer than [`LONGEST`], or `take` does not accept a line.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut dyn FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<usize, Malformed> {
        let (mut taken, begin) = (0, self.held());
        make_room(self.unpacked.get_mut(), 2 * STEP);
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            // Writes what it has unpacked before, 32 KiB at most, and unpacks about as much.
            let accepted = self.unpacked.write(rest).map_err(corrupt)?;
            if accepted == 0 {
                return Err(Malformed("a file cannot be unpacked".to_owned()));
            }
            taken += accepted;
            if self.held() >= begin + STEP {
                break;
            }
        }
        self.taken += taken as u64;
        self.hand_over(take)?;
        Ok(taken)
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
        let Some(end) = memchr::memrchr(b'\n', buffer.get(self.searched..).unwrap_or_default()) else {
            self.searched = buffer.len();
            let too_long = || Malformed(format!("a line is longer than {} MiB", LONGEST / (1024 * 1024)));
            return if buffer.len() > LONGEST { Err(too_long()) } else { Ok(()) };
        };
        let end = self.searched + end;
        let mut begin = 0;
        let ends = memchr::memchr_iter(b'\n', buffer.get(self.searched..).unwrap_or_default());
        for line_end in ends.map(|place| self.searched + place) {
            let line = buffer.get(begin..line_end).unwrap_or_default();
            begin = line_end + 1;
            if !line.is_empty() {
                take(line)?;
            }
        }
        buffer.drain(..=end);
        self.searched = buffer.len();
        give_back(buffer);
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn corrupt(error: std::io::Error) -> Malformed {
    Malformed(format!("a file is cut or corrupt: {error}"))
}

/// So many lines of a file are remembered: a megabyte of checksums.
const MOST_REMEMBERED: usize = 1 << 18;

/// The lines of one file that have been handed over, over several attempts.
///
/// Checksums show whether a repeated line is the same as before. Of a very long file, only the first lines
/// are remembered; the others come again when it is read from its beginning again.
#[derive(Debug, Default)]
pub struct Emitted {
    checksums: Vec<u32>,
    next: usize,
}

/// What a line is, compared with those that have been handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// Handed over before.
    Known,
    /// Not handed over before, or not like this.
    New,
    /// Behind those that are remembered: perhaps handed over before.
    Unremembered,
}

impl Emitted {
    /// The file is read from its beginning again.
    pub fn restart(&mut self) {
        self.next = 0;
    }

    /// Compares the next line with what has been handed over, and remembers it.
    pub fn meet(&mut self, line: &[u8]) -> Novelty {
        let place = self.next;
        self.next += 1;
        if place >= MOST_REMEMBERED {
            return Novelty::Unremembered;
        }
        let checksum = crc32fast::hash(line);
        match self.checksums.get_mut(place) {
            Some(known) if *known == checksum => Novelty::Known,
            Some(known) => {
                *known = checksum;
                Novelty::New
            }
            None => {
                self.checksums.push(checksum);
                Novelty::New
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
    use crate::large::LARGE;

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
        for mut piece in file.chunks(size) {
            while !piece.is_empty() {
                piece = &piece[reader.feed(piece, &mut take)?..];
            }
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
        use Novelty::{Known, New, Unremembered};
        let mut emitted = Emitted::default();
        assert!(["a", "b", "c"].iter().all(|line| emitted.meet(line.as_bytes()) == New));
        emitted.restart();
        let again: Vec<Novelty> = ["a", "B", "c", "d"].iter().map(|line| emitted.meet(line.as_bytes())).collect();
        assert_eq!(again, [Known, New, Known, New]);
        emitted.restart();
        assert!(emitted.meet(b"a") == Known && emitted.meet(b"B") == Known);
        emitted.next = MOST_REMEMBERED - 1;
        assert_eq!([b"e"; 3].map(|line| emitted.meet(line)), [New, Unremembered, Unremembered]);
    }

    #[test]
    fn few_bytes_that_unpack_to_much_are_taken_in_steps() {
        let file = packed(&"{}\n".repeat(4 * 1024 * 1024));
        let (mut reader, mut lines, mut rest) = (LineReader::default(), 0, file.as_slice());
        while !rest.is_empty() {
            let before = lines;
            let mut take = |_: &[u8]| {
                lines += 1;
                Ok(())
            };
            rest = &rest[reader.feed(rest, &mut take).unwrap()..];
            assert!(lines - before <= 2 * STEP / 3, "{}", lines - before);
        }
        assert_eq!(reader.taken(), file.len() as u64);
        reader.finish(&mut |_| Ok(())).unwrap();
    }

    #[test]
    fn space_of_a_long_line_is_given_back() {
        let file = packed(&format!("{}\n{}", "x".repeat(15 * LARGE), "y\n".repeat(3 * STEP)));
        let (mut reader, mut rest, mut most) = (LineReader::default(), file.as_slice(), 0);
        while !rest.is_empty() {
            rest = &rest[reader.feed(rest, &mut |_| Ok(())).unwrap()..];
            most = most.max(reader.unpacked.get_ref().capacity());
        }
        assert!(most > 15 * LARGE && reader.unpacked.get_ref().capacity() <= LARGE);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_chunk_borders(lines in prop::collection::vec("[^\n\r]{1,40}", 0..30), size in 1usize..50) {
            let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
            prop_assert_eq!(read(&packed(&text), size).unwrap(), lines);
        }
    }
}
