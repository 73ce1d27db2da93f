//! Moving rights to where they are needed: asking, giving, pushing.
//!
//! All of it is advice. Nothing here can break the bound, because a gift is planned against the
//! durable mark, told only when durable and counted only when durable at the receiver.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono, NodeId, Now};
use selvedge_crdt::escrow::{Holder, LedgerKey, MAX_OUT};
use selvedge_proto::policy::Unit;

use super::demand::units_in;
use super::journal::Gift;
use super::purse::Purse;
use super::{Ask, BEAT, Quota, QuotaEffect, QuotaEvent, QuotaMessage};

/// A node asks when it has less than so many seconds of its demand left, enough for several asks
/// and writes even on a slow link.
const LOW_S: u64 = 3;
/// And then for so many seconds: a fraction of the demand's own memory, so that a burst that is
/// over does not draw rights away for long.
const FILL_S: u64 = 10;
/// With a request waiting, for at least so many seconds, and for a few requests like it.
const URGENT_FILL_S: u64 = 5;
const URGENT_COSTS: u64 = 4;
/// What a donor keeps for itself, in seconds of its own demand: as much as would make it ask.
const KEEP_S: u64 = LOW_S;
/// What it keeps when a request is waiting elsewhere.
const URGENT_KEEP_S: u64 = 1;
/// A permit that lay idle for so long is given to whoever waits for one: some writes and round
/// trips, and less than a person who asks again lets pass.
const PERMIT_IDLE: Micros = Micros::millis(500);
/// Above so many seconds of demand a node gives without being asked: what it holds is stranded
/// should it die.
const PUSH_ABOVE_S: u64 = 30;
/// How many peers are asked at once: one may have less than it was last seen with.
const ASKED_AT_ONCE: usize = 2;
/// Urgent asks are at least this far apart per budget: five per second follow any demand.
const URGENT_EVERY: Micros = Micros::millis(200);
/// Gifts below this part of the own grant are not worth a write, unless a request waits.
const QUANTUM_PART: u64 = 100;

impl Quota {
    /// Asks for rights when demand will use up what is left soon.
    pub(super) fn ask_calmly(&mut self, place: usize, now: Now, effects: &mut Vec<QuotaEffect>) {
        let purse = &mut self.purses[place];
        if self.peers.is_empty() || self.draining {
            return;
        }
        if purse.asking.calm_at.is_some_and(|at| now.mono < at.plus(BEAT)) {
            return;
        }
        let demand = purse.demand.milli_at(now.mono);
        let left = purse.may_spend_in_long();
        if demand == 0 || left >= purse.need(demand, LOW_S) {
            return;
        }
        purse.asking.calm_at = Some(now.mono);
        let amount = purse.need(demand, FILL_S).saturating_sub(left);
        self.ask(place, amount, 0, false, now, effects);
    }

    /// Asks for what a request is waiting for; whether an answer may be on its way.
    pub(super) fn ask_urgently(
        &mut self,
        place: usize,
        missing: u64,
        cost: u64,
        now: Now,
        effects: &mut Vec<QuotaEffect>,
    ) -> bool {
        let hold = self.options.hold;
        let purse = &mut self.purses[place];
        if purse.tightest().is_none() || self.draining {
            return false;
        }
        if let Some(at) = purse.asking.urgent_at
            && now.mono < at.plus(URGENT_EVERY)
        {
            return purse.asking.open > 0 && now.mono < at.plus(hold);
        }
        let demand = purse.demand.milli_at(now.mono);
        let amount = purse.need(demand, URGENT_FILL_S).max(cost.saturating_mul(URGENT_COSTS));
        let asked = self.ask(place, amount, missing, true, now, effects);
        let asking = &mut self.purses[place].asking;
        asking.urgent_at = Some(now.mono);
        asking.open = asked;
        asked > 0
    }

    /// Asks the richest peers; how many.
    fn ask(
        &mut self,
        place: usize,
        amount: u64,
        least: u64,
        urgent: bool,
        now: Now,
        effects: &mut Vec<QuotaEffect>,
    ) -> u32 {
        let Some(key) = self.purses[place].tightest().map(|account| account.own.key) else {
            return 0;
        };
        let keep_s = if urgent { 0 } else { KEEP_S };
        let chosen = self.richest(place, key, keep_s, now);
        for (peer, _) in &chosen {
            let ask = Ask { key, holder: self.holder, amount, least, urgent };
            effects.push(QuotaEffect::Send { to: *peer, message: QuotaMessage::Ask(ask) });
            let event = QuotaEvent::AskedPeer { key, peer: *peer, amount, urgent };
            effects.push(QuotaEffect::Report(event));
        }
        chosen.len() as u32
    }

