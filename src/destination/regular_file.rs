//! Files whose path somebody else may want to lead elsewhere: states and rejected records hold personal data.
//!
//! A path is resolved once; what it leads to is opened without following another link, must be a regular
//! file, and is created for its owner alone. Files that exist keep their permissions.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tempfile::{Builder, NamedTempFile};

/// Read and written by the owner alone.
const MODE: u32 = 0o600;
/// Symbolic links that are followed.
const MOST_LINKS: usize = 40;
/// How the names of unfinished files end.
const UNFINISHED: &str = ".new";

/// Opens a regular file; `path` is one that [`target`] has resolved.
///
/// # Errors
/// When there is something else, a link included, or the file cannot be opened.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // A pipe would be waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.mode(MODE).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Fails if there is something, but no regular file.
///
/// # Errors
/// In this case.
pub(super) fn check(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(known) if !known.is_file() => Err(not_regular()),
        _ => Ok(()),
    }
}

fn not_regular() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")
}

/// The file that a chain of symbolic links ends at, which need not exist, in a directory without any.
///
/// # Errors
/// When there are too many links, or one leads to no directory.
pub(super) fn target(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        let name = target.file_name().ok_or_else(not_regular)?;
        let directory = std::fs::canonicalize(directory(&target))?;
        let resolved = directory.join(name);
        match std::fs::read_link(&resolved) {
            Ok(next) => target = directory.join(next),
            Err(_) => return Ok(resolved),
        }
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "too many symbolic links"))
}

/// Whether two paths lead to the same file, which need not exist.
pub(super) fn are_one(first: &Path, second: &Path) -> bool {
    let place = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    match (place(first), place(second)) {
        (Some(first), Some(second)) => first == second,
        _ => target(first).ok().zip(target(second).ok()).is_some_and(|(first, second)| first == second),
    }
}

/// A new file beside another one that it is to replace, with the same owner and permissions. It is removed
/// unless it is persisted.
///
/// # Errors
/// When the directory does not take it.
pub(super) fn unfinished(path: &Path) -> io::Result<NamedTempFile> {
    let file = Builder::new().prefix(&prefix(path)).suffix(UNFINISHED).tempfile_in(directory(path))?;
    if let Some(known) = std::fs::symlink_metadata(path).ok().filter(Metadata::is_file) {
        // Only the superuser may give files away.
        drop(fchown(file.as_file(), Some(known.uid()), Some(known.gid())));
        file.as_file().set_permissions(PermissionsExt::from_mode(known.mode()))?;
    }
    Ok(file)
}

/// Removes what runs have left that were killed while they wrote. Nobody else may be writing.
pub(super) fn remove_unfinished(path: &Path) {
    let prefix = prefix(path);
    let is_left = |name: &[u8]| name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(UNFINISHED.as_bytes());
    for entry in std::fs::read_dir(directory(path)).into_iter().flatten().flatten() {
        if is_left(entry.file_name().as_encoded_bytes()) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}

/// How the names of unfinished files begin.
fn prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// The directory of a path.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn links_are_resolved_once_and_not_followed_afterwards() {
        let folder = tempfile::TempDir::new().unwrap();
        let at = |name: &str| std::fs::canonicalize(folder.path()).unwrap().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink("real", at("folder")).unwrap();
        std::os::unix::fs::symlink("folder/state.json", at("link")).unwrap();
        std::os::unix::fs::symlink(at("link"), at("link of link")).unwrap();
        let resolved = target(&at("link of link")).unwrap();
        assert_eq!(resolved, at("real/state.json"));
        std::fs::write(at("victim"), "untouched").unwrap();
        std::os::unix::fs::symlink(at("victim"), &resolved).unwrap();
        assert!(open(&resolved, OpenOptions::new().append(true)).is_err());
        assert!(open(&resolved, OpenOptions::new().write(true).create(true).truncate(true)).is_err());
        unfinished(&resolved).unwrap().persist(&resolved).unwrap();
        assert!(!resolved.is_symlink());
        assert_eq!(std::fs::read_to_string(at("victim")).unwrap(), "untouched");
        std::os::unix::fs::symlink("round", at("round")).unwrap();
        assert!(target(&at("round")).is_err());
        assert!(target(Path::new("/nowhere/state.json")).is_err());
    }

    #[test]
    fn files_are_for_their_owner_and_those_that_exist_keep_their_permissions() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("state.json");
        drop(open(&path, OpenOptions::new().append(true).create(true)).unwrap());
        assert_eq!(mode(&path), 0o600);
        for permissions in [0o640, 0o600, 0o666] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(permissions)).unwrap();
            drop(open(&path, OpenOptions::new().append(true).create(true)).unwrap());
            unfinished(&path).unwrap().persist(&path).unwrap();
            assert_eq!(mode(&path), permissions);
        }
        let new = unfinished(&folder.path().join("other.json")).unwrap();
        assert_eq!(mode(new.path()), 0o600);
    }

    #[test]
    fn only_what_is_left_of_the_same_file_is_removed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("state.json");
        let left = unfinished(&path).unwrap().keep().unwrap().1;
        let others = ["state.json", "state.json.new", ".state.json.lock", ".other.json.x.new"];
        for name in others {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        remove_unfinished(&path);
        assert!(!left.exists() && others.iter().all(|name| folder.path().join(name).exists()));
    }
}
