//! Exchanging rows: what comes in, what goes out and to whom.
//!
//! Rows travel three ways: a gift's row goes straight to its receiver, changed rows go to a few
//! peers every second, and digests find what was lost on the way.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono, NodeId, Now, Wall};
use selvedge_crdt::escrow::{
    Holder, LedgerKey, Misdeed, RowMerged, RowRefused, SignedRow, Standing,
};

use super::purse::{Account, Purse};
use super::{Grants, MAX_PAYLOAD_BYTES, Quota, QuotaDigest, QuotaEffect, QuotaEvent, QuotaMessage};

/// Peers told of changed rows every second. With three, news reaches a hundred nodes in about five
/// seconds, and a node's traffic does not grow with the mesh.
const FANOUT: usize = 3;
/// Peers a digest goes to every second.
const DIGEST_FANOUT: usize = 1;
/// How often the sender of a gift is asked for rows that cover it, per ledger: as often as a node
/// with a request waiting asks for gifts.
const INQUIRE_EVERY: Micros = Micros::millis(200);
/// Bytes of one ledger's key and of one holder with a number in a digest, at most.
const KEY_BYTES: usize = 26;
const HEAD_BYTES: usize = 52;

impl Quota {
    /// A member said something.
    pub(super) fn received(
        &mut self,
        now: Now,
        from: NodeId,
        message: QuotaMessage,
        effects: &mut Vec<QuotaEffect>,
    ) {
        if from == self.holder.node || !message.is_within_bounds() {
            return;
        }
        match message {
            QuotaMessage::Digest(digest) => self.compared(now, from, &digest, effects),
            QuotaMessage::Rows(rows) => self.met_rows(now, from, rows, effects),
            QuotaMessage::Ask(ask) => self.asked_for_rights(now, from, ask, effects),
            QuotaMessage::Declined { key } => self.declined(now, key, effects),
            QuotaMessage::Recall { holder, heads } => {
                self.recalled_by(from, holder, &heads, effects);
            }
            QuotaMessage::Vouch { key, nonce } => {
                self.asked_to_vouch(now, from, key, nonce, effects);
            }
            QuotaMessage::Vouched { key, nonce, lasts } => {
                self.vouched(now.wall, from, key, nonce, lasts);
            }
            QuotaMessage::Recalled { holder, rows } => self.recalled(from, holder, rows, effects),
            QuotaMessage::Witness(said) => self.heard(now, from, *said, effects),
        }
    }

    /// Rows came. What follows from them is worked out once for all of a ledger.
    fn met_rows(
        &mut self,
        now: Now,
        from: NodeId,
        rows: Vec<SignedRow>,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let mut news: BTreeMap<(usize, LedgerKey), Vec<Holder>> = BTreeMap::new();
        for signed in rows {
            let (key, holder) = (signed.row.key, signed.row.holder);
            if let Some(place) = self.met_row(now, from, signed, effects) {
                news.entry((place, key)).or_default().push(holder);
            }
        }
        for ((place, key), holders) in news {
            self.met_news(now, from, place, key, &holders, effects);
        }
    }

    /// A row came; the place of its purse, if it is news.
    fn met_row(
        &mut self,
        now: Now,
        from: NodeId,
        signed: SignedRow,
        effects: &mut Vec<QuotaEffect>,
    ) -> Option<usize> {
        if signed.row.holder == self.holder {
            self.met_own_row(signed, effects);
            return None;
        }
        let (key, holder) = (signed.row.key, signed.row.holder);
        let place = self.place_of_ledger(&key, now, effects)?;
        let welcome = self.may_hold(&key, &holder.node, now.wall);
        let account = self.purses[place].account_mut(key.window)?;
        if !account.may_be_written(&signed.row) {
            return None;
        }
        let older = account.ledger.get(&holder).map(|signed| signed.row.clone());
        if older.is_none() && !welcome {
            let why = RowRefused::Stranger(holder.node);
            effects.push(QuotaEffect::Report(QuotaEvent::RowRefused { from, why }));
            return None;
        }
        let seal = &*self.seal;
        match account.ledger.merge(signed, |signed| signed.is_signed(seal)) {
            RowMerged::Known => return None,
            RowMerged::Newer => {
                account.fresh.insert(holder);
                // A row that became known may be what another was waiting for.
                account.gifts = true;
            }
            RowMerged::Conflict(misdeed) => report_misdeed(misdeed, effects),
            RowMerged::Refused(why) => {
                effects.push(QuotaEffect::Report(QuotaEvent::RowRefused { from, why }));
                return None;
            }
        }
        account.backing.changed(older.as_ref(), holder);
        Some(place)
    }

