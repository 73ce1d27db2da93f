//! The log of the floor: entries out of the request path, lines in another thread.
//!
//! Owns the queue and the file. The writer looks by itself every few milliseconds, because waking
//! it would be a system call for each request.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::checks::Usage;
use crate::clock;

/// Entries that may wait: at 100,000 requests a second, a third of a second of them.
const WAITING: usize = 32 * 1024;
/// Between two looks at the queue.
const LOOK: Duration = Duration::from_millis(20);

/// Where entries go.
#[derive(Clone)]
pub(super) struct Log {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

/// What is noted of a request.
pub(super) struct Entry {
    key: u32,
    /// Names of models are short; longer ones are cut.
    model: [u8; 24],
    stream: bool,
    usage: Usage,
}

impl Entry {
    pub(super) fn new(key: u32, name: &str, stream: bool) -> Self {
        let mut model = [0; 24];
        let kept = name.len().min(model.len());
        model[..kept].copy_from_slice(&name.as_bytes()[..kept]);
        Self { key, model, stream, usage: Usage::default() }
    }

    pub(super) fn with(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }
}

impl Log {
    pub(super) fn start(path: &Path) -> Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let (queue, entries) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        thread::spawn(move || write(file, &entries, &counted));
        Ok(Self { queue, dropped })
    }

    /// Notes a request; when the queue is full, only that one was dropped.
    pub(super) fn note(&self, entry: Entry) {
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(mut file: BufWriter<File>, entries: &Receiver<Entry>, dropped: &AtomicU64) {
    let mut number = 0u64;
    loop {
        match entries.try_recv() {
            Ok(entry) => {
                number += 1;
                // A full disk ends the log, not the gateway.
                if write_line(&mut file, number, &entry).is_err() {
                    return;
                }
            }
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                let lost = dropped.swap(0, Ordering::Relaxed);
                if lost > 0 && writeln!(file, "{{\"dropped\":{lost}}}").is_err() {
                    return;
                }
                if file.flush().is_err() {
                    return;
                }
                clock::pause(LOOK);
            }
        }
    }
}

fn write_line(file: &mut BufWriter<File>, number: u64, entry: &Entry) -> std::io::Result<()> {
    let model = String::from_utf8_lossy(&entry.model);
    let model = model.trim_end_matches('\0');
    let Usage { prompt_tokens, completion_tokens } = entry.usage;
    writeln!(
        file,
        "{{\"request\":{number},\"key\":{},\"model\":\"{model}\",\"stream\":{},\
         \"prompt_tokens\":{prompt_tokens},\"completion_tokens\":{completion_tokens}}}",
        entry.key, entry.stream
    )
}
