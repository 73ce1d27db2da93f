//! What a process does for itself that runs a file from anybody.
//!
//! Owns the bounds it puts on itself: memory, files, and the time of one thing that is asked of it.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// A thread that ends the process when what it does takes too long. The node does so too; but one
/// that was killed meanwhile cannot, and nobody else would.
pub(crate) struct Watch {
    works: SyncSender<Option<Duration>>,
}

impl Watch {
    pub(crate) fn start() -> io::Result<Self> {
        let (works, states) = sync_channel(1);
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || watch(&states))?;
        Ok(Self { works })
    }

    /// From now on so long may pass until [`Watch::ends`].
    pub(crate) fn begins(&self, within: Duration) {
        // The thread lives as long as this sender.
        let _ = self.works.send(Some(within));
    }

    pub(crate) fn ends(&self) {
        let _ = self.works.send(None);
    }
}

fn watch(states: &Receiver<Option<Duration>>) {
    while let Ok(state) = states.recv() {
        if let Some(within) = state
            && states.recv_timeout(within) == Err(RecvTimeoutError::Timeout)
        {
            std::process::abort();
        }
    }
}

/// Gives up what computing does not need, and memory beyond so many bytes of data. A system that
/// does not have one of the limits refuses to set it; the time holds everywhere.
#[cfg(unix)]
pub(crate) fn confine(data_bytes: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let only = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    let _ = setrlimit(Resource::Data, only(data_bytes));
    // No file can be opened or written any more, and a crash leaves none behind.
    let _ = setrlimit(Resource::Nofile, only(0));
    let _ = setrlimit(Resource::Fsize, only(0));
    let _ = setrlimit(Resource::Core, only(0));
}

/// See above.
#[cfg(not(unix))]
pub(crate) fn confine(_data_bytes: u64) {}
