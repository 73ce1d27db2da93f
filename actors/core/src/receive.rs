//! What a node lets a peer hand over. Being handed a request is not authority.
//!
//! Owns the receiver's checks: hops, the peer's own claim, tenant, label, size of the answer, the
//! receipt where budgets ask for one and the cap on how much one peer may have running here.
//! Whether the peer is a member was settled when its connection was admitted; whether the engine
//! has room is the engine's to say.

mod receipts;

use std::collections::BTreeSet;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Blame, Code, Micros, NodeId, Refusal, Retry, Stage};
use selvedge_contract::request::{Input, Limits};
use selvedge_proto::wire::{Label, MAX_TENANT_BYTES};

pub use receipts::{MAX_RECEIPTS, Receipts};

use crate::rows::HandOff;

/// The longest a caller may be waited for: an hour of generation is beyond any model here.
pub const MAX_DEADLINE: Micros = Micros::secs(3_600);

/// What this node accepts from peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivePolicy {
    /// The place this node stands in.
    pub site: String,
    /// Tenants served for peers; empty = every tenant.
    pub tenants: BTreeSet<String>,
    /// Requests one peer may have running here.
    pub max_per_peer: usize,
}

impl ReceivePolicy {
    /// Decides on a hand-off from `peer` of `peer_site` that has `running` requests here already.
    ///
    /// # Errors
    /// A refusal that blames the peer for what a correct peer would not have sent, or asks it to
    /// try elsewhere when this node is full or not allowed to serve.
    pub fn check(
        &self,
        peer: NodeId,
        peer_site: Option<&str>,
        running: usize,
        handed: &HandOff,
    ) -> Result<(), Refusal> {
        if handed.hop == 0 || handed.hop > HandOff::MAX_HOPS {
            let message = format!("hop {} is over the limit of {}", handed.hop, HandOff::MAX_HOPS);
            return Err(elsewhere(Code::InvalidRequest, message));
        }
        if handed.origin != peer {
            let message = "a hand-off must come from the node that took the request".to_owned();
            return Err(elsewhere(Code::Forbidden, message));
        }
        if handed.deadline > MAX_DEADLINE {
            return Err(elsewhere(Code::InvalidRequest, "deadline of over an hour".to_owned()));
        }
        self.check_tenant(&handed.tenant)?;
        self.check_label(handed.label, peer_site)?;
        check_request(handed)?;
        if running >= self.max_per_peer && !plant::is_on(Plant::PeerCapIgnored) {
            let message = format!("this node already runs {running} requests of that peer");
            return Err(elsewhere(Code::Overloaded, message));
        }
        Ok(())
    }

    fn check_tenant(&self, tenant: &str) -> Result<(), Refusal> {
        let well_formed = !tenant.is_empty()
            && tenant.len() <= MAX_TENANT_BYTES
            && tenant.chars().all(|c| !c.is_control());
        if !well_formed {
            return Err(elsewhere(Code::InvalidRequest, "malformed tenant".to_owned()));
        }
        if !self.tenants.is_empty() && !self.tenants.contains(tenant) {
            let message = format!("this node does not serve tenant '{tenant}' for its peers");
            return Err(elsewhere(Code::Forbidden, message));
        }
        Ok(())
    }

    fn check_label(&self, label: Label, peer_site: Option<&str>) -> Result<(), Refusal> {
        let may_come = match label {
            Label::Node => false,
            Label::Site => peer_site == Some(self.site.as_str()),
            Label::Mesh | Label::Anywhere => true,
        };
        if may_come || plant::is_on(Plant::LabelIgnored) {
            return Ok(());
        }
        let message = format!("data labelled {label:?} may not leave its boundary for this node");
        Err(elsewhere(Code::Forbidden, message))
    }
}

fn check_request(handed: &HandOff) -> Result<(), Refusal> {
    let request = &handed.request;
    let emitted = request.emitted.as_ref().map_or(0, |emitted| emitted.tokens.len());
    let within = request.max_tokens <= Limits::ANSWER_TOKENS
        && emitted <= Limits::ANSWER_TOKENS as usize
        && request.stop.len() <= Limits::STOPS
        && request.stop.iter().all(|stop| stop.len() <= Limits::STOP_BYTES)
        && request.logprobs.is_none_or(|wanted| wanted.top <= Limits::TOP_LOGPROBS)
        && !matches!(&request.input, Input::Tooled(chat) if chat.check().is_err());
    if within {
        return Ok(());
    }
    Err(elsewhere(Code::InvalidRequest, "the request is over this node's bounds".to_owned()))
}

fn elsewhere(code: Code, message: String) -> Refusal {
    Refusal::new(Stage::HandOff, Blame::Peer, Retry::Elsewhere, code, message)
}
