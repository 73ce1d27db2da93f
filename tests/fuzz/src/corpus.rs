//! The stored inputs: one folder per target, and those of the dialects' own tests.
//!
//! Owns reading and adding files. A file's name is the hash of its content, unless a person gave
//! it one that says what it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use selvedge_base::Dice;

use crate::Target;
use crate::mutate::mutate;

/// Where the corpus lies.
fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// All inputs of a target, in the order of their names: its own, those it shares, those it makes.
///
/// # Errors
/// When a folder or a file cannot be read.
pub fn load(target: &Target) -> Result<Vec<Vec<u8>>> {
    let mut inputs = (target.seeds)();
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../actors/dialect/tests/corpus");
    let shared = target.shares.iter().map(|name| shared.join(name));
    for folder in shared.chain(Some(folder(target)).filter(|own| own.exists())) {
        let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("{}", folder.display()))?;
        paths.sort();
        for path in paths {
            inputs.push(fs::read(&path).with_context(|| format!("{}", path.display()))?);
        }
    }
    inputs.dedup();
    Ok(inputs)
}

/// Stores an input; where it lies.
///
/// # Errors
/// When it cannot be written.
pub fn add(target: &Target, input: &[u8]) -> Result<PathBuf> {
    let folder = folder(target);
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let name = blake3::hash(input).to_hex();
    let path = folder.join(&name.as_str()[..16]);
    fs::write(&path, input).with_context(|| format!("{}", path.display()))?;
    Ok(path)
}

/// The mutations of a target's inputs under one seed, without end.
pub fn mutations<'i>(
    target: &'i Target,
    inputs: &'i [Vec<u8>],
    seed: u64,
) -> impl Iterator<Item = Vec<u8>> + 'i {
    let mut dice = Dice::keyed(seed, target.name);
    std::iter::repeat_with(move || {
        let mut any = || inputs.get(dice.below(inputs.len() as u64) as usize);
        let (input, other) = (any().cloned().unwrap_or_default(), any());
        let other = other.map(Vec::as_slice).unwrap_or_default();
        mutate(&input, other, target.words, &mut dice)
    })
}
