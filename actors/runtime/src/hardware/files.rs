//! Small files of the system, read within bounds.
//!
//! Owns the bounds. A file that is missing, is no file, loops, or says something else than what is
//! looked for is not there: no reading fails.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

/// Bytes read of one file: the longest that is looked at, `/proc/cpuinfo`, says of its first
/// processor all that is wanted in fewer.
const MAX_BYTES: u64 = 64 << 10;
/// Entries looked at in one directory: a server with a thousand threads has as many below `cpu`.
const MAX_ENTRIES: usize = 2_048;

/// Where the system's files stand.
#[derive(Clone, Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// Whether it is the system itself, which may be asked in other ways too.
    pub(super) is_system: bool,
}

impl Root {
    pub(super) fn system() -> Self {
        Self { path: PathBuf::from("/"), is_system: true }
    }

    #[cfg(test)]
    pub(super) fn under(path: &Path) -> Self {
        Self { path: path.to_owned(), is_system: false }
    }

    /// The first bytes of a file, as text.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let path = self.path.join(path);
        // A pipe would be waited for.
        if !std::fs::metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(&path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file with one word, without what surrounds it.
    pub(super) fn word(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = self.text(path)?;
        let word = text.trim();
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// A file with one number.
    pub(super) fn number(&self, path: impl AsRef<Path>) -> Option<i64> {
        self.word(path)?.parse().ok()
    }

    /// The names in a directory, in order; none where there is no such directory.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Option<Vec<String>> {
        let entries = std::fs::read_dir(self.path.join(path)).ok()?.take(MAX_ENTRIES);
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        Some(names)
    }

    /// The directories of this process's control group under a mount, from its own up to the
    /// mount: what is set at any of them holds. In a container the group's path is of another
    /// tree, and only the mount itself is there.
    pub(super) fn group(&self, mount: &str, group: &str) -> Vec<PathBuf> {
        let below = Path::new(group.trim_start_matches('/'));
        // Without steps upwards: the kernel writes none, but this file may be made up.
        let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        let mount = Path::new(mount);
        let own = if plain { mount.join(below) } else { mount.to_owned() };
        let levels = own.ancestors().take_while(|level| level.starts_with(mount));
        levels.take(MAX_LEVELS).map(Path::to_owned).collect()
    }

    /// The path of this process's control group: of the one hierarchy of version 2, or of the
    /// version 1 hierarchy that has a controller.
    pub(super) fn group_of(&self, controller: Option<&str>) -> Option<String> {
        let text = self.text("proc/self/cgroup")?;
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let fits = match controller {
                None => controllers.is_empty(),
                Some(wanted) => controllers.split(',').any(|one| one == wanted),
            };
            fits.then(|| path.to_owned())
        })
    }
}

/// Levels of control groups looked at: services nest them four or five deep.
const MAX_LEVELS: usize = 16;
