//! The end of the chain of records, and how the next one follows from a closed set and its sum.
//!
//! Whoever has the certificate and enough partial sums computes the same next tip, byte for byte:
//! all of it is integers, and sums do not depend on their order.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::NodeId;
use selvedge_base::plant::{self, Plant};
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::{Holder, Seal};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Digest;
use super::canon::Canon;
use super::certificate::{Certificate, CertificateError};
use super::close::{CloseError, ContributionId};
use super::job::{Committee, Job, JobError, Mode};
use super::sums::summed;
use crate::field::Fp;
use crate::privacy::accountant::MicroEpsilon;
use crate::robust::Aggregate;
use crate::server::Server;
use crate::shamir::ShareError;

/// What an anchor shows of a closed set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Partial {
    /// Its share of the weighted sum; of several, one behind the other.
    Shares(Vec<Fp>),
    /// All of what the rule makes of the updates, which it saw.
    Open(Aggregate),
}

impl Partial {
    /// Bytes it takes on a stream, about.
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Shares(share) => 5 * share.len(),
            Self::Open(aggregate) => 5 * aggregate.sum.len(),
        }
    }

    /// Whether it can be a part of a sum of this job.
    pub(super) fn fits(&self, job: &Job) -> bool {
        match (job.mode, self) {
            (Mode::Secure, Self::Shares(share)) => share.len() == job.part_len(),
            (Mode::Plain(_), Self::Open(aggregate)) => aggregate.is_within(job),
            (Mode::Secure, Self::Open(_)) | (Mode::Plain(_), Self::Shares(_)) => false,
        }
    }
}

/// A part of the sum of a closed set, signed by its anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The round.
    pub round: u64,
    /// The digest of the set.
    pub close: Digest,
    /// Whose part.
    pub anchor: NodeId,
    /// The part.
    pub partial: Partial,
    /// The anchor's signature.
    pub signature: Signature,
}

/// A round that is over: with more parts than tell its sum it proves by itself what follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// The closed set.
    pub certificate: Certificate,
    /// Enough parts of its sum.
    pub openings: Vec<Opening>,
}

/// All that one round hands to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// The job.
    pub job: Digest,
    /// Rounds that are over; also the number of the one that is next.
    pub round: u64,
    /// The digest of the last record, which holds that of the one before.
    pub record: Digest,
    /// The anchors of the next round.
    pub committee: Committee,
    /// Of every client, the last contribution that was folded or expired. At most
    /// [`super::MAX_CLIENTS`].
    pub done: BTreeMap<Holder, u64>,
    /// The model and what its strategy remembers.
    pub server: Server,
    /// What updates of the next round are shortened to, in units of 2^-20; 0 without privacy.
    pub norm: u32,
}

/// Why a round is not over.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FoldError {
    /// The set is not closed.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A part is of another set, or its anchor is none of this round or did not sign it.
    #[error("the part of {} does not belong to the set", .0.short())]
    Opening(NodeId),
    /// There are not enough parts, or they do not fit together.
    #[error(transparent)]
    Shares(#[from] ShareError),
    /// Open sums are not equal, or not enough.
    #[error("fewer than {0} open sums are equal")]
    Unequal(usize),
}

impl Tip {
    /// The beginning of a job whose model is this, in units of 2^-20.
    ///
    /// # Errors
    /// [`JobError::Model`] for a model of another size than the job says.
    pub fn first(job: &Job, model: Vec<i32>) -> Result<Self, JobError> {
        if model.len() != job.dim {
            return Err(JobError::Model { found: model.len(), wanted: job.dim });
        }
        let server = Server::new(job.strategy, model);
        let name = job.digest();
        let record =
            Canon::of("selvedge federated first").fixed(&name).fixed(&server.digest()).digest();
        let committee = job.committee.clone();
        let norm = job.privacy.map_or(0, |privacy| privacy.norm);
        Ok(Self { job: name, round: 0, record, committee, done: BTreeMap::new(), server, norm })
    }

    /// The last contribution of a client that was folded or expired; 0 for none.
    pub fn last(&self, client: &Holder) -> u64 {
        self.done.get(client).copied().unwrap_or(0)
    }

    /// Contributions of a node that were folded or expired, under whatever stores: what its data
    /// have spent on this job at least.
    pub fn contributions(&self, node: &NodeId) -> u64 {
        self.contributions_but(node, &BTreeSet::new())
    }

    /// The same without those of some of its clients. What is left is one client's, or another
    /// store's, of which nobody knows whose data it was: it counts for each of the node's clients.
    pub fn contributions_but(&self, node: &NodeId, others: &BTreeSet<Holder>) -> u64 {
        let own = self.done.iter().filter(|(client, _)| client.node == *node);
        let own = own.filter(|(client, _)| !others.contains(client));
        own.fold(0, |sum, (_, last)| sum.saturating_add(*last))
    }

