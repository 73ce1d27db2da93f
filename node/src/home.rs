//! Where a node keeps its things.
//!
//! Owns the layout of the home directory that the binary itself uses (configuration, models and
//! their packed copies, what a running node leaves for the commands that talk to it) and the lock
//! that keeps a second node out. The node key and the databases beside them belong to the runtime.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

/// The home of a node.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

/// Held while a node runs: the lock, and the files that say how to reach the node.
#[derive(Debug)]
pub(crate) struct Running {
    home: Home,
    _lock: File,
}

/// How to reach the node that runs in a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contact {
    /// `http://ADDRESS:PORT`
    pub(crate) api: String,
    /// The bearer token of the admin calls.
    pub(crate) token: String,
}

impl Home {
    /// The directory given, or `~/.selvedge`.
    pub(crate) fn locate(given: Option<&Path>) -> Result<Self> {
        if let Some(path) = given {
            let path = std::path::absolute(path)
                .with_context(|| format!("cannot use {} as home", path.display()))?;
            return Ok(Self(path));
        }
        let user = std::env::home_dir().filter(|path| !path.as_os_str().is_empty());
        let user =
            user.ok_or_else(|| anyhow!("this user has no home directory: give --home DIR"))?;
        Ok(Self(user.join(".selvedge")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    pub(crate) fn packed(&self) -> PathBuf {
        self.0.join("packed")
    }

    fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Makes a directory of this home, and the home itself, for their owner only.
    pub(crate) fn make_dir(&self, path: &Path) -> Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the directory {}", path.display()))
    }

    /// Takes the home for a node of this process, or says which process has it.
    pub(crate) fn occupy(&self) -> Result<Running> {
        self.make_dir(&self.run())?;
        let path = self.run().join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number is only for the message; an unreadable one is left out.
                let _ = lock.take(20).read_to_string(&mut holder);
                bail!(
                    "a node already runs in {} (process {}); stop it, or give another --home DIR",
                    self.0.display(),
                    if holder.trim().is_empty() { "unknown" } else { holder.trim() }
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let running = Running { home: self.clone(), _lock: lock };
        // A node that was killed could not remove these; they would mislead other commands.
        running.retract();
        Ok(running)
    }

    /// How to reach the node that runs here, or `None`.
    pub(crate) fn contact(&self) -> Option<Contact> {
        let read = |name| std::fs::read_to_string(self.run().join(name)).ok();
        let (address, token) = (read("api.addr")?, read("admin.token")?);
        // Files of a node that was killed remain; its lock does not.
        let lock = File::open(self.run().join("lock")).ok()?;
        if lock.try_lock().is_ok() {
            return None;
        }
        Some(Contact { api: format!("http://{}", address.trim()), token: token.trim().to_owned() })
    }

    /// As [`Self::contact`], with an error that says what to do.
    pub(crate) fn running(&self) -> Result<Contact> {
        self.contact().ok_or_else(|| {
            anyhow!(
                "no node runs in {}: start one with `selvedge up`{}",
                self.0.display(),
                if self.0.ends_with(".selvedge") { "" } else { " and the same --home" }
            )
        })
    }
}

impl Running {
    /// Leaves the address and the admin token for other commands of the same user.
    pub(crate) fn announce(&self, api: &str, token: &str) -> Result<()> {
        let run = self.home.run();
        // Not waited for until the disk has them: after a crash of the machine they mean nothing.
        put_private(&run.join("admin.token"), token, |_| Ok(()))?;
        put_private(&run.join("api.addr"), api, |_| Ok(()))
    }

    fn retract(&self) {
        for name in ["api.addr", "admin.token"] {
            let _ = std::fs::remove_file(self.home.run().join(name));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.retract();
    }
}

/// Writes a file only its owner may read, whole or not at all: its bytes are on the disk before it
/// has its name.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    put_private(path, text, File::sync_all)
}

fn put_private(path: &Path, text: &str, sync: fn(&File) -> io::Result<()>) -> Result<()> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let written = (|| -> io::Result<()> {
        let _ = std::fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        sync(&file)?;
        std::fs::rename(&draft, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_home_has_one_node_at_a_time() {
        let scratch = Scratch::new("home");
        let home = Home::locate(Some(scratch.path())).unwrap();
        assert!(home.running().unwrap_err().to_string().contains("selvedge up"));
        let running = home.occupy().unwrap();
        let second = home.occupy().unwrap_err().to_string();
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        drop(running);
        home.occupy().unwrap();
    }

    #[test]
    fn the_way_to_reach_a_node_is_private_and_goes_with_it() {
        let scratch = Scratch::new("home");
        let home = Home::locate(Some(scratch.path())).unwrap();
        let running = home.occupy().unwrap();
        assert_eq!(home.contact(), None);
        running.announce("127.0.0.1:9", "secret").unwrap();
        let contact = home.contact().unwrap();
        assert_eq!(
            (contact.api.as_str(), contact.token.as_str()),
            ("http://127.0.0.1:9", "secret")
        );
        let token = scratch.path().join("run/admin.token");
        assert_eq!(std::fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
        drop(running);
        assert!(!token.exists());
        assert_eq!(home.contact(), None);
    }

    #[test]
    fn files_of_a_killed_node_mislead_nobody() {
        let scratch = Scratch::new("home");
        let home = Home::locate(Some(scratch.path())).unwrap();
        let running = home.occupy().unwrap();
        running.announce("127.0.0.1:9", "secret").unwrap();
        // A killed process runs no destructor, but the system releases its lock.
        running._lock.unlock().unwrap();
        std::mem::forget(running);
        assert_eq!(home.contact(), None);
    }
}
