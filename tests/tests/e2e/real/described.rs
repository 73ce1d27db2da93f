//! The description of the HTTP surfaces: it is one of OpenAPI 3.1, and requests made from it get
//! what it says.

use anyhow::ensure;
use selvedge_tests::tiny::TINY;
use selvedge_tests::{python, scenario};

use super::embeddings::{gateway, names};
use super::providers::Provider;

#[test]
fn the_node_does_what_its_description_says() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway(s, &provider, "1 usd/month")?;
        let client = node.client().with_key(&key);
        let token = std::fs::read_to_string(node.spec.home.join("run/admin.token"))?;
        let embed = names();
        let first = embed.split(',').next().unwrap_or_default();
        let models = format!("claude/claude-sonnet-4-5,{first}");
        let more = [
            ("SELVEDGE_MODEL", TINY),
            ("SELVEDGE_MODELS", models.as_str()),
            ("SELVEDGE_ADMIN", token.trim()),
        ];
        let said = python::run_with("openapi.py", &client, &more)?;
        s.say(said.trim_end());
        ensure!(said.trim_end().ends_with("all good"), "{said}");
        Ok(())
    });
}
