//! The families of language models whose forward pass is written, and in what they differ.
//!
//! Owns their names and what follows from the family alone. What a file says of its own model is
//! `card`'s; the arithmetic is the kernels' and `tensors`'.

use selvedge_kernels::{Activation, Rotation};

/// What an error says that names the families.
pub(crate) const SUPPORTED: &str = "gemma3, llama, phi3, qwen2 and qwen3 run here";

/// A family, by the name that GGUF files have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// Gemma 3 (Gemma Team, 2025): norms before and behind both parts of a layer, GELU, and five
    /// of six layers that look back a window only.
    Gemma3,
    /// Llama and what shares its layout: SmolLM, Mistral, TinyLlama.
    Llama,
    /// Phi-3 and 3.5 (Abdin et al., 2024): queries, keys and values in one tensor, gate and up in
    /// another, and maybe rotation speeds with factors of their own.
    Phi3,
    /// Qwen 2 and 2.5: biases on q, k and v, rotation of halves instead of pairs.
    Qwen2,
    /// Qwen 3: as Qwen 2, with a norm of each query and key head instead of biases.
    Qwen3,
}

impl Architecture {
    const ALL: [Self; 5] = [Self::Gemma3, Self::Llama, Self::Phi3, Self::Qwen2, Self::Qwen3];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gemma3 => "gemma3",
            Self::Llama => "llama",
            Self::Phi3 => "phi3",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The family of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// Which dimensions of a head rotate together.
    pub(crate) const fn rotation(self) -> Rotation {
        match self {
            Self::Llama => Rotation::Pairs,
            Self::Gemma3 | Self::Phi3 | Self::Qwen2 | Self::Qwen3 => Rotation::Halves,
        }
    }

    /// What gates the feed-forward part.
    pub(crate) const fn activation(self) -> Activation {
        match self {
            Self::Gemma3 => Activation::Gelu,
            Self::Llama | Self::Phi3 | Self::Qwen2 | Self::Qwen3 => Activation::Silu,
        }
    }

    /// Whether query and key heads are normed.
    pub(crate) const fn norms_heads(self) -> bool {
        matches!(self, Self::Gemma3 | Self::Qwen3)
    }

    /// Whether what attention and feed-forward hand on is normed before it is added.
    pub(crate) const fn norms_behind(self) -> bool {
        matches!(self, Self::Gemma3)
    }

    /// Whether several matrices are one tensor.
    pub(crate) const fn fused(self) -> bool {
        matches!(self, Self::Phi3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_names_is_what_runs() {
        for family in Architecture::ALL {
            assert_eq!(Architecture::named(family.name()), Some(family));
            assert!(SUPPORTED.contains(family.name()), "{}", family.name());
        }
        assert_eq!(Architecture::named("gemma2"), None);
    }
}
