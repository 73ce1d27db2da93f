//! Models that see through the official clients: at the node that has them, and at one that has
//! not.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use selvedge_tests::{Deadline, Node, Scenario, places, python, scenario};
use serde_json::json;

/// One that tells classes, and one that compares pictures with texts.
const NAMES: [&str; 2] = ["vit", "clip"];

fn fixtures() -> PathBuf {
    places::repository().join("inference/engine/tests/fixtures")
}

/// A node that has the models as directories, and one that has none.
fn pair(s: &Scenario) -> Result<Vec<Node>> {
    let giver = s.node("giver");
    for name in NAMES {
        let (from, to) =
            (fixtures().join("vision").join(name), giver.home.join("models").join(name));
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    let mesh = s.mesh(&[giver, s.node("asker")])?;
    for name in NAMES {
        mesh[1].admin()?.until("the models at the peer", Deadline::patient(), |view| {
            view.to_string().contains(name)
        })?;
    }
    Ok(mesh)
}

#[test]
fn triton_clients_ask_models_that_see_here_and_at_a_peer() {
    scenario(|s| {
        let mesh = pair(s)?;
        let cases = fixtures().join("vision.json").display().to_string();
        let pictures = fixtures().join("vision").display().to_string();
        for (node, here) in mesh.iter().zip(["yes", "no"]) {
            s.step("the official clients");
            let more = [
                ("SELVEDGE_MODEL", NAMES[0]),
                ("SELVEDGE_CASES", cases.as_str()),
                ("SELVEDGE_PICTURES", pictures.as_str()),
                ("SELVEDGE_HERE", here),
            ];
            let said = python::run_with("vision_models.py", &node.client(), &more)?;
            s.say(said.trim_end());
            ensure!(said.trim_end().ends_with("all good"), "{said}");
        }
        s.step("the command, wherever it is asked");
        let picture = fixtures().join("vision/odd.png").display().to_string();
        for node in &mesh {
            let told = node.cli(&["infer", "vit", "--image", &picture])?.success()?;
            ensure!(told.lines().count() == 5 && told.contains("odd.png"), "{told}");
            let labels = "a photo of a cat,a photo of a dog";
            let words = ["infer", "clip", "--image", &picture, "--labels", labels];
            let told = node.cli(&words)?.success()?;
            ensure!(told.lines().count() == 2 && told.contains("a photo of a cat"), "{told}");
        }
        let refused = mesh[0].cli(&["infer", "vit", "--image", "Cargo.toml"])?.failure()?;
        ensure!(refused.contains("Cargo.toml"), "{refused}");
        s.step("what they are not");
        for node in &mesh {
            for (name, place) in [("vit", "/v2/models/vit/infer"), ("clip", "/v1/embeddings")] {
                let messages = json!([{"role": "user", "content": "Hello"}]);
                let chat = json!({"model": name, "messages": messages});
                let refused = node.client().post("/v1/chat/completions", &chat)?.refused(400)?;
                ensure!(refused["message"].to_string().contains(place), "{refused}");
            }
        }
        let ask = json!({"model": "vit", "input": "a"});
        mesh[0].client().post("/v1/embeddings", &ask)?.refused(400)?;
        Ok(())
    });
}

#[test]
fn damaged_directories_of_models_that_see_are_refused_and_the_node_goes_on() {
    scenario(|s| {
        let spec = s.node("host");
        let models = spec.home.join("models");
        for (name, model) in [("vit", "vit"), ("cut", "vit"), ("mute", "clip")] {
            let (from, to) = (fixtures().join("vision").join(model), models.join(name));
            fs::create_dir_all(&to)?;
            for entry in fs::read_dir(from)? {
                let entry = entry?;
                fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        fs::write(models.join("cut/model.safetensors"), [0xff; 64])?;
        fs::write(models.join("mute/preprocessor_config.json"), "{\"size\": 0}")?;
        let node = spec.up(s, &[])?;
        let listed = node.cli(&["models", "list"])?.success()?;
        ensure!(listed.contains("cut is not served: damaged model file"), "{listed}");
        ensure!(listed.contains("mute is not served") && listed.contains("size 0"), "{listed}");
        let picture = fixtures().join("vision/small.png").display().to_string();
        node.cli(&["infer", "vit", "--image", &picture])?.success()?;
        Ok(())
    });
}
