//! One job as files, for the programs in other languages that ours is held against.
//!
//! Owns their names and form: `first.f32`, `client-N.x`, `client-N.y`, `test.x`, `test.y`; values
//! are f32 and labels u32, little-endian.

use std::fs;
use std::path::Path;

use anyhow::Result;
use selvedge_tests::digits::model;
use selvedge_train::Examples;

use crate::divided::{Divided, Division};

/// Writes what the clients of a job have, and the weights it begins with.
pub(crate) fn write(folder: &Path, data: &Divided, how: Division, seed: u64) -> Result<()> {
    let clients = data.clients(how, seed)?;
    for (at, client) in clients.iter().enumerate() {
        write_examples(folder, &format!("client-{at}"), client)?;
    }
    write_examples(folder, "test", &data.digits.test)?;
    fs::write(folder.join("first.f32"), bytes(&model().first(seed)?))?;
    Ok(())
}

fn write_examples(folder: &Path, name: &str, examples: &Examples) -> Result<()> {
    fs::write(folder.join(format!("{name}.x")), bytes(examples.values()))?;
    let labels: Vec<u8> = examples.labels().iter().flat_map(|label| label.to_le_bytes()).collect();
    fs::write(folder.join(format!("{name}.y")), labels)?;
    Ok(())
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
