//! Directories that vanish.
//!
//! Owns temporary directories of one process: made private (0700), removed when dropped.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// Entries looked at when sweeping: more than anyone's killed demos.
const MAX_SWEPT: usize = 1_024;

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
        sweep(parent, purpose);
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

/// Removes what processes that were killed left behind.
fn sweep(parent: &Path, purpose: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.take(MAX_SWEPT).flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(purpose)?.strip_prefix('-')?.split_once('-'))
            .and_then(|(pid, _)| Pid::from_raw(pid.parse().ok()?));
        if owner.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_lives_is_kept() {
        let parent = Scratch::new("sweep");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let left = parent.path().join(format!("play-{}-0", child.id()));
        let other = parent.path().join("play-notes");
        std::fs::create_dir(&left).unwrap();
        std::fs::create_dir(&other).unwrap();
        let first = Scratch::within(parent.path(), "play").unwrap();
        let second = Scratch::within(parent.path(), "play").unwrap();
        assert!(!left.exists());
        assert!(other.exists() && first.path().exists() && second.path().exists());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
    }
}
