//! The purges of a mesh, as every node remembers them.
//!
//! Each node writes one *line*: its purges, numbered, the last few with what they reach. Lines are
//! signed by their writers and passed on by anybody; of two lines of one writer the one with the
//! higher number counts. Who hears of a line takes away what the purges reach that it had not heard
//! of, and everything where the line does not say any more what they reached. So a node that was
//! cut off learns what was purged meanwhile, however long that was.
//! Owns the lines, their checks and their bounds. What a purge takes away is decided above.
//!
//! A purge only ever costs a second asking. So whose line it is has to be proved, and whether the
//! writer is a member still does not: what it purged while it was one has to stay purged.

use std::collections::BTreeMap;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{MeshId, NodeId, Wall};
use serde::{Deserialize, Serialize};

use super::Print;
use crate::policy::AccountPath;
use crate::records::{CLOCK_SKEW, Record, RecordError, Signed, Signer};

/// Purges that a line still tells what they reached: an operator's hour. Who missed more than that
/// takes everything away.
pub const MAX_RECENT: usize = 8;
/// Writers that are remembered, the latest ones: nodes at which an operator ever purged.
pub const MAX_AUTHORS: usize = 256;
/// The longest name of what a purge reaches: that of a model of a provider, as in a setting.
pub const MAX_SCOPE_NAME: usize = 320;

/// What a purge reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// An account and what lies below it; every account if none.
    pub account: Option<AccountPath>,
    /// A model's name; every model if none.
    pub model: Option<String>,
}

impl Scope {
    /// Whether it reaches what belongs to an account and was asked of a model of this name.
    pub fn reaches(&self, account: &AccountPath, model: &str) -> bool {
        self.account.as_ref().is_none_or(|above| above.covers(account))
            && self.model.as_ref().is_none_or(|name| name == model)
    }

    /// Whether it can be told to others.
    pub fn is_within_bounds(&self) -> bool {
        self.model.as_ref().is_none_or(|name| name.len() <= MAX_SCOPE_NAME)
    }
}

/// The purges of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeLine {
    /// The mesh.
    pub mesh: MeshId,
    /// The node where they were ordered.
    pub node: NodeId,
    /// The number of the last one that is not among the recent ones; 0 if all are.
    pub since: u64,
    /// The last ones by number, oldest first; at most [`MAX_RECENT`] and never none.
    pub recent: Vec<(u64, Scope)>,
    /// When the last one was ordered.
    pub issued: Wall,
}

impl PurgeLine {
    /// The number of the last purge.
    pub fn last(&self) -> u64 {
        self.recent.last().map_or(0, |(number, _)| *number)
    }

    /// What the purges after one of this number reach.
    fn after(&self, number: u64) -> Vec<Scope> {
        if number < self.since {
            return vec![Scope::default()];
        }
        let new = self.recent.iter().filter(|(of, _)| *of > number);
        new.map(|(_, scope)| scope.clone()).collect()
    }

    fn is_within_bounds(&self) -> bool {
        let numbers = std::iter::once(self.since).chain(self.recent.iter().map(|(of, _)| *of));
        let rises = numbers.clone().zip(numbers.skip(1)).all(|(before, after)| before < after);
        rises
            && (1..=MAX_RECENT).contains(&self.recent.len())
            && self.recent.iter().all(|(_, scope)| scope.is_within_bounds())
    }
}

impl Record for PurgeLine {
    const KIND: &'static str = "purges";

    fn write(&self, out: &mut Vec<u8>) {
        let text = |out: &mut Vec<u8>, text: Option<&str>| {
            // What is absent and what is empty are told apart.
            out.push(u8::from(text.is_some()));
            let text = text.unwrap_or_default();
            out.extend((text.len() as u64).to_be_bytes());
            out.extend(text.as_bytes());
        };
        out.extend(self.mesh.0);
        out.extend(self.node.0);
        out.extend(self.since.to_be_bytes());
        out.extend((self.recent.len() as u64).to_be_bytes());
        for (number, scope) in &self.recent {
            out.extend(number.to_be_bytes());
            text(out, scope.account.as_ref().map(AccountPath::as_str));
            text(out, scope.model.as_deref());
        }
        out.extend(self.issued.0.to_be_bytes());
    }
}

