//! What an ONNX file says it is, proven before any of it is computed (source: `onnx.proto3` and
//! "Open Neural Network Exchange Intermediate Representation Specification").
//!
//! Owns the walk over the whole file but for weights: every number that sizes something is bounded,
//! every tensor of weights has the bytes that its shape needs, every value is made once and before
//! it is read, so that no graph has a cycle, and no file but this one is named. Whether the runtime
//! can run each operator it says itself when it loads the file, in a process of its own.

use std::collections::BTreeSet;

use selvedge_contract::tensors::{MAX_NAME_BYTES, MAX_SIDES, MAX_TENSORS};
use selvedge_contract::{Datatype, Signature, TensorSpec};

use super::proto::{Fields, Value};
use crate::error::EngineError;

/// What such a model is called in metadata.
pub(crate) const PLATFORM: &str = "onnx";
/// Graphs inside of graphs: conditions and loops of published models nest three deep.
const MAX_DEPTH: usize = 16;
/// Operators of all graphs: those of a billion weights that were exported step by step have 50,000.
const MAX_NODES: usize = 200_000;
/// Names of values of all graphs, those of weights included.
const MAX_VALUES: usize = 600_000;
/// The greatest side of a tensor of weights or of an input: beyond any vocabulary.
const MAX_SIDE: i64 = 1 << 31;
/// Sides of a tensor of weights; those of inputs and outputs are fewer.
const MAX_WEIGHT_SIDES: usize = 16;
/// From here on a whole number is a slice's end: exporters write the least and greatest of 64 bits,
/// some less one or rounded, and nothing has so many elements.
const ENDLESS: u64 = 1 << 62;
/// The versions of the format that are read. 3 began to keep names of values apart.
const VERSIONS: std::ops::RangeInclusive<i64> = 3..=13;

/// What a file says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// What it takes and gives.
    pub(crate) signature: Signature,
    /// Numbers in all tensors of weights.
    pub(crate) parameters: u64,
    /// The type of most of them, as people write it.
    pub(crate) weights: String,
    /// Operators of all graphs.
    pub(crate) nodes: usize,
}

/// Reads a whole file.
pub(crate) fn read(bytes: &[u8]) -> Result<Header, EngineError> {
    let (mut graph, mut version, mut opsets) = (None, None, 0_usize);
    for field in Fields::of(bytes) {
        match field? {
            (1, value) => version = Some(value.whole()?),
            (7, value) => {
                let before = graph.replace(value.bytes()?);
                if before.is_some() {
                    return Err(EngineError::corrupt("the file has two graphs"));
                }
            }
            (8, value) => {
                opsets += 1;
                let _set = value.bytes()?;
            }
            // Functions of the file's own, which would have to be checked as graphs are.
            (25, _) => return Err(EngineError::unsupported("operators that the file defines")),
            _ => {}
        }
    }
    let Some(version) = version else {
        return Err(EngineError::corrupt("no version of the format: the file is no ONNX"));
    };
    if !VERSIONS.contains(&version) {
        let (from, to) = (VERSIONS.start(), VERSIONS.end());
        return Err(EngineError::unsupported(format!(
            "version {version} of the ONNX format ({from} to {to} are read)"
        )));
    }
    if opsets == 0 {
        return Err(EngineError::corrupt("no set of operators is named: the file is no ONNX"));
    }
    let graph = graph.ok_or_else(|| EngineError::corrupt("the file has no graph"))?;
    Walk::default().main(graph)
}

/// What is counted on the way.
#[derive(Default)]
struct Walk<'a> {
    nodes: usize,
    values: usize,
    parameters: u64,
    by_type: std::collections::BTreeMap<i64, u64>,
    /// Names that are known in each graph around the one that is read.
    known: Vec<BTreeSet<&'a str>>,
}

/// The parts of one graph.
#[derive(Default)]
struct Graph<'a> {
    nodes: Vec<&'a [u8]>,
    weights: Vec<&'a [u8]>,
    inputs: Vec<&'a [u8]>,
    outputs: Vec<&'a [u8]>,
}

