//! Models that tell classes of texts: BERT and DistilBERT with a head, as Hugging Face writes them
//! (`BertForSequenceClassification`, `DistilBertForSequenceClassification`).
//!
//! Owns what the head is and computes, the names of DistilBERT's tensors, and the tensors that such
//! a model takes and gives. The body, its batches and its thread are those of models of embeddings:
//! a text's shares take the place of its vector.

use std::collections::BTreeMap;

use selvedge_base::{Code, Refusal, Stage};
use selvedge_contract::{
    Datatype, EmbedRequest, EmbedSink, InferRequest, InferSink, Signature, Tensor, TensorSpec,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::tensors::BARE;
use crate::error::EngineError;

/// Classes of a model: the most that published ones tell are some thousands.
const MAX_CLASSES: usize = 1 << 14;
/// Bytes of a class's name.
const MAX_LABEL_BYTES: usize = 1_024;
/// Texts of one request: as many as are embedded at a time.
const MAX_TEXTS: usize = 2_048;
/// Classes that are told of each text, the likeliest first, where there are so many.
const TOP: usize = 5;
/// The one input.
const INPUT: &str = "text";
/// What such a model is called in metadata.
pub(crate) const PLATFORM: &str = "selvedge_classifier";

/// What a configuration says of a head.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Raw {
    // As they stand: where there is no head, nothing of it has to make sense.
    architectures: Value,
    id2label: Value,
    num_labels: Value,
    problem_type: Value,
}

/// Whose body a head is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Bert,
    Distil,
}

/// What a head tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Classes {
    pub(super) body: Body,
    /// The name of each.
    pub(crate) labels: Vec<String>,
    /// Whether each is told for itself: a text may be of several, or of none.
    several: bool,
}

/// The head's weights.
pub(super) struct Head {
    body: Body,
    several: bool,
    inner: Layer,
    outer: Layer,
}

