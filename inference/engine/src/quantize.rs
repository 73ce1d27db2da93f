//! A model file in another form: smaller, or of other types, with everything else as it was.
//!
//! Owns the writing of GGUF files and what is told of the loss. Where the model is read from is
//! `source`'s, what form each tensor gets `recipe`'s, and the arithmetic of the forms candle's. All
//! that a GGUF file says of itself is copied byte for byte, but the note of its type. One piece of
//! one tensor is in memory at a time.

mod config;
mod entries;
mod folder;
mod recipe;
mod source;
mod weigh;
mod words;

use std::io::Write;
use std::path::Path;

use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

pub use folder::inspect_directory_bytes;
pub use recipe::{Mixture, UnknownMixture};
pub use weigh::SHARES;

use crate::error::EngineError;
use crate::gguf::MAGIC;
use source::{Change, Source};
use weigh::Magnitudes;

/// Numbers of a piece that is turned at once: 4 MiB of f32, enough that a core does nothing but
/// turn, little beside any model.
const PIECE: usize = 1 << 20;
/// Numbers in one row: no width of a model is near, and one row is turned at a time at least.
const MAX_ROW: usize = 1 << 20;
/// The version of GGUF that is written: what llama.cpp writes.
const VERSION: u32 = 3;
/// How the forms' blocks are laid out (`GGML_QNT_VERSION`, ggml.h).
const LAYOUT: u32 = 2;
/// What the file says of its forms; written anew.
const OWN_KEYS: [&str; 2] = ["general.file_type", "general.quantization_version"];
/// The number of a 32-bit whole number among the types of metadata.
const U32: u32 = 4;

/// How a file is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Into what.
    pub mixture: Mixture,
    /// Whether matrices that were quantized before may be again: what was lost then stays lost, and
    /// more bits are spent on it only where all are asked for as they are read
    /// ([`Mixture::F16`]).
    pub again: bool,
}

/// One tensor before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Turned {
    /// Its name in the file.
    pub name: String,
    /// The form it had.
    pub from: String,
    /// The form it has.
    pub to: String,
    /// Numbers in it.
    pub elements: u64,
    /// The length of what was lost in the length of all, 0 to 1.
    pub error: f64,
}

/// A file before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// All tensors, in the order of the file.
    pub tensors: Vec<Turned>,
    /// Bytes of the file that was read.
    pub bytes_before: u64,
    /// Bytes of the file that was written.
    pub bytes_after: u64,
    /// What would be lost if of all matrices the smallest weights became nothing, for each of
    /// [`SHARES`]: as `error` in [`Turned`].
    pub pruned: [f64; SHARES.len()],
}

/// Writes the model at `from`, a GGUF file or a directory as Hugging Face lays it out, in another
/// form. `advanced` is told how many of how many bytes were read.
///
/// # Errors
/// [`EngineError`] for a model that this engine does not run, one that was quantized before unless
/// the recipe says so, one with weights that are no numbers, and when reading or writing fails.
pub fn quantize(
    from: &Path,
    mut into: impl Write,
    recipe: Recipe,
    advanced: &mut dyn FnMut(u64, u64),
) -> Result<Quantized, EngineError> {
    let mut source = Source::open(from)?;
    let forms = plan(&source, recipe)?;
    let mut out = Counted { inner: &mut into, written: 0 };
    out.header(&source, &forms, recipe.mixture.file_type())?;
    let all: u64 = source.tensors.iter().map(source::Original::bytes).sum();
    let mut read = 0;
    let mut magnitudes = Magnitudes::default();
    let mut tensors = Vec::with_capacity(forms.len());
    for (at, to) in forms.into_iter().enumerate() {
        out.pad(source.alignment)?;
        let mut told = |bytes: u64| {
            read += bytes;
            advanced(read, all);
        };
        let error = turn(&mut source, at, to, &mut out, &mut magnitudes, &mut told)?;
        let tensor = &source.tensors[at];
        tensors.push(Turned {
            name: tensor.name.clone(),
            from: spelled(tensor.kind),
            to: spelled(to),
            elements: tensor.elements(),
            error,
        });
    }
    // Readers take the whole last place for granted.
    out.pad(source.alignment)?;
    out.inner.flush().map_err(EngineError::Written)?;
    Ok(Quantized {
        tensors,
        bytes_before: source.bytes,
        bytes_after: out.written,
        pruned: magnitudes.losses(),
    })
}

