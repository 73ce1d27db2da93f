//! What is said while the bench runs.
//!
//! Owns lines without the name of a program. The table and the JSON line are no progress.

/// Says a line on standard error, where it is in nobody's way who reads the figures.
#[expect(clippy::print_stderr, reason = "progress of minutes, beside the table")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
