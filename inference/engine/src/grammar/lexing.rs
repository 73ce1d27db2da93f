//! Whether taking the longest terminal is what the rules mean.
//!
//! Owns the proof. The lexer reads on while any of the terminals that may stand where it began goes
//! on; where none does, those that match what was read are taken, all of them, and the parser goes
//! on with each. So no text of the grammar is lost if this holds wherever a terminal matches: no
//! byte that can follow it takes any terminal further that may have begun at the same place. (While
//! the terminal that is meant goes on, the lexer does not stop; at its end it stops at the next
//! byte; and no other text is let in, since each terminal that is taken matched.) What may follow
//! and what may stand at one place is taken for more than it is (as if rules had no memory), and a
//! repetition of a number for one without end; both can only find fault where there is none.
//!
//! Terminals are walked together: a state is the set of places, of whichever terminals, that one
//! text leads to.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::{Options, Part, Symbol, Terminal};
use crate::gbnf::{Gbnf, Node, NodeId, Span};

/// What telling may cost, in visits of a place, for all drafts of one grammar: tenths of a second.
/// Languages in use take some ten thousand.
pub(super) const MAX_WORK: usize = 1_000_000;

/// A set of numbers that are not large.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits(Vec<u64>);

impl Bits {
    fn none(most: usize) -> Self {
        Self(vec![0; most.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn put(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// Takes in all of another; whether that is more.
    fn join(&mut self, other: &Self) -> bool {
        let mut more = false;
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            more |= *own | *other != *own;
            *own |= *other;
        }
        more
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.0.len() * 64).filter(move |at| self.has(*at))
    }
}

/// The bytes that characters begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Leads([u64; 4]);

impl Leads {
    fn of(spans: &[Span]) -> Self {
        let lead = |one: char| one.encode_utf8(&mut [0; 4]).as_bytes().first().copied();
        let mut leads = Self::default();
        for (first, last) in spans {
            // Later characters begin with later bytes.
            for byte in lead(*first).unwrap_or_default()..=lead(*last).unwrap_or_default() {
                leads.0[usize::from(byte / 64)] |= 1 << (byte % 64);
            }
        }
        leads
    }

    fn join(&mut self, other: Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own |= other;
        }
    }

    fn meets(self, other: Self) -> bool {
        self.0.iter().zip(other.0).any(|(own, other)| own & other != 0)
    }
}

/// A place for a character in a terminal.
struct Place<'g> {
    terminal: usize,
    /// The characters; those of a bracket are not copied for each place that has them.
    spans: Cow<'g, [Span]>,
    leads: Leads,
    /// The places after it.
    next: Vec<usize>,
    /// Whether the terminal may end behind it.
    last: bool,
}

/// Where something begins and ends, and whether it may be empty.
struct Ends {
    first: Vec<usize>,
    last: Vec<usize>,
    empty: bool,
}

/// The places of all terminals.
struct Places<'g> {
    gbnf: &'g Gbnf,
    all: Vec<Place<'g>>,
    /// Those that terminals begin with.
    first: Vec<Vec<usize>>,
}

/// Terminals that are to be opened: the longest one is not always the one that is meant while they
/// are whole. `None` where that cannot be told for this much work.
pub(super) fn wrong(
    gbnf: &Gbnf,
    terminals: &[Terminal],
    rules: &[Options],
    work: &mut usize,
) -> Option<Vec<usize>> {
    let follow = Follow::of(terminals.len(), rules, work)?;
    if follow.next.iter().all(Bits::is_empty) {
        // Each is a whole answer.
        return Some(Vec::new());
    }
    let places = Places::of(gbnf, terminals, work)?;
    let states = places.states(work)?;
    let beside = beside(&places, &follow, &states, work)?;
    // What may follow a terminal, and what goes on from a place, by first bytes.
    let mut begin = vec![Leads::default(); terminals.len()];
    for (terminal, first) in places.first.iter().enumerate() {
        first.iter().for_each(|place| begin[terminal].join(places.all[*place].leads));
    }
    let mut behind = vec![Leads::default(); terminals.len()];
    for (behind, next) in behind.iter_mut().zip(&follow.next) {
        next.iter().for_each(|next| behind.join(begin[next]));
    }
    let mut on = vec![Leads::default(); places.all.len()];
    for (on, place) in on.iter_mut().zip(&places.all) {
        place.next.iter().for_each(|next| on.join(places.all[*next].leads));
    }
    let mut wrong = BTreeSet::new();
    for state in &states {
        for ended in places.ended(state) {
            let further = state.iter().filter(|place| on[**place].meets(behind[ended]));
            let open = further.map(|place| places.all[*place].terminal);
            wrong.extend(open.filter(|open| beside[ended].has(*open)));
        }
    }
    Some(wrong.into_iter().collect())
}

