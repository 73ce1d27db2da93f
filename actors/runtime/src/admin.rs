//! What an operator may do to a running node.
//!
//! Owns the asynchronous verbs behind the admin API. Each is durable before it returns; what it
//! decides is decided by the roster, the policy book, the key ring or the engine.

mod budgets;
mod federated;
mod keys;
mod providers;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Micros, ModelDigest, NodeId, Refusal, Retry, Stage, Wall};
use selvedge_contract::ModelCard;
use selvedge_contract::residence::Standing;
use selvedge_contract::schedule::Drafts;
use selvedge_engine::{EngineError, LocalEngine, MemoryUse};
use selvedge_net::clock;
use selvedge_proto::join::JoinCode;
use selvedge_proto::records;
use serde::Serialize;

use crate::line::MeshLine;
use crate::membership::Membership;
use crate::mesh::MeshMessage;
use crate::quota::QuotaLine;
use crate::shared::Shared;
use crate::store::Store;

/// Store record of the API keys of this node alone.
pub(crate) const KEYS: &str = "keys";

pub use budgets::BudgetView;
pub use keys::{Caller, KeyView};

/// Giving budget rights away takes two writes and two round trips. Whoever waits for a node that
/// leaves gives up after a few seconds.
const RETIRE_WITHIN: Micros = Micros::millis(1_500);

/// A handle for operators; cheap to clone.
#[derive(Clone)]
pub struct Admin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) engine: Arc<LocalEngine>,
    pub(crate) store: Store,
    pub(crate) mesh: MeshLine,
    /// Serializes changes of the key ring with their storing.
    pub(crate) keys: Arc<tokio::sync::Mutex<()>>,
    /// Set when the node has left its mesh and must stop.
    pub(crate) left: Arc<Mutex<bool>>,
}

/// A member of the mesh, as the roster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberView {
    /// The node.
    pub node: String,
    /// Its name.
    pub name: String,
    /// When its lease lapses, in seconds since the Unix epoch.
    pub lapses_s: u64,
    /// Whether it may admit and renew members.
    pub steward: bool,
    /// Whether it is this node.
    pub me: bool,
    /// Whether it was put out of the mesh.
    pub revoked: bool,
}

impl Admin {
    /// Issues a join code that works once within `ttl`.
    ///
    /// # Errors
    /// A refusal when this node is no steward or too many codes are out.
    pub async fn invite(&self, ttl: Micros) -> Result<JoinCode, Refusal> {
        self.membership.invite(ttl).await
    }

    /// The mesh's fingerprint, for people to compare.
    pub fn fingerprint(&self) -> String {
        records::fingerprint_text(&self.membership.mesh())
    }

    /// Everyone the roster knows, the revoked too.
    pub fn members(&self) -> Vec<MemberView> {
        let wall = clock::wall();
        self.membership.with(|roster| {
            let stewards: Vec<NodeId> =
                roster.stewards(wall).map(|steward| steward.body.node).collect();
            let me = self.shared.me;
            let view = |node: &NodeId, name: &str, lapses: Wall, revoked: bool| MemberView {
                node: node.to_string(),
                name: name.to_owned(),
                lapses_s: lapses.as_secs(),
                steward: stewards.contains(node),
                me: *node == me,
                revoked,
            };
            let members = roster.members();
            let mut all: Vec<MemberView> =
                members.map(|(node, m)| view(node, &m.name, m.not_after, false)).collect();
            all.extend(roster.revocations().map(|notice| {
                let body = &notice.revocation.body;
                view(&body.node, "", body.at, true)
            }));
            all
        })
    }

    /// Puts a node out of the mesh; its connections here close before this returns, those
    /// elsewhere within a second of hearing of it.
    ///
    /// # Errors
    /// A refusal when this node may not, or the change cannot be stored.
    pub async fn revoke(&self, node: NodeId) -> Result<(), Refusal> {
        if node == self.shared.me {
            let message = "a node cannot revoke itself: use `selvedge mesh leave` on it";
            return Err(Refusal::client(Stage::Validate, Code::InvalidRequest, message));
        }
        self.membership.revoke(node).await?;
        self.shared.policies.heed_roster(&self.shared.quota).await;
        self.shared.endpoint.close(&node, "revoked");
        self.mesh.tell(MeshMessage::RosterChanged);
        Ok(())
    }

