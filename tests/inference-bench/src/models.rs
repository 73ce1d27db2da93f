//! The model files both sides run.
//!
//! Owns which they are and how many bytes of weights one token's computation reads of each.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{embeddings, forms, place, synthetic};

/// A file to be measured.
pub(crate) struct Model {
    /// How figures begin.
    pub(crate) name: &'static str,
    /// What the table says it is.
    pub(crate) title: &'static str,
    pub(crate) path: PathBuf,
    /// Tokens it can attend to.
    pub(crate) context: u32,
    /// Bytes of weights that one token's computation reads.
    pub(crate) step_bytes: u64,
    /// Weights that every token of a prompt is multiplied by: those of all layers.
    pub(crate) weights: u64,
    /// Whether its vocabulary has words for JSON.
    pub(crate) holds: bool,
    /// Milliseconds within which the first token should come of a model that is not loaded yet.
    pub(crate) first_within_ms: Option<f64>,
    pub(crate) rounds: u32,
}

/// The real model's name.
const SMOLLM2: &str = "smollm2";
/// The larger one's.
const SYNTHETIC: &str = "synthetic";
/// Who asks a node that has the small model on disk should not notice that it was not loaded: what
/// a press of a key may take before it seems slow, three times.
const SOON_MS: f64 = 300.0;
/// All tensors of the real model: its head is its table of embeddings.
const SMOLLM2_BYTES: u64 = 96_400_000;
/// Thirty layers with rows of 576 and 1,536, three key heads to nine query heads.
const SMOLLM2_WEIGHTS: u64 = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1_536);
/// Five rounds of the small model take two minutes; a median of five bears two bad ones.
const SMALL_ROUNDS: u32 = 5;
/// A round of the larger one takes more than a minute, and varies less.
const LARGE_ROUNDS: u32 = 3;

/// What is measured: those named, or what does not take long when it is to be quick.
pub(crate) fn names(quick: bool, only: Option<&str>) -> Result<Vec<&str>> {
    const KNOWN: &[&str] = &[SMOLLM2, SYNTHETIC, embeddings::NAME, forms::NAME];
    let names: Vec<&str> = match only {
        Some(names) => names.split(',').collect(),
        None if quick => vec![SMOLLM2, embeddings::NAME],
        None => KNOWN.to_vec(),
    };
    match names.iter().find(|name| !KNOWN.contains(name)) {
        Some(other) => bail!("nothing called {other}; there are: {}", KNOWN.join(", ")),
        None => Ok(names),
    }
}

/// The files among them, fetched or made.
pub(crate) fn all(names: &[&str], quick: bool) -> Result<Vec<Model>> {
    let rounds = |rounds| if quick { 1 } else { rounds };
    let model = |name: &&str| -> Result<Option<Model>> {
        Ok(match *name {
            SMOLLM2 => {
                let path = place::model()?;
                Some(Model {
                    name: SMOLLM2,
                    title: "SmolLM2-135M-Instruct Q4_1",
                    context: context(&path)?,
                    path,
                    step_bytes: SMOLLM2_BYTES,
                    weights: SMOLLM2_WEIGHTS,
                    holds: true,
                    first_within_ms: Some(SOON_MS),
                    rounds: rounds(SMALL_ROUNDS),
                })
            }
            SYNTHETIC => {
                let made = synthetic::file()?;
                Some(Model {
                    name: SYNTHETIC,
                    title: "random weights in the shape and types of a Qwen2.5 0.5B Q4_K_M",
                    context: context(&made.path)?,
                    path: made.path,
                    step_bytes: made.step_bytes,
                    weights: made.weights,
                    holds: false,
                    first_within_ms: None,
                    rounds: rounds(LARGE_ROUNDS),
                })
            }
            _ => None,
        })
    };
    names.iter().filter_map(|name| model(name).transpose()).collect()
}

fn context(path: &std::path::Path) -> Result<u32> {
    let facts = selvedge_engine::inspect(path)
        .with_context(|| format!("reading the header of {}", path.display()))?;
    Ok(facts.context_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_not_known_is_refused_by_name() {
        let error = names(false, Some("smollm3")).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("smollm3") && error.contains("smollm2")));
        assert!(names(true, Some("quantize")).is_ok_and(|names| names == [forms::NAME]));
        assert!(names(true, None).is_ok_and(|names| !names.contains(&forms::NAME)));
    }
}
