//! Embeddings by a model of the node's own, through the official clients and every surface.

use anyhow::{Context, Result, ensure};
use selvedge_tests::budgets::{fund, until_books};
use selvedge_tests::tiny::{self, TINY};
use selvedge_tests::{Deadline, Node, Scenario, places, python, scenario};
use serde_json::json;

/// The name that the model's directory gives it.
const NAME: &str = "all-minilm-l6-v2";

/// A node with this model, and one that writes.
fn node(s: &Scenario, name: &str) -> Result<Node> {
    let model = places::embedder()?.display().to_string();
    let spec = s.node(name);
    tiny::write(&spec.home.join("models"))?;
    spec.up(s, &["--model", TINY, "--model", &model])
}

#[test]
fn official_clients_get_embeddings_of_a_model_of_the_node() {
    scenario(|s| {
        let node = node(s, "reader")?;
        let fixture = places::repository().join("inference/engine/tests/fixtures/minilm.json");
        let fixture = fixture.display().to_string();
        let more = [("SELVEDGE_MODEL", TINY), ("SELVEDGE_VECTORS", fixture.as_str())];
        s.step("OpenAI's and Ollama's clients");
        let said = python::run_with("local_embeddings.py", &node.client(), &more)?;
        s.say(said.trim_end());
        ensure!(said.trim_end().ends_with("all good"), "{said}");
        s.step("the Open Inference Protocol");
        let client = node.client();
        let told = client.get(&format!("/v2/models/{NAME}"))?.ok()?;
        ensure!(told["outputs"][0]["shape"] == json!([-1, 384]), "{told}");
        let texts = json!({"name": "text_input", "datatype": "BYTES", "shape": [2],
            "data": ["Hello, world!", "a"]});
        let asked = json!({"inputs": [texts]});
        let answer = client.post(&format!("/v2/models/{NAME}/infer"), &asked)?.ok()?;
        ensure!(answer["outputs"][0]["shape"] == json!([2, 384]), "{answer}");
        let numbers = answer["outputs"][0]["data"].as_array().context("numbers")?;
        ensure!(numbers.len() == 768, "{} numbers", numbers.len());
        let listed = node.cli(&["models", "list"])?.success()?;
        ensure!(listed.contains(NAME), "{listed}");
        Ok(())
    });
}

#[test]
fn budgets_count_the_tokens_of_local_embeddings() {
    scenario(|s| {
        let node = node(s, "reader")?;
        let key = fund(&node, "acme", "1000 tokens/month")?;
        let client = node.client().with_key(&key);
        let ask =
            |text: &str| client.post("/v1/embeddings", &json!({"model": NAME, "input": text}));
        s.step("ten words and the model's two marks");
        let reply = ask("one two three four five six seven eight nine ten")?;
        let id = reply.header("x-request-id").context("an id")?.to_owned();
        ensure!(reply.ok()?["usage"]["total_tokens"] == 12);
        until_books(&node, "acme", "what it took", Deadline::patient(), |books| {
            books.spent == 12 && books.reserved == 0
        })?;
        let told = node.cli(&["explain", &id])?.success()?;
        ensure!(told.contains(NAME) && told.contains("12 prompt"), "{told}");
        s.step("what could take more than is left is not begun");
        let many = vec!["word ".repeat(100); 5];
        let body = json!({"model": NAME, "input": many});
        let refused = client.post("/v1/embeddings", &body)?.refused(429)?;
        ensure!(refused["code"] == "budget_exhausted", "{refused}");
        s.step("nothing is taken for what is refused");
        let body = json!({"model": NAME, "input": "a", "dimensions": 5});
        client.post("/v1/embeddings", &body)?.refused(400)?;
        until_books(&node, "acme", "nothing more", Deadline::patient(), |books| {
            books.spent == 12 && books.reserved == 0
        })?;
        Ok(())
    });
}

#[test]
fn a_node_without_the_model_says_who_has_it() {
    scenario(|s| {
        let giver = s.node("giver");
        // A directory in the home is a model of it, also one that is linked there.
        let models = giver.home.join("models");
        std::fs::create_dir_all(&models)?;
        std::os::unix::fs::symlink(places::embedder()?, models.join(NAME))?;
        let mesh = s.mesh(&[giver, s.node("asker")])?;
        mesh[1].admin()?.until("the model at its peer", Deadline::patient(), |view| {
            view.to_string().contains(NAME)
        })?;
        let body = json!({"model": NAME, "input": "a"});
        let refused = mesh[1].client().post("/v1/embeddings", &body)?.refused(503)?;
        let message = refused["message"].as_str().context("a message")?;
        ensure!(message.contains("giver") && message.contains("ask there"), "{refused}");
        let chat = json!({"model": NAME, "messages": [{"role": "user", "content": "Hello"}]});
        mesh[1].client().post("/v1/chat/completions", &chat)?.refused(400)?;
        Ok(())
    });
}
