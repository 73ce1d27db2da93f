//! What an engine reports of itself; the mesh routes by it and tells the frozen from the slow.
//!
//! Plain data that travels in capability rows and heartbeats. `progress` is the heart of it: it
//! advances with every layer computed and every prefill chunk, so an engine that has running work
//! and a still counter is frozen, while one that loads or only queues says so.

use selvedge_base::ModelDigest;
use serde::{Deserialize, Serialize};

/// What stands between a quantization and the rounds that the model was tuned in.
const ROUND_MARK: &str = " + round ";

/// What one model is, independent of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The name people use.
    pub name: String,
    /// The file, by content.
    pub digest: ModelDigest,
    /// Bytes of the file.
    pub bytes: u64,
    /// Architecture, as the file names it (`llama`, `bert`, `whisper`, `vit`); it tells what the
    /// model makes.
    pub architecture: String,
    /// Quantization, as people write it (`Q4_1`).
    pub quantization: String,
    /// Number of weights.
    pub parameters: u64,
    /// Tokens the model can attend to.
    pub context_length: u32,
    /// Whether it has a chat template.
    pub chat: bool,
}

impl ModelCard {
    /// Whether it makes vectors of texts and writes none. One may be asked with tensors as well.
    pub fn embeds(&self) -> bool {
        crate::embed::embeds(&self.architecture)
    }

    /// Whether it is asked with tensors and writes no text.
    pub fn infers(&self) -> bool {
        crate::tensors::infers(&self.architecture)
    }

    /// Whether it sees pictures.
    pub fn sees(&self) -> bool {
        crate::tensors::sees(&self.architecture)
    }

    /// Whether it writes down what is said in sound, and nothing else.
    pub fn hears(&self) -> bool {
        crate::speech::hears(&self.architecture)
    }

    /// Whether it writes text after text.
    pub fn writes(&self) -> bool {
        !self.embeds() && !self.infers() && !self.hears()
    }

    /// The card of a model that is this one, tuned by a job of learning in so many rounds. The
    /// round stands behind the quantization: programs of before show it as it is.
    #[must_use]
    pub fn tuned(&self, name: &str, digest: ModelDigest, round: u64) -> Self {
        let quantization = format!("{}{ROUND_MARK}{round}", self.quantization);
        Self { name: name.to_owned(), digest, quantization, ..self.clone() }
    }

    /// The rounds that it was tuned in; none for a model that is a file.
    pub fn round(&self) -> Option<u64> {
        self.quantization.rsplit_once(ROUND_MARK)?.1.parse().ok()
    }
}

/// Where a model stands on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ModelState {
    /// On disk, not in memory.
    Cold,
    /// Being loaded.
    Loading,
    /// Answers requests.
    Ready,
    /// Could not be loaded; the reason is in the node's log.
    Failed,
}

/// One model on a node, now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// What it is.
    pub card: ModelCard,
    /// Where it stands.
    pub state: ModelState,
    /// Sequences being computed.
    pub running: u32,
    /// Requests waiting for a place.
    pub queued: u32,
    /// Prompt tokens not yet computed, of running and queued requests.
    pub pending_prompt_tokens: u32,
    /// Prompt tokens per second, measured; 0 = not yet known.
    pub prefill_rate: u32,
    /// Microseconds per step of one token, with one answer more than there are; 0 = not yet known.
    pub step_us: u32,
}

/// An engine, now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// Advances with every layer computed and every chunk of a prompt.
    pub progress: u64,
    /// Whether any sequence is being computed (loading and queueing are not computing).
    pub computing: bool,
    /// Whether any model is being loaded.
    pub loading: bool,
    /// The models, by name.
    pub models: Vec<ModelStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuned_model_says_its_round_and_a_file_has_none() {
        let file = ModelCard {
            name: "small".to_owned(),
            digest: ModelDigest([1; 32]),
            bytes: 5,
            architecture: "llama".to_owned(),
            quantization: "Q4_1".to_owned(),
            parameters: 7,
            context_length: 64,
            chat: true,
        };
        let tuned = file.tuned("notes", ModelDigest([2; 32]), 12);
        assert_eq!((file.round(), tuned.round()), (None, Some(12)));
        assert_eq!((&*tuned.name, &*tuned.quantization), ("notes", "Q4_1 + round 12"));
        assert_eq!((tuned.bytes, tuned.chat), (5, true));
    }
}
