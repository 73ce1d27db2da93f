//! ONNX models through the official client: at the node that has them, and at one that has not.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use selvedge_tests::{Deadline, Node, Scenario, places, python, scenario};
use serde_json::{Value, json};

/// The files, of which each shows something else.
const NAMES: [&str; 4] = ["mlp", "cnn", "lstm", "kinds"];

fn fixtures() -> PathBuf {
    places::repository().join("inference/engine/tests/fixtures")
}

/// A node that has the models, and one that has none.
fn pair(s: &Scenario) -> Result<Vec<Node>> {
    let giver = s.node("giver");
    let models = giver.home.join("models");
    fs::create_dir_all(&models)?;
    for name in NAMES {
        let file = format!("{name}.onnx");
        fs::copy(fixtures().join("onnx").join(&file), models.join(&file))?;
    }
    let mesh = s.mesh(&[giver, s.node("asker")])?;
    for name in NAMES {
        mesh[1].admin()?.until("the models at the peer", Deadline::patient(), |view| {
            view.to_string().contains(name)
        })?;
    }
    Ok(mesh)
}

fn readings() -> Value {
    json!({"inputs": [{"name": "readings", "datatype": "FP32", "shape": [1, 4],
        "data": [0.5, -1, 2, 0]}]})
}

#[test]
fn triton_clients_infer_onnx_models_here_and_at_a_peer() {
    scenario(|s| {
        let mesh = pair(s)?;
        let cases = fixtures().join("onnx.json").display().to_string();
        let names = NAMES.join(",");
        let more = [
            ("SELVEDGE_MODEL", NAMES[0]),
            ("SELVEDGE_CASES", cases.as_str()),
            ("SELVEDGE_ONNX", names.as_str()),
        ];
        for node in &mesh {
            s.step("the official client");
            let said = python::run_with("onnx_models.py", &node.client(), &more)?;
            s.say(said.trim_end());
            ensure!(said.trim_end().ends_with("all good"), "{said}");
        }
        s.step("what it is not");
        let listed = mesh[0].cli(&["models", "list"])?.success()?;
        ensure!(listed.contains("mlp") && listed.contains("F32"), "{listed}");
        for node in &mesh {
            let chat = json!({"model": "mlp", "messages": [{"role": "user", "content": "Hello"}]});
            let refused = node.client().post("/v1/chat/completions", &chat)?.refused(400)?;
            ensure!(refused["message"].to_string().contains("/v2/models/mlp/infer"), "{refused}");
        }
        s.step("the same bits wherever it is asked");
        let ask = |node: &Node| node.client().post("/v2/models/mlp/infer", &readings())?.ok();
        let (here, there) = (ask(&mesh[0])?, ask(&mesh[1])?);
        ensure!(here["outputs"] == there["outputs"], "{here} {there}");
        s.step("a model that is pulled is this node's own");
        let file = fixtures().join("onnx/mlp.onnx").display().to_string();
        mesh[1].cli(&["models", "pull", &file, "--yes"])?.success()?;
        ensure!(ask(&mesh[1])?["outputs"] == here["outputs"], "the pulled one");
        Ok(())
    });
}

#[test]
fn damaged_and_hostile_onnx_files_are_refused_and_the_node_goes_on() {
    scenario(|s| {
        let spec = s.node("host");
        let models = spec.home.join("models");
        fs::create_dir_all(&models)?;
        for name in ["mlp", "greedy", "endless"] {
            let file = format!("{name}.onnx");
            fs::copy(fixtures().join("onnx").join(&file), models.join(&file))?;
        }
        let whole = fs::read(models.join("mlp.onnx"))?;
        fs::write(models.join("cut.onnx"), &whole[..whole.len() / 2])?;
        let node = spec.up(s, &[])?;
        let client = node.client();
        let whole = |name: &str, shape: Value, data: Value| {
            let input = json!({"name": name, "datatype": "INT64", "shape": shape, "data": data});
            json!({ "inputs": [input] })
        };
        s.step("a file that is cut short");
        let listed = node.cli(&["models", "list"])?.success()?;
        ensure!(listed.contains("cut is not served: damaged model file"), "{listed}");
        s.step("more memory than there may be");
        let big = whole("shape", json!([2]), json!([32_768, 32_768]));
        let reply = client.post("/v2/models/greedy/infer", &big)?;
        ensure!(reply.status >= 400, "status {}", reply.status);
        s.step("longer than the caller waits");
        let mut long = whole("times", json!([]), json!([2_000_000_000]));
        long["parameters"] = json!({"timeout": 300_000});
        let reply = client.post("/v2/models/endless/infer", &long)?;
        ensure!(reply.status == 504, "status {}", reply.status);
        s.step("everything else goes on");
        client.post("/v2/models/mlp/infer", &readings())?.ok()?;
        let few = whole("times", json!([]), json!([5]));
        let answer = client.post("/v2/models/endless/infer", &few)?.ok()?;
        ensure!(answer["outputs"][0]["data"] == json!([5.0]), "{answer}");
        Ok(())
    });
}

#[test]
fn a_node_whose_own_copy_does_not_fit_has_a_peer_infer() {
    scenario(|s| {
        let (giver, small) = (s.node("giver"), s.node("small"));
        for spec in [&giver, &small] {
            let models = spec.home.join("models");
            fs::create_dir_all(&models)?;
            fs::copy(fixtures().join("onnx/mlp.onnx"), models.join("mlp.onnx"))?;
        }
        // Less than the process of any model is counted with.
        fs::write(small.home.join("config.toml"), "[engine]\nmemory_budget_bytes = 16777216\n")?;
        let mesh = s.mesh(&[giver, small])?;
        mesh[1].admin()?.until("the model at the peer", Deadline::patient(), |view| {
            let nodes = view["nodes"].as_array().into_iter().flatten();
            nodes.filter(|node| node.to_string().contains("mlp")).count() == 2
        })?;
        let answer = mesh[1].client().post("/v2/models/mlp/infer", &readings())?.ok()?;
        let here = mesh[0].client().post("/v2/models/mlp/infer", &readings())?.ok()?;
        ensure!(answer["outputs"] == here["outputs"], "{answer} {here}");
        s.step("alone it says why it cannot");
        mesh[0].terminate()?;
        mesh[1].admin()?.until("the peer gone", Deadline::patient(), |view| {
            let nodes = view["nodes"].as_array().into_iter().flatten();
            let mut others = nodes.filter(|node| node["name"] == "giver");
            others.all(|node| node["state"] != "alive")
        })?;
        let refused = mesh[1].client().post("/v2/models/mlp/infer", &readings())?;
        let (status, text) = (refused.status, refused.text()?);
        ensure!(status == 503 && text.contains("memory"), "{status} {text}");
        Ok(())
    });
}
