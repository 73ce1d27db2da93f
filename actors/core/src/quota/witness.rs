//! Witnessed ledgers between nodes: keeping rows for their writers, having one's own kept, and
//! taking over what a holder that is gone had left.
//!
//! Every word of a voter is durable before it is said, and a writer draws a turn durably before it
//! asks for it, so that no turn has two writers. All of it may be lost: whoever misses a word asks
//! again with the next beat. Owns who is asked what and when; what follows from votes is
//! `selvedge_crdt::escrow::Writer`'s, what it does to an account `seat`'s.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, NodeId, Now, Wall};
use selvedge_crdt::escrow::{
    Accepted, Ballot, EscrowRow, Holder, LedgerKey, MAX_BASIS, MAX_OUT, Register, SignedRow,
    Voters, Writer,
};

use super::purse::Account;
use super::reserve::Share;
use super::seat::Takeover;
use super::stored::{Kept, QuotaWrite};
use super::{MAX_PEERS, Quota, QuotaEffect, QuotaEvent, QuotaMessage, WitnessMessage};

/// Registers a node keeps at once: 64 holders of 64 reclaimable budgets in the windows before, at
/// and after a turn.
pub(super) const MAX_REGISTERS: usize = 12_288;
/// A holder that was not reached for so long is gone. The membership has noticed within 3 s, and a
/// process that only starts again is back by then. To be wrong costs little: without a quorum a
/// holder could spend no more, and with one it has its row back a second later.
const GONE_AFTER: Micros = Micros::secs(5);
/// A turn that was asked for and not won by now is asked for anew: three beats.
const ASK_AGAIN_AFTER: Micros = Micros::secs(3);
/// Who has less than so many seconds of demand left takes over what a gone holder had; as much as
/// makes it ask its peers.
const SHORT_S: u64 = 3;

impl Quota {
    /// A member cannot be reached.
    pub(super) fn lost(&mut self, now: Now, node: NodeId) {
        let known = self.peers.remove(&node).is_some();
        if known && self.absent.len() < MAX_PEERS {
            self.absent.insert(node, now.mono);
        }
    }

    /// Takes over the registers the disk held.
    pub(super) fn restore_kept(&mut self, kept: BTreeMap<(LedgerKey, Holder), Register>) {
        for ((key, of), register) in kept {
            let row = register.accepted.as_ref().map(|signed| signed.row.clone());
            let row = row.filter(|row| row.key == key && row.holder == of);
            if let Some(row) = row.filter(|_| of == self.holder) {
                let accounts = self.dormant.entry(key.budget).or_default();
                let at = accounts.iter().position(|account| account.own.key == key);
                let ledger = at.map(|at| accounts.swap_remove(at).ledger);
                let mut account = Account::restored(row);
                account.ledger = ledger.unwrap_or(account.ledger);
                accounts.push(account);
            }
            self.kept.insert((key, of), register);
        }
    }

    /// Adds the registers that changed to a write.
    pub(super) fn draft_kept(
        &self,
        changed: &BTreeSet<(LedgerKey, Holder)>,
        write: &mut QuotaWrite,
    ) {
        for about in changed {
            if let Some(register) = self.kept.get(about) {
                let (key, of) = *about;
                write.kept.push(Kept { key, of, register: register.clone() });
            }
        }
    }

    /// This node is the first witness of its own row.
    pub(super) fn keep_own(&mut self, row: EscrowRow) {
        let about = (row.key, row.holder);
        let signed = SignedRow::seal(row, &*self.seal);
        let accepted = self.kept.entry(about).or_default().accept(signed);
        debug_assert_eq!(accepted, Accepted::Now, "a writer that leads has promised nobody else");
        self.journal.kept.insert(about);
    }

