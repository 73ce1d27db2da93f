//! Models that tell classes of rows of numbers: what is asked of them and what they answer.
//!
//! Owns what such an inference means, whichever encoding it comes in: one tensor of 32-bit floats
//! in, a probability for each class and the class out. What is read does not depend on the model;
//! [`Asked::rows`] says whether it fits one. A model's version is the number of rounds it was
//! learned in. Encodings are `rest` and `grpc`.

mod grpc;
mod rest;
#[cfg(test)]
#[path = "rows/tests.rs"]
mod tests;

use selvedge_base::{Micros, Refusal};

pub use self::grpc::{answer as grpc_answer, metadata as grpc_metadata, parse as grpc_parse};
pub use self::rest::{body, metadata_body, parse};
use super::{Fields, check_id, cut};
use crate::decode::{invalid, unsupported};
use crate::number::Component;

/// The name of the one input.
pub const INPUT: &str = "input";
/// What kind of thing such a model is, as the protocol asks.
pub const PLATFORM: &str = "selvedge_federated";
/// Examples of one request: a request of the largest that trains here takes seconds of one thread.
pub const MAX_ROWS: usize = 1_024;
/// Values of one request: 16 MiB, twice what the largest body holds by default.
const MAX_VALUES: usize = 1 << 22;
/// Sides of a tensor: a batch of images has four.
const MAX_SIDES: usize = 8;

/// A tensor that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A probability for each class.
    Probabilities,
    /// The likeliest class, counted from 0.
    Class,
}

impl Output {
    /// All of them, in the order in which they are answered unless asked for otherwise.
    pub const ALL: [Self; 2] = [Self::Probabilities, Self::Class];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probabilities => "probabilities",
            Self::Class => "class",
        }
    }

    /// The type of its elements.
    pub const fn datatype(self) -> &'static str {
        match self {
            Self::Probabilities => "FP32",
            Self::Class => "INT64",
        }
    }

    fn of_name(name: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|output| output.as_str() == name).ok_or_else(|| {
            let message =
                format!("there is no output '{}': probabilities and class are", cut(name));
            invalid("outputs", message)
        })
    }
}

/// What is known of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The sides of one example: how many values, or channels, height and width.
    pub example: Vec<usize>,
    /// How many classes it tells apart.
    pub classes: usize,
    /// The rounds that are folded into it; none before the first one is over.
    pub version: Option<u64>,
    /// The job that it comes from, in hexadecimal.
    pub job: String,
    /// The rounds of the job.
    pub rounds: u64,
}

impl Card {
    /// Numbers in one example.
    pub fn width(&self) -> usize {
        self.example.iter().fold(1, |width, side| width.saturating_mul(*side))
    }

    /// The shape of the input; -1 is any number of examples.
    fn input_shape(&self) -> Vec<i64> {
        let side = |side: &usize| i64::try_from(*side).unwrap_or(i64::MAX);
        std::iter::once(-1).chain(self.example.iter().map(side)).collect()
    }

    fn output_shape(&self, output: Output) -> Vec<i64> {
        match output {
            Output::Probabilities => vec![-1, i64::try_from(self.classes).unwrap_or(i64::MAX)],
            Output::Class => vec![-1],
        }
    }

    fn versions(&self) -> Vec<String> {
        self.version.iter().map(u64::to_string).collect()
    }
}

/// An output that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    output: Output,
    /// Whether as bytes, in the encoding that has a choice.
    binary: bool,
}

/// An inference, understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// What the caller calls it; may be empty.
    pub id: String,
    /// The input's values; all are finite.
    pub values: Vec<Component>,
    /// How long the caller waits.
    pub timeout: Option<Micros>,
    shape: Vec<i64>,
    wanted: Vec<Wanted>,
}

impl Asked {
    /// Puts together what both encodings read.
    fn of(
        id: String,
        (shape, values): (Vec<i64>, Vec<Component>),
        wanted: Vec<Wanted>,
        fields: Fields,
    ) -> Result<Self, Refusal> {
        let settings = fields.settings()?;
        settings.refuse_all("means nothing to a model that tells classes")?;
        if shape.len() > MAX_SIDES {
            return Err(invalid(INPUT, format!("'{INPUT}' has more than {MAX_SIDES} sides")));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let message = format!("value {at} of '{INPUT}' is {}; it must be finite", values[at]);
            return Err(invalid(INPUT, message));
        }
        Ok(Self { id: check_id(id)?, values, timeout: settings.timeout, shape, wanted })
    }

