//! What a job is: its model, its rules, its anchors and its pace.
//!
//! Everything here is public and the same on every node; its digest is the job's name.

use std::collections::BTreeSet;

use selvedge_base::{Micros, NodeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Digest;
use super::canon::Canon;
use super::close::{MAX_FULL_ENTRIES, MAX_STALENESS};
use super::sums::{Guard, GuardError};
use crate::fixed::{Clip, LEVEL_MAX, MAX_DIM};
use crate::privacy::{NOISY_MAX, Privacy, PrivacyError};
use crate::robust::Rule;
use crate::server::Strategy;
use crate::shamir::Scheme;

/// Stores of clients that may ever contribute to one job. The chain holds a number for each.
pub const MAX_CLIENTS: usize = 1_024;
/// Clients of one node that a job may count at most: departments of a clinic or lines of a plant,
/// and what a node holds in memory of each, its data and a copy of the model, fits a small machine.
pub const MAX_PER_NODE: u8 = 16;
/// Rounds of one job: a hundred is common, and a year of hourly rounds has 8,760.
const MAX_ROUNDS: u64 = 10_000;

/// How updates are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// In shares: no anchor sees an update, and as many as the scheme allows together see nothing.
    Secure,
    /// As they are, which every anchor sees: by a job's explicit choice, and for rules that look at
    /// single updates.
    Plain(Rule),
}

/// One anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// Its public key for shares.
    pub key: [u8; 32],
}

/// The anchors from some round on, in the order of their shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committee {
    /// Counts the committees of a job.
    pub epoch: u64,
    /// As many as the scheme has shares.
    pub seats: Vec<Seat>,
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Between two looks at what has to be sent again.
    pub tick: Micros,
    /// How much longer each anchor waits than the one before it, before it proposes.
    pub stagger: Micros,
    /// How long a proposer waits for more promises than it needs.
    pub gather: Micros,
    /// How long a round waits for its target.
    pub patience: Micros,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Tells jobs of the same kind apart.
    pub nonce: u64,
    /// The digest of what rounds do not look at and all must agree on: layers, data, training.
    pub task: Digest,
    /// Weights of the model.
    pub dim: usize,
    /// How far one weight may move in one update.
    pub clip: Clip,
    /// Whether anybody sees updates.
    pub mode: Mode,
    /// How many anchors, and how many of them may collude or be lost.
    pub scheme: Scheme,
    /// The first anchors.
    pub committee: Committee,
    /// Distinct nodes that each sum is of at least, however many clients each has: the floor of
    /// privacy.
    pub min_clients: usize,
    /// Contributions a round waits for, while its patience lasts.
    pub target: usize,
    /// Of a thousand clients so many are asked first to train; see `select`.
    pub sample_permille: u32,
    /// Examples beyond which a client counts no more.
    pub max_examples: u32,
    /// Receipts that make a contribution safe.
    pub receipts: usize,
    /// Rounds until the job is done.
    pub rounds: u64,
    /// What is made of a sum.
    pub strategy: Strategy,
    /// What hides a client in a sum, if something shall. Then all contributions weigh alike.
    pub privacy: Option<Privacy>,
    /// How long things take.
    pub pace: Pace,
    /// Clients of one node that a set holds at most: 1 unless the job says more. The floor counts
    /// nodes all the same, since a node could make clients up. Not in this form's bytes, which were
    /// there before: whoever tells a job tells it beside them.
    #[serde(skip, default = "one")]
    pub per_node: u8,
    /// What secure mode refuses. Beside the bytes as well; jobs of older programs have none.
    #[serde(skip)]
    pub guard: Option<Guard>,
}

/// Clients of one node unless a job says more.
const fn one() -> u8 {
    1
}

/// What is wrong with a job.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JobError {
    /// No model, or too large a one.
    #[error("a model has 1 to {MAX_DIM} weights, not {0}")]
    Dim(usize),
    /// The model is another one.
    #[error("the job's model has {wanted} weights, and this one {found}")]
    Model {
        /// Weights of the model that was given.
        found: usize,
        /// Weights that the job says.
        wanted: usize,
    },
    /// The anchors do not fit the scheme.
    #[error("the scheme needs {wanted} different anchors, not {found}")]
    Anchors {
        /// Different anchors named.
        found: usize,
        /// Anchors of the scheme.
        wanted: usize,
    },
    /// The floor is too low to hide anybody, or too high to be reached.
    #[error("the floor of clients must be 2 to {MAX_CLIENTS}, not {0}")]
    Floor(usize),
    /// Receipts that prove nothing, or that cannot be had.
    #[error("receipts of {least} to {most} anchors are wanted, not of {found}")]
    Receipts {
        /// Receipts asked for.
        found: usize,
        /// A quorum, and enough shares.
        least: usize,
        /// All anchors.
        most: usize,
    },
    /// No round, or too many.
    #[error("a job has 1 to {MAX_ROUNDS} rounds, not {0}")]
    Rounds(u64),
    /// Nobody would be asked, or more than all.
    #[error("of a thousand clients 1 to 1,000 are asked, not {0}")]
    Sample(u32),
    /// Nobody would count.
    #[error("the cap of examples must be at least 1")]
    Cap,
    /// The pace would spin.
    #[error("every time of the pace must be at least a millisecond")]
    Pace,
    /// The rule cannot do with so few updates.
    #[error("the rule {0}; `min_clients` is how many there are")]
    Rule(crate::robust::RuleError),
    /// Nobody of a node would count, or too many.
    #[error("of one node 1 to {MAX_PER_NODE} clients can count, not {0}")]
    PerNode(u8),
    /// One node could outvote the others.
    #[error(
        "of one node a single client can count where the rule is not the mean, or sums are in \
         groups: with several a node that lies would have as many votes"
    )]
    Votes,
    /// The groups of secure sums cannot be.
    #[error("{0}")]
    Guard(#[from] GuardError),
    /// The strategy's numbers are out of range.
    #[error("the strategy {0}")]
    Strategy(crate::server::StrategyError),
    /// Privacy's numbers are out of range, or do not go with the mode.
    #[error("privacy {0}")]
    Privacy(PrivacyError),
}

