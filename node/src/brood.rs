//! Child processes that do not outlive this one.
//!
//! Owns every process the program starts: each is killed when its handle is dropped and when the
//! program ends by a signal. A child that is itself a node also watches its standard input
//! (`up --exit-with-parent`), which closes even when this process is killed outright.

use std::collections::BTreeMap;
use std::io;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

use crate::scratch;

/// The children of this process, by process id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Brood {
    children: Arc<Mutex<BTreeMap<u32, Child>>>,
}

/// What a child was given to talk through.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
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

    /// Starts a child and takes charge of it.
    pub(crate) fn start(&self, command: &mut Command) -> io::Result<Chick> {
        // Locked before it is started: a signal finds either no child yet, or this one.
        let mut children = self.children.lock();
        let child = command.spawn()?;
        let pid = child.id();
        children.insert(pid, child);
        Ok(Chick { pid, brood: self.clone() })
    }

    /// Kills and reaps all children.
    #[cfg(test)]
    fn kill_all(&self) {
        kill(std::mem::take(&mut *self.children.lock()));
    }

    /// Kills all children for good: whoever adopts one more waits for the end of this process.
    fn end(&self) {
        let mut children = self.children.lock();
        kill(std::mem::take(&mut *children));
        scratch::remove_all();
        // Never unlocked: the process ends now, and no child may be added meanwhile.
        std::mem::forget(children);
    }
}

impl Chick {
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// The pipes to and from the child, where it was started with any.
    pub(crate) fn pipes(&mut self) -> Pipes {
        match self.brood.children.lock().get_mut(&self.pid) {
            Some(child) => Pipes {
                stdin: child.stdin.take(),
                stdout: child.stdout.take(),
                stderr: child.stderr.take(),
            },
            None => Pipes::default(),
        }
    }

    /// Waits for the end of a child that has closed its output.
    pub(crate) fn wait(self) -> io::Result<ExitStatus> {
        let child = self.brood.children.lock().remove(&self.pid);
        let mut child = child.ok_or_else(|| io::Error::other("the child was ended"))?;
        child.wait()
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

/// From now on SIGINT, SIGTERM and SIGHUP kill the children before they end this process.
pub(crate) fn end_with_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let [interrupt, terminate, hangup] = &mut signals;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        Brood::shared().end();
        // 128 + SIGINT, as shells report a program that was interrupted.
        std::process::exit(130);
    })?;
    Ok(())
}

fn kill(children: BTreeMap<u32, Child>) {
    for (_, mut child) in children {
        end(&mut child);
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
    use std::process::Stdio;

    use super::*;

    fn sleeper(brood: &Brood) -> Chick {
        brood.start(Command::new("sleep").arg("1000").stdin(Stdio::null())).unwrap()
    }

    fn lives(pid: u32) -> bool {
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let chick = sleeper(&Brood::default());
        let pid = chick.pid();
        assert!(lives(pid));
        drop(chick);
        assert!(!lives(pid));
    }

    #[test]
    fn all_children_go_at_once() {
        let brood = Brood::default();
        let mut chicks = vec![sleeper(&brood), sleeper(&brood)];
        brood.kill_all();
        assert!(chicks.iter().all(|chick| !lives(chick.pid())));
        assert!(chicks.pop().is_some_and(|chick| chick.wait().is_err()));
    }
}
