//! The memory of an engine: who may have it, who waits for it, who gives it up.
//!
//! Owns the account ([`selvedge_contract::residence`] decides), carrying its decisions out, and the
//! waiting of loads. Models that go are told to the threads that hold them, which free them: a
//! model has no request then, so that none is cut short, and one that comes meanwhile reaches the
//! thread after this. The engine's lock of models comes before the account's, which is held for
//! moments and while waiting given up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use selvedge_base::{ModelDigest, Mono};
use selvedge_contract::ModelState;
use selvedge_contract::residence::{Counts, Decision, Eviction, Reason, Residence, Room, Wish};

use crate::error::EngineError;
use crate::shared::Shared;
use crate::{embed, front, onnx, speech, vision, worker};

/// How often a load that waits looks at the clock, which is handed in and may go its own way.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// The account and who waits for it to change.
pub(crate) struct Memory {
    account: Mutex<Residence>,
    changed: Condvar,
}

/// What is in memory, of which budget, and what became of models since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Bytes of weights.
    pub taken: u64,
    /// Bytes that weights, keys and values may take.
    pub budget: u64,
    /// Models that wait for memory.
    pub waiting: u64,
    /// How often models came and went.
    pub counts: Counts,
}

/// Memory set aside for weights. It is given back with its owner, however that ends.
pub(crate) struct Reservation {
    shared: Weak<Shared>,
    model: Option<ModelDigest>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.memory.change(|account| account.freed(self.model, self.bytes));
        }
    }
}

impl Memory {
    pub(crate) fn new(budget: u64) -> Self {
        Self { account: Mutex::new(Residence::new(budget)), changed: Condvar::new() }
    }

    /// Reads the account.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Residence) -> T) -> T {
        look(&self.account.lock())
    }

    /// Changes the account; loads that wait look at it again.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Residence) -> T) -> T {
        let changed = change(&mut self.account.lock());
        self.changed.notify_all();
        changed
    }
}

impl Shared {
    /// Sets memory aside for what is added to a model, under a digest and a name of its own, and
    /// has others go for it, but not the model. Waits as [`Self::make_room`] does.
    pub(crate) fn make_room_beside(
        self: &Arc<Self>,
        (added, base): (ModelDigest, ModelDigest),
        name: &str,
        bytes: u64,
    ) -> Result<Reservation, EngineError> {
        self.want(added, |account, now| account.want_added((added, base), name, bytes, now))?;
        Ok(Reservation { shared: Arc::downgrade(self), model: None, bytes })
    }

    /// Sets memory aside for a model, and has others go for it if somebody asks for it. Waits
    /// while those that could go are at work, or are being freed.
    pub(crate) fn make_room(
        self: &Arc<Self>,
        model: ModelDigest,
        room: Room,
        wish: Wish,
    ) -> Result<Reservation, EngineError> {
        self.want(model, |account, now| account.want(model, room, wish, now))?;
        let shared = Arc::downgrade(self);
        Ok(Reservation { shared, model: Some(model), bytes: room.weights })
    }

    /// Asks the account until it says yes or no, and carries out what it decides meanwhile.
    fn want(
        &self,
        model: ModelDigest,
        ask: impl Fn(&mut Residence, Mono) -> Decision,
    ) -> Result<(), EngineError> {
        loop {
            let mut models = self.models.lock();
            let mut account = self.memory.account.lock();
            let now = self.now();
            let decision = ask(&mut account, now);
            if !matches!(decision, Decision::Wait { .. }) {
                // Whoever waits behind it may be next.
                self.memory.changed.notify_all();
            }
            let until = match decision {
                Decision::Load => {
                    if let Some(entry) = models.get_mut(&model) {
                        entry.seeks(ModelState::Loading);
                    }
                    return Ok(());
                }
                Decision::Evict(evictions) => {
                    for eviction in evictions {
                        if let Some(entry) = models.get_mut(&eviction.model) {
                            entry.goes();
                        }
                        self.evict(&eviction);
                    }
                    None
                }
                Decision::Wait { until } => Some(until),
                Decision::Refuse(reason) => return Err(refused(reason)),
            };
            // Nothing is read yet: peers that have it in memory are asked first meanwhile.
            if let Some(entry) = models.get_mut(&model) {
                entry.seeks(ModelState::Cold);
            }
            drop(models);
            let within = until.map_or(LOOKS_EVERY, |until| until.since(now).into());
            let _timed_out = self.memory.changed.wait_for(&mut account, within.min(LOOKS_EVERY));
        }
    }

    /// Has the threads that hold a model free it. A closed engine has nothing left to free.
    fn evict(&self, eviction: &Eviction) {
        let Eviction { model, name, comes, why, used, bytes } = eviction;
        let idle_s = used.map(|used| self.now().since(used).0 / 1_000_000);
        let reason = why.as_str();
        tracing::info!(%name, %comes, reason, idle_s, bytes, "a model makes room for another");
        drop(self.front.push(front::Message::Removed(*model)));
        drop(self.worker.push(worker::Message::Evicted(*model)));
        drop(self.desk.push(embed::Message::Removed(*model)));
        drop(self.tensors.push(onnx::Message::Removed(*model)));
        drop(self.hearing.push(speech::Message::Removed(*model)));
        drop(self.sight.push(vision::Message::Removed(*model)));
    }

    /// Keeps so many bytes for a model's running answers, or as many as there are.
    pub(crate) fn keep(&self, model: ModelDigest, bytes: u64) -> u64 {
        self.memory.change(|account| account.keep(model, bytes))
    }

    /// A model's running answers need no more than so many bytes now.
    pub(crate) fn release(&self, model: ModelDigest, bytes: u64) {
        self.memory.change(|account| account.release(model, bytes));
    }

    /// Bytes of the budget that no weights take.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.memory.look(Residence::untaken)
    }

    pub(crate) fn memory_use(&self) -> MemoryUse {
        self.memory.look(|account| MemoryUse {
            taken: account.taken(),
            budget: account.budget(),
            waiting: account.waiting(),
            counts: account.counts(),
        })
    }
}

fn refused(reason: Reason) -> EngineError {
    match reason {
        Reason::TooLarge { needed, budget } => EngineError::OverBudget { needed, budget },
        Reason::Kept { needed, left, names } => {
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            EngineError::KeptOut { needed, left, names }
        }
        Reason::Busy { needed, waited } => {
            EngineError::Occupied { needed, seconds: waited.0 / 1_000_000 }
        }
        Reason::NoRoom { needed, free } => EngineError::OutOfMemory { needed, free },
        Reason::Unwanted => EngineError::Unwanted,
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "memory_tests.rs"]
mod tests;
