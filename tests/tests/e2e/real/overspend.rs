//! A hard budget on five machines: cut apart, and with two of them losing power. All nodes
//! together never serve more than the budget, and whoever holds rights goes on.

use std::time::Duration;

use anyhow::{Result, ensure};
use selvedge_tests::budgets::{Books, Load, Question, Tally, fund, until_books, until_taken};
use selvedge_tests::chat::{completion, with};
use selvedge_tests::{Asked, Bridge, Deadline, Host, Node, Scenario, scenario, tiny};
use serde_json::json;

/// The budget. The window is a month: no test runs into its end but in its last minute.
const LIMIT: u64 = 20_000;
const AMOUNT: &str = "20000 tokens/month";
const ACCOUNT: &str = "acme";
const HOSTS: usize = 5;
/// The first hosts, which are cut from the others, and ask for most.
const LEFT: usize = 2;
/// How long the bridge is cut.
const CUT: Duration = Duration::from_secs(20);
/// Bytes, and so tokens, of a prompt, and of an answer.
const PROMPT: usize = 90;
const ANSWER: u32 = 10;
const COST: u64 = PROMPT as u64 + ANSWER as u64;
/// Tokens of an answer that a power cut interrupts.
const LONG_ANSWER: u32 = 500;

#[test]
fn a_cut_mesh_keeps_its_budget_and_both_sides_serve() {
    scenario(|s| {
        let (_bridge, hosts, nodes, key) = funded(s, "cut")?;
        s.step("clients ask at every node, those on the left for more than their share");
        let questions: Vec<Question> =
            (0..HOSTS).map(|index| asking(if index < LEFT { 250 } else { 600 })).collect();
        let all: Vec<&Node> = nodes.iter().collect();
        let load = Load::start(&all, &key, &questions);
        load.until("answers at every node", Deadline::patient(), |tallies| {
            tallies.iter().all(|tally| tally.answers > 0)
        })?;

        s.step("the bridge is cut both ways");
        for host in &hosts[..LEFT] {
            host.plug_aside()?;
        }
        let before = load.tallies();
        let after = load.run_for(CUT);
        let during: Vec<Tally> =
            after.iter().zip(&before).map(|(now, then)| now.since(then)).collect();
        report(s, "while cut", &during);
        let (left, right) = during.split_at(LEFT);
        ensure!(tokens(left) > 0 && tokens(right) > 0, "a side stopped: {during:?}");
        ensure!(right.iter().all(|tally| tally.refused == 0), "refused with rights: {during:?}");
        // Refused only when what two of five hold is spent, but for less than two answers each.
        let held = LIMIT * LEFT as u64 / HOSTS as u64 - 2 * LEFT as u64 * COST;
        let refused = left.iter().any(|tally| tally.refused > 0);
        ensure!(!refused || tokens(&after[..LEFT]) >= held, "refused with rights: {during:?}");

        s.step("the bridge is whole again: what is left is spent, by whoever asks");
        hosts[..LEFT].iter().try_for_each(Host::plug)?;
        exhausted(s, &load, &nodes)?;
        let tallies = load.stop()?;
        let healed = tokens(&tallies[..LEFT]) - tokens(&after[..LEFT]);
        ensure!(!refused || healed > 0, "no rights came over: {tallies:?}");
        settled(s, &nodes, &tallies, 0)
    });
}

#[test]
fn two_nodes_lose_power_and_the_budget_holds() {
    scenario(|s| {
        let (_bridge, _hosts, mut nodes, key) = funded(s, "power")?;
        s.step("clients ask at every node");
        let questions: Vec<Question> = (0..HOSTS).map(|_| asking(200)).collect();
        let all: Vec<&Node> = nodes.iter().collect();
        let load = Load::start(&all, &key, &questions);
        load.until("a fifth of the budget", Deadline::patient(), |tallies| {
            tallies.iter().all(|tally| tally.answers > 0) && tokens(tallies) > LIMIT / 5
        })?;

        s.step("two nodes lose power in the middle of answers");
        let mut cut_short = 0;
        for node in &nodes[1..3] {
            let request = completion(&"x".repeat(PROMPT), LONG_ANSWER);
            let request = with(request, json!({"model": tiny::TINY}));
            let mut asked = Asked::stream(&node.client().with_key(&key), request)?;
            asked.until(3)?;
            node.kill()?;
            // Of this model every letter is a token.
            cut_short += (PROMPT + asked.heard().text.len()) as u64;
        }
        let before = load.tallies();
        load.until("the others serve on", Deadline::patient(), |tallies| {
            [0, 3, 4].iter().all(|&index| tallies[index].tokens > before[index].tokens)
        })?;
        s.step("they restart and serve again");
        for index in [1, 2] {
            nodes[index] = nodes[index].spec.up(s, &[])?;
        }
        let restarted = load.tallies();
        load.until("answers of the restarted", Deadline::patient(), |tallies| {
            [1, 2].iter().all(|&index| tallies[index].tokens > restarted[index].tokens)
        })?;
        exhausted(s, &load, &nodes)?;
        let tallies = load.stop()?;
        settled(s, &nodes, &tallies, cut_short)
    });
}

