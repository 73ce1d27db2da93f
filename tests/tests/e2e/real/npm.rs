//! The client libraries from npm, against a node with a model of its own and a provider's.

use anyhow::ensure;
use selvedge_tests::budgets::fund;
use selvedge_tests::tiny::TINY;
use selvedge_tests::{javascript, scenario};
use serde_json::json;

use super::providers::{PRICED, Provider, gateway_with};

#[test]
fn packages_of_npm_get_answers_and_errors_of_their_own_kinds() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway_with(s, &provider, "1 usd/month", "")?;
        let words = ["provider", "add", "vectors", "--kind", "openai", "--url", &provider.url];
        let own = ["--key", "main", "--model", "embed", "--free"];
        node.cli(&words.iter().copied().chain(own).collect::<Vec<_>>())?.success()?;
        let client = node.client().with_key(&key);
        s.step("an account spends all it has");
        let spent = fund(&node, "poor", "1 requests/month")?;
        let body = json!({"model": TINY, "prompt": "a", "max_tokens": 1});
        node.client().with_key(&spent).post("/v1/completions", &body)?.ok()?;
        let priced = format!("claude/{PRICED}");
        let more = [
            ("SELVEDGE_MODEL", TINY),
            ("SELVEDGE_ANTHROPIC", priced.as_str()),
            ("SELVEDGE_SPENT", spent.as_str()),
            ("SELVEDGE_PROVIDER", provider.url.as_str()),
        ];
        for script in ["openai.js", "anthropic.js", "ai.js"] {
            s.step(script);
            let said = javascript::run(script, &client, &more)?;
            s.say(said.trim_end());
            ensure!(said.trim_end().ends_with("all good"), "{said}");
        }
        Ok(())
    });
}
