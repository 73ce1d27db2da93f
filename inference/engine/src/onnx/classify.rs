//! Classes instead of tensors: what stands beside a graph that tells classes, and what is made of
//! its outputs; pictures as its input.
//!
//! Owns `classify.toml` and `labels.txt` of a directory with `model.onnx`, the way from the bytes
//! of a PNG or JPEG to the numbers of a graph, and the way from its numbers to labels. Pictures
//! come from anybody and are read in the process of the model, which bounds what they cost.

use image::DynamicImage;
use image::imageops::FilterType;
use selvedge_contract::{Datatype, Signature, Tensor, TensorSpec};
use serde::Deserialize;

use super::runtime::{Failed, Runtime};
use crate::embed;
use crate::error::EngineError;
use crate::pictures::{self, MAX_PICTURES};

/// Bytes of a picture's points: 64 megapixels in three channels and some.
const MAX_POINT_BYTES: u64 = 256 << 20;
/// Sides of what a graph takes.
const MAX_INPUT_SIDE: u32 = 4_096;
/// Classes that a graph may tell.
const MAX_CLASSES: usize = 1 << 16;
/// Bytes of a class's name.
const MAX_LABEL_BYTES: usize = 1_024;
/// What such a model is called in metadata.
const PLATFORM: &str = "selvedge_classifier";

/// What `classify.toml` says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// The name of each class; without it `labels.txt` has one on each line.
    #[serde(default)]
    labels: Vec<String>,
    /// The graph's output that tells classes: its only or its first one.
    output: Option<String>,
    /// Whether the output is to be made shares of one.
    #[serde(default)]
    softmax: bool,
    /// Pictures as the input.
    image: Option<Image>,
}

/// How a picture becomes the graph's numbers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    width: u32,
    height: u32,
    #[serde(default)]
    channels: Channels,
    #[serde(default)]
    layout: Layout,
    #[serde(default)]
    resize: Resize,
    /// Every byte is multiplied by this first: 1/255 unless said otherwise.
    #[serde(default = "one_255th")]
    scale: f32,
    /// Subtracted then, a number for each channel.
    #[serde(default)]
    mean: Vec<f32>,
    /// What is left is divided by these.
    #[serde(default)]
    std: Vec<f32>,
}

