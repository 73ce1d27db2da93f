//! Where a model comes from, proven by what is in two files.
//!
//! Owns the walk along a chain: the job's first weights are drawn again, every round is folded
//! again with all its signatures, and the end is compared with the model, bit for bit. Nothing is
//! asked of a node, and no key of this one is used.
//!
//! What this does not prove. That the job is the one that somebody means: its digest says which it
//! is, and names no person; what people call it and where it was submitted are not in the digest.
//! That the nodes with the keys of the job's anchors are whoever they should be. That no quorum of
//! anchors lied together: they are trusted to stop rather than to sign two sets in one turn
//! (docs/decisions/0031-federated-rounds.md), and each later set of anchors is named by the one
//! before. That none lied about a sum of which no more parts were shown than tell it: such rounds
//! are counted (docs/decisions/0064-parts-that-agree.md). That clients trained on what they say.
//! That this is the last model of the job: a chain may end early, and says so.

use std::collections::BTreeMap;
use std::io::Read;

use selvedge_base::NodeId;
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::Seal;
use selvedge_federated::round::{
    Committee, ContributionId, Digest, Entry, Expired, FoldError, Folded, Header, Job, Mode, Tip,
    Why,
};
use selvedge_proto::seal::is_signed;
use thiserror::Error;

use super::chain::{ChainError, ChainReader};
use super::disk::hex;
use super::task::{Announced, AnnouncedError};
use super::trained::{TrainedModel, weight};

/// What is proven of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The job, as the chain has it. Its `by` is nobody's word: the job's digest leaves it out.
    pub told: Announced,
    /// The end of the chain: rounds, record, model, and what was counted or expired of whom.
    pub tip: Tip,
    /// The anchors, with the round that each set of them began in.
    pub anchors: Vec<(u64, Vec<NodeId>)>,
    /// Contributions that count in the model, by node.
    pub counted: BTreeMap<NodeId, u64>,
    /// Contributions that never will.
    pub expired: u64,
    /// Contributions that were in a set and are left out of the model, by node, since what they
    /// add up to no honest updates make. Who lies is among them every time, others by chance.
    pub left_out: BTreeMap<NodeId, u64>,
    /// Rounds whose secure sum is of as many parts as tell it and no more: nothing in this chain
    /// checks those parts. A chain of another node may have one more.
    pub unchecked: u64,
}

/// What the chain says of one contribution; it says so once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The round that it is recorded in, counted from 0.
    pub round: u64,
    /// Which.
    pub id: ContributionId,
    /// The round that it was trained for.
    pub base_round: u64,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It counts in the sum of its round, with this weight.
    Counts(u32),
    /// It was in the set of its round and is left out of the model with its group.
    LeftOut,
    /// It never will count.
    Expired(Why),
}

/// Why a model is not proven: the first thing that is wrong.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The chain cannot be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The job's beginning cannot be made here.
    #[error("the job of the chain: {0}")]
    Job(#[from] AnnouncedError),
    /// The chain is of another job.
    #[error(
        "the model says that it is of job {} and the chain is of job {}", hex(.model), hex(.chain)
    )]
    OtherJob {
        /// What the model says.
        model: Digest,
        /// What the chain has.
        chain: Digest,
    },
    /// A round does not follow. People count from 1.
    #[error("round {} does not follow from what is before it: {}", .round.saturating_add(1), .why)]
    Round {
        /// The round, counted from 0.
        round: u64,
        /// Why not.
        why: FoldError,
    },
    /// The chain ends elsewhere.
    #[error("the model says that {model} rounds are in it and the chain has {chain}")]
    Rounds {
        /// What the model says.
        model: u64,
        /// What the chain has.
        chain: u64,
    },
    /// The model has another record.
    #[error(
        "the model says that it comes after record {} and the chain ends with {}", hex(.model),
        hex(.chain)
    )]
    Record {
        /// What the model says.
        model: Digest,
        /// What the chain ends with.
        chain: Digest,
    },
    /// The model has other layers.
    #[error("the model has other layers than the job says, or is tuned otherwise")]
    Layers,
    /// The model has another weight.
    #[error("weight {at} of the model is {model}, and the chain ends with {chain}")]
    Weight {
        /// Where, in the flat order.
        at: usize,
        /// What the model has.
        model: f32,
        /// What the chain ends with.
        chain: f32,
    },
}

/// Proves that a model is what the rounds of a chain make of the first weights of its job. Reads to
/// the end of the chain; the work is that of the job's nodes without the training.
///
/// # Errors
/// [`VerifyError`], the first thing that is wrong.
pub fn verify_model(model: &TrainedModel, chain: impl Read) -> Result<Verified, VerifyError> {
    verify_each(model, chain, &mut |_| {})
}

