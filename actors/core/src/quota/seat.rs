//! This node's own row in a witnessed ledger: written here, counted once a quorum has it.
//!
//! `durable` of such an account means durable at a quorum, so all that waits for it elsewhere,
//! marks as well as gifts, waits for the witnesses without knowing. Nobody waits for a write of
//! this node alone. Owns the arithmetic of one account; `witness` sends and hears.

use std::collections::VecDeque;

use selvedge_base::Mono;
use selvedge_crdt::escrow::{EscrowRow, Holder, Register, SignedRow, Voters, Writer};

use super::purse::Account;

/// The place of an account's row among its witnesses.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) writer: Writer,
    pub(super) voters: Voters,
    /// The row that is written and not chosen yet; there is no next one before it is.
    pub(super) open: Option<EscrowRow>,
    /// Whether that one is durable here, so that it may be told.
    pub(super) stored: bool,
    /// Gifts planned and not chosen: the least number of a row that has them, to whom, how much. A
    /// donor with so many unanswered gifts that its journal would be full gives no more.
    pub(super) gifts: VecDeque<(u64, Holder, u64)>,
    /// When the turn was last asked for.
    pub(super) asked_at: Option<Mono>,
}

/// Somebody else's row that this node wants to write.
#[derive(Clone, Debug)]
pub(super) struct Takeover {
    pub(super) window: u64,
    pub(super) of: Holder,
    pub(super) writer: Writer,
    pub(super) open: Option<SignedRow>,
    pub(super) amount: u64,
    pub(super) begun: Mono,
}

impl Account {
    /// Brings the account up to who votes in its ledger. Whatever was chosen by others must be
    /// chosen again; true when there is something to write.
    pub(super) fn sit(&mut self, voters: Voters, kept: Option<&Register>) -> bool {
        match &mut self.seat {
            Some(seat) if seat.voters == voters => return false,
            Some(seat) => {
                seat.voters = voters;
                seat.open = None;
            }
            None => {
                let writer = Writer::holder(&self.own.holder, kept);
                self.seat = Some(Box::new(Seat {
                    writer,
                    voters,
                    open: None,
                    stored: false,
                    gifts: VecDeque::new(),
                    asked_at: None,
                }));
            }
        }
        self.durable = EscrowRow::new(self.own.key, self.own.holder);
        self.signed = None;
        self.backing.doubt_all();
        self.changed |= self.own.seq > 0;
        self.changed
    }

    /// This node's row as others may have counted on it. In a witnessed ledger somebody else may
    /// have used the numbers of rows that were only planned.
    pub(super) fn told_row(&self) -> &EscrowRow {
        if self.seat.is_some() { &self.durable } else { &self.own }
    }

    /// Whether this node has a say in its own row.
    pub(super) fn may_write(&self) -> bool {
        match &self.seat {
            None => true,
            Some(seat) => seat.writer.leads() && seat.voters.has(&self.own.holder),
        }
    }

    /// Whether a gift to a holder can ever count.
    pub(super) fn may_receive(&self, to: &Holder) -> bool {
        self.seat.as_ref().is_none_or(|seat| seat.voters.has(to))
    }

    /// What the witnesses have not seen yet, of a request that needs `amount`: rights are there,
    /// only the mark is not.
    pub(super) fn plan_mark(&mut self, amount: u64, block: u64, elastic: u64) -> bool {
        let (used, reach) = (self.used(), self.reach(elastic));
        let needed = used.saturating_add(amount);
        if !self.may_write() || needed > reach || needed <= self.own.hw {
            return false;
        }
        self.own.hw = needed.saturating_add(block).min(reach);
        self.changed = true;
        true
    }

    /// The next block, if less than half of one is left; whether there is something to write.
    pub(super) fn plan_ahead(&mut self, block: u64) -> bool {
        let used = self.used();
        let mark = used.saturating_add(block).min(self.reach(0));
        let low = self.own.hw.saturating_sub(used) < block.div_ceil(2);
        if !low || mark <= self.own.hw || !self.may_write() {
            return false;
        }
        self.own.hw = mark;
        self.changed = true;
        true
    }

    /// The row to write next, if there may be one now.
    pub(super) fn draft_witnessed(&mut self, demand: u64) -> Option<EscrowRow> {
        if !self.may_write() || !self.changed {
            return None;
        }
        let seat = self.seat.as_mut().filter(|seat| seat.open.is_none())?;
        self.changed = false;
        self.own.seq += 1;
        self.own.demand = demand;
        self.own.ballot = seat.writer.ballot();
        seat.open = Some(self.own.clone());
        seat.stored = false;
        Some(self.own.clone())
    }

    /// The open row counts if a quorum has it; the gifts that count with it.
    pub(super) fn choose(&mut self) -> Option<Vec<(Holder, u64)>> {
        let seat = self.seat.as_mut()?;
        let (writer, voters) = (&seat.writer, &seat.voters);
        let row = seat.open.take_if(|row| writer.is_chosen(row, voters))?;
        let mut gifts = Vec::new();
        while let Some((_, to, amount)) = seat.gifts.pop_front_if(|(seq, _, _)| *seq <= row.seq) {
            gifts.push((to, amount));
        }
        if self.durable.out != row.out {
            // What its receivers gave on is covered from now on.
            self.backing.doubt_all();
            self.gifts = true;
        }
        self.durable = row;
        self.signed = None;
        self.pay();
        Some(gifts)
    }

    /// What another holder has left beyond what `row` of its row says it spent and gave, as far as
    /// this node can tell: gifts to it count if rows that were chosen cover them.
    pub(super) fn rest_of(&self, of: &Holder, granted: u64, row: Option<&EscrowRow>) -> u64 {
        let got = self.backing.inflow(of, self.told_row()).saturating_add(granted.into());
        let used = row.map_or(0, |row| row.given() + u128::from(row.hw));
        let sealed = row.is_some_and(|row| row.sealed);
        let rest = if sealed { 0 } else { got.saturating_sub(used) };
        u64::try_from(rest).unwrap_or(u64::MAX)
    }

    /// The turn is this node's again: it goes on from the newest row a quorum knew. What it had
    /// planned beyond that never counted for anybody.
    pub(super) fn go_on_from(&mut self, newest: Option<EscrowRow>) {
        let blank = || EscrowRow::new(self.own.key, self.own.holder);
        let row = newest.unwrap_or_else(blank);
        if let Some(seat) = &mut self.seat {
            seat.open = None;
            seat.gifts.clear();
        }
        // Only this node raises its mark. One above all it knows of was forgotten here, and all
        // of it may be spent; else no more is spent than was chosen, which the row has.
        self.spent = if row.hw > self.own.hw { row.hw } else { self.spent.min(row.hw) };
        self.given = u64::try_from(row.given()).unwrap_or(u64::MAX);
        for (donor, seq) in &row.basis {
            let known = self.own.basis.entry(*donor).or_default();
            *known = (*known).max(*seq);
        }
        self.own.hw = row.hw;
        self.own.out = row.out;
        self.own.sealed = row.sealed;
        self.own.seq = self.own.seq.max(row.seq);
        self.changed = true;
    }
}