const fn one_255th() -> f32 {
    1.0 / 255.0
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Channels {
    #[default]
    Rgb,
    Bgr,
    Gray,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layout {
    #[default]
    Nchw,
    Nhwc,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Resize {
    /// To the sides, whatever that does to shapes.
    #[default]
    Stretch,
    /// The middle, as large as it has the wanted shape.
    Crop,
}

/// What is made of a graph that tells classes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Classify {
    labels: Vec<String>,
    /// The graph's output that tells them.
    output: String,
    softmax: bool,
    /// The graph's input, and how a picture becomes it.
    image: Option<(String, Image)>,
    graph: Signature,
}

impl Classify {
    /// What the text of `classify.toml` makes of a graph; `beside` are the lines of `labels.txt`.
    pub(super) fn of(
        text: &str,
        beside: &[String],
        graph: &Signature,
    ) -> Result<Self, EngineError> {
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let message: String = error.message().chars().take(300).collect();
            EngineError::corrupt(format!("classify.toml: {message}"))
        })?;
        let bad = |message: String| EngineError::corrupt(format!("classify.toml: {message}"));
        let labels = if raw.labels.is_empty() { beside.to_vec() } else { raw.labels };
        let fits = |label: &String| label.len() <= MAX_LABEL_BYTES;
        if !(2..=MAX_CLASSES).contains(&labels.len()) || !labels.iter().all(fits) {
            return Err(bad(format!(
                "{} labels, not 2 to {MAX_CLASSES} of up to {MAX_LABEL_BYTES} bytes: give labels = \
                 [...], or labels.txt with one on each line",
                labels.len()
            )));
        }
        let output = match &raw.output {
            Some(name) => graph.outputs.iter().find(|spec| spec.name == *name),
            None => graph.outputs.first(),
        };
        let output = output.ok_or_else(|| bad("the graph has no such output".to_owned()))?;
        let count = i64::try_from(labels.len()).unwrap_or(i64::MAX);
        let tells = output.shape.last().is_some_and(|last| *last < 0 || *last == count);
        if output.datatype != Datatype::Fp32 || output.shape.len() != 2 || !tells {
            return Err(bad(format!(
                "the output '{}' is {} of shape {:?}, where FP32 of [-1, {count}] tells {count} \
                 classes",
                output.name, output.datatype, output.shape
            )));
        }
        let image = raw.image.map(|image| image.checked(graph)).transpose()?;
        let (output, graph) = (output.name.clone(), graph.clone());
        Ok(Self { labels, output, softmax: raw.softmax, image, graph })
    }

    pub(super) fn signature(&self) -> Signature {
        let inputs = match &self.image {
            Some(_) => {
                let (name, datatype) = (pictures::INPUT.to_owned(), Datatype::Bytes);
                vec![TensorSpec { name, datatype, shape: vec![-1] }]
            }
            None => self.graph.inputs.clone(),
        };
        let outputs = embed::outputs(self.labels.len());
        Signature { platform: PLATFORM.to_owned(), inputs, outputs }
    }

    /// The graph's inputs for those that were given.
    fn inputs(&self, given: &[Tensor]) -> Result<Vec<Tensor>, Failed> {
        let Some((name, image)) = &self.image else { return Ok(given.to_vec()) };
        let mut pictures = Vec::new();
        for tensor in given {
            pictures.extend(tensor.byte_elements().map_err(|error| Failed::Inputs(error.message))?);
        }
        if !(1..=MAX_PICTURES).contains(&pictures.len()) {
            let message = format!("{} pictures; 1 to {MAX_PICTURES} are taken", pictures.len());
            return Err(Failed::Inputs(message));
        }
        let mut data = Vec::new();
        for (at, bytes) in pictures.iter().enumerate() {
            let picture = pictures::read(bytes, MAX_POINT_BYTES)
                .map_err(|error| Failed::Inputs(format!("picture {at}: {error}")))?;
            image.numbers(&picture, &mut data);
        }
        let shape = image.shape(pictures.len() as u64);
        Ok(vec![Tensor { name: name.clone(), datatype: Datatype::Fp32, shape, data }])
    }

    /// The share of each class in each row.
    fn shares(&self, told: &Tensor) -> Result<Vec<Vec<f32>>, Failed> {
        let width = self.labels.len();
        if told.shape.last().copied() != Some(width as u64) {
            let message = format!("it tells {:?} for {width} labels", told.shape);
            return Err(Failed::Model(message));
        }
        let numbers = told.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let numbers: Vec<f32> = numbers.collect();
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(Failed::Model("a share is no number".to_owned()));
        }
        let rows = numbers.chunks(width).map(|row| match self.softmax {
            true => softmax(row),
            false => row.to_vec(),
        });
        Ok(rows.collect())
    }
}

/// A graph, and what is made of its outputs.
pub(super) struct Classifier {
    graph: Box<dyn Runtime>,
    classify: Classify,
}

impl Classifier {
    pub(super) fn new(graph: Box<dyn Runtime>, classify: Classify) -> Self {
        Self { graph, classify }
    }
}

