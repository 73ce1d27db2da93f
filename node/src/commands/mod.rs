//! The commands that do one thing and end.
//!
//! Owns one function per command; each says what it did on standard output. `up` and `demo` run
//! for longer and have modules of their own.

mod ask;
mod budgets;
mod cache;
mod fed;
mod hardware;
mod infer;
mod keys;
mod mesh;
mod models;
mod providers;
mod quantize;
mod routes;
mod sim;
mod tenants;
mod transcribe;

use anyhow::{Context as _, Result};
use selvedge_base::RequestId;

use crate::cli;
use crate::client::Client;
use crate::config::{
    Env, RawConfig, commented_defaults, data_problems, load, markdown, schema_json,
};
use crate::home::Home;
use crate::http::wire;
use crate::record::Record;
use crate::ui;

pub(crate) use ask::ask;
pub(crate) use budgets::budgets;
pub(crate) use cache::cache;
pub(crate) use fed::fed;
pub(crate) use infer::{classes_of, infer};
pub(crate) use keys::keys;
pub(crate) use mesh::mesh;
pub(crate) use models::{fetch, models};
pub(crate) use providers::providers;
pub(crate) use routes::routes;
pub(crate) use sim::cli::Sim;
pub(crate) use sim::sim;
pub(crate) use tenants::tenants;
pub(crate) use transcribe::transcribe;

/// `selvedge explain`.
pub(crate) fn explain(home: &Home, options: &cli::Explain) -> Result<()> {
    let id: RequestId = options.id.parse()?;
    let client = Client::admin(&home.running()?);
    let record: serde_json::Value = client.get(&format!("/admin/requests/{id}"))?;
    if options.json {
        ui::out(format_args!("{record:#}"));
    } else {
        ui::out(serde_json::from_value::<Record>(record)?.told());
    }
    Ok(())
}

/// `selvedge label`.
pub(crate) fn label(home: &Home, options: &cli::Label) -> Result<()> {
    let client = Client::admin(&home.running()?);
    if let Some(model) = &options.forget {
        let path = format!("/admin/labels/{}", keys::escaped(model));
        let done: wire::Done = client.delete(&path)?;
        ui::out(done.done);
        return Ok(());
    }
    let (id, labels) = (options.id.clone().unwrap_or_default(), options.labels.clone());
    let order = serde_json::to_value(wire::LabelOrder { id, labels })?;
    let (told, _): (wire::Labelled, String) = client.ask("/admin/labels", &order)?;
    let wire::Labelled { model, kept, forgotten } = told;
    ui::out(format_args!("{kept} labelled requests to '{model}' are kept at this node"));
    if forgotten > 0 {
        ui::note(format_args!("{forgotten} of the oldest were forgotten to make room"));
    }
    Ok(())
}

/// `selvedge config`.
pub(crate) fn config(
    home: &Home,
    given: Option<&std::path::Path>,
    env: &Env,
    options: &cli::Config,
) -> Result<()> {
    match options {
        cli::Config::Defaults => ui::out(commented_defaults().trim_end()),
        cli::Config::Schema => ui::out(schema_json()),
        cli::Config::Reference => ui::out(markdown().trim_end()),
        cli::Config::Check { file } => {
            let named = file.as_deref().or(given);
            let path = named.map_or_else(|| home.config_file(), ToOwned::to_owned);
            let config = load(&path, named.is_some(), env, |_: &mut RawConfig| ())
                .context("the configuration is not good")?;
            let what = if path.exists() { "is good" } else { "does not exist; the defaults hold" };
            ui::out(format_args!("{} {what}", path.display()));
            ui::out(format_args!(
                "node '{}': API on {}, mesh on {}",
                config.name, config.api.listen, config.mesh.listen
            ));
            let problems = data_problems(&config.data);
            problems.iter().for_each(ui::warn);
            if !problems.is_empty() {
                ui::note("a node starts without such data, and follows jobs that want them");
            }
        }
    }
    Ok(())
}
