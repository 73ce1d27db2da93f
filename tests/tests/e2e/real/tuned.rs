//! A language model that a job tunes answers under the job's name as any other model does: at nodes
//! that have the base by their own engine, elsewhere by peers.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, NodeSpec, Scenario, scenario};
use serde_json::{Value, json};

const ROUNDS: u64 = 4;
const JOB: &str = "verses";

fn job() -> String {
    format!(
        "name = \"{JOB}\"\ndata = \"notes\"\nrounds = {ROUNDS}\nmin_clients = 3\ntarget = 4\n\
         held_out_permille = 250\n\
         [model]\nbase = \"{TINY}\"\nwindow = 16\n\
         lora = {{ rank = 4, alpha = 8, targets = [\"q\", \"v\", \"down\"] }}\n\
         [training]\nepochs = 1\nbatch = 4\nlearning_rate = 0.05\nclip = 0.5\n\
         [pace]\ntick_ms = 50\nstagger_ms = 100\ngather_ms = 150\npatience_ms = 3000\n"
    )
}

/// A node with the base model and a text of its own.
fn with_text(spec: NodeSpec, node: u64) -> Result<NodeSpec> {
    let model = tiny::write(&spec.home.join("given"))?.display().to_string();
    let path = spec.home.join("notes.txt");
    let word = ["anchors", "shares", "rounds", "chains"][node as usize % 4];
    let line = format!("node {node} keeps its {word} and tells nobody of its {word}. ");
    fs::write(&path, line.repeat(8))?;
    let config =
        format!("[[data]]\nname = \"notes\"\nkind = \"text\"\npath = \"{}\"\n", path.display());
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec.with(&["--model", &model]))
}

fn chat(model: &str) -> Value {
    json!({"model": model, "temperature": 0, "max_tokens": 6, "logprobs": true,
        "messages": [{"role": "user", "content": "What does node 3 keep?"}]})
}

/// What a node says to the same words, and how sure it is of each token.
fn said(node: &Node, model: &str) -> Result<Value> {
    let answer = node.client().post("/v1/chat/completions", &chat(model))?.ok()?;
    ensure!(answer["model"] == model, "{answer}");
    let content = answer["choices"][0]["logprobs"]["content"].clone();
    ensure!(content.as_array().is_some_and(|tokens| !tokens.is_empty()), "{answer}");
    Ok(content)
}

fn shown(node: &Node) -> Result<Option<Value>> {
    let told = node.cli(&["fed", "status", "--json"])?.success()?;
    let jobs: Vec<Value> = serde_json::from_str(&told).with_context(|| told.clone())?;
    Ok(jobs.into_iter().find(|job| job["name"] == JOB))
}

#[test]
fn what_a_job_tunes_answers_at_every_node() {
    scenario(|s| {
        let mut specs = Vec::new();
        for node in 0..5_u64 {
            let spec = s.node(&format!("n{node}"));
            specs.push(if node == 4 { spec } else { with_text(spec, node)? });
        }
        let mut nodes = s.mesh(&specs)?;
        let file = s.path("job.toml");
        fs::write(&file, job().replace(&format!("\"{JOB}\""), &format!("\"{TINY}\"")))?;
        let words = file.display().to_string();
        let refused = nodes[0].cli(&["fed", "submit", &words])?.failure()?;
        ensure!(refused.contains("a model of the mesh"), "{refused}");

        s.step("rounds in shares that nobody can take apart; the loss falls at every node");
        fs::write(&file, job())?;
        nodes[0].cli(&["fed", "submit", &words])?.success()?;
        for node in &nodes[..4] {
            loss_falls(node)?;
        }

        s.step("it is a model of the mesh, also where its base is not");
        let base = said(&nodes[0], TINY)?;
        let mut heard = Vec::new();
        for node in &nodes {
            served(node)?;
            heard.push(said(node, JOB)?);
        }
        ensure!(heard.iter().all(|one| *one == heard[0]), "{heard:?}");
        ensure!(heard[0] != base, "it answers as its base does: {base}");
        ensure!(said(&nodes[0], TINY)? == base, "its base answers otherwise than before");
        people_ask(s, &nodes)?;

        s.step("a node that starts again answers by the round on its disk");
        nodes[1].kill()?;
        nodes[1] = specs[1].up(s, &[])?;
        served(&nodes[1])?;
        ensure!(said(&nodes[1], JOB)? == heard[0], "another answer after a start");
        the_adapter_is_written(s, &nodes[0])?;

        s.step("what is cancelled answers no more");
        nodes[0].cli(&["fed", "cancel", JOB])?.success()?;
        for node in &nodes {
            Deadline::patient().until("the model gone", || {
                let reply = node.client().post("/v1/chat/completions", &chat(JOB))?;
                Ok((reply.status == 404).then_some(()))
            })?;
        }
        said(&nodes[4], TINY).map(drop)
    });
}