impl Runtime for Classifier {
    fn run(&self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, Failed> {
        let inputs = self.classify.inputs(inputs)?;
        let told = self.graph.run(&inputs, std::slice::from_ref(&self.classify.output))?;
        let told = told.first().ok_or_else(|| Failed::Model("no output".to_owned()))?;
        let shares = self.classify.shares(told)?;
        Ok(embed::told(&self.classify.labels, &shares, outputs))
    }
}

impl Image {
    /// The graph's input that it becomes, and itself where that fits.
    fn checked(self, graph: &Signature) -> Result<(String, Self), EngineError> {
        let bad =
            |message: String| Err(EngineError::corrupt(format!("classify.toml: image: {message}")));
        let sides = 1..=MAX_INPUT_SIDE;
        if !sides.contains(&self.width) || !sides.contains(&self.height) {
            return bad(format!("width and height are 1 to {MAX_INPUT_SIDE}"));
        }
        let count = self.count();
        let fits = |list: &[f32]| {
            list.is_empty() || list.len() == count && list.iter().all(|n| n.is_finite())
        };
        let divides = self.std.iter().all(|n| *n != 0.0);
        if !fits(&self.mean) || !fits(&self.std) || !divides || !self.scale.is_finite() {
            return bad(format!("mean and std are {count} numbers each, and none of std is 0"));
        }
        let [input] = graph.inputs.as_slice() else {
            return bad(format!("the graph takes {} inputs, not one", graph.inputs.len()));
        };
        let wanted = self.shape(1);
        let side = |(own, wanted): (&i64, &u64)| *own < 0 || u64::try_from(*own) == Ok(*wanted);
        let shaped = input.shape.len() == 4 && input.shape.iter().zip(&wanted).skip(1).all(side);
        if input.datatype != Datatype::Fp32 || !shaped {
            return bad(format!(
                "the graph takes {} of shape {:?}, not FP32 of [-1, {}, {}, {}]",
                input.datatype, input.shape, wanted[1], wanted[2], wanted[3]
            ));
        }
        Ok((input.name.clone(), self))
    }

    const fn count(&self) -> usize {
        match self.channels {
            Channels::Rgb | Channels::Bgr => 3,
            Channels::Gray => 1,
        }
    }

    fn shape(&self, rows: u64) -> Vec<u64> {
        let (channels, height) = (self.count() as u64, u64::from(self.height));
        let width = u64::from(self.width);
        match self.layout {
            Layout::Nchw => vec![rows, channels, height, width],
            Layout::Nhwc => vec![rows, height, width, channels],
        }
    }

    /// Adds a picture's numbers.
    fn numbers(&self, picture: &DynamicImage, into: &mut Vec<u8>) {
        let sized = self.sized(picture);
        let points: Vec<u8> = match self.channels {
            Channels::Gray => sized.to_luma8().into_raw(),
            Channels::Rgb | Channels::Bgr => sized.to_rgb8().into_raw(),
        };
        let count = self.count();
        let number = |point: usize, channel: usize| {
            let from = if self.channels == Channels::Bgr { count - 1 - channel } else { channel };
            let byte = points.get(point * count + from).copied().unwrap_or(0);
            let mean = self.mean.get(channel).copied().unwrap_or(0.0);
            let std = self.std.get(channel).copied().unwrap_or(1.0);
            (f32::from(byte) * self.scale - mean) / std
        };
        let all = points.len() / count;
        match self.layout {
            Layout::Nchw => {
                for channel in 0..count {
                    into.extend((0..all).flat_map(|point| number(point, channel).to_le_bytes()));
                }
            }
            Layout::Nhwc => {
                for point in 0..all {
                    into.extend((0..count).flat_map(|at| number(point, at).to_le_bytes()));
                }
            }
        }
    }

    fn sized(&self, picture: &DynamicImage) -> DynamicImage {
        let (width, height) = (self.width, self.height);
        if (picture.width(), picture.height()) == (width, height) {
            return picture.clone();
        }
        match self.resize {
            Resize::Stretch => picture.resize_exact(width, height, FilterType::Triangle),
            Resize::Crop => {
                // Cut first: a thin picture, enlarged as a whole, would be a thousand times larger.
                let (wide, high) = (picture.width(), picture.height());
                let across = share(high, width, height).clamp(1, wide.max(1));
                let down = share(wide, height, width).clamp(1, high.max(1));
                let (left, top) = (wide.saturating_sub(across) / 2, high.saturating_sub(down) / 2);
                let middle = picture.crop_imm(left, top, across, down);
                middle.resize_exact(width, height, FilterType::Triangle)
            }
        }
    }
}

/// A side, by the ratio of two others.
fn share(side: u32, over: u32, under: u32) -> u32 {
    let scaled = u64::from(side) * u64::from(over) / u64::from(under.max(1));
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

fn softmax(row: &[f32]) -> Vec<f32> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|n| f64::from(n - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|n| (n / sum) as f32).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "classify_tests.rs"]
mod tests;