impl<'a> Graph<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, EngineError> {
        let mut graph = Self::default();
        for field in Fields::of(bytes) {
            let (list, most, value) = match field? {
                (1, value) => (&mut graph.nodes, MAX_NODES, value),
                (5, value) => (&mut graph.weights, MAX_VALUES, value),
                (11, value) => (&mut graph.inputs, MAX_VALUES, value),
                (12, value) => (&mut graph.outputs, MAX_TENSORS, value),
                (15, _) => return Err(EngineError::unsupported("sparse tensors of weights")),
                _ => continue,
            };
            if list.len() == most {
                return Err(EngineError::corrupt(format!("a graph with more than {most} parts")));
            }
            list.push(value.bytes()?);
        }
        Ok(graph)
    }
}

impl<'a> Walk<'a> {
    fn main(mut self, bytes: &'a [u8]) -> Result<Header, EngineError> {
        let graph = Graph::of(bytes)?;
        let weights: BTreeSet<&str> = self.graph(&graph, 0)?;
        let given = |bytes: &&&'a [u8]| name_of(bytes).is_ok_and(|name| !weights.contains(name));
        let inputs = graph.inputs.iter().filter(given).map(|bytes| spec(bytes, "input"));
        let outputs = graph.outputs.iter().map(|bytes| spec(bytes, "output"));
        let signature = Signature {
            platform: PLATFORM.to_owned(),
            inputs: inputs.take(MAX_TENSORS + 1).collect::<Result<_, _>>()?,
            outputs: outputs.collect::<Result<_, _>>()?,
        };
        if !(1..=MAX_TENSORS).contains(&signature.inputs.len()) || signature.outputs.is_empty() {
            return Err(EngineError::unsupported(format!(
                "{} inputs and {} outputs (1 to {MAX_TENSORS} of each)",
                signature.inputs.len(),
                signature.outputs.len()
            )));
        }
        let most = self.by_type.iter().max_by_key(|(_, count)| **count);
        let weights = most.map_or_else(String::new, |(kind, _)| type_name(*kind).to_owned());
        Ok(Header { signature, parameters: self.parameters, weights, nodes: self.nodes })
    }