/// Of each terminal those that may be tried at the same place as it.
fn beside(
    places: &Places<'_>,
    follow: &Follow,
    states: &[Vec<usize>],
    work: &mut usize,
) -> Option<Vec<Bits>> {
    let most = follow.next.len();
    // Terminals that match the same text are taken together, and what follows any of them is tried.
    let ended: BTreeSet<Vec<usize>> = states.iter().map(|state| places.ended(state)).collect();
    let several = ended.iter().filter(|ended| ended.len() > 1).map(|ended| {
        let mut together = Bits::none(most);
        ended.iter().for_each(|terminal| {
            together.join(&follow.next[*terminal]);
        });
        together
    });
    let alone = std::iter::once(&follow.begin).chain(&follow.next).cloned();
    let mut beside = vec![Bits::none(most); most];
    for together in alone.chain(several) {
        for one in together.iter() {
            pay(work, words(most))?;
            beside[one].join(&together);
        }
    }
    Some(beside)
}

/// What joining two sets costs, beside a visit of a place.
const fn words(most: usize) -> usize {
    1 + most / 512
}

/// What may follow what.
struct Follow {
    /// Terminals that an answer can begin with.
    begin: Bits,
    /// Of each terminal those that can be the next one.
    next: Vec<Bits>,
}

impl Follow {
    fn of(terminals: usize, rules: &[Options], work: &mut usize) -> Option<Self> {
        let none = || Bits::none(terminals);
        let cost = rules.iter().flatten().map(|option| option.len() + 1).sum::<usize>();
        let cost = cost * words(terminals);
        let mut empty = vec![false; rules.len()];
        let mut first = vec![none(); rules.len()];
        loop {
            pay(work, cost)?;
            let mut more = false;
            for (at, options) in rules.iter().enumerate() {
                for option in options {
                    let mut begins = none();
                    let whole = option.iter().all(|symbol| match symbol {
                        Symbol::Terminal(terminal) => {
                            begins.put(*terminal);
                            false
                        }
                        Symbol::Rule(rule) => {
                            begins.join(&first[*rule]);
                            empty[*rule]
                        }
                    });
                    more |= first[at].join(&begins) | (whole && !empty[at]);
                    empty[at] |= whole;
                }
            }
            if !more {
                break;
            }
        }
        let mut follow = vec![none(); rules.len()];
        let mut next = vec![none(); terminals];
        loop {
            pay(work, cost)?;
            let mut more = false;
            for (at, options) in rules.iter().enumerate() {
                for option in options {
                    let mut behind = follow[at].clone();
                    for symbol in option.iter().rev() {
                        match symbol {
                            Symbol::Terminal(terminal) => {
                                more |= next[*terminal].join(&behind);
                                behind = none();
                                behind.put(*terminal);
                            }
                            Symbol::Rule(rule) => {
                                more |= follow[*rule].join(&behind);
                                if !empty[*rule] {
                                    behind = none();
                                }
                                behind.join(&first[*rule]);
                            }
                        }
                    }
                }
            }
            if !more {
                break;
            }
        }
        let begin = first.swap_remove(0);
        Some(Self { begin, next })
    }
}

impl<'g> Places<'g> {
    fn of(gbnf: &'g Gbnf, terminals: &[Terminal], work: &mut usize) -> Option<Self> {
        let mut places = Self { gbnf, all: Vec::new(), first: Vec::with_capacity(terminals.len()) };
        for (terminal, Terminal { part, .. }) in terminals.iter().enumerate() {
            let from = places.all.len();
            let ends = match part {
                Part::Row(parts) => places.row(terminal, parts, work)?,
                Part::Any(options) => places.any(terminal, options, work)?,
                Part::Character(one) => places.character(terminal, *one),
            };
            ends.last.iter().for_each(|place| places.all[*place].last = true);
            places.first.push(ends.first);
            let ways = places.all[from..].iter().map(|place| 1 + place.next.len());
            pay(work, ways.sum())?;
        }
        Some(places)
    }

    /// Every visit is paid for: rules are taken in wherever they are named, and those that are
    /// empty have no places that could be counted.
    fn walk(&mut self, terminal: usize, id: NodeId, work: &mut usize) -> Option<Ends> {
        pay(work, 1)?;
        let gbnf = self.gbnf;
        Some(match &gbnf.nodes[id] {
            Node::Text(text) => {
                let mut all = Ends { first: Vec::new(), last: Vec::new(), empty: true };
                for one in text.chars() {
                    pay(work, 1)?;
                    let next = self.character(terminal, one);
                    all = self.then(all, next);
                }
                all
            }
            Node::Set(spans) => {
                pay(work, spans.len())?;
                self.set(terminal, Cow::Borrowed(spans))
            }
            Node::Rule(rule) => self.walk(terminal, gbnf.rules[*rule].body, work)?,
            Node::Row(parts) => self.row(terminal, parts, work)?,
            Node::Any(options) => self.any(terminal, options, work)?,
            Node::Repeat(inner, least, most) => {
                let inner = self.walk(terminal, *inner, work)?;
                if most.is_none_or(|most| most > 1) {
                    self.connect(&inner.last, &inner.first);
                }
                Ends { empty: inner.empty || *least == 0, ..inner }
            }
        })
    }

