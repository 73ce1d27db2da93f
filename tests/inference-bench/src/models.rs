//! The model files both sides run.
//!
//! Owns which they are and how many bytes of weights one token's computation reads of each.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{place, synthetic};

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
    pub(crate) rounds: u32,
}

/// The real model's name.
const SMOLLM2: &str = "smollm2";
/// The larger one's.
const SYNTHETIC: &str = "synthetic";
/// All tensors of the real model: its head is its table of embeddings.
const SMOLLM2_BYTES: u64 = 96_400_000;
/// Five rounds of the small model take two minutes; a median of five bears two bad ones.
const SMALL_ROUNDS: u32 = 5;
/// A round of the larger one takes more than a minute, and varies less.
const LARGE_ROUNDS: u32 = 3;

/// The files, fetched or made: those named, or the real one alone when it is to be quick.
pub(crate) fn all(quick: bool, only: Option<&str>) -> Result<Vec<Model>> {
    const KNOWN: &[&str] = &[SMOLLM2, SYNTHETIC];
    let names: Vec<&str> = match only {
        Some(names) => names.split(',').collect(),
        None if quick => vec![SMOLLM2],
        None => KNOWN.to_vec(),
    };
    let rounds = |rounds| if quick { 1 } else { rounds };
    let model = |name: &str| match name {
        SMOLLM2 => {
            let path = place::model()?;
            Ok(Model {
                name: SMOLLM2,
                title: "SmolLM2-135M-Instruct Q4_1",
                context: context(&path)?,
                path,
                step_bytes: SMOLLM2_BYTES,
                rounds: rounds(SMALL_ROUNDS),
            })
        }
        SYNTHETIC => {
            let made = synthetic::file()?;
            Ok(Model {
                name: SYNTHETIC,
                title: "random weights in the shape and types of a Qwen2.5 0.5B Q4_K_M",
                context: context(&made.path)?,
                path: made.path,
                step_bytes: made.step_bytes,
                rounds: rounds(LARGE_ROUNDS),
            })
        }
        other => bail!("no model {other}; there are: {}", KNOWN.join(", ")),
    };
    names.into_iter().map(model).collect()
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
        let error = all(false, Some("smollm3")).map(|_| ()).map_err(|error| error.to_string());
        assert!(error.is_err_and(|error| error.contains("smollm3") && error.contains("smollm2")));
    }
}
