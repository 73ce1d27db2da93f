//! Threads that compute one step together.
//!
//! Owns their waiting: between the phases of a step they spin, because a phase lasts microseconds;
//! after a while without work they park, because a node has better uses for a processor. A phase
//! is divided as it goes: whoever is free takes the next piece, so a thread that the system holds
//! up delays nobody by more than its own piece, and one that comes too late is not waited for.
//! What is computed never depends on who computes it.
#![allow(unsafe_code, reason = "threads share what the leader borrowed")]

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};

/// Looks before a thread parks: some tens of microseconds, longer than what the leader does alone
/// between two phases and far shorter than a step.
const PATIENCE: u32 = 2_000;
/// The gate's bit for "there is work".
const OPEN: u64 = 1 << 31;
/// The gate's bits that count the helpers inside.
const INSIDE: u64 = OPEN - 1;
/// What the number of a phase is counted in.
const PHASE: u64 = 1 << 32;

/// A leader, which is whoever calls, and its helpers.
pub(crate) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    threads: Vec<Thread>,
}

/// Apart from its neighbours in the cache.
#[repr(align(128))]
struct Apart<T>(T);

struct Shared {
    /// Number of the phase (upper half), whether it is open, helpers inside.
    gate: Apart<AtomicU64>,
    /// The work of the open phase.
    job: UnsafeCell<Option<Job>>,
    /// Whether each helper is parked or about to.
    parked: Box<[Apart<AtomicBool>]>,
    failed: AtomicBool,
    closing: AtomicBool,
}