    /// Rows of these holders are new in a ledger.
    fn met_news(
        &mut self,
        now: Now,
        from: NodeId,
        place: usize,
        key: LedgerKey,
        holders: &[Holder],
        effects: &mut Vec<QuotaEffect>,
    ) {
        let (me, book) = (self.holder, self.book.clone());
        let purse = &mut self.purses[place];
        let elastic = purse.elastic();
        purse.settle_backing(key.window, &*book);
        let Some(account) = purse.account_mut(key.window) else { return };
        account.count_others();
        for holder in holders {
            let Some(signed) = account.ledger.get(holder) else { continue };
            let Some(ceiling) = book.ceiling(&key, holder) else { continue };
            let allowed = ceiling.saturating_add(elastic);
            let own = account.told_row();
            if account.ledger.standing(&signed.row, allowed, own) == Standing::Overdrawn {
                let by = signed.row.signer();
                let event = QuotaEvent::Overdrawn { key, holder: *holder, by };
                effects.push(QuotaEffect::Report(event));
            }
        }
        let (mut counts, mut lacks) = (false, false);
        for (donor, _) in account.uncounted_gifts(&me) {
            let covered = account.backing.covers(&donor);
            counts |= covered;
            lacks |= !covered;
        }
        let rested = |at: Mono| now.mono >= at.plus(INQUIRE_EVERY);
        let inquires = lacks && account.inquired_at.is_none_or(rested);
        if inquires {
            // Whoever counted on a gift has the rows that cover it.
            account.inquired_at = Some(now.mono);
            let heads = vec![(key, account.heads(&me))];
            let digest = QuotaMessage::Digest(QuotaDigest { holder: me, heads });
            effects.push(QuotaEffect::Send { to: from, message: digest });
        }
        if counts {
            self.journal.mark(place, key.window);
            self.journal.urgent = true;
        }
        self.withhold(place, &key, now);
    }

    /// Whether a node is, or was since the start, a member of the mesh.
    fn is_known(&self, node: &NodeId) -> bool {
        self.peers.contains_key(node) || self.known.contains(node)
    }

    /// Whether rows of a node are kept: a member, whichever of its stores writes. An epoch names
    /// those that nobody here has met.
    fn may_hold(&self, key: &LedgerKey, node: &NodeId, wall: Wall) -> bool {
        let named = || self.book.members(key, wall).iter().any(|member| member.node == *node);
        self.is_known(node) || named()
    }

    /// A peer says what it has: it gets what it lacks, and is asked when it knows more of this
    /// node than this node itself.
    fn compared(
        &mut self,
        now: Now,
        from: NodeId,
        digest: &QuotaDigest,
        effects: &mut Vec<QuotaEffect>,
    ) {
        if !self.note_peer(from, digest.holder) {
            return;
        }
        let mut rows = Vec::new();
        let mut left = MAX_PAYLOAD_BYTES;
        let mut suspicious = false;
        for (key, heads) in &digest.heads {
            let Some(place) = self.place_of_ledger(key, now, effects) else { continue };
            let (me, seal) = (self.holder, self.seal.clone());
            let Some(account) = self.purses[place].account_mut(key.window) else { continue };
            let named: BTreeMap<_, _> = heads.iter().copied().collect();
            let theirs = |holder| named.get(holder).copied().unwrap_or(0);
            suspicious |= theirs(&me) > account.written();
            if account.durable.seq > theirs(&me) {
                account.sign(&*seal);
                push_row(account.signed.as_ref(), &mut rows, &mut left);
            }
            for signed in account.ledger.rows() {
                if signed.row.seq > theirs(&signed.row.holder) {
                    push_row(Some(signed), &mut rows, &mut left);
                }
            }
        }
        if !rows.is_empty() {
            effects.push(QuotaEffect::Send { to: from, message: QuotaMessage::Rows(rows) });
        }
        if suspicious {
            self.recall(from, effects);
        }
    }

