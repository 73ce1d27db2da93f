//! How a picture becomes a model's numbers, as `preprocessor_config.json` says.
//!
//! Owns what the file may say and its order: to red, green and blue, to size, the middle, from
//! bytes to numbers. What it says is bounded; what would give pictures of another size than the
//! model sees is refused when the model is read.

use std::path::Path;

use image::{DynamicImage, GenericImageView as _};
use serde::Deserialize;
use serde_json::Value;

use super::resample::{CHANNELS, Filter, resampled};
use crate::embed::folder::optional;
use crate::error::EngineError;

/// Sides that pictures are brought to: what models see is far below.
const MAX_SIDE: u64 = 4_096;

/// What a file says. Files of before say less.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    do_resize: Option<bool>,
    size: Option<Value>,
    resample: Option<u8>,
    do_center_crop: Option<bool>,
    crop_size: Option<Value>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Value>,
    image_std: Option<Value>,
    do_pad: Option<bool>,
}

/// What newer directories have in place of it.
#[derive(Deserialize)]
struct Processors {
    image_processor: Option<Said>,
}

/// What a file's silence means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usual {
    pub(super) filter: Filter,
    /// Whether one side is that of the shorter edge, and the middle is taken.
    pub(super) middle: bool,
    pub(super) mean: [f64; CHANNELS],
    pub(super) std: [f64; CHANNELS],
}

/// To what size a picture is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// Its own.
    Same,
    /// Width and height, whatever that does to shapes.
    Exact(usize, usize),
    /// The shorter side, the other in proportion.
    Shorter(usize),
}

/// How a picture becomes numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prepare {
    size: Size,
    filter: Filter,
    /// The sides of the middle that is taken.
    middle: Option<(usize, usize)>,
    scale: f64,
    mean: [f32; CHANNELS],
    std: [f32; CHANNELS],
}

impl Prepare {
    /// What a directory says of a model that sees pictures of so many points a side.
    pub(super) fn read(folder: &Path, side: usize, usual: Usual) -> Result<Self, EngineError> {
        let said = match optional::<Said>(folder, super::PREPARING[0])? {
            Some(said) => said,
            None => {
                let both: Option<Processors> = optional(folder, super::PREPARING[1])?;
                both.and_then(|both| both.image_processor).ok_or_else(|| {
                    EngineError::unsupported(format!(
                        "{} holds no {}, which says how pictures become numbers",
                        folder.display(),
                        super::PREPARING[0]
                    ))
                })?
            }
        };
        Self::of(&said, side, usual)
    }

    fn of(said: &Said, side: usize, usual: Usual) -> Result<Self, EngineError> {
        if said.do_pad == Some(true) {
            return Err(EngineError::unsupported("do_pad (pictures are not padded here)"));
        }
        let size = match said.do_resize.unwrap_or(true) {
            true => sizes(said.size.as_ref(), "size", side, usual.middle)?,
            false => Size::Same,
        };
        let filter = match said.resample {
            None => usual.filter,
            Some(1) => Filter::Lanczos,
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            Some(other) => {
                return Err(EngineError::unsupported(format!(
                    "resample {other} (1, Lanczos, 2, bilinear, and 3, bicubic, are done here)"
                )));
            }
        };
        let middle = match said.do_center_crop.unwrap_or(usual.middle) {
            true => match sizes(said.crop_size.as_ref(), "crop_size", side, false)? {
                Size::Exact(width, height) => Some((width, height)),
                Size::Same | Size::Shorter(_) => None,
            },
            false => None,
        };
        let given = match (middle, size) {
            (Some(sides), _) => Some(sides),
            (None, Size::Exact(width, height)) => Some((width, height)),
            (None, Size::Same | Size::Shorter(_)) => None,
        };
        if given != Some((side, side)) {
            let given = given.map_or("sizes of their own".to_owned(), |(width, height)| {
                format!("{width} by {height} points")
            });
            return Err(EngineError::unsupported(format!(
                "pictures are brought to {given}, and the model sees {side} by {side}"
            )));
        }
        let scale = match said.do_rescale.unwrap_or(true) {
            true => said.rescale_factor.unwrap_or(1.0 / 255.0),
            false => 1.0,
        };
        let (mean, std) = match said.do_normalize.unwrap_or(true) {
            true => (
                channels(said.image_mean.as_ref(), "image_mean", usual.mean)?,
                channels(said.image_std.as_ref(), "image_std", usual.std)?,
            ),
            false => ([0.0; CHANNELS], [1.0; CHANNELS]),
        };
        // A float that is no number, or none, is not above it either.
        if !scale.is_finite() || std.iter().any(|std| std.abs() < f32::MIN_POSITIVE) {
            let message = "rescale_factor or image_std: no number, or 0";
            return Err(EngineError::corrupt(message));
        }
        Ok(Self { size, filter, middle, scale, mean, std })
    }

