//! What anchors sign: receipts, and that they accepted a set.

use std::collections::BTreeSet;

use selvedge_base::NodeId;
use selvedge_base::plant::{self, Plant};
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::Seal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Digest;
use super::canon::Canon;
use super::close::{Close, CloseError, ContributionId, Header};
use super::job::Job;
use super::tip::Tip;

/// Whose turn it is to propose; the greater one wins, and no two proposers have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts the attempts of a round, from 1.
    pub number: u64,
    /// Who proposes.
    pub by: NodeId,
}

/// An anchor has a contribution, durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which contribution.
    pub id: ContributionId,
    /// In which committee.
    pub epoch: u64,
    /// Which update.
    pub commitment: Digest,
    /// Which sharing of it.
    pub sharing: Digest,
    /// The anchor.
    pub anchor: NodeId,
    /// Its signature.
    pub signature: Signature,
}

/// An anchor accepted a set, durably.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAccept {
    /// The round.
    pub round: u64,
    /// In which turn.
    pub ballot: Ballot,
    /// The digest of the set.
    pub close: Digest,
    /// The anchor.
    pub anchor: NodeId,
    /// Its signature.
    pub signature: Signature,
}

/// A quorum accepted a set in one turn: it is closed for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The set.
    pub close: Close,
    /// The turn.
    pub ballot: Ballot,
    /// Who accepted it, with the signatures; at most one of each anchor.
    pub accepts: Vec<(NodeId, Signature)>,
}

/// Why a certificate is not good.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// The set is not.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// It is not of a quorum of this round's anchors.
    #[error("{found} anchors accepted the set; {wanted} must")]
    Quorum {
        /// Different anchors.
        found: usize,
        /// A quorum.
        wanted: usize,
    },
    /// A signature does not fit.
    #[error("{} did not sign that it accepted the set", .0.short())]
    Signature(NodeId),
}

impl Receipt {
    /// An anchor's receipt.
    pub fn sign(job: &Digest, header: &Header, anchor: NodeId, seal: &dyn Seal) -> Self {
        let Header { id, epoch, commitment, sharing, .. } = *header;
        let mut receipt =
            Self { id, epoch, commitment, sharing, anchor, signature: Signature([0; 32], [0; 32]) };
        receipt.signature = seal.sign(&receipt.bytes(job));
        receipt
    }

    /// Whether it is of this contribution as it was shared last, whoever wrote it.
    pub fn names(&self, header: &Header) -> bool {
        let Header { id, epoch, commitment, sharing, .. } = *header;
        (self.id, self.epoch, self.commitment, self.sharing) == (id, epoch, commitment, sharing)
    }

    /// Whether it is a receipt for this contribution, signed by its anchor.
    pub fn is_for(&self, job: &Digest, header: &Header, seal: &dyn Seal) -> bool {
        self.names(header) && seal.is_signed(&self.anchor, &self.bytes(job), &self.signature)
    }

    fn bytes(&self, job: &Digest) -> Vec<u8> {
        let canon = Canon::of("selvedge federated receipt").fixed(job);
        let canon = self.id.put(canon).number(self.epoch);
        canon.fixed(&self.commitment).fixed(&self.sharing).bytes()
    }
}

impl SignedAccept {
    /// An anchor's word that it accepted a set.
    pub fn sign(
        job: &Digest,
        round: u64,
        ballot: Ballot,
        close: Digest,
        anchor: NodeId,
        seal: &dyn Seal,
    ) -> Self {
        let signature = seal.sign(&accept_bytes(job, round, &ballot, &close));
        Self { round, ballot, close, anchor, signature }
    }

    /// Whether its anchor signed it.
    pub fn is_signed(&self, job: &Digest, seal: &dyn Seal) -> bool {
        let bytes = accept_bytes(job, self.round, &self.ballot, &self.close);
        seal.is_signed(&self.anchor, &bytes, &self.signature)
    }
}

impl Certificate {
    /// Whether a quorum of the anchors after `tip` accepted this set.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn check(&self, job: &Job, tip: &Tip, seal: &dyn Seal) -> Result<(), CertificateError> {
        self.close.check(job, tip)?;
        let anchors: BTreeSet<NodeId> = self
            .accepts
            .iter()
            .map(|(anchor, _)| *anchor)
            .filter(|anchor| tip.committee.place(anchor).is_some())
            .collect();
        let wanted = if plant::is_on(Plant::MinorityCloses) { 1 } else { job.quorum() };
        if anchors.len() != self.accepts.len() || anchors.len() < wanted {
            return Err(CertificateError::Quorum { found: anchors.len(), wanted });
        }
        let bytes = accept_bytes(&tip.job, self.close.round, &self.ballot, &self.close.digest());
        let forged = self
            .accepts
            .iter()
            .find(|(anchor, signature)| !seal.is_signed(anchor, &bytes, signature));
        forged.map_or(Ok(()), |(anchor, _)| Err(CertificateError::Signature(*anchor)))
    }
}

fn accept_bytes(job: &Digest, round: u64, ballot: &Ballot, close: &Digest) -> Vec<u8> {
    Canon::of("selvedge federated accept")
        .fixed(job)
        .number(round)
        .number(ballot.number)
        .fixed(&ballot.by.0)
        .fixed(close)
        .bytes()
}
