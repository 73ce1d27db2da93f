//! Permits and rates at a node that holds none by the epoch in force: it came later.
//!
//! What is windowed a newcomer spends as anybody does, since a window stays with its epoch. A
//! ledger of permits or rates ends with the word of all holders, and nobody asks for a newcomer's.
//! So it uses what it was given only while a holder vouches: says until when no other ledger can
//! count. The holder gives its own word for a later time than that; see [`Quota::latest`].

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono, NodeId, Now, Wall};
use selvedge_crdt::escrow::LedgerKey;
use selvedge_proto::policy::Standing;

use super::purse::Purse;
use super::{Quota, QuotaEffect, QuotaMessage};

/// The longest a holder vouches for. Its next word is delayed by as much, and a guest that is cut
/// off stops after it; asked for every second, it may be lost a few times.
const VOUCH: Micros = Micros::secs(5);
/// Holders asked at a time.
const ASKED_AT_ONCE: usize = 2;

/// What holders said to this node as a guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vouching {
    /// The last question: of which ledger, its number, and when it was asked.
    asked: Option<(LedgerKey, u64, Mono)>,
    /// For which ledger somebody vouched, and until when.
    until: Option<(LedgerKey, Mono)>,
}

impl Purse {
    /// Whether what is held of permits and rates may be used.
    pub(super) fn is_vouched(&self, now: Mono) -> bool {
        match self.term.map(|term| term.standing) {
            Some(Standing::Open(_)) if plant::is_on(Plant::NewcomerUsesUnvouched) => true,
            Some(Standing::Open(ledgers)) if ledgers.guest => {
                self.vouching.until.is_some_and(|(key, until)| key == ledgers.first && now < until)
            }
            Some(_) | None => true,
        }
    }

    /// The ledger somebody must vouch for.
    fn as_guest(&self) -> Option<LedgerKey> {
        match self.term?.standing {
            Standing::Open(ledgers) if ledgers.guest => Some(ledgers.first),
            Standing::Open(_) | Standing::Free | Standing::Stopped(_) => None,
        }
    }
}

impl Quota {
    /// As a guest, asks holders to vouch.
    pub(super) fn ask_to_vouch(&mut self, place: usize, now: Now, effects: &mut Vec<QuotaEffect>) {
        let Some(key) = self.purses[place].as_guest() else { return };
        let holders: Vec<NodeId> = self
            .peers
            .iter()
            .filter_map(|(node, holder)| holder.map(|holder| (*node, holder)))
            .filter(|(_, holder)| self.book.is_member(&key, holder, now.wall))
            .map(|(node, _)| node)
            .collect();
        if holders.is_empty() || self.draining {
            return;
        }
        let nonce = self.dice.next();
        self.purses[place].vouching.asked = Some((key, nonce, now.mono));
        for to in self.draw(&holders, ASKED_AT_ONCE) {
            effects.push(QuotaEffect::Send { to, message: QuotaMessage::Vouch { key, nonce } });
        }
    }

    /// A guest asks for how long nothing but this ledger can count.
    pub(super) fn asked_to_vouch(
        &mut self,
        now: Now,
        from: NodeId,
        key: LedgerKey,
        nonce: u64,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let Some(place) = self.place_of_ledger(&key, now, effects) else { return };
        let Some(term) = self.purses[place].term else { return };
        let Standing::Open(ledgers) = term.standing else { return };
        let alone = ledgers.first == key && ledgers.also.iter().all(Option::is_none);
        if plant::is_on(Plant::NobodyVouches) {
            return;
        }
        if !alone || ledgers.guest || !self.book.is_member(&key, &self.holder, now.wall) {
            return;
        }
        // What is remembered over a crash is when this node spent at the latest.
        let _waits = self.reach_horizon(now.wall);
        let until = term.until.min(now.wall.plus(VOUCH)).min(self.horizon.durable);
        if until <= now.wall {
            return;
        }
        self.spent_at = self.spent_at.max(until);
        let lasts = until.since(now.wall);
        let message = QuotaMessage::Vouched { key, nonce, lasts };
        effects.push(QuotaEffect::Send { to: from, message });
    }

    /// A holder vouches, from when it was asked.
    pub(super) fn vouched(
        &mut self,
        now: Wall,
        from: NodeId,
        key: LedgerKey,
        nonce: u64,
        lasts: Micros,
    ) {
        let by = self.peers.get(&from).copied().flatten();
        if !by.is_some_and(|holder| self.book.is_member(&key, &holder, now)) {
            return;
        }
        let Some(place) = self.places.get(&key.budget).copied() else { return };
        let vouching = &mut self.purses[place].vouching;
        let Some((asked, number, at)) = vouching.asked else { return };
        if (asked, number) != (key, nonce) {
            return;
        }
        let until = at.plus(lasts.min(VOUCH));
        if vouching.until.is_none_or(|(held, before)| held != key || before < until) {
            vouching.until = Some((key, until));
            self.freed = true;
        }
    }
}
