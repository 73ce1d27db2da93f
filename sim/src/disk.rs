//! A disk: what is durable, what is on its way, and how both go wrong.
//!
//! Every write is made as a whole or not at all, in order, as production's store does it. A crash
//! loses what was not yet durable. Lost writes go back further: the disk had confirmed them.

use std::collections::VecDeque;

use selvedge_base::Wall;
use selvedge_base::{Micros, Mono};
use selvedge_core::quota::{QuotaStored, QuotaWrite};
use selvedge_crdt::escrow::{EscrowRow, Holder, LedgerKey};
use selvedge_proto::answers::PurgeLine;
use selvedge_proto::join::Invites;
use selvedge_proto::policy::PolicyPart;
use selvedge_proto::records::{RosterSnapshot, Signed};
use selvedge_proto::settings::SettingPart;

use crate::stream::Stream;

/// How far back confirmed writes are remembered, so that a disk can forget them.
const MEMORY: Micros = Micros::secs(10);

/// What a disk holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// Counts the starts of the process; raised by refutations.
    pub(crate) incarnation: u64,
    pub(crate) quota: QuotaStored,
    pub(crate) roster: Option<RosterSnapshot>,
    pub(crate) invites: Invites,
    pub(crate) policy: Option<Vec<PolicyPart>>,
    pub(crate) settings: Vec<SettingPart>,
    pub(crate) purges: Vec<Signed<PurgeLine>>,
    /// The latest wall time the node saw, stored now and then.
    pub(crate) latest_wall: Wall,
}

/// A disk of one node.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) stored: Stored,
    pending: VecDeque<(Mono, u64, QuotaWrite)>,
    fsync: Micros,
    /// The state some time ago and what was confirmed since; kept only where it will be needed.
    history: Option<(QuotaStored, VecDeque<(Mono, QuotaWrite)>)>,
    backup: Option<Stored>,
    /// Rows that became durable since the observer last looked.
    pub(crate) fresh: Vec<(LedgerKey, Holder)>,
    /// And rows that became durable as their witness's.
    pub(crate) witnessed: Vec<EscrowRow>,
    pub(crate) slow: Micros,
    pub(crate) full: u32,
    pub(crate) errors_permille: u64,
    stream: Stream,
    /// Writes that became durable.
    pub(crate) writes: u64,
    pub(crate) failures: u64,
}

/// What comes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It will be durable then.
    At(Mono),
    /// It fails then.
    FailsAt(Mono, &'static str),
}

impl Disk {
    pub(crate) fn new(fsync: Micros, forgets: bool, stream: Stream) -> Self {
        let stored = Stored::default();
        Self {
            history: forgets.then(|| (stored.quota.clone(), VecDeque::new())),
            stored,
            pending: VecDeque::new(),
            fsync,
            backup: None,
            fresh: Vec::new(),
            witnessed: Vec::new(),
            slow: Micros::ZERO,
            full: 0,
            errors_permille: 0,
            stream,
            writes: 0,
            failures: 0,
        }
    }

    /// Begins a write. Writes become durable in order.
    pub(crate) fn write(&mut self, now: Mono, ticket: u64, write: QuotaWrite) -> Written {
        let spread = Micros(self.stream.below(self.fsync.0 + 1));
        let at = now.plus(self.fsync).plus(spread).plus(self.slow);
        if self.full > 0 {
            self.failures += 1;
            return Written::FailsAt(at, "no space left on device");
        }
        if self.stream.chance(self.errors_permille) {
            self.failures += 1;
            return Written::FailsAt(at, "input/output error");
        }
        let after = self.pending.back().map_or(at, |(last, _, _)| at.max(*last));
        self.pending.push_back((after, ticket, write));
        Written::At(after)
    }

    /// A write beside those of the budgets: how long it takes, none when the disk refuses it.
    pub(crate) fn takes(&mut self) -> Option<Micros> {
        if self.full > 0 || self.stream.chance(self.errors_permille) {
            self.failures += 1;
            return None;
        }
        Some(self.fsync.plus(self.slow))
    }

    /// Makes durable what is due.
    pub(crate) fn settle(&mut self, now: Mono) {
        while let Some((_, _, write)) = self.pending.pop_front_if(|(due, _, _)| *due <= now) {
            self.stored.quota.apply(&write);
            self.fresh.extend(write.rows.iter().map(|one| (one.row.key, one.row.holder)));
            let accepted = write.kept.iter().filter_map(|kept| kept.register.accepted.as_ref());
            self.witnessed.extend(accepted.map(|signed| signed.row.clone()));
            self.writes += 1;
            let Some((base, journal)) = &mut self.history else { continue };
            journal.push_back((now, write));
            while let Some((_, old)) = journal.pop_front_if(|(at, _)| now.since(*at) > MEMORY) {
                base.apply(&old);
            }
        }
    }

    /// The process dies: what is not durable is gone. Returns whether anything was.
    pub(crate) fn crash(&mut self, now: Mono) -> bool {
        self.settle(now);
        let lost = !self.pending.is_empty();
        self.pending.clear();
        lost
    }

    /// Forgets what was confirmed within the last moments. Returns whether anything was.
    pub(crate) fn forget(&mut self, now: Mono, back: Micros) -> bool {
        let Some((base, journal)) = &mut self.history else { return false };
        let kept = journal.iter().take_while(|(at, _)| now.since(*at) >= back).count();
        let lost = journal.len() > kept;
        journal.truncate(kept);
        let mut stored = base.clone();
        for (_, write) in journal.iter() {
            stored.apply(write);
        }
        self.stored.quota = stored;
        lost
    }

    /// Remembers a copy of everything.
    pub(crate) fn back_up(&mut self, now: Mono) {
        self.settle(now);
        self.backup = Some(self.stored.clone());
    }

    /// Puts the copy back. The count of starts is the process manager's and stays.
    pub(crate) fn restore(&mut self) -> bool {
        let Some(backup) = self.backup.take() else { return false };
        let changed = backup.quota != self.stored.quota;
        let incarnation = self.stored.incarnation;
        self.stored = Stored { incarnation, ..backup };
        changed
    }

    /// An empty disk.
    pub(crate) fn wipe(&mut self) {
        self.pending.clear();
        self.stored = Stored { incarnation: self.stored.incarnation, ..Stored::default() };
        if let Some((base, journal)) = &mut self.history {
            *base = QuotaStored::default();
            journal.clear();
        }
    }
}
