//! Files that a command line names.
//!
//! A configuration may come through a pipe, such as `<(…)`. What comes through one is limited, and devices are
//! refused: some of them never end.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Most bytes of what is no regular file.
const MOST_PIPED: u64 = 16 * 1024 * 1024;

/// The whole file.
///
/// # Errors
/// When it cannot be read, is a directory or a device, or more comes through a pipe than it may.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_open(File::open(path)?)
}

/// The rest of standard input.
///
/// # Errors
/// As for [`read`].
pub(crate) fn read_stdin() -> io::Result<Vec<u8>> {
    use std::os::fd::AsFd;
    read_open(io::stdin().as_fd().try_clone_to_owned()?.into())
}

fn read_open(mut file: File) -> io::Result<Vec<u8>> {
    let kind = file.metadata()?.file_type();
    let mut text = Vec::new();
    if kind.is_file() {
        file.read_to_end(&mut text)?;
        return Ok(text);
    }
    if kind.is_dir() {
        return Err(refused("it is a directory"));
    }
    // `/dev/null` is as good as an empty file, and people type on a terminal.
    let is_device = kind.is_block_device() || kind.is_char_device() && !file.is_terminal();
    let most = if is_device { 0 } else { MOST_PIPED };
    file.take(most + 1).read_to_end(&mut text)?;
    match text.len() as u64 > most {
        false => Ok(text),
        true if is_device => Err(refused("it is a device, not a file")),
        true => Err(refused(&format!("more than {} MiB come through the pipe", MOST_PIPED / (1024 * 1024)))),
    }
}

fn refused(problem: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, problem)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    /// Reads what is written into a pipe.
    fn piped(length: usize) -> io::Result<Vec<u8>> {
        let (reader, mut writer) = io::pipe().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&vec![b'x'; length]));
        let text = read(Path::new(&format!("/dev/fd/{}", reader.as_raw_fd())));
        drop(reader);
        drop(writing.join().unwrap());
        text
    }

    #[test]
    fn pipes_are_read_up_to_a_limit_and_what_never_ends_is_refused() {
        assert_eq!(piped(100_000).unwrap().len(), 100_000);
        let most = usize::try_from(MOST_PIPED).unwrap();
        assert_eq!(piped(most).unwrap().len(), most);
        for (found, expected) in [
            (piped(most + 1), "more than 16 MiB come through the pipe"),
            (read(Path::new("/dev/zero")), "it is a device, not a file"),
            (read(Path::new("/tmp")), "it is a directory"),
        ] {
            assert_eq!(found.unwrap_err().to_string(), expected);
        }
        assert!(read(Path::new("/dev/null")).unwrap().is_empty());
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MOST_PIPED + 1).unwrap();
        assert_eq!(read(file.path()).unwrap().len(), most + 1);
    }
}
