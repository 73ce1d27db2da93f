//! `selvedge provider`: who is asked outside the mesh, and with which keys.

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, Result, bail};
use selvedge_core::upstream::provider::{Continues, CostClass, RawModel};
use selvedge_core::upstream::{ProviderKind, RawProvider};

use super::keys::escaped;
use super::mesh::date_text;
use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::http::wire;
use crate::ui;

/// Carries out a command on providers.
pub(crate) fn providers(home: &Home, command: &cli::Provider) -> Result<()> {
    let client = Client::admin(&home.running()?);
    match command {
        cli::Provider::Add(options) => {
            let done: wire::Done = client.post("/admin/providers", &raw(options)?)?;
            ui::out(done.done);
            if options.key.is_empty() && !options.free {
                ui::note("no key is used for it; `--key NAME` names one that was stored");
            }
        }
        cli::Provider::List { json } => {
            let list: wire::List<wire::Provider> = client.get("/admin/providers")?;
            if *json {
                ui::out(serde_json::to_string_pretty(&list)?);
            } else if list.data.is_empty() {
                ui::out("no providers; `selvedge provider add NAME --kind KIND` adds one");
            } else {
                ui::out(table(&list.data));
            }
        }
        cli::Provider::Remove { name } => {
            let done: wire::Done = client.delete(&format!("/admin/providers/{}", escaped(name)))?;
            ui::out(done.done);
        }
        cli::Provider::Key(command) => keys(&client, command)?,
    }
    Ok(())
}

fn keys(client: &Client, command: &cli::ProviderKey) -> Result<()> {
    match command {
        cli::ProviderKey::Add { name, from_env } => {
            let key = match from_env {
                Some(variable) => std::env::var(variable)
                    .with_context(|| format!("the variable {variable} holds no key"))?,
                None => from_stdin(name)?,
            };
            let key = wire::ProviderKey { name: name.clone(), key: key.trim().to_owned() };
            let done: wire::Done = client.post("/admin/provider-keys", &key)?;
            ui::out(done.done);
        }
        cli::ProviderKey::List { json } => {
            let list: wire::List<wire::StoredKey> = client.get("/admin/provider-keys")?;
            if *json {
                ui::out(serde_json::to_string_pretty(&list)?);
            } else if list.data.is_empty() {
                ui::out("no keys; `selvedge provider key add NAME` stores one");
            } else {
                let mut rows = vec![["name", "ends in", "added"].map(ToOwned::to_owned).to_vec()];
                rows.extend(
                    list.data.iter().map(|key| {
                        vec![key.name.clone(), key.hint.clone(), date_text(key.added_ms)]
                    }),
                );
                ui::out(ui::table(&rows));
            }
        }
        cli::ProviderKey::Remove { name } => {
            let path = format!("/admin/provider-keys/{}", escaped(name));
            let done: wire::Done = client.delete(&path)?;
            ui::out(done.done);
        }
    }
    Ok(())
}

/// One line; never an argument, which other users of the machine could read.
fn from_stdin(name: &str) -> Result<String> {
    if std::io::stdin().is_terminal() {
        ui::note(format_args!("paste the key '{name}' and press Enter (it is shown as you type)"));
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("no key could be read")?;
    if line.trim().is_empty() {
        bail!(
            "no key came on standard input; `selvedge provider key add {name} < FILE` reads a file"
        );
    }
    Ok(line)
}

fn raw(options: &cli::ProviderAdd) -> Result<RawProvider> {
    let kind = match options.kind {
        cli::Kind::Openai => ProviderKind::OpenAi,
        cli::Kind::Anthropic => ProviderKind::Anthropic,
        cli::Kind::Gemini => ProviderKind::Gemini,
        cli::Kind::Bedrock => ProviderKind::Bedrock,
        cli::Kind::Azure => ProviderKind::Azure,
        cli::Kind::Cohere => ProviderKind::Cohere,
        cli::Kind::Ollama => ProviderKind::Ollama,
    };
    let model = |text: &String| {
        let (name, upstream) = text.split_once('=').unwrap_or((text, ""));
        RawModel { name: name.to_owned(), upstream: upstream.to_owned(), ..RawModel::default() }
    };
    let ca = options.ca.as_ref().map(std::path::absolute).transpose()?;
    let mut raw = RawProvider {
        base_url: options.url.clone().unwrap_or_default(),
        keys: options.key.clone(),
        models: options.model.iter().map(model).collect(),
        region: options.region.clone().unwrap_or_default(),
        api_version: options.api_version.clone().unwrap_or_default(),
        extra_ca: ca.map(|path| path.display().to_string()).unwrap_or_default(),
        cost: if options.free { CostClass::Free } else { CostClass::Paid },
        continues: match options.continues {
            None => Continues::No,
            Some(cli::Continues::LastMessage) => Continues::LastMessage,
            Some(cli::Continues::Prefix) => Continues::Prefix,
            Some(cli::Continues::ContinueFinalMessage) => Continues::ContinueFinalMessage,
        },
        ..RawProvider::named(&options.name, kind)
    };
    raw.limits.requests_per_minute = options.requests_per_minute;
    raw.times.first_byte_ms = options.first_byte_s.saturating_mul(1_000);
    Ok(raw)
}

fn table(providers: &[wire::Provider]) -> String {
    let head = ["name", "kind", "address", "models", "keys", "state"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    rows.extend(providers.iter().map(|line| {
        let provider = &line.provider;
        let models: Vec<&str> = provider.models.iter().map(|model| model.name.as_str()).collect();
        let state = match (&line.left_alone, line.missing_keys.as_slice()) {
            (Some(why), _) => why.clone(),
            (None, []) => format!("asked, {} running", line.running),
            (None, missing) => format!("key {} is not stored here", missing.join(", ")),
        };
        vec![
            provider.name.clone(),
            provider.kind.as_str().to_owned(),
            line.address.clone(),
            if models.is_empty() { "(any)".to_owned() } else { models.join(", ") },
            if provider.keys.is_empty() { "-".to_owned() } else { provider.keys.join(", ") },
            state,
        ]
    }));
    ui::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_listed_with_what_keeps_it_from_answering() {
        let line = |missing: &[&str], left_alone: Option<&str>| wire::Provider {
            provider: RawProvider {
                models: vec![RawModel { name: "gpt-4o".to_owned(), ..RawModel::default() }],
                ..RawProvider::named("openai", ProviderKind::OpenAi)
            },
            address: "https://api.openai.com".to_owned(),
            missing_keys: missing.iter().map(|name| (*name).to_owned()).collect(),
            running: 2,
            left_alone: left_alone.map(ToOwned::to_owned),
        };
        let text =
            table(&[line(&[], None), line(&["main"], None), line(&[], Some("failed often"))]);
        for part in ["gpt-4o", "asked, 2 running", "key main is not stored", "failed often"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