    /// How many examples there are for a model that takes such.
    ///
    /// # Errors
    /// A refusal that says what the model takes.
    pub fn rows(&self, card: &Card) -> Result<usize, Refusal> {
        let width = card.width();
        let (batch, rest) = self.shape.split_first().unwrap_or((&-1, &[]));
        let fits = |sides: &[usize]| {
            rest.len() == sides.len()
                && rest.iter().zip(sides).all(|(got, side)| usize::try_from(*got) == Ok(*side))
        };
        if !fits(&card.example) && !fits(&[width]) {
            let takes = format!("{:?}", card.input_shape());
            let flat =
                if card.example.len() > 1 { format!(", or [-1, {width}]") } else { String::new() };
            let message = format!(
                "'{INPUT}' has the shape {:?}; the model takes {takes}{flat}, where -1 is the \
                 number of examples",
                self.shape
            );
            return Err(invalid(INPUT, message));
        }
        let rows = usize::try_from(*batch).unwrap_or(0);
        if !(1..=MAX_ROWS).contains(&rows) {
            let message =
                format!("'{INPUT}' holds {batch} examples; 1 to {MAX_ROWS} are taken at a time");
            return Err(invalid(INPUT, message));
        }
        if rows.checked_mul(width) != Some(self.values.len()) {
            let message = format!(
                "the shape {:?} of '{INPUT}' does not fit its {} values",
                self.shape,
                self.values.len()
            );
            return Err(invalid(INPUT, message));
        }
        Ok(rows)
    }

    /// The outputs in the order of the answer.
    fn outputs(&self) -> impl Iterator<Item = Wanted> + '_ {
        self.wanted.iter().copied()
    }
}

/// What a model found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The rounds that are folded into the model.
    pub version: u64,
    /// A probability for each class of each example.
    pub probabilities: Vec<Component>,
    /// The class of each example.
    pub classes: Vec<i64>,
}

impl Found {
    fn shape(&self, output: Output) -> Vec<usize> {
        let rows = self.classes.len();
        match output {
            Output::Probabilities => vec![rows, self.probabilities.len() / rows.max(1)],
            Output::Class => vec![rows],
        }
    }

    /// An output's elements as bytes, the lowest first.
    fn bytes(&self, output: Output) -> Vec<u8> {
        match output {
            Output::Probabilities => {
                self.probabilities.iter().flat_map(|share| share.to_le_bytes()).collect()
            }
            Output::Class => self.classes.iter().flat_map(|class| class.to_le_bytes()).collect(),
        }
    }
}

/// Floats of four bytes each, the lowest first.
fn floats(bytes: &[u8]) -> Result<Vec<Component>, Refusal> {
    let (values, rest) = bytes.as_chunks();
    if !rest.is_empty() || values.len() > MAX_VALUES {
        let message = format!(
            "the binary data of '{INPUT}' are {} bytes: they must be whole values of 4 bytes, and \
             at most {MAX_VALUES}",
            bytes.len()
        );
        return Err(invalid(INPUT, message));
    }
    Ok(values.iter().map(|value| Component::from_le_bytes(*value)).collect())
}

/// The one input is called and typed as it should be.
fn check_input(name: &str, datatype: &str) -> Result<(), Refusal> {
    if name != INPUT {
        let message = format!("there is no input '{}'; '{INPUT}' is the one there is", cut(name));
        return Err(invalid("inputs", message));
    }
    if datatype != "FP32" {
        let message = format!("input '{INPUT}' is of datatype FP32, not '{}'", cut(datatype));
        return Err(invalid("inputs", message));
    }
    Ok(())
}

/// The outputs that are named, or all.
fn wanted<'a>(
    names: impl Iterator<Item = (&'a str, bool)>,
    binary: bool,
) -> Result<Vec<Wanted>, Refusal> {
    let mut all: Vec<Wanted> = Vec::new();
    for (name, binary) in names {
        let output = Output::of_name(name)?;
        if all.iter().any(|wanted| wanted.output == output) {
            return Err(invalid("outputs", format!("'outputs' names '{name}' twice")));
        }
        all.push(Wanted { output, binary });
    }
    if all.is_empty() {
        all.extend(Output::ALL.map(|output| Wanted { output, binary }));
    }
    Ok(all)
}

/// There is one input, not several or none.
fn one<T>(inputs: Vec<T>) -> Result<T, Refusal> {
    let [input] = <[T; 1]>::try_from(inputs).map_err(|inputs| {
        let message = format!("'inputs' must hold the one input '{INPUT}', not {}", inputs.len());
        invalid("inputs", message)
    })?;
    Ok(input)
}

/// A request for another encoding of an input than is understood.
fn unknown_contents() -> Refusal {
    let message = format!("'{INPUT}' must have its values in fp32_contents or raw_input_contents");
    unsupported(INPUT, message)
}