/// The same, and tells what becomes of each contribution, as far as the rounds follow: round by
/// round, in order of clients, and what expired after what counts.
///
/// # Errors
/// [`VerifyError`], the first thing that is wrong; then nothing that was told is proven.
pub fn verify_each(
    model: &TrainedModel,
    chain: impl Read,
    tell: &mut dyn FnMut(Settled),
) -> Result<Verified, VerifyError> {
    let chain = ChainReader::open(chain)?;
    let (told, job) = (chain.told(), chain.told().job.digest());
    if model.job != job {
        return Err(VerifyError::OtherJob { model: model.job, chain: job });
    }
    if model.subject != told.task.subject {
        return Err(VerifyError::Layers);
    }
    let verified = fold_all(chain, tell)?;
    compare(model, &verified.tip)?;
    Ok(verified)
}

/// What the rounds of a chain make of the first weights of its job.
///
/// # Errors
/// [`VerifyError`], the first thing that is wrong.
pub fn verify_chain(chain: impl Read) -> Result<Verified, VerifyError> {
    fold_all(ChainReader::open(chain)?, &mut |_| {})
}

fn fold_all(
    mut chain: ChainReader<impl Read>,
    tell: &mut dyn FnMut(Settled),
) -> Result<Verified, VerifyError> {
    let told = chain.told().clone();
    let mut tip = told.first()?;
    let mut anchors = vec![(0, nodes(&tip.committee))];
    let mut counted: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut left_out: BTreeMap<NodeId, u64> = BTreeMap::new();
    let (mut expired, mut unchecked) = (0, 0);
    while let Some(folded) = chain.round()? {
        let round = tip.round;
        let next = tip.fold_telling(&told.job, &folded, &Reader);
        let (next, refused) = next.map_err(|why| VerifyError::Round { round, why })?;
        tip = next;
        let close = &folded.certificate.close;
        unchecked += u64::from(is_unchecked(&told.job, &folded));
        for Entry { header, weight } in &close.entries {
            let Header { id, base_round, .. } = *header;
            let is_out = refused.contains(&id);
            let of = if is_out { &mut left_out } else { &mut counted };
            *of.entry(id.client.node).or_default() += 1;
            let fate = if is_out { Fate::LeftOut } else { Fate::Counts(*weight) };
            tell(Settled { round, id, base_round, fate });
        }
        for Expired { id, base_round, why } in close.expired.iter().copied() {
            expired += 1;
            tell(Settled { round, id, base_round, fate: Fate::Expired(why) });
        }
        if close.next.is_some() {
            anchors.push((tip.round, nodes(&tip.committee)));
        }
    }
    Ok(Verified { told, tip, anchors, counted, expired, left_out, unchecked })
}

/// Whether a sum could be another one if an anchor had shown another part. In the open the fewest
/// that tell it have agreed.
fn is_unchecked(job: &Job, folded: &Folded) -> bool {
    let is_secure = matches!(job.mode, Mode::Secure);
    let is_of_some = !folded.certificate.close.entries.is_empty();
    is_secure && is_of_some && folded.openings.len() <= job.openings()
}

fn compare(model: &TrainedModel, tip: &Tip) -> Result<(), VerifyError> {
    if model.round != tip.round {
        return Err(VerifyError::Rounds { model: model.round, chain: tip.round });
    }
    if model.record != tip.record {
        return Err(VerifyError::Record { model: model.record, chain: tip.record });
    }
    let units = tip.server.model();
    // As many as the layers have, both: the file's by its reader, the chain's by the job's check.
    if model.weights.len() != units.len() {
        return Err(VerifyError::Layers);
    }
    for (at, (&model, units)) in model.weights.iter().zip(units).enumerate() {
        let chain = weight(*units);
        // The bits: 0 and -0 are two weights.
        if model.to_bits() != chain.to_bits() {
            return Err(VerifyError::Weight { at, model, chain });
        }
    }
    Ok(())
}

fn nodes(committee: &Committee) -> Vec<NodeId> {
    committee.seats.iter().map(|seat| seat.node).collect()
}

/// Checks the signatures of others and has no key.
struct Reader;

impl Seal for Reader {
    /// Nobody's signature: folding signs nothing.
    fn sign(&self, _: &[u8]) -> Signature {
        Signature([0; 32], [0; 32])
    }

    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
        is_signed(signer, bytes, signature)
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
