//! What a node has spent of its privacy: written down before anything leaves.
//!
//! A node's data are its own, so nobody else can spend on them, and one row on its own disk bounds
//! all jobs, re-runs and sides of a partition together. A contribution that is to leave is asked
//! for by its commitment, which names its very bytes: the same again costs nothing, anything else
//! costs, also under a number that was granted before. Owns the row; the cap is the operator's, and
//! a node with several sources of data has a ledger for each. Without a cap the bound is what the
//! job that asks promises, for all that the data ever gave to any job: a job that is run again
//! pays from the same purse. Jobs without privacy never ask: whoever runs jobs gives a source with
//! a cap to none of them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use selvedge_base::plant::{self, Plant};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::accountant::{MicroEpsilon, PicoDelta, Rho};
use super::{MAX_DELTA, PrivacyError};
use crate::round::Digest;

/// Jobs that a ledger tells apart. A further one takes the place of another, which then costs again
/// what it had cost: forgetting never lowers what is spent.
const MAX_JOBS: usize = 1_024;
/// Answers that wait for the disk, as many as jobs. Whoever finds no room asks again.
const MAX_WAITING: usize = MAX_JOBS;
/// At which delta what was spent is told where data have no cap: 10^-5, which most papers use.
const USUAL_DELTA: PicoDelta = PicoDelta(10_000_000);

/// A bound of all jobs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    /// Not more than this.
    pub epsilon: MicroEpsilon,
    /// At this chance that the promise does not hold.
    pub delta: PicoDelta,
}

/// A contribution that is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spend {
    /// Of which job.
    pub job: Digest,
    /// What names its very bytes.
    pub commitment: Digest,
    /// What one contribution of the job costs.
    pub cost: Rho,
    /// What the job promises to a client. It binds data that have no cap: with all that they gave
    /// to other jobs before.
    pub promised: Cap,
    /// Contributions of this node that the job's record knows of, under whatever stores: what a
    /// ledger from an older disk does not know of is spent all the same.
    pub known: u64,
}

/// What was spent on one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Contributions.
    pub contributions: u64,
    /// The last one.
    pub last: Option<Digest>,
}

/// What a ledger has on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStored {
    /// All that was ever spent; never less than before.
    pub spent: Rho,
    /// By job; at most [`MAX_JOBS`].
    pub jobs: BTreeMap<Digest, Spent>,
}

/// A write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerChange {
    /// Of which job.
    pub job: Digest,
    /// What the job has then.
    pub now: Spent,
    /// What is spent beyond what was.
    pub more: Rho,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum LedgerInput {
    /// A contribution wants to leave.
    Asked(Spend),
    /// A write is durable.
    Stored {
        /// Its number.
        write: u64,
    },
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerEffect {
    /// Make this durable, after what was ordered before; answer with its number.
    Store {
        /// Its number, from 1.
        write: u64,
        /// What.
        change: LedgerChange,
    },
    /// This contribution may leave.
    Granted {
        /// Of which job.
        job: Digest,
        /// Which.
        commitment: Digest,
    },
    /// It may not.
    Denied {
        /// Of which job.
        job: Digest,
        /// Which.
        commitment: Digest,
        /// Why.
        why: Overspent,
    },
}

/// Whose bound it is that leaves no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The cap of the data.
    Data,
    /// What the job promises: the data have no cap.
    Job,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "take part with other data, or raise the cap of this source",
            Self::Job => {
                "the data have no cap, so what they gave to all jobs counts against what this job \
                 promises; `epsilon = N` in their [[data]] table is a cap that all jobs share"
            }
        })
    }
}

/// Why a contribution may not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the data's privacy is used up: with this contribution epsilon would be {epsilon} of {cap}; \
     {whose}"
)]
pub struct Overspent {
    /// What would be spent.
    pub epsilon: MicroEpsilon,
    /// What may be.
    pub cap: MicroEpsilon,
    /// Who says so.
    pub whose: Bound,
}

/// The machine of one source of data.
#[derive(Debug)]
pub struct Ledger {
    cap: Option<Cap>,
    stored: LedgerStored,
    ordered: u64,
    durable: u64,
    waiting: VecDeque<(u64, Digest, Digest)>,
}

