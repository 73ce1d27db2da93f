//! Runs the scripts in tests/python with the official client libraries.
//!
//! Owns handing them the node's address and key. A script prints one line per check and exits with
//! the first one that fails.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::http::Client;
use crate::places;
use crate::process;
use crate::time::Deadline;

/// Runs a script against a node; returns what it printed.
///
/// # Errors
/// When Python is missing or a check fails; with all the script said.
pub fn run(script: &str, client: &Client) -> Result<String> {
    run_with(script, client, &[("SELVEDGE_MODEL", places::MODEL)])
}

/// Runs a script that needs to know more than the node's address and key.
///
/// # Errors
/// As [`run`].
pub fn run_with(script: &str, client: &Client, more: &[(&str, &str)]) -> Result<String> {
    let path = places::repository().join("tests/python").join(script);
    ensure!(path.is_file(), "no script {}", path.display());
    let mut environment = environment(client, more);
    environment.push(("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()));
    let python = places::python()?;
    let ran = run_python(&python, &path, client, &environment)?;
    ran.success().with_context(|| format!("tests/python/{script}"))
}

/// What every script is told: where the node is, by whom it is asked, and more.
pub(crate) fn environment(client: &Client, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let url = format!("http://{}/v1", client.addr);
    let key = client.key.as_deref().unwrap_or("no key needed");
    let own = [("SELVEDGE_URL", url.as_str()), ("SELVEDGE_KEY", key), ("NO_PROXY", "*")];
    let all = own.iter().chain(more);
    all.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn run_python(
    python: &Path,
    script: &Path,
    client: &Client,
    environment: &[(String, String)],
) -> Result<process::Finished> {
    let arguments = [script.display().to_string()];
    let namespace = client.namespace.as_deref();
    // The whole script: some forty short answers of a small model.
    process::run(python, &arguments, namespace, environment, Deadline::secs(150))
}