    /// Drops registers of windows that are never opened again.
    pub(super) fn close_registers(&mut self, place: usize) {
        let purse = &self.purses[place];
        if !purse.budget.spec.reclaimable {
            return;
        }
        let (id, floor) = (purse.budget.id, purse.floor);
        let open: BTreeSet<u64> =
            purse.accounts.iter().map(|account| account.own.key.window).collect();
        let over =
            |key: &LedgerKey| key.budget == id && key.window < floor && !open.contains(&key.window);
        let gone: BTreeSet<LedgerKey> =
            self.kept.keys().map(|(key, _)| *key).filter(|key| over(key)).collect();
        if gone.is_empty() {
            return;
        }
        self.kept.retain(|(key, _), _| !gone.contains(key));
        self.journal.kept.retain(|(key, _)| !gone.contains(key));
        self.journal.dropped.extend(gone);
        self.journal.header = true;
    }

    /// Brings an account up to who votes in its ledger.
    pub(super) fn seat(&mut self, place: usize, key: &LedgerKey, wall: Wall) {
        if !self.purses[place].budget.spec.reclaimable {
            return;
        }
        let voters = Voters::new(self.book.voters(key, wall));
        let kept = self.kept.get(&(*key, self.holder));
        let Some(account) = self.purses[place].account_mut(key.window) else { return };
        if account.sit(voters, kept) {
            self.journal.mark(place, key.window);
            self.journal.urgent = true;
        }
    }

    /// Plans marks for a request that lacks something, in all budgets at once.
    pub(super) fn plan_marks(&mut self, now: Now, wanted: &[Share]) {
        for share in wanted {
            self.plan_mark(now, share.place, share.amount);
        }
    }

    /// Plans a mark for a request if only witnesses are missing for it.
    fn plan_mark(&mut self, now: Now, place: usize, amount: u64) {
        let purse = &mut self.purses[place];
        let (block, elastic) = (purse.block(now.mono), purse.elastic());
        let Some(account) = purse.current_mut().filter(|account| account.seat.is_some()) else {
            return;
        };
        if account.plan_mark(amount, block, elastic) {
            let window = account.own.key.window;
            self.journal.mark(place, window);
            self.journal.urgent = true;
            // In the same write, or the request would wait once more.
            let _ticket = self.reach_horizon(now.wall);
        }
    }

    /// Whether enough witnesses of the current ledger can be reached.
    pub(super) fn has_quorum(&self, place: usize) -> bool {
        self.purses[place].current().is_some_and(|account| self.is_quorum_here(account))
    }

    /// The same of one account. A node that does not write its row now will soon.
    pub(super) fn is_quorum_here(&self, account: &Account) -> bool {
        let seat = account.seat.as_ref().filter(|seat| seat.voters.has(&self.holder));
        seat.is_some_and(|seat| seat.voters.is_quorum(|voter| self.is_here(voter)))
    }

    /// Whether a witness can be asked. A node that lost its disk is back as another holder; the one
    /// that votes is gone for good.
    fn is_here(&self, voter: &Holder) -> bool {
        let is_still = |now: &Option<Holder>| now.is_none_or(|now| now == *voter);
        *voter == self.holder || self.peers.get(&voter.node).is_some_and(is_still)
    }

    /// Witnesses that can be asked, this node among them.
    pub(super) fn reached(&self, voters: &Voters) -> Vec<Holder> {
        voters.all().into_iter().filter(|voter| self.is_here(voter)).collect()
    }

    /// Whether some row of this node is still on its way to its witnesses.
    pub(super) fn waits_for_witnesses(&self) -> bool {
        let waits = |account: &Account| {
            account.seat.as_ref().is_some_and(|seat| seat.open.is_some() || account.changed)
        };
        self.purses.iter().filter_map(super::purse::Purse::current).any(waits)
    }

    pub(super) fn is_witnessed(&self, key: &LedgerKey) -> bool {
        self.book.budget(&key.budget).is_some_and(|budget| budget.spec.reclaimable)
    }

    /// A row of this very holder in a witnessed ledger; true when it proves that this node's store
    /// went back.
    pub(super) fn met_own_witnessed(
        &mut self,
        signed: &SignedRow,
        effects: &mut Vec<QuotaEffect>,
    ) -> bool {
        let (ballot, key) = (signed.row.ballot, signed.row.key);
        let mine = ballot.is_none_or(|ballot| ballot.by == self.holder);
        if !signed.is_signed(&*self.seal) {
            return false;
        }
        if !mine {
            self.beaten(key, ballot, effects);
            return false;
        }
        let kept = self.kept.get(&(key, self.holder));
        kept.is_none_or(|kept| kept.promised <= ballot && kept.turn() < Some(signed.row.turn()))
    }

