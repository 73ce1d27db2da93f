//! `selvedge infer --image`: what pictures show, by a model that sees.
//!
//! Asks about one picture at a time, so that each is answered as soon as it can be.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli;
use crate::client::Client;
use crate::commands::keys::escaped;
use crate::ui;

/// The longest file of a picture: as base64 it fits a body of 8 MiB, which nodes take.
const MAX_PICTURE_BYTES: u64 = 5 << 20;

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

/// Asks about every picture.
pub(super) fn infer(client: &Client, options: &cli::Infer) -> Result<()> {
    let path = format!("/v2/models/{}/infer", escaped(&options.name));
    let mut told = Vec::new();
    for file in &options.image {
        let picture = STANDARD.encode(bytes_of(file)?);
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

fn bytes_of(file: &str) -> Result<Vec<u8>> {
    let failed = || format!("cannot read {file}");
    let mut bytes = Vec::new();
    let opened = File::open(file).with_context(failed)?;
    opened.take(MAX_PICTURE_BYTES + 1).read_to_end(&mut bytes).with_context(failed)?;
    if bytes.len() as u64 > MAX_PICTURE_BYTES {
        bail!("{file} has more than {} MiB; make the picture smaller", MAX_PICTURE_BYTES >> 20);
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
