//! Whisper as Hugging Face lays it out: a directory of `config.json`, `model.safetensors`,
//! `tokenizer.json` and, mostly, `generation_config.json`.
//!
//! Owns the translation of these files into a checked shape. A directory is untrusted: every number
//! that later sizes an allocation is bounded here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use selvedge_kernels::SpeechConfig;
use serde::Deserialize;

use crate::card::Inspected;
use crate::embed::folder::{MAX_TOKENIZER_BYTES, needed, optional, read};
use crate::embed::tensors::Tensors;
use crate::error::EngineError;

/// Layers: the large ones have 32.
const MAX_LAYERS: usize = 256;
/// Width of rows and of the feed-forward part: the large ones have 1,280 and 5,120.
const MAX_WIDTH: usize = 1 << 15;
/// Rows of a window: published models have 1,500, which are 30 seconds.
const MAX_FRAMES: usize = 6_000;
/// Tokens of a text: published models have 448.
const MAX_POSITIONS: usize = 8_192;
/// Tokens in a vocabulary: published ones have up to 51,866.
const MAX_VOCABULARY: usize = 1 << 20;
/// Bands of the spectrum: published models have 80 or 128.
const MAX_BANDS: usize = 256;
/// Tokens that are never written; published lists have 90.
const MAX_SUPPRESSED: usize = 4_096;
/// What this architecture is called.
const KIND: &str = "whisper";

/// A directory that holds a model.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    pub(crate) config: SpeechConfig,
    pub(crate) tensors: Tensors,
    /// Tokens that are never written.
    pub(crate) suppressed: Vec<u32>,
    /// Tokens that are not written first; none where the directory does not say.
    pub(crate) suppressed_first: Option<Vec<u32>>,
    /// Whether it knows languages, where the directory says.
    pub(crate) multilingual: Option<bool>,
}

#[derive(Deserialize)]
struct Kind {
    model_type: Option<String>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    activation_function: Option<String>,
    #[serde(default)]
    scale_embedding: bool,
    d_model: usize,
    encoder_layers: usize,
    decoder_layers: usize,
    encoder_attention_heads: usize,
    decoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    decoder_ffn_dim: usize,
    num_mel_bins: usize,
    max_source_positions: usize,
    max_target_positions: usize,
    vocab_size: usize,
    #[serde(flatten)]
    writing: Writing,
}

/// What older directories say in `config.json` and newer ones in `generation_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Writing {
    // -1 stands in lists that somebody emptied.
    suppress_tokens: Option<Vec<i64>>,
    begin_suppress_tokens: Option<Vec<i64>>,
    is_multilingual: Option<bool>,
    lang_to_id: Option<BTreeMap<String, u32>>,
}

/// Whether a directory says that it holds such a model. One that says nothing sensible is left to
/// whoever reads it next, and says why then.
pub(crate) fn is_folder(path: &Path) -> bool {
    let kind: Result<Kind, _> = needed(path, "config.json");
    kind.is_ok_and(|kind| kind.model_type.as_deref() == Some(KIND))
}

impl Folder {
    /// Reads what a directory says it holds, and the header of its weights.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let mut config: Config = needed(path, "config.json")?;
        let said: Option<Writing> = optional(path, "generation_config.json")?;
        let (said, before) = (said.unwrap_or_default(), std::mem::take(&mut config.writing));
        let config = config.checked()?;
        let known = |tokens: Option<Vec<i64>>| -> Result<Option<Vec<u32>>, EngineError> {
            let Some(tokens) = tokens else { return Ok(None) };
            if tokens.len() > MAX_SUPPRESSED {
                return Err(EngineError::corrupt(format!("{} suppressed tokens", tokens.len())));
            }
            Ok(Some(tokens.into_iter().filter_map(|token| u32::try_from(token).ok()).collect()))
        };
        let weights = path.join("model.safetensors");
        if !weights.exists() {
            return Err(EngineError::unsupported(format!(
                "{} holds no model.safetensors (weights in several files and pickles are not read)",
                path.display()
            )));
        }
        let tensors = Tensors::open(&weights, ("encoder.conv1.weight", &["model."]))?;
        tensors.find("encoder.conv1.weight", &[config.width, config.bands, 3])?;
        let languages = said.lang_to_id.map(|languages| languages.len() > 1);
        Ok(Self {
            path: path.to_owned(),
            config,
            tensors,
            suppressed: known(said.suppress_tokens.or(before.suppress_tokens))?.unwrap_or_default(),
            suppressed_first: known(said.begin_suppress_tokens.or(before.begin_suppress_tokens))?,
            multilingual: said.is_multilingual.or(languages),
        })
    }

    /// What people and routing see.
    pub(crate) fn facts(&self) -> Inspected {
        Inspected {
            name: None,
            bytes: self.tensors.file_bytes,
            architecture: KIND.to_owned(),
            quantization: self.tensors.type_of("encoder.conv1.weight"),
            parameters: self.tensors.parameters(),
            context_length: self.config.positions as u32,
            chat: false,
            dimensions: None,
            signature: None,
            classes: None,
        }
    }

    /// The bytes of `tokenizer.json`.
    pub(crate) fn tokenizer(&self) -> Result<Vec<u8>, EngineError> {
        read(&self.path.join("tokenizer.json"), MAX_TOKENIZER_BYTES)
    }
}

impl Config {
    fn checked(self) -> Result<SpeechConfig, EngineError> {
        match self.activation_function.as_deref() {
            None | Some("gelu") => {}
            Some(act) => {
                let act: String = act.chars().take(64).collect();
                return Err(EngineError::unsupported(format!(
                    "activation_function '{act}' (gelu is run here)"
                )));
            }
        }
        if self.scale_embedding {
            return Err(EngineError::unsupported("scaled embeddings"));
        }
        for (name, value, most) in [
            ("d_model", self.d_model, MAX_WIDTH),
            ("encoder_layers", self.encoder_layers, MAX_LAYERS),
            ("decoder_layers", self.decoder_layers, MAX_LAYERS),
            ("encoder_attention_heads", self.encoder_attention_heads, MAX_WIDTH),
            ("decoder_attention_heads", self.decoder_attention_heads, MAX_WIDTH),
            ("encoder_ffn_dim", self.encoder_ffn_dim, MAX_WIDTH),
            ("decoder_ffn_dim", self.decoder_ffn_dim, MAX_WIDTH),
            ("num_mel_bins", self.num_mel_bins, MAX_BANDS),
            ("max_source_positions", self.max_source_positions, MAX_FRAMES),
            ("max_target_positions", self.max_target_positions, MAX_POSITIONS),
            ("vocab_size", self.vocab_size, MAX_VOCABULARY),
        ] {
            if !(1..=most).contains(&value) {
                return Err(EngineError::corrupt(format!("{name} is {value}, not 1 to {most}")));
            }
        }
        let config = SpeechConfig {
            bands: self.num_mel_bins,
            frames: self.max_source_positions,
            width: self.d_model,
            heads: [self.encoder_attention_heads, self.decoder_attention_heads],
            layers: [self.encoder_layers, self.decoder_layers],
            feed_forward: [self.encoder_ffn_dim, self.decoder_ffn_dim],
            vocabulary: self.vocab_size,
            positions: self.max_target_positions,
        };
        config.check().map_err(|error| EngineError::unsupported(error.to_string()))?;
        Ok(config)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "folder_tests.rs"]
mod tests;
