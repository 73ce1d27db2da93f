//! A run as a page to look at: one self-contained HTML file.
//!
//! [`Timeline`] watches a run and keeps what can be drawn, bounded however long the run is;
//! [`Timeline::page`] writes the file. The page draws itself (`timeline/*.js`): lanes, spans, bars,
//! arcs. Owns the form of the data between the two; nothing is fetched from anywhere.

mod page;
mod scene;

pub(crate) use scene::fault_text;

use std::collections::{BTreeMap, VecDeque};

use selvedge_base::Mono;

use crate::plan::Plan;
use crate::watch::{Event, EventKind, Standing, Watch};

/// Requests drawn one by one: some hundred bytes each in the file, and more than a screen shows.
const MOST_REQUESTS: usize = 6_000;
/// Remarkable ones (moved, failed, lost) are kept beyond that, up to this many.
const MOST_REMARKABLE: usize = 9_000;
/// Transfers, events and violations drawn, of each kind.
const MOST_POINTS: usize = 4_000;
/// Points of all curves together; each is some thirty bytes in the file.
const MOST_CURVE_POINTS: u64 = 40_000;
/// A curve has at least this many points, or it shows nothing.
const LEAST_CURVE_POINTS: u64 = 40;
/// Nodes whose curves are kept one by one; of larger meshes only the sum.
const MOST_CURVES: usize = 24;
/// Columns of the counts that are drawn when requests are too many: finer than a screen.
const COLUMNS: u64 = 512;

/// How a request ended; the order is that of the page's `OUTCOMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Done,
    Resumed,
    Quota,
    Refused,
    Failed,
    Left,
    Open,
}

/// All of them.
const ENDS: usize = End::Open as usize + 1;

/// A request, as far as it was seen.
#[derive(Clone, Debug)]
struct Request {
    id: u64,
    tenant: usize,
    ingest: usize,
    from: Mono,
    to: Option<Mono>,
    end: End,
    tokens: u64,
    legs: Vec<Leg>,
    note: String,
}

/// A node's part of an answer.
#[derive(Clone, Debug)]
struct Leg {
    node: usize,
    from: Mono,
    to: Option<Mono>,
}

/// Rights on their way.
#[derive(Clone, Debug)]
struct Transfer {
    from: usize,
    to: usize,
    sent: Mono,
    got: Option<Mono>,
    budget: usize,
    amount: u64,
}

/// A curve: what a holder may spend, has marked and has spent. Made coarser when it grows long.
#[derive(Clone, Debug)]
struct Curve {
    points: Vec<[u64; 4]>,
    every: u64,
    most: u64,
}

/// Keeps of a run what a page can show.
#[derive(Clone, Debug)]
pub struct Timeline {
    plan: Plan,
    name: Option<String>,
    story: Option<String>,
    open: BTreeMap<u64, Request>,
    ended: Vec<Request>,
    ended_last: Option<u64>,
    undrawn: u64,
    stride: u64,
    counts: BTreeMap<usize, BTreeMap<(u64, End), u64>>,
    transfers: Vec<Transfer>,
    /// By budget, donor and receiver: the transfers that have not arrived, and what is missing of
    /// the first.
    on_their_way: BTreeMap<(usize, usize, usize), VecDeque<(usize, u64)>>,
    transferred: u64,
    points: Vec<(Mono, Option<usize>, EventKind, String)>,
    violations: Vec<(Mono, Option<usize>, String)>,
    curves: BTreeMap<(usize, Option<usize>), Curve>,
    standings: BTreeMap<(usize, usize), Standing>,
}

