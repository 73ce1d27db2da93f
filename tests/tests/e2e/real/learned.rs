//! What a job has learned answers at every node, also at one without data, and a new round takes
//! the place of the old one while requests come.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{fund, key, until_books};
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, NodeSpec, Reply, Scenario, python, scenario};
use serde_json::{Value, json};

use super::learning::{job, same_end, submit, until_round, with_data};

/// Rounds enough for requests to see several of them pass.
const ROUNDS: u64 = 24;
/// Rows of a request that gets labels.
const MANY: usize = 16;
const INFER: &str = "/v2/models/wear/infer";

/// Machines that are worn, well, and worn.
fn rows() -> Value {
    json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [3, 2],
        "data": [[0.9, 0.1], [0.1, 0.9], [0.8, 0.2]]}]})
}

#[test]
fn what_a_job_learns_is_served_at_every_node_at_once() {
    scenario(|s| {
        let mut specs = Vec::new();
        for node in 0..5_u64 {
            let spec = s.node(&format!("n{node}"));
            specs.push(if node == 4 { that_is_asked(spec)? } else { with_data(spec, node)? });
        }
        let mut nodes = s.mesh(&specs)?;
        names_are_taken_once(s, &nodes[0])?;

        s.step("while it learns, a node without data serves one round after the other");
        submit(s, &nodes[0], ROUNDS)?;
        until_round(&nodes[4], 1)?;
        let versions = versions_until_the_end(&nodes[4])?;
        ensure!(versions.len() > 1, "one version only: {versions:?}");

        s.step("when it is done all nodes give the same answer, bit for bit");
        same_end(&nodes, ROUNDS)?;
        let answers: Vec<Value> = nodes
            .iter()
            .map(|node| node.client().post(INFER, &rows())?.ok())
            .collect::<Result<_>>()?;
        ensure!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        ensure!(
            answers[0]["model_version"].as_str() == Some(&*ROUNDS.to_string()),
            "{}",
            answers[0]
        );
        ensure!(answers[0]["outputs"][1]["data"] == json!([1, 0, 1]), "{}", answers[0]);

        s.step("the clients of others");
        let round = ROUNDS.to_string();
        let more = [("SELVEDGE_MODEL", "wear"), ("SELVEDGE_ROUND", round.as_str())];
        let said = python::run_with("learned.py", &nodes[4].client(), &more)?;
        ensure!(said.trim_end().ends_with("all good"), "{said}");
        people_ask(s, &nodes[4])?;
        keys_and_budgets(s, &nodes[0])?;

        what_was_asked_is_learned_from(s, &nodes[4])?;

        s.step("a node that starts again serves it from its disk");
        nodes[4].kill()?;
        nodes[4] = specs[4].up(s, &[])?;
        let again = Deadline::patient().until("the model after a start", || {
            Ok(nodes[4].client().post(INFER, &rows())?.ok().ok())
        })?;
        ensure!(again == answers[0], "{again} and {}", answers[0]);

        s.step("what is cancelled answers no more");
        nodes[0].cli(&["fed", "cancel", "wear"])?.success()?;
        Deadline::patient().until("the model gone", || {
            let gone = says(nodes[4].client().get("/v2/models/wear")?, 404);
            Ok(gone.ok())
        })
    });
}

/// A node that may learn from what it is asked, and from nothing else.
fn that_is_asked(spec: NodeSpec) -> Result<NodeSpec> {
    fs::create_dir_all(&spec.home)?;
    let config = "[[data]]\nname = \"line3\"\nkind = \"requests\"\nmodel = \"wear\"\n";
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec)
}

/// A request gets its labels from whoever made it, and the job reads it as examples of the node.
fn what_was_asked_is_learned_from(s: &Scenario, node: &Node) -> Result<()> {
    s.step("what a node is asked is an example once somebody says what it should have said");
    let examples = || -> Result<Value> {
        let jobs: Value =
            serde_json::from_str(&node.cli(&["fed", "status", "--json"])?.success()?)?;
        Ok(jobs[0]["examples"].clone())
    };
    ensure!(examples()?.is_null(), "examples before there were labels");
    // Of each row a draw decides whether it is held out, a tenth of them: not all of so many are.
    let many = vec![json!([0.9, 0.1]); MANY];
    let input = json!({"name": "input", "datatype": "FP32", "shape": [MANY, 2], "data": many});
    let answer = node.client().post(INFER, &json!({"inputs": [input]}))?;
    let id = answer.header("x-request-id").context("an id")?.to_owned();
    let path = format!("/v1/requests/{id}/labels");
    says(node.client().post(&path, &json!({"labels": [1, 0]}))?, 400)?;
    says(node.client().post(&path, &json!({ "labels": vec![2; MANY] }))?, 400)?;
    let told = node.client().post(&path, &json!({ "labels": vec![0; MANY] }))?.ok()?;
    ensure!(told == json!({"model": "wear", "kept": 1, "forgotten": 0}), "{told}");
    let told = node.cli(&[&["label", &id][..], &["1"; MANY][..]].concat())?.success()?;
    ensure!(told.contains("1 labelled requests to 'wear'"), "{told}");
    let learned = 1..=MANY as u64;
    let some = || Ok(examples()?.as_u64().filter(|count| learned.contains(count)));
    Deadline::patient().until("examples", some)?;
    let told = node.cli(&["label", "--forget", "wear"])?.success()?;
    ensure!(told.contains("forgot 1 labelled requests to wear"), "{told}");
    Ok(())
}

