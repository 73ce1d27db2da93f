//! Models whose chat template means harm: they cost their own requests, and nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Client, Deadline, Node, scenario};
use serde_json::{Value, json};

/// Nests a list in itself until dropping it takes more stack than a thread has.
const NESTS: &str = "{% set ns = namespace(l=[]) %}{% for a in range(40000) %}\
                     {% set ns.l = [[[[[[[[[[[[ns.l]]]]]]]]]]]] %}{% endfor %}{{ ns.l }}";
/// A list that doubles without being made, and is walked then.
const DOUBLES: &str = "{% set ns = namespace(l=[1]) %}{% for a in range(60) %}\
                       {% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l|length }}";

#[test]
fn a_hostile_template_costs_its_own_requests_alone() {
    scenario(|s| {
        s.step("a node without models has no process beside it");
        let node = s.node("alone").up(s, &[])?;
        ensure!(children(&node)?.is_empty(), "{:?}", children(&node)?);

        let models = s.path("models");
        for (name, template) in [("nests", NESTS), ("doubles", DOUBLES)] {
            let file = tiny::with_template(&models, name, template)?.display().to_string();
            node.cli(&["models", "pull", &file, "--name", name, "--yes"])?.success()?;
        }
        let file = tiny::write(&models)?.display().to_string();
        node.cli(&["models", "pull", &file, "--name", TINY, "--yes"])?.success()?;
        let client = node.client();
        ensure!(children(&node)?.len() == 3, "one for each: {:?}", children(&node)?);

        for (name, template) in [("nests", NESTS), ("doubles", DOUBLES)] {
            s.step(&format!("{name}: {template:.60}"));
            let refused = client.post("/v1/chat/completions", &chat(name))?.refused(500)?;
            ensure!(refused.to_string().contains("chat template"), "{refused}");
            let again = client.post("/v1/chat/completions", &chat(name))?.refused(500)?;
            ensure!(again.to_string().contains("tried again"), "{again}");
            answers(&client)?;
        }

        s.step("a text needs no template");
        let text = json!({"model": "nests", "prompt": "Hi", "max_tokens": 2});
        client.post("/v1/completions", &text)?.ok()?;

        s.step("no process outlives the node, however that ends");
        let left = children(&node)?;
        ensure!(!left.is_empty());
        node.kill()?;
        Deadline::patient().until("the end of what rendered", || {
            let lives = |pid: &u32| Path::new(&format!("/proc/{pid}/exe")).exists();
            Ok((!left.iter().any(lives)).then_some(()))
        })
    });
}

fn chat(model: &str) -> Value {
    json!({"model": model, "max_tokens": 4, "temperature": 0,
        "messages": [{"role": "user", "content": "Hi"}]})
}

fn answers(client: &Client) -> Result<()> {
    let answer = client.post("/v1/chat/completions", &chat(TINY))?.ok()?;
    ensure!(answer["usage"]["completion_tokens"] == 4, "{answer}");
    Ok(())
}

/// The processes that a node started.
fn children(node: &Node) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", node.process().pid()))? {
        let listed = fs::read_to_string(task?.path().join("children"))?;
        found.extend(listed.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(found)
}