    /// Tells a few peers what changed here, and one of them what this node has.
    pub(super) fn tell(&mut self, _now: Now, effects: &mut Vec<QuotaEffect>) {
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        if peers.is_empty() {
            return;
        }
        let rows = self.changed_rows();
        for peer in self.draw(&peers, FANOUT) {
            for rows in in_messages(&rows) {
                effects.push(QuotaEffect::Send { to: peer, message: QuotaMessage::Rows(rows) });
            }
        }
        for peer in self.draw(&peers, DIGEST_FANOUT) {
            let digest = QuotaMessage::Digest(self.digest());
            effects.push(QuotaEffect::Send { to: peer, message: digest });
        }
    }

    /// The rows of this node that changed since it last told them.
    fn changed_rows(&mut self) -> Vec<SignedRow> {
        let mut rows = Vec::new();
        let seal = self.seal.clone();
        for purse in &mut self.purses {
            let Some(account) = purse.current_mut() else { continue };
            if account.durable.seq > account.told {
                account.told = account.durable.seq;
                account.sign(&*seal);
                rows.extend(account.signed.clone());
            }
        }
        rows
    }

    /// What this node has, as much as fits a message; the next one goes on where this ends.
    fn digest(&mut self) -> QuotaDigest {
        let mut heads = Vec::new();
        let mut left = MAX_PAYLOAD_BYTES;
        let count = self.purses.len();
        for step in 0..count {
            let place = (self.digest_from + step) % count;
            let Some(account) = self.purses[place].current() else { continue };
            let size = KEY_BYTES + HEAD_BYTES * (1 + account.ledger.len());
            if size > left && !heads.is_empty() {
                self.digest_from = place;
                break;
            }
            left = left.saturating_sub(size);
            heads.push((account.own.key, account.heads(&self.holder)));
        }
        QuotaDigest { holder: self.holder, heads }
    }

    /// This node's durable row of a ledger and the rows it counts on, so that the receiver can
    /// check it at once.
    pub(super) fn proof_of(&mut self, place: usize, key: LedgerKey) -> Vec<SignedRow> {
        let seal = self.seal.clone();
        let account = self.purses.get_mut(place).and_then(|purse| purse.account_mut(key.window));
        let Some(account) = account.filter(|account| account.durable.seq > 0) else {
            return Vec::new();
        };
        account.sign(&*seal);
        let (mut rows, mut left) = (Vec::new(), MAX_PAYLOAD_BYTES);
        push_row(account.signed.as_ref(), &mut rows, &mut left);
        for donor in account.durable.basis.keys() {
            push_row(account.ledger.get(donor), &mut rows, &mut left);
        }
        rows
    }

    /// The place of a ledger that is open here, made if its budget is known and it is the current
    /// one. Ledgers that only others have opened yet are met again later.
    pub(super) fn place_of_ledger(
        &mut self,
        key: &LedgerKey,
        now: Now,
        effects: &mut Vec<QuotaEffect>,
    ) -> Option<usize> {
        let place = match self.places.get(&key.budget) {
            Some(place) => *place,
            None => self.place_of(self.book.budget(&key.budget)?, now, effects)?,
        };
        self.refresh(place, now, effects);
        self.purses[place].account(key.window)?;
        Some(place)
    }

    /// Up to `count` of the peers, by chance.
    pub(super) fn draw(&mut self, peers: &[NodeId], count: usize) -> Vec<NodeId> {
        let start = self.dice.below(peers.len() as u64) as usize;
        let around = peers.iter().cycle().skip(start).copied();
        around.take(count.min(peers.len())).collect()
    }
}