    /// Somebody has the turn at this node's row.
    fn beaten(&mut self, key: LedgerKey, ballot: Option<Ballot>, effects: &mut Vec<QuotaEffect>) {
        let Some(ballot) = ballot.filter(|ballot| ballot.by != self.holder) else { return };
        let purse = self.places.get(&key.budget).map(|place| &mut self.purses[*place]);
        let account = purse.and_then(|purse| purse.account_mut(key.window));
        let Some(seat) = account.and_then(|account| account.seat.as_mut()) else { return };
        let led = seat.writer.leads();
        seat.writer.met(Some(ballot));
        if led && !seat.writer.leads() {
            let event = QuotaEvent::TakenOver { key, by: ballot.by };
            effects.push(QuotaEffect::Report(event));
        }
    }

    /// Somebody said something about a row that is not chosen yet.
    pub(super) fn heard(
        &mut self,
        now: Now,
        from: NodeId,
        said: WitnessMessage,
        effects: &mut Vec<QuotaEffect>,
    ) {
        match said {
            WitnessMessage::Prepare { key, of, ballot } if ballot.by.node == from => {
                self.prepare(now, key, of, ballot, effects);
            }
            WitnessMessage::Propose(signed) if signed.row.signer() == from => {
                self.proposed(now, signed, effects);
            }
            WitnessMessage::Promise { key, of, ballot, by, accepted } if by.node == from => {
                let fits = |signed: &SignedRow| {
                    let row = &signed.row;
                    row.key == key && row.holder == of && signed.is_signed(&*self.seal)
                };
                if accepted.as_ref().is_none_or(fits) {
                    self.promised(now, (key, of), ballot, by, accepted, effects);
                }
            }
            WitnessMessage::Vote { key, of, ballot, by, seq } if by.node == from => {
                self.voted((key, of), ballot, by, seq, effects);
            }
            WitnessMessage::Behind { key, of, promised } => {
                if of == self.holder {
                    self.beaten(key, promised, effects);
                } else if let Some(writer) = self.takeover_of(&key, &of).map(|one| &mut one.writer)
                {
                    writer.met(promised);
                }
            }
            // Nobody speaks for others.
            WitnessMessage::Prepare { .. }
            | WitnessMessage::Propose(_)
            | WitnessMessage::Promise { .. }
            | WitnessMessage::Vote { .. } => {}
        }
    }

    fn takeover_of(&mut self, key: &LedgerKey, of: &Holder) -> Option<&mut Takeover> {
        let place = *self.places.get(&key.budget)?;
        let takeover = self.purses[place].takeover.as_deref_mut()?;
        (takeover.window == key.window && takeover.of == *of).then_some(takeover)
    }

    /// Whether this node is a witness of a row, and of that writer. A window that is about to begin
    /// counts, as clocks differ; one that is dropped here never does again.
    fn is_witness(
        &mut self,
        now: Now,
        (key, of): (LedgerKey, Holder),
        by: &Holder,
        effects: &mut Vec<QuotaEffect>,
    ) -> bool {
        let Some(budget) = self.book.budget(&key.budget) else { return false };
        let newest = budget.spec.period.window(now.wall).saturating_add(1);
        if !self.confirmed || self.retired || !budget.spec.reclaimable || key.window > newest {
            return false;
        }
        let Some(place) = self.place_of(budget, now, effects) else { return false };
        self.refresh(place, now, effects);
        let voters = Voters::new(self.book.voters(&key, now.wall));
        let room = self.kept.contains_key(&(key, of)) || self.kept.len() < MAX_REGISTERS;
        let has_vote = voters.all().contains(&self.holder);
        room && has_vote
            && key.window >= self.purses[place].floor
            && voters.has(&of)
            && voters.has(by)
    }

