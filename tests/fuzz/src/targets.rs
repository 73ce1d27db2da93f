//! The targets: a name, what must hold, and the function that checks it on any bytes.
//!
//! Owns the registry and what several targets share. Every target must end without a panic, within
//! the bounds of [`crate::guard`]; what else one holds is its `holds`.

mod answers;
mod examples;
mod files;
mod folders;
mod mesh;
mod models;
mod requests;
mod rounds;
mod sound;
mod tap;
mod text;

use selvedge_base::{Dice, Refusal};

/// One parser, or several that read the same bytes.
pub struct Target {
    /// Names it on the command line and its folder in the corpus.
    pub name: &'static str,
    /// What holds besides the bounds.
    pub holds: &'static str,
    /// Panics when it does not hold.
    pub check: fn(&[u8]),
    /// Folders of the dialects' corpus it starts from too.
    pub shares: &'static [&'static str],
    /// Inputs in formats of our own, which would grow old on disk.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format, for the mutator.
    pub words: &'static [&'static str],
}

/// All of them.
pub const TARGETS: &[&[Target]] = &[
    requests::TARGETS,
    answers::TARGETS,
    tap::TARGETS,
    mesh::TARGETS,
    rounds::TARGETS,
    files::TARGETS,
    examples::TARGETS,
    models::TARGETS,
    folders::TARGETS,
    sound::TARGETS,
    text::TARGETS,
];

/// Folders of the corpus whose targets are beside parsers that are private to the program: its own
/// tests replay them.
pub const ELSEWHERE: &[&str] = &["http.headers"];

/// All of them, one by one.
pub fn all() -> impl Iterator<Item = &'static Target> {
    TARGETS.iter().copied().flatten()
}

/// The one of this name.
pub fn named(name: &str) -> Option<&'static Target> {
    all().find(|target| target.name == name)
}

const fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

/// Characters of a refusal: it may repeat what it refuses, but not the whole body.
const REFUSAL_CHARS: usize = 2_000;

/// A refusal is short and its message says something.
fn check_refusal(refusal: &Refusal) {
    let length = refusal.message.chars().count();
    assert!((1..REFUSAL_CHARS).contains(&length), "a refusal of {length} characters");
    let param = refusal.param.as_ref().map_or(0, |param| param.chars().count());
    assert!(param < REFUSAL_CHARS, "a field's name of {param} characters");
}

/// The input in some pieces; which ones follows from the input, so that a failure comes again.
fn pieces(input: &[u8]) -> Vec<&[u8]> {
    let mut dice = Dice::from_seed(*blake3::hash(input).as_bytes());
    let most = [1, 3, 17, 200, 4_096][dice.below(5) as usize];
    let (mut rest, mut pieces) = (input, Vec::new());
    while !rest.is_empty() {
        let length = (1 + dice.below(most) as usize).min(rest.len());
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
    }
    pieces
}
