//! The set of a round: which contributions count, with which weights, and which never will.
//!
//! Owns what makes a set good. Everybody checks the same rules: who proposes, who accepts, and who
//! folds.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::NodeId;
use selvedge_base::plant::{self, Plant};
use selvedge_crdt::escrow::Holder;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Digest;
use super::canon::Canon;
use super::job::{Committee, Job, JobError};
use super::tip::Tip;
use crate::fixed::MAX_TOTAL_WEIGHT;

/// Rounds a contribution is carried before it expires.
pub const MAX_STALENESS: u64 = 4;
/// Contributions in one set: as many as clients.
pub const MAX_ENTRIES: usize = super::job::MAX_CLIENTS;
/// Contributions that expire with one set. More wait for the next one.
pub const MAX_EXPIRED: usize = super::job::MAX_CLIENTS;
/// The weight of a fresh contribution with as many examples as count: fine enough to tell a tenth
/// of the examples from a ninth, and 128 full weights fit a round.
const FULL_WEIGHT: u64 = 64;
/// Contributions of full weight that fit a round.
pub(super) const MAX_FULL_ENTRIES: usize = MAX_TOTAL_WEIGHT as usize / FULL_WEIGHT as usize;
/// 1/sqrt(1 + s) for a staleness of s rounds, in 1/1,024.
const STALE: [u64; MAX_STALENESS as usize + 1] = [1_024, 724, 591, 512, 458];

/// One contribution of one client. Its number is bound to one update for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContributionId {
    /// The client: a node with one durable store.
    pub client: Holder,
    /// Counts its contributions, from 1; in the record without gaps, unless the norm follows.
    pub seq: u64,
}

/// What is public about a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Which.
    pub id: ContributionId,
    /// The round it was trained for.
    pub base_round: u64,
    /// Examples it was trained on, as its client says.
    pub examples: u32,
    /// Binds the update without telling it.
    pub commitment: Digest,
    /// The committee it was shared to.
    pub epoch: u64,
    /// The digest of the digests of all its shares.
    pub sharing: Digest,
}

/// A contribution that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub header: Header,
    /// How much; it follows from the header and the round.
    pub weight: u32,
}

/// Why a contribution never counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// It was carried for too long.
    Stale,
    /// The anchors that hold its shares are replaced.
    Reconfigured,
}

/// A contribution that never counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// Which.
    pub id: ContributionId,
    /// The round it was trained for.
    pub base_round: u64,
    /// Why.
    pub why: Why,
}

/// The set of a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The job.
    pub job: Digest,
    /// The round it closes.
    pub round: u64,
    /// The record before.
    pub previous: Digest,
    /// What counts, in order of ids.
    pub entries: Vec<Entry>,
    /// What never will, in order of ids.
    pub expired: Vec<Expired>,
    /// Who the anchors are from the next round on, if others.
    pub next: Option<Committee>,
}

/// Why a set is not good.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseError {
    /// It is of another job, round or history.
    #[error("the set is of another job, round or history")]
    Place,
    /// It is too large.
    #[error("the set has too many entries")]
    Size,
    /// Fewer nodes contributed than a sum must have to hide them.
    #[error("{found} nodes contributed; a sum is opened of {wanted} at least")]
    Floor {
        /// Nodes that contributed.
        found: usize,
        /// Nodes that must.
        wanted: usize,
    },
    /// An entry is out of order or comes twice.
    #[error("the set is not in order, or names a contribution twice")]
    Order,
    /// A node counts as more clients than the job allows.
    #[error("a node counts more often than the job allows")]
    Node,
    /// A contribution does not follow the last one of its client.
    #[error("contribution {} does not follow {} of its client", .id.seq, .last)]
    Sequence {
        /// Which.
        id: ContributionId,
        /// The last one that was folded or expired.
        last: u64,
    },
    /// A contribution is from another round than it may be.
    #[error("a contribution for round {} cannot count or expire so here", .base.saturating_add(1))]
    Age {
        /// The round it was trained for, counted from 0; people count from 1.
        base: u64,
    },
    /// A contribution was shared to other anchors.
    #[error("a contribution was shared to the anchors of another epoch")]
    Epoch,
    /// A weight does not follow from its header, or all together are too much.
    #[error("the weights are not those that follow from the headers")]
    Weight,
    /// Too many clients.
    #[error("there is no room for another client")]
    Clients,
    /// The next anchors cannot be anchors.
    #[error("the next anchors: {0}")]
    Next(JobError),
}

