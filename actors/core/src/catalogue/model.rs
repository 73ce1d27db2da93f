//! A model of the catalogue, and whether it can take a request.
//!
//! Owns the comparison of what a request needs with what a model has, and the name of what is
//! missing. Prices are in [`super::price`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Capability, Modality, Price, ProviderKind};

/// One model of one kind of provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Whose it is.
    pub kind: ProviderKind,
    /// What the provider calls it.
    pub id: String,
    /// Other names the provider takes for the same model at the same price.
    pub aliases: Vec<String>,
    /// When what is said here was true, as YYYY-MM-DD.
    pub as_of: String,
    /// Whether the provider means to switch it off.
    pub deprecated: bool,
    /// What it takes and can do.
    pub abilities: Abilities,
    /// What it costs.
    pub price: Price,
}

/// What a model takes and can do; said of mesh models too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// Tokens of prompt and answer together.
    pub context_tokens: u32,
    /// Tokens of the prompt, where that is limited by itself.
    pub max_input_tokens: Option<u32>,
    /// Tokens of the answer, where that is limited by itself.
    pub max_output_tokens: Option<u32>,
    /// What it reads.
    pub input: BTreeSet<Modality>,
    /// What it writes; nothing when it makes embeddings.
    pub output: BTreeSet<Modality>,
    /// What else it can do.
    pub can: BTreeSet<Capability>,
    /// Numbers in an embedding, when it makes embeddings.
    pub embedding_dimensions: Option<u32>,
}

/// What a request needs of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Tokens of the prompt, at most.
    pub prompt_tokens: u32,
    /// The caller's limit for the answer, when it set one.
    pub output_tokens: Option<u32>,
    /// What it contains besides text.
    pub input: BTreeSet<Modality>,
    /// What it wants back besides text.
    pub output: BTreeSet<Modality>,
    /// What else it asks for.
    pub can: BTreeSet<Capability>,
    /// Whether it asks for embeddings instead of an answer.
    pub embeddings: bool,
    /// How many numbers each embedding shall have, when it says so.
    pub dimensions: Option<u32>,
}

/// What a model lacks for a request, in words for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Error)]
pub enum Missing {
    /// Room for the prompt and the answer.
    #[error("context of {needs} tokens (it has {has})")]
    Context {
        /// Tokens needed.
        needs: u64,
        /// Tokens there are.
        has: u32,
    },
    /// Room for the prompt.
    #[error("prompts of {needs} tokens (it takes {has})")]
    Prompt {
        /// Tokens needed.
        needs: u32,
        /// Tokens there are.
        has: u32,
    },
    /// Answers that long.
    #[error("answers of {needs} tokens (it writes at most {has})")]
    Answer {
        /// Tokens asked for.
        needs: u32,
        /// Tokens there are.
        has: u32,
    },
    /// Something it would have to read.
    #[error("{0} as input")]
    Input(Modality),
    /// Something it would have to write.
    #[error("{0} as output")]
    Output(Modality),
    /// Something it would have to do.
    #[error("{0}")]
    Capability(Capability),
    /// Embeddings.
    #[error("embeddings")]
    Embeddings,
    /// Anything but embeddings.
    #[error("answers (it only makes embeddings)")]
    Answers,
    /// Embeddings that long.
    #[error("embeddings of {needs} numbers (it makes {has})")]
    Dimensions {
        /// Numbers asked for.
        needs: u32,
        /// Numbers there are.
        has: u32,
    },
}

impl Abilities {
    /// Everything a request needs that is not there; nothing when it can be taken.
    pub fn missing(&self, needs: &Needs) -> Vec<Missing> {
        let mut missing = Vec::new();
        match (needs.embeddings, self.embedding_dimensions) {
            (true, None) => missing.push(Missing::Embeddings),
            (false, Some(_)) => missing.push(Missing::Answers),
            (true, Some(has)) => {
                let asked = needs.dimensions.filter(|asked| *asked > has);
                missing.extend(asked.map(|needs| Missing::Dimensions { needs, has }));
            }
            (false, None) => {}
        }
        let room = u64::from(needs.prompt_tokens) + u64::from(needs.output_tokens.unwrap_or(0));
        if room > u64::from(self.context_tokens) {
            missing.push(Missing::Context { needs: room, has: self.context_tokens });
        }
        if let Some(has) = self.max_input_tokens.filter(|has| needs.prompt_tokens > *has) {
            missing.push(Missing::Prompt { needs: needs.prompt_tokens, has });
        }
        if let (Some(needs), Some(has)) = (needs.output_tokens, self.max_output_tokens)
            && needs > has
        {
            missing.push(Missing::Answer { needs, has });
        }
        let lacks = |what: &Modality, has: &BTreeSet<Modality>| {
            *what != Modality::Text && !has.contains(what)
        };
        let unread = needs.input.iter().filter(|what| lacks(what, &self.input));
        missing.extend(unread.map(|what| Missing::Input(*what)));
        let unwritten = needs.output.iter().filter(|what| lacks(what, &self.output));
        missing.extend(unwritten.map(|what| Missing::Output(*what)));
        missing.extend(needs.can.difference(&self.can).map(|what| Missing::Capability(*what)));
        missing
    }

    /// The most tokens an answer to such a request can have: the caller's limit, the model's, and
    /// what the context leaves.
    pub fn longest_answer(&self, needs: &Needs) -> u32 {
        if self.embedding_dimensions.is_some() {
            return 0;
        }
        let left = self.context_tokens.saturating_sub(needs.prompt_tokens);
        let most = self.max_output_tokens.map_or(left, |most| most.min(left));
        needs.output_tokens.map_or(most, |asked| asked.min(most))
    }
}
