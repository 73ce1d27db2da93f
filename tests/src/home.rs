//! Directories that a test's nodes live in, removed with the test.
//!
//! Owns temporary directories only: the content of a home belongs to the node in it.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use anyhow::{Context, Result};

static COUNT: AtomicU32 = AtomicU32::new(0);
static SWEPT: Once = Once::new();

/// What every directory begins with; the process id follows.
const PREFIX: &str = "selvedge-e2e-";

/// A directory removed on drop, unless `SELVEDGE_TEST_KEEP` is set.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new empty directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        SWEPT.call_once(sweep);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("{PREFIX}{}-{count}", process::id()));
        // A leftover of a killed run whose process id came round again.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Removes what killed test runs have left.
fn sweep() {
    // Without a process table nobody can tell whose a directory is.
    if !Path::new("/proc/self").exists() {
        return;
    }
    let Ok(entries) = fs::read_dir(env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists())
            && env::var_os("SELVEDGE_TEST_KEEP").is_none()
        {
            // Another test process may remove the same one.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if env::var_os("SELVEDGE_TEST_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
