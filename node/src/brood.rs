//! Child processes that do not outlive this one.
//!
//! Owns every process the program starts: each is killed when its handle is dropped and when the
//! program ends by a signal. A child that is itself a node also watches its standard input
//! (`up --exit-with-parent`), which closes even when this process is killed outright.

use std::collections::BTreeMap;
use std::io;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

/// The children of this process, by process id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Brood {
    children: Arc<Mutex<BTreeMap<u32, Child>>>,
}

/// One child; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Chick {
    pid: u32,
    brood: Brood,
}

impl Brood {
    /// The one all parts of the program share, so that a signal reaches every child.
    pub(crate) fn shared() -> Self {
        static SHARED: LazyLock<Brood> = LazyLock::new(Brood::default);
        SHARED.clone()
    }

    /// Takes charge of a child.
    pub(crate) fn adopt(&self, child: Child) -> Chick {
        let pid = child.id();
        self.children.lock().insert(pid, child);
        Chick { pid, brood: self.clone() }
    }

    /// Kills and reaps all children.
    pub(crate) fn kill_all(&self) {
        let children = std::mem::take(&mut *self.children.lock());
        for (_, mut child) in children {
            end(&mut child);
        }
    }
}

impl Chick {
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// The exit status, once the child has ended.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self.brood.children.lock().get_mut(&self.pid) {
            Some(child) => child.try_wait(),
            None => Err(io::Error::other("the child was ended")),
        }
    }

    /// Kills the child at once (SIGKILL) and reaps it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.brood.children.lock().remove(&self.pid) {
            end(&mut child);
        }
    }
}

impl Drop for Chick {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Both calls fail only when the child is gone already, which is what is wanted.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap()
    }

    fn lives(pid: u32) -> bool {
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let chick = Brood::default().adopt(sleeper());
        let pid = chick.pid();
        assert!(lives(pid));
        drop(chick);
        assert!(!lives(pid));
    }

    #[test]
    fn all_children_go_at_once() {
        let brood = Brood::default();
        let mut chicks = [brood.adopt(sleeper()), brood.adopt(sleeper())];
        brood.kill_all();
        assert!(chicks.iter().all(|chick| !lives(chick.pid())));
        assert!(chicks[0].try_wait().is_err());
    }
}
