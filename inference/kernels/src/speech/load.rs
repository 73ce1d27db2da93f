//! Reading a model's weights, by the names that Hugging Face's Whisper has.

use super::{Forward, Hearing, Speech, SpeechConfig, Writing};
use crate::dense::Dense;
use crate::error::KernelError;
use crate::load::{self, Tensors, dense, gains};
use crate::simd::LANES;

impl Speech {
    /// Reads the weights.
    ///
    /// # Errors
    /// [`KernelError`] when the dimensions do not fit, or a tensor is missing or another.
    pub fn load(config: SpeechConfig, tensors: &mut Tensors<'_>) -> Result<Self, KernelError> {
        config.check()?;
        let SpeechConfig { bands, frames, width, vocabulary, positions, .. } = config;
        let first = convolution(tensors, "encoder.conv1", bands, width)?;
        let second = convolution(tensors, "encoder.conv2", width, width)?;
        let places = tensors("encoder.embed_positions.weight", &[frames, width])?;
        let hearing = (0..config.layers[0]).map(|at| Hearing::load(&config, tensors, at));
        let hearing = hearing.collect::<Result<_, _>>()?;
        let hearing_norm = gains(tensors, "encoder.layer_norm", width)?;
        let mut words = tensors("decoder.embed_tokens.weight", &[vocabulary, width])?;
        let whole = vocabulary.next_multiple_of(LANES);
        words.resize(whole * width, 0.0);
        let words = Dense::pack(width, &words, &vec![0.0; whole])?;
        let positions = tensors("decoder.embed_positions.weight", &[positions, width])?;
        let writing = (0..config.layers[1]).map(|at| Writing::load(&config, tensors, at));
        let writing = writing.collect::<Result<_, _>>()?;
        let writing_norm = gains(tensors, "decoder.layer_norm", width)?;
        Ok(Self {
            config,
            first,
            second,
            places,
            hearing,
            hearing_norm,
            words,
            positions,
            writing,
            writing_norm,
        })
    }
}

impl Hearing {
    fn load(
        config: &SpeechConfig,
        tensors: &mut Tensors<'_>,
        at: usize,
    ) -> Result<Self, KernelError> {
        let (width, name) = (config.width, format!("encoder.layers.{at}"));
        let own = format!("{name}.self_attn");
        Ok(Self {
            norm: gains(tensors, &format!("{own}_layer_norm"), width)?,
            qkv: joined(tensors, &own, &["q_proj", "k_proj", "v_proj"], width)?,
            output: joined(tensors, &own, &["out_proj"], width)?,
            forward: Forward::load(tensors, &name, width, config.feed_forward[0])?,
        })
    }
}

impl Writing {
    fn load(
        config: &SpeechConfig,
        tensors: &mut Tensors<'_>,
        at: usize,
    ) -> Result<Self, KernelError> {
        let (width, name) = (config.width, format!("decoder.layers.{at}"));
        let (own, other) = (format!("{name}.self_attn"), format!("{name}.encoder_attn"));
        Ok(Self {
            norm: gains(tensors, &format!("{own}_layer_norm"), width)?,
            qkv: joined(tensors, &own, &["q_proj", "k_proj", "v_proj"], width)?,
            output: joined(tensors, &own, &["out_proj"], width)?,
            heard_norm: gains(tensors, &format!("{other}_layer_norm"), width)?,
            query: joined(tensors, &other, &["q_proj"], width)?,
            heard: joined(tensors, &other, &["k_proj", "v_proj"], width)?,
            heard_output: joined(tensors, &other, &["out_proj"], width)?,
            forward: Forward::load(tensors, &name, width, config.feed_forward[1])?,
        })
    }
}

impl Forward {
    fn load(
        tensors: &mut Tensors<'_>,
        name: &str,
        width: usize,
        wide: usize,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            norm: gains(tensors, &format!("{name}.final_layer_norm"), width)?,
            up: dense(tensors, &format!("{name}.fc1"), width, wide)?,
            down: dense(tensors, &format!("{name}.fc2"), wide, width)?,
        })
    }
}

/// Square matrices as one. Keys have no bias.
fn joined(
    tensors: &mut Tensors<'_>,
    name: &str,
    parts: &[&str],
    width: usize,
) -> Result<Dense, KernelError> {
    load::joined(tensors, name, parts, width, Some("k_proj"))
}

/// A convolution over three neighbours, as a product of their numbers one after the other.
fn convolution(
    tensors: &mut Tensors<'_>,
    name: &str,
    inputs: usize,
    outputs: usize,
) -> Result<Dense, KernelError> {
    let given = tensors(&format!("{name}.weight"), &[outputs, inputs, 3])?;
    let bias = tensors(&format!("{name}.bias"), &[outputs])?;
    let mut weights = Vec::with_capacity(given.len());
    for output in given.chunks_exact(3 * inputs) {
        for neighbour in 0..3 {
            weights.extend(output.iter().skip(neighbour).step_by(3));
        }
    }
    Dense::pack(3 * inputs, &weights, &bias)
}