impl Committee {
    /// The place of a node.
    pub fn place(&self, node: &NodeId) -> Option<usize> {
        self.seats.iter().position(|seat| seat.node == *node)
    }

    pub(super) fn put(&self, canon: Canon) -> Canon {
        canon
            .number(self.epoch)
            .list(self.seats.iter(), |canon, seat| canon.fixed(&seat.node.0).fixed(&seat.key))
    }

    /// Whether these can be anchors of a scheme.
    ///
    /// # Errors
    /// [`JobError::Anchors`].
    pub fn check(&self, scheme: Scheme) -> Result<(), JobError> {
        let nodes: BTreeSet<NodeId> = self.seats.iter().map(|seat| seat.node).collect();
        let keys: BTreeSet<[u8; 32]> = self.seats.iter().map(|seat| seat.key).collect();
        let (found, wanted) = (nodes.len().min(keys.len()), scheme.anchors());
        if found != wanted || self.seats.len() != wanted {
            return Err(JobError::Anchors { found, wanted });
        }
        Ok(())
    }
}

impl Job {
    /// Checks the whole job; nothing else may be called with one that fails.
    ///
    /// # Errors
    /// [`JobError`], the first thing that is wrong.
    pub fn check(&self) -> Result<(), JobError> {
        if self.dim == 0 || self.payload_len() > MAX_DIM {
            return Err(JobError::Dim(self.dim));
        }
        self.committee.check(self.scheme)?;
        if self.min_clients < 2 || self.min_clients > MAX_CLIENTS {
            return Err(JobError::Floor(self.min_clients));
        }
        let (least, most) = (self.gathering(), self.scheme.anchors());
        if !(least..=most).contains(&self.receipts) {
            return Err(JobError::Receipts { found: self.receipts, least, most });
        }
        if self.rounds == 0 || self.rounds > MAX_ROUNDS {
            return Err(JobError::Rounds(self.rounds));
        }
        if !(1..=1_000).contains(&self.sample_permille) {
            return Err(JobError::Sample(self.sample_permille));
        }
        if self.max_examples == 0 {
            return Err(JobError::Cap);
        }
        let Pace { tick, stagger, gather, patience } = self.pace;
        if [tick, stagger, gather, patience].iter().any(|span| *span < Micros::millis(1)) {
            return Err(JobError::Pace);
        }
        if let Mode::Plain(rule) = self.mode {
            rule.check(self.min_clients).map_err(JobError::Rule)?;
        }
        if !(1..=MAX_PER_NODE).contains(&self.per_node) {
            return Err(JobError::PerNode(self.per_node));
        }
        self.check_guard()?;
        let by_weight = matches!(self.mode, Mode::Secure | Mode::Plain(Rule::Mean));
        if self.per_node > 1 && (!by_weight || self.groups() > 1) {
            return Err(JobError::Votes);
        }
        self.strategy.check().map_err(JobError::Strategy)?;
        self.check_privacy().map_err(JobError::Privacy)
    }

    fn check_guard(&self) -> Result<(), JobError> {
        let Some(guard) = self.guard else { return Ok(()) };
        if self.mode != Mode::Secure {
            return Err(GuardError::Plain.into());
        }
        guard.check()?;
        // More of full weight are in no set; with privacy all weigh one.
        let most = if self.privacy.is_some() { MAX_CLIENTS } else { MAX_FULL_ENTRIES };
        if self.floor() > most {
            return Err(GuardError::Floor { found: self.floor(), most }.into());
        }
        Ok(())
    }

