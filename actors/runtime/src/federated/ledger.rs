//! What this node's data have spent, one ledger for each source and each part of one: a machine and
//! its disk.
//!
//! Owns the order of writes and who is told. Whether a contribution may leave is the machine's to
//! say. After a write that failed the ledger is read from the disk again once no write is under
//! way: what it thinks is spent is never less than what the disk will say.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::MicroEpsilon;
use selvedge_federated::privacy::ledger::{
    Cap, Ledger, LedgerEffect, LedgerInput, Overspent, Spend,
};
use selvedge_federated::round::Digest;
use tokio::sync::{mpsc, oneshot};

use super::disk::LedgerDisk;
use crate::store::{Store, StoreError};

/// What a job hears of its contribution.
pub(super) struct Paid {
    pub(super) commitment: Digest,
    pub(super) said: Result<(), Overspent>,
}

/// The ledger of one source; cheap to clone.
#[derive(Clone)]
pub(super) struct LedgerLine(Arc<Inner>);

struct Inner {
    /// The operator's; without one what a job promises is the bound.
    cap: Option<Cap>,
    disk: LedgerDisk,
    state: Mutex<State>,
}

struct State {
    /// None after a write that failed.
    ledger: Option<Ledger>,
    /// Writes of which nobody knows yet what became of them.
    under_way: usize,
    /// Who is told, by job; as many as jobs run here.
    listeners: BTreeMap<Digest, mpsc::UnboundedSender<Paid>>,
}

type Written = oneshot::Receiver<Result<(), StoreError>>;

impl LedgerLine {
    /// The ledger of a source, as the disk has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open(store: Store, source: &str, cap: Option<Cap>) -> Result<Self, StoreError> {
        let disk = LedgerDisk::new(store, source);
        let ledger = Some(Ledger::new(cap, disk.load()?));
        let state = State { ledger, under_way: 0, listeners: BTreeMap::new() };
        Ok(Self(Arc::new(Inner { cap, disk, state: Mutex::new(state) })))
    }

    /// A job wants to be told of its contributions.
    pub(super) fn listen(&self, job: Digest, tell: mpsc::UnboundedSender<Paid>) {
        let mut state = self.0.state.lock();
        state.listeners.retain(|_, listener| !listener.is_closed());
        state.listeners.insert(job, tell);
    }

    /// What was spent in all.
    pub(super) fn epsilon(&self) -> Option<MicroEpsilon> {
        self.0.state.lock().ledger.as_ref().map(Ledger::epsilon)
    }

    /// Whether not even one contribution to a job that promises this may leave any more. What the
    /// disk does not say now, it may say later.
    pub(super) fn is_spent_for(&self, privacy: &Privacy) -> bool {
        let (cost, promised) = (privacy.cost(), privacy.promised());
        self.0.state.lock().ledger.as_ref().is_some_and(|ledger| !ledger.affords(cost, promised))
    }

    /// How many contributions to a job that promises this may leave yet: within what the data have
    /// left, and what the job itself allows. None while the disk does not say.
    pub(super) fn left_for(&self, privacy: &Privacy) -> Option<u64> {
        let (cost, promised) = (privacy.cost(), privacy.promised());
        let left = self.0.state.lock().ledger.as_ref().map(|all| all.left(cost, promised))?;
        Some(left.min(privacy.contributions()))
    }

    /// Asks for a contribution; the answer comes to whoever listens.
    pub(super) fn ask(&self, spend: Spend) {
        let mut state = self.0.state.lock();
        if state.ledger.is_none() && state.under_way == 0 {
            match self.0.disk.load() {
                Ok(stored) => state.ledger = Some(Ledger::new(self.0.cap, stored)),
                Err(error) => tracing::error!(%error, "what data have spent cannot be read"),
            }
        }
        // Whoever gets no answer asks again.
        self.step(&mut state, LedgerInput::Asked(spend));
    }

    fn step(&self, state: &mut State, input: LedgerInput) {
        let Some(ledger) = &mut state.ledger else { return };
        let before = ledger.stored().jobs.clone();
        let mut effects = Vec::new();
        ledger.step(input, &mut effects);
        let now = ledger.stored().clone();
        for effect in effects {
            match effect {
                LedgerEffect::Store { write, change } => {
                    match self.0.disk.write(&change, &before, &now) {
                        Ok(written) => {
                            state.under_way += 1;
                            self.await_write(write, written);
                        }
                        Err(error) => {
                            tracing::error!(%error, "what data have spent was not written");
                            state.ledger = None;
                            return;
                        }
                    }
                }
                LedgerEffect::Granted { job, commitment } => {
                    tell(state, &job, Paid { commitment, said: Ok(()) });
                }
                LedgerEffect::Denied { job, commitment, why } => {
                    tell(state, &job, Paid { commitment, said: Err(why) });
                }
            }
        }
    }

    fn await_write(&self, write: u64, written: Written) {
        let line = self.clone();
        tokio::spawn(async move {
            let result = written.await.unwrap_or(Err(StoreError::Closed));
            let mut state = line.0.state.lock();
            state.under_way -= 1;
            match result {
                Ok(()) => line.step(&mut state, LedgerInput::Stored { write }),
                Err(error) => {
                    tracing::error!(%error, "what data have spent was not written");
                    state.ledger = None;
                }
            }
        });
    }
}

fn tell(state: &State, job: &Digest, paid: Paid) {
    if let Some(listener) = state.listeners.get(job) {
        // A job that ended needs no answer.
        let _gone = listener.send(paid);
    }
}
