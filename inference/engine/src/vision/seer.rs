//! A model that sees, in memory: its weights, how its pictures become numbers, and what is made of
//! the row that stands for a picture or a text.
//!
//! Owns one picture or a few texts at a time. An answer depends on its picture and its texts alone,
//! bit for bit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use selvedge_base::{Code, Refusal, Stage};
use selvedge_contract::Tensor;
use selvedge_kernels::{Captions, EncoderCrew, Sight};

use super::asked;
use super::folder::{Folder, Kind};
use super::names::Half;
use super::prepare::Prepare;
use crate::desk::GoOn;
use crate::embed::{self, Layer, Words};
use crate::error::EngineError;
use crate::pictures;

/// Bytes of a picture's points: the twelve megapixels of a telephone's camera in three channels.
/// Models see a hundredth of that, and a decoder takes a multiple of it.
pub(super) const MAX_POINT_BYTES: u64 = 36 << 20;
/// Bytes that the one picture takes that is read at a time, which is in the node's own memory: its
/// points, and beside them the most of three. A JPEG in several scans keeps two bytes for each
/// number of each channel until the last one, of which CMYK has four and becomes three: eight
/// thirds of the points. What is turned by a quarter is copied once. What is brought to size has up
/// to 16,384 rows, a side's most, of up to 2,048 points, which the widest model sees: 96 MiB.
pub(super) const PEAK_BYTES: u64 = 4 * MAX_POINT_BYTES;
/// The end token's number in older files, which was none: they mean the greatest token of a text.
const NO_END: u64 = 2;
/// What keeps a vector of zeros from being divided by none.
const LEAST_LENGTH: f64 = 1e-12;
/// The greatest factor of likenesses: that to which CLIP's training holds it is 100.
const MAX_FACTOR: f64 = 1e6;

/// A model in memory.
pub(crate) struct Seer {
    sight: Sight,
    prepare: Prepare,
    makes: Makes,
}

/// What is made of rows.
enum Makes {
    Classes { labels: Vec<String>, several: bool, head: Layer },
    Vectors(Box<Vectors>),
}

/// What makes vectors of pictures and texts that can be compared.
struct Vectors {
    captions: Captions,
    words: Words,
    end: u64,
    of_picture: Layer,
    of_text: Layer,
    /// What cosines are multiplied by.
    factor: f64,
}

impl Seer {
    pub(crate) fn load(folder: &Folder) -> Result<Self, EngineError> {
        let mut file = folder.tensors.file()?;
        let half = folder.kind.half();
        let sight = Sight::load(folder.sight.clone(), &mut |name, dims| {
            half.read(&folder.tensors, &mut file, name, dims)
        });
        let sight = sight.map_err(|error| EngineError::corrupt(error.to_string()))?;
        let width = folder.sight.tower.width;
        let mut layer = |name: &str, outputs: usize, inputs: usize, biased: bool| {
            let weights =
                folder.tensors.read(&mut file, &format!("{name}.weight"), &[outputs, inputs])?;
            let bias = match biased {
                true => folder.tensors.read(&mut file, &format!("{name}.bias"), &[outputs])?,
                false => vec![0.0; outputs],
            };
            Ok::<_, EngineError>(Layer { weights, bias })
        };
        let makes = match &folder.kind {
            Kind::Vit { labels, several, .. } => Makes::Classes {
                head: layer("classifier", labels.len(), width, true)?,
                labels: labels.clone(),
                several: *several,
            },
            Kind::Clip { captions, dimensions, end } => {
                let text = captions.tower.width;
                let words =
                    Words::load(&folder.tokenizer()?, captions.vocabulary, captions.positions)?;
                let of_picture = layer("visual_projection", *dimensions, width, false)?;
                let of_text = layer("text_projection", *dimensions, text, false)?;
                let factor = folder.tensors.read(&mut file, "logit_scale", &[])?;
                let factor = factor.first().map_or(f64::NAN, |n| f64::from(*n).exp());
                if !(0.0..=MAX_FACTOR).contains(&factor) {
                    return Err(EngineError::corrupt("logit_scale is out of range"));
                }
                let captions = Captions::load(captions.clone(), &mut |name, dims| {
                    Half::Text.read(&folder.tensors, &mut file, name, dims)
                });
                let captions = captions.map_err(|error| EngineError::corrupt(error.to_string()))?;
                let end = *end;
                Makes::Vectors(Box::new(Vectors {
                    captions,
                    words,
                    end,
                    of_picture,
                    of_text,
                    factor,
                }))
            }
        };
        Ok(Self { sight, prepare: folder.prepare.clone(), makes })
    }

