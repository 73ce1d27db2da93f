//! What nodes' machines are, seen from each other; and which file of a model suits one.

use std::fs;

use anyhow::{Context, Result, ensure};
use selvedge_tests::admin::named;
use selvedge_tests::node::cli;
use selvedge_tests::{Deadline, Node, scenario, tiny};
use serde_json::{Value, json};

#[test]
fn a_node_tells_the_others_what_its_machine_is() {
    scenario(|s| {
        let nodes = s.mesh(&[s.node("alder"), s.node("birch")])?;
        let (alder, birch) = (&nodes[0], &nodes[1]);
        s.step("each knows the other's machine as that one does itself");
        let memory = |view: &Value, of: &str| {
            named(view, of).and_then(|node| node["machine"]["memory_bytes"].as_u64())
        };
        for (from, of) in [(alder, birch), (birch, alder)] {
            let known = from.admin()?.until("the machine", Deadline::patient(), |view| {
                memory(view, of.name()).is_some_and(|bytes| bytes > 0)
            })?;
            let own = of.admin()?.status()?;
            let fixed = |view: &Value| -> Result<Vec<Value>> {
                let node = named(view, of.name()).context("the node")?;
                let fields = ["architecture", "processor", "kernels", "features", "memory_bytes"];
                Ok(fields.map(|field| node["machine"][field].clone()).into())
            };
            ensure!(fixed(&known)? == fixed(&own)?, "{known} and {own}");
            let kernels = &named(&known, of.name()).context("the node")?["machine"]["kernels"];
            ensure!(kernels.as_str().is_some_and(|name| !name.is_empty()), "{known}");
        }
        s.step("the command shows both, for people and as JSON");
        let told = alder.cli(&["mesh", "hardware"])?.success()?;
        ensure!(
            told.contains("alder") && told.contains("birch") && told.contains("free"),
            "{told}"
        );
        let told = alder.cli(&["mesh", "hardware", "--json"])?.success()?;
        let value: Value = serde_json::from_str(&told).context("JSON")?;
        let named = |name: &str| {
            let mut nodes = value["data"].as_array().into_iter().flatten();
            nodes.find(|node| node["name"] == name).cloned().unwrap_or_default()
        };
        ensure!(named("birch")["machine"]["logical_cores"].as_u64() > Some(0), "{told}");
        ensure!(named("birch")["me"] == false && named("alder")["me"] == true, "{told}");
        s.step("so do the metrics, of the own machine");
        let page = alder.client().get("/metrics")?.text()?;
        for metric in ["machine_memory_bytes", "machine_memory_available_bytes", "machine_spared"] {
            let name = format!("\nselvedge_{metric} ");
            ensure!(page.contains(&name), "{page} lacks {metric}");
        }
        Ok(())
    });
}

#[test]
fn of_several_files_the_one_that_suits_the_machine_answers() {
    scenario(|s| {
        let spec = s.node("pantry");
        let models = spec.home.join("models");
        let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
        let float = tiny::with_template(&models, "float", template)?;
        let quantize = |to: &str, kind: &str| {
            let to = models.join(format!("{to}.gguf")).display().to_string();
            let from = float.display().to_string();
            cli(&spec.home, None, &["models", "quantize", &from, &to, "--type", kind])?.success()
        };
        quantize("eight", "q8_0")?;
        quantize("four", "q4_0")?;
        let config = |models: &str| fs::write(spec.home.join("config.toml"), models);
        config(
            "[[model]]\nname = 'assistant'\n\
             variants = ['four', 'eight', 'float', 'hf:o/r/absent.Q6_K.gguf']\n",
        )?;
        s.step("before a node runs the list says what it would serve");
        let told = cli(&spec.home, None, &["models", "list"])?.success()?;
        ensure!(told.contains("assistant is eight: Q8_0 takes"), "{told}");
        ensure!(told.contains("four: keeps less of the model"), "{told}");
        ensure!(told.contains("float: keeps no more in a larger file"), "{told}");
        ensure!(told.contains("hf:o/r/absent.Q6_K.gguf: not here"), "{told}");
        s.step("the node serves that one under the model's name, and no other");
        let node = spec.up(s, &[])?;
        let served = own_models(&node)?;
        ensure!(served == ["assistant Q8_0"], "{served:?}");
        let body = json!({"model": "assistant", "max_tokens": 2,
            "messages": [{"role": "user", "content": "Hi"}]});
        let answer = node.client().post("/v1/chat/completions", &body)?.ok()?;
        ensure!(answer["usage"]["completion_tokens"] == 2, "{answer}");
        let told = node.cli(&["models", "list", "--json"])?.success()?;
        let value: Value = serde_json::from_str(&told).context("JSON")?;
        ensure!(value["variants"][0]["chosen"] == "eight", "{told}");
        node.terminate()?;
        s.step("when a file is gone the next best is served, and where none is it says so");
        fs::remove_file(models.join("eight.gguf"))?;
        let node = spec.up(s, &[])?;
        let served = own_models(&node)?;
        ensure!(served == ["assistant F32"], "{served:?}");
        node.terminate()?;
        config("[[model]]\nname = 'assistant'\nvariants = ['nowhere']\n")?;
        let node = spec.up(s, &[])?;
        let told = node.cli(&["models", "list"])?.success()?;
        ensure!(told.contains("assistant is not served: none of its files is here"), "{told}");
        let served = own_models(&node)?;
        ensure!(served.contains(&"four Q4_0".to_owned()), "{served:?}");
        Ok(())
    });
}

/// Names and types of the models that a node serves.
fn own_models(node: &Node) -> Result<Vec<String>> {
    let told = node.admin()?.client().get("/admin/models")?.ok()?;
    let models = told["data"].as_array().context("models")?.iter();
    let served = models.filter(|model| model["state"] != "failed");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let each =
        served.map(|model| format!("{} {}", text(&model["name"]), text(&model["quantization"])));
    Ok(each.collect())
}
