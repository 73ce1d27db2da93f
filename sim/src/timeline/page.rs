//! Writes the page: the data as JSON, between the template's markup and scripts.

use serde_json::{Value, json};

use super::{COLUMNS, ENDS, End, Request, Timeline, scene};
use crate::Outcome;
use crate::invariant::Invariant;

/// The page around the data.
const TEMPLATE: &str = include_str!("page.html");
/// How it looks.
const STYLE: &str = include_str!("page.css");
/// What it does: the model, the drawing, the handling of mouse and keys.
const SCRIPTS: [&str; 3] =
    [include_str!("model.js"), include_str!("draw.js"), include_str!("input.js")];

impl Timeline {
    /// The page of the run that was watched; the same run gives the same bytes.
    pub fn page(&self, outcome: &Outcome) -> String {
        let run = self.data(outcome).to_string();
        // A closing tag inside a text would end the element that holds the data.
        let run = run.replace('<', "\\u003c");
        let title = escaped(&self.title());
        TEMPLATE
            .replace("{{TITLE}}", &title)
            .replace("{{STYLE}}", STYLE.trim_end())
            .replace("{{SCRIPT}}", SCRIPTS.concat().trim_end())
            .replace("{{RUN}}", &run)
    }

    fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("seed {}", self.plan.seed))
    }

    /// What the page is told about the run.
    pub(super) fn data(&self, outcome: &Outcome) -> Value {
        let plan = &self.plan;
        let faults = plan.faults.iter().map(|fault| {
            let label = scene::fault_text(fault, plan.nodes);
            // One that does not fit the page's idea of a span (an operator's act) is shown short.
            let until = if fault.until > fault.at { fault.until.0 } else { fault.at.0 + 1 };
            let sides = scene::sides(&fault.kind, plan.nodes);
            json!([scene::family(&fault.kind), label, fault.at.0, until, sides])
        });
        let mut requests: Vec<&Request> = self.ended.iter().chain(self.open.values()).collect();
        requests.sort_by_key(|request| (request.from, request.id));
        let requests: Vec<Value> = requests.into_iter().map(Request::data).collect();
        let transfers = self.transfers.iter().map(|one| {
            let got = one.got.map_or(json!(-1), |at| json!(at.0));
            json!([one.from, one.to, one.sent.0, got, one.budget, one.amount])
        });
        let budgets = scene::budgets(plan)
            .into_iter()
            .map(|(name, unit, limit)| json!({ "name": name, "unit": unit, "limit": limit }));
        let series = self.curves.iter().map(|((budget, node), curve)| {
            let flat: Vec<u64> = curve.points.iter().flatten().copied().collect();
            json!([budget, place(*node), flat])
        });
        let points = self.points.iter().map(|(at, node, kind, text)| {
            json!([at.0, place(*node), scene::kind_name(*kind), text])
        });
        json!({
            "title": self.title(),
            "story": self.story.clone().unwrap_or_else(|| story(&plan.faults, plan.nodes)),
            "seed": plan.seed.to_string(),
            "span": plan.span.0,
            "quiet": plan.quiet_at.0.min(plan.span.0),
            "nodes": (0..plan.nodes).map(|node| format!("node {node}")).collect::<Vec<_>>(),
            "notes": self.notes(),
            "tenants": scene::tenants(plan),
            "figures": self.figures(outcome),
            "outcomes": self.totals(),
            "requests": requests,
            "undrawn": self.undrawn,
            "density": self.density(),
            "faults": faults.collect::<Vec<_>>(),
            "transfers": transfers.collect::<Vec<_>>(),
            "transferred": self.transferred,
            "budgets": budgets.collect::<Vec<_>>(),
            "series": series.collect::<Vec<_>>(),
            "marks": points.collect::<Vec<_>>(),
            "violations": self.violations(outcome),
        })
    }

    /// A word under a node's name, where there is something to say.
    fn notes(&self) -> Vec<&'static str> {
        let options = &self.plan.options;
        let note = |node: usize| match () {
            () if options.old_version.contains(&node) => "older build",
            () if options.newcomers.contains(&node) => "newcomer",
            () if !node.is_multiple_of(self.plan.engine.every.max(1)) => "no model",
            () => "",
        };
        (0..self.plan.nodes).map(note).collect()
    }

    fn totals(&self) -> [u64; ENDS] {
        let mut totals = [0; ENDS];
        for ((_, end), count) in self.counts.values().flatten() {
            totals[*end as usize] += count;
        }
        totals[End::Open as usize] += self.open.len() as u64;
        totals
    }

    fn density(&self) -> Value {
        let mut counts = self.counts.clone();
        for request in self.open.values() {
            let column = request.from.0 / self.column();
            let row = counts.entry(request.ingest).or_default();
            *row.entry((column, End::Open)).or_default() += 1;
        }
        let rows = counts.iter().map(|(node, counts)| {
            let flat: Vec<u64> = counts
                .iter()
                .flat_map(|((column, end), count)| [(*column).min(COLUMNS), *end as u64, *count])
                .collect();
            json!([node, flat])
        });
        json!({ "bucket": self.column(), "rows": rows.collect::<Vec<_>>() })
    }

    fn figures(&self, outcome: &Outcome) -> Vec<Value> {
        let requests = &outcome.requests;
        let mut figures = vec![
            json!(["requests", requests.arrived]),
            json!(["answered", requests.finished]),
            json!(["moved", requests.moved]),
            json!(["refused", requests.refused]),
            json!(["failed", requests.failed]),
            json!(["tokens", requests.tokens]),
        ];
        for budget in outcome.budgets.iter().filter(|one| one.spent > 0).take(2) {
            let name = format!("{}/{}", budget.account, budget.budget);
            figures.push(json!([name, format!("{} of {}", budget.spent, budget.limit)]));
        }
        figures.push(json!(["hash", outcome.hash.to_string()]));
        figures
    }

    /// Those of the outcome: it knows all of them; the events add which node it was.
    fn violations(&self, outcome: &Outcome) -> Vec<Value> {
        let seen = outcome.violations.iter().take(super::MOST_POINTS);
        seen.map(|one| {
            let same = |(at, _, text): &&(_, _, String)| {
                *at == one.at && text.starts_with(one.invariant.id())
            };
            let node = self.violations.iter().find(same).and_then(|(_, node, _)| *node);
            let sentence = sentence(one.invariant);
            json!([one.at.0, place(node), one.invariant.id(), sentence, one.seen])
        })
        .collect()
    }
}

