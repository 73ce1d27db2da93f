//! Makes a failing plan small: fewer faults, clients, nodes, less time, the same invariant broken.
//!
//! Delta debugging (Zeller and Hildebrandt 2002) over the lists of a plan, then simpler values, in
//! rounds until nothing more goes. It works because every random stream is keyed by what it is
//! for: a fault left out does not shift what happens elsewhere. Owns the search; the clock that
//! bounds it is the caller's.

use selvedge_base::{Micros, Mono};

use crate::invariant::Invariant;
use crate::outcome::Violation;
use crate::plan::{EnginePlan, FaultKind, NetworkPlan, Options, Plan};
use crate::run;

/// Rounds over all simplifications: each makes the plan smaller or is the last; seldom above four.
const MOST_ROUNDS: u32 = 16;
/// How much longer than to the violation a run goes on: the same moment, all of it.
const AFTER: Micros = Micros(1);
/// Characters of what was seen that a page shows; the replay shows all of it.
const MOST_SEEN: usize = 360;
/// Columns of a page's comments.
const WIDTH: usize = 98;
/// Times are rounded to this where that keeps the failure: easier to read.
const ROUND: u64 = 1_000_000;

/// A small plan and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// It breaks the same invariant.
    pub plan: Plan,
    /// As it breaks it.
    pub violation: Violation,
    /// Runs made to find it.
    pub runs: u64,
    /// Faults of the plan at the beginning.
    pub faults_before: usize,
    /// Whether nothing more goes; false when the caller ended the search.
    pub is_minimal: bool,
}

/// How far the search has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Runs made.
    pub runs: u64,
    /// Faults left.
    pub faults: usize,
    /// Groups of clients left.
    pub clients: usize,
    /// Nodes left.
    pub nodes: usize,
}

/// Shrinks a plan that breaks `wanted`, or whatever it breaks first; `go_on` is asked before each
/// run. None when the plan breaks nothing of the kind.
pub fn shrink(
    plan: &Plan,
    wanted: Option<Invariant>,
    go_on: &mut dyn FnMut(Step) -> bool,
) -> Option<Shrunk> {
    let outcome = run(plan, &mut ()).ok()?;
    let is_wanted = |violation: &&Violation| wanted.is_none_or(|one| violation.invariant == one);
    let violation = outcome.violations.iter().find(is_wanted)?.clone();
    let mut search = Search { best: plan.clone(), violation, runs: 1, stopped: false, go_on };
    let mut is_minimal = false;
    search.cut_the_end();
    for _ in 0..MOST_ROUNDS {
        let before = search.best.clone();
        search.drop_faults();
        search.drop_clients();
        search.drop_nodes();
        search.simplify_values();
        search.shorten();
        if search.best == before || search.stopped {
            is_minimal = !search.stopped;
            break;
        }
    }
    let Search { best, violation, runs, .. } = search;
    Some(Shrunk { plan: best, violation, runs, faults_before: plan.faults.len(), is_minimal })
}

impl Shrunk {
    /// The plan as a page of TOML, with what it shows and how to see it on top.
    pub fn page(&self, found_by: &str, command: &str) -> String {
        let Violation { at, invariant, seen } = &self.violation;
        let mut seen: String = seen.chars().take(MOST_SEEN).collect();
        seen.insert_str(0, &format!("At {} s: ", crate::grid::seconds(*at)));
        let said = [
            format!("{} {}", invariant.id(), invariant.sentence()),
            format!("Found by {found_by}; replay: {command}"),
            seen,
        ];
        let mut page: String = said.iter().map(|text| comment(text)).collect();
        page.push('\n');
        page.push_str(&self.short_plan());
        page
    }

    /// The plan without the tables that say what holds anyway.
    fn short_plan(&self) -> String {
        // A plan that could be read or drawn can be written.
        let mut text = self.plan.to_toml().unwrap_or_default();
        let usual = [
            ("[options]\n", self.plan.options == Options::default()),
            ("[network]\n", self.plan.network == NetworkPlan::default()),
            ("[engine]\n", self.plan.engine == EnginePlan::default()),
        ];
        for (table, _) in usual.iter().filter(|(_, is_usual)| *is_usual) {
            let Some(from) = text.find(table) else { continue };
            let rest = from + table.len();
            let to = text[rest..].find("\n[").map_or(text.len(), |length| rest + length + 1);
            text.replace_range(from..to, "");
        }
        text.trim_end().to_owned() + "\n"
    }
}

