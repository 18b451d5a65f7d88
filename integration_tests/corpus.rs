//! The fuzz targets on the corpus, without a fuzzer.

use std::path::Path;

use crate::support::program::repository_file;
use crate::targets;

#[test]
fn every_corpus_file_passes_its_fuzz_target() {
    for (name, target) in targets::ALL {
        let folder = repository_file("fuzz/corpus").join(name);
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 10, "{} has only {} files", folder.display(), files.len());
        for file in files {
            // A failure shall name its file.
            let outcome = std::panic::catch_unwind(|| target(&std::fs::read(&file).unwrap()));
            assert!(outcome.is_ok(), "{}", relative(&file));
        }
    }
}

fn relative(file: &Path) -> String {
    file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(file).display().to_string()
}