    /// A picture's numbers: its channels one after the other, each row by row.
    pub(super) fn numbers(&self, picture: &DynamicImage) -> Vec<f32> {
        let from = (picture.width() as usize, picture.height() as usize);
        let (wide, high) = self.sized(from);
        let (width, height) = self.middle.unwrap_or((wide, high));
        let (left, across) = part(wide, width);
        let (top, down) = part(high, height);
        let corner = (across.start, down.start);
        let row = |at: usize, into: &mut Vec<u8>| points(picture, at, into);
        let sized = resampled(self.filter, from, (wide, high), (across, down), row);
        // Beyond a picture that is smaller than the middle is black.
        let mut numbers = Vec::with_capacity(CHANNELS * width * height);
        for channel in 0..CHANNELS {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            for row in 0..height {
                let row = (row as isize + top - corner.1 as isize) as usize;
                for column in 0..width {
                    let column = (column as isize + left - corner.0 as isize) as usize;
                    let inside = row < sized.height && column < sized.width;
                    let at = row.wrapping_mul(sized.width).wrapping_add(column);
                    let at = at.wrapping_mul(CHANNELS).wrapping_add(channel);
                    let byte = sized.bytes.get(at).copied().filter(|_| inside).unwrap_or(0);
                    numbers.push(((f64::from(byte) * self.scale) as f32 - mean) / std);
                }
            }
        }
        numbers
    }

    /// The size that a picture of this size is brought to.
    fn sized(&self, (width, height): (usize, usize)) -> (usize, usize) {
        match self.size {
            Size::Same => (width, height),
            Size::Exact(width, height) => (width, height),
            Size::Shorter(side) if width <= height => (side, side * height / width.max(1)),
            Size::Shorter(side) => (side * width / height.max(1), side),
        }
    }
}

/// Where the middle of a side begins, before it where that is too short, and what there is of it.
fn part(has: usize, wants: usize) -> (isize, std::ops::Range<usize>) {
    match has >= wants {
        true => {
            let first = (has - wants) / 2;
            (first as isize, first..first + wants)
        }
        false => (-((wants - has).div_ceil(2) as isize), 0..has),
    }
}

/// A row's points, of whatever kind the picture's are.
fn points(picture: &DynamicImage, row: usize, into: &mut Vec<u8>) {
    let width = picture.width() as usize;
    match picture {
        DynamicImage::ImageRgb8(all) => {
            let stride = width * CHANNELS;
            into.extend(all.as_raw().iter().skip(row * stride).take(stride));
        }
        DynamicImage::ImageLuma8(all) => {
            let row = all.as_raw().iter().skip(row * width).take(width);
            into.extend(row.flat_map(|grey| [*grey; CHANNELS]));
        }
        other => into.extend((0..picture.width()).flat_map(|column| {
            let [red, green, blue, _] = other.get_pixel(column, row as u32).0;
            [red, green, blue]
        })),
    }
}

/// A size as files write it: one number, two, or that of the shorter side.
fn sizes(
    said: Option<&Value>,
    name: &str,
    side: usize,
    shorter: bool,
) -> Result<Size, EngineError> {
    let Some(said) = said else {
        return Ok(if shorter { Size::Shorter(side) } else { Size::Exact(side, side) });
    };
    let bad = || {
        EngineError::unsupported(format!(
            "{name} {} (a number, height and width, or shortest_edge, up to {MAX_SIDE})",
            said.to_string().chars().take(64).collect::<String>()
        ))
    };
    let side = |value: &Value| {
        let side = value.as_u64().filter(|side| (1..=MAX_SIDE).contains(side));
        side.map(|side| side as usize).ok_or_else(bad)
    };
    if said.is_number() {
        let side = side(said)?;
        return Ok(if shorter { Size::Shorter(side) } else { Size::Exact(side, side) });
    }
    let keys: Vec<&str> = said.as_object().into_iter().flatten().map(|(key, _)| &**key).collect();
    match (said.get("width"), said.get("height"), said.get("shortest_edge")) {
        (Some(width), Some(height), None) if keys.len() == 2 => {
            Ok(Size::Exact(side(width)?, side(height)?))
        }
        (None, None, Some(edge)) if keys.len() == 1 => Ok(Size::Shorter(side(edge)?)),
        _ => Err(bad()),
    }
}

/// A number for each channel, or one for all.
fn channels(
    said: Option<&Value>,
    name: &str,
    usual: [f64; CHANNELS],
) -> Result<[f32; CHANNELS], EngineError> {
    let all: Option<Vec<f64>> = match said {
        None => Some(usual.to_vec()),
        Some(Value::Array(all)) => all.iter().map(Value::as_f64).collect(),
        Some(one) => one.as_f64().map(|one| vec![one; CHANNELS]),
    };
    let all: Option<[f64; CHANNELS]> = all.and_then(|all| all.try_into().ok());
    all.map(|all| all.map(|number| number as f32))
        .filter(|all| all.iter().all(|number| number.is_finite()))
        .ok_or_else(|| EngineError::corrupt(format!("{name} is not {CHANNELS} numbers")))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "prepare_tests.rs"]
mod tests;