    /// Makes a member a steward. Needs the root key on this node.
    ///
    /// # Errors
    /// A refusal that says where the root key is expected.
    pub async fn promote(&self, node: NodeId) -> Result<(), Refusal> {
        self.membership.promote(node).await?;
        self.mesh.tell(MeshMessage::RosterChanged);
        Ok(())
    }

    /// Replaces the mesh's root key. Needs the root key on this node. Other stewards must be
    /// promoted again.
    ///
    /// # Errors
    /// A refusal that says where the root key is expected.
    pub async fn rotate_root(&self) -> Result<(), Refusal> {
        self.membership.rotate_root().await?;
        self.mesh.tell(MeshMessage::RosterChanged);
        Ok(())
    }

    /// Forgets the mesh. The node must be stopped afterwards; on its next start it belongs nowhere.
    ///
    /// # Errors
    /// A refusal when this node holds the root key of a mesh with other members, or the change
    /// cannot be stored.
    pub async fn leave(&self) -> Result<(), Refusal> {
        self.membership.may_leave()?;
        // Peers can spend what this node does not need any more.
        let mut stays = Stays(Some(self.shared.quota.clone()));
        self.shared.quota.retire(RETIRE_WITHIN).await;
        self.membership.leave().await?;
        stays.0 = None;
        *self.left.lock() = true;
        for link in self.shared.endpoint.links() {
            self.shared.endpoint.close(&link.node(), "left the mesh");
        }
        Ok(())
    }

    /// Whether [`Admin::leave`] succeeded.
    pub fn has_left(&self) -> bool {
        *self.left.lock()
    }

    /// Adds a model file that is already verified; it is loaded in the background.
    ///
    /// # Errors
    /// A refusal when the file cannot be a model here.
    pub async fn model_add(
        &self,
        path: &Path,
        name: &str,
        digest: ModelDigest,
    ) -> Result<ModelCard, Refusal> {
        let (engine, path, name) = (Arc::clone(&self.engine), path.to_owned(), name.to_owned());
        // Reading the header touches the disk.
        let added =
            tokio::task::spawn_blocking(move || engine.add_model(&path, &name, digest)).await;
        match added {
            Ok(Ok(card)) => Ok(card),
            Ok(Err(error)) => Err(bad_model(&error)),
            Err(error) => Err(Refusal::new(
                Stage::Execute,
                Blame::Us,
                Retry::Never,
                Code::Internal,
                format!("adding the model failed: {error}"),
            )),
        }
    }

    /// Forgets a model; its running requests fail. The file stays. Whether there was one of this
    /// name.
    pub fn model_remove(&self, name: &str) -> bool {
        self.engine.remove_model(name)
    }

    /// What this node's models take of its memory, their last use, and why they went.
    pub fn model_standings(&self) -> Vec<Standing> {
        self.engine.standings()
    }

    /// What is in memory, and how often models came and went.
    pub fn memory(&self) -> MemoryUse {
        self.engine.memory()
    }

    /// Why a model of this node could not be loaded, if so.
    pub fn model_failure(&self, digest: ModelDigest) -> Option<String> {
        self.engine.failure(digest)
    }

    /// How much of a model of this node is in memory, in percent, while it is loaded and that is
    /// known.
    pub fn model_loading(&self, digest: ModelDigest) -> Option<u8> {
        self.engine.loading(digest)
    }

    /// What this node's engine computed ahead, by model.
    pub fn drafts(&self) -> Vec<(String, Drafts)> {
        self.engine.drafts()
    }
}

/// Takes the farewell back if leaving fails or is given up on half-way.
struct Stays(Option<QuotaLine>);

impl Drop for Stays {
    fn drop(&mut self) {
        if let Some(quota) = self.0.take() {
            quota.stay();
        }
    }
}

fn bad_model(error: &EngineError) -> Refusal {
    Refusal::client(Stage::Validate, Code::Corrupt, error.to_string())
}
