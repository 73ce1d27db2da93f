//! What the surface needs from the node behind it.
//!
//! Owns the boundary: the surface speaks to this trait, the node's gateway implements it, and the
//! surface's tests script it. Every answer is a stream of pieces; dropping it cancels the work.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use selvedge_base::{Micros, ModelDigest, NodeId, Refusal, RequestId};
use selvedge_core::Piece;
use selvedge_runtime::Call;
use serde_json::Value;

use super::wire::Status;

/// A node as the surface sees it.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Asks for one answer. [`Piece::Finished`] or [`Piece::Failed`] comes last.
    fn generate(&self, call: Call) -> BoxStream<'static, Piece>;

    /// The name people gave a node; its PeerId while unknown.
    fn name_of(&self, node: &NodeId) -> String;

    /// The file behind a model's name, if any node has it.
    fn digest_of(&self, model: &str) -> Option<ModelDigest>;

    /// The tenant an API key belongs to, compared in constant time; `None` when it opens nothing.
    fn tenant_of(&self, key: &str) -> Option<String>;

    /// The mesh as this node sees it.
    fn status(&self) -> Status;

    /// The mesh as this node sees it, now and again whenever it changed; never ends.
    fn watch(&self) -> BoxStream<'static, Status>;

    /// Running totals the node keeps itself: metric name, help, value.
    fn totals(&self) -> Vec<(&'static str, &'static str, u64)>;

    /// Carries out an operator's order and returns its JSON.
    fn manage(&self, order: Order) -> BoxFuture<'_, Result<Value, Refusal>>;
}

/// What an operator can order through the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Makes a join code.
    Invite {
        /// How long it works.
        ttl: Micros,
    },
    /// Lists members.
    Members,
    /// Shuts a node out.
    Revoke(NodeId),
    /// Lets a node admit others.
    Promote(NodeId),
    /// Replaces the mesh's root key.
    RotateRoot,
    /// Leaves the mesh.
    Leave,
    /// Makes an API key.
    KeyCreate {
        /// What people will call it.
        name: String,
    },
    /// Lists API keys.
    Keys,
    /// Removes an API key.
    KeyRevoke(String),
    /// Adds a model from this node's disk.
    ModelAdd {
        /// The file.
        path: String,
        /// The name people will use.
        name: String,
        /// BLAKE3 of the file.
        digest: ModelDigest,
    },
    /// Removes a model from service.
    ModelRemove(String),
    /// What is remembered of a request.
    Record(RequestId),
}
