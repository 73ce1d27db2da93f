//! Witnessed ledgers: a holder's row is a register that a quorum keeps, so that others may go on
//! writing it when the holder is out of reach.
//!
//! The register is that of Paxos with a value that is rewritten (Lamport 1998; CASPaxos, Rystsov
//! 2018), one per holder and ledger. Every voter keeps the greatest ballot it promised and the
//! greatest row it accepted, by `(ballot, seq)`, durable before it says so. The holder writes under
//! no ballot at first, which is less than any: a row of its own is *chosen* once a majority
//! accepted it. Whoever wants to write the row instead draws a greater ballot, has a majority
//! promise it, and goes on from the greatest row they accepted:
//!
//! ```text
//! writer                          voters
//!   Asking ── prepare b ─────────▶ promise b, tell the greatest row accepted
//!   Leading ◀─ a majority ────────┘
//!   row ≥ all of them ── propose ─▶ accept unless more than b was promised
//!   chosen ◀── a majority ────────┘
//! ```
//!
//! **What is chosen is never taken back.** Let row `r` of ballot `b` be chosen, and let a writer of
//! a greater ballot `c` propose `s`. The majority that promised `c` and the one that accepted `r`
//! have a voter in common. It accepted `r` before it promised `c`, since after it would not have;
//! so it told the writer of `r` or of something greater. By induction over the ballots between,
//! what it told succeeds `r`, and `s` succeeds that. Within one ballot there is one writer, whose
//! rows succeed each other.
//!
//! So spending below the chosen mark, and gifts in the chosen row, are known to every later writer,
//! and what the chosen row does not take is free to be given away by it. A row that was accepted
//! by fewer may or may not survive; nobody depended on it.
//!
//! Owns the register, the counting of votes and whose turn it is. Does not own who votes, what is
//! durable, or what to write.

use std::collections::BTreeMap;

use selvedge_base::plant::{self, Plant};
use serde::{Deserialize, Serialize};

use super::row::{Ballot, EscrowRow, Holder, SignedRow};

/// What one voter keeps of one holder's row in one ledger. Both only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Rows of a lesser ballot are not accepted any more.
    pub promised: Option<Ballot>,
    /// The greatest row accepted.
    pub accepted: Option<SignedRow>,
}

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Accepted {
    /// It is accepted now; the vote counts once this is durable.
    Now,
    /// It, or a later row of the same turn, was accepted before.
    Before {
        /// The row that is held.
        seq: u64,
    },
    /// A greater ballot was promised.
    Behind {
        /// Which.
        promised: Option<Ballot>,
    },
    /// It cannot follow what the same writer wrote before in the same turn: its store went back.
    Contradicts(Box<SignedRow>),
}

/// Who votes on the rows of a ledger: groups of which each must have a majority. There is one
/// group but where two epochs may both govern the window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voters(Vec<Vec<Holder>>);

/// One who writes, or wants to write, a row of a witnessed ledger.
#[derive(Clone, Debug)]
pub struct Writer {
    ballot: Option<Ballot>,
    turn: Turn,
}

#[derive(Clone, Debug)]
enum Turn {
    /// Waits for promises; what each voter accepted last.
    Asking(BTreeMap<Holder, Option<SignedRow>>),
    /// Writes; up to which of its rows each voter accepted.
    Leading(BTreeMap<Holder, u64>),
    /// A greater ballot is known.
    Beaten,
}

impl Register {
    /// Promises to accept nothing of a lesser ballot; whether the register changed.
    ///
    /// # Errors
    /// The greater ballot that was promised before.
    pub fn promise(&mut self, ballot: Ballot) -> Result<bool, Option<Ballot>> {
        if self.promised > Some(ballot) {
            return Err(self.promised);
        }
        let changed = self.promised < Some(ballot);
        self.promised = Some(ballot);
        Ok(changed)
    }

    /// Accepts a row unless that would break a promise. The caller has checked its signature.
    pub fn accept(&mut self, signed: SignedRow) -> Accepted {
        let turn = signed.row.turn();
        if turn.0 < self.promised {
            return Accepted::Behind { promised: self.promised };
        }
        if let Some(held) = self.accepted.as_ref().filter(|held| held.row.ballot == turn.0) {
            if held.row.seq > turn.1 || held.row == signed.row {
                return Accepted::Before { seq: held.row.seq };
            }
            if held.row.seq == turn.1 || !signed.row.succeeds(&held.row) {
                return Accepted::Contradicts(Box::new(held.clone()));
            }
        }
        self.promised = self.promised.max(turn.0);
        self.accepted = Some(signed);
        Accepted::Now
    }

    /// The place of the greatest row accepted.
    pub fn turn(&self) -> Option<(Option<Ballot>, u64)> {
        self.accepted.as_ref().map(|held| held.row.turn())
    }
}

