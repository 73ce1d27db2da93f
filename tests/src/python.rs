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
    let path = places::repository().join("tests/python").join(script);
    ensure!(path.is_file(), "no script {}", path.display());
    let key = client.key.clone().unwrap_or_else(|| "no key needed".to_owned());
    let environment = [
        ("SELVEDGE_URL".to_owned(), format!("http://{}/v1", client.addr)),
        ("SELVEDGE_KEY".to_owned(), key),
        ("SELVEDGE_MODEL".to_owned(), places::MODEL.to_owned()),
        ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
        ("NO_PROXY".to_owned(), "*".to_owned()),
    ];
    let python = places::python()?;
    let ran = run_python(&python, &path, client, &environment)?;
    ran.success().with_context(|| format!("tests/python/{script}"))
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
