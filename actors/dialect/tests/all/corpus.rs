//! The stored corpus: one folder per parser or decoder, replayed by every test run.

use std::fs;
use std::path::PathBuf;

/// The files of one folder, by name: recorded shapes of the public references, and inputs that
/// once were handled wrongly.
pub(crate) fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("listed").path();
            let name = path.file_name().expect("named").to_string_lossy().into_owned();
            (name, fs::read(path).expect("readable"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} holds nothing");
    files
}
