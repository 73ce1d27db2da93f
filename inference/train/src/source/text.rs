//! Texts of this node: a file of plain text, a file with one JSON object a line, or a directory of
//! such files.
//!
//! Owns which files are read, in which order, and the bound on them. What tokens they become is the
//! base model's.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::TrainError;

/// Where texts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// A file, or a directory whose files are read by name.
    pub path: PathBuf,
}

/// Bytes of all texts together: four million tokens, which a core learns from for hours a round.
const MAX_BYTES: usize = 16 << 20;
/// Entries of a directory that are looked at.
const MAX_ENTRIES: usize = 10_000;
/// Endings of files that hold text as it is.
const PLAIN: [&str; 2] = ["txt", "md"];
/// The ending of files that hold one object a line.
const LINES: &str = "jsonl";

/// One line of such a file; what else is in it is somebody else's.
#[derive(Deserialize)]
struct Line {
    text: String,
}

/// The texts, each by itself, in order.
pub(crate) fn texts(source: &Texts) -> Result<Vec<String>, TrainError> {
    within(&source.path, MAX_BYTES)
}

fn within(path: &Path, most: usize) -> Result<Vec<String>, TrainError> {
    let failed = |source| TrainError::Io { path: path.to_owned(), source };
    let mut left = most;
    let mut all = Vec::new();
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        for file in files(path)? {
            read(&file, &mut left, most, &mut all)?;
        }
    } else {
        read(path, &mut left, most, &mut all)?;
    }
    all.retain(|text: &String| !text.trim().is_empty());
    if all.is_empty() {
        return Err(TrainError::malformed(path, "there is no text in it"));
    }
    Ok(all)
}

/// The files of a directory that hold texts, by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let failed = |source| TrainError::Io { path: path.to_owned(), source };
    let mut files = Vec::new();
    for (at, entry) in std::fs::read_dir(path).map_err(failed)?.enumerate() {
        if at >= MAX_ENTRIES {
            let what = format!("{}: its number of entries", path.display());
            return Err(TrainError::TooLarge { what, limit: MAX_ENTRIES });
        }
        let file = entry.map_err(failed)?.path();
        if ending(&file).is_some_and(|end| PLAIN.contains(&end) || end == LINES) && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        let said = "it has no files that end in .txt, .md or .jsonl";
        return Err(TrainError::malformed(path, said));
    }
    files.sort_unstable();
    Ok(files)
}

fn ending(path: &Path) -> Option<&str> {
    path.extension().and_then(|end| end.to_str())
}

fn read(
    path: &Path,
    left: &mut usize,
    most: usize,
    into: &mut Vec<String>,
) -> Result<(), TrainError> {
    let failed = |source| TrainError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(*left as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let Some(rest) = left.checked_sub(bytes.len()) else {
        let what = format!("{}: with the texts before it, its size in bytes", path.display());
        return Err(TrainError::TooLarge { what, limit: most });
    };
    *left = rest;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        TrainError::malformed(path, format!("no UTF-8 from byte {at} on; convert it"))
    })?;
    if ending(path) != Some(LINES) {
        into.push(text);
        return Ok(());
    }
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|error| {
            let said = format!("line {}: {error}; a line is an object with a 'text'", at + 1);
            TrainError::malformed(path, said)
        })?;
        into.push(line.text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn said(path: &Path) -> String {
        texts(&Texts { path: path.to_owned() }).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_file_and_a_directory_are_read_in_order() -> Result<(), TrainError> {
        let folder = Folder::new();
        let one = folder.write("b.txt", b"second\n");
        folder.write("a.jsonl", b"{\"text\": \"first\", \"who\": 1}\n\n{\"text\": \"and more\"}\n");
        folder.write("c.bin", &[0xff]);
        folder.write("d.md", b" \n");
        assert_eq!(texts(&Texts { path: one })?, ["second\n"]);
        let all = texts(&Texts { path: folder.path().to_owned() })?;
        assert_eq!(all, ["first", "and more", "second\n"]);
        Ok(())
    }

    #[test]
    fn what_is_no_text_is_said_with_its_place() {
        let folder = Folder::new();
        assert!(said(folder.path()).contains(".jsonl"));
        assert!(said(&folder.write("a.txt", b"ab\xff")).contains("from byte 2 on"));
        assert!(said(&folder.write("b.txt", b"  \n")).contains("no text in it"));
        let lines = said(&folder.write("c.jsonl", b"{\"text\": \"a\"}\n{\"texts\": \"b\"}\n"));
        assert!(lines.contains("line 2"), "{lines}");
        assert!(said(&folder.path().join("none.txt")).contains("cannot read"));
    }

    #[test]
    fn more_than_is_held_is_refused_and_not_cut() {
        let folder = Folder::new();
        folder.write("a.txt", b"1234");
        folder.write("b.txt", b"5678");
        assert!(within(folder.path(), 8).is_ok());
        assert!(matches!(within(folder.path(), 7), Err(TrainError::TooLarge { .. })));
    }
}