impl Timeline {
    /// For a run of this plan.
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            name: None,
            story: None,
            open: BTreeMap::new(),
            ended: Vec::new(),
            ended_last: None,
            undrawn: 0,
            stride: 1,
            counts: BTreeMap::new(),
            transfers: Vec::new(),
            on_their_way: BTreeMap::new(),
            transferred: 0,
            points: Vec::new(),
            violations: Vec::new(),
            curves: BTreeMap::new(),
            standings: BTreeMap::new(),
        }
    }

    /// The same, with a title and a sentence that says what the run is about.
    #[must_use]
    pub fn titled(mut self, name: &str, story: &str) -> Self {
        (self.name, self.story) = (Some(name.to_owned()), Some(story.to_owned()));
        self
    }

    fn column(&self) -> u64 {
        (self.plan.span.0 / COLUMNS).max(1)
    }

    fn arrived(&mut self, id: u64, node: usize, event: &Event) {
        let request = Request {
            id,
            tenant: scene::tenant_of(&self.plan, &event.text),
            ingest: node,
            from: event.at,
            to: None,
            end: End::Open,
            tokens: 0,
            legs: Vec::new(),
            note: String::new(),
        };
        self.open.insert(id, request);
    }

    fn goes_on(&mut self, id: u64, event: &Event) {
        let Some(request) = self.open.get_mut(&id) else { return };
        if let Some(leg) = request.legs.last_mut() {
            leg.to = leg.to.or(Some(event.at));
        }
        let Some(node) = event.peer.or(event.node) else { return };
        // A move and the hand-over that carries it out are two events of one moment.
        let again = |leg: &&mut Leg| leg.node == node && leg.from == event.at;
        match request.legs.last_mut().filter(|leg| again(leg)) {
            Some(leg) => leg.to = None,
            None => request.legs.push(Leg { node, from: event.at, to: None }),
        }
    }

    fn ended(&mut self, id: u64, end: End, event: &Event) {
        // A refusal may come without an arrival: then it is both. What follows says it again.
        if !self.open.contains_key(&id)
            && event.kind == EventKind::RequestRefused
            && self.ended_last != Some(id)
            && let Some(node) = event.node
        {
            self.arrived(id, node, event);
        }
        let Some(mut request) = self.open.remove(&id) else { return };
        self.ended_last = Some(id);
        request.to = Some(event.at);
        request.end = if end == End::Done && request.legs.len() > 1 { End::Resumed } else { end };
        request.tokens = event.amount.unwrap_or(0);
        if let Some(leg) = request.legs.last_mut() {
            leg.to = leg.to.or(Some(event.at));
        }
        if end != End::Done {
            request.note.clone_from(&event.text);
        }
        self.keep(request);
    }

    /// Counts a request, and keeps it as far as there is room.
    fn keep(&mut self, request: Request) {
        let column = request.from.0 / self.column();
        let counts = self.counts.entry(request.ingest).or_default();
        *counts.entry((column, request.end)).or_default() += 1;
        let remarkable = request.is_remarkable();
        let room = if remarkable { MOST_REMARKABLE } else { MOST_REQUESTS };
        if !remarkable && !request.id.is_multiple_of(self.stride) {
            self.undrawn += 1;
            return;
        }
        if self.ended.len() >= room {
            // Every other ordinary request makes room, so that all of the run stays visible.
            self.stride *= 2;
            let (before, stride) = (self.ended.len(), self.stride);
            self.ended.retain(|one| one.is_remarkable() || one.id.is_multiple_of(stride));
            self.undrawn += (before - self.ended.len()) as u64;
        }
        if self.ended.len() < room {
            self.ended.push(request);
        } else {
            self.undrawn += 1;
        }
    }

    fn gave(&mut self, event: &Event) {
        self.transferred += 1;
        let (Some(from), Some(to)) = (event.node, event.peer) else { return };
        if self.transfers.len() >= MOST_POINTS {
            return;
        }
        let (budget, amount) = (event.budget.unwrap_or(0), event.amount.unwrap_or(0));
        let way = self.on_their_way.entry((budget, from, to)).or_default();
        way.push_back((self.transfers.len(), amount));
        self.transfers.push(Transfer { from, to, sent: event.at, got: None, budget, amount });
    }

    /// Rights arrived, perhaps of several gifts at once: the oldest come first.
    fn took(&mut self, event: &Event) {
        let (Some(to), Some(from)) = (event.node, event.peer) else { return };
        let way = (event.budget.unwrap_or(0), from, to);
        let Some(open) = self.on_their_way.get_mut(&way) else { return };
        let mut left = event.amount.unwrap_or(0);
        while let Some((index, missing)) = open.front_mut() {
            let part = left.min(*missing);
            *missing -= part;
            left -= part;
            if *missing > 0 {
                break;
            }
            if let Some(transfer) = self.transfers.get_mut(*index) {
                transfer.got = Some(event.at);
            }
            open.pop_front();
        }
    }

    /// A request's events; false when the event is about something else.
    fn about_request(&mut self, event: &Event) -> bool {
        let Some(id) = event.request else { return false };
        match event.kind {
            EventKind::RequestArrived => {
                if let Some(node) = event.node {
                    self.arrived(id, node, event);
                }
            }
            EventKind::RequestDispatched | EventKind::RequestMoved => self.goes_on(id, event),
            EventKind::RequestRefused => {
                let end = if scene::is_about_budget(event) { End::Quota } else { End::Refused };
                self.ended(id, end, event);
            }
            EventKind::RequestFinished => self.ended(id, End::Done, event),
            EventKind::RequestFailed if scene::is_about_budget(event) => {
                self.ended(id, End::Quota, event);
            }
            EventKind::RequestFailed | EventKind::RequestLost => {
                self.ended(id, End::Failed, event);
            }
            EventKind::RequestLeft => self.ended(id, End::Left, event),
            EventKind::RequestStarted => (),
            _ => return false,
        }
        true
    }
}