    /// A writer wants the turn.
    fn prepare(
        &mut self,
        now: Now,
        key: LedgerKey,
        of: Holder,
        ballot: Ballot,
        effects: &mut Vec<QuotaEffect>,
    ) {
        if !self.is_witness(now, (key, of), &ballot.by, effects) {
            return;
        }
        let register = self.kept.entry((key, of)).or_default();
        let said = match register.promise(ballot) {
            Ok(changed) => {
                if changed {
                    self.journal.keep(key, of);
                }
                let (by, accepted) = (self.holder, register.accepted.clone());
                WitnessMessage::Promise { key, of, ballot, by, accepted }
            }
            Err(promised) => WitnessMessage::Behind { key, of, promised },
        };
        self.say(ballot.by.node, said, effects);
        if of == self.holder {
            self.beaten(key, Some(ballot), effects);
        }
    }

    /// A writer wrote.
    fn proposed(&mut self, now: Now, signed: SignedRow, effects: &mut Vec<QuotaEffect>) {
        let (key, of, ballot) = (signed.row.key, signed.row.holder, signed.row.ballot);
        let writer = ballot.map_or(of, |ballot| ballot.by);
        if !self.is_witness(now, (key, of), &writer, effects) || !signed.is_signed(&*self.seal) {
            return;
        }
        let (by, seq) = (self.holder, signed.row.seq);
        let vote = |seq| WitnessMessage::Vote { key, of, ballot, by, seq };
        let said = match self.kept.entry((key, of)).or_default().accept(signed) {
            Accepted::Now => {
                self.journal.keep(key, of);
                vote(seq)
            }
            Accepted::Before { seq } => vote(seq),
            Accepted::Behind { promised } => WitnessMessage::Behind { key, of, promised },
            Accepted::Contradicts(held) => {
                // Its own signature shows the writer that its store went back.
                let message = QuotaMessage::Recalled { holder: of, rows: vec![*held] };
                return effects.push(QuotaEffect::Send { to: writer.node, message });
            }
        };
        self.say(writer.node, said, effects);
        if of == self.holder {
            self.beaten(key, ballot, effects);
        }
    }

    /// Says something of a register as soon as that is durable.
    fn say(&mut self, to: NodeId, said: WitnessMessage, effects: &mut Vec<QuotaEffect>) {
        if let Some(said) = self.journal.reply(to, said)
            && to != self.holder.node
        {
            let message = QuotaMessage::Witness(Box::new(said));
            effects.push(QuotaEffect::Send { to, message });
        }
    }

    /// A write is durable: what was to be said of registers is, and rows in it are proposed.
    pub(super) fn say_kept(
        &mut self,
        now: Now,
        ticket: u64,
        witnessed: &[(usize, LedgerKey)],
        effects: &mut Vec<QuotaEffect>,
    ) {
        for (place, key) in witnessed {
            self.propose(*place, *key, effects);
        }
        while let Some((_, to, said)) =
            self.journal.replies.pop_front_if(|(waits_for, _, _)| *waits_for <= ticket)
        {
            if to == self.holder.node {
                self.heard(now, to, said, effects);
            } else {
                let message = QuotaMessage::Witness(Box::new(said));
                effects.push(QuotaEffect::Send { to, message });
            }
        }
    }

    /// Tells witnesses of this node's open row that have not voted on it.
    fn propose(&mut self, place: usize, key: LedgerKey, effects: &mut Vec<QuotaEffect>) {
        let me = self.holder;
        let signed = self.kept.get(&(key, me)).and_then(|kept| kept.accepted.clone());
        let account = self.purses.get_mut(place).and_then(|purse| purse.account_mut(key.window));
        let (Some(signed), Some(seat)) =
            (signed, account.and_then(|account| account.seat.as_mut()))
        else {
            return;
        };
        let Some(row) = seat.open.as_ref().filter(|row| seat.stored && **row == signed.row) else {
            return;
        };
        let (ballot, seq) = (row.ballot, row.seq);
        for voter in seat.voters.all() {
            let lacks = voter != me && seat.writer.lacks(&voter, seq);
            if lacks && self.peers.contains_key(&voter.node) {
                let said = WitnessMessage::Propose(signed.clone());
                let message = QuotaMessage::Witness(Box::new(said));
                effects.push(QuotaEffect::Send { to: voter.node, message });
            }
        }
        self.voted((key, me), ballot, me, seq, effects);
    }

