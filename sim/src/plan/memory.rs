//! Models that share the memory of each node's engine, when a plan has any.

use selvedge_base::Micros;
use serde::{Deserialize, Serialize};

use super::ClientPlan;

/// Models that may share a memory: enough that several come for one, and all orders are met.
pub(crate) const MAX_SHARED: usize = 6;
/// Tokens of a prompt and its answer together, at most: a loaded model has room for these.
const MOST_TOKENS: u32 = 512;

/// The memory of each engine and what shares it. Bytes are as small as one likes: only how they
/// compare matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryPlan {
    /// Bytes for weights and for what running answers need.
    pub budget: u64,
    /// Bytes of 64 tokens' keys and values.
    pub page: u64,
    /// How long freeing a model takes.
    pub frees: Micros,
    /// How many loads fail, for a reason that passes.
    pub failing_permille: u64,
    /// The models; every node has all of them on its disk.
    pub models: Vec<ModelPlan>,
}

/// One of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPlan {
    /// Bytes of its weights.
    pub weights: u64,
    /// How long it takes to load.
    pub load: Micros,
    /// Whether it never goes once it is loaded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

impl MemoryPlan {
    /// Whether nothing shares a memory: engines have room for all that they serve.
    pub const fn is_none(&self) -> bool {
        self.models.is_empty()
    }

    pub(super) fn check(&self, clients: &[ClientPlan]) -> Result<(), String> {
        let own = clients.iter().flat_map(|client| &client.models);
        let is_here = |at: &&usize| **at < self.models.len();
        if let Some(at) = own.clone().find(|at| !is_here(at)) {
            return Err(format!("model {at} is asked for, and there are {}", self.models.len()));
        }
        if self.is_none() {
            return Ok(());
        }
        if self.models.len() > MAX_SHARED || self.page == 0 {
            return Err(format!("up to {MAX_SHARED} models share pages of at least a byte"));
        }
        let long = |client: &&ClientPlan| {
            client.unlimited || client.prompt.1 + client.answer.1 > MOST_TOKENS
        };
        match clients.iter().find(long) {
            Some(client) => {
                Err(format!("'{}' asks for more than {MOST_TOKENS} tokens", client.account))
            }
            None if clients.iter().any(|client| client.models.is_empty()) => {
                Err("where models share a memory, clients say which they ask for".to_owned())
            }
            None => Ok(()),
        }
    }
}