/// Lines that begin with a hash, none wider than a page.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        let fits = lines.last().is_some_and(|line| line.len() + 1 + word.len() <= WIDTH);
        if !fits {
            lines.push(String::from("#"));
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

struct Search<'a> {
    best: Plan,
    violation: Violation,
    runs: u64,
    stopped: bool,
    go_on: &'a mut dyn FnMut(Step) -> bool,
}

impl Search<'_> {
    /// Takes a plan over if it fails the same way.
    fn accept(&mut self, plan: Plan) -> bool {
        if self.stopped || plan == self.best || plan.check().is_err() {
            return false;
        }
        let step = Step {
            runs: self.runs,
            faults: self.best.faults.len(),
            clients: self.best.workload.clients.len(),
            nodes: self.best.nodes,
        };
        if !(self.go_on)(step) {
            self.stopped = true;
            return false;
        }
        self.runs += 1;
        let Ok(outcome) = run(&plan, &mut ()) else { return false };
        let wanted = self.violation.invariant;
        let same = |violation: &&Violation| violation.invariant == wanted;
        let Some(violation) = outcome.violations.iter().find(same) else { return false };
        // What is judged when all should be well again must be judged then: a run that merely ends
        // in the middle of a fault proves nothing.
        if is_final(wanted) && Mono(plan.quiet_at.0) > violation.at {
            return false;
        }
        self.violation = violation.clone();
        self.best = plan;
        true
    }

    fn try_with(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.best.clone();
        change(&mut plan);
        self.accept(plan)
    }

    /// What comes after the violation did not cause it.
    fn cut_the_end(&mut self) {
        let at = Micros(self.violation.at.0);
        if !is_final(self.violation.invariant) {
            self.try_with(|plan| {
                plan.span = plan.span.min(at.plus(AFTER));
                plan.faults.retain(|fault| fault.at <= at);
                plan.workload.clients.retain(|client| client.from <= at);
            });
        }
    }

    fn drop_faults(&mut self) {
        minimise(
            self,
            |search| search.best.faults.len(),
            |plan, kept| retain(&mut plan.faults, kept),
        );
        if is_final(self.violation.invariant) {
            self.try_with(quieter);
        }
    }

    fn drop_clients(&mut self) {
        minimise(
            self,
            |search| search.best.workload.clients.len(),
            |plan, kept| retain(&mut plan.workload.clients, kept),
        );
        // Faults name tenants by their place: those at the end may go, and budgets of any.
        while self.try_with(|plan| drop(plan.workload.tenants.pop())) {}
        for tenant in 0..self.best.workload.tenants.len() {
            minimise(
                self,
                |search| search.best.workload.tenants[tenant].budgets.len(),
                |plan, kept| retain(&mut plan.workload.tenants[tenant].budgets, kept),
            );
        }
        for client in 0..self.best.workload.clients.len() {
            while self.best.workload.clients[client].per_minute > 1
                && self.try_with(|plan| plan.workload.clients[client].per_minute /= 2)
            {}
            self.try_with(|plan| {
                let client = &mut plan.workload.clients[client];
                (client.leave_permille, client.home_permille) = (0, 0);
            });
        }
    }

    fn drop_nodes(&mut self) {
        // As many as the faults need; then, if that is too few, one after the other.
        let needed = |plan: &Plan| {
            let named = plan.faults.iter().filter_map(|fault| fault.kind.node());
            named.max().map_or(2, |node| (node + 1).max(2))
        };
        let least = needed(&self.best);
        if least < self.best.nodes {
            self.try_with(|plan| with_nodes(plan, least));
        }
        while self.best.nodes > 2 && self.try_with(|plan| with_nodes(plan, plan.nodes - 1)) {}
    }

    fn simplify_values(&mut self) {
        self.try_with(|plan| plan.network = NetworkPlan::default());
        self.try_with(|plan| plan.network.loss_permille = 0);
        self.try_with(|plan| plan.network.duplicate_permille = 0);
        self.try_with(|plan| plan.network.reorder_permille = 0);
        self.try_with(|plan| plan.engine = EnginePlan::default());
        self.try_with(|plan| plan.memory.failing_permille = 0);
        self.try_with(|plan| plan.memory.frees = Micros::ZERO);
        self.try_with(|plan| plan.memory.models.iter_mut().for_each(|model| model.kept = false));
        self.try_with(|plan| plan.options = Options::default());
        self.try_with(|plan| plan.options.old_version.clear());
        self.try_with(|plan| plan.options.newcomers.clear());
        self.try_with(|plan| plan.options.sites = 1);
        for fault in 0..self.best.faults.len() {
            self.try_with(|plan| {
                let fault = &mut plan.faults[fault];
                let rounded = |at: Micros| Micros((at.0 + ROUND / 2) / ROUND * ROUND);
                (fault.at, fault.until) = (rounded(fault.at), rounded(fault.until));
            });
        }
    }

    fn shorten(&mut self) {
        for fault in 0..self.best.faults.len() {
            let lasts = |plan: &Plan| plan.faults[fault].until.0 - plan.faults[fault].at.0;
            while lasts(&self.best) > ROUND
                && self.try_with(|plan| {
                    let half = lasts(plan) / 2;
                    plan.faults[fault].until = plan.faults[fault].at.plus(Micros(half));
                })
            {}
        }
        for client in 0..self.best.workload.clients.len() {
            let lasts = |plan: &Plan| {
                let client = &plan.workload.clients[client];
                client.until.0 - client.from.0
            };
            while lasts(&self.best) > ROUND
                && self.try_with(|plan| {
                    let half = lasts(plan) / 2;
                    let client = &mut plan.workload.clients[client];
                    client.until = client.from.plus(Micros(half));
                })
            {}
        }
        if is_final(self.violation.invariant) {
            self.try_with(quieter);
        } else {
            self.cut_the_end();
        }
    }
}

