//! The official client library against a node that does not have the model.

use anyhow::ensure;
use selvedge_tests::{python, scenario};

#[test]
fn the_official_client_works_against_a_node_without_the_model() {
    scenario(|s| {
        let asker = s.node("asker").with_api("0.0.0.0:0");
        let mesh = s.mesh(&[s.node("giver").with_model()?, asker])?;
        let client = mesh[1].client();
        let (_, secret) = mesh[1].admin()?.key("python")?;
        for script in [
            "openai_sync.py",
            "openai_async.py",
            "openai_errors.py",
            "openai_shapes.py",
            "openai_tools.py",
            "anthropic_tools.py",
            "ollama_tools.py",
        ] {
            s.step(script);
            let said = python::run(script, &client.with_key(&secret))?;
            s.say(said.trim_end());
            ensure!(said.trim_end().ends_with("all good"), "{said}");
        }
        Ok(())
    });
}
