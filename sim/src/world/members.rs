//! Who belongs: what is presented when a connection is made, leases, joining with a code, leaving.
//!
//! The roster, the codes and both sides of joining are production's machines, with real signatures
//! and the real key exchange. The observer keeps its own account of whom a steward let in.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::{Micros, Mono, Wall};
use selvedge_core::quota::QuotaInput;
use selvedge_proto::join::{
    Issuer, IssuerStep, JoinCode, JoinError, JoinMessage, Joiner, JoinerStep, MAX_ATTEMPTS,
};
use selvedge_proto::records::{
    CLOCK_SKEW, Credential, DEFAULT_LEASE, RecordError, STEWARD_LEASE, Signed, Steward,
    grant_membership, grant_steward,
};
use selvedge_proto::swim::SwimInput;

use super::{Due, Load, Own, World};
use crate::clock::EPOCH;
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::watch::EventKind;

/// Nodes that may admit and renew: most meshes have two or three.
const STEWARDS: usize = 2;
/// How long before a run its members were admitted: longer than any clock in it is wrong.
const FOUNDED: Micros = Micros::secs(24 * 3_600);
/// How often a node asks for a new lease that is due, as production does.
const RENEW_EVERY: Micros = Micros::secs(30);
/// How long a person waits before the next attempt to join.
const JOIN_AGAIN: Micros = Micros::secs(4);
/// How long a code of a simulated operator works: several attempts, and now and then not enough.
const CODE_LASTS: Micros = Micros::secs(8);
/// How long a node that leaves waits until its rights are given away, as production does.
const RETIRE_WITHIN: Micros = Micros::millis(1_500);

/// What the observer knows of membership.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Whom a code let in, by issuer and code, and when it stops working.
    codes: BTreeMap<(usize, u32), (Wall, BTreeSet<usize>)>,
    /// Counts attempts to join.
    attempts: u64,
}

/// A process on one side of joining.
#[derive(Default)]
pub(crate) struct Joining {
    /// It tries, and will again: whoever is told twice does not start a second time.
    tries: bool,
    /// As the one that joins: which attempt, with which code of whom.
    joiner: Option<(u64, usize, Joiner)>,
    code: Option<(usize, JoinCode)>,
    /// As the one that issued codes: by attempt, with the number of its code.
    issuers: BTreeMap<u64, (u32, Issuer)>,
    /// Answers that wait for the disk.
    answers: BTreeMap<u64, (usize, JoinMessage)>,
}

/// Attempts one node serves at a time, as connections end.
const MAX_ISSUERS: usize = 8;

