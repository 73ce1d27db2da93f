//! A directory in which the nodes of one machine find each other.
//!
//! Owns one file there, `<peer id>.addr`: a first line with the format's version, then an address
//! per line. mDNS does not work on loopback, and containers often share a directory but no
//! multicast. A file is fresh for a minute after it was written; its owner writes it again before
//! that and removes it when it stops.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use selvedge_base::{Micros, NodeId, Wall};
use tokio::time::Instant;

use super::sightings::Change;
use crate::{clock, entropy};

/// The first line of a file.
const HEADER: &str = "selvedge-address 1";
/// How a file's name ends.
const SUFFIX: &str = ".addr";
/// Files looked at in one directory; a machine with more nodes than this is a test gone wrong.
const MAX_FILES: usize = 256;
/// Addresses used of one file, and the bytes read of it: that many lines fit twice.
const MAX_ADDRS: usize = 8;
const MAX_BYTES: u64 = 1_024;
/// Nodes that start together should find each other at once.
const READ_YOUNG: Duration = Duration::from_millis(250);
/// Later a newcomer dials the others anyway.
const READ_OLD: Duration = Duration::from_secs(2);
/// How long a directory counts as young after the last change in it.
const YOUNG: Duration = Duration::from_secs(30);
/// A file is written again this often and ignored after three times that.
const WRITE_EVERY: Duration = Duration::from_secs(20);
const FRESH: Micros = Micros::secs(60);

pub(crate) struct Rendezvous {
    directory: PathBuf,
    node: NodeId,
    addrs: Vec<SocketAddr>,
    known: BTreeMap<NodeId, Vec<SocketAddr>>,
    read_at: Instant,
    write_at: Instant,
    changed_at: Instant,
}

impl Rendezvous {
    pub(crate) fn new(directory: PathBuf, node: NodeId) -> Self {
        let now = Instant::now();
        Self {
            directory,
            node,
            addrs: Vec::new(),
            known: BTreeMap::new(),
            read_at: now,
            write_at: now,
            changed_at: now,
        }
    }

    /// When to call [`Rendezvous::read`] next.
    pub(crate) fn due_at(&self) -> Instant {
        self.read_at
    }

    /// Sets the addresses in this node's file; written with the next [`Rendezvous::read`].
    pub(crate) fn announce(&mut self, mut addrs: Vec<SocketAddr>) {
        addrs.truncate(MAX_ADDRS);
        if addrs != self.addrs {
            self.addrs = addrs;
            let now = Instant::now();
            (self.write_at, self.read_at) = (now, now);
        }
    }

    /// Writes this node's file when it is time, reads the others, and says what changed.
    ///
    /// # Errors
    /// What is wrong with the directory, for people.
    pub(crate) fn read(&mut self) -> Result<Vec<Change>, String> {
        let now = Instant::now();
        let young = now.duration_since(self.changed_at) < YOUNG;
        self.read_at = now + if young { READ_YOUNG } else { READ_OLD };
        let failed = |error: io::Error| {
            format!("the rendezvous directory {} fails: {error}", self.directory.display())
        };
        if self.write_at <= now && !self.addrs.is_empty() {
            self.write().map_err(failed)?;
            self.write_at = now + WRITE_EVERY;
        }
        let found = self.list().map_err(failed)?;
        let changes = difference(&self.known, &found);
        if !changes.is_empty() {
            self.changed_at = now;
            self.read_at = now + READ_YOUNG;
        }
        self.known = found;
        Ok(changes)
    }

    /// Removes this node's file.
    pub(crate) fn leave(&mut self) {
        // Gone already, or not removable: then it goes stale by itself.
        let _gone = fs::remove_file(self.path());
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("{}{SUFFIX}", self.node))
    }

    /// Writes the whole file under another name first, so that nobody reads half of it.
    fn write(&self) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let lines: Vec<_> = self.addrs.iter().map(SocketAddr::to_string).collect();
        let draft = self.directory.join(format!(".{:016x}.new", entropy::dice().next()));
        fs::write(&draft, format!("{HEADER}\n{}\n", lines.join("\n")))
            .and_then(|()| fs::rename(&draft, self.path()))
            .inspect_err(|_| {
                let _gone = fs::remove_file(&draft);
            })
    }

    fn list(&self) -> io::Result<BTreeMap<NodeId, Vec<SocketAddr>>> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error),
        };
        let now = clock::wall();
        let mut found = BTreeMap::new();
        for entry in entries.take(MAX_FILES) {
            let path = entry?.path();
            let Some(node) = node_in(&path).filter(|node| *node != self.node) else { continue };
            // A file that vanished, is half written by hand, or is none of ours: not a node.
            if let Some(addrs) = read_fresh(&path, now) {
                found.insert(node, addrs);
            }
        }
        Ok(found)
    }
}

fn node_in(path: &Path) -> Option<NodeId> {
    path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
}

fn read_fresh(path: &Path, now: Wall) -> Option<Vec<SocketAddr>> {
    let file = fs::File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let written = metadata.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let written = Wall(u64::try_from(written.as_millis()).unwrap_or(u64::MAX));
    if !metadata.is_file() || now.since(written) > FRESH {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return None;
    }
    let addrs: BTreeSet<SocketAddr> = lines.filter_map(|line| line.parse().ok()).collect();
    let addrs: Vec<_> = addrs.into_iter().filter(|addr| addr.port() != 0).take(MAX_ADDRS).collect();
    (!addrs.is_empty()).then_some(addrs)
}

fn difference(
    before: &BTreeMap<NodeId, Vec<SocketAddr>>,
    after: &BTreeMap<NodeId, Vec<SocketAddr>>,
) -> Vec<Change> {
    let gone = before.keys().filter(|node| !after.contains_key(node));
    let gone = gone.map(|node| Change::OnlyAt(*node, Vec::new()));
    let seen = after.iter().filter(|(node, addrs)| before.get(node) != Some(addrs));
    gone.chain(seen.map(|(node, addrs)| Change::OnlyAt(*node, addrs.clone()))).collect()
}

#[cfg(test)]
#[path = "rendezvous_tests.rs"]
mod tests;