    /// A witness has a row.
    fn voted(
        &mut self,
        (key, of): (LedgerKey, Holder),
        ballot: Option<Ballot>,
        by: Holder,
        seq: u64,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let Some(place) = self.places.get(&key.budget).copied() else { return };
        if of != self.holder {
            if let Some(takeover) = self.takeover_of(&key, &of) {
                takeover.writer.voted(by, ballot, seq);
            }
            return self.reclaimed(place, &key, effects);
        }
        let Some(account) = self.purses[place].account_mut(key.window) else { return };
        let ahead = seq > account.own.seq;
        let Some(seat) = &mut account.seat else { return };
        if ahead && ballot == seat.writer.ballot() {
            // For a row of ours that we do not know, and so no vote for any that we do.
            return self.recall(by.node, effects);
        }
        seat.writer.voted(by, ballot, seq);
        let Some(gifts) = account.choose() else { return };
        if account.changed || account.gifts {
            self.journal.mark(place, key.window);
            self.journal.urgent = true;
        }
        self.freed = true;
        for (to, amount) in gifts {
            let rows = self.proof_of(place, key);
            effects.push(QuotaEffect::Send { to: to.node, message: QuotaMessage::Rows(rows) });
            effects.push(QuotaEffect::Report(QuotaEvent::Gave { key, to, amount }));
        }
    }

    /// A witness promised a turn.
    fn promised(
        &mut self,
        now: Now,
        (key, of): (LedgerKey, Holder),
        ballot: Ballot,
        by: Holder,
        accepted: Option<SignedRow>,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let Some(place) = self.places.get(&key.budget).copied() else { return };
        let purse = &mut self.purses[place];
        if of == self.holder {
            let Some(account) = purse.account_mut(key.window) else { return };
            let Some(seat) = &mut account.seat else { return };
            seat.writer.promised(by, ballot, accepted);
            let Some(newest) = seat.writer.begin(&seat.voters) else { return };
            account.go_on_from(newest.map(|signed| signed.row));
            self.journal.mark(place, key.window);
            self.journal.urgent = true;
            return effects.push(QuotaEffect::Report(QuotaEvent::Regained { key }));
        }
        let Some(seat) = purse.account(key.window).and_then(|account| account.seat.as_ref()) else {
            return;
        };
        let voters = seat.voters.clone();
        let Some(takeover) = self.takeover_of(&key, &of) else { return };
        takeover.writer.promised(by, ballot, accepted);
        if let Some(newest) = takeover.writer.begin(&voters) {
            self.take_over(now, place, (key, of), ballot, newest, &voters);
        }
    }

    /// The turn is ours: what the holder has left beyond its mark is given to this node.
    fn take_over(
        &mut self,
        now: Now,
        place: usize,
        (key, of): (LedgerKey, Holder),
        ballot: Ballot,
        newest: Option<SignedRow>,
        voters: &Voters,
    ) {
        let me = self.holder;
        let granted = self.book.grant(&key, &of, now.wall);
        let purse = &mut self.purses[place];
        purse.settle_backing(key.window, &*self.book);
        let Some(account) = purse.account(key.window) else { return };
        let newest = match plant::is_on(Plant::TakenOverUnasked) {
            true => account.ledger.get(&of).cloned(),
            false => newest,
        };
        let mut row = newest.map_or_else(|| EscrowRow::new(key, of), |signed| signed.row);
        let rest = account.rest_of(&of, granted, Some(&row));
        row.seq += 1;
        row.ballot = Some(ballot);
        row.demand = 0;
        let donors = account.ledger.gifts_to(&of).map(|(signed, _)| &signed.row);
        let own = Some(&account.durable).filter(|own| own.out.contains_key(&of));
        for donor in donors.chain(own) {
            let known = row.basis.entry(donor.holder).or_default();
            *known = donor.seq.max(*known);
        }
        let given = row.out.entry(me).or_default();
        *given = given.saturating_add(rest);
        let fits = row.out.len() <= MAX_OUT && row.basis.len() <= MAX_BASIS;
        if rest == 0 || row.sealed || !fits {
            // Nothing to take. Whoever is missed has its row back when it returns.
            purse.takeover = None;
            return;
        }
        let seq = row.seq;
        let signed = SignedRow::seal(row, &*self.seal);
        if self.kept.entry((key, of)).or_default().accept(signed.clone()) != Accepted::Now {
            purse.takeover = None;
            return;
        }
        if let Some(takeover) = &mut purse.takeover {
            (takeover.open, takeover.amount) = (Some(signed.clone()), rest);
        }
        self.journal.keep(key, of);
        for voter in self.reached(voters) {
            let vote = WitnessMessage::Vote { key, of, ballot: Some(ballot), by: me, seq };
            let said = if voter == me { vote } else { WitnessMessage::Propose(signed.clone()) };
            let _waits = self.journal.reply(voter.node, said);
        }
    }

