//! Selvedge itself: the shipped binary, with a provider of its own that leads to the mock.
//!
//! Owns its configuration for this bench. Where the binary knows no providers, its answer to the
//! first request says so and it is listed as absent.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Gateway, Setup, repository, start_with};
use crate::scenario::Scenario;

/// `SELVEDGE_BIN`, or the release build of this tree.
pub(super) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("SELVEDGE_BIN").map(PathBuf::from);
    Some(named.unwrap_or_else(|| repository().join("target/release/selvedge")))
}

pub(super) fn start(program: &Path, setup: &Setup, _scenario: Scenario) -> Result<Gateway> {
    let home = setup.dir.join("home").display().to_string();
    let api = setup.listen.to_string();
    let args = ["up", "--home", &home, "--api", &api, "--listen", "127.0.0.1:0"];
    let process = start_with(program, setup, &args)?;
    Ok(Gateway::plain(process, setup))
}
