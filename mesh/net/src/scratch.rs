//! A directory of a test's own, removed with it.

use std::path::{Path, PathBuf};

use crate::entropy;

pub(crate) struct Scratch(PathBuf);

impl Scratch {
    #[allow(clippy::expect_used)]
    pub(crate) fn new() -> Self {
        let name = format!("selvedge-net-{:016x}", entropy::dice().next());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}
