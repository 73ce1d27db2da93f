//! Reading the weights of models that see, by the names that Hugging Face's CLIP has within each
//! half.

use super::{Captions, CaptionsConfig, Layer, Sight, SightConfig, Tower, TowerConfig, add};
use crate::dense::Dense;
use crate::error::KernelError;
use crate::load::{Tensors, dense, gains, joined};

impl Sight {
    /// Reads the weights.
    ///
    /// # Errors
    /// [`KernelError`] when the dimensions do not fit, or a tensor is missing or another.
    pub fn load(config: SightConfig, tensors: &mut Tensors<'_>) -> Result<Self, KernelError> {
        config.check()?;
        let (width, square) = (config.tower.width, config.square);
        let name = "embeddings.patch_embedding";
        let weights =
            tensors(&format!("{name}.weight"), &[width, super::CHANNELS, square, square])?;
        let shifts = match config.shifted {
            true => tensors(&format!("{name}.bias"), &[width])?,
            false => vec![0.0; width],
        };
        let squares = Dense::pack(config.square_numbers(), &weights, &shifts)?;
        let mut class = tensors("embeddings.class_embedding", &[width])?;
        let rows = [config.squares() + 1, width];
        let mut places = tensors("embeddings.position_embedding.weight", &rows)?;
        add(&mut class, &places);
        places.drain(..width);
        let first_norm = match config.normed_first {
            true => Some(gains(tensors, "pre_layrnorm", width)?),
            false => None,
        };
        let tower = Tower::load(&config.tower, false, "post_layernorm", tensors)?;
        Ok(Self { config, squares, class, places, first_norm, tower })
    }
}

impl Captions {
    /// Reads the weights.
    ///
    /// # Errors
    /// [`KernelError`] when the dimensions do not fit, or a tensor is missing or another.
    pub fn load(config: CaptionsConfig, tensors: &mut Tensors<'_>) -> Result<Self, KernelError> {
        config.check()?;
        let CaptionsConfig { vocabulary, positions, ref tower } = config;
        let words = tensors("embeddings.token_embedding.weight", &[vocabulary, tower.width])?;
        let places = tensors("embeddings.position_embedding.weight", &[positions, tower.width])?;
        let tower = Tower::load(tower, true, "final_layer_norm", tensors)?;
        Ok(Self { config, words, places, tower })
    }
}

impl Tower {
    fn load(
        config: &TowerConfig,
        back: bool,
        norm: &str,
        tensors: &mut Tensors<'_>,
    ) -> Result<Self, KernelError> {
        let layers = (0..config.layers).map(|at| Layer::load(config, tensors, at));
        let layers = layers.collect::<Result<_, _>>()?;
        let norm = gains(tensors, norm, config.width)?;
        Ok(Self { config: config.clone(), back, layers, norm })
    }
}

impl Layer {
    fn load(
        config: &TowerConfig,
        tensors: &mut Tensors<'_>,
        at: usize,
    ) -> Result<Self, KernelError> {
        let (width, wide) = (config.width, config.feed_forward);
        let name = |part: &str| format!("encoder.layers.{at}.{part}");
        let (own, parts) = (name("self_attn"), ["q_proj", "k_proj", "v_proj"]);
        Ok(Self {
            qkv: joined(tensors, &own, &parts, width, None)?,
            output: dense(tensors, &name("self_attn.out_proj"), width, width)?,
            up: dense(tensors, &name("mlp.fc1"), width, wide)?,
            down: dense(tensors, &name("mlp.fc2"), wide, width)?,
            norm: gains(tensors, &name("layer_norm1"), width)?,
            forward_norm: gains(tensors, &name("layer_norm2"), width)?,
        })
    }
}
