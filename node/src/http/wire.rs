//! The JSON of the admin API, shared by the surface that writes it and the commands that read it.
//!
//! Owns names and shapes. Times are milliseconds since the Unix epoch, spans are microseconds.

mod cache;
mod federated;
mod machine;
mod provider;
mod quota;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use cache::*;
pub(crate) use federated::*;
pub(crate) use machine::*;
pub(crate) use provider::*;
pub(crate) use quota::*;

/// `GET /admin/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Status {
    /// This node's name in the mesh.
    pub(crate) name: String,
    /// This node's PeerId.
    pub(crate) node: String,
    /// The mesh, if this node belongs to one.
    pub(crate) mesh: Option<String>,
    /// The version of the program.
    pub(crate) version: String,
    /// Every node known, this one included.
    pub(crate) nodes: Vec<Node>,
}

/// One node of the mesh as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Node {
    /// Its PeerId.
    pub(crate) node: String,
    /// The name people gave it.
    pub(crate) name: String,
    /// Whether it is the node that answers.
    pub(crate) me: bool,
    /// `alive`, `suspect`, `frozen` or `dead`.
    pub(crate) state: String,
    /// Why it is in that state.
    pub(crate) why: String,
    /// Round-trip time; absent for this node and while unknown.
    pub(crate) rtt_us: Option<u64>,
    /// Where its QUIC endpoint is.
    pub(crate) addrs: Vec<String>,
    /// The version of its program.
    pub(crate) version: String,
    /// Whether its engine computes now.
    pub(crate) computing: bool,
    /// Whether its engine loads a model now.
    pub(crate) loading: bool,
    /// Its models.
    pub(crate) models: Vec<Model>,
    /// Its machine, as far as it tells.
    #[serde(default)]
    pub(crate) machine: Machine,
}

impl Node {
    /// Whether requests can go there.
    pub(super) fn is_reachable(&self) -> bool {
        self.me || self.state == "alive"
    }
}

/// One model on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Model {
    /// The name people use.
    pub(crate) name: String,
    /// BLAKE3 of the file.
    pub(crate) digest: String,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Architecture as the file names it.
    pub(crate) architecture: String,
    /// Quantization.
    pub(crate) quantization: String,
    /// Number of weights.
    pub(crate) parameters: u64,
    /// Tokens it can attend to.
    pub(crate) context_length: u32,
    /// Whether it has a chat template.
    pub(crate) chat: bool,
    /// `cold`, `loading`, `ready` or `failed`.
    pub(crate) state: String,
    /// How much of it is in memory, in percent, while it is loaded; only of the asked node's own
    /// models, and of those that write answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loading_percent: Option<u8>,
    /// Why it could not be loaded; only of the asked node's own models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    /// Bytes of its weights in memory; only of the asked node's own models, as are the next three.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    /// Seconds since it was asked for or answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle_s: Option<u64>,
    /// Whether it is never unloaded to make room for others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stays_loaded: bool,
    /// Why it was unloaded the last time, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) evicted: Option<Evicted>,
    /// Sequences being computed.
    pub(crate) running: u32,
    /// Requests waiting.
    pub(crate) queued: u32,
    /// Prompt tokens per second; 0 = not yet known.
    pub(crate) prefill_rate: u32,
    /// Time of one step; 0 = not yet known.
    pub(crate) step_us: u32,
}

/// Why a model was unloaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Evicted {
    /// `copy_elsewhere` or `least_recently_used`.
    pub(crate) reason: String,
    /// The model that it made room for.
    #[serde(rename = "for")]
    pub(crate) comes: String,
    /// Seconds since.
    pub(crate) ago_s: u64,
}

/// `POST /admin/invite`; all fields have defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InviteRequest {
    /// How long the code works, in seconds; one hour unless told.
    #[serde(default)]
    pub(crate) ttl_s: Option<u64>,
}

/// The answer to `POST /admin/invite`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Invite {
    /// What to type on the next machine.
    pub(crate) code: String,
    /// How long it works, in seconds.
    pub(crate) ttl_s: u64,
}

/// `POST /admin/revoke` and `POST /admin/promote`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRequest {
    /// PeerId of the node.
    pub(crate) node: String,
}

/// One line of `GET /admin/members`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Member {
    /// PeerId.
    pub(crate) node: String,
    /// The name it joined with.
    pub(crate) name: String,
    /// Whether it may admit others.
    pub(crate) steward: bool,
    /// Whether it was revoked.
    pub(crate) revoked: bool,
    /// When its membership lapses unless renewed; absent while unknown.
    pub(crate) not_after_ms: Option<u64>,
}

/// `POST /admin/models`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelRequest {
    /// The file on the node's own disk.
    pub(crate) path: String,
    /// The name people will use.
    pub(crate) name: String,
    /// BLAKE3 of the file, 64 hexadecimal digits.
    pub(crate) digest: String,
}

/// A list of anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub(crate) struct List<T> {
    /// The lines.
    pub(crate) data: Vec<T>,
}

/// What orders without a result of their own answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Done {
    /// What was done, for people.
    pub(crate) done: String,
}