    /// Checks a graph and those inside of it; the names of its weights.
    fn graph(&mut self, graph: &Graph<'a>, depth: usize) -> Result<BTreeSet<&'a str>, EngineError> {
        if depth > MAX_DEPTH {
            let message = format!("graphs that nest more than {MAX_DEPTH} deep");
            return Err(EngineError::corrupt(message));
        }
        self.known.push(BTreeSet::new());
        let mut weights = BTreeSet::new();
        for bytes in &graph.weights {
            let name = self.tensor(bytes)?;
            self.define(name)?;
            weights.insert(name);
        }
        for bytes in &graph.inputs {
            let name = name_of(bytes)?;
            // Old files name weights as inputs too, whose values they are unless others are given.
            if !weights.contains(name) {
                self.define(name)?;
            }
        }
        for bytes in &graph.nodes {
            self.node(bytes, depth)?;
        }
        for bytes in &graph.outputs {
            self.check_known(name_of(bytes)?)?;
        }
        self.known.pop();
        Ok(weights)
    }

    fn node(&mut self, bytes: &'a [u8], depth: usize) -> Result<(), EngineError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(EngineError::corrupt(format!("more than {MAX_NODES} operators")));
        }
        let mut made = Vec::new();
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => {
                    let name = value.text()?;
                    // An empty name is an input that is left out.
                    if !name.is_empty() {
                        self.check_known(name)?;
                    }
                }
                (2, value) => {
                    let name = value.text()?;
                    // An empty name is an output that is left out.
                    if !name.is_empty() {
                        if self.values + made.len() >= MAX_VALUES {
                            return Err(too_many_values());
                        }
                        made.push(name);
                    }
                }
                (5, value) => self.attribute(value, depth)?,
                _ => {}
            }
        }
        made.into_iter().try_for_each(|name| self.define(name))
    }

    fn attribute(&mut self, value: Value<'a>, depth: usize) -> Result<(), EngineError> {
        for field in value.fields()? {
            match field? {
                (5 | 10, value) => {
                    self.tensor(value.bytes()?)?;
                }
                (6 | 11, value) => {
                    let graph = Graph::of(value.bytes()?)?;
                    self.graph(&graph, depth + 1)?;
                }
                (22 | 23, _) => return Err(EngineError::unsupported("sparse tensors of weights")),
                _ => {}
            }
        }
        Ok(())
    }

    fn define(&mut self, name: &'a str) -> Result<(), EngineError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(too_many_values());
        }
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let message =
                format!("a value's name has {} bytes, not 1 to {MAX_NAME_BYTES}", name.len());
            return Err(EngineError::corrupt(message));
        }
        let new = self.known.last_mut().is_some_and(|known| known.insert(name));
        if new {
            return Ok(());
        }
        Err(EngineError::corrupt(format!("the value '{}' is made twice", cut(name))))
    }

    fn check_known(&self, name: &str) -> Result<(), EngineError> {
        if self.known.iter().any(|known| known.contains(name)) {
            return Ok(());
        }
        Err(EngineError::corrupt(format!(
            "the value '{}' is read before it is made, or never made",
            cut(name)
        )))
    }

    /// Checks a tensor of weights; its name.
    fn tensor(&mut self, bytes: &'a [u8]) -> Result<&'a str, EngineError> {
        let (mut dims, mut kind, mut name) = (Vec::new(), 0, "");
        // Bytes of numbers where they stand as bytes, and how many numbers else.
        let (mut raw, mut listed, mut narrow) = (None, 0_usize, true);
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => value.wholes(&mut dims, MAX_WEIGHT_SIDES)?,
                (2, value) => kind = value.whole()?,
                (3, _) => return Err(EngineError::unsupported("tensors in segments")),
                (4, value) => listed += count(value, 4)?,
                (7, value) => {
                    listed += count(value, 0)?;
                    narrow &= value.all(is_narrow)?;
                }
                (5 | 11, value) => listed += count(value, 0)?,
                (6, value) => {
                    let _text = value.bytes()?;
                    listed += 1;
                }
                (8, value) => name = value.text()?,
                (9, value) => raw = Some(value.bytes()?),
                (10, value) => listed += count(value, 8)?,
                (13, _) => return Err(outside()),
                (14, value) if value.whole()? != 0 => return Err(outside()),
                _ => {}
            }
        }
        let sized = |room: u64, side: &i64| {
            let side = u64::try_from(*side).ok().filter(|side| *side <= MAX_SIDE.unsigned_abs());
            side.and_then(|side| room.checked_mul(side))
        };
        let elements = dims.iter().try_fold(1_u64, sized);
        let bits = bits_of(kind).ok_or_else(|| {
            EngineError::unsupported(format!("weights '{}' of type {kind}", cut(name)))
        })?;
        let needed = elements.and_then(|all| all.checked_mul(bits)).map(|bits| bits.div_ceil(8));
        let fits = match raw {
            Some(raw) if listed == 0 => needed == Some(raw.len() as u64),
            Some(_) => false,
            // Numbers of several kinds share lists; two of half a byte share a number.
            None => {
                let elements = elements.unwrap_or(u64::MAX);
                listed as u64 == if bits < 8 { elements.div_ceil(2) } else { elements }
            }
        };
        if !fits {
            return Err(EngineError::corrupt(format!(
                "the weights '{}' of shape {dims:?} have {} and need {elements:?} elements",
                cut(name),
                raw.map_or_else(
                    || format!("{listed} numbers"),
                    |raw| format!("{} bytes", raw.len())
                ),
            )));
        }
        let wide = |bytes: &[u8; 8]| !is_narrow(i64::from_le_bytes(*bytes));
        if !narrow || kind == 7 && raw.is_some_and(|raw| raw.as_chunks::<8>().0.iter().any(wide)) {
            return Err(EngineError::unsupported(format!(
                "weights '{}' with whole numbers beyond 32 bits",
                cut(name)
            )));
        }
        let elements = elements.unwrap_or(0);
        self.parameters = self.parameters.saturating_add(elements);
        let kind = self.by_type.entry(kind).or_default();
        *kind = kind.saturating_add(elements);
        Ok(name)
    }
}

/// Numbers in a field that holds one or several of so many bytes each; 0: of any length.
fn count(value: Value<'_>, size: usize) -> Result<usize, EngineError> {
    match (value, size) {
        (Value::Bytes(bytes), 0) => {
            // The last byte of each is below 128.
            let ends = bytes.iter().filter(|byte| **byte < 0x80).count();
            match bytes.last() {
                Some(last) if *last >= 0x80 => Err(EngineError::corrupt("numbers that do not end")),
                _ => Ok(ends),
            }
        }
        (Value::Bytes(bytes), size) if bytes.len().is_multiple_of(size) => Ok(bytes.len() / size),
        (Value::Number(_), 0) | (Value::Four, 4) | (Value::Eight, 8) => Ok(1),
        _ => Err(EngineError::corrupt("a list of numbers holds something else")),
    }
}

