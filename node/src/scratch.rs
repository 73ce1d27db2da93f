//! Directories that vanish.
//!
//! Owns temporary directories of one process: made private (0700), removed when dropped.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Those that exist now, for an end by a signal, which drops nothing.
static ALL: LazyLock<Mutex<BTreeSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// A directory that is removed, with all it holds, when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A fresh directory inside `parent`, which is made if need be.
    pub(crate) fn within(parent: &Path, purpose: &str) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{purpose}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(parent)?;
        ALL.lock().insert(path.clone());
        make_private(&path)?;
        Ok(Self(path))
    }

    /// A fresh directory where the system keeps temporary files.
    #[cfg(test)]
    #[allow(clippy::expect_used)]
    pub(crate) fn new(purpose: &str) -> Self {
        let name = format!("selvedge-test-{purpose}");
        Self::within(&std::env::temp_dir(), &name).expect("a temporary directory")
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        ALL.lock().remove(&self.0);
    }
}

/// Removes every scratch directory of this process, because it ends now.
pub(crate) fn remove_all() {
    for path in std::mem::take(&mut *ALL.lock()) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// Makes a directory only its owner may enter. One left by an earlier process of the same number
/// is emptied first.
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_dir_all(path)?;
            builder.create(path)
        }
        made => made,
    }
}