impl Cap {
    /// Whether it can be a cap: with no delta there is no epsilon.
    ///
    /// # Errors
    /// [`PrivacyError::Delta`].
    pub fn check(&self) -> Result<(), PrivacyError> {
        if self.delta.0 == 0 || self.delta > MAX_DELTA {
            return Err(PrivacyError::Delta(self.delta));
        }
        Ok(())
    }
}

impl LedgerStored {
    /// What a write changes.
    pub fn apply(&mut self, change: &LedgerChange) {
        self.spent = self.spent.plus(change.more);
        self.jobs.insert(change.job, change.now);
        if self.jobs.len() > MAX_JOBS
            && let Some(first) = self.jobs.keys().find(|job| **job != change.job).copied()
        {
            self.jobs.remove(&first);
        }
    }
}

impl Ledger {
    /// A ledger as its disk has it; `cap`, if there is one, has passed its check.
    pub const fn new(cap: Option<Cap>, stored: LedgerStored) -> Self {
        Self { cap, stored, ordered: 0, durable: 0, waiting: VecDeque::new() }
    }

    /// What is spent, or will be once it is durable.
    pub const fn stored(&self) -> &LedgerStored {
        &self.stored
    }

    /// All that was spent, as the cap counts it.
    pub fn epsilon(&self) -> MicroEpsilon {
        match self.stored.spent {
            Rho(0) => MicroEpsilon(0),
            spent => spent.epsilon(self.cap.map_or(USUAL_DELTA, |cap| cap.delta)),
        }
    }

    /// Whether one more contribution of such a cost may leave, to a job that promises this.
    pub fn affords(&self, cost: Rho, promised: Cap) -> bool {
        let (bound, _) = self.bound(promised);
        self.after(cost, bound.delta) <= bound.epsilon
    }

    /// How many more contributions of such a cost may leave, to a job that promises this.
    pub fn left(&self, cost: Rho, promised: Cap) -> u64 {
        let (bound, _) = self.bound(promised);
        cost.fits_beside(self.stored.spent, bound.epsilon, bound.delta)
    }

    /// What a job that promises this is held to, and who says so.
    fn bound(&self, promised: Cap) -> (Cap, Bound) {
        self.cap.map_or((promised, Bound::Job), |cap| (cap, Bound::Data))
    }

    /// What would be spent with one more contribution, at such a delta.
    fn after(&self, cost: Rho, delta: PicoDelta) -> MicroEpsilon {
        self.stored.spent.plus(cost).epsilon(delta)
    }

    /// Takes what happened.
    pub fn step(&mut self, input: LedgerInput, effects: &mut Vec<LedgerEffect>) {
        match input {
            LedgerInput::Asked(spend) => self.asked(spend, effects),
            LedgerInput::Stored { write } => {
                self.durable = self.durable.max(write.min(self.ordered));
                self.answer(effects);
            }
        }
    }

    fn asked(&mut self, spend: Spend, effects: &mut Vec<LedgerEffect>) {
        let Spend { job, commitment, cost, promised, known } = spend;
        let before = self.stored.jobs.get(&job).copied().unwrap_or_default();
        if before.last == Some(commitment) {
            return self.grant(job, commitment, effects);
        }
        // What the record knows and this disk does not was spent.
        let missed = known.saturating_sub(before.contributions);
        if missed > 0 {
            let now = Spent { contributions: known, ..before };
            self.store(LedgerChange { job, now, more: cost.times(missed) }, effects);
        }
        let (bound, whose) = self.bound(promised);
        let epsilon = self.after(cost, bound.delta);
        if epsilon > bound.epsilon && !plant::is_on(Plant::PrivacyCapIgnored) {
            let why = Overspent { epsilon, cap: bound.epsilon, whose };
            return effects.push(LedgerEffect::Denied { job, commitment, why });
        }
        let contributions = before.contributions.max(known).saturating_add(1);
        let now = Spent { contributions, last: Some(commitment) };
        self.store(LedgerChange { job, now, more: cost }, effects);
        self.grant(job, commitment, effects);
    }

    fn store(&mut self, change: LedgerChange, effects: &mut Vec<LedgerEffect>) {
        self.stored.apply(&change);
        self.ordered += 1;
        effects.push(LedgerEffect::Store { write: self.ordered, change });
    }