fn too_many_values() -> EngineError {
    EngineError::corrupt(format!("more than {MAX_VALUES} values"))
}

/// Whether a whole number of the file's is computed as it stands, or means "to the end".
fn is_narrow(number: i64) -> bool {
    i32::try_from(number).is_ok() || number.unsigned_abs() >= ENDLESS
}

fn outside() -> EngineError {
    EngineError::unsupported(
        "weights outside of the file: save it with all weights inside (ONNX calls them external \
         data; files of up to 2 GB need none)",
    )
}

/// Bits of a number of a type; those of a text are counted as a byte.
const fn bits_of(kind: i64) -> Option<u64> {
    match kind {
        2 | 3 | 9 => Some(8),
        4 | 5 | 10 | 16 => Some(16),
        1 | 6 | 12 => Some(32),
        7 | 11 | 13 => Some(64),
        21 | 22 => Some(4),
        _ => None,
    }
}

const fn type_name(kind: i64) -> &'static str {
    match kind {
        1 => "F32",
        2 => "U8",
        3 => "I8",
        6 => "I32",
        7 => "I64",
        9 => "BOOL",
        10 => "F16",
        11 => "F64",
        16 => "BF16",
        21 | 22 => "I4",
        _ => "mixed",
    }
}

fn name_of(bytes: &[u8]) -> Result<&str, EngineError> {
    let mut name = "";
    for field in Fields::of(bytes) {
        if let (1, value) = field? {
            name = value.text()?;
        }
    }
    Ok(name)
}

/// What is said of an input or an output.
fn spec(bytes: &[u8], what: &str) -> Result<TensorSpec, EngineError> {
    let name = name_of(bytes)?;
    let no_tensor = || {
        let message = format!("the {what} '{}', which is no tensor of a known type", cut(name));
        EngineError::unsupported(message)
    };
    let mut of_type = None;
    for field in Fields::of(bytes) {
        if let (2, value) = field? {
            of_type = Some(value);
        }
    }
    let mut tensor = None;
    for field in of_type.ok_or_else(no_tensor)?.fields()? {
        if let (1, value) = field? {
            tensor = Some(value);
        }
    }
    let (mut kind, mut shape) = (0, None);
    for field in tensor.ok_or_else(no_tensor)?.fields()? {
        match field? {
            (1, value) => kind = value.whole()?,
            (2, value) => shape = Some(value),
            _ => {}
        }
    }
    let datatype = match kind {
        1 => Datatype::Fp32,
        2 => Datatype::Uint8,
        3 => Datatype::Int8,
        6 => Datatype::Int32,
        7 => Datatype::Int64,
        9 => Datatype::Bool,
        11 => Datatype::Fp64,
        other => {
            let message = format!(
                "the {what} '{}' of type {other} (floats of 32 and 64 bits, whole numbers of 8, 32 \
                 and 64 bits and truth values are taken)",
                cut(name)
            );
            return Err(EngineError::unsupported(message));
        }
    };
    let Some(shape) = shape else {
        let message = format!("the {what} '{}' without a number of sides", cut(name));
        return Err(EngineError::unsupported(message));
    };
    let mut sides = Vec::new();
    for field in shape.fields()? {
        if let (1, value) = field? {
            if sides.len() == MAX_SIDES {
                return Err(EngineError::unsupported(format!(
                    "the {what} '{}' of more than {MAX_SIDES} sides",
                    cut(name)
                )));
            }
            sides.push(side(value)?);
        }
    }
    Ok(TensorSpec { name: name.to_owned(), datatype, shape: sides })
}

/// A side: a number, or any where it has a name or nothing.
fn side(value: Value<'_>) -> Result<i64, EngineError> {
    let mut side = -1;
    for field in value.fields()? {
        if let (1, value) = field? {
            side = value.whole()?;
            if !(0..=MAX_SIDE).contains(&side) {
                return Err(EngineError::corrupt(format!("a side of {side}")));
            }
        }
    }
    // A dimension of nothing is how some exporters write one that they do not know.
    Ok(if side == 0 { -1 } else { side })
}

fn cut(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "header_tests.rs"]
mod tests;