    /// A takeover is chosen: everybody may know, and the gift in it counts as any other.
    fn reclaimed(&mut self, place: usize, key: &LedgerKey, effects: &mut Vec<QuotaEffect>) {
        let purse = &mut self.purses[place];
        let seat = purse.account(key.window).and_then(|account| account.seat.as_ref());
        let Some(voters) = seat.map(|seat| &seat.voters) else { return };
        let is_chosen = |takeover: &Takeover| {
            let open = takeover.open.as_ref();
            open.is_some_and(|signed| takeover.writer.is_chosen(&signed.row, voters))
        };
        if !purse.takeover.as_deref().is_some_and(is_chosen) {
            return;
        }
        let Some(takeover) = purse.takeover.take() else { return };
        let Some(signed) = takeover.open else { return };
        let Some(account) = purse.account_mut(key.window) else { return };
        let older = account.ledger.get(&takeover.of).map(|signed| signed.row.clone());
        let _merged = account.ledger.merge(signed.clone(), |_| true);
        account.backing.changed(older.as_ref(), takeover.of);
        account.fresh.insert(takeover.of);
        account.gifts = true;
        account.count_others();
        self.journal.mark(place, key.window);
        self.journal.urgent = true;
        for peer in self.peers.keys() {
            let message = QuotaMessage::Rows(vec![signed.clone()]);
            effects.push(QuotaEffect::Send { to: *peer, message });
        }
        let (from, amount) = (takeover.of, takeover.amount);
        effects.push(QuotaEffect::Report(QuotaEvent::Reclaimed { key: *key, from, amount }));
    }

    /// Once a second: says again what witnesses have not answered, asks for the own row back, and
    /// takes over what a holder that is gone has left if it is needed here.
    pub(super) fn look_after_witnesses(
        &mut self,
        place: usize,
        now: Now,
        effects: &mut Vec<QuotaEffect>,
    ) {
        let Some(account) = self.purses[place].current() else { return };
        let (key, leads) = (account.own.key, account.may_write());
        let Some(seat) = &account.seat else { return };
        if !self.confirmed || self.journal.is_failing(now.mono) {
            return;
        }
        if leads {
            self.fetch_ahead(place, now);
            self.propose(place, key, effects);
        } else if seat.voters.has(&self.holder) {
            self.ask_back(place, key, now);
        }
        let begun = self.purses[place].takeover.as_ref().map(|takeover| takeover.begun);
        if begun.is_some_and(|at| now.mono.since(at) >= ASK_AGAIN_AFTER) {
            self.purses[place].takeover = None;
        }
        if leads && self.purses[place].takeover.is_none() {
            self.reclaim(place, key, now);
        }
    }

