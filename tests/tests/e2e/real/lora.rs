//! A language model that people use is tuned over real nodes by real texts: three nodes have a text
//! each, two more are anchors and follow. What a model of a few thousand weights does of the same
//! is in `tuned` and `kinds`.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_tests::places::{self, MODEL};
use selvedge_tests::{Deadline, Node, NodeSpec, Scenario, rounds, scenario};
use serde_json::Value;

use super::overheard::until;

const JOB: &str = "house-style";
/// The texts of this repository that the nodes have, one each; further nodes have none.
const TEXTS: [&str; 3] = ["LICENSE", "CONTRIBUTING.md", "SECURITY.md"];
/// Anchors of the smallest job.
const NODES: usize = 5;
const ROUNDS: u64 = 2;
/// Tokens of a window, and bytes of a text that some nine of them are cut from: six to train on and
/// three to measure on. Each goes through 135 million weights there and back.
const WINDOW: usize = 16;
const BYTES: usize = 600;
/// By how much less than before the loss has to be at each node, of a thousand: half of what the
/// least did in the measurement of decision 0041. The same job trains to the same bits each time on
/// processors of one kind, so that what is asked for is far from the rounding of others.
const FALLS_PERMILLE: u64 = 5;
/// Both rounds, with three nodes at two cores that other work may share.
const TRAINS_SECS: u64 = 180;

/// A step looks at all windows of a node: whatever order is drawn for them, it is the same step.
fn job() -> String {
    format!(
        "name = \"{JOB}\"\ndata = \"notes\"\nrounds = {ROUNDS}\nmin_clients = 3\n\
         held_out_permille = 334\n\
         [model]\nbase = \"{MODEL}\"\nwindow = {WINDOW}\n\
         lora = {{ rank = 4, alpha = 8, targets = [\"q\", \"v\"] }}\n\
         [training]\nepochs = 1\nbatch = 16\nlearning_rate = 0.5\nclip = 0.5\n\
         [pace]\ntick_ms = 100\nstagger_ms = 100\ngather_ms = 150\npatience_ms = 5000\n"
    )
}

/// A node with the model and the beginning of a text.
fn with_text(spec: NodeSpec, name: &str) -> Result<NodeSpec> {
    fs::create_dir_all(&spec.home)?;
    let text = fs::read_to_string(places::repository().join(name)).context("a text")?;
    let path = spec.home.join("notes.txt");
    fs::write(&path, &text[..text.floor_char_boundary(BYTES)])?;
    let config =
        format!("[[data]]\nname = \"notes\"\nkind = \"text\"\npath = \"{}\"\n", path.display());
    fs::write(spec.home.join("config.toml"), config)?;
    spec.with_model()
}

#[test]
fn nodes_tune_a_model_that_people_use_on_texts_of_their_own() {
    scenario(|s| {
        let mut specs = Vec::new();
        for at in 0..NODES {
            let spec = s.node(&format!("n{at}"));
            specs.push(match TEXTS.get(at) {
                Some(name) => with_text(spec, name)?,
                None => spec,
            });
        }
        let nodes = s.mesh(&specs)?;
        let file = s.path("job.toml");
        fs::write(&file, job())?;
        nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;

        s.step("the loss on what each node held out falls, by what all of them learned");
        let learners = &nodes[..TEXTS.len()];
        for (node, text) in learners.iter().zip(TEXTS) {
            let (before, after) = losses(node)?;
            s.say(&format!("{} has {text}: {before} micronats, then {after}", node.name()));
            let falls = before.saturating_sub(after) * 1_000 > before * FALLS_PERMILLE;
            ensure!(falls, "{}: {before} micronats, then {after}", node.name());
        }
        all_have_the_same(s, &nodes)
    });
}

/// The loss of a token that a node did not train on: by the base model, and by the last round's.
fn losses(node: &Node) -> Result<(u64, u64)> {
    let deadline = Deadline::secs(TRAINS_SECS);
    // Over the admin interface: a process for each look would cost the nodes a part of a core.
    let found = deadline.until(&format!("the figures of {}", node.name()), || {
        let told = rounds::job(node, JOB)?.unwrap_or_default();
        let measured = told["measured"].as_array().cloned().unwrap_or_default();
        let is_done = measured.last().is_some_and(|last| last["round"] == ROUNDS);
        Ok(is_done.then_some(measured))
    })?;
    let loss = |one: Option<&Value>| one.and_then(|one| one["loss_micronats"].as_u64());
    let (first, last) = (found.first(), found.last());
    ensure!(first.is_some_and(|first| first["round"] == 0), "without the base model: {found:?}");
    loss(first).zip(loss(last)).with_context(|| format!("losses in {found:?}"))
}

fn all_have_the_same(s: &Scenario, nodes: &[Node]) -> Result<()> {
    s.step("all five come to the same model, also where the base is not");
    let mut ends = Vec::new();
    for node in nodes {
        let is_over = |job: &Value| job["round"].as_u64() == Some(ROUNDS);
        ends.push(until(node, JOB, "the end", is_over)?);
    }
    for end in &ends {
        for what in ["model", "record", "job"] {
            ensure!(end[what] == ends[0][what] && end[what] != "", "{what}: {end}, {}", ends[0]);
        }
    }
    let counted = ends[0]["contributions"].as_array().context("contributions")?;
    let each = counted.iter().map(|one| one["contributions"].as_u64());
    ensure!(counted.len() == TEXTS.len() && each.eq([Some(ROUNDS); TEXTS.len()]), "{}", ends[0]);

    s.step("and hand out the same adapter, which their chains prove");
    let mut adapters = Vec::new();
    for node in &nodes[..TEXTS.len()] {
        let folder = s.path(&format!("{}-adapter", node.name()));
        fs::create_dir_all(&folder)?;
        let path = folder.join("adapter_model.safetensors").display().to_string();
        node.cli(&["fed", "model", "export", JOB, &path])?.success()?;
        node.cli(&["fed", "verify", &path])?.success()?;
        adapters.push(fs::read(&path)?);
    }
    ensure!(adapters.iter().all(|adapter| *adapter == adapters[0]), "different adapters");
    Ok(())
}