    /// A picture's shares of classes, or its vector. None where it was given up.
    pub(super) fn see(
        &self,
        crew: &mut EncoderCrew,
        (number, bytes): (usize, &[u8]),
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<Vec<f32>>, Refusal> {
        let numbers = self.numbers(bytes).map_err(|why| {
            let message = format!("picture {number}: {why}");
            let code = Code::InvalidRequest;
            Refusal::client(Stage::Validate, code, message).param(pictures::INPUT)
        })?;
        let row = self.sight.see(crew, &numbers, go_on);
        let row = row.map_err(|error| EngineError::Compute(error.to_string()).to_refusal())?;
        let Some(row) = row else { return Ok(None) };
        let made = match &self.makes {
            Makes::Classes { several, head, .. } => embed::shares(&product(head, &row), *several),
            Makes::Vectors(vectors) => unit(&product(&vectors.of_picture, &row)),
        };
        made.map(Some).map_err(|error| error.to_refusal())
    }

    /// A picture's numbers.
    pub(super) fn numbers(&self, bytes: &[u8]) -> Result<Vec<f32>, String> {
        let read = || {
            let picture = pictures::read(bytes, MAX_POINT_BYTES)?;
            Ok(self.prepare.numbers(&picture))
        };
        // A panic in a decoder is a damaged picture.
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("it is damaged".to_owned()))
    }

    /// The tokens of a text.
    pub(super) fn tokens(&self, text: &str, cut: bool) -> Result<Vec<u32>, Refusal> {
        match &self.makes {
            Makes::Vectors(vectors) => vectors.words.tokens(text, cut),
            Makes::Classes { .. } => {
                let message = "this model reads no texts";
                Err(Refusal::client(Stage::Validate, Code::Unsupported, message).param("model"))
            }
        }
    }

    /// The vectors of texts. None where they were given up.
    pub(super) fn read(
        &self,
        crew: &mut EncoderCrew,
        texts: &[Vec<u32>],
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<Vec<Vec<f32>>>, EngineError> {
        let Makes::Vectors(vectors) = &self.makes else { return Ok(Some(Vec::new())) };
        let placed: Vec<(&[u32], usize)> =
            texts.iter().map(|text| (text.as_slice(), place(text, vectors.end))).collect();
        let rows = vectors.captions.read(crew, &placed, go_on);
        let rows = rows.map_err(|error| EngineError::Compute(error.to_string()))?;
        let Some(rows) = rows else { return Ok(None) };
        let all = rows.iter().map(|row| unit(&product(&vectors.of_text, row)));
        all.collect::<Result<_, _>>().map(Some)
    }

    /// The outputs of what was made of pictures and texts.
    pub(super) fn told(
        &self,
        (texts, outputs): (&[String], &[String]),
        of_pictures: &[Vec<f32>],
        of_texts: &[Vec<f32>],
    ) -> Result<Vec<Tensor>, EngineError> {
        let vectors = match &self.makes {
            Makes::Classes { labels, .. } => return Ok(embed::told(labels, of_pictures, outputs)),
            Makes::Vectors(vectors) => vectors,
        };
        let mut all = Vec::new();
        if !of_pictures.is_empty() && !of_texts.is_empty() {
            let shares = of_pictures.iter().map(|picture| {
                let logits: Vec<f64> = vectors.logits(picture, of_texts).collect();
                embed::shares(&logits, false)
            });
            all.extend(embed::likeliest(texts, &shares.collect::<Result<Vec<_>, _>>()?));
        }
        for (name, made) in [(asked::EMBEDDING, of_pictures), (asked::TEXT_EMBEDDING, of_texts)] {
            if !made.is_empty() {
                all.push(asked::vectors(name, made));
            }
        }
        Ok(embed::wanted(all, outputs))
    }
}

impl Vectors {
    /// How alike a picture is to each text.
    fn logits(&self, picture: &[f32], texts: &[Vec<f32>]) -> impl Iterator<Item = f64> {
        texts.iter().map(move |text| {
            let products = text.iter().zip(picture).map(|(a, b)| f64::from(*a) * f64::from(*b));
            products.sum::<f64>() * self.factor
        })
    }
}

/// Where a text's row is taken: at its first end, or at the beginning where it has none.
fn place(text: &[u32], end: u64) -> usize {
    let end = match end {
        NO_END => text.iter().max().copied().map_or(end, u64::from),
        end => end,
    };
    text.iter().position(|token| u64::from(*token) == end).unwrap_or(0)
}

fn product(layer: &Layer, row: &[f32]) -> Vec<f64> {
    let row: Vec<f64> = row.iter().map(|n| f64::from(*n)).collect();
    layer.of(&row).collect()
}

/// A vector of length one.
fn unit(vector: &[f64]) -> Result<Vec<f32>, EngineError> {
    let length = vector.iter().map(|n| n * n).sum::<f64>().sqrt().max(LEAST_LENGTH);
    let vector: Vec<f32> = vector.iter().map(|n| (n / length) as f32).collect();
    match vector.iter().all(|n| n.is_finite()) {
        true => Ok(vector),
        false => Err(EngineError::Compute("a vector holds what is no number".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_texts_row_is_at_its_end() {
        for (text, end, at) in [
            (&[9, 1, 8, 8][..], 8, 2),
            (&[9, 1, 2, 3], 8, 0),
            (&[9, 1, 2, 10, 10], 2, 3),
            (&[9, 2, 1], 2, 0),
        ] {
            assert_eq!(place(text, end), at, "{text:?} {end}");
        }
    }
}
