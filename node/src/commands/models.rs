//! `selvedge models`: the models on this machine.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;

use super::mesh::{model_path, running_line};
use crate::cli;
use crate::client::Client;
use crate::config::{Config, ModelsConfig};
use crate::home::Home;
use crate::http::wire;
use crate::pull::{self, Order, Pulled, Sha256Digest, Source, Store, Stored};
use crate::ui::{self, Ink, bytes_text, paint_err};
use crate::variants::{Means, decide, decide_one, lines};

/// Carries out a command on models.
pub(crate) fn models(home: &Home, config: &Config, command: &cli::Models) -> Result<()> {
    match command {
        cli::Models::Pull(options) => match suited(home, config, options)? {
            Suited::Here => Ok(()),
            Suited::Fetch(options) => pull_model(home, &config.models, &options),
        },
        cli::Models::List { json } => list(home, config, *json),
        cli::Models::Quantize(options) => super::quantize::run(home, options),
        cli::Models::Rm { name } => remove(home, config, name),
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

fn list(home: &Home, config: &Config, as_json: bool) -> Result<()> {
    let stored = Store::of(home).list()?;
    let running: Vec<wire::Model> = match home.contact() {
        Some(contact) => Client::admin(&contact).get::<wire::List<_>>("/admin/models")?.data,
        None => Vec::new(),
    };
    let learned = learned(home)?;
    let variants = variants(home, config)?;
    if as_json {
        let data: Vec<_> = stored.iter().map(as_value).collect();
        let told = json!({
            "data": data, "running": running, "learned": learned, "variants": variants,
        });
        ui::out(format_args!("{told:#}"));
        return Ok(());
    }
    let nothing = stored.is_empty() && running.is_empty() && learned.is_empty();
    if nothing && variants.is_empty() {
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
    // Of a model with several files it is said below.
    let has_variants = |name: &str| variants.iter().any(|one| one.name == name);
    for (name, why) in failed.filter(|(name, _)| !has_variants(name)) {
        ui::out(format_args!("{name} is not served: {why}"));
    }
    for model in &running {
        if let Some(line) = evicted_text(model) {
            ui::out(format_args!("{line}"));
        }
    }
    variants.iter().flat_map(lines).for_each(ui::out);
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

/// Which files of models with several the running node serves, or would serve if it was started
/// now.
fn variants(home: &Home, config: &Config) -> Result<Vec<wire::VariantChoice>> {
    if let Some(contact) = home.contact() {
        let client = Client::admin(&contact);
        return Ok(client.get::<wire::List<_>>("/admin/variants")?.data);
    }
    if config.variants.is_empty() {
        return Ok(Vec::new());
    }
    let decided = decide(&Store::of(home), &config.variants, &Means::here(config));
    Ok(decided.iter().map(crate::variants::Decided::told).collect())
}

/// What is to be fetched.
enum Suited {
    /// Nothing: what suits this machine best is here.
    Here,
    /// This.
    Fetch(Box<cli::Pull>),
}

/// Of a model with several files, the one that suits this machine best.
fn suited(home: &Home, config: &Config, options: &cli::Pull) -> Result<Suited> {
    let wanted = config.variants.iter().find(|one| one.name == options.source);
    let Some(wanted) = wanted else { return Ok(Suited::Fetch(Box::new(options.clone()))) };
    let decided = decide_one(&Store::of(home), wanted, &Means::here(config), 0, true);
    lines(&decided.told()).into_iter().for_each(ui::note);
    let Some(found) = decided.file() else {
        bail!(
            "no file of '{}' can be fetched for this machine: list smaller ones, with their \
             'bytes', in the configuration",
            wanted.name
        );
    };
    if found.path.is_some() {
        ui::out(format_args!("{} is here already", found.listed));
        return Ok(Suited::Here);
    }
    ui::note("A node chooses when it starts: start it again once the file is here.");
    // Under its own name, by which the configuration finds it.
    let source = found.listed.clone();
    Ok(Suited::Fetch(Box::new(cli::Pull { source, name: None, ..options.clone() })))
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

fn remove(home: &Home, config: &Config, name: &str) -> Result<()> {
    let store = Store::of(home);
    // Of a file that cannot be read any more there is no copy to be had; the next start removes it.
    let digest = store.find(name).ok().flatten().map(|model| model.digest);
    // The node first: it must not serve what is no longer there. It may not have served it at all.
    let served = match home.contact() {
        Some(contact) => Client::admin(&contact).delete_known(&model_path(name))?,
        None => false,
    };
    if !store.remove(name)? && !served {
        bail!("no model is called '{name}'; `selvedge models list` lists them");
    }
    // Another file may have the same bytes: what it needs again is packed again.
    if let (Some(digest), Some(keeping)) = (digest, config.packed.keeping(home))
        && let Err(error) = keeping.forget(digest)
    {
        let directory = keeping.directory.display();
        ui::warn(format_args!("its packed copy in {directory} could not be removed: {error}"));
    }
    ui::out(format_args!("removed {name}"));
    Ok(())
}
