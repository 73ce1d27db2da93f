//! Which epoch governs a window, as far as this node can know.
//!
//! A window belongs to the epoch in force when it begins. Epochs hand over at calendar times when
//! the next begins where the one before ends; then there is nothing to agree on. An epoch that
//! begins earlier needs the word of everybody who holds rights under the one before, since none of
//! them may use more than the new epoch grants once somebody else uses what it grants. Nobody
//! waits for that word.
//!
//! **The rule.** For epoch `k+1` after `k` let `S` be the time from which windows are its own:
//! `from`, when `from ≥ until_k`; otherwise `min(until_k, max(from, every since))` once every
//! member of `k` has signed [`super::Adopted`], and `until_k` if one never does; and not before
//! `k`'s own `S`. A node brackets `S` by what it has seen. `lo` is `max(from, the sinces it knows,
//! its own)`, where a member that has not signed yet counts its own as never; `hi` is the exact
//! value once it knows all of them, else `until_k`, or what the operator's key attests in `k+2`.
//! A window that begins at `s` may be governed by every epoch with `lo ≤ s < until` down to the
//! first with `hi ≤ s`. Of a budget the node uses the least any of them grants; one that lacks the
//! budget limits nothing; one that is missing here grants nothing.
//!
//! **Why no right is used twice.** Fix a window `s` and let `g` be the last epoch with its true
//! `S ≤ s`. Claim: whatever node X uses of the window, at any time and knowing any part of the
//! records, is at most what `g` grants X. So the sum over all nodes is at most `g`'s limit.
//! 1. X knows `g`. Every later epoch has `hi ≥ S > s`, so X does not stop before `g`. And `lo ≤ S`
//!    of `g`, for X's own word is part of `S`, or not given yet: then it will be given with a
//!    `since` after every window X has used (`PolicyBook::adopt`), so `S ≤ s` can only be because
//!    `until` of the epoch before is over, which bounds `lo` too. So `g` is among those X takes
//!    the least of.
//! 2. X lacks `g` and knows no later epoch. Let `i < g` be the newest it knows. If X is no member
//!    of `i`, it is granted nothing. If it is, X has not signed for `i+1`, which it does not know;
//!    so `S` of `i+1` is `until_i`, or later than all X used. `S` of `g` is no earlier; so
//!    `until_i ≤ s`, and X uses nothing.
//! 3. X lacks `g` and knows a later one, for which `s < S ≤ hi`: X comes to the gap where `g` is
//!    missing, and an epoch that is missing grants nothing.
//!
//! Knowing more never lets X use more than `g` grants, and a node never takes its word back. What
//! X forgets, it forgets only when no window it could govern is open (`Chain::prune`).
//!
//! A budget that is new (`born` in the epoch) is granted by nobody else: it needs no agreement, and
//! begins with the window that contains `from`.
//!
//! Permits and rates have no calendar. Their ledgers are numbered by the epoch that last changed
//! anybody's grant. Around a change a permit needs a right in every ledger that may govern now or
//! may have within [`super::PERMIT_LEASE`]: so every permit that is out holds a right of the ledger
//! that governs, before the change and after. A node that is no member of an epoch has no word in
//! its end; what it was given of such a ledger it could use too long. So it is a guest there
//! ([`Ledgers::guest`]): it takes permits only until a time before which, as a member vouches, no
//! later epoch can be in force. The member can tell, for its own word is part of `S`: it gives that
//! for no earlier time than it vouched for, which it remembers as it does its own spending. What
//! the guest was given is part of the ledger like anybody's, so permits that are out together
//! still share one.

use selvedge_base::{Micros, Wall};
use selvedge_crdt::escrow::LedgerKey;

use super::PERMIT_LEASE;
use crate::records::CLOCK_SKEW;

/// How long after a change of their grants permits of before may be out: their lease, begun by the
/// slowest clock.
pub(super) const LINGER: Micros = PERMIT_LEASE.plus(CLOCK_SKEW);

/// Ledgers of one permit at a time: a limit changed twice within [`PERMIT_LEASE`].
pub const MAX_GATES: usize = 3;

/// Whether a budget can be spent at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It counts, in these ledgers.
    Open(Ledgers),
    /// It counts nothing: it has not begun yet, or was taken away.
    Free,
    /// Nothing can be spent of it.
    Stopped(Stop),
}