impl Request {
    fn data(&self) -> Value {
        let at = |moment: Option<selvedge_base::Mono>| moment.map_or(json!(-1), |at| json!(at.0));
        let legs = self.legs.iter().map(|leg| json!([leg.node, leg.from.0, at(leg.to)]));
        let end = match (self.to, self.legs.len()) {
            (None, _) => End::Open,
            (Some(_), _) => self.end,
        };
        json!([
            self.id.to_string(),
            self.tenant,
            self.ingest,
            self.from.0,
            at(self.to),
            end as u8,
            self.tokens,
            legs.collect::<Vec<_>>(),
            self.note,
        ])
    }
}

fn place(node: Option<usize>) -> Value {
    node.map_or(json!(-1), |node| json!(node))
}

fn sentence(invariant: Invariant) -> String {
    format!("It holds that {}. Seen:", invariant.sentence())
}

/// What a run without a story of its own is about: its faults.
fn story(faults: &[crate::plan::Fault], nodes: usize) -> String {
    let mut told: Vec<String> = Vec::new();
    for fault in faults {
        let text = scene::fault_text(fault, nodes);
        if !told.contains(&text) {
            told.push(text);
        }
    }
    let all = told.len();
    told.truncate(6);
    match all {
        0 => format!("{nodes} nodes, and nothing breaks."),
        7.. => format!("{nodes} nodes; {}, and {} more.", told.join("; "), all - 6),
        _ => format!("{nodes} nodes; {}.", told.join("; ")),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
