//! A run as lines of text: one per event, a column per node.
//!
//! A cell is the node's state, its requests in flight and the rights it has left of the first
//! budget; the nodes an event is about are marked. Owns the layout, and the account of a failure:
//! the last lines before it and a paragraph that says what was going on.

use std::collections::{BTreeMap, VecDeque};

use selvedge_base::{Micros, Mono};

use crate::outcome::Violation;
use crate::plan::{Fault, FaultKind, Plan};
use crate::timeline::fault_text;
use crate::watch::{Event, EventKind, Standing, Watch};

/// Columns for all nodes up to this many; of larger meshes only the nodes concerned are shown.
const MOST_COLUMNS: usize = 10;
/// Width of a cell: a sign, two digits of requests, six of rights.
const CELL: usize = 11;

/// Writes lines.
#[derive(Clone, Debug)]
pub struct Grid {
    plan: Plan,
    cells: Vec<Cell>,
    active: BTreeMap<usize, bool>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    down: bool,
    stopped: bool,
    in_flight: u32,
    left: Option<u64>,
}

impl Grid {
    /// For a run of this plan.
    pub fn new(plan: &Plan) -> Self {
        let cells = vec![Cell::default(); plan.nodes];
        Self { plan: plan.clone(), cells, active: BTreeMap::new() }
    }

    /// What the signs mean, and the names of the columns.
    pub fn header(&self) -> String {
        let legend = "· up  x down  z stopped  / cut off  f engine ill  > concerned; \
                      then requests in flight and rights left";
        let names: Vec<String> = match self.plan.nodes {
            0..=MOST_COLUMNS => (0..self.plan.nodes)
                .map(|node| format!("{:<CELL$}", format!("node {node}")))
                .collect(),
            _ => vec![format!("{:<CELL$}", "concerned")],
        };
        format!("{legend}\n{:>11} {:<7}{}", "seconds", "event", names.concat())
            .trim_end()
            .to_owned()
    }

    /// Takes an event into account and writes its line; none for what happens all the time.
    pub fn line(&mut self, event: &Event) -> Option<String> {
        self.learn(event);
        if is_routine(event.kind) {
            return None;
        }
        let shown: Vec<String> = match self.plan.nodes {
            0..=MOST_COLUMNS => (0..self.plan.nodes).map(|node| self.cell(node, event)).collect(),
            _ => {
                let concerned = event.node.into_iter().chain(event.peer);
                concerned.map(|node| format!("{node}:{}", self.cell(node, event))).collect()
            }
        };
        let head = format!("{:>11} {:<7}{}", seconds(event.at), event.kind.tag(), shown.concat());
        Some(format!("{head} {}", told(event)).trim_end().to_owned())
    }

    /// Takes into account how a node stands with a budget.
    pub fn stand(&mut self, standing: &Standing) {
        if standing.budget == 0
            && let Some(cell) = self.cells.get_mut(standing.node)
        {
            cell.left = Some(standing.ceiling.saturating_sub(standing.spent));
        }
    }

    fn learn(&mut self, event: &Event) {
        if let (Some(index), EventKind::FaultBegan | EventKind::FaultEnded) =
            (event.span, event.kind)
        {
            self.active.insert(index as usize, event.kind == EventKind::FaultBegan);
        }
        let Some(cell) = event.node.and_then(|node| self.cells.get_mut(node)) else { return };
        match event.kind {
            EventKind::Crashed => *cell = Cell { down: true, left: cell.left, ..Cell::default() },
            EventKind::Started => cell.down = false,
            EventKind::Stopped => cell.stopped = true,
            EventKind::WentOn => cell.stopped = false,
            EventKind::RequestArrived => cell.in_flight += 1,
            // A refusal is told besides: the request fails with it.
            EventKind::RequestFinished
            | EventKind::RequestFailed
            | EventKind::RequestLeft
            | EventKind::RequestLost => cell.in_flight = cell.in_flight.saturating_sub(1),
            _ => (),
        }
    }

    fn cell(&self, node: usize, event: &Event) -> String {
        let cell = self.cells.get(node).copied().unwrap_or_default();
        let concerned = event.node == Some(node) || event.peer == Some(node);
        let sign = match cell {
            Cell { down: true, .. } => 'x',
            Cell { stopped: true, .. } => 'z',
            _ => self.fault_sign(node),
        };
        let left = cell.left.map_or(String::new(), |left| left.to_string());
        let mark = if concerned { '>' } else { ' ' };
        let flying = cell.in_flight;
        let text = if cell.down {
            format!("{mark}{sign}")
        } else {
            format!("{mark}{sign}{flying:<2} {left}")
        };
        format!("{text:<CELL$}")
    }

    fn fault_sign(&self, node: usize) -> char {
        let active = self.active.iter().filter(|(_, active)| **active).map(|(index, _)| *index);
        let mut sign = '·';
        for fault in active.filter_map(|index| self.plan.faults.get(index)) {
            match &fault.kind {
                FaultKind::Freeze { node: ill }
                | FaultKind::Throttle { node: ill, .. }
                | FaultKind::LoadFailure { node: ill }
                    if *ill == node =>
                {
                    return 'f';
                }
                FaultKind::Isolate { node: cut } if *cut == node => sign = '/',
                FaultKind::Halves { left } | FaultKind::OneWayHalves { left } => {
                    sign = if left.contains(&node) { '/' } else { '\\' };
                }
                _ => (),
            }
        }
        sign
    }
}

