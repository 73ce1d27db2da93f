//! What the tensors of a model that sees are called in its file.
//!
//! Owns the translation from the names that the kernels ask for, which are those within each half
//! of CLIP, to CLIP's and ViT's own.

use std::fs::File;

use selvedge_kernels::KernelError;

use crate::embed::tensors::Tensors;
use crate::error::EngineError;

/// Whose weights are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// CLIP's half that sees.
    Vision,
    /// CLIP's half that reads.
    Text,
    /// ViT; without biases of queries, keys and values where it was trained so.
    Vit {
        /// Whether there are such biases.
        biased: bool,
    },
}

/// ViT's parts of a layer.
const PARTS: [(&str, &str); 8] = [
    ("self_attn.q_proj.", "attention.attention.query."),
    ("self_attn.k_proj.", "attention.attention.key."),
    ("self_attn.v_proj.", "attention.attention.value."),
    ("self_attn.out_proj.", "attention.output.dense."),
    ("mlp.fc1.", "intermediate.dense."),
    ("mlp.fc2.", "output.dense."),
    ("layer_norm1.", "layernorm_before."),
    ("layer_norm2.", "layernorm_after."),
];

impl Half {
    /// A tensor's numbers, by the name that the kernels have for it.
    pub(super) fn read(
        self,
        tensors: &Tensors,
        file: &mut File,
        name: &str,
        dims: &[usize],
    ) -> Result<Vec<f32>, KernelError> {
        let unbiased = self == Self::Vit { biased: false };
        if unbiased && ["q", "k", "v"].iter().any(|of| name.ends_with(&format!("{of}_proj.bias"))) {
            return Ok(vec![0.0; dims.iter().product()]);
        }
        let (name, dims) = self.called(name, dims);
        let read = tensors.read(file, &name, &dims);
        read.map_err(|error: EngineError| KernelError::Source(Box::new(error)))
    }

    /// The name and the sides of a tensor in the file.
    fn called(self, name: &str, dims: &[usize]) -> (String, Vec<usize>) {
        let half = match self {
            Self::Vision => "vision_model",
            Self::Text => "text_model",
            Self::Vit { .. } => return vit(name, dims),
        };
        (format!("{half}.{name}"), dims.to_vec())
    }
}

fn vit(name: &str, dims: &[usize]) -> (String, Vec<usize>) {
    let layer = name.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.'));
    if let Some((layer, part)) = layer {
        let own = PARTS.iter().find_map(|(clip, vit)| Some((vit, part.strip_prefix(clip)?)));
        let own = own.map_or_else(|| part.to_owned(), |(vit, end)| format!("{vit}{end}"));
        return (format!("vit.encoder.layer.{layer}.{own}"), dims.to_vec());
    }
    let led = |ones: usize| [vec![1; ones], dims.to_vec()].concat();
    match name {
        "embeddings.class_embedding" => ("vit.embeddings.cls_token".to_owned(), led(2)),
        "embeddings.position_embedding.weight" => {
            ("vit.embeddings.position_embeddings".to_owned(), led(1))
        }
        other => {
            let other = other.replace("patch_embedding.", "patch_embeddings.projection.");
            (format!("vit.{}", other.replace("post_layernorm.", "layernorm.")), dims.to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_files() {
        let vit = Half::Vit { biased: true };
        for (half, asked, dims, name, sides) in [
            (
                Half::Vision,
                "pre_layrnorm.bias",
                &[4][..],
                "vision_model.pre_layrnorm.bias",
                &[4][..],
            ),
            (Half::Text, "final_layer_norm.bias", &[4], "text_model.final_layer_norm.bias", &[4]),
            (vit, "post_layernorm.weight", &[4], "vit.layernorm.weight", &[4]),
            (vit, "embeddings.class_embedding", &[4], "vit.embeddings.cls_token", &[1, 1, 4]),
            (
                vit,
                "embeddings.patch_embedding.bias",
                &[4],
                "vit.embeddings.patch_embeddings.projection.bias",
                &[4],
            ),
            (
                vit,
                "embeddings.position_embedding.weight",
                &[5, 4],
                "vit.embeddings.position_embeddings",
                &[1, 5, 4],
            ),
            (
                vit,
                "encoder.layers.11.self_attn.k_proj.weight",
                &[4, 4],
                "vit.encoder.layer.11.attention.attention.key.weight",
                &[4, 4],
            ),
        ] {
            assert_eq!(half.called(asked, dims), (name.to_owned(), sides.to_vec()));
        }
    }
}