impl Watch for Timeline {
    fn wants_events(&self) -> bool {
        true
    }

    fn event(&mut self, event: Event) {
        if self.about_request(&event) {
            return;
        }
        match event.kind {
            EventKind::TransferMade => self.gave(&event),
            EventKind::TransferTaken => self.took(&event),
            EventKind::Violated if self.violations.len() < MOST_POINTS => {
                self.violations.push((event.at, event.node, event.text));
            }
            EventKind::Declared
            | EventKind::Crashed
            | EventKind::Started
            | EventKind::StoreFailed
            | EventKind::PolicyChanged
            | EventKind::MemoryChanged
            | EventKind::ClockSet
            | EventKind::QuotaReported
                if !scene::is_dull(&event) && self.points.len() < MOST_POINTS =>
            {
                // Recoveries and suspicions are every day's business: what is drawn stands out.
                let text = scene::told(&event);
                self.points.push((event.at, event.node, event.kind, text));
            }
            _ => (),
        }
    }

    fn standing(&mut self, standing: Standing) {
        let Standing { at, node, budget, window, ceiling, hw, spent } = standing;
        self.standings.insert((budget, node), standing);
        let of_budget = || self.standings.range((budget, 0)..=(budget, usize::MAX));
        // Nodes turn to the next window one after the other: the sum is that of the newest.
        let newest = of_budget().map(|(_, one)| one.window).max().unwrap_or(window);
        let sum = |part: fn(&Standing) -> u64| {
            of_budget().filter(|(_, one)| one.window == newest).map(|(_, one)| part(one)).sum()
        };
        let total = [at.0, sum(|one| one.ceiling), sum(|one| one.hw), sum(|one| one.spent)];
        let each = self.plan.nodes <= MOST_CURVES;
        let curves = scene::budgets(&self.plan).len() * if each { self.plan.nodes + 1 } else { 1 };
        let most = (MOST_CURVE_POINTS / curves.max(1) as u64).max(LEAST_CURVE_POINTS);
        let every = (self.plan.span.0 / most).max(1);
        let fresh = Curve { points: Vec::new(), every, most };
        self.curves.entry((budget, None)).or_insert_with(|| fresh.clone()).add(total);
        if each {
            let point = [at.0, ceiling, hw, spent];
            self.curves.entry((budget, Some(node))).or_insert(fresh).add(point);
        }
    }
}

impl Curve {
    /// Adds a point; what comes soon after another takes its place, so that the last word counts.
    fn add(&mut self, point: [u64; 4]) {
        let joins = |last: &[u64; 4]| last[0] / self.every == point[0] / self.every;
        match self.points.last_mut().filter(|last| joins(last)) {
            Some(last) => *last = point,
            None => self.points.push(point),
        }
        if self.points.len() as u64 > 2 * self.most {
            self.every *= 2;
            let every = self.every;
            let mut kept: Vec<[u64; 4]> = Vec::with_capacity(self.points.len() / 2 + 1);
            for point in self.points.drain(..) {
                match kept.last_mut().filter(|last| last[0] / every == point[0] / every) {
                    Some(last) => *last = point,
                    None => kept.push(point),
                }
            }
            self.points = kept;
        }
    }
}

impl Request {
    fn is_remarkable(&self) -> bool {
        matches!(self.end, End::Resumed | End::Failed | End::Left | End::Open)
    }
}

#[cfg(test)]
#[path = "timeline/tests.rs"]
mod tests;