impl World<'_> {
    /// The mesh is founded: stewards by the root's word, members by theirs.
    pub(super) fn found(&mut self) {
        let mesh = self.nodes[0].memory.roster.mesh();
        let wall = EPOCH.minus(FOUNDED);
        let inside: Vec<usize> =
            (0..self.nodes.len()).filter(|one| self.nodes[*one].is_in).collect();
        let stewards: Vec<(usize, Signed<Steward>)> = inside
            .iter()
            .take(STEWARDS)
            .map(|node| {
                let id = self.names.id(*node);
                (*node, grant_steward(&self.names.root, mesh, 0, id, wall, STEWARD_LEASE))
            })
            .collect();
        let lease = self.plan.options.lease;
        let issued =
            lease.map_or(wall, |lease| EPOCH.plus(lease).minus(CLOCK_SKEW).minus(DEFAULT_LEASE));
        for node in inside {
            let (steward, record) = &stewards[node % stewards.len()];
            let key = self.names.key(*steward);
            let (id, name) = (self.names.id(node), name_of(node));
            let made = grant_membership(key, record, &[], id, &name, issued, DEFAULT_LEASE);
            let Ok(credential) = made else { continue };
            let state = &mut self.nodes[node];
            // A member's own record holds when it is signed, whatever its node's clock says later.
            let taken = state.memory.roster.set_own(credential, EPOCH);
            debug_assert!(taken.is_ok(), "a founding member's record is good: {taken:?}");
            state.disk.stored.roster = Some(state.memory.roster.snapshot());
        }
    }

    /// Whether the node presents a membership.
    pub(super) fn belongs(&self, node: usize) -> bool {
        self.nodes[node].memory.roster.own().is_some()
    }

    /// Whether a node is outside for all that the others should think of it.
    pub(super) fn is_out(&self, node: usize) -> bool {
        let state = &self.nodes[node];
        state.is_revoked || state.has_left || !self.belongs(node)
    }

    /// Whether `node`, by its own clock, finds what `peer` presents to it in time, and no steward
    /// signed it who had been put out: those who know that turn `peer` away, unless an older lease
    /// covers it, and those who do not let it in.
    pub(super) fn finds_in_time(&self, node: usize, peer: usize) -> bool {
        let wall = self.nodes[node].now(self.now.0).wall;
        let shown = self.nodes[node].memory.presented.get(&peer);
        let held = shown.or_else(|| self.nodes[peer].memory.roster.own());
        held.is_some_and(|credential| in_time(credential, wall) && !self.is_void(credential))
    }

    fn is_void(&self, credential: &Credential) -> bool {
        let out = self.nodes[self.names.index(&credential.steward.body.node)].revoked_at;
        out.is_some_and(|at| credential.membership.body.issued > at)
    }

    /// The door: whether `node` lets `peer` in.
    pub(super) fn lets_in(&mut self, node: usize, peer: usize) -> bool {
        let id = self.id(peer);
        let wall = self.nodes[node].now(self.now.0).wall;
        let roster = &self.nodes[node].memory.roster;
        if roster.own().is_none() {
            self.hit(Mark::StrangerRefused);
            return false;
        }
        let Some(credential) = self.nodes[peer].memory.roster.own() else {
            self.hit(Mark::StrangerRefused);
            return false;
        };
        // A thousand nodes make half a million connections: there only some check signatures.
        let verified = if self.ease() == 1 || self.checker.observes(node) {
            roster.verify(credential, id, wall)
        } else if roster.is_revoked(&id) {
            Err(RecordError::Revoked(id.short()))
        } else {
            Ok(())
        };
        match verified {
            Ok(()) => return true,
            Err(RecordError::Revoked(_)) => self.hit(Mark::RevokedRefused),
            Err(RecordError::Lapsed { .. }) => self.hit(Mark::LapsedRefused),
            Err(_) => {}
        }
        false
    }

    /// A connection stands: what the peer presented is learnt, and held against the truth.
    pub(super) fn presented(&mut self, node: usize, peer: usize) {
        let Some(credential) = self.nodes[peer].memory.roster.own().cloned() else { return };
        let true_wall = EPOCH.plus(self.now.0.since(Mono(0)));
        let lapsed = self.nodes[node].clock.is_right() && !in_time(&credential, true_wall);
        if lapsed || !self.nodes[peer].is_in {
            let seen = format!("node {node} let {peer} in, whom no lease covers: {credential:?}");
            self.broken(Invariant::StateOnlyMembersLinked, seen);
        }
        let memory = &mut self.nodes[node].memory;
        memory.roster.learn(&credential);
        if self.plan.options.lease.is_some() || self.plan.nodes <= super::LARGE {
            self.nodes[node].memory.presented.insert(peer, credential);
        }
    }

    /// Whoever was told to join, and reaches a steward, is a member after healing.
    pub(super) fn all_joined(&mut self) {
        let able = |node: &usize| {
            let wall = self.nodes[*node].now(self.now.0).wall;
            let steward = self.nodes[*node].memory.roster.own_steward(wall).is_some();
            self.is_whole(*node) && self.nodes[*node].acts() && steward && self.all_right(*node)
        };
        if !(0..self.nodes.len()).any(|node| able(&node)) {
            return;
        }
        for node in 0..self.nodes.len() {
            let state = &self.nodes[node];
            let told = state.may_join && state.acts() && !state.is_revoked && !state.has_left;
            if told && !self.belongs(node) {
                self.broken(Invariant::LiveJoins, format!("node {node} is still outside"));
            }
        }
    }

    /// Once in a while a node closes connections of those it would not let in any more, and asks
    /// for a new lease.
    pub(super) fn look_after_leases(&mut self, node: usize) {
        if !self.nodes[node].acts() || self.ease() > 1 || !self.belongs(node) {
            return;
        }
        let wall = self.nodes[node].now(self.now.0).wall;
        let memory = &mut self.nodes[node].memory;
        // Signatures were checked at the door: they stay good until the roster or the time changes.
        let known = (memory.roster.generation(), memory.roster.revocations().count());
        let same = std::mem::replace(&mut memory.judged_by, known) == known;
        let roster = &memory.roster;
        let unfit = |(peer, credential): (&usize, &Credential)| {
            let good = same && in_time(credential, wall);
            let id = self.names.id(*peer);
            (!good && roster.verify(credential, id, wall).is_err()).then_some(*peer)
        };
        let unfit: Vec<usize> = memory.presented.iter().filter_map(unfit).collect();
        for peer in unfit {
            self.hit(Mark::UnfitClosed);
            self.close(node, peer);
        }
        self.renew_lease(node, wall);
        if self.plan.options.lease.is_some() {
            self.learn_truth();
        }
    }

    fn renew_lease(&mut self, node: usize, wall: Wall) {
        let now = self.now.0;
        let memory = &mut self.nodes[node].memory;
        let recently = memory.renewed_at.is_some_and(|at| now.since(at) < RENEW_EVERY);
        if !memory.roster.due_for_renewal(wall) || recently {
            return;
        }
        memory.renewed_at = Some(now);
        let Some(held) = memory.roster.own().cloned() else { return };
        if memory.roster.own_steward(wall).is_some() {
            let (me, key) = (self.names.id(node), self.names.key(node));
            let admitted = memory.roster.admit(key, me, held.name(), wall, DEFAULT_LEASE);
            if let Ok(renewed) = admitted {
                self.renewed(node, renewed);
            }
            return;
        }
        let names = &self.names;
        let stewards = memory.roster.stewards(wall).map(|one| names.index(&one.body.node));
        let linked: Vec<usize> = stewards.filter(|one| memory.link(*one).is_some()).collect();
        let drawn = memory.dice.below(linked.len() as u64) as usize;
        if let Some(steward) = linked.get(drawn).copied() {
            self.send_reliable(node, steward, Load::Renew(Box::new(held)));
        }
    }

    /// A member shows a newer lease, or asks for one.
    pub(super) fn lease_shown(&mut self, node: usize, from: usize, held: &Credential, asks: bool) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let id = self.id(from);
        let key = self.names.key(node).clone();
        let memory = &mut self.nodes[node].memory;
        if memory.roster.verify(held, id, wall).is_ok() {
            memory.roster.learn(held);
            memory.presented.insert(from, held.clone());
        }
        if !asks {
            return;
        }
        if let Ok(renewed) = memory.roster.renew(&key, held, id, wall, DEFAULT_LEASE) {
            memory.roster.learn(&renewed);
            memory.presented.insert(from, renewed.clone());
            self.send_reliable(node, from, Load::Renewed(Box::new(renewed)));
        }
    }

    /// A new lease: stored, then shown to everybody.
    pub(super) fn renewed(&mut self, node: usize, renewed: Credential) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let memory = &mut self.nodes[node].memory;
        let later =
            |old: &Credential| old.membership.body.not_after < renewed.membership.body.not_after;
        if !memory.roster.own().is_none_or(later) || memory.roster.set_own(renewed, wall).is_err() {
            return;
        }
        self.hit(Mark::LeaseRenewed);
        self.store_roster(node);
        let memory = &self.nodes[node].memory;
        let Some(held) = memory.roster.own().cloned() else { return };
        self.record("lease", [node, node], &held.membership.body.not_after.0.to_be_bytes());
        for peer in 0..self.nodes.len() {
            if self.nodes[node].memory.link(peer).is_some() {
                self.send_reliable(node, peer, Load::LeaseShown(Box::new(held.clone())));
            }
        }
    }

    pub(super) fn store_roster(&mut self, node: usize) {
        let snapshot = self.nodes[node].memory.roster.snapshot();
        self.nodes[node].disk.stored.roster = Some(snapshot);
    }

    /// A node that belongs nowhere begins to join, when it was told to. One that is stopped does so
    /// as soon as it goes on: nobody tells it again.
    pub(super) fn wants_in(&mut self, node: usize) {
        let tries = self.nodes[node].memory.joining.tries;
        if self.nodes[node].may_join && !tries && !self.belongs(node) {
            self.nodes[node].memory.joining.tries = true;
            self.later(node, self.now.0, Own::JoinTried);
        }
    }

    /// One attempt to join, with the code at hand or with one that a steward issues now.
    pub(super) fn try_to_join(&mut self, node: usize) {
        if self.belongs(node) || self.nodes[node].is_revoked {
            self.nodes[node].memory.joining.tries = false;
            return;
        }
        self.later(node, self.now.0.plus(JOIN_AGAIN), Own::JoinTried);
        if self.nodes[node].memory.joining.code.is_none() {
            let code = self.issue_code(node);
            self.nodes[node].memory.joining.code = code;
        }
        let Some((by, code)) = self.nodes[node].memory.joining.code.clone() else { return };
        self.members.attempts += 1;
        let attempt = self.members.attempts;
        let dice = self.nodes[node].dice(&format!("join/{attempt}"));
        let (me, issuer) = (self.id(node), self.id(by));
        let Ok((joiner, start)) = Joiner::new(code, me, issuer, &name_of(node), dice) else {
            return;
        };
        self.nodes[node].memory.joining.joiner = Some((attempt, by, joiner));
        // The handshake takes a round trip before the first word.
        let back = self.network.reliable(self.now.0, by, node);
        let there = self.network.reliable(self.now.0, node, by);
        if let (Some(back), Some(there)) = (back, there) {
            self.say_join(node, by, (attempt, start), back.plus(there));
        }
    }

    /// An operator asks a steward that is up for a code.
    fn issue_code(&mut self, guest: usize) -> Option<(usize, JoinCode)> {
        let able = |one: &usize| {
            let state = &self.nodes[*one];
            let wall = state.now(self.now.0).wall;
            state.acts() && !self.is_out(*one) && state.memory.roster.own_steward(wall).is_some()
        };
        let able: Vec<usize> = (0..self.nodes.len()).filter(able).collect();
        let by = able.get(guest % able.len().max(1)).copied()?;
        let wall = self.nodes[by].now(self.now.0).wall;
        let me = self.id(by);
        let memory = &mut self.nodes[by].memory;
        let mesh = memory.roster.mesh();
        let code =
            memory.invites.issue(&mesh, &me, &[], CODE_LASTS, wall, &mut memory.dice).ok()?;
        self.nodes[by].disk.takes()?;
        self.nodes[by].disk.stored.invites = self.nodes[by].memory.invites.clone();
        self.members.codes.insert((by, code.id), (wall.plus(CODE_LASTS), BTreeSet::new()));
        Some((by, code))
    }

    fn say_join(
        &mut self,
        from: usize,
        to: usize,
        (attempt, message): (u64, JoinMessage),
        before: Micros,
    ) {
        if let Some(delay) = self.network.reliable(self.now.0, from, to) {
            let at = self.now.0.plus(before).plus(delay);
            let message = Box::new(message);
            let due = Due::JoinSaid { from, to, attempt, message };
            self.queue.push(at, super::Class::Network, due);
        }
    }

    pub(super) fn join_said(
        &mut self,
        (from, to): (usize, usize),
        attempt: u64,
        said: JoinMessage,
    ) {
        let open = self.network.open(self.now.0, from, to);
        if !open || !self.nodes[to].acts() {
            return;
        }
        self.record("join", [from, to], &attempt.to_be_bytes());
        let joining = &self.nodes[to].memory.joining;
        if joining.joiner.as_ref().is_some_and(|(known, _, _)| *known == attempt) {
            self.joiner_heard(to, said);
        } else if self.belongs(to) {
            self.issuer_heard(to, (attempt, from), said);
        }
    }

    fn joiner_heard(&mut self, node: usize, said: JoinMessage) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let joining = &mut self.nodes[node].memory.joining;
        let Some((attempt, by, joiner)) = &mut joining.joiner else { return };
        let (attempt, by) = (*attempt, *by);
        match joiner.received(said, wall) {
            JoinerStep::Send(answer) => self.say_join(node, by, (attempt, answer), Micros::ZERO),
            JoinerStep::Joined(joined) => {
                if self.nodes[node].memory.roster.set_own(joined.credential, wall).is_ok() {
                    self.joined(node);
                }
            }
            JoinerStep::Failed(error) => {
                joining.joiner = None;
                // Whatever is wrong, a person who is refused asks for another code.
                joining.code = None;
                self.hit(Mark::JoinRefused);
                self.show(EventKind::PolicyChanged, node, by, || format!("not let in: {error}"));
            }
        }
    }

    fn joined(&mut self, node: usize) {
        self.nodes[node].memory.joining = Joining::default();
        self.store_roster(node);
        self.hit(Mark::Joined);
        self.show(EventKind::PolicyChanged, node, None, || "joined the mesh".to_owned());
        self.record("joined", [node, node], &[]);
        self.learn_truth();
        self.introduce_all(node);
    }

    /// A node learns of all others that were ever let in.
    pub(super) fn introduce_all(&mut self, node: usize) {
        if !self.belongs(node) {
            return;
        }
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            let id = self.names.id(peer);
            if self.nodes[peer].is_in && !self.nodes[node].memory.roster.is_revoked(&id) {
                self.step(node, SwimInput::PeerIntroduced { node: id });
            }
        }
        self.heed_roster(node);
    }

    fn issuer_heard(&mut self, node: usize, (attempt, guest): (u64, usize), said: JoinMessage) {
        let (wall, me, joiner) =
            (self.nodes[node].now(self.now.0).wall, self.id(node), self.id(guest));
        let dice = self.nodes[node].dice(&format!("issue/{attempt}"));
        let key = self.names.key(node).clone();
        let memory = &mut self.nodes[node].memory;
        let mesh = memory.roster.mesh();
        if let JoinMessage::Start { code_id, .. } = &said {
            if memory.joining.issuers.len() >= MAX_ISSUERS {
                memory.joining.issuers.pop_first();
            }
            let issuer = Issuer::new(mesh, me, joiner, dice);
            memory.joining.issuers.insert(attempt, (*code_id, issuer));
        }
        // A process that started anew knows nothing of the conversation.
        let Some((code, issuer)) = memory.joining.issuers.get_mut(&attempt) else { return };
        let code = *code;
        let answer = match issuer.received(&mut memory.invites, said, wall) {
            IssuerStep::Send(message) | IssuerStep::Refuse(message, _) => message,
            IssuerStep::Admit { node: id, name } => {
                match memory.roster.admit(&key, id, &name, wall, DEFAULT_LEASE) {
                    Ok(credential) => {
                        memory.roster.learn(&credential);
                        self.admitted(node, guest, code);
                        Issuer::welcome(credential, Vec::new())
                    }
                    Err(error) => JoinMessage::Refused(JoinError::from(error).refusal()),
                }
            }
        };
        self.audit_codes(node);
        // The book is on the disk before anybody hears of the answer; without a disk nobody does.
        let Some(takes) = self.nodes[node].disk.takes() else { return };
        self.nodes[node].memory.joining.answers.insert(attempt, (guest, answer));
        self.later(node, self.now.0.plus(takes), Own::JoinAnswered { attempt });
    }

    pub(super) fn join_answered(&mut self, node: usize, attempt: u64) {
        let invites = self.nodes[node].memory.invites.clone();
        self.nodes[node].disk.stored.invites = invites;
        let answer = self.nodes[node].memory.joining.answers.remove(&attempt);
        let Some((guest, message)) = answer else { return };
        if matches!(message, JoinMessage::Welcome { .. }) {
            self.store_roster(node);
            self.nodes[guest].is_in = true;
        }
        self.say_join(node, guest, (attempt, message), Micros::ZERO);
    }

    /// A steward let a node in: the observer looks at the code it was let in with.
    fn admitted(&mut self, by: usize, guest: usize, code: u32) {
        let right = self.nodes[by].clock.is_right();
        let wall = self.nodes[by].now(self.now.0).wall;
        let Some((until, guests)) = self.members.codes.get_mut(&(by, code)) else {
            return self.broken(
                Invariant::StateCodesBind,
                format!("node {by} let {guest} in without a code"),
            );
        };
        guests.insert(guest);
        let (many, late) = (guests.len() > 1, right && wall > *until);
        if many || late {
            let seen = format!("node {by} let {guests:?} in with one code, late: {late}");
            self.broken(Invariant::StateCodesBind, seen);
        }
    }

    fn audit_codes(&mut self, node: usize) {
        let most = self.nodes[node].memory.invites.iter().map(|invite| invite.attempts).max();
        if most > Some(MAX_ATTEMPTS) {
            let seen = format!("node {node}: {most:?} attempts with one code");
            self.broken(Invariant::StateCodesBind, seen);
        }
    }

    /// Somebody who saw a code's number on a screen, and not its secret, guesses at a steward.
    pub(super) fn guess_code(&mut self, index: usize, guest: usize) {
        let Some((by, code)) = self.issue_code(guest) else { return };
        self.fired(index);
        let (me, wall) = (self.id(by), self.nodes[by].now(self.now.0).wall);
        let thief = selvedge_base::NodeId(*blake3::hash(b"a thief").as_bytes());
        for guess in 0..MAX_ATTEMPTS + 2 {
            let mut wrong = code.clone();
            wrong.secret[0] ^= 1 + guess;
            let dice = self.nodes[by].dice(&format!("guess/{index}/{guess}"));
            let Ok((mut joiner, start)) = Joiner::new(wrong, thief, me, "thief", dice.clone())
            else {
                continue;
            };
            let memory = &mut self.nodes[by].memory;
            let mut issuer = Issuer::new(memory.roster.mesh(), me, thief, dice);
            let mut said = start;
            loop {
                match issuer.received(&mut memory.invites, said, wall) {
                    IssuerStep::Send(_) if guess >= MAX_ATTEMPTS => {
                        let seen = format!("node {by} allows attempt {}", guess + 1);
                        return self.broken(Invariant::StateCodesBind, seen);
                    }
                    IssuerStep::Send(answer) => match joiner.received(answer, wall) {
                        JoinerStep::Send(next) => said = next,
                        // One who knows that the guess was wrong sends a proof all the same.
                        _ => said = JoinMessage::Prove { confirm: [guess; 32] },
                    },
                    IssuerStep::Admit { .. } => {
                        let seen = format!("node {by} let in who guessed a code");
                        return self.broken(Invariant::StateCodesBind, seen);
                    }
                    IssuerStep::Refuse(_, error) => {
                        if error == JoinError::TooManyAttempts {
                            self.marks.hit(Mark::CodeVoided);
                        }
                        break;
                    }
                }
            }
        }
        self.audit_codes(by);
    }

    /// A node is told to leave for good: it gives its rights away first.
    pub(super) fn leave(&mut self, index: usize, node: usize) {
        if !self.nodes[node].acts() || self.is_out(node) {
            return;
        }
        self.fired(index);
        self.nodes[node].is_leaving = true;
        self.show(EventKind::PolicyChanged, node, None, || "leaves the mesh".to_owned());
        self.quota(node, QuotaInput::Drained);
        self.later(node, self.now.0.plus(RETIRE_WITHIN), Own::Left);
    }

    /// Its rights are given away, or its patience is over: it goes.
    pub(super) fn left(&mut self, node: usize) {
        if self.nodes[node].has_left {
            return;
        }
        let quota = self.nodes[node].memory.quota.as_ref();
        if quota.is_some_and(|quota| quota.is_retired()) {
            self.hit(Mark::LeftInOrder);
        }
        self.nodes[node].has_left = true;
        self.record("left", [node, node], &[]);
        self.say_goodbye(node);
        self.die(node);
    }
}

/// Whether a record covers a moment, as its checks measure it, signatures aside.
fn in_time(credential: &Credential, wall: Wall) -> bool {
    let covers = |issued: Wall, not_after: Wall| {
        issued <= wall.plus(CLOCK_SKEW) && wall <= not_after.plus(CLOCK_SKEW)
    };
    let (lease, steward) = (&credential.membership.body, &credential.steward.body);
    covers(lease.issued, lease.not_after) && covers(steward.issued, steward.not_after)
}

fn name_of(node: usize) -> String {
    format!("n{node}")
}