/// A layer: rows of weights, and what is added.
pub(crate) struct Layer {
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Classes {
    /// What a configuration says; none where it is a model without such a head.
    pub(super) fn of(raw: &Raw) -> Result<Option<Self>, EngineError> {
        let all = raw.architectures.as_array().map(Vec::as_slice).unwrap_or_default();
        let named = |name: &str| all.iter().any(|one| one.as_str() == Some(name));
        let body = match () {
            () if named("BertForSequenceClassification") => Body::Bert,
            () if named("DistilBertForSequenceClassification") => Body::Distil,
            () => return Ok(None),
        };
        let (labels, several) = raw.told()?;
        Ok(Some(Self { body, labels, several }))
    }
}

impl Raw {
    /// The names of a head's classes, and whether each is told for itself.
    pub(crate) fn told(&self) -> Result<(Vec<String>, bool), EngineError> {
        let problem: Option<String> = part(&self.problem_type, "problem_type")?;
        let several = match problem.as_deref() {
            None | Some("single_label_classification") => false,
            Some("multi_label_classification") => true,
            Some(other) => {
                let other: String = other.chars().take(64).collect();
                return Err(EngineError::unsupported(format!(
                    "problem_type '{other}' (single_label_classification and \
                     multi_label_classification are run here)"
                )));
            }
        };
        let known: Option<BTreeMap<String, String>> = part(&self.id2label, "id2label")?;
        let count: Option<usize> = part(&self.num_labels, "num_labels")?;
        let labels = match known {
            Some(known) => {
                let label = |at: usize| known.get(&at.to_string()).cloned();
                (0..known.len()).map(label).collect::<Option<Vec<_>>>().ok_or_else(|| {
                    EngineError::corrupt("id2label does not count its classes from 0")
                })?
            }
            // What the configurations of Hugging Face mean without it.
            None => (0..count.unwrap_or(2).min(MAX_CLASSES + 1))
                .map(|at| format!("LABEL_{at}"))
                .collect(),
        };
        let fits = |label: &String| label.len() <= MAX_LABEL_BYTES;
        if !(1..=MAX_CLASSES).contains(&labels.len()) || !labels.iter().all(fits) {
            return Err(EngineError::corrupt(format!(
                "{} classes, not 1 to {MAX_CLASSES} with names of up to {MAX_LABEL_BYTES} bytes",
                labels.len()
            )));
        }
        if labels.len() == 1 && !several {
            return Err(EngineError::unsupported("a single class, which is a regression"));
        }
        Ok((labels, several))
    }
}

/// What a configuration says of a head, if it does.
fn part<T: DeserializeOwned>(value: &Value, name: &str) -> Result<Option<T>, EngineError> {
    let part = Option::<T>::deserialize(value);
    part.map_err(|_| EngineError::corrupt(format!("config.json: {name} is of another type")))
}

/// A tensor of the body that the kernels ask for by BERT's name.
pub(super) fn read(
    classes: &Classes,
    name: &str,
    dims: &[usize],
    read: impl FnOnce(&str) -> Result<Vec<f32>, EngineError>,
) -> Result<Vec<f32>, EngineError> {
    if classes.body == Body::Bert {
        return read(name);
    }
    // DistilBERT has one kind of text, to which nothing is added.
    if name == "embeddings.token_type_embeddings.weight" {
        return Ok(vec![0.0; dims.iter().product()]);
    }
    read(&distil_name(name))
}

/// What DistilBERT calls a tensor of BERT's.
fn distil_name(name: &str) -> String {
    let Some(rest) = name.strip_prefix("encoder.layer.") else { return name.to_owned() };
    let Some((layer, part)) = rest.split_once('.') else { return name.to_owned() };
    let names = [
        ("attention.self.query.", "attention.q_lin."),
        ("attention.self.key.", "attention.k_lin."),
        ("attention.self.value.", "attention.v_lin."),
        ("attention.output.dense.", "attention.out_lin."),
        ("attention.output.LayerNorm.", "sa_layer_norm."),
        ("intermediate.dense.", "ffn.lin1."),
        ("output.dense.", "ffn.lin2."),
        ("output.LayerNorm.", "output_layer_norm."),
    ];
    let known = names.iter().find_map(|(bert, distil)| Some((part.strip_prefix(bert)?, distil)));
    match known {
        Some((end, distil)) => format!("transformer.layer.{layer}.{distil}{end}"),
        None => name.to_owned(),
    }
}

impl Head {
    pub(super) fn load(
        classes: &Classes,
        width: usize,
        mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, EngineError>,
    ) -> Result<Self, EngineError> {
        let mut layer = |name: &str, outputs: usize| {
            let weights = read(&format!("{name}.weight"), &[outputs, width])?;
            Ok::<_, EngineError>(Layer {
                weights,
                bias: read(&format!("{name}.bias"), &[outputs])?,
            })
        };
        let inner = match classes.body {
            Body::Bert => layer("pooler.dense", width)?,
            Body::Distil => layer(&format!("{BARE}pre_classifier"), width)?,
        };
        let outer = layer(&format!("{BARE}classifier"), classes.labels.len())?;
        Ok(Self { body: classes.body, several: classes.several, inner, outer })
    }

    /// The share of each class, of the row of the first token.
    pub(super) fn shares(&self, row: &[f32]) -> Result<Vec<f32>, EngineError> {
        let row: Vec<f64> = row.iter().map(|n| f64::from(*n)).collect();
        let bend = |n: f64| match self.body {
            Body::Bert => n.tanh(),
            Body::Distil => n.max(0.0),
        };
        let inner: Vec<f64> = self.inner.of(&row).map(bend).collect();
        let logits: Vec<f64> = self.outer.of(&inner).collect();
        shares(&logits, self.several)
    }
}

/// The share of each class by its logit: each for itself, or all together one.
pub(crate) fn shares(logits: &[f64], several: bool) -> Result<Vec<f32>, EngineError> {
    let shares: Vec<f64> = match several {
        true => logits.iter().map(|n| 1.0 / (1.0 + (-n).exp())).collect(),
        false => {
            let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = logits.iter().map(|n| (n - most).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.iter().map(|n| n / sum).collect()
        }
    };
    let shares: Vec<f32> = shares.into_iter().map(|n| n as f32).collect();
    match shares.iter().all(|n| n.is_finite()) {
        true => Ok(shares),
        false => Err(EngineError::Compute("a share is no number".to_owned())),
    }
}

impl Layer {
    pub(crate) fn of<'a>(&'a self, row: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        let weights = self.weights.chunks(row.len().max(1));
        weights.zip(&self.bias).map(move |(weights, bias)| {
            let products = weights.iter().zip(row).map(|(weight, n)| f64::from(*weight) * n);
            products.sum::<f64>() + f64::from(*bias)
        })
    }
}

/// What such a model takes and gives.
pub(crate) fn signature(classes: &Classes) -> Signature {
    let outputs = outputs(classes.labels.len());
    Signature {
        platform: PLATFORM.to_owned(),
        inputs: vec![spec(INPUT, Datatype::Bytes, &[-1])],
        outputs,
    }
}

/// What a model that tells so many classes gives: names and shares of the likeliest, the likeliest
/// first, and the share of each class in the model's own order.
pub(crate) fn outputs(classes: usize) -> Vec<TensorSpec> {
    let side = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let (all, top) = (side(classes), side(classes.min(TOP)));
    vec![
        spec("label", Datatype::Bytes, &[-1, top]),
        spec("probability", Datatype::Fp32, &[-1, top]),
        spec("probabilities", Datatype::Fp32, &[-1, all]),
    ]
}

pub(crate) fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
}

