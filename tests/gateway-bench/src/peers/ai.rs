//! Gateways that know what a model is: LiteLLM, Portkey, llmg.
//!
//! Owns their configuration: as little work as each can be set to, and nothing that asks for the
//! network.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Gateway, Setup, key, peers, start_with, write};
use crate::answers::{MODELS, UPSTREAM_KEY};
use crate::scenario::Scenario;

/// LiteLLM with its master key: keys of clients would need a database.
pub(super) fn start_litellm(program: &Path, setup: &Setup, scenario: Scenario) -> Result<Gateway> {
    let key = key(super::USED);
    let mut config = String::from("model_list:\n");
    for model in MODELS {
        writeln!(
            config,
            "  - model_name: {name}\n    litellm_params: {{model: openai/{name}, \
             api_base: 'http://{upstream}/v1', api_key: {UPSTREAM_KEY}}}",
            name = model.name,
            upstream = setup.upstream
        )?;
    }
    writeln!(config, "general_settings: {{master_key: {key}, disable_spend_logs: true}}")?;
    config.push_str("litellm_settings:\n  num_retries: 0\n  telemetry: false\n");
    // Otherwise it would ask the upstream by another protocol of OpenAI's than all others do.
    config.push_str("  use_chat_completions_url_for_anthropic_messages: true\n");
    if scenario == Scenario::Cached {
        config.push_str("  cache: true\n  cache_params: {type: local}\n");
    }
    let config = write(setup, "litellm.yaml", &config)?;
    let port = setup.listen.port().to_string();
    let process = setup.starter.gateway(program, setup.dir.join("out.log"), |command| {
        command
            .args(["--config", &config, "--host", "127.0.0.1", "--port", &port])
            .args(["--num_workers", "1", "--telemetry", "False"])
            // Its table of prices would come from the network.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .env("LITELLM_LOG", "ERROR")
            .current_dir(&setup.dir);
    })?;
    Ok(Gateway { key, exact: false, ..Gateway::plain(process, setup) })
}

/// Where the package of Portkey has its program.
pub(super) fn portkey_script() -> PathBuf {
    peers().join("portkey/node_modules/@portkey-ai/gateway/build/start-server.js")
}

/// Portkey checks no keys and writes no log; the client names the upstream and shows its key.
pub(super) fn start_portkey(program: &Path, setup: &Setup) -> Result<Gateway> {
    let script = portkey_script().display().to_string();
    let port = format!("--port={}", setup.listen.port());
    let process = start_with(program, setup, &[&script, &port, "--headless"])?;
    let headers = [
        ("x-portkey-provider", "openai".to_owned()),
        ("x-portkey-custom-host", format!("http://{}/v1", setup.upstream)),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let key = UPSTREAM_KEY.to_owned();
    Ok(Gateway { key, headers, exact: false, ..Gateway::plain(process, setup) })
}

/// llmg takes any key, and names the provider before the model.
pub(super) fn start_llmg(program: &Path, setup: &Setup) -> Result<Gateway> {
    let config = format!(
        "use_env = false\n[server]\nhost = \"127.0.0.1\"\nport = {}\n[logging]\nlevel = \"error\"\n\
         [providers.openai]\nenabled = true\napi_key = \"{UPSTREAM_KEY}\"\n\
         base_url = \"http://{}/v1\"\n",
        setup.listen.port(),
        setup.upstream
    );
    let config = write(setup, "llmg.toml", &config)?;
    let port = setup.listen.port().to_string();
    let args =
        ["--config", &config, "--host", "127.0.0.1", "--port", &port, "--log-level", "error"];
    let process = start_with(program, setup, &args)?;
    Ok(Gateway { prefix: "openai/", exact: false, ..Gateway::plain(process, setup) })
}