/// Signs a line with the key of its node.
pub fn sign_purge(line: PurgeLine, signer: &impl Signer) -> Signed<PurgeLine> {
    Signed::seal(line, signer)
}

/// What hearing of lines changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// What has to go.
    pub scopes: Vec<Scope>,
    /// Whether anything is new, to be stored and passed on.
    pub is_new: bool,
    /// Lines that were refused, and why.
    pub refused: Vec<RecordError>,
}

/// All purges a node knows of.
#[derive(Clone, Debug)]
pub struct PurgeBook {
    mesh: MeshId,
    lines: BTreeMap<NodeId, Signed<PurgeLine>>,
    print: Print,
}

impl PurgeBook {
    /// A book without purges.
    pub const fn new(mesh: MeshId) -> Self {
        Self { mesh, lines: BTreeMap::new(), print: [0; 16] }
    }

    /// The fingerprint of all that is known; nothing known is all zeros.
    pub const fn print(&self) -> Print {
        self.print
    }

    /// All lines.
    pub fn lines(&self) -> Vec<Signed<PurgeLine>> {
        self.lines.values().cloned().collect()
    }

    /// The number of the last purge of a node that is known here.
    pub fn last_of(&self, node: &NodeId) -> u64 {
        self.lines.get(node).map_or(0, |line| line.body.last())
    }

    /// The line of a node with one more purge, to be signed. Numbers follow the clock, so that a
    /// node whose disk forgot some does not count them twice; where the clock stands still or goes
    /// back, they rise all the same.
    pub fn next(&self, node: NodeId, scope: Scope, wall: Wall) -> PurgeLine {
        let held = self.lines.get(&node).map(|line| &line.body);
        let last = held.map_or(0, PurgeLine::last);
        let number = wall.0.max(last.saturating_add(1));
        let mut recent = held.map(|line| line.recent.clone()).unwrap_or_default();
        let mut since = held.map_or(0, |line| line.since);
        recent.push((number, scope));
        while recent.len() > MAX_RECENT {
            since = recent.remove(0).0;
        }
        PurgeLine { mesh: self.mesh, node, since, recent, issued: wall }
    }

    /// Those of a peer's lines that may be taken at `wall`: known ones, and signed ones that are
    /// not of the future. It takes long for a book that may have to wait, so it changes nothing.
    pub fn sound(
        &self,
        lines: Vec<Signed<PurgeLine>>,
        wall: Wall,
        is_signed: impl Fn(&Signed<PurgeLine>) -> bool,
    ) -> Vec<Signed<PurgeLine>> {
        let latest = wall.plus(CLOCK_SKEW);
        let is_sound = |line: &Signed<PurgeLine>| {
            let is_known = self.lines.get(&line.body.node) == Some(line);
            if plant::is_on(Plant::PurgeUnheard) {
                return is_known;
            }
            is_known || (line.body.issued <= latest && is_signed(line))
        };
        lines.into_iter().take(MAX_AUTHORS).filter(is_sound).collect()
    }

    /// Takes lines, those of a peer or of the disk.
    pub fn take(&mut self, lines: Vec<Signed<PurgeLine>>) -> Heard {
        self.take_by(lines, |line| line.check_signature().is_ok(), |_| true)
    }

