//! The script that records the picture in the README shows what a terminal would show.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use crate::repo;

/// Records a shell command; whether the script succeeded, and the picture if it made one.
fn record(name: &str, command: &str) -> (bool, Option<String>) {
    let picture = std::env::temp_dir().join(format!("xtask-{name}-{}.svg", std::process::id()));
    let output = Command::new("python3")
        .arg(repo::root().join("docs/pictures/record.py"))
        .arg("--output")
        .arg(&picture)
        .args(["--shown", "a command", "--", "sh", "-c", command])
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&picture).ok();
    let _ = std::fs::remove_file(&picture);
    (output.status.success(), text)
}

#[test]
fn a_recording_shows_text_colours_and_what_was_overwritten_last() {
    let command = "printf '\\033[32mgreen\\033[0m\\nhalf\\r\\033[2Kwhole <1>\\n'";
    let (recorded, picture) = record("film", command);
    let picture = picture.unwrap();
    assert!(recorded);
    assert!(picture.contains("fill=\"#98c379\">green</tspan>"), "{picture}");
    assert!(picture.contains(">whole &lt;1&gt;</tspan>"), "{picture}");
    assert!(picture.contains("a command") && !picture.contains(">half</tspan>"), "{picture}");
}

#[test]
fn a_program_that_fails_is_not_recorded() {
    assert_eq!(record("failure", "exit 3"), (false, None));
}
