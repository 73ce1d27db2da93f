//! `selvedge infer --image`: what pictures show, by a model that sees, or by one that a job learned
//! from images.
//!
//! A model that sees is asked about one picture at a time, so that each is answered as soon as it
//! can be. For a learned one pictures become rows here, by the code that training reads them with.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use selvedge_dialect::inference::rows::PLATFORM;
use selvedge_train::{
    MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, Shape, TrainError, Unlabelled, Wrong, read_image,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli;
use crate::client::Client;
use crate::commands::keys::escaped;
use crate::ui;

/// The longest file of a picture: as base64 it fits a body of 8 MiB, which nodes take.
const MAX_PICTURE_BYTES: u64 = 5 << 20;
/// Values of all pictures of a command together, for a learned model: 16 MiB, as many as the rows
/// of a file may have.
const MAX_VALUES: usize = 1 << 22;

/// What a model says of itself, as far as it is read.
#[derive(Deserialize)]
struct Told {
    platform: String,
    inputs: Vec<Takes>,
}

#[derive(Deserialize)]
struct Takes {
    shape: Vec<i64>,
}

/// An answer, as far as it is read.
#[derive(Deserialize)]
struct Answer {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    data: Vec<Value>,
}

/// The pictures as rows, where the model is one that a job learned; none for one that sees.
pub(super) fn rows(client: &Client, options: &cli::Infer) -> Result<Option<Unlabelled>> {
    let is_for_learned = !options.classes.is_empty() || options.resize;
    let told: Result<Told> = client.get(&format!("/v2/models/{}", escaped(&options.name)));
    let told = match told {
        Ok(told) => told,
        Err(error) if is_for_learned => return Err(error),
        // What asks about the picture says it.
        Err(_) => return Ok(None),
    };
    if told.platform == PLATFORM {
        return read(&told, options).map(Some);
    }
    if is_for_learned {
        bail!(
            "no job learned '{}': such a model scales pictures and names its classes itself, so \
             leave --resize and --classes out",
            options.name
        );
    }
    Ok(None)
}

/// The pictures as a learned model takes them.
fn read(told: &Told, options: &cli::Infer) -> Result<Unlabelled> {
    if !options.labels.is_empty() {
        bail!(
            "'{}' knows the classes of its job and no --labels; --classes says what to call them",
            options.name
        );
    }
    let shape = told.inputs.first().map(|input| &*input.shape).unwrap_or_default();
    let side = |side: &i64| usize::try_from(*side).unwrap_or(0);
    let sides: Vec<usize> = shape.iter().skip(1).map(side).collect();
    let [channels, height, width] = sides[..] else {
        bail!(
            "'{}' takes rows of {} numbers and no images: ask it with --input",
            options.name,
            sides.iter().product::<usize>()
        );
    };
    let shape = Shape::Image { channels, height, width };
    let width = shape.values().context("the node's answer is not what this version expects")?;
    if options.image.len().saturating_mul(width) > MAX_VALUES {
        bail!("that are too many pictures at once: ask about {} at most", MAX_VALUES / width);
    }
    let mut values = Vec::new();
    for file in &options.image {
        let bytes = bytes_of(file, MAX_IMAGE_BYTES)?;
        let read = read_image(Path::new(file), &bytes, shape, options.resize, MAX_IMAGE_PIXELS);
        values.extend(read.map_err(unread)?);
    }
    Ok(Unlabelled { width, values })
}

/// Why a picture is not read; one of another size can be scaled.
fn unread(error: TrainError) -> anyhow::Error {
    match error {
        TrainError::Malformed { wrong: Wrong::Columns, .. } => {
            anyhow!("{error}, and --resize does so here")
        }
        error => error.into(),
    }
}

/// Asks about every picture.
pub(super) fn infer(client: &Client, options: &cli::Infer) -> Result<()> {
    let path = format!("/v2/models/{}/infer", escaped(&options.name));
    let mut told = Vec::new();
    for file in &options.image {
        let picture = STANDARD.encode(bytes_of(file, MAX_PICTURE_BYTES)?);
        let body = asked(&picture, &options.labels);
        let (answer, _): (Answer, String) =
            client.ask(&path, &body).with_context(|| format!("cannot ask about {file}"))?;
        for (label, probability) in likeliest(&answer)? {
            if options.json {
                let one = json!({"image": file, "label": label, "probability": probability});
                told.push(one);
            } else {
                ui::out(line(file, label, probability));
            }
        }
    }
    if options.json {
        ui::out(format_args!("{:#}", Value::Array(told)));
    }
    Ok(())
}

fn asked(picture: &str, labels: &[String]) -> Value {
    let input = |name: &str, data: Value, count: usize| {
        let shape = [count];
        json!({"name": name, "datatype": "BYTES", "shape": shape, "data": data})
    };
    let mut inputs = vec![input("image", json!([picture]), 1)];
    if !labels.is_empty() {
        inputs.push(input("labels", json!(labels), labels.len()));
    }
    json!({"inputs": inputs, "outputs": [{"name": "label"}, {"name": "probability"}]})
}

/// Names with their probabilities, the likeliest first.
fn likeliest(answer: &Answer) -> Result<Vec<(&str, f64)>> {
    let output = |name: &str| answer.outputs.iter().find(|output| output.name == name);
    let (Some(labels), Some(probabilities)) = (output("label"), output("probability")) else {
        bail!("the node's answer is not what this version expects");
    };
    let labels = labels.data.iter().map(Value::as_str);
    let all = labels.zip(probabilities.data.iter().map(Value::as_f64));
    let all: Option<Vec<_>> = all.map(|(label, probability)| label.zip(probability)).collect();
    all.context("the node's answer is not what this version expects")
}

fn line(file: &str, label: &str, probability: f64) -> String {
    format!("{file}  {label:<24}  {probability:.4}")
}

fn bytes_of(file: &str, most: u64) -> Result<Vec<u8>> {
    let failed = || format!("cannot read {file}");
    let mut bytes = Vec::new();
    let opened = File::open(file).with_context(failed)?;
    opened.take(most + 1).read_to_end(&mut bytes).with_context(failed)?;
    if bytes.len() as u64 > most {
        bail!("{file} has more than {} MiB; make the picture smaller", most >> 20);
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser as _;

    use super::*;

    /// Four pixels wide and three high, from black over white to the greys between.
    const GREY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../inference/train/samples/grey.png");

    /// What a learned model of such an example says of itself.
    fn learned(example: &[i64]) -> Told {
        let shape = std::iter::once(-1).chain(example.iter().copied()).collect();
        Told { platform: PLATFORM.to_owned(), inputs: vec![Takes { shape }] }
    }

    fn options(words: &[&str]) -> cli::Infer {
        let line = ["selvedge", "infer", "welds"].into_iter().chain(words.iter().copied());
        let cli::Command::Infer(options) = cli::Cli::try_parse_from(line).unwrap().command else {
            panic!("it is another command");
        };
        options
    }

    fn refusal(example: &[i64], words: &[&str]) -> String {
        read(&learned(example), &options(words)).unwrap_err().to_string()
    }

    #[test]
    fn a_learned_model_gets_pictures_as_training_reads_them() {
        let rows = read(&learned(&[1, 3, 4]), &options(&["--image", GREY, "--image", GREY]));
        let rows = rows.unwrap();
        assert_eq!((rows.width, rows.values.len()), (12, 24));
        assert_eq!(rows.values[..3], [0.0, 1.0, 51.0 / 255.0]);
        assert_eq!(rows.values[..12], rows.values[12..]);
        let colours = read(&learned(&[3, 3, 4]), &options(&["--image", GREY])).unwrap();
        assert_eq!(colours.values.len(), 36);
        let small = read(&learned(&[1, 2, 2]), &options(&["--image", GREY, "--resize"])).unwrap();
        assert_eq!(small.values.len(), 4);
    }

    #[test]
    fn what_a_learned_model_cannot_be_asked_is_said_with_what_can() {
        let size = refusal(&[1, 8, 8], &["--image", GREY]);
        assert!(size.contains("grey.png: 4 x 3 pixels, and the job's images have 8 x 8"), "{size}");
        assert!(size.contains("--resize does so here"), "{size}");
        let flat = refusal(&[144], &["--image", GREY]);
        assert!(flat.contains("rows of 144 numbers") && flat.contains("--input"), "{flat}");
        let labels = refusal(&[1, 3, 4], &["--image", GREY, "--labels", "a cat"]);
        assert!(labels.contains("--classes says what to call them"), "{labels}");
        let many = refusal(&[1, 2_048, 2_048], &["--image", GREY, "--image", GREY]);
        assert!(many.contains("ask about 1 at most"), "{many}");
    }

    #[test]
    fn a_picture_is_asked_about_with_the_labels_that_were_given() {
        let alone = asked("aGk=", &[]);
        assert_eq!(alone["inputs"].as_array().unwrap().len(), 1);
        let with = asked("aGk=", &["a cat".to_owned(), "a dog".to_owned()]);
        assert_eq!(with["inputs"][1]["shape"], json!([2]));
        assert_eq!(with["inputs"][1]["data"], json!(["a cat", "a dog"]));
    }

    #[test]
    fn an_answer_is_told_in_its_order() {
        let outputs = json!({"outputs": [
            {"name": "label", "data": ["cat", "dog"]},
            {"name": "probability", "data": [0.75, 0.25]},
        ]});
        let answer: Answer = serde_json::from_value(outputs).unwrap();
        let all = likeliest(&answer).unwrap();
        assert_eq!(all, [("cat", 0.75), ("dog", 0.25)]);
        assert_eq!(line("x.png", "cat", 0.75), "x.png  cat                       0.7500");
        for odd in [
            json!({"outputs": []}),
            json!({"outputs": [
            {"name": "label", "data": [1]}, {"name": "probability", "data": [0.5]}]}),
        ] {
            let answer: Answer = serde_json::from_value(odd).unwrap();
            assert!(likeliest(&answer).is_err());
        }
    }
}