/// The weight of a contribution in a round: by its examples up to the cap, less the longer it was
/// carried, and never nothing. In a job with privacy it is one: noise of others hides a client
/// only as far as they weigh as much, and examples are what is to be hidden.
pub fn weight(job: &Job, header: &Header, round: u64) -> u32 {
    if job.privacy.is_some() {
        return 1;
    }
    let examples = u64::from(header.examples.min(job.max_examples));
    let staleness = round.saturating_sub(header.base_round).min(MAX_STALENESS);
    let share = examples * FULL_WEIGHT * STALE[staleness as usize];
    let whole = u64::from(job.max_examples) * 1_024;
    ((share + whole / 2) / whole).max(1) as u32
}

impl Close {
    /// The digest that anchors sign.
    pub fn digest(&self) -> Digest {
        let canon = Canon::of("selvedge federated close")
            .fixed(&self.job)
            .number(self.round)
            .fixed(&self.previous)
            .list(self.entries.iter(), |canon, entry| {
                entry.header.put(canon).number(u64::from(entry.weight))
            })
            .list(self.expired.iter(), |canon, expired| {
                let why = match expired.why {
                    Why::Stale => 0,
                    Why::Reconfigured => 1,
                };
                expired.id.put(canon).number(expired.base_round).number(why)
            });
        self.next.iter().fold(canon, |canon, next| next.put(canon)).digest()
    }

    /// All weights together.
    pub fn total_weight(&self) -> u32 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.weight))
    }

    /// Different nodes that contributed.
    pub fn nodes(&self) -> usize {
        let nodes: BTreeSet<NodeId> =
            self.entries.iter().map(|entry| entry.header.id.client.node).collect();
        nodes.len()
    }

    /// Whether this set may follow `tip`.
    ///
    /// # Errors
    /// [`CloseError`], the first thing that is wrong.
    pub fn check(&self, job: &Job, tip: &Tip) -> Result<(), CloseError> {
        if self.job != tip.job || self.round != tip.round || self.previous != tip.record {
            return Err(CloseError::Place);
        }
        if self.entries.len() > MAX_ENTRIES || self.expired.len() > MAX_EXPIRED {
            return Err(CloseError::Size);
        }
        let found = self.nodes();
        if found < job.floor() && !plant::is_on(Plant::PrivacyFloorIgnored) {
            return Err(CloseError::Floor { found, wanted: job.floor() });
        }
        let entries = self.entries.iter().map(|entry| entry.header.id);
        let expired = self.expired.iter().map(|expired| expired.id);
        let in_order = entries.clone().is_sorted_by(|a, b| a.client < b.client)
            && expired.clone().is_sorted_by(|a, b| a.client < b.client);
        let clients: BTreeSet<Holder> =
            entries.clone().chain(expired.clone()).map(|id| id.client).collect();
        if !in_order || clients.len() != self.entries.len() + self.expired.len() {
            return Err(CloseError::Order);
        }
        let most = usize::from(job.per_node);
        // In order of clients, so those of a node are beside each other.
        let same_node = |a: &Entry, b: &Entry| a.header.id.client.node == b.header.id.client.node;
        if self.entries.chunk_by(same_node).any(|own| own.len() > most) {
            return Err(CloseError::Node);
        }
        for id in entries.chain(expired) {
            tip.check_next(job, id)?;
        }
        self.check_entries(job, tip)?;
        self.check_expired(job)?;
        let new = clients.iter().filter(|client| !tip.done.contains_key(client)).count();
        if tip.done.len() + new > super::job::MAX_CLIENTS {
            return Err(CloseError::Clients);
        }
        self.next.as_ref().map_or(Ok(()), |next| {
            if tip.committee.epoch.checked_add(1) != Some(next.epoch) {
                return Err(CloseError::Epoch);
            }
            next.check(job.scheme).map_err(CloseError::Next)
        })
    }

    fn check_entries(&self, job: &Job, tip: &Tip) -> Result<(), CloseError> {
        for Entry { header, weight: claimed } in &self.entries {
            let base = header.base_round;
            if base > self.round || self.round - base > job.max_staleness() {
                return Err(CloseError::Age { base });
            }
            if job.follows_norm() && !header.is_one_a_round() {
                let (id, last) = (header.id, tip.last(&header.id.client));
                return Err(CloseError::Sequence { id, last });
            }
            if header.epoch != tip.committee.epoch {
                return Err(CloseError::Epoch);
            }
            if *claimed != weight(job, header, self.round) {
                return Err(CloseError::Weight);
            }
        }
        if self.total_weight() > MAX_TOTAL_WEIGHT {
            return Err(CloseError::Weight);
        }
        Ok(())
    }

    fn check_expired(&self, job: &Job) -> Result<(), CloseError> {
        for Expired { base_round, why, .. } in &self.expired {
            // Where the norm follows, what is void is void without a word.
            let is_so = !job.follows_norm()
                && match why {
                    Why::Stale => base_round.saturating_add(job.max_staleness()) < self.round,
                    Why::Reconfigured => self.next.is_some(),
                };
            if !is_so {
                return Err(CloseError::Age { base: *base_round });
            }
        }
        Ok(())
    }

    /// The set that follows from what anchors said they hold: what all of them hold counts, the
    /// oldest first, as far as the weights go; what any of them holds and is too old expires.
    pub fn gathered(job: &Job, tip: &Tip, held: &[&[Header]], next: Option<Committee>) -> Self {
        let mut holders: BTreeMap<ContributionId, (Header, usize)> = BTreeMap::new();
        for (before, headers) in held.iter().enumerate() {
            for header in *headers {
                let (first, count) = holders.entry(header.id).or_insert((*header, 0));
                // Only what all anchors so far hold is counted on, and once for each.
                *count += usize::from(first == header && *count == before);
            }
        }
        holders.retain(|id, _| tip.check_next(job, *id).is_ok());
        let may_count = |(header, count): &&(Header, usize)| {
            *count == held.len()
                && header.epoch == tip.committee.epoch
                && header.base_round <= tip.round
                && tip.round - header.base_round <= job.max_staleness()
                && (!job.follows_norm() || header.is_one_a_round())
        };
        let mut counting: Vec<Header> =
            holders.values().filter(may_count).map(|(header, _)| *header).collect();
        counting.sort_by_key(|header| {
            // Among those of one age by lot, which is another one each round.
            let lot = header.id.put(Canon::of("selvedge federated lot").fixed(&tip.record));
            (header.base_round, lot.digest())
        });
        let mut entries = chosen(job, tip, &counting);
        entries.sort_by_key(|entry| entry.header.id);
        let counts: BTreeSet<Holder> = entries.iter().map(|entry| entry.header.id.client).collect();
        let expires = |(id, (header, _)): (&ContributionId, &(Header, usize))| {
            let is_stale = header.base_round.saturating_add(job.max_staleness()) < tip.round;
            let why = if is_stale { Why::Stale } else { Why::Reconfigured };
            let is_told = !job.follows_norm() && !counts.contains(&id.client);
            let expires = is_told && (is_stale || next.is_some());
            let expired = Expired { id: *id, base_round: header.base_round, why };
            expires.then_some(expired)
        };
        let expired = holders.iter().filter_map(expires).take(MAX_EXPIRED).collect();
        Self { job: tip.job, round: tip.round, previous: tip.record, entries, expired, next }
    }
}