/// What each tensor becomes.
fn plan(source: &Source, recipe: Recipe) -> Result<Vec<GgmlDType>, EngineError> {
    let form = |tensor: &source::Original| {
        let wanted = recipe.mixture.form(&tensor.name, &tensor.dims, source.layers);
        let was_quantized = tensor.kind.block_size() > 1;
        if wanted.is_some() && was_quantized && !recipe.again {
            let (tensor, form) = (tensor.name.clone(), spelled(tensor.kind));
            return Err(EngineError::Quantized { tensor, form });
        }
        Ok(match wanted {
            // More bits bring nothing back; both halves have sixteen.
            Some(form) if bits(form) < bits(tensor.kind) => form,
            // What any program reads and any other form can be made of.
            Some(_) if was_quantized && recipe.mixture == Mixture::F16 => GgmlDType::F16,
            Some(GgmlDType::F16) if tensor.kind == GgmlDType::BF16 => GgmlDType::F16,
            Some(_) => tensor.kind,
            // Vectors are added and multiplied as they are, which llama.cpp does in f32 only.
            None if was_quantized => tensor.kind,
            None => GgmlDType::F32,
        })
    };
    source.tensors.iter().map(form).collect()
}

/// Bits of 256 weights.
fn bits(form: GgmlDType) -> usize {
    form.type_size() * 8 * 256 / form.block_size()
}

