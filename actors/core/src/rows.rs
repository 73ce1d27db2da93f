//! What a node says of itself to the others, and the wire types with their payloads fixed.
//!
//! Owns the row each node writes about itself (single writer; replicated by `mesh/crdt`). Fast
//! changing facts (progress, requests in flight) travel in heartbeats as a pulse and on every
//! answer; the row carries what changes slowly or may be a second old.

use std::net::SocketAddr;

use selvedge_contract::{
    Answer, Details, EngineStatus, GenerateRequest, Heard, Machine, SpeechRequest,
};
use selvedge_federated::epidemic::Told;
use selvedge_federated::round::{Digest, Message};
use selvedge_proto::policy::PolicyMessage;
use selvedge_proto::wire;
use serde::{Deserialize, Serialize};

use crate::quota::QuotaMessage;

/// First frame of a stream between members.
pub type Opening = wire::Opening<
    GenerateRequest,
    QuotaMessage,
    PolicyWord,
    FederatedWord,
    PersonalWord,
    SpeechRequest,
    Machine,
    FitsWord,
    Details,
>;
/// A request that was reserved for, handed to a peer.
pub type Charged = wire::Charged<GenerateRequest>;
/// A request that is part of a trace, handed to a peer.
pub type Traced = wire::Traced<GenerateRequest>;
/// A hand-off whose answer must hold to a schema.
pub type Shaped = wire::Shaped<GenerateRequest>;
/// A hand-off with what is asked beside the request.
pub type Detailed = wire::Detailed<GenerateRequest, Details>;
/// Sound whose words a peer shall write down.
pub type Spoken = wire::Spoken<SpeechRequest>;
/// What the peer sends back.
pub type SpokenReply = wire::HandOffReply<Heard>;
/// A request handed to a peer.
pub type HandOff = wire::HandOff<GenerateRequest>;
/// What the peer sends back.
pub type HandOffReply = wire::HandOffReply<Answer>;

/// What a member says about policies, and under which name it holds rights itself: whoever signs
/// the next configuration must know all names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyWord {
    /// The sender's escrow incarnation: of its durable store, not of its process.
    pub incarnation: u64,
    /// What it has, lacks or tells.
    pub message: PolicyMessage,
}

/// What a member says of a round of learning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FederatedWord {
    /// The job's name.
    pub job: Digest,
    /// What is said.
    pub message: Message,
}

/// A node's own model in a job of learning, while no round ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalWord {
    /// The job's name.
    pub job: Digest,
    /// The model.
    pub told: Told,
}

/// The question whether a node's data fit a job; answered by a
/// [`FitsReply`](selvedge_federated::fits::FitsReply).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FitsWord {
    /// The job as it would be told to the mesh.
    pub job: Vec<u8>,
}

/// A node's row: written by that node alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// The name people gave it.
    pub name: String,
    /// The place it stands in; data labelled `site` stays among nodes of one site.
    pub site: String,
    /// The version of the program.
    pub version: String,
    /// Where its QUIC endpoint can be reached.
    pub addrs: Vec<SocketAddr>,
    /// Its HTTP surface, for people.
    pub api: Option<SocketAddr>,
    /// Its models and how busy they are.
    pub engine: EngineStatus,
}

impl NodeRow {
    /// Models a row may list: a node holds a handful, and the row must fit a sync frame.
    pub const MAX_MODELS: usize = 64;
    /// Addresses a row may list: a machine has a few interfaces with a few addresses each.
    pub const MAX_ADDRS: usize = 16;
    /// Bytes of a name, a site or a version.
    pub const MAX_NAME: usize = 64;

    /// Whether a row from another node keeps the bounds; one that does not is ignored.
    pub fn is_within_bounds(&self) -> bool {
        let names = [&self.name, &self.site, &self.version];
        self.engine.models.len() <= Self::MAX_MODELS
            && self.addrs.len() <= Self::MAX_ADDRS
            && names.iter().all(|name| name.len() <= Self::MAX_NAME)
            && !names.iter().any(|name| name.chars().any(char::is_control))
            && self.engine.models.iter().all(|model| model.card.name.len() <= 4 * Self::MAX_NAME)
    }
}