    /// As [`PurgeBook::take`], with another check of the signatures, since a simulated mesh seals
    /// its records with a stand-in, and with who `stays` when there are too many: keys are made for
    /// nothing, so lines of whoever is no member must not push out those of members.
    pub fn take_by(
        &mut self,
        lines: Vec<Signed<PurgeLine>>,
        is_signed: impl Fn(&Signed<PurgeLine>) -> bool,
        stays: impl Fn(&NodeId) -> bool,
    ) -> Heard {
        let mut heard = Heard::default();
        for line in lines.into_iter().take(MAX_AUTHORS) {
            let body = &line.body;
            let held = self.lines.get(&body.node);
            if held.is_some_and(|held| rank(held) >= rank(&line)) {
                continue;
            }
            let own = body.mesh == self.mesh && line.signer == body.node.0;
            if !own || !body.is_within_bounds() || !is_signed(&line) {
                heard.refused.push(RecordError::Signature(PurgeLine::KIND));
                continue;
            }
            let known = held.map_or(0, |held| held.body.last());
            match body.last() > known {
                true => heard.scopes.extend(body.after(known)),
                // Two truths under one number: which of them is wrong nobody can tell.
                false => heard.scopes.push(Scope::default()),
            }
            heard.is_new = true;
            self.lines.insert(body.node, line);
        }
        while self.lines.len() > MAX_AUTHORS {
            let oldest = self
                .lines
                .iter()
                .min_by_key(|(node, line)| (stays(node), line.body.issued, **node));
            let Some(oldest) = oldest.map(|(node, _)| *node) else { break };
            self.lines.remove(&oldest);
        }
        if heard.is_new {
            self.print = self.printed();
        }
        if plant::is_on(Plant::PurgeUnheeded) {
            heard.scopes.clear();
        }
        heard
    }

    fn printed(&self) -> Print {
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 fingerprint of purges");
        for line in self.lines.values() {
            hasher.update(&rank(line).1);
        }
        let mut print = [0; 16];
        print.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        print
    }
}