    /// What a node has spent on this job, as far as the record tells; nothing without privacy.
    pub fn spent(&self, job: &Job, node: &NodeId) -> MicroEpsilon {
        let contributions = self.contributions(node);
        job.privacy.map_or(MicroEpsilon(0), |privacy| privacy.spent(contributions))
    }

    /// Whether a contribution is the one that must follow, or one that may.
    ///
    /// # Errors
    /// [`CloseError::Sequence`].
    pub fn check_next(&self, job: &Job, id: ContributionId) -> Result<(), CloseError> {
        let last = self.last(&id.client);
        let passes_over = job.follows_norm() && id.seq > last;
        if last.checked_add(1) != Some(id.seq) && !passes_over {
            return Err(CloseError::Sequence { id, last });
        }
        Ok(())
    }

    /// The tip after a round, if what is given proves it.
    ///
    /// # Errors
    /// [`FoldError`].
    pub fn fold(&self, job: &Job, folded: &Folded, seal: &dyn Seal) -> Result<Self, FoldError> {
        self.fold_telling(job, folded, seal).map(|(tip, _)| tip)
    }

    /// The same, and which contributions of the set are left out of the model since what their
    /// group adds up to no honest updates make.
    ///
    /// # Errors
    /// [`FoldError`].
    pub fn fold_telling(
        &self,
        job: &Job,
        folded: &Folded,
        seal: &dyn Seal,
    ) -> Result<(Self, Vec<ContributionId>), FoldError> {
        let Folded { certificate, openings } = folded;
        certificate.check(job, self, seal)?;
        let close = certificate.close.digest();
        let mut anchors = BTreeSet::new();
        for opening in openings {
            let is_good = opening.close == close
                && self.committee.place(&opening.anchor).is_some()
                && anchors.insert(opening.anchor)
                && opening.partial.fits(job)
                && opening.is_signed(&self.job, seal);
            if !is_good {
                return Err(FoldError::Opening(opening.anchor));
            }
        }
        let summed = summed(self, job, folded)?;
        Ok((self.after(job, folded, &summed.aggregate), summed.left_out))
    }

    fn after(&self, job: &Job, folded: &Folded, aggregate: &Aggregate) -> Self {
        let close = &folded.certificate.close;
        let mut next = self.clone();
        next.round += 1;
        let privacy = job.privacy.map(|privacy| privacy.at(self.norm));
        // Where all of a set is left out, moments do not move either.
        let counts = aggregate.weight > 0;
        let following = privacy.filter(|_| job.follows_norm());
        let voted = following.filter(|_| counts).zip(aggregate.sum.split_last());
        if let Some((privacy, (votes, sum))) = voted {
            next.norm = privacy.next_norm(job.clip, *votes, aggregate.clients);
            next.server.apply(job.clip, &Aggregate { sum: sum.to_vec(), ..*aggregate });
        } else if counts {
            next.server.apply(job.clip, aggregate);
        }
        let counted = close.entries.iter().map(|entry| entry.header.id);
        for id in counted.chain(close.expired.iter().map(|expired| expired.id)) {
            if !plant::is_on(Plant::FoldedUnnumbered) {
                next.done.insert(id.client, id.seq);
            }
        }
        if let Some(committee) = &close.next {
            next.committee = committee.clone();
        }
        let canon = Canon::of("selvedge federated record")
            .fixed(&self.record)
            .fixed(&close.digest())
            .fixed(&aggregate.digest())
            .fixed(&next.server.digest())
            .list(next.done.iter(), |canon, (client, seq)| canon.holder(client).number(*seq));
        let canon = following.iter().fold(canon, |canon, _| canon.number(next.norm.into()));
        next.record = next.committee.put(canon).digest();
        next
    }
}

impl Opening {
    /// An anchor's part of a closed set.
    pub fn sign(
        job: &Digest,
        round: u64,
        close: Digest,
        anchor: NodeId,
        partial: Partial,
        seal: &dyn Seal,
    ) -> Self {
        let signature = Signature([0; 32], [0; 32]);
        let mut opening = Self { round, close, anchor, partial, signature };
        opening.signature = seal.sign(&opening.bytes(job));
        opening
    }

    /// Whether its anchor signed it.
    pub fn is_signed(&self, job: &Digest, seal: &dyn Seal) -> bool {
        seal.is_signed(&self.anchor, &self.bytes(job), &self.signature)
    }

    fn bytes(&self, job: &Digest) -> Vec<u8> {
        let contents = match &self.partial {
            Partial::Shares(share) => Canon::of("selvedge federated shares")
                .numbers(share.iter().map(|element| u64::from(element.residue())))
                .digest(),
            Partial::Open(aggregate) => aggregate.digest(),
        };
        Canon::of("selvedge federated opening")
            .fixed(job)
            .number(self.round)
            .fixed(&self.close)
            .fixed(&contents)
            .bytes()
    }
}