/// What counts of contributions in the order in which they come, as far as the weights go: of each
/// node one, then of each a second one as far as the job allows. So whoever has many clients takes
/// no place from a node that has one.
fn chosen(job: &Job, tip: &Tip, counting: &[Header]) -> Vec<Entry> {
    let mut total = 0;
    let mut entries: Vec<Entry> = Vec::new();
    // A node that lost its store is another client; in one sum it has no more places for it, or it
    // could outvote the others with stores made for it.
    let mut nodes: BTreeMap<NodeId, u8> = BTreeMap::new();
    let mut clients: BTreeSet<Holder> = BTreeSet::new();
    for most in 1..=job.per_node {
        for header in counting {
            let (client, weight) = (header.id.client, weight(job, header, tip.round));
            let own = nodes.get(&client.node).copied().unwrap_or(0);
            let fits = entries.len() < MAX_ENTRIES && total + weight <= MAX_TOTAL_WEIGHT;
            if fits && own < most && clients.insert(client) {
                total += weight;
                nodes.insert(client.node, own + 1);
                entries.push(Entry { header: *header, weight });
            }
        }
    }
    entries
}

impl ContributionId {
    pub(super) fn put(&self, canon: Canon) -> Canon {
        canon.holder(&self.client).number(self.seq)
    }
}

impl Header {
    /// Whether it may still count, or expire, after the round that led to this tip.
    pub fn goes_on(&self, job: &Job, tip: &Tip) -> bool {
        let is_void = job.follows_norm() && self.base_round < tip.round;
        tip.last(&self.id.client) < self.id.seq && self.epoch == tip.committee.epoch && !is_void
    }

    /// Whether its number is one that a client comes to which contributes once a round.
    pub(super) const fn is_one_a_round(&self) -> bool {
        self.id.seq <= self.base_round.saturating_add(1)
    }

    pub(super) fn put(&self, canon: Canon) -> Canon {
        self.id
            .put(canon)
            .number(self.base_round)
            .number(u64::from(self.examples))
            .fixed(&self.commitment)
            .number(self.epoch)
            .fixed(&self.sharing)
    }
}