impl Purse {
    /// Brings up to date which rows of a ledger are paid for.
    pub(super) fn settle_backing(&mut self, window: u64, book: &dyn Grants) {
        let elastic = self.elastic();
        let Some(account) = self.account_mut(window) else { return };
        let Account { ledger, backing, own, durable, seat, .. } = account;
        // What a witnessed row only plans may never count.
        let own = if seat.is_some() { durable } else { own };
        let allowed = |holder: &Holder| {
            let ceiling = book.ceiling(&own.key, holder).unwrap_or(0);
            ceiling.saturating_add(elastic)
        };
        backing.settle(ledger, own, allowed);
    }
}

impl Account {
    /// The newest row of this node that its disk may hold.
    pub(super) fn written(&self) -> u64 {
        if self.seat.is_some() { self.own.seq } else { self.durable.seq }
    }

    /// Whether whoever wrote a row may: its holder, and in a witnessed ledger all who vote.
    fn may_be_written(&self, row: &selvedge_crdt::escrow::EscrowRow) -> bool {
        match (&self.seat, row.ballot) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(seat), Some(ballot)) => seat.voters.has(&ballot.by),
        }
    }

    /// Makes the signed form of the durable row.
    fn sign(&mut self, seal: &dyn selvedge_crdt::escrow::Seal) {
        if self.signed.is_none() {
            self.signed = Some(SignedRow::seal(self.durable.clone(), seal));
        }
    }

    /// Donors of this node and what they gave it, where that is more than was counted.
    fn uncounted_gifts(&self, me: &Holder) -> impl Iterator<Item = (Holder, u64)> {
        self.ledger.gifts_to(me).filter_map(|(signed, amount)| {
            let counted = self.credited.get(&signed.row.holder).copied().unwrap_or(0);
            (amount > counted).then_some((signed.row.holder, amount))
        })
    }

    /// Which rows are held.
    fn heads(&self, me: &Holder) -> Vec<(Holder, u64)> {
        let mut heads = Vec::with_capacity(1 + self.ledger.len());
        if self.durable.seq > 0 {
            heads.push((*me, self.durable.seq));
        }
        heads.extend(self.ledger.rows().map(|signed| (signed.row.holder, signed.row.seq)));
        heads
    }

    /// After a restart: gifts on disk count if this node's row named them, or will.
    pub(super) fn count_durable_gifts(&mut self, me: &Holder) {
        let named: Vec<_> = self
            .ledger
            .gifts_to(me)
            .filter(|(signed, _)| {
                let basis = self.own.basis.get(&signed.row.holder);
                basis.is_some_and(|seq| *seq <= signed.row.seq)
            })
            .map(|(signed, amount)| (signed.row.holder, amount))
            .collect();
        for (donor, amount) in named {
            let _added = self.credit(donor, amount);
        }
        self.gifts = true;
        self.backing.doubt_all();
        self.count_others();
    }
}

fn push_row(signed: Option<&SignedRow>, rows: &mut Vec<SignedRow>, left: &mut usize) {
    if let Some(signed) = signed.filter(|signed| signed.wire_bytes() <= *left) {
        *left -= signed.wire_bytes();
        rows.push(signed.clone());
    }
}

/// Rows in as few messages as they fit.
fn in_messages(rows: &[SignedRow]) -> Vec<Vec<SignedRow>> {
    let mut messages: Vec<Vec<SignedRow>> = Vec::new();
    let mut left = 0;
    for signed in rows {
        let size = signed.wire_bytes();
        match messages.last_mut() {
            Some(message) if size <= left => message.push(signed.clone()),
            Some(_) | None => {
                messages.push(vec![signed.clone()]);
                left = MAX_PAYLOAD_BYTES;
            }
        }
        left = left.saturating_sub(size);
    }
    messages
}

fn report_misdeed(misdeed: Box<Misdeed>, effects: &mut Vec<QuotaEffect>) {
    effects.push(QuotaEffect::Report(QuotaEvent::Evidence(misdeed)));
}