/// Waits for the last round, and compares the first and the last loss on what the node held out.
fn loss_falls(node: &Node) -> Result<()> {
    let job = Deadline::patient().until(&format!("the rounds at {}", node.name()), || {
        let measured = |job: &Value| {
            let last = job["measured"].as_array()?.last()?["round"].as_u64()?;
            (last == ROUNDS).then_some(())
        };
        Ok(shown(node)?.filter(|job| measured(job).is_some()))
    })?;
    let losses: Vec<u64> = job["measured"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["loss_micronats"].as_u64())
        .collect();
    let falls = losses.first() > losses.last();
    ensure!(losses.len() > 1 && falls, "{}: {losses:?}", node.name());
    Ok(())
}

/// Waits until a node lists the last round's model as one of the mesh.
fn served(node: &Node) -> Result<()> {
    let round = format!("round {ROUNDS}");
    Deadline::patient().until(&format!("the model at {}", node.name()), || {
        let listed = node.client().get("/api/tags")?.ok()?;
        let models = listed["models"].as_array().into_iter().flatten();
        let mut versions = models.filter(|model| {
            let name = model["name"].as_str().unwrap_or_default();
            name == JOB || name.starts_with(&format!("{JOB}:"))
        });
        let is_last = |model: &Value| model["details"].to_string().contains(&round);
        Ok(versions.all(is_last).then_some(()).filter(|()| listed.to_string().contains(&round)))
    })
}

fn people_ask(s: &Scenario, nodes: &[Node]) -> Result<()> {
    s.step("the ways in that other models have");
    for node in [&nodes[1], &nodes[4]] {
        let listed = node.client().get("/v1/models")?.ok()?;
        ensure!(listed.to_string().contains(&format!("\"{JOB}\"")), "{listed}");
        let told = node.cli(&["ask", "--model", JOB, "What does node 3 keep?"])?.success()?;
        ensure!(!told.is_empty(), "no answer");
        let messages = json!([{"role": "user", "content": "What does node 3 keep?"}]);
        let asked = json!({"model": JOB, "max_tokens": 5, "messages": messages});
        let answer = node.client().post("/v1/messages", &asked)?.ok()?;
        ensure!(answer["usage"]["output_tokens"].as_u64() > Some(0), "{answer}");
        let asked = json!({"model": JOB, "stream": false, "messages": messages,
            "options": {"num_predict": 5}});
        let answer = node.client().post("/api/chat", &asked)?.ok()?;
        ensure!(answer["done"] == true, "{answer}");
    }
    let told = nodes[1].cli(&["fed", "status", JOB])?.success()?;
    let by = format!("version {ROUNDS}, by `selvedge ask --model {JOB}`");
    ensure!(told.contains(&by), "{told}");
    let told = nodes[4].cli(&["fed", "status", JOB])?.success()?;
    ensure!(told.contains("no base model 'tiny'"), "{told}");
    let told = nodes[1].cli(&["models", "list"])?.success()?;
    let line = told.lines().find(|line| line.starts_with(JOB)).context("no line of it")?;
    ensure!(line.contains("a job of learning"), "{told}");
    Ok(())
}

fn the_adapter_is_written(s: &Scenario, node: &Node) -> Result<()> {
    s.step("the same as an adapter, with its proof; another one's description is not overwritten");
    let folder = s.path("adapter");
    fs::create_dir_all(&folder)?;
    let path = folder.join("adapter_model.safetensors").display().to_string();
    for _ in 0..2 {
        node.cli(&["fed", "model", "export", JOB, &path])?.success()?;
    }
    node.cli(&["fed", "verify", &path])?.success()?;
    let config = folder.join("adapter_config.json");
    let other = fs::read_to_string(&config)?.replace("\"r\": 4", "\"r\": 8");
    fs::write(&config, &other)?;
    let refused = node.cli(&["fed", "model", "export", JOB, &path])?.failure()?;
    ensure!(refused.contains("export into a directory of its own"), "{refused}");
    ensure!(fs::read_to_string(&config)? == other, "it was overwritten");
    Ok(())
}
