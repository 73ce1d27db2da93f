//! The Open Inference Protocol, with the client library of those who serve it most.

use anyhow::ensure;
use selvedge_tests::tiny::TINY;
use selvedge_tests::{python, scenario};

use super::embeddings::{gateway, names};
use super::providers::Provider;

#[test]
fn triton_clients_get_vectors_and_texts() {
    scenario(|s| {
        let provider = Provider::start(s)?;
        let (node, key) = gateway(s, &provider, "1 usd/month")?;
        let client = node.client().with_key(&key);
        let names = names();
        let more = [("SELVEDGE_MODEL", TINY), ("SELVEDGE_EMBED", names.as_str())];
        for script in ["triton_http.py", "triton_grpc.py"] {
            s.step(script);
            let said = python::run_with(script, &client, &more)?;
            s.say(said.trim_end());
            ensure!(said.trim_end().ends_with("all good"), "{said}");
        }
        Ok(())
    });
}
