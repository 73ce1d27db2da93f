//! Runs the scripts in tests/node with the client libraries from npm.
//!
//! Owns handing them the node's address and key. A script prints one line per check and exits with
//! the first one that fails.

use anyhow::{Context, Result, ensure};

use crate::http::Client;
use crate::places;
use crate::process;
use crate::python::environment;
use crate::time::Deadline;

/// Runs a script against a node; returns what it printed.
///
/// # Errors
/// When Node.js or its packages are missing or a check fails; with all the script said.
pub fn run(script: &str, client: &Client, more: &[(&str, &str)]) -> Result<String> {
    let path = places::repository().join("tests/node").join(script);
    ensure!(path.is_file(), "no script {}", path.display());
    let arguments = [path.display().to_string()];
    let (namespace, told) = (client.namespace.as_deref(), environment(client, more));
    // Some sixty short answers of a server on loopback.
    let deadline = Deadline::secs(150);
    let ran = process::run(&places::javascript()?, &arguments, namespace, &told, deadline)?;
    ran.success().with_context(|| format!("tests/node/{script}"))
}