fn asking(pause_ms: u64) -> Question {
    Question::new(PROMPT, ANSWER, Duration::from_millis(pause_ms))
}

/// Five nodes with the tiny model, a budget all of them know, and a key all of them take.
fn funded(s: &Scenario, label: &str) -> Result<(Bridge, Vec<Host>, Vec<Node>, String)> {
    s.step("five hosts meet");
    let model = tiny::write(&s.path("model"))?.display().to_string();
    let mut bridge = Bridge::new(label)?;
    let hosts: Vec<Host> = (0..HOSTS).map(|_| bridge.host()).collect::<Result<_>>()?;
    let name = |index: usize| ["one", "two", "three", "four", "five"][index];
    let specs: Vec<_> = hosts
        .iter()
        .enumerate()
        .map(|(index, host)| {
            // The same port after a restart: clients find the node again.
            let spec = host.node(s, name(index)).with_api("127.0.0.1:8420");
            spec.with(&["--model", &model])
        })
        .collect();
    let nodes = s.mesh(&specs)?;
    s.step("a budget and a key, made at one node, are known to all");
    let key = fund(&nodes[0], ACCOUNT, AMOUNT)?;
    for node in &nodes {
        until_books(node, ACCOUNT, "the budget", Deadline::patient(), |books| {
            books.limit == LIMIT && books.whole["in_force"] == true
        })?;
        until_taken(node, &key, Deadline::patient())?;
    }
    Ok((bridge, hosts, nodes, key))
}

/// Waits until hardly anything is left and every client has been refused since.
fn exhausted(s: &Scenario, load: &Load, nodes: &[Node]) -> Result<()> {
    // An answer may not fit into what is left; what crashed nodes had set aside counts as spent.
    let deadline = Deadline::secs(90);
    until_books(&nodes[0], ACCOUNT, "the end of the budget", deadline, |books| {
        books.left < LIMIT / 20
    })?;
    s.step("the budget is spent: every client is told so");
    let then = load.tallies();
    load.until("refusals everywhere", Deadline::patient(), |tallies| {
        tallies.iter().zip(&then).all(|(now, then)| now.refused > then.refused)
    })?;
    Ok(())
}

/// The books of all nodes agree with each other and with what clients saw, the tokens of answers
/// that were cut short among it.
fn settled(s: &Scenario, nodes: &[Node], tallies: &[Tally], cut_short: u64) -> Result<()> {
    report(s, "in all", tallies);
    let served = tokens(tallies) + cut_short;
    ensure!(served <= LIMIT, "{served} tokens of {LIMIT} were served");
    ensure!(tallies.iter().all(|tally| tally.odd.is_empty()), "{tallies:?}");
    s.step("nothing is set aside any more, and the books balance, at every node");
    for node in nodes {
        let balanced = |books: &Books| {
            books.reserved == 0 && books.spent + books.left == LIMIT && books.spent >= served
        };
        let books = until_books(node, ACCOUNT, "balanced books", Deadline::secs(20), balanced)?;
        s.say(&format!("{}: spent {}, left {}", node.name(), books.spent, books.left));
    }
    Ok(())
}

fn tokens(tallies: &[Tally]) -> u64 {
    tallies.iter().map(|tally| tally.tokens).sum()
}

fn report(s: &Scenario, when: &str, tallies: &[Tally]) {
    for (index, Tally { tokens, refused, broken, odd, .. }) in tallies.iter().enumerate() {
        s.say(&format!(
            "{when}, node {}: {tokens} tokens, {refused} refusals, {broken} broken, {odd:?}",
            index + 1
        ));
    }
    s.say(&format!("{when}: {} tokens", tokens(tallies)));
}
