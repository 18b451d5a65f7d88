//! A small file that is either the old one or the new one whenever the program dies.
//!
//! It is replaced as a whole: written beside it, synchronised, renamed. A file that is a mount point
//! cannot be replaced (`docker run -v "$PWD/state.json:/state.json"`), nor one in a directory that
//! cannot be written. Then every new content is appended as a line, of which the last complete one
//! counts; when the lines grow too many, the file is rewritten.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::regular_file::{directory, open, unfinished};

/// From this size on, appended lines are dropped in favour of the last.
const LONGEST: u64 = 1024 * 1024;
/// A state of many streams has about this size.
const ORDINARY: usize = 16 * 1024;
/// Files are looked at from their end in pieces of this size.
const PIECE: u64 = 64 * 1024;

/// How the file is kept.
#[derive(Debug)]
enum Way {
    Replace,
    Append(File),
}

/// The file.
#[derive(Debug)]
pub(super) struct Storage {
    path: PathBuf,
    way: Way,
}

impl Storage {
    /// Finds out how the file can be kept, by keeping what it has.
    ///
    /// # Errors
    /// When it cannot be written in any way.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let storage = Self { path, way: Way::Replace };
        let rehearsed = storage.take_space().and_then(|()| match storage.text()? {
            Some(text) => storage.replace(&text),
            None => Ok(()),
        });
        match rehearsed {
            Ok(()) => Ok(storage),
            Err(error) if is_about_replacing(&error) => {
                let file = open(&storage.path, OpenOptions::new().append(true)).map_err(|_| error)?;
                Ok(Self { way: Way::Append(file), ..storage })
            }
            Err(error) => Err(error),
        }
    }

    /// Finds out whether a state of ordinary size has room on the disk.
    fn take_space(&self) -> io::Result<()> {
        self.write_beside(&[b' '; ORDINARY])?.close()
    }

    /// What the file has; none when there is no file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn text(&self) -> io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        match open(&self.path, OpenOptions::new().read(true)) {
            Ok(mut file) => file.read_to_end(&mut text).map(|_| Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, if lines are appended to it.
    pub(super) fn appended(&self) -> Option<&File> {
        match &self.way {
            Way::Replace => None,
            Way::Append(file) => Some(file),
        }
    }

    /// Keeps a text of one line in place of what was there.
    ///
    /// # Errors
    /// When the disk does not take it; what was there stays.
    pub(super) fn keep(&mut self, text: &str) -> io::Result<()> {
        match &mut self.way {
            Way::Replace => self.replace(text.as_bytes()),
            Way::Append(file) => append(file, &self.path, text.as_bytes()),
        }
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        // Where that fails, the new file is removed: it takes space where there is perhaps none.
        self.write_beside(text)?.persist(&self.path)?;
        File::open(directory(&self.path))?.sync_all()
    }

    fn write_beside(&self, text: &[u8]) -> io::Result<NamedTempFile> {
        let mut file = unfinished(&self.path)?;
        file.write_all(text)?;
        file.as_file().sync_all()?;
        Ok(file)
    }
}

/// What comes after the last line feed.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn last_line(file: &File) -> io::Result<Vec<u8>> {
    let (mut rest, mut line) = (file.metadata()?.len(), Vec::new());
    while rest > 0 && !line.contains(&b'\n') {
        let size = rest.min(PIECE);
        let mut piece = vec![0; usize::try_from(size).unwrap_or_default()];
        rest -= size;
        file.read_exact_at(&mut piece, rest)?;
        piece.append(&mut line);
        line = piece;
    }
    let begin = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |line_feed| line_feed + 1);
    Ok(line.split_off(begin))
}

/// Appends a line, or takes back what of it the disk has not taken.
fn append(file: &mut File, path: &Path, line: &[u8]) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length > LONGEST.max(8 * line.len() as u64) {
        return overwrite(path, length, line);
    }
    // The line feed in front ends what somebody else has written without one.
    let written = file.write_all(&[b"\n", line].concat()).and_then(|()| file.sync_all());
    if written.is_err() {
        drop(file.set_len(length));
    }
    written
}

/// Writes the line and spaces over everything, then cuts off the spaces.
fn overwrite(path: &Path, length: u64, line: &[u8]) -> io::Result<()> {
    let mut padded = line.to_vec();
    padded.resize(padded.len().max(usize::try_from(length).unwrap_or_default()), b' ');
    let file = open(path, OpenOptions::new().write(true))?;
    file.write_all_at(&padded, 0)?;
    file.sync_all()?;
    file.set_len(line.len() as u64)?;
    file.sync_all()
}

/// Whether the failure says that this place does not allow a file to be replaced, rather than that
/// nothing can be written.
fn is_about_replacing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::Unsupported
    )
}

/// The path with an ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::super::regular_file::target;
    use super::*;

    /// A file as it is kept where it cannot be replaced.
    fn appended(path: &Path) -> Storage {
        let file = OpenOptions::new().append(true).open(path).unwrap();
        Storage { path: path.to_owned(), way: Way::Append(file) }
    }

    #[test]
    fn appended_lines_are_dropped_when_they_grow_too_many() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("state.json");
        std::fs::write(&path, "[1]\n[2]").unwrap();
        let mut storage = appended(&path);
        storage.keep("[4]\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[1]\n[2]\n[4]\n");
        let long = |number: usize| format!("[{number},\"{}\"]\n", "x".repeat(100_000));
        for number in 0..30 {
            storage.keep(&long(number)).unwrap();
            assert!(std::fs::read_to_string(&path).unwrap().ends_with(&long(number)));
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 2 * LONGEST);
    }

    #[test]
    fn a_symbolic_link_stays_and_its_target_is_replaced() {
        let directory = tempfile::TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink("real/state.json", at("link")).unwrap();
        std::os::unix::fs::symlink(at("link"), at("link of link")).unwrap();
        let mut storage = Storage::open(target(&at("link of link")).unwrap()).unwrap();
        storage.keep("[1]\n").unwrap();
        assert!(at("link").is_symlink() && std::fs::metadata(at("real/state.json")).unwrap().is_file());
        assert_eq!(std::fs::read_dir(at("real")).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn opening_finds_a_place_that_cannot_be_written_and_changes_nothing() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("state.json");
        drop(Storage::open(path.clone()).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "[1]").unwrap();
        drop(Storage::open(path.clone()).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[1]");
        assert!(Storage::open(directory.path().join("nowhere/state.json")).is_err());
        assert!(Storage::open(directory.path().to_owned()).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }
}