fn names_are_taken_once(s: &Scenario, node: &Node) -> Result<()> {
    s.step("a job may not have the name of a model that answers already");
    let model = tiny::write(&s.path("given"))?.display().to_string();
    node.cli(&["models", "pull", &model, "--name", TINY, "--yes"])?.success()?;
    let file = s.path("taken.toml");
    fs::write(&file, job(ROUNDS).replace("name = \"wear\"", &format!("name = \"{TINY}\"")))?;
    let file = file.display().to_string();
    for order in ["check", "submit"] {
        let refused = node.cli(&["fed", order, &file])?.failure()?;
        ensure!(refused.contains("a model of the mesh"), "{order}: {refused}");
    }
    Ok(())
}

/// Asks until the last round answers: never without an answer, never by an older round than before.
fn versions_until_the_end(node: &Node) -> Result<Vec<u64>> {
    let mut versions: Vec<u64> = Vec::new();
    Deadline::patient().until("an answer by the last round", || {
        let answer = node.client().post(INFER, &rows())?.ok()?;
        let version: u64 = answer["model_version"].as_str().context("a version")?.parse()?;
        ensure!(
            versions.last().is_none_or(|last| *last <= version),
            "{version} after {versions:?}"
        );
        if versions.last() != Some(&version) {
            versions.push(version);
        }
        Ok((version == ROUNDS).then_some(()))
    })?;
    Ok(versions)
}

fn people_ask(s: &Scenario, node: &Node) -> Result<()> {
    s.step("people ask from the command line");
    let file = s.path("states.csv");
    fs::write(&file, "state,heat,humidity\n?,90,10\n?,10,90\n")?;
    let file = file.display().to_string();
    let words = ["infer", "wear", "--input", &file, "--columns", "heat,humidity"];
    let more = ["--scale", "100", "--classes", "ok,worn"];
    let told = node.cli(&[&words[..], &more[..]].concat())?.success()?;
    let classes: Vec<&str> =
        told.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    ensure!(classes.starts_with(&["worn", "ok"]), "{told}");
    let wide = node.cli(&["infer", "wear", "--input", &file, "--columns", "heat"])?.failure()?;
    ensure!(wide.contains("the model takes [-1, 2]"), "{wide}");
    let chat = node.cli(&["ask", "--model", "wear", "Hello"])?.failure()?;
    ensure!(chat.contains("selvedge infer wear"), "{chat}");
    let told = node.cli(&["fed", "status", "wear"])?.success()?;
    ensure!(told.contains(&format!("version {ROUNDS}, by `selvedge infer wear`")), "{told}");
    let listed = node.cli(&["models", "list"])?.success()?;
    ensure!(listed.contains("wear") && listed.contains("learned"), "{listed}");
    let chats = node.client().get("/v1/models")?.ok()?;
    ensure!(!chats.to_string().contains("wear"), "it chats with nobody: {chats}");
    let vectors = json!({"model": "wear", "input": "a"});
    let refused = node.client().post("/v1/embeddings", &vectors)?.refused(400)?;
    ensure!(refused.to_string().contains("selvedge infer wear"), "{refused}");
    Ok(())
}

fn keys_and_budgets(s: &Scenario, node: &Node) -> Result<()> {
    s.step("a budget counts a request, and its record is kept");
    let funded = node.client().with_key(&fund(node, "acme", "20 requests/day")?);
    let mut reply = None;
    for _ in 0..2 {
        reply = Some(funded.post(INFER, &rows())?);
    }
    let reply = reply.context("two answers")?;
    let id = reply.header("x-request-id").context("an id")?.to_owned();
    reply.ok()?;
    says(funded.post(INFER, &json!({"inputs": []}))?, 400)?;
    until_books(node, "acme", "two requests", Deadline::patient(), |books| {
        books.spent == 2 && books.reserved == 0
    })?;
    let told = node.cli(&["explain", &id])?.success()?;
    ensure!(told.contains("wear"), "{told}");
    s.step("a key opens only what it is for");
    key(node, "other")?;
    let made = node
        .cli(&["key", "create", "narrow", "--account", "other", "--models", "tiny"])?
        .success()?;
    let secret = made.split_whitespace().find(|word| word.starts_with("sk-")).context("a key")?;
    let narrow = node.client().with_key(secret);
    for path in ["/v2/models/wear", "/v2/models/wear/ready"] {
        says(narrow.get(path)?, 403)?;
    }
    says(narrow.post(INFER, &rows())?, 403)
}

/// A refusal in the protocol's own shape.
fn says(reply: Reply, status: u16) -> Result<()> {
    let got = reply.status;
    let body = reply.json()?;
    let why = body["error"].as_str().is_some_and(|text| text.len() > 10);
    ensure!(got == status && why, "expected {status}, got {got}: {body}");
    Ok(())
}