/// Whether an invariant is about the time after all faults.
fn is_final(invariant: Invariant) -> bool {
    invariant.family() == 'V'
        || matches!(
            invariant,
            Invariant::QuotaNothingReserved
                | Invariant::QuotaAvailable
                | Invariant::QuotaOwnRowsNewest
        )
}

/// The same plan with its end drawn nearer, where faults and clients end earlier.
fn quieter(plan: &mut Plan) {
    let calm = plan.span.0.saturating_sub(plan.quiet_at.0);
    let faults = plan.faults.iter().map(|fault| fault.until);
    let clients = plan.workload.clients.iter().map(|client| client.until);
    let last = faults.chain(clients).max().unwrap_or_default();
    plan.quiet_at = plan.quiet_at.min(last.max(crate::plan::CALM_START));
    plan.span = Micros(plan.quiet_at.0 + calm);
}

/// The same plan with fewer nodes: lists forget those that are gone.
fn with_nodes(plan: &mut Plan, nodes: usize) {
    plan.nodes = nodes;
    for client in &mut plan.workload.clients {
        let named = !client.nodes.is_empty();
        client.nodes.retain(|node| *node < nodes);
        if named && client.nodes.is_empty() {
            client.nodes.push(nodes - 1);
        }
    }
    plan.options.old_version.retain(|node| *node < nodes);
    plan.options.newcomers.retain(|node| *node < nodes);
    for fault in &mut plan.faults {
        if let FaultKind::Halves { left }
        | FaultKind::OneWayHalves { left }
        | FaultKind::Bridge { left, .. } = &mut fault.kind
        {
            left.retain(|node| *node < nodes);
        }
    }
}

/// Leaves out as many items as possible: first halves, then quarters, at last one by one.
fn minimise(
    search: &mut Search<'_>,
    length: impl Fn(&Search<'_>) -> usize,
    apply: impl Fn(&mut Plan, &dyn Fn(usize) -> bool),
) {
    let mut piece = length(search).div_ceil(2);
    while piece > 0 && !search.stopped {
        let mut from = 0;
        while from < length(search) {
            let gone = from..from + piece;
            // What went makes the next piece move up to this place.
            if !search.try_with(|plan| apply(plan, &|index| !gone.contains(&index))) {
                from += piece;
            }
        }
        piece /= 2;
    }
}

fn retain<T>(items: &mut Vec<T>, kept: &dyn Fn(usize) -> bool) {
    let mut index = 0;
    items.retain(|_| {
        index += 1;
        kept(index - 1)
    });
}

#[cfg(test)]
#[path = "shrink/tests.rs"]
mod tests;