/// Where spending is counted: one ledger, but for permits around a change of their grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledgers {
    /// The newest.
    pub first: LedgerKey,
    /// Older ones in which a permit needs a right too.
    pub also: [Option<LedgerKey>; MAX_GATES - 1],
    /// Of permits and rates: the epoch that governs was signed before this node came. Nobody waits
    /// for its word before the next one counts, so it spends what it was given only for as long as
    /// a holder that is waited for vouches for the ledger.
    pub guest: bool,
}

/// Why nothing can be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// This node's clock is before everything that was ever signed.
    Clock,
    /// The last epoch this node knows is over: it was cut off for too long, or nobody renewed it.
    Lapsed {
        /// Since when.
        since: Wall,
    },
    /// The operator's key signed two epochs of one number. A higher one settles it.
    Forked {
        /// The number.
        number: u64,
    },
    /// Of permits and rates: an epoch in between is missing here, or limits changed too often
    /// within minutes.
    Unsettled,
}

impl Ledgers {
    pub(super) const fn one(first: LedgerKey) -> Self {
        Self { first, also: [None; MAX_GATES - 1], guest: false }
    }

    /// All of them, newest first.
    pub fn iter(&self) -> impl Iterator<Item = LedgerKey> {
        std::iter::once(self.first).chain(self.also.into_iter().flatten())
    }

    /// Adds a ledger; false when there is no room.
    pub(super) fn add(&mut self, key: LedgerKey) -> bool {
        if self.iter().any(|held| held == key) {
            return true;
        }
        match self.also.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                *place = Some(key);
                true
            }
            None => false,
        }
    }
}

/// What stands between an epoch and the next older one that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Below {
    /// The direct predecessor, or nothing since it is the first.
    Nothing,
    /// Epochs that were forgotten here; they governed no window that begins before this time.
    Forgotten(Wall),
    /// Epochs this node never saw.
    Missing,
}

/// An epoch's time, as far as this node can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reign {
    pub(super) number: u64,
    pub(super) issued: Wall,
    pub(super) from: Wall,
    pub(super) until: Wall,
    pub(super) lo: Wall,
    pub(super) hi: Wall,
    /// From when on the epoch before was in force at the latest.
    pub(super) prev_hi: Wall,
    pub(super) forked: bool,
    pub(super) below: Below,
}

/// Which epochs may govern a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// At least one epoch that is known here.
    pub(super) any: bool,
    /// One that is missing here.
    pub(super) missing: bool,
    /// One with a rival of the same number.
    pub(super) forked: Option<u64>,
    /// The epoch that would have, but is over.
    pub(super) lapsed: Option<Wall>,
}

/// Visits every epoch that may govern a window beginning at `start`, newest first, by its place in
/// `reigns`. The budget in question was born in epoch `born`, where it began at `began`.
pub(super) fn govern(
    reigns: &[Reign],
    start: Wall,
    born: u64,
    began: Wall,
    mut visit: impl FnMut(usize),
) -> Verdict {
    let mut verdict = Verdict::default();
    for (place, reign) in reigns.iter().enumerate().rev() {
        let newborn = reign.number == born;
        if start >= if newborn { began } else { reign.lo } {
            if start < reign.until {
                verdict.any = true;
                if reign.forked {
                    verdict.forked = Some(reign.number);
                }
                visit(place);
            } else if !verdict.any && !verdict.missing {
                verdict.lapsed = verdict.lapsed.or(Some(reign.until));
            }
        }
        if newborn || reign.number < born || start >= reign.hi {
            break;
        }
        match reign.below {
            Below::Nothing => {}
            Below::Forgotten(before) if start < before => {}
            Below::Forgotten(_) | Below::Missing => {
                verdict.missing = true;
                break;
            }
        }
    }
    verdict
}

/// Places of the epochs whose permits may still be out at `wall`: those that could have been given
/// out within the lease, up to the next epoch's certain beginning.
pub(super) fn lingering(reigns: &[Reign], wall: Wall) -> impl Iterator<Item = usize> {
    reigns.windows(2).enumerate().filter_map(move |(place, pair)| {
        let over = pair[1].hi.plus(LINGER);
        (pair[0].lo <= wall && wall < over).then_some(place)
    })
}