/// A borrowed function without its lifetime.
#[derive(Clone, Copy)]
struct Job(*const Work<'static>);

/// What each thread calls with its number.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

// SAFETY: `job` is the only field that is not `Sync` by itself. It is written by the leader alone
// (`phase` takes the team exclusively), while the gate is closed and nobody is inside, and read by
// helpers alone while they are inside; the gate's atomics order the two.
unsafe impl Sync for Shared {}
// SAFETY: the function behind the pointer is `Sync`, so it may be called from any thread; that it
// is alive is shown where it is called.
unsafe impl Send for Shared {}

impl Team {
    /// Starts a team of `size` threads, the leader counted.
    ///
    /// # Errors
    /// What the system says when it has no thread to give.
    pub(crate) fn new(size: usize) -> std::io::Result<Self> {
        let helpers = size.saturating_sub(1);
        let shared = Arc::new(Shared {
            gate: Apart(AtomicU64::new(0)),
            job: UnsafeCell::new(None),
            parked: (0..helpers).map(|_| Apart(AtomicBool::new(false))).collect(),
            failed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let mut team = Self { shared, helpers: Vec::new(), threads: Vec::new() };
        for index in 0..helpers {
            let shared = Arc::clone(&team.shared);
            let name = format!("selvedge-compute-{}", index + 1);
            let helper =
                std::thread::Builder::new().name(name).spawn(move || help(&shared, index))?;
            team.threads.push(helper.thread().clone());
            team.helpers.push(helper);
        }
        Ok(team)
    }

    /// How many threads compute.
    pub(crate) const fn size(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `work` with each `chunk` of items, its number, and a state that no other thread has
    /// meanwhile. There must be a state for each thread; without, nothing is done.
    ///
    /// # Panics
    /// When a call panicked, after all have ended.
    pub(crate) fn split<T: Send, S: Send>(
        &mut self,
        items: &mut [T],
        chunk: usize,
        states: &mut [S],
        work: impl Fn(usize, &mut [T], &mut S) + Sync,
    ) {
        let pieces = items.len().div_ceil(chunk.max(1));
        if pieces <= 1 || self.helpers.is_empty() {
            if let Some(state) = states.first_mut() {
                let pieces = items.chunks_mut(chunk.max(1)).enumerate();
                pieces.for_each(|(index, piece)| work(index, piece, state));
            }
            return;
        }
        if states.len() < self.size() {
            return;
        }
        let (length, chunk) = (items.len(), chunk.max(1));
        let (items, states) = (Raw(items.as_mut_ptr()), Raw(states.as_mut_ptr()));
        let next = AtomicUsize::new(0);
        self.phase(&|member| {
            let (items, states) = (&items, &states);
            // SAFETY: `member` is below the team's size, which is at most the number of states;
            // `phase` gives each number to one thread, so nobody else has this state. `split`
            // holds all of them exclusively until `phase` returns.
            let state = unsafe { &mut *states.0.add(member) };
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= pieces {
                    return;
                }
                let from = index * chunk;
                let count = chunk.min(length - from);
                // SAFETY: `from + count` is at most the items' number; each index is drawn once, so
                // pieces do not overlap, and `split` holds all items exclusively until `phase`
                // returns. `T: Send` allows their use on this thread.
                let piece = unsafe { std::slice::from_raw_parts_mut(items.0.add(from), count) };
                work(index, piece, state);
            }
        });
    }

    /// Calls `work` on this thread with 0 and on those helpers that come in time with their number;
    /// returns when all calls have ended.
    fn phase(&mut self, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // Where this thread's part panicked as well, nobody has asked for the others'.
        shared.failed.store(false, Ordering::Relaxed);
        // SAFETY: only the lifetime changes. The pointer is used by helpers inside the gate alone,
        // and `Closing` keeps this function from ending, in whatever way, before they left.
        let job = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        // SAFETY: the gate is closed and nobody is inside: the last phase ended so.
        unsafe { *shared.job.get() = Some(Job(job)) };
        let phase = shared.gate.0.load(Ordering::Relaxed) / PHASE + 1;
        shared.gate.0.store(phase.wrapping_mul(PHASE) | OPEN, Ordering::SeqCst);
        let closing = Closing(shared);
        for (parked, thread) in shared.parked.iter().zip(&self.threads) {
            if parked.0.load(Ordering::SeqCst) && parked.0.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
        work(0);
        drop(closing);
        assert!(
            !shared.failed.swap(false, Ordering::Relaxed),
            "a thread's part of a step panicked"
        );
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        for (thread, helper) in self.threads.drain(..).zip(self.helpers.drain(..)) {
            thread.unpark();
            // A helper catches what its work throws; there is nothing else in it to fail.
            let _ = helper.join();
        }
    }
}

/// A pointer that threads may share: what they do with it is shown where they do it.
struct Raw<T>(*mut T);

// SAFETY: sharing the pointer does nothing by itself; each use says why it is exclusive.
unsafe impl<T: Send> Sync for Raw<T> {}

/// Ends a phase, also when the leader's part panics: nobody new comes in, and all inside leave.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let gate = &self.0.gate.0;
        gate.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while gate.load(Ordering::Acquire) & INSIDE > 0 {
            wait(&mut looks);
        }
    }
}

/// Spins, and lets others run when that lasts.
fn wait(looks: &mut u32) {
    if *looks < PATIENCE {
        *looks += 1;
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// What a helper does all its life.
fn help(shared: &Shared, index: usize) {
    let gate = &shared.gate.0;
    let (mut seen, mut looks) = (0, 0);
    while !shared.closing.load(Ordering::Relaxed) {
        let now = gate.load(Ordering::Acquire);
        if now & OPEN > 0 && now / PHASE != seen {
            if gate.compare_exchange(now, now + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            (seen, looks) = (now / PHASE, 0);
            // SAFETY: this helper is inside, so the leader neither writes the job nor returns from
            // `phase`, which borrows the function, before it left.
            let job = unsafe { *shared.job.get() };
            if let Some(Job(work)) = job {
                // SAFETY: as above.
                let work = unsafe { &*work };
                if catch_unwind(AssertUnwindSafe(|| work(index + 1))).is_err() {
                    shared.failed.store(true, Ordering::Relaxed);
                }
            }
            gate.fetch_sub(1, Ordering::AcqRel);
        } else if looks < PATIENCE {
            looks += 1;
            std::hint::spin_loop();
        } else if let Some(parked) = shared.parked.get(index) {
            // Said before the gate is looked at again: whoever opens it meanwhile sees one of the
            // two, this helper the open gate or the leader the sleeper.
            parked.0.store(true, Ordering::SeqCst);
            let now = gate.load(Ordering::SeqCst);
            let work = now & OPEN > 0 && now / PHASE != seen;
            if !work && !shared.closing.load(Ordering::SeqCst) {
                std::thread::park();
            }
            parked.0.store(false, Ordering::SeqCst);
            looks = 0;
        }
    }
}

#[cfg(test)]
#[path = "team_tests.rs"]
mod tests;