    /// The peers that seem to have most to give, after `keep_s` seconds of their own demand.
    fn richest(
        &mut self,
        place: usize,
        key: LedgerKey,
        keep_s: u64,
        now: Now,
    ) -> Vec<(NodeId, u64)> {
        let mut best: Vec<(u64, u64, NodeId)> = Vec::with_capacity(ASKED_AT_ONCE + 1);
        let surpluses = self.surpluses(&self.purses[place], key, keep_s, now);
        for (peer, surplus) in surpluses {
            if surplus == 0 {
                continue;
            }
            // Equals are told apart by chance, or all nodes would ask the same one.
            best.push((surplus, self.dice.next(), peer));
            best.sort_unstable_by(|a, b| b.cmp(a));
            best.truncate(ASKED_AT_ONCE);
        }
        best.into_iter().map(|(surplus, _, peer)| (peer, surplus)).collect()
    }

    /// What every reachable peer seems to have to spare of a ledger.
    fn surpluses(
        &self,
        purse: &Purse,
        key: LedgerKey,
        keep_s: u64,
        now: Now,
    ) -> Vec<(NodeId, u64)> {
        let Some(account) = purse.account(key.window) else { return Vec::new() };
        let mut holders: BTreeMap<NodeId, Holder> = BTreeMap::new();
        let rows = account.ledger.rows().map(|signed| signed.row.holder);
        for holder in self.book.members(&key, now.wall).into_iter().chain(rows) {
            if self.is_up(&holder.node) {
                let newest = holders.entry(holder.node).or_insert(holder);
                *newest = holder.max(*newest);
            }
        }
        let surplus = |(node, holder): (NodeId, Holder)| {
            // What an incarnation that ended had is nobody's.
            let ended = self.peers.get(&node).copied().flatten().is_some_and(|now| now > holder);
            if ended || account.ledger.is_quarantined(&holder) {
                return (node, 0);
            }
            let granted = self.book.grant(&key, &holder, now.wall);
            let demand = account.ledger.get(&holder).map_or(0, |signed| signed.row.demand);
            let has = account.ledger.may_give(&holder, granted, &account.own);
            (node, has.saturating_sub(purse.need(demand, keep_s)))
        };
        holders.into_iter().map(surplus).collect()
    }

    /// Whether reachable peers seem to have that much to spare in all.
    pub(super) fn peers_could_give(&self, purse: &Purse, now: Now, amount: u64) -> bool {
        let Some(key) = purse.tightest().map(|account| account.own.key) else { return false };
        let surpluses = self.surpluses(purse, key, URGENT_KEEP_S, now);
        surpluses.iter().map(|(_, surplus)| *surplus).fold(0, u64::saturating_add) >= amount
    }

    /// A peer wants rights: what this node need not keep is given.
    pub(super) fn asked_for_rights(
        &mut self,
        now: Now,
        from: NodeId,
        ask: Ask,
        effects: &mut Vec<QuotaEffect>,
    ) {
        if !self.note_peer(from, ask.holder) || ask.amount == 0 {
            return;
        }
        let Some(place) = self.place_of_ledger(&ask.key, now, effects) else {
            let message = QuotaMessage::Declined { key: ask.key };
            return effects.push(QuotaEffect::Send { to: from, message });
        };
        let purse = &self.purses[place];
        let demand = purse.demand.milli_at(now.mono);
        // Whole units only where a request waits: a single free permit, or the last request of a
        // small cap, is not kept for the fraction of one that was lately wanted here.
        let keep = match ask.urgent {
            // A permit is used anew by each request, so one that lies idle is not the one that
            // those who come here use, however many they were.
            true if purse.unit() == Unit::Concurrent && purse.is_idle(now.mono) => 0,
            true => purse.need_whole(demand, URGENT_KEEP_S),
            false => purse.need(demand, KEEP_S),
        };
        let surplus = purse.may_give(ask.key.window).saturating_sub(keep);
        let quantum = purse.quantum();
        let amount = ask.amount.max(quantum).min(surplus);
        let worth = if ask.urgent { 1 } else { quantum };
        if amount < worth || !self.give(place, ask.key, ask.holder, amount, now) {
            effects.push(QuotaEffect::Send {
                to: from,
                message: QuotaMessage::Declined { key: ask.key },
            });
            // What this node really has, so that it is not asked again in vain.
            let rows = self.proof_of(place, ask.key);
            if !rows.is_empty() {
                effects.push(QuotaEffect::Send { to: from, message: QuotaMessage::Rows(rows) });
            }
        }
    }

