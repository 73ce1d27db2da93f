//! What has changed and is not durable yet, what is being written, and who waits for it.

use std::collections::{BTreeSet, VecDeque};

use selvedge_base::{Micros, Mono, NodeId, RequestId, Wall};
use selvedge_crdt::escrow::{EscrowRow, Holder, LedgerKey};

use super::WitnessMessage;

/// How long a disk that failed is left alone. Requests are refused meanwhile, so that a full disk
/// is not asked a thousand times per second.
const RETRY_AFTER: Micros = Micros::secs(1);
/// Gifts that wait to be durable; a peer asks five times per second at most.
const MAX_OUTBOX: usize = 1_024;
/// Words of a witness that wait to be durable: whoever misses one asks again within a second.
const MAX_REPLIES: usize = 4_096;

/// What is to be written and who waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    /// The newest ticket handed out.
    pub(super) ticket: u64,
    pub(super) under_way: Option<UnderWay>,
    /// Accounts with something to write: place of the purse, window.
    pub(super) dirty: BTreeSet<(usize, u64)>,
    pub(super) header: bool,
    pub(super) dropped: Vec<LedgerKey>,
    /// Somebody waits.
    pub(super) urgent: bool,
    /// Time for what nobody waits for.
    pub(super) due: bool,
    pub(super) failed_at: Option<Mono>,
    /// Requests that wait for a write, by ticket. At most one entry per request.
    pub(super) waiting: VecDeque<(u64, RequestId)>,
    /// Gifts that wait for a write, by ticket. At most [`MAX_OUTBOX`].
    pub(super) outbox: VecDeque<(u64, Gift)>,
    /// Registers with something to write. A subset of those kept.
    pub(super) kept: BTreeSet<(LedgerKey, Holder)>,
    /// What is said of registers once they are durable, by ticket. At most [`MAX_REPLIES`].
    pub(super) replies: VecDeque<(u64, NodeId, WitnessMessage)>,
}

/// The write that may or may not be durable yet.
#[derive(Clone, Debug)]
pub(super) struct UnderWay {
    pub(super) ticket: u64,
    pub(super) holder: Holder,
    pub(super) header: bool,
    pub(super) horizon: Wall,
    pub(super) dropped: Vec<LedgerKey>,
    pub(super) rows: Vec<(usize, EscrowRow)>,
    pub(super) credits: Vec<Credit>,
    pub(super) kept: BTreeSet<(LedgerKey, Holder)>,
}

/// A gift to be counted once the donor's row is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    pub(super) place: usize,
    pub(super) window: u64,
    pub(super) donor: Holder,
    pub(super) amount: u64,
}

/// Rights given away, to be told once durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gift {
    pub(super) place: usize,
    pub(super) key: LedgerKey,
    pub(super) to: Holder,
    pub(super) amount: u64,
}

impl Journal {
    /// The write that will hold what changes now.
    pub(super) const fn next_ticket(&self) -> u64 {
        self.ticket + 1
    }

    pub(super) fn mark(&mut self, place: usize, window: u64) {
        self.dirty.insert((place, window));
    }

    /// Whether the disk refused a write just now and nobody should wait for the next.
    pub(super) fn is_failing(&self, now: Mono) -> bool {
        self.failed_at.is_some_and(|at| now < at.plus(RETRY_AFTER))
    }

    pub(super) fn is_under_way(&self, ticket: u64) -> bool {
        self.under_way.as_ref().is_some_and(|write| write.ticket == ticket)
    }

    pub(super) fn wait(&mut self, ticket: u64, id: RequestId) {
        self.waiting.push_back((ticket, id));
    }

    pub(super) fn has_room_for_gift(&self) -> bool {
        self.outbox.len() < MAX_OUTBOX
    }

    /// Sends a gift's row with the write that holds it.
    pub(super) fn post(&mut self, gift: Gift) {
        self.outbox.push_back((self.ticket + 1, gift));
        self.urgent = true;
    }

    /// A register changed.
    pub(super) fn keep(&mut self, key: LedgerKey, of: Holder) {
        self.kept.insert((key, of));
        self.urgent = true;
    }

    /// Says something once what is known of a register is durable. At once when it is.
    pub(super) fn reply(&mut self, to: NodeId, said: WitnessMessage) -> Option<WitnessMessage> {
        let about = said.about();
        let ticket = match &self.under_way {
            _ if self.kept.contains(&about) => self.next_ticket(),
            Some(write) if write.kept.contains(&about) => write.ticket,
            Some(_) | None => return Some(said),
        };
        if self.replies.len() < MAX_REPLIES {
            self.replies.push_back((ticket, to, said));
        }
        None
    }

    /// Whether anything of a purse is still to be written or told.
    pub(super) fn is_busy_with(&self, place: Option<&usize>) -> bool {
        self.under_way.is_some()
            || self.dirty.iter().any(|(at, _)| Some(at) == place)
            || self.outbox.iter().any(|(_, gift)| Some(&gift.place) == place)
    }

    /// Nothing waits and nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let settled = self.dirty.is_empty() && self.kept.is_empty();
        self.under_way.is_none() && settled && self.outbox.is_empty()
    }

    /// The incarnation ended: what waited under it waits for nothing.
    pub(super) fn forget(&mut self) -> Vec<RequestId> {
        self.dirty.clear();
        self.outbox.clear();
        self.replies.clear();
        self.waiting.drain(..).map(|(_, id)| id).collect()
    }
}

/// The time until which this node may spend. Durable before it is reached, so that a restart with
/// a clock that was set back still knows how late the node ever spent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Horizon {
    pub(super) planned: Wall,
    pub(super) durable: Wall,
}