    fn check_privacy(&self) -> Result<(), PrivacyError> {
        let Some(privacy) = &self.privacy else { return Ok(()) };
        match self.guard.map(|guard| guard.rule) {
            Some(Rule::MultiKrum { .. }) => return Err(PrivacyError::Krum),
            Some(rule) if privacy.adaptive.is_some() && rule != Rule::Mean => {
                return Err(PrivacyError::Votes);
            }
            Some(_) | None => {}
        }
        match self.mode {
            Mode::Plain(Rule::MultiKrum { .. }) => return Err(PrivacyError::Krum),
            Mode::Plain(_) if privacy.honest != 1 => return Err(PrivacyError::Plain),
            Mode::Plain(rule) if privacy.adaptive.is_some() && rule != Rule::Mean => {
                return Err(PrivacyError::Votes);
            }
            Mode::Plain(_) | Mode::Secure => {}
        }
        privacy.check(self.clip, self.min_clients)
    }

    /// The job's name.
    pub fn digest(&self) -> Digest {
        let canon = Canon::of("selvedge federated job")
            .number(self.nonce)
            .fixed(&self.task)
            .number(self.dim as u64)
            .number(u64::from(self.clip.units()))
            .number(self.scheme.anchors() as u64)
            .number(self.min_clients as u64)
            .number(self.target as u64)
            .number(u64::from(self.sample_permille))
            .number(u64::from(self.max_examples))
            .number(self.receipts as u64)
            .number(self.rounds);
        let canon = match self.mode {
            Mode::Secure => canon.number(0),
            Mode::Plain(rule) => rule.numbers().into_iter().fold(canon.number(1), Canon::number),
        };
        let canon = self.strategy.numbers().into_iter().fold(canon, Canon::number);
        let canon = match &self.privacy {
            None => canon.number(0),
            Some(one) => one.numbers().into_iter().fold(canon.number(1), Canon::number),
        };
        let adaptive = self.privacy.and_then(|privacy| privacy.adaptive);
        // Nothing where there is none, so that jobs keep the names they had.
        let canon = adaptive.iter().fold(canon, |canon, one| {
            canon.number(one.quantile_permille.into()).number(one.rate_permille.into())
        });
        let several = (self.per_node != one()).then_some(self.per_node);
        let canon = several.iter().fold(canon, |canon, most| canon.number((*most).into()));
        let canon = self.guard.iter().fold(canon, |canon, guard| guard.put(canon));
        let Pace { tick, stagger, gather, patience } = self.pace;
        let times = [tick.0, stagger.0, gather.0, patience.0];
        self.committee.put(times.into_iter().fold(canon, Canon::number)).digest()
    }

    /// Values that a client trains: the model's weights, and what the strategy adds to them.
    pub const fn trained_len(&self) -> usize {
        self.strategy.payload_len(self.dim)
    }

    /// Values of one update as it is sent: what is trained, and a vote where a norm follows.
    pub const fn payload_len(&self) -> usize {
        match &self.privacy {
            Some(privacy) => self.trained_len().saturating_add(privacy.more_values()),
            None => self.trained_len(),
        }
    }

    /// Whether updates are shortened to a norm that follows them. Then what missed its round is
    /// void at once: its client passes over its number, and so does the record.
    pub const fn follows_norm(&self) -> bool {
        matches!(&self.privacy, Some(privacy) if privacy.adaptive.is_some())
    }

    /// Rounds a contribution is carried before it expires. None where the norm follows: what was
    /// shortened to another norm would have another noise than the rest of the sum.
    pub const fn max_staleness(&self) -> u64 {
        if self.follows_norm() { 0 } else { MAX_STALENESS }
    }

    /// What single updates, or the means of groups, become one by.
    pub const fn rule(&self) -> Rule {
        match (self.mode, self.guard) {
            (Mode::Plain(rule), _) => rule,
            (Mode::Secure, Some(guard)) => guard.rule,
            (Mode::Secure, None) => Rule::Mean,
        }
    }

    /// Sums that a set is opened in.
    pub const fn groups(&self) -> u8 {
        match self.guard {
            Some(guard) => guard.groups,
            None => 1,
        }
    }

    /// Distinct nodes that a set is of at least: each of its sums has the floor of privacy.
    pub const fn floor(&self) -> usize {
        self.min_clients.saturating_mul(self.groups() as usize)
    }

    /// Elements of one anchor's part of a set's sums.
    pub const fn part_len(&self) -> usize {
        let one = self.scheme.share_len(self.payload_len());
        one.saturating_mul(self.groups() as usize)
    }

    /// The largest level of an update: more than else where noise lies on it.
    pub const fn level_max(&self) -> i32 {
        if self.privacy.is_some() { NOISY_MAX } else { LEVEL_MAX }
    }

    /// A majority of the anchors: what decides.
    pub const fn quorum(&self) -> usize {
        self.scheme.anchors() / 2 + 1
    }

    /// Partial sums from which the sum follows: k shares, or T + 1 equal sums that are open, one of
    /// which no colluder made.
    pub const fn openings(&self) -> usize {
        match self.mode {
            Mode::Secure => self.scheme.threshold(),
            Mode::Plain(_) => self.scheme.colluding() + 1,
        }
    }

    /// Anchors a proposer hears before it proposes: a quorum, and enough to open the sum.
    pub const fn gathering(&self) -> usize {
        let (quorum, openings) = (self.quorum(), self.openings());
        if quorum > openings { quorum } else { openings }
    }
}