    /// Grants once all that was ordered is durable.
    fn grant(&mut self, job: Digest, commitment: Digest, effects: &mut Vec<LedgerEffect>) {
        if plant::is_on(Plant::SpentBeforeStored) {
            return effects.push(LedgerEffect::Granted { job, commitment });
        }
        let waits = self.waiting.iter().any(|(_, _, other)| *other == commitment);
        if !waits && self.waiting.len() < MAX_WAITING {
            self.waiting.push_back((self.ordered, job, commitment));
        }
        self.answer(effects);
    }

    fn answer(&mut self, effects: &mut Vec<LedgerEffect>) {
        while self.waiting.front().is_some_and(|(after, ..)| *after <= self.durable) {
            if let Some((_, job, commitment)) = self.waiting.pop_front() {
                effects.push(LedgerEffect::Granted { job, commitment });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DELTA: PicoDelta = PicoDelta(10_000_000);

    fn cost() -> Rho {
        Rho::of_noise(4_000)
    }

    /// A cap that lets so many contributions leave.
    fn cap(contributions: u64) -> Cap {
        Cap { epsilon: cost().times(contributions).epsilon(DELTA), delta: DELTA }
    }

    fn spend(job: u8, commitment: u8, known: u64) -> Spend {
        // More than any cap here: where there is a cap, it alone binds.
        let promised = cap(1 << 20);
        Spend { job: [job; 32], commitment: [commitment; 32], cost: cost(), promised, known }
    }

    /// Whether it was granted, with a disk that never waits.
    fn ask(ledger: &mut Ledger, spend: Spend) -> bool {
        let mut effects = Vec::new();
        ledger.step(LedgerInput::Asked(spend), &mut effects);
        let early = effects.iter().any(|one| matches!(one, LedgerEffect::Granted { .. }));
        let stores = effects.iter().any(|one| matches!(one, LedgerEffect::Store { .. }));
        assert!(!(early && stores), "granted before it was durable");
        let write = ledger.ordered;
        ledger.step(LedgerInput::Stored { write }, &mut effects);
        let (job, commitment) = (spend.job, spend.commitment);
        effects.contains(&LedgerEffect::Granted { job, commitment })
    }

    #[test]
    fn the_same_bytes_are_free_and_two_jobs_share_the_cap() {
        let mut ledger = Ledger::new(Some(cap(3)), LedgerStored::default());
        assert_eq!(ledger.epsilon(), MicroEpsilon(0));
        assert!(ask(&mut ledger, spend(1, 1, 0)));
        assert!(ask(&mut ledger, spend(1, 1, 0)), "once more");
        assert_eq!(ledger.stored().spent, cost());
        assert!(ask(&mut ledger, spend(2, 2, 0)));
        assert!(ask(&mut ledger, spend(1, 3, 1)));
        assert!(!ask(&mut ledger, spend(1, 4, 2)));
        assert!(!ask(&mut ledger, spend(2, 5, 1)));
        assert_eq!(ledger.epsilon(), cap(3).epsilon);
        assert!(ask(&mut ledger, spend(1, 3, 1)), "what was granted may be sent again");
    }

    #[test]
    fn what_is_left_affords_a_contribution_as_long_as_one_is_granted() {
        let mut ledger = Ledger::new(Some(cap(2)), LedgerStored::default());
        let promised = cap(1 << 20);
        assert!(!ledger.affords(cost().times(3), promised), "alone it is more than the cap");
        for commitment in 1..=2 {
            assert!(ledger.affords(cost(), promised));
            assert!(ask(&mut ledger, spend(1, commitment, u64::from(commitment) - 1)));
        }
        assert!(!ledger.affords(cost(), promised) && !ledger.affords(Rho(u64::MAX), promised));
        assert!(!ask(&mut ledger, spend(2, 3, 0)));
    }

    #[test]
    fn what_is_left_is_as_many_contributions_as_are_granted() {
        for (own, promises, wanted) in
            [(None, 3, 3), (None, 11, 11), (Some(cap(5)), 11, 5), (Some(cap(5)), 2, 5)]
        {
            let mut ledger = Ledger::new(own, LedgerStored::default());
            let promised = cap(promises);
            assert_eq!(ledger.left(cost(), promised), wanted);
            // An earlier job had two of them.
            for commitment in 1..=2 {
                let small = Spend { promised, ..spend(1, commitment, 0) };
                assert!(ask(&mut ledger, Spend { known: u64::from(commitment) - 1, ..small }));
            }
            let left = ledger.left(cost(), promised);
            assert_eq!(left, wanted - 2);
            let granted = (3..20).filter(|&commitment| {
                let known = 0;
                ask(&mut ledger, Spend { promised, known, ..spend(2, commitment, 0) })
            });
            assert_eq!(granted.count() as u64, left);
            assert_eq!(ledger.left(cost(), promised), 0);
        }
    }

    #[test]
    fn a_job_that_is_run_again_is_paid_for_again() {
        let mut ledger = Ledger::new(Some(cap(4)), LedgerStored::default());
        assert!(ask(&mut ledger, spend(1, 1, 0)));
        assert!(ask(&mut ledger, spend(1, 2, 1)));
        // From the beginning, with the same name: what is sent has other noise.
        assert!(ask(&mut ledger, spend(1, 3, 0)));
        assert!(ask(&mut ledger, spend(1, 4, 1)));
        assert!(!ask(&mut ledger, spend(1, 5, 2)));
    }

    #[test]
    fn without_a_cap_a_job_that_is_run_again_pays_from_what_it_promised_before() {
        let mut ledger = Ledger::new(None, LedgerStored::default());
        let small =
            |job, commitment, known| Spend { promised: cap(2), ..spend(job, commitment, known) };
        assert!(ask(&mut ledger, small(1, 1, 0)));
        assert!(ledger.affords(cost(), cap(2)));
        assert!(ask(&mut ledger, small(1, 2, 1)));
        assert!(!ledger.affords(cost(), cap(2)));
        // Cancelled and submitted again, it has another digest and a record without anybody.
        assert!(!ask(&mut ledger, small(2, 3, 0)));
        let mut effects = Vec::new();
        ledger.step(LedgerInput::Asked(small(3, 4, 0)), &mut effects);
        let [LedgerEffect::Denied { why, .. }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!((why.cap, why.whose), (cap(2).epsilon, Bound::Job));
        assert!(why.to_string().contains("`epsilon = N` in their [[data]] table"), "{why}");
        assert!(ask(&mut ledger, small(1, 2, 1)), "what was granted may be sent again");
        // A job that promises less has more of it: what it promises is of all that the data gave.
        let large = |commitment| Spend { promised: cap(3), ..spend(4, commitment, 0) };
        assert!(ask(&mut ledger, large(5)));
        assert!(!ask(&mut ledger, large(6)));
        assert_eq!(ledger.stored().spent, cost().times(3));
    }

    #[test]
    fn with_a_cap_what_a_job_promises_binds_only_the_job() {
        let mut ledger = Ledger::new(Some(cap(3)), LedgerStored::default());
        for commitment in 1..=3 {
            let run = Spend { promised: cap(1), ..spend(commitment, commitment, 0) };
            assert!(ask(&mut ledger, run), "jobs share the cap");
        }
        let mut effects = Vec::new();
        ledger.step(LedgerInput::Asked(spend(4, 4, 0)), &mut effects);
        let [LedgerEffect::Denied { why, .. }] = effects[..] else { panic!("{effects:?}") };
        assert_eq!(why.whose, Bound::Data);
        assert!(why.to_string().contains("raise the cap of this source"), "{why}");
    }

    #[test]
    fn an_older_disk_learns_from_the_record_what_was_spent() {
        let mut ledger = Ledger::new(Some(cap(5)), LedgerStored::default());
        assert!(ask(&mut ledger, spend(1, 1, 0)));
        let backup = ledger.stored().clone();
        for (commitment, known) in [(2, 1), (3, 2), (4, 3)] {
            assert!(ask(&mut ledger, spend(1, commitment, known)));
        }
        let mut restored = Ledger::new(Some(cap(5)), backup);
        assert!(ask(&mut restored, spend(1, 5, 4)));
        assert_eq!(restored.stored().spent, cost().times(5));
        // What was learnt stays, also where nothing is granted.
        assert!(!ask(&mut restored, spend(2, 6, 7)));
        assert_eq!(restored.stored().spent, cost().times(12));
    }

    #[test]
    fn what_is_not_durable_is_not_granted() {
        let mut ledger = Ledger::new(Some(cap(9)), LedgerStored::default());
        let mut effects = Vec::new();
        for commitment in [1, 2, 2] {
            ledger.step(LedgerInput::Asked(spend(1, commitment, 0)), &mut effects);
        }
        assert!(effects.iter().all(|one| matches!(one, LedgerEffect::Store { .. })));
        assert_eq!(effects.len(), 2);
        effects.clear();
        ledger.step(LedgerInput::Stored { write: 1 }, &mut effects);
        let granted = LedgerEffect::Granted { job: [1; 32], commitment: [1; 32] };
        assert_eq!(effects, [granted]);
    }

    #[test]
    fn a_cap_without_a_delta_is_refused() {
        assert_eq!(cap(1).check(), Ok(()));
        for delta in [0, MAX_DELTA.0 + 1].map(PicoDelta) {
            assert_eq!(Cap { delta, ..cap(1) }.check(), Err(PrivacyError::Delta(delta)));
        }
    }

    #[test]
    fn jobs_are_bounded_and_what_is_forgotten_stays_spent() {
        let mut ledger = Ledger::new(Some(cap(1 << 20)), LedgerStored::default());
        for job in 0..MAX_JOBS as u64 + 8 {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&job.to_be_bytes());
            assert!(ask(&mut ledger, Spend { job: name, ..spend(0, 1, 0) }));
        }
        assert_eq!(ledger.stored().jobs.len(), MAX_JOBS);
        assert_eq!(ledger.stored().spent, cost().times(MAX_JOBS as u64 + 8));
    }

    proptest! {
        /// Whatever is asked, lost in crashes and asked again: what left is within the cap and
        /// within what is on disk.
        #[test]
        fn nothing_leaves_beyond_the_cap(
            steps in proptest::collection::vec((0u8..4, 0u8..20, 0u64..3, 0u8..6), 1..80)
        ) {
            let cap = cap(6);
            let mut disk = LedgerStored::default();
            let mut ledger = Ledger::new(Some(cap), disk.clone());
            let mut writes: VecDeque<(u64, LedgerChange)> = VecDeque::new();
            let mut left = std::collections::BTreeSet::new();
            for (job, commitment, known, what) in steps {
                let mut effects = Vec::new();
                match what {
                    // A crash loses what is on its way.
                    0 => {
                        writes.clear();
                        ledger = Ledger::new(Some(cap), disk.clone());
                    }
                    1 | 2 => {
                        if let Some((write, change)) = writes.pop_front() {
                            disk.apply(&change);
                            ledger.step(LedgerInput::Stored { write }, &mut effects);
                        }
                    }
                    _ => {
                        let spend = spend(job, commitment, known);
                        ledger.step(LedgerInput::Asked(spend), &mut effects);
                    }
                }
                for effect in effects {
                    match effect {
                        LedgerEffect::Store { write, change } => writes.push_back((write, change)),
                        LedgerEffect::Granted { job, commitment } => {
                            left.insert((job, commitment));
                        }
                        LedgerEffect::Denied { .. } => {}
                    }
                }
                prop_assert!(cost().times(left.len() as u64) <= disk.spent);
                prop_assert!(cost().times(left.len() as u64).epsilon(DELTA) <= cap.epsilon);
            }
        }

        /// Without a cap, whichever jobs are run how often and in which order: all that left
        /// together is within what the job that allows most promises.
        #[test]
        fn without_a_cap_nothing_leaves_beyond_the_largest_promise(
            runs in proptest::collection::vec((1u64..6, 0u8..9), 1..40)
        ) {
            let mut ledger = Ledger::new(None, LedgerStored::default());
            let (mut most, mut left) = (0, 0);
            for (at, (allows, times)) in (0u8..).zip(runs) {
                most = allows.max(most);
                for commitment in 0..times {
                    let promised = cap(allows);
                    let spend = Spend { promised, ..spend(at, commitment, 0) };
                    left += u64::from(ask(&mut ledger, spend));
                }
            }
            prop_assert!(left <= most, "{left} of {most}");
        }
    }
}