impl Voters {
    /// Groups that must each agree; without any nothing is ever chosen.
    pub fn new(mut groups: Vec<Vec<Holder>>) -> Self {
        groups.iter_mut().for_each(|group| {
            group.sort_unstable();
            group.dedup();
        });
        groups.sort_unstable();
        groups.dedup();
        groups.retain(|group| !group.is_empty());
        Self(groups)
    }

    /// Whether a holder has a vote in every group: only such may write and be written.
    pub fn has(&self, holder: &Holder) -> bool {
        !self.0.is_empty() && self.0.iter().all(|group| group.contains(holder))
    }

    /// All who have a vote, each once.
    pub fn all(&self) -> Vec<Holder> {
        let mut all: Vec<Holder> = self.0.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether those that fit are a majority of every group.
    pub fn is_quorum(&self, fits: impl Fn(&Holder) -> bool) -> bool {
        let majority =
            |group: &Vec<Holder>| 2 * group.iter().filter(|one| fits(one)).count() > group.len();
        !self.0.is_empty() && self.0.iter().all(majority)
    }

    /// How many of the largest group must agree.
    pub fn needed(&self) -> usize {
        self.0.iter().map(|group| group.len() / 2 + 1).max().unwrap_or(0)
    }
}

impl Writer {
    /// The holder itself, with what it kept of its own row: it writes unless it promised somebody
    /// else not to.
    pub fn holder(me: &Holder, kept: Option<&Register>) -> Self {
        let promised = kept.and_then(|kept| kept.promised);
        let written = kept.and_then(|kept| kept.accepted.as_ref()).and_then(|one| one.row.ballot);
        let mine = promised.is_none_or(|ballot| ballot.by == *me) && promised == written;
        let turn = if mine { Turn::Leading(BTreeMap::new()) } else { Turn::Beaten };
        Self { ballot: promised, turn }
    }

    /// One who wants to write under a ballot greater than `above`.
    pub fn asking(me: Holder, above: Option<Ballot>) -> Self {
        let round = above.map_or(0, |ballot| ballot.round).saturating_add(1);
        Self { ballot: Some(Ballot { round, by: me }), turn: Turn::Asking(BTreeMap::new()) }
    }

    /// Under which ballot it writes, or wants to; the greater one, once it is beaten.
    pub const fn ballot(&self) -> Option<Ballot> {
        self.ballot
    }

    /// Whether it may write.
    pub const fn leads(&self) -> bool {
        matches!(self.turn, Turn::Leading(_))
    }

    /// Whether it waits for promises.
    pub const fn asks(&self) -> bool {
        matches!(self.turn, Turn::Asking(_))
    }

    /// Somebody has, or wants, the turn.
    pub fn met(&mut self, ballot: Option<Ballot>) {
        if ballot > self.ballot {
            self.ballot = ballot;
            self.turn = Turn::Beaten;
        }
    }

    /// A voter promised; what it accepted last.
    pub fn promised(&mut self, by: Holder, ballot: Ballot, accepted: Option<SignedRow>) {
        if let Turn::Asking(promises) = &mut self.turn
            && self.ballot == Some(ballot)
        {
            promises.insert(by, accepted);
        }
    }

    /// Begins to write once a quorum promised: the row to go on from, if any was ever accepted.
    pub fn begin(&mut self, voters: &Voters) -> Option<Option<SignedRow>> {
        let Turn::Asking(promises) = &mut self.turn else { return None };
        if !voters.is_quorum(|voter| promises.contains_key(voter)) {
            return None;
        }
        let newest =
            std::mem::take(promises).into_values().flatten().max_by_key(|signed| signed.row.turn());
        self.turn = Turn::Leading(BTreeMap::new());
        Some(newest)
    }

    /// A voter accepted rows of this turn up to `seq`.
    pub fn voted(&mut self, by: Holder, ballot: Option<Ballot>, seq: u64) {
        if let Turn::Leading(votes) = &mut self.turn
            && self.ballot == ballot
        {
            let known = votes.entry(by).or_default();
            *known = seq.max(*known);
        }
    }

    /// Whether a voter's word on a row is still missing.
    pub fn lacks(&self, voter: &Holder, seq: u64) -> bool {
        match &self.turn {
            Turn::Asking(promises) => !promises.contains_key(voter),
            Turn::Leading(votes) => votes.get(voter).is_none_or(|known| *known < seq),
            Turn::Beaten => false,
        }
    }

    /// Whether a row of this turn is chosen.
    pub fn is_chosen(&self, row: &EscrowRow, voters: &Voters) -> bool {
        let Turn::Leading(votes) = &self.turn else { return false };
        let accepted = |voter: &Holder| votes.get(voter).is_some_and(|seq| *seq >= row.seq);
        let alone = plant::is_on(Plant::WitnessedAlone) && votes.values().any(|v| *v >= row.seq);
        row.ballot == self.ballot && (alone || voters.is_quorum(accepted))
    }
}

#[cfg(test)]
#[path = "witness_tests.rs"]
mod tests;
