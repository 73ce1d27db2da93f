//! Real handwritten digits, which the demo of learning together carries.
//!
//! Owns the digits, how they are divided among clients by label, and how one looks as a table or
//! as letters. They are the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin
//! and C. Kaynak, 1998; CC BY 4.0, see NOTICE), 1,797 digits by 13 people, in the order of the set.
//! `digits.bin` has 65 bytes for each: 0x80 and the digit in one byte, then 64 pixels, row by row,
//! 0 for paper to 16 for ink. The high bit keeps the file from being taken for text.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use selvedge_train::{Examples, Schema, Shape, Split, split};

/// The digits; the header says how.
const BYTES: &[u8] = include_bytes!("digits.bin");
/// Pixels along each side, as the set has them.
const SIDE: usize = 8;
/// Pixels of a digit.
pub(super) const PIXELS: usize = SIDE * SIDE;
/// Kinds of digits.
pub(super) const CLASSES: usize = 10;
/// What a pixel of ink alone is: the set counts the black points of squares of four by four.
pub(super) const INK: f32 = 16.0;
/// Set in the byte of a label.
const LABEL: u8 = 0x80;
/// One of so many digits no node gets: 99 in all, enough to tell a good model from a bad one, and
/// each of ten clients keeps some 170.
const KEPT_BACK: usize = 18;
/// Of the division: any number; with this one it is the same every time.
const SEED: u64 = 1;
/// From paper to ink.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];

/// The digits as they are dealt out.
pub(super) struct Dealt {
    /// What each client has: two shards by label, so that none has more than a few kinds.
    pub(super) clients: Vec<Examples>,
    /// What no node has.
    pub(super) unseen: Examples,
}

/// Deals the digits out among so many clients.
pub(super) fn dealt(clients: usize) -> Result<Dealt> {
    let all = all()?;
    let (unseen, given): (Vec<usize>, Vec<usize>) =
        (0..all.len()).partition(|at| at % KEPT_BACK == KEPT_BACK - 1);
    let clients = split(&all.pick(&given), clients, Split::Shards(2), SEED)?;
    Ok(Dealt { clients, unseen: all.pick(&unseen) })
}

fn all() -> Result<Examples> {
    let (records, rest) = BYTES.as_chunks::<{ PIXELS + 1 }>();
    ensure!(rest.is_empty(), "the digits in this program are cut off");
    let (mut values, mut labels) = (Vec::with_capacity(BYTES.len()), Vec::new());
    for [label, pixels @ ..] in records {
        // A wrong one is beyond every class, and refused below.
        labels.push(u32::from(label ^ LABEL));
        values.extend(pixels.iter().map(|pixel| f32::from(*pixel)));
    }
    Ok(Examples::new(Schema { shape: Shape::Flat(PIXELS), classes: CLASSES }, values, labels)?)
}

/// Which kinds of digits there are among these, in words.
pub(super) fn kinds(part: &Examples) -> String {
    let mut kinds = part.labels().to_vec();
    kinds.sort_unstable();
    kinds.dedup();
    let kinds: Vec<String> = kinds.iter().map(ToString::to_string).collect();
    match kinds.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "none".to_owned(),
    }
}

/// A table with a line for each digit, as a person would hand it to a node.
pub(super) fn as_csv(part: &Examples) -> String {
    let mut text = "digit".to_owned();
    // Writing to a string cannot fail.
    for at in 0..PIXELS {
        let _ = write!(text, ",p{at}");
    }
    text.push('\n');
    for (at, label) in part.labels().iter().enumerate() {
        let _ = write!(text, "{label}");
        for value in part.row(at) {
            let _ = write!(text, ",{value}");
        }
        text.push('\n');
    }
    text
}

/// A digit as lines of letters, two for each pixel.
pub(super) fn drawn(pixels: &[f32]) -> Vec<String> {
    let darkest = SHADES.len() - 1;
    let shade = |pixel: &f32| {
        let at = (pixel / INK * darkest as f32).round() as usize;
        let shade = SHADES[at.min(darkest)];
        [shade, shade]
    };
    pixels.chunks(SIDE).map(|line| line.iter().flat_map(shade).collect()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use selvedge_train::{Source, Table, read};

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_digits_are_those_of_the_set() {
        let all = all().unwrap();
        assert_eq!(all.len(), 1_797);
        let count = |class: u32| all.labels().iter().filter(|label| **label == class).count();
        // As the description of the set counts them.
        let counts: Vec<usize> = (0..10).map(count).collect();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert!(all.values().iter().all(|value| (0.0..=INK).contains(value)));
        // All ink there is: a damaged file has another sum.
        let ink: u64 = BYTES.iter().filter(|byte| **byte < LABEL).map(|b| u64::from(*b)).sum();
        assert_eq!(ink, 561_718);
    }

    #[test]
    fn nobody_has_more_than_a_few_kinds_and_some_digits_nobody_has() {
        let Dealt { clients, unseen } = dealt(10).unwrap();
        assert_eq!((clients.len(), unseen.len()), (10, 99));
        let given: usize = clients.iter().map(Examples::len).sum();
        assert_eq!(given, 1_797 - 99);
        for client in &clients {
            let mut kinds = client.labels().to_vec();
            kinds.sort_unstable();
            kinds.dedup();
            assert!(kinds.len() <= 4 && client.len() >= 160, "{kinds:?}");
        }
        assert_eq!(kinds(&clients[0].pick(&[])), "none");
        assert_eq!(kinds(&clients[0].pick(&[0])), clients[0].labels()[0].to_string());
    }

    #[test]
    fn a_node_reads_what_is_written_for_it() {
        let clients = dealt(10).unwrap().clients;
        let part = &clients[3];
        let scratch = Scratch::new("digits");
        let path = scratch.path().join("a.csv");
        std::fs::write(&path, as_csv(part)).unwrap();
        let table =
            Table { path, label: "digit".into(), values: vec![], classes: vec![], scale: INK };
        let found = read(&Source::Csv(table), part.schema()).unwrap();
        assert_eq!(found.labels(), part.labels());
        let wanted: Vec<f32> = part.values().iter().map(|value| value / INK).collect();
        assert_eq!(found.values(), wanted);
    }

    #[test]
    fn a_digit_is_drawn_line_by_line() {
        let mut pixels = [0.0; PIXELS];
        (pixels[0], pixels[9], pixels[63]) = (INK, 8.0, 99.0);
        let lines = drawn(&pixels);
        assert!(lines.len() == SIDE && lines.iter().all(|line| line.chars().count() == 2 * SIDE));
        assert!(lines[0].starts_with("██ ") && lines[1].starts_with("  ▒▒ "));
        assert!(lines[7].ends_with(" ██"));
    }
}
