//! Routes of the mesh: set at one node, used at another, taken back at a third, known to one that
//! comes later, and kept over a restart.

use anyhow::{Context, Result, ensure};
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, Scenario, scenario};
use serde_json::{Value, json};
use std::fs;

/// A second model that answers the same.
const OTHER: &str = "twin";
/// How soon a node that is in contact goes by what was ordered at another one.
const SOON: u64 = 5;

#[test]
fn routes_of_the_mesh_are_set_here_used_there_and_taken_back_elsewhere() {
    scenario(|s| {
        let nodes = three(s)?;
        let (a, b, c) = (&nodes[0], &nodes[1], &nodes[2]);
        s.step("set at the first, used at the second");
        a.cli(&["routes", "set", &file(s, TINY)?])?.success()?;
        until_version(b, "chat", 1)?;
        ensure!(answered_by(b, "chat")? == TINY && answered_by(b, "gpt-4o")? == TINY);
        a.cli(&["routes", "set", &file(s, OTHER)?])?.success()?;
        until_version(b, "chat", 2)?;
        ensure!(answered_by(b, "gpt-4o")? == OTHER, "the alias leads to the new target");

        s.step("who is no steward changes nothing");
        let refused = c.cli(&["routes", "rollback", "chat"])?.failure()?;
        ensure!(refused.contains("root key"), "{refused}");
        a.cli(&["mesh", "promote", &c.id])?.success()?;
        until(c, "its right to sign", |node| {
            Ok(node.admin()?.client().post("/admin/invite", &json!({}))?.status == 200)
        })?;
        s.step("taken back at the third");
        until_version(c, "chat", 2)?;
        c.cli(&["routes", "rollback", "chat"])?.success()?;
        until_version(b, "chat", 3)?;
        ensure!(answered_by(b, "chat")? == TINY);
        let history = b.cli(&["routes", "history", "chat"])?.success()?;
        let signers = [&a.id, &c.id].map(|id| &id[id.len() - 8..]);
        for part in ["1-", "2-", "3-", "in force"].into_iter().chain(signers) {
            ensure!(history.contains(part), "no {part} in {history}");
        }
        s.step("what is shown is a file, which says nothing new");
        let path = s.path("shown.toml");
        fs::write(&path, b.cli(&["routes", "show"])?.success()?)?;
        a.cli(&["routes", "set", &path.display().to_string()])?.success()?;
        ensure!(version(a, "chat")? == Some(3));

        s.step("what another node could not use is refused where it is ordered");
        let refused = c.cli(&["routes", "remove", "chat"])?.failure()?;
        ensure!(refused.contains("gpt-4o") && refused.contains("chat"), "{refused}");
        only_where_the_provider_is(s, a, b, c)?;

        s.step("one that joins later has it all");
        let code = a.admin()?.invite(600)?;
        let late = s.node("late").up(s, &["--join", &code])?;
        until_version(&late, "chat", 3)?;
        until(&late, "an answer", |node| Ok(answered_by(node, "chat").is_ok()))?;
        ensure!(answered_by(&late, "chat")? == TINY);
        late.cli(&["routes", "history", "chat"])?.success()?;

        s.step("alone, after a restart");
        for node in &nodes {
            node.kill()?;
        }
        late.kill()?;
        let late = late.spec.up(s, &[])?;
        ensure!(version(&late, "chat")? == Some(3));
        let shown = late.cli(&["routes", "show", "chat"])?.success()?;
        ensure!(shown.contains(TINY) && !shown.contains(OTHER), "{shown}");
        Ok(())
    });
}