/// What decides between two lines of a node: the higher number, then the larger name.
fn rank(line: &Signed<PurgeLine>) -> (u64, [u8; 32]) {
    let mut bytes = line.signer.to_vec();
    line.body.write(&mut bytes);
    (line.body.last(), *blake3::hash(&bytes).as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    const MESH: MeshId = MeshId([7; 32]);

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    fn node(number: u8) -> NodeId {
        NodeId(key(number).verifying_key().to_bytes())
    }

    fn of(model: &str) -> Scope {
        Scope { account: None, model: Some(model.to_owned()) }
    }

    /// Purges at a node, which heeds it.
    fn purge(book: &mut PurgeBook, number: u8, scope: Scope, wall: u64) -> Heard {
        let line = book.next(node(number), scope, Wall(wall));
        book.take(vec![sign_purge(line, &key(number))])
    }

    #[test]
    fn who_was_away_learns_all_that_was_purged_once() {
        let (mut here, mut away) = (PurgeBook::new(MESH), PurgeBook::new(MESH));
        assert_eq!(here.print(), away.print());
        assert_eq!(purge(&mut here, 1, of("a"), 100).scopes, [of("a")]);
        purge(&mut here, 1, of("b"), 100);
        purge(&mut here, 2, of("c"), 50);
        assert_ne!(here.print(), away.print());
        let mut heard = away.take(here.lines()).scopes;
        heard.sort_by_key(|scope| scope.model.clone());
        assert_eq!(heard, [of("a"), of("b"), of("c")]);
        assert_eq!(here.print(), away.print());
        assert_eq!(away.take(here.lines()), Heard::default());
        purge(&mut here, 1, of("d"), 99);
        assert_eq!(away.take(here.lines()).scopes, [of("d")]);
    }

    #[test]
    fn who_missed_more_than_is_told_takes_everything_away() {
        let (mut here, mut away) = (PurgeBook::new(MESH), PurgeBook::new(MESH));
        purge(&mut here, 1, of("a"), 1);
        away.take(here.lines());
        for wall in 2..2 + MAX_RECENT as u64 {
            purge(&mut here, 1, of("b"), wall);
        }
        let mut near = away.clone();
        assert_eq!(near.take(here.lines()).scopes.len(), MAX_RECENT);
        purge(&mut here, 1, of("c"), 1);
        assert_eq!(away.take(here.lines()).scopes, [Scope::default()]);
        assert_eq!(here.print(), away.print());
    }

    #[test]
    fn only_a_node_itself_writes_its_line() {
        let mut book = PurgeBook::new(MESH);
        let line = book.next(node(1), of("a"), Wall(1));
        let forged = sign_purge(line.clone(), &key(2));
        let mut changed = sign_purge(line.clone(), &key(1));
        changed.body.recent[0].1 = Scope::default();
        let foreign = PurgeLine { mesh: MeshId([8; 32]), ..line.clone() };
        let mut unbounded = line.clone();
        unbounded.recent = vec![(1, of(&"x".repeat(MAX_SCOPE_NAME + 1)))];
        let backwards = PurgeLine { recent: vec![(5, of("a")), (4, of("b"))], ..line.clone() };
        let empty = PurgeLine { recent: Vec::new(), ..line.clone() };
        let signed = [foreign, unbounded, backwards, empty];
        let wrong = signed.map(|line| sign_purge(line, &key(1)));
        for wrong in [forged, changed].into_iter().chain(wrong) {
            let heard = book.take(vec![wrong]);
            assert!(!heard.is_new && heard.scopes.is_empty() && heard.refused.len() == 1);
        }
        assert_eq!(book.print(), [0; 16]);
        assert!(book.take(vec![sign_purge(line, &key(1))]).is_new);
    }

    #[test]
    fn two_truths_end_alike_everywhere_and_take_everything_away() {
        let book = PurgeBook::new(MESH);
        let one = sign_purge(book.next(node(1), of("a"), Wall(1)), &key(1));
        let other = sign_purge(book.next(node(1), of("b"), Wall(1)), &key(1));
        let (mut first, mut second) = (book.clone(), book);
        first.take(vec![one.clone()]);
        second.take(vec![other.clone()]);
        let changed = [first.take(vec![other]), second.take(vec![one])];
        assert_eq!(first.print(), second.print());
        let gone: Vec<&Heard> = changed.iter().filter(|heard| heard.is_new).collect();
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].scopes, [Scope::default()]);
    }

    #[test]
    fn writers_are_bounded_and_the_latest_stay() {
        let mut book = PurgeBook::new(MESH);
        let lines = |from: u64, count: u64| {
            (from..from + count).map(|wall| {
                let writer = NodeId(*blake3::hash(&wall.to_be_bytes()).as_bytes());
                let line = PurgeBook::new(MESH).next(writer, Scope::default(), Wall(wall));
                Signed { signer: writer.0, ..sign_purge(line, &key(1)) }
            })
        };
        book.take_by(lines(1, 200).collect(), |_| true, |_| true);
        book.take_by(lines(201, 200).collect(), |_| true, |_| true);
        assert_eq!(book.lines().len(), MAX_AUTHORS);
        assert!(book.lines().iter().all(|line| line.body.issued.0 > 400 - MAX_AUTHORS as u64));
    }

    #[test]
    fn what_is_unsigned_or_of_the_future_is_not_sound() {
        let mut book = PurgeBook::new(MESH);
        purge(&mut book, 1, of("a"), 5);
        let of_future = sign_purge(book.next(node(2), of("b"), Wall(6).plus(CLOCK_SKEW)), &key(2));
        let unsigned = sign_purge(book.next(node(3), of("c"), Wall(5)), &key(2));
        let known = book.lines();
        let lines = [known.clone(), vec![of_future.clone(), unsigned]].concat();
        let sound = |wall| {
            book.sound(lines.clone(), Wall(wall), |line| {
                assert_ne!(line.body.node, node(1), "what is known was checked");
                line.check_signature().is_ok() && line.signer == line.body.node.0
            })
        };
        assert_eq!(sound(5), known);
        assert_eq!(sound(6), [known.clone(), vec![of_future.clone()]].concat());
    }

    #[test]
    fn keys_made_for_nothing_push_no_member_out() {
        let mut book = PurgeBook::new(MESH);
        let member = node(1);
        purge(&mut book, 1, of("a"), 5);
        let lines = (0..2 * MAX_AUTHORS as u64).map(|number| {
            let writer = NodeId(*blake3::hash(&number.to_be_bytes()).as_bytes());
            let line = PurgeBook::new(MESH).next(writer, Scope::default(), Wall(u64::MAX - number));
            Signed { signer: writer.0, ..sign_purge(line, &key(2)) }
        });
        let lines: Vec<_> = lines.collect();
        for some in lines.chunks(100) {
            book.take_by(some.to_vec(), |_| true, |node| *node == member);
        }
        assert_eq!((book.lines().len(), book.last_of(&member)), (MAX_AUTHORS, 5));
    }
}