/// As people write it.
fn spelled(form: GgmlDType) -> String {
    match form {
        GgmlDType::Q2K => "Q2_K".to_owned(),
        GgmlDType::Q3K => "Q3_K".to_owned(),
        GgmlDType::Q4K => "Q4_K".to_owned(),
        GgmlDType::Q5K => "Q5_K".to_owned(),
        GgmlDType::Q6K => "Q6_K".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Turns one tensor, whole rows at a time; the length of what is lost in the length of all.
fn turn(
    source: &mut Source,
    at: usize,
    to: GgmlDType,
    out: &mut Counted<'_>,
    magnitudes: &mut Magnitudes,
    told: &mut dyn FnMut(u64),
) -> Result<f64, EngineError> {
    let tensor = &source.tensors[at];
    let (kind, is_matrix) = (tensor.kind, tensor.dims.len() > 1);
    let plus = if let Change::Plus(more) = tensor.change { more } else { 0.0 };
    let (rows, row) = tensor.rows();
    let name = tensor.name.clone();
    if row > MAX_ROW {
        return Err(EngineError::unsupported(format!(
            "rows of {row} numbers in tensor '{name}' (at most {MAX_ROW})"
        )));
    }
    let at_once = (PIECE / row).max(1);
    let (mut lost, mut all) = (0.0_f64, 0.0_f64);
    let mut bytes = Vec::new();
    for first in (0..rows).step_by(at_once) {
        let count = at_once.min(rows - first);
        bytes.clear();
        source.read(at, first, count, &mut bytes)?;
        let mut before = numbers(kind, &bytes, [count, row])?;
        before.iter_mut().for_each(|weight| *weight += plus);
        if before.iter().any(|weight| !weight.is_finite()) {
            return Err(no_number(&name));
        }
        if is_matrix {
            magnitudes.add(&before);
        }
        if kind == to && plus == 0.0 {
            out.put(&bytes)?;
        } else {
            let turned = Tensor::from_slice(&before, (count, row), &Device::Cpu)?;
            let turned = QTensor::quantize(&turned, to)?;
            let turned = turned.data()?;
            let after = numbers(to, &turned, [count, row])?;
            if after.iter().any(|weight| !weight.is_finite()) {
                return Err(no_number(&name));
            }
            out.put(&turned)?;
            for (before, after) in before.iter().zip(&after) {
                lost += f64::from(before - after).powi(2);
            }
        }
        all += before.iter().map(|weight| f64::from(*weight).powi(2)).sum::<f64>();
        told(bytes.len() as u64);
    }
    Ok(if all > 0.0 { (lost / all).sqrt() } else { 0.0 })
}

fn no_number(name: &str) -> EngineError {
    EngineError::corrupt(format!("tensor '{name}' has a weight that is no number, or becomes none"))
}

fn numbers(
    form: GgmlDType,
    bytes: &[u8],
    [rows, row]: [usize; 2],
) -> Result<Vec<f32>, EngineError> {
    let tensor = qtensor_from_ggml(form, bytes, vec![rows, row], &Device::Cpu)?;
    Ok(tensor.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()?)
}

/// A file that is written from its beginning to its end.
struct Counted<'a> {
    inner: &'a mut dyn Write,
    written: u64,
}

impl Counted<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        self.inner.write_all(bytes).map_err(EngineError::Written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), EngineError> {
        self.put(&(text.len() as u64).to_le_bytes())?;
        self.put(text.as_bytes())
    }

    fn pad(&mut self, alignment: u64) -> Result<(), EngineError> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        self.put(&vec![0; missing as usize])
    }

    /// Everything before the tensors (gguf.md, "File structure").
    fn header(
        &mut self,
        source: &Source,
        forms: &[GgmlDType],
        file_type: u32,
    ) -> Result<(), EngineError> {
        let is_kept = |(key, _): &&(String, Vec<u8>)| !OWN_KEYS.contains(&key.as_str());
        let kept: Vec<_> = source.entries.iter().filter(is_kept).collect();
        self.put(&MAGIC)?;
        self.put(&VERSION.to_le_bytes())?;
        self.put(&(forms.len() as u64).to_le_bytes())?;
        self.put(&((kept.len() + OWN_KEYS.len()) as u64).to_le_bytes())?;
        for (_, entry) in kept {
            self.put(entry)?;
        }
        for (key, value) in OWN_KEYS.into_iter().zip([file_type, LAYOUT]) {
            self.text(key)?;
            self.put(&U32.to_le_bytes())?;
            self.put(&value.to_le_bytes())?;
        }
        let mut offset = 0_u64;
        for (tensor, to) in source.tensors.iter().zip(forms) {
            self.text(&tensor.name)?;
            self.put(&(tensor.dims.len() as u32).to_le_bytes())?;
            for extent in tensor.dims.iter().rev() {
                self.put(&(*extent as u64).to_le_bytes())?;
            }
            self.put(&code(*to).to_le_bytes())?;
            self.put(&offset.to_le_bytes())?;
            let bytes = tensor.elements() / to.block_size() as u64 * to.type_size() as u64;
            offset = (offset + bytes).next_multiple_of(source.alignment);
        }
        Ok(())
    }
}

/// ggml's number of a form (`ggml_type`, ggml.h).
const fn code(form: GgmlDType) -> u32 {
    match form {
        GgmlDType::F32 => 0,
        GgmlDType::F16 => 1,
        GgmlDType::Q4_0 => 2,
        GgmlDType::Q4_1 => 3,
        GgmlDType::Q5_0 => 6,
        GgmlDType::Q5_1 => 7,
        GgmlDType::Q8_0 => 8,
        GgmlDType::Q8_1 => 9,
        GgmlDType::Q2K => 10,
        GgmlDType::Q3K => 11,
        GgmlDType::Q4K => 12,
        GgmlDType::Q5K => 13,
        GgmlDType::Q6K => 14,
        GgmlDType::Q8K => 15,
        GgmlDType::BF16 => 30,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "quantize_tests.rs"]
mod tests;