/// A route whose first target only one node can ask: the other one says so, and uses the second.
fn only_where_the_provider_is(s: &Scenario, a: &Node, b: &Node, c: &Node) -> Result<()> {
    s.step("a node without the provider leaves the target out and says so");
    let lab = ["--kind", "openai", "--url", "http://127.0.0.1:9", "--free"];
    a.cli(&[&["provider", "add", "lab"][..], &lab].concat())?.success()?;
    let path = s.path("mixed.toml");
    let targets = format!(
        "[[route.target]]\nprovider = \"lab\"\nmodel = \"x\"\n[[route.target]]\nmesh = \"{TINY}\"\n"
    );
    fs::write(&path, format!("[[route]]\nname = \"mixed\"\npolicy = \"fallback\"\n{targets}"))?;
    let path = path.display().to_string();
    let refused = c.cli(&["routes", "set", &path])?.failure()?;
    ensure!(refused.contains("lab"), "{refused}");
    a.cli(&["routes", "set", &path])?.success()?;
    until_version(b, "mixed", 1)?;
    let listed = b.cli(&["routes", "list"])?.success()?;
    ensure!(listed.contains("provider 'lab' is unknown"), "{listed}");
    ensure!(!a.cli(&["routes", "list"])?.success()?.contains("unknown"));
    ensure!(answered_by(b, "mixed")? == TINY);
    s.step("an own route comes before the mesh's, at that node alone");
    b.cli(&["routes", "set", "--here", &file(s, OTHER)?])?.success()?;
    ensure!(answered_by(b, "chat")? == OTHER && answered_by(a, "chat")? == TINY);
    let listed = b.cli(&["routes", "list"])?.success()?;
    ensure!(listed.contains("this node's own routes say otherwise"), "{listed}");
    b.cli(&["routes", "rollback", "--here"])?.success()?;
    ensure!(answered_by(b, "chat")? == TINY);
    s.step("removed");
    a.cli(&["routes", "remove", "mixed"])?.success()?;
    until_version(b, "mixed", 2)?;
    ensure!(!b.cli(&["routes", "list"])?.success()?.contains("mixed"));
    ask(b, "mixed")?.refused(404)?;
    Ok(())
}

/// A node with two models, which made the mesh, and two without any.
fn three(s: &Scenario) -> Result<Vec<Node>> {
    let model = tiny::write(&s.path("model"))?;
    let other = tiny::twin(&model, OTHER)?;
    let (model, other) = (model.display().to_string(), other.display().to_string());
    let founder = s.node("founder").with(&["--model", &model, "--model", &other]);
    s.mesh(&[founder, s.node("second"), s.node("third")])
}

/// A route to a model, and an alias of it.
fn file(s: &Scenario, model: &str) -> Result<String> {
    let path = s.path(&format!("{model}.toml"));
    let target = format!("[[route.target]]\nmesh = \"{model}\"\n");
    let aliases = "[aliases]\n\"gpt-4o\" = \"chat\"\n";
    fs::write(&path, format!("{aliases}[[route]]\nname = \"chat\"\npolicy = \"fixed\"\n{target}"))?;
    Ok(path.display().to_string())
}

fn ask(node: &Node, model: &str) -> Result<selvedge_tests::http::Reply> {
    let message = json!({"role": "user", "content": "Good morning!"});
    let body = json!({"model": model, "messages": [message], "max_tokens": 4, "temperature": 0});
    node.client().post("/v1/chat/completions", &body)
}

/// Which of the two models answers for a name.
fn answered_by(node: &Node, name: &str) -> Result<String> {
    let reply = ask(node, name)?;
    let id = reply.header("x-request-id").context("an id")?.to_owned();
    reply.ok()?;
    let told = node.cli(&["explain", &id])?.success()?;
    let mut found = [TINY, OTHER].into_iter().filter(|model| told.contains(model));
    let model = found.next().with_context(|| format!("no model in {told}"))?;
    ensure!(found.next().is_none(), "both models in {told}");
    Ok(model.to_owned())
}

/// The version of an entry that governs at a node.
fn version(node: &Node, name: &str) -> Result<Option<u64>> {
    let reply = node.admin()?.client().get(&format!("/admin/mesh-routes/name/{name}"))?;
    if reply.status != 200 {
        return Ok(None);
    }
    let versions: Value = reply.ok()?;
    Ok(versions["data"][0]["version"].as_u64())
}

fn until_version(node: &Node, name: &str, wanted: u64) -> Result<()> {
    until(node, name, |node| Ok(version(node, name)? == Some(wanted)))
}

fn until(node: &Node, what: &str, wanted: impl Fn(&Node) -> Result<bool>) -> Result<()> {
    let what = format!("{what} at {}", node.name());
    Deadline::secs(SOON).until(&what, || Ok(wanted(node)?.then_some(())))
}