    /// A peer has nothing to give.
    pub(super) fn declined(&mut self, now: Now, key: LedgerKey, effects: &mut Vec<QuotaEffect>) {
        let Some(place) = self.places.get(&key.budget).copied() else { return };
        let purse = &mut self.purses[place];
        if !purse.is_open(&key) || purse.asking.open == 0 {
            return;
        }
        purse.asking.open -= 1;
        if purse.asking.open == 0 {
            self.hurry_holds(now, place);
            self.end_holds(now, effects);
        }
    }

    /// Plans a gift; false when this node may not give that much to that holder.
    pub(super) fn give(
        &mut self,
        place: usize,
        key: LedgerKey,
        to: Holder,
        amount: u64,
        now: Now,
    ) -> bool {
        let purse = &mut self.purses[place];
        if !self.confirmed || self.journal.is_failing(now.mono) || !self.journal.has_room_for_gift()
        {
            return false;
        }
        if amount == 0 || amount > purse.may_give(key.window) || to == self.holder {
            return false;
        }
        let Some(account) = purse.account_mut(key.window) else { return false };
        let full = account.own.out.len() >= MAX_OUT && !account.own.out.contains_key(&to);
        if full || !account.may_receive(&to) {
            return false;
        }
        account.give(to, amount);
        if let Some(seat) = &mut account.seat {
            seat.gifts.push_back((account.own.seq + 1, to, amount));
            self.journal.mark(place, key.window);
            self.journal.urgent = true;
            return true;
        }
        // A limiter slows down before anybody else may speed up.
        let _slower = purse.may_spend(now.mono);
        self.journal.mark(place, key.window);
        self.journal.post(Gift { place, key, to, amount });
        true
    }

    /// Gives part of what is far too much to a peer that runs short, unasked.
    pub(super) fn push(&mut self, place: usize, now: Now, _effects: &mut Vec<QuotaEffect>) {
        let purse = &self.purses[place];
        let demand = purse.demand.milli_at(now.mono);
        let Some(account) = purse.current() else { return };
        let key = account.own.key;
        let kept = purse.need(demand, PUSH_ABOVE_S);
        let excess = purse.may_give(key.window).saturating_sub(kept);
        let quantum = purse.quantum();
        if excess / 2 < quantum || !account.others_demand || self.draining {
            return;
        }
        let shortest = account
            .ledger
            .rows()
            .map(|signed| &signed.row)
            .filter(|row| row.demand > 0 && !row.sealed && self.is_up(&row.holder.node))
            .filter(|row| !account.ledger.is_quarantined(&row.holder))
            .map(|row| {
                let granted = self.book.grant(&key, &row.holder, now.wall);
                let left = account.ledger.may_give(&row.holder, granted, &account.own);
                (purse.need(row.demand, LOW_S).saturating_sub(left), left, row)
            })
            .max_by_key(|(missing, _, row)| (*missing, row.holder));
        let Some((missing, left, row)) = shortest else { return };
        let wanted = purse.need(row.demand, FILL_S).saturating_sub(left);
        let (to, amount) = (row.holder, wanted.min(excess / 2));
        if missing > 0 && amount >= quantum {
            let _given = self.give(place, key, to, amount, now);
        }
    }
}

impl Purse {
    /// The smallest gift worth a write.
    pub(super) fn quantum(&self) -> u64 {
        (self.current().map_or(0, |account| account.granted) / QUANTUM_PART).max(1)
    }

    /// Whether nothing was asked for lately.
    fn is_idle(&self, now: Mono) -> bool {
        self.demand.idle(now) >= PERMIT_IDLE
    }

    /// What there is to meet demand with. Of a rate that is the share, not what the bucket holds.
    pub(super) fn may_spend_in_long(&self) -> u64 {
        if self.unit().is_windowed() {
            let elastic = self.elastic();
            return self.current().map_or(0, |account| account.in_reach(elastic));
        }
        let permits = self.permits;
        self.tightest().map_or(0, |account| account.rights().saturating_sub(permits))
    }
}

/// Whether what a row says of its demand is far from what it is now.
pub(super) const fn is_stale(said: u64, is: u64) -> bool {
    said.abs_diff(is) > if said > is { said } else { is } / 2
}

impl Quota {
    /// Tells peers of demand that changed by half, with the next write that is due anyway.
    pub(super) fn note_demand(&mut self, place: usize, now: Now) {
        let purse = &mut self.purses[place];
        let demand = purse.demand.milli_at(now.mono);
        // Less than one unit in ten seconds interests nobody.
        let idle = units_in(demand, FILL_S) <= 1;
        let Some(account) = purse.current_mut() else { return };
        if !is_stale(account.own.demand, demand) || (idle && account.own.seq == 0) {
            return;
        }
        account.changed = true;
        let window = account.own.key.window;
        self.journal.mark(place, window);
    }
}