/// What happens all the time and says nothing by itself.
const fn is_routine(kind: EventKind) -> bool {
    matches!(kind, EventKind::Stored | EventKind::RequestStarted | EventKind::LinkUp)
}

/// Seconds with all six digits: two events of one millisecond are not the same moment.
pub(crate) fn seconds(at: Mono) -> String {
    format!("{}.{:06}", at.0 / 1_000_000, at.0 % 1_000_000)
}

fn told(event: &Event) -> String {
    let who = match (event.node, event.peer) {
        (Some(node), Some(peer)) => format!("{node}>{peer} "),
        (Some(node), None) => format!("{node} "),
        _ => String::new(),
    };
    let request = event.request.map_or(String::new(), |id| format!("request {id} "));
    let amount = event.amount.map_or(String::new(), |amount| format!("{amount} "));
    format!("{who}{request}{amount}{}", event.text)
}

/// Keeps the last lines before the first violation, and what led to it.
#[derive(Clone, Debug)]
pub struct Tail {
    grid: Grid,
    most: usize,
    lines: VecDeque<String>,
    arrived: u64,
    finished: u64,
    transfers: u64,
    broken: Option<Event>,
    history: BTreeMap<u64, Vec<String>>,
}

/// Events kept of a request in flight: arrival, hand-overs and moves; more would be a loop.
const MOST_HISTORY: usize = 12;

impl Tail {
    /// For a run of this plan; keeps `most` lines.
    pub fn new(plan: &Plan, most: usize) -> Self {
        Self {
            grid: Grid::new(plan),
            most,
            lines: VecDeque::new(),
            arrived: 0,
            finished: 0,
            transfers: 0,
            broken: None,
            history: BTreeMap::new(),
        }
    }

    /// The lines, the header first.
    pub fn lines(&self) -> Vec<String> {
        let header = self.grid.header();
        header.lines().map(str::to_owned).chain(self.lines.iter().cloned()).collect()
    }

    /// One paragraph: when, where, what was seen, and what was going on.
    pub fn account(&self, violation: &Violation) -> String {
        let plan = &self.grid.plan;
        let at = violation.at;
        let mut text = format!("At {} s", seconds(at));
        if let Some(node) = self.broken.as_ref().and_then(|event| event.node) {
            text.push_str(&format!(", at node {node}"));
        }
        text.push_str(&format!(": {}. ", violation.seen.trim_end_matches('.')));
        let began = |fault: &&Fault| fault.at.0 <= at.0;
        let name = |fault: &Fault| {
            let since = Micros(at.0.saturating_sub(fault.at.0)).as_millis();
            format!("{} (since {since} ms)", fault_text(fault, plan.nodes))
        };
        let (now, over): (Vec<&Fault>, Vec<&Fault>) =
            plan.faults.iter().filter(began).partition(|fault| fault.until.0 >= at.0);
        let now: Vec<String> = now.into_iter().map(name).collect();
        match now.as_slice() {
            [] => text.push_str("No fault lasted at that moment"),
            some => text.push_str(&format!("At that moment: {}", some.join(", "))),
        }
        let last = over.iter().max_by_key(|fault| fault.until);
        if let Some(last) = last {
            let ago = Micros(at.0.saturating_sub(last.until.0)).as_millis();
            let label = fault_text(last, plan.nodes);
            text.push_str(&format!("; {label} had ended {ago} ms before ({} over)", over.len()));
        }
        text.push_str(&format!(
            ". Until then {} requests had come in, {} had been answered and rights had been given \
             {} times.",
            self.arrived, self.finished, self.transfers
        ));
        let request = self.broken.as_ref().and_then(|event| event.request);
        if let Some((id, history)) = request.and_then(|id| self.history.get_key_value(&id)) {
            text.push_str(&format!(" Request {id}: {}.", history.join(", ")));
        }
        text
    }
}

impl Watch for Tail {
    fn wants_events(&self) -> bool {
        self.broken.is_none()
    }

    fn event(&mut self, event: Event) {
        if self.broken.is_some() {
            return;
        }
        match event.kind {
            EventKind::RequestArrived => self.arrived += 1,
            EventKind::RequestFinished => self.finished += 1,
            EventKind::TransferMade => self.transfers += 1,
            _ => (),
        }
        if let Some(id) = event.request {
            let history = self.history.entry(id).or_default();
            if history.len() < MOST_HISTORY {
                let node = event.peer.or(event.node).map_or(String::new(), |n| format!(" at {n}"));
                history.push(format!("{}{node} at {} s", event.kind.tag(), seconds(event.at)));
            }
            if matches!(event.kind, EventKind::RequestFinished | EventKind::RequestRefused) {
                self.history.remove(&id);
            }
        }
        if let Some(line) = self.grid.line(&event) {
            if self.lines.len() >= self.most {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
        if event.kind == EventKind::Violated {
            self.broken = Some(event);
        }
    }

    fn standing(&mut self, standing: Standing) {
        self.grid.stand(&standing);
    }
}

#[cfg(test)]
#[path = "grid/tests.rs"]
mod tests;
