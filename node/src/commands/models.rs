//! `selvedge models`: the models on this machine.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;

use super::mesh::{model_path, running_line};
use crate::cli;
use crate::client::Client;
use crate::config::ModelsConfig;
use crate::home::Home;
use crate::http::wire;
use crate::pull::{self, Order, Pulled, Sha256Digest, Source, Store, Stored};
use crate::ui::{self, Ink, bytes_text, paint_err};

/// Carries out a command on models.
pub(crate) fn models(home: &Home, config: &ModelsConfig, command: &cli::Models) -> Result<()> {
    match command {
        cli::Models::Pull(options) => pull_model(home, config, options),
        cli::Models::List { json } => list(home, *json),
        cli::Models::Quantize(options) => super::quantize::run(home, options),
        cli::Models::Rm { name } => remove(home, name),
    }
}

/// Fetches a model into a home's store.
pub(crate) fn fetch(home: &Home, config: &ModelsConfig, options: &cli::Pull) -> Result<Pulled> {
    let source: Source = options.source.parse()?;
    let sha256: Option<Sha256Digest> = options.sha256.as_deref().map(str::parse).transpose()?;
    let order = Order { source, name: options.name.clone(), sha256, yes: options.yes };
    pull::pull(&Store::of(home), config, &order)
}

fn pull_model(home: &Home, config: &ModelsConfig, options: &cli::Pull) -> Result<()> {
    let Pulled { model, already } = fetch(home, config, options)?;
    if already {
        ui::out(format_args!("{} is here already", model.name));
    } else {
        ui::out(format_args!(
            "{} {} ({})",
            paint_err(Ink::Green, "pulled"),
            model.name,
            bytes_text(model.bytes)
        ));
        if let Some(sha256) = model.sha256 {
            ui::note(format_args!("  sha256 {sha256}\n  {}", model.path.display()));
        }
    }
    match home.contact() {
        Some(contact) => {
            let request = wire::ModelRequest {
                path: model.path.display().to_string(),
                name: model.name.clone(),
                digest: model.digest.to_string(),
            };
            let _: serde_json::Value = Client::admin(&contact).post("/admin/models", &request)?;
            ui::note("The running node serves it now.");
        }
        None => ui::note("Next: `selvedge up`, then `selvedge ask \"…\"`"),
    }
    Ok(())
}

fn list(home: &Home, as_json: bool) -> Result<()> {
    let stored = Store::of(home).list()?;
    let running: Vec<wire::Model> = match home.contact() {
        Some(contact) => Client::admin(&contact).get::<wire::List<_>>("/admin/models")?.data,
        None => Vec::new(),
    };
    let learned = learned(home)?;
    if as_json {
        let data: Vec<_> = stored.iter().map(as_value).collect();
        let told = json!({ "data": data, "running": running, "learned": learned });
        ui::out(format_args!("{told:#}"));
        return Ok(());
    }
    if stored.is_empty() && running.is_empty() && learned.is_empty() {
        ui::out("no models; `selvedge models pull` fetches a small one");
        return Ok(());
    }
    let head = ["name", "size", "type", "state", "last use", "source"];
    let mut rows = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    let served = |name: &str| running.iter().find(|model| model.name == name);
    for model in &stored {
        let line = |state: &str| {
            let name = model.name.clone();
            vec![name, bytes_text(model.bytes), "-".to_owned(), state.to_owned(), "-".to_owned()]
        };
        let mut row = match served(&model.name) {
            // The engine could not even read what it is.
            Some(running) if running.digest.is_empty() => line(&running.state),
            Some(running) => used_line(running),
            None => line("not served"),
        };
        row.push(model.source.clone().unwrap_or_else(|| "placed by hand".to_owned()));
        rows.push(row);
    }
    let names: BTreeSet<&str> = stored.iter().map(|model| model.name.as_str()).collect();
    let is_learned = |name: &str| learned.iter().any(|model| model.name == name);
    for model in running.iter().filter(|model| !names.contains(model.name.as_str())) {
        let mut row = used_line(model);
        let source = match is_learned(&model.name) {
            true => "a job of learning",
            false => "a file outside the home",
        };
        row.push(source.to_owned());
        rows.push(row);
    }
    // A language model that was tuned runs as others do.
    for model in learned.iter().filter(|model| served(&model.name).is_none()) {
        let state = format!("version {}", model.version);
        let row = [model.name.as_str(), "-", "learned", &state, "-", "a job of learning"];
        rows.push(row.map(str::to_owned).into());
    }
    ui::out(ui::table(&rows));
    let failed = running.iter().filter_map(|model| Some((&model.name, model.failure.as_ref()?)));
    for (name, why) in failed {
        ui::out(format_args!("{name} is not served: {why}"));
    }
    for model in &running {
        if let Some(line) = evicted_text(model) {
            ui::out(format_args!("{line}"));
        }
    }
    Ok(())
}

/// A model of the running node with its last use.
fn used_line(model: &wire::Model) -> Vec<String> {
    let mut row = running_line(model);
    let used = match (model.running + model.queued, model.idle_s) {
        (0, Some(seconds)) => format!("{seconds} s ago"),
        (0, None) => "-".to_owned(),
        _ => "now".to_owned(),
    };
    row.push(if model.stays_loaded { format!("{used}, stays loaded") } else { used });
    row
}

/// Why a model is not in memory any more.
fn evicted_text(model: &wire::Model) -> Option<String> {
    let evicted = model.evicted.as_ref().filter(|_| model.state == "cold")?;
    let wire::Evicted { reason, comes, ago_s } = evicted;
    let why = match reason.as_str() {
        "copy_elsewhere" => "a peer has it in memory",
        _ => "it was the least recently used",
    };
    let name = &model.name;
    Some(format!(
        "{name} made room for {comes} {ago_s} s ago, since {why}; it is loaded when it is asked for"
    ))
}

/// A model that a job makes, as the node serves it.
#[derive(Serialize)]
struct Learned {
    name: String,
    version: u64,
}

/// What jobs have learned so far, where a node runs.
fn learned(home: &Home) -> Result<Vec<Learned>> {
    let Some(contact) = home.contact() else { return Ok(Vec::new()) };
    let jobs: wire::List<wire::FederatedJob> = Client::admin(&contact).get("/admin/federated")?;
    let served = |job: wire::FederatedJob| Some(Learned { version: job.served?, name: job.name });
    Ok(jobs.data.into_iter().filter_map(served).collect())
}

fn as_value(model: &Stored) -> serde_json::Value {
    json!({
        "name": model.name,
        "path": model.path.display().to_string(),
        "bytes": model.bytes,
        "blake3": model.digest.to_string(),
        "sha256": model.sha256.map(|digest| digest.to_string()),
        "source": model.source,
    })
}

fn remove(home: &Home, name: &str) -> Result<()> {
    let store = Store::of(home);
    // The node first: it must not serve what is no longer there. It may not have served it at all.
    let served = match home.contact() {
        Some(contact) => Client::admin(&contact).delete_known(&model_path(name))?,
        None => false,
    };
    if !store.remove(name)? && !served {
        bail!("no model is called '{name}'; `selvedge models list` lists them");
    }
    ui::out(format_args!("removed {name}"));
    Ok(())
}
