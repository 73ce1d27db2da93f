//! The cache of answers, as the admin API says it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /admin/cache`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Cache {
    /// Whether answers are kept at all.
    pub(crate) enabled: bool,
    /// Answers kept now.
    pub(crate) entries: u64,
    /// The most that are kept.
    pub(crate) max_entries: u64,
    /// Bytes of them, with what keeping them takes.
    pub(crate) bytes: u64,
    /// The most bytes.
    pub(crate) max_bytes: u64,
    /// How long an answer is good, in seconds.
    pub(crate) ttl_s: u64,
    /// Requests answered by what was kept, since the start.
    pub(crate) hits: u64,
    /// Requests that nothing was kept for.
    pub(crate) misses: u64,
    /// Requests that waited for the answer to an equal one.
    pub(crate) coalesced: u64,
    /// Answers kept since the start.
    pub(crate) stored: u64,
    /// Answers that went for want of room.
    pub(crate) evicted: u64,
    /// Answers that grew too old.
    pub(crate) expired: u64,
    /// Answers that were purged.
    pub(crate) purged: u64,
    /// Requests answered by what a peer kept.
    #[serde(default)]
    pub(crate) fetched: u64,
    /// Answers given to peers.
    #[serde(default)]
    pub(crate) lent: u64,
    /// Answers that peers keep, by the peer's name, as far as they told.
    #[serde(default)]
    pub(crate) peers: BTreeMap<String, u64>,
}

/// `POST /admin/cache/purge`: all answers, or those of an account and what lies below it, of a
/// model, or of both; at every node of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CachePurge {
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    /// The model, by the name it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
}
