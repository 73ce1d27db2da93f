//! The same requests to a real node, by a key without a budget and by one with it.
//!
//! Owns the load: one client, one request after the other, in turns of both kinds, so that both
//! see the same machine. The tiny model answers with one token, so that what is left is the
//! gateway's own work. Writes are counted by the node itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{self, Question};
use selvedge_tests::figures::Figures;
use selvedge_tests::report::Report;
use selvedge_tests::{Client, Node, Scenario, Stopwatch, tiny};
use serde_json::Value;

/// Requests of one kind before the other has its turn, and turns.
const TURN: usize = 100;
const TURNS: usize = 20;
/// Requests before anything is counted.
const WARM: usize = 200;
/// Far more than is asked for.
const AMPLE: &str = "1000000000 tokens/month";
/// Ten times what is asked for while writes are counted: blocks are a small part of a budget.
const USUAL: &str = "1000000 tokens/month";

/// One kind of requests and what was measured of it.
struct Kind {
    name: &'static str,
    client: Client,
    times: Figures,
    cpu: Duration,
}

/// Measures and notes everything.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let s = Scenario::new()?;
    let model = tiny::write(&s.path("model"))?.display().to_string();
    let node = s.node("bench").with(&["--model", &model]).up(&s, &[])?;
    node.admin()?.until_offered(1, selvedge_tests::Deadline::patient())?;
    let budgeted = budgets::fund(&node, "ample", AMPLE)?;
    let open = budgets::key(&node, "open")?;
    let short = Question::new(1, 1, Duration::ZERO);
    let kind = |name, key: &str| Kind {
        name,
        client: node.client().with_key(key),
        times: Figures::default(),
        cpu: Duration::ZERO,
    };
    let mut kinds = [kind("unbudgeted", &open), kind("budgeted", &budgeted)];
    for kind in &mut kinds {
        kind.take(&node, &short, WARM)?;
        (kind.times, kind.cpu) = (Figures::default(), Duration::ZERO);
    }
    for _ in 0..TURNS {
        for kind in &mut kinds {
            kind.take(&node, &short, TURN)?;
        }
    }
    for kind in &kinds {
        report.micros(kind.name, &kind.times, kind.cpu);
    }
    let more = report.value("budgeted_cpu_us") - report.value("unbudgeted_cpu_us");
    report.note("budget_more_cpu_us", more, None);
    let ratio = report.value("budgeted_cpu_us") / report.value("unbudgeted_cpu_us");
    report.note("budgeted_to_unbudgeted_cpu", ratio, None);
    let usual = budgets::fund(&node, "usual", USUAL)?;
    writes(report, &node, &mut kind("usual", &usual))
}

/// Writes to the disk per thousand requests of a hundred tokens.
fn writes(report: &mut Report, node: &Node, kind: &mut Kind) -> Result<()> {
    let usual = Question::new(90, 10, Duration::ZERO);
    let before = persists(node)?;
    kind.take(node, &usual, 1_000)?;
    report.note("writes_per_1000_requests", persists(node)? - before, None);
    Ok(())
}

impl Kind {
    fn take(&mut self, node: &Node, question: &Question, count: usize) -> Result<()> {
        let used = node.process.cpu_time()?;
        for _ in 0..count {
            let begun = Stopwatch::start();
            let reply = self.client.post("/v1/completions", question.body())?;
            let said: Value = reply.ok()?;
            self.times.push(begun.elapsed());
            ensure!(said["usage"]["total_tokens"].is_u64(), "{said}");
        }
        self.cpu += node.process.cpu_time()?.saturating_sub(used);
        Ok(())
    }
}

/// What the node says it has written for its budgets.
fn persists(node: &Node) -> Result<f64> {
    let said = node.client().get("/metrics")?.text()?;
    let line = said.lines().find(|line| line.starts_with("selvedge_budget_writes_total"));
    let value = line.and_then(|line| line.split_whitespace().last());
    Ok(value.context("the node does not count its writes")?.parse()?)
}
