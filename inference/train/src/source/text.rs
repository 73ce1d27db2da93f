//! Texts of this node: a file of plain text, a file with one JSON object a line, or a directory of
//! such files.
//!
//! Owns which files are read, in which order, and the bound on them. What tokens they become is the
//! base model's.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{TrainError, Wrong};

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
const LINES: [&str; 1] = ["jsonl"];
/// Endings of files that hold objects and would be learned from as they are, brackets and all.
const ELSEWHERE: [&str; 2] = ["json", "ndjson"];

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
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if kind.is_dir() {
        for file in files(path)? {
            read(&file, &mut left, most, &mut all)?;
        }
    } else if !kind.is_file() {
        return Err(TrainError::malformed(path, "it is no file and no directory"));
    } else if ends_in(path, &ELSEWHERE) {
        let said =
            "it ends like a file of JSON; one object a line, with a 'text', is a .jsonl file";
        return Err(TrainError::malformed(path, said));
    } else {
        read(path, &mut left, most, &mut all)?;
    }
    all.retain(|text: &String| !text.trim().is_empty());
    if all.is_empty() {
        return Err(TrainError::wrong(Wrong::Empty, path, "there is no text in it"));
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
        let entry = entry.map_err(failed)?;
        // Links may lead out of the directory, and names with a dot belong to other programs.
        let is_own = entry.file_type().map_err(failed)?.is_file();
        let is_shown = !entry.file_name().to_string_lossy().starts_with('.');
        let file = entry.path();
        if is_own && is_shown && (ends_in(&file, &PLAIN) || ends_in(&file, &LINES)) {
            files.push(file);
        }
    }
    if files.is_empty() {
        let said = "it has no files that end in .txt, .md or .jsonl";
        return Err(TrainError::wrong(Wrong::Empty, path, said));
    }
    files.sort_unstable();
    Ok(files)
}

/// Whether a file's name has one of these endings, large or small.
fn ends_in(path: &Path, endings: &[&str]) -> bool {
    let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
    endings.iter().any(|one| one.eq_ignore_ascii_case(end))
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
    if !ends_in(path, &LINES) {
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
        folder.write("e.TXT", b"last");
        folder.write("._f.txt", &[0xff]);
        let outside = Folder::new().write("g.txt", b"not this one");
        std::os::unix::fs::symlink(outside, folder.path().join("g.txt")).expect("a link");
        assert_eq!(texts(&Texts { path: one })?, ["second\n"]);
        let all = texts(&Texts { path: folder.path().to_owned() })?;
        assert_eq!(all, ["first", "and more", "second\n", "last"]);
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
        assert!(said(&folder.write("d.json", b"{}")).contains(".jsonl"));
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