    fn character(&mut self, terminal: usize, one: char) -> Ends {
        self.set(terminal, Cow::Owned(vec![(one, one)]))
    }

    fn set(&mut self, terminal: usize, spans: Cow<'g, [Span]>) -> Ends {
        let leads = Leads::of(&spans);
        self.all.push(Place { terminal, spans, leads, next: Vec::new(), last: false });
        let at = vec![self.all.len() - 1];
        Ends { first: at.clone(), last: at, empty: false }
    }

    fn row(&mut self, terminal: usize, parts: &[NodeId], work: &mut usize) -> Option<Ends> {
        let mut all = Ends { first: Vec::new(), last: Vec::new(), empty: true };
        for part in parts {
            let next = self.walk(terminal, *part, work)?;
            all = self.then(all, next);
        }
        Some(all)
    }

    fn any(&mut self, terminal: usize, options: &[NodeId], work: &mut usize) -> Option<Ends> {
        let mut all = Ends { first: Vec::new(), last: Vec::new(), empty: false };
        for option in options {
            let Ends { first, last, empty } = self.walk(terminal, *option, work)?;
            all.first.extend(first);
            all.last.extend(last);
            all.empty |= empty;
        }
        Some(all)
    }

    fn then(&mut self, mut all: Ends, mut next: Ends) -> Ends {
        self.connect(&all.last, &next.first);
        if all.empty {
            all.first.extend(next.first);
        }
        if next.empty {
            next.last.extend(all.last);
        }
        Ends { first: all.first, last: next.last, empty: all.empty && next.empty }
    }

    fn connect(&mut self, from: &[usize], to: &[usize]) {
        from.iter().for_each(|place| self.all[*place].next.extend_from_slice(to));
    }

    /// The terminals that may end in a state, in order.
    fn ended(&self, state: &[usize]) -> Vec<usize> {
        let mut ended: Vec<usize> = Vec::new();
        for place in state.iter().map(|place| &self.all[*place]).filter(|place| place.last) {
            // Places of a terminal lie beside each other, and a state has them in order.
            if ended.last() != Some(&place.terminal) {
                ended.push(place.terminal);
            }
        }
        ended
    }

    /// All sets of places that a text leads to.
    fn states(&self, work: &mut usize) -> Option<Vec<Vec<usize>>> {
        let begin: BTreeSet<usize> = self.first.iter().flatten().copied().collect();
        let mut states = self.after(&begin, work)?;
        let mut known: BTreeSet<Vec<usize>> = states.iter().cloned().collect();
        let mut done = 0;
        while let Some(state) = states.get(done) {
            done += 1;
            let next = state.iter().flat_map(|place| &self.all[*place].next).copied();
            for state in self.after(&next.collect(), work)? {
                if known.insert(state.clone()) {
                    states.push(state);
                }
            }
        }
        Some(states)
    }

    /// The sets of these places that one character leads to.
    fn after(&self, next: &BTreeSet<usize>, work: &mut usize) -> Option<Vec<Vec<usize>>> {
        // Where places begin to take characters, and where they do no more.
        let mut edges: BTreeMap<u32, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for place in next {
            let spans = &self.all[*place].spans;
            pay(work, 1 + spans.len())?;
            for (first, last) in spans.iter() {
                edges.entry(u32::from(*first)).or_default().0.push(*place);
                edges.entry(u32::from(*last) + 1).or_default().1.push(*place);
            }
        }
        let (mut taking, mut sets) = (BTreeSet::new(), BTreeSet::new());
        for (begin, end) in edges.values() {
            // One that ends where its next span begins goes on.
            for place in end {
                taking.remove(place);
            }
            taking.extend(begin);
            pay(work, 1 + taking.len())?;
            if !taking.is_empty() {
                sets.insert(taking.iter().copied().collect::<Vec<usize>>());
            }
        }
        Some(sets.into_iter().collect())
    }
}

/// Takes from what may still be done; none where it is not that much.
fn pay(work: &mut usize, cost: usize) -> Option<()> {
    *work = work.checked_sub(cost)?;
    Some(())
}
