//! Which hand-offs need a receipt, whether one fits, and which were seen.
//!
//! Owns the memory of receipts already worked on, bounded: an attempt is computed once, however
//! often its receipt is shown. Whether a receipt was signed by the node it names is checked with
//! the rest; what rights its ingest node has is not this node's to know.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::{Blame, Code, Mono, NodeId, Refusal, RequestId, Retry, Stage};
use selvedge_proto::policy::LOCAL_ACCOUNT;
use selvedge_proto::records::Signed;
use selvedge_proto::wire::Receipt;

use crate::rows::HandOff;

/// Receipts remembered: more than all peers may have running here within the longest deadline of
/// usual requests. Beyond it the one that lapses first makes room.
pub const MAX_RECEIPTS: usize = 8_192;

/// The receipts seen.
#[derive(Clone, Debug, Default)]
pub struct Receipts {
    /// The newest attempt of each request, and when it lapses.
    seen: BTreeMap<(NodeId, RequestId), (u64, Mono)>,
    /// The same by when they lapse.
    lapsing: BTreeSet<(Mono, NodeId, RequestId)>,
}

impl Receipts {
    /// Decides on the receipt of a hand-off from `peer` to `me`, and remembers it. `must`: the
    /// tenant has hard budgets here, so that a hand-off without a receipt is not served.
    ///
    /// # Errors
    /// A refusal that blames the peer; another node may know the tenant's budgets better.
    pub fn check(
        &mut self,
        now: Mono,
        (peer, me): (NodeId, NodeId),
        handed: &HandOff,
        receipt: Option<&Signed<Receipt>>,
        must: bool,
    ) -> Result<(), Refusal> {
        let is_signed = |receipt: &Signed<Receipt>| receipt.check_signature().is_ok();
        self.check_by(now, (peer, me), handed, receipt, must, is_signed)
    }

    /// As [`Receipts::check`], with another check of the signature: a simulated mesh seals receipts
    /// with a stand-in.
    ///
    /// # Errors
    /// As [`Receipts::check`].
    pub fn check_by(
        &mut self,
        now: Mono,
        (peer, me): (NodeId, NodeId),
        handed: &HandOff,
        receipt: Option<&Signed<Receipt>>,
        must: bool,
        is_signed: impl Fn(&Signed<Receipt>) -> bool,
    ) -> Result<(), Refusal> {
        let Some(receipt) = receipt else {
            if must {
                return Err(refused("the tenant has a hard budget: a receipt is needed"));
            }
            return Ok(());
        };
        let body = &receipt.body;
        let request = &handed.request;
        let tenant = body.account.split('/').next().unwrap_or_default();
        // A node's own keys are tenants by name and share one account; none of them has budgets.
        let own_key = !must && body.account == LOCAL_ACCOUNT;
        let other_tenant = tenant != handed.tenant && !own_key;
        if body.ingest != peer || body.serving != me {
            return Err(refused("the receipt is for other nodes"));
        }
        if body.request != request.id || other_tenant || body.fence != handed.fence {
            return Err(refused("the receipt is for another request"));
        }
        if u64::from(request.max_tokens) > body.tokens || handed.deadline > body.not_after_in {
            return Err(refused("the receipt does not cover the request"));
        }
        receipt
            .check_by(is_signed)
            .map_err(|_| refused("the receipt is not signed by its ingest node"))?;
        self.remember(now.plus(handed.deadline), now, body)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Remembers a receipt until its hand-off's deadline, which is bounded; the receipt's own end
    /// is the ingest node's word alone.
    fn remember(&mut self, lapses: Mono, now: Mono, body: &Receipt) -> Result<(), Refusal> {
        while let Some((until, ingest, request)) = self.lapsing.first().copied()
            && (until <= now || self.seen.len() >= MAX_RECEIPTS)
        {
            self.lapsing.pop_first();
            self.seen.remove(&(ingest, request));
        }
        let key = (body.ingest, body.request);
        if let Some((fence, until)) = self.seen.get(&key).copied() {
            if body.fence <= fence {
                return Err(refused("the receipt was used before"));
            }
            self.lapsing.remove(&(until, key.0, key.1));
        }
        self.seen.insert(key, (body.fence, lapses));
        self.lapsing.insert((lapses, key.0, key.1));
        Ok(())
    }
}

fn refused(message: &str) -> Refusal {
    Refusal::new(Stage::HandOff, Blame::Peer, Retry::Elsewhere, Code::Forbidden, message)
}

#[cfg(test)]
#[path = "receipts_tests.rs"]
mod tests;