    /// A budget that is asked for has a block before the first request of a window needs one.
    fn fetch_ahead(&mut self, place: usize, now: Now) {
        let purse = &mut self.purses[place];
        let demand = purse.demand.milli_at(now.mono);
        let block = purse.block(now.mono);
        let is_asked_for = purse.need(demand, SHORT_S) > 1;
        if let Some(account) = purse.current_mut().filter(|_| is_asked_for)
            && account.plan_ahead(block)
        {
            let window = account.own.key.window;
            self.journal.mark(place, window);
            let _ticket = self.reach_horizon(now.wall);
        }
    }

    /// Asks for the turn at this node's own row.
    fn ask_back(&mut self, place: usize, key: LedgerKey, now: Now) {
        if !self.has_quorum(place) {
            return;
        }
        let (me, promised) = (self.holder, self.promised_to(&key, &self.holder));
        let account = self.purses[place].account_mut(key.window);
        let Some(seat) = account.and_then(|account| account.seat.as_mut()) else { return };
        let waits = seat.asked_at.is_some_and(|at| now.mono.since(at) < ASK_AGAIN_AFTER);
        if seat.writer.asks() && waits {
            return;
        }
        let above = seat.writer.ballot().max(promised);
        seat.writer = Writer::asking(me, above);
        seat.asked_at = Some(now.mono);
        let (ballot, voters) = (seat.writer.ballot(), seat.voters.clone());
        self.ask_turn(key, me, ballot, &voters);
    }

    /// Looks for a holder that is gone and has left what is needed here.
    fn reclaim(&mut self, place: usize, key: LedgerKey, now: Now) {
        let purse = &mut self.purses[place];
        let demand = purse.demand.milli_at(now.mono);
        let left = purse.may_spend_in_long();
        if demand == 0 || left >= purse.need(demand, SHORT_S) || self.draining {
            return;
        }
        purse.settle_backing(key.window, &*self.book);
        let purse = &self.purses[place];
        let quantum = purse.quantum();
        let Some(account) = purse.account(key.window) else { return };
        let Some(seat) = account.seat.as_ref().filter(|_| self.has_quorum(place)) else { return };
        let since = |node: &NodeId| self.absent.get(node).copied().unwrap_or(self.looks_since);
        let is_gone = |voter: &&Holder| {
            !self.is_here(voter) && now.mono.since(since(&voter.node)) >= GONE_AFTER
        };
        let rest = |voter: &Holder| {
            let granted = self.book.grant(&key, voter, now.wall);
            let row = account.ledger.get(voter).map(|signed| &signed.row);
            (account.rest_of(voter, granted, row), *voter)
        };
        let all = seat.voters.all();
        let gone = all.iter().filter(is_gone).filter(|voter| seat.voters.has(voter));
        let Some((amount, of)) = gone.map(rest).max() else { return };
        if amount < quantum || account.ledger.is_quarantined(&of) {
            return;
        }
        let voters = seat.voters.clone();
        let writer = Writer::asking(self.holder, self.promised_to(&key, &of));
        let ballot = writer.ballot();
        let (window, begun) = (key.window, now.mono);
        let takeover = Takeover { window, of, writer, open: None, amount: 0, begun };
        self.purses[place].takeover = Some(Box::new(takeover));
        self.ask_turn(key, of, ballot, &voters);
    }

    fn promised_to(&self, key: &LedgerKey, of: &Holder) -> Option<Ballot> {
        self.kept.get(&(*key, *of)).and_then(|kept| kept.promised)
    }

    /// Draws a turn, durably, and then asks all witnesses for it.
    fn ask_turn(&mut self, key: LedgerKey, of: Holder, ballot: Option<Ballot>, voters: &Voters) {
        let Some(ballot) = ballot else { return };
        let register = self.kept.entry((key, of)).or_default();
        if register.promise(ballot).is_err() {
            return;
        }
        let (by, accepted) = (self.holder, register.accepted.clone());
        let mut own = Some(WitnessMessage::Promise { key, of, ballot, by, accepted });
        self.journal.keep(key, of);
        for voter in self.reached(voters) {
            let prepare = WitnessMessage::Prepare { key, of, ballot };
            let said = if voter == by { own.take() } else { Some(prepare) };
            let _waits = said.and_then(|said| self.journal.reply(voter.node, said));
        }
    }
}