/// A request with tensors that fit the signature, as the desk takes it.
pub(crate) fn infer(
    labels: &std::sync::Arc<Vec<String>>,
    request: InferRequest,
    sink: InferSink,
) -> Result<(EmbedRequest, EmbedSink), Refusal> {
    let wrong = |message: String| {
        Refusal::client(Stage::Validate, Code::InvalidRequest, message).param(INPUT)
    };
    let mut texts = Vec::new();
    for input in &request.inputs {
        for text in input.byte_elements()? {
            let text = std::str::from_utf8(text);
            texts.push(text.map_err(|_| wrong(format!("a text of '{INPUT}' is not UTF-8")))?);
        }
    }
    if !(1..=MAX_TEXTS).contains(&texts.len()) {
        let message = format!("'{INPUT}' holds {} texts; 1 to {MAX_TEXTS} are taken", texts.len());
        return Err(wrong(message));
    }
    let texts = texts.into_iter().map(str::to_owned).collect();
    let (labels, outputs) = (std::sync::Arc::clone(labels), request.outputs);
    let sink: EmbedSink = Box::new(move |made| {
        sink(made.map(|made| told(&labels, &made.vectors, &outputs)));
    });
    // As the pipelines of Hugging Face do, what is longer than the model reads is cut.
    Ok((EmbedRequest { id: request.id, model: request.model, texts, cut: true }, sink))
}

/// The outputs that are wanted, by name; none: all.
pub(crate) fn told(labels: &[String], shares: &[Vec<f32>], names: &[String]) -> Vec<Tensor> {
    wanted(likeliest(labels, shares).into(), names)
}

/// Those of some tensors that are named, in the order of the names; no names: all.
pub(crate) fn wanted(all: Vec<Tensor>, names: &[String]) -> Vec<Tensor> {
    match names {
        [] => all,
        names => {
            let named = |name: &String| all.iter().find(|tensor| tensor.name == *name).cloned();
            names.iter().filter_map(named).collect()
        }
    }
}

/// What is told of classes by the shares of each of them.
pub(crate) fn likeliest(labels: &[String], shares: &[Vec<f32>]) -> [Tensor; 3] {
    let top = labels.len().min(TOP);
    let likeliest: Vec<Vec<(usize, f32)>> = shares
        .iter()
        .map(|shares| {
            let mut all: Vec<(usize, f32)> = shares.iter().copied().enumerate().collect();
            // Of equal ones the first.
            all.sort_by(|(_, one), (_, other)| other.total_cmp(one));
            all.truncate(top);
            all
        })
        .collect();
    let floats = |name: &str, width: usize, all: &mut dyn Iterator<Item = f32>| Tensor {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![shares.len() as u64, width as u64],
        data: all.flat_map(f32::to_le_bytes).collect(),
    };
    let names = likeliest.iter().flatten().map(|(class, _)| labels[*class].as_bytes());
    [
        Tensor::of_bytes("label", vec![shares.len() as u64, top as u64], names),
        floats("probability", top, &mut likeliest.iter().flatten().map(|(_, share)| *share)),
        floats("probabilities", labels.len(), &mut shares.iter().flatten().copied()),
    ]
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "classes_tests.rs"]
mod tests;
