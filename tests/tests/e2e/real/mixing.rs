//! Epidemic mode over real nodes: a side without a quorum of anchors learns on by itself, and what
//! it learned there never enters the common model.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use selvedge_tests::{Deadline, Node, Scenario, scenario};
use serde_json::Value;

use super::learning::{job, same_end, shown, until_round, with_data};

/// Enough that the job is under way for as long as three of its anchors are away.
const ROUNDS: u64 = 40;

/// A plain job whose nodes mix with one peer as soon as a round is late. Two seconds are more than
/// the pace's patience of 1.5, and less than a test should wait.
fn mixing_job() -> String {
    format!(
        "{}[mode]\nkind = \"plain\"\nrule = \"mean\"\n\
         [epidemic]\npeers = 1\nafter_ms = 2000\nevery_ms = 100\n",
        job(ROUNDS)
    )
}

/// What a node shows of its own model, once it is as asked.
fn until_personal(node: &Node, what: &str, as_asked: impl Fn(&Value) -> bool) -> Result<Value> {
    Deadline::patient().until(&format!("{what} at {}", node.name()), || {
        let personal = shown(node)?.map(|job| job["personal"].clone());
        Ok(personal.filter(&as_asked))
    })
}

/// Models of peers that are in a node's own.
fn mixed(personal: &Value) -> u64 {
    personal["mixed"].as_u64().unwrap_or_default()
}

#[test]
fn a_side_without_a_quorum_mixes_and_rounds_go_on_where_they_were() {
    scenario(|s| {
        let mut specs = Vec::new();
        for node in 0..5_u64 {
            specs.push(with_data(s.node(&format!("n{node}")), node)?);
        }
        let mut nodes = s.mesh(&specs)?;
        let file = s.path("job.toml");
        fs::write(&file, mixing_job())?;
        nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;
        let begun = until_round(&nodes[0], 2)?;
        ensure!(begun["personal"]["no_quorum_since_s"].is_null(), "{begun}");

        s.step("three of five anchors die: no round ends, and the two that are left mix");
        for node in &mut nodes[2..] {
            node.kill()?;
        }
        for node in &nodes[..2] {
            let own = until_personal(node, "ten models of the other one", |own| mixed(own) >= 10)?;
            ensure!(!own["no_quorum_since_s"].is_null() && own["age"].as_u64() > Some(1), "{own}");
        }
        let told = nodes[0].cli(&["fed", "status", "wear"])?.success()?;
        ensure!(told.contains("own model") && told.contains("models of peers"), "{told}");
        its_own_model_is_written_and_not_proven(s, &nodes[0])?;

        s.step("one comes back: rounds go on, and the common model counts again");
        let stood = shown(&nodes[0])?.context("the job")?["round"].as_u64().context("a round")?;
        ensure!(stood + 5 < ROUNDS, "it was over before they died: {stood}");
        nodes[2] = specs[2].up(s, &[])?;
        until_round(&nodes[0], stood + 2)?;
        for node in &nodes[..2] {
            until_personal(node, "no more mixing", |own| own["no_quorum_since_s"].is_null())?;
        }

        s.step("all come back, and come to the same model");
        for at in 3..5 {
            nodes[at] = specs[at].up(s, &[])?;
        }
        same_end(&nodes, ROUNDS)?;
        Ok(())
    });
}

/// A node's own model is a file that whoever reads it cannot take for the common one.
fn its_own_model_is_written_and_not_proven(s: &Scenario, node: &Node) -> Result<()> {
    let path = s.path("own.safetensors").display().to_string();
    let told = node.cli(&["fed", "model", "export", "wear", &path, "--personal"])?.success()?;
    ensure!(told.contains("no chain proves it"), "{told}");
    let refused = node.cli(&["fed", "verify", &path])?.failure()?;
    ensure!(refused.contains("chain"), "{refused}");
    Ok(())
}
