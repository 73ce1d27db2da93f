//! Who may ask: keys on any address that is not loopback, and what a wrong one gets.

use anyhow::ensure;
use selvedge_tests::chat::completion;
use selvedge_tests::{Deadline, scenario};
use serde_json::Value;

#[test]
fn an_open_address_needs_a_key() {
    scenario(|s| {
        let node = s.node("open").with_model()?.with_api("0.0.0.0:0").up(s, &[])?;
        let admin = node.admin()?;
        admin.until_offered(1, Deadline::patient())?;
        let stranger = node.client();
        let asked = completion("One, two,", 2);

        s.step("health is for everybody");
        ensure!(stranger.get("/health")?.status == 200);
        s.step("nothing else is");
        for path in ["/v1/models", "/metrics"] {
            stranger.get(path)?.refused(401)?;
        }
        let error = stranger.post("/v1/completions", &asked)?.refused(401)?;
        ensure!(error["message"].as_str().is_some_and(|text| text.contains("key")), "{error}");
        s.step("a wrong key");
        stranger.with_key("sk-selvedge-wrong").post("/v1/completions", &asked)?.refused(401)?;

        s.step("a key made by the command line");
        let made = node.cli(&["keys", "create", "test"])?.success()?;
        let mut words = made.split_whitespace();
        let secret = words.find(|word| word.starts_with("sk-selvedge-"));
        let secret = secret.ok_or_else(|| anyhow::anyhow!("no key in `{made}`"))?;
        let friend = stranger.with_key(secret);
        ensure!(friend.post("/v1/completions", &asked)?.ok()?["choices"].is_array());
        ensure!(friend.get("/metrics")?.status == 200);
        s.step("an API key is no admin token");
        friend.get("/admin/status")?.refused(401)?;
        s.step("the key list names it and hides it");
        let list = node.cli(&["keys", "list"])?.success()?;
        ensure!(list.contains("test") && !list.contains(secret), "{list}");

        s.step("a second key is revoked and the first stays good");
        let (id, second) = admin.key("second")?;
        let second = stranger.with_key(&second);
        ensure!(second.get("/v1/models")?.status == 200);
        node.cli(&["keys", "revoke", &id])?.success()?;
        second.get("/v1/models")?.refused(401)?;
        ensure!(friend.get("/v1/models")?.status == 200);

        s.step("keys survive a power cut");
        node.kill()?;
        let node = node.spec.up(s, &[])?;
        let friend = node.client().with_key(secret);
        let models: Value = friend.get("/v1/models")?.ok()?;
        ensure!(models["object"] == "list", "{models}");
        Ok(())
    });
}
