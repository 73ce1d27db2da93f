//! A budget that can be taken over: what a node that lost power has left is spent by the others,
//! and it spends nothing of that when it is back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{Load, Question, Tally, books, until_books};
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, Scenario, scenario};

const ACCOUNT: &str = "acme";
const LIMIT: u64 = 9_000;
const NODES: u64 = 3;
/// Tokens of a prompt and of an answer.
const PROMPT: usize = 90;
const ANSWER: u32 = 10;
/// A part of a block stays with whoever is gone.
const BLOCK: u64 = LIMIT / 64 + 1;

#[test]
fn what_a_dead_node_has_left_is_spent_by_the_others() {
    scenario(|s| {
        let mut nodes = mesh(s)?;
        let key = fund(&nodes)?;
        s.step("the third node loses power before it has served anything");
        let third = nodes.pop().context("a third node")?;
        third.kill()?;
        let own = LIMIT * (NODES - 1) / NODES;
        s.step("clients of the others ask until the whole budget is spent");
        let question = || Question::new(PROMPT, ANSWER, Duration::from_millis(20));
        let alive: Vec<&Node> = nodes.iter().collect();
        let load = Load::start(&alive, &key, &[question(), question()]);
        let last = PROMPT as u64 + u64::from(ANSWER) + BLOCK;
        load.until("what was the third's", Deadline::secs(60), |tallies| {
            served(tallies) + 2 * last >= LIMIT
        })?;
        let tallies = load.stop()?;
        let spent = served(&tallies);
        s.say(&format!("{spent} of {LIMIT}, {own} of it the two nodes' own"));
        ensure!(spent > own && spent <= LIMIT, "{tallies:?}");
        let told = books(&nodes[0], ACCOUNT)?;
        ensure!(told.whole["reclaimable"] == true, "{}", told.whole);

        s.step("back again, it has no rights to what was spent without it");
        let third = third.spec.up(s, &[])?;
        let told = until_books(&third, ACCOUNT, "what was spent", Deadline::secs(30), |books| {
            books.reserved == 0 && books.spent >= spent
        })?;
        ensure!(told.spent + told.left == LIMIT, "{}", told.whole);
        let load = Load::start(&[&third], &key, &[question()]);
        load.until("a refusal", Deadline::secs(30), |tallies| tallies[0].refused > 0)?;
        let more = served(&load.stop()?);
        ensure!(spent + more <= LIMIT, "{spent} and {more} of {LIMIT}");
        Ok(())
    });
}

fn mesh(s: &Scenario) -> Result<Vec<Node>> {
    let model = tiny::write(&s.path("model"))?.display().to_string();
    let with_model = |name: &str| s.node(name).with(&["--model", &model]);
    s.mesh(&[with_model("founder"), with_model("second"), with_model("third")])
}

/// The budget, in force at every node; the key to it.
fn fund(nodes: &[Node]) -> Result<String> {
    let founder = &nodes[0];
    founder.cli(&["tenant", "create", ACCOUNT])?.success()?;
    let amount = format!("{LIMIT} tokens/month");
    founder.cli(&["budget", "set", ACCOUNT, &amount, "--reclaimable"])?.success()?;
    let said = founder.cli(&["key", "create", "load", "--account", ACCOUNT])?.success()?;
    let key = said.split_whitespace().find(|word| word.starts_with("sk-")).context("a key")?;
    for node in nodes {
        until_books(node, ACCOUNT, "the budget", Deadline::patient(), |books| {
            books.limit == LIMIT && books.whole["in_force"] == true
        })?;
        selvedge_tests::budgets::until_taken(node, key, Deadline::patient())?;
    }
    let shown = founder.cli(&["budget", "show", ACCOUNT])?.success()?;
    ensure!(shown.contains("witness"), "{shown}");
    ensure!(!shown.contains(TINY), "a budget of all models");
    Ok(key.to_owned())
}

fn served(tallies: &[Tally]) -> u64 {
    tallies.iter().map(|tally| tally.tokens).sum()
}
