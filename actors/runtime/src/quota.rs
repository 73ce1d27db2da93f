//! The budgets of a running node: one machine behind one lock, and what carries out its orders.
//!
//! The request path steps the machine directly: a reservation or a settlement is one short lock,
//! and a wait only when the machine does not answer at once (a block must reach the disk first, a
//! peer is asked). Peers' messages, ticks and the disk's answers step it the same way, each where
//! it arrives. Writes are begun while the lock is held, so that they reach the disk in the order of
//! the machine's decisions; everything that takes time goes to one supervised task ([`carrier`]).
//! Owns that order and the waiting requests. What may be spent is the machine's to decide.

mod carrier;
mod disk;
mod report;
mod reservation;
mod seal;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::{Micros, Mono, NodeId, Refusal, RequestId, Wall};
use selvedge_core::quota::{
    BudgetStatus, Intake, Quota, QuotaEffect, QuotaEvent, QuotaInput, QuotaMessage, QuotaWrite,
    Remaining, Verdict,
};
use selvedge_crdt::escrow::{RowRefused, SignedRow};
use selvedge_proto::policy::{AccountPath, KeyId, PolicyBook};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use carrier::child;
pub(crate) use disk::load;
pub(crate) use reservation::{Reservation, Takes, Wanted, word};
pub(crate) use seal::NodeSeal;

use crate::counters::Counters;
use crate::stepper::Stepper;
use crate::store::{Store, StoreError};

/// What takes time, in the order it was decided.
pub(crate) enum Order {
    /// A write is on its way to the disk.
    Await { ticket: u64, written: oneshot::Receiver<Result<(), StoreError>> },
    /// Tell a peer.
    Send { to: NodeId, message: QuotaMessage },
    /// The machine wants to be told the time sooner than was planned.
    WakeSooner,
    /// Say when every message ordered before has left.
    Flush(oneshot::Sender<()>),
}

/// The way to a node's budgets; cheap to clone.
#[derive(Clone)]
pub(crate) struct QuotaLine(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    store: Store,
    /// Bounded by what causes orders: a write per block reserved or message taken, and messages,
    /// of which the machine sends a bounded number per tick and per request.
    orders: mpsc::UnboundedSender<Order>,
    counters: Arc<Counters>,
    retired: watch::Sender<bool>,
    intake: Mutex<Intake>,
}

/// Signatures that are checked without leaving the task: two milliseconds at most.
const CHECKED_HERE: usize = 32;

struct State {
    stepper: Stepper<Quota>,
    /// Kept between steps, so that a step allocates nothing of its own.
    effects: Vec<QuotaEffect>,
    /// Requests that wait for an answer; one entry per request under way at most.
    waiting: BTreeMap<RequestId, oneshot::Sender<Verdict>>,
    /// Requests to be told when what they hold is taken from them; one entry per reservation.
    followed: BTreeMap<RequestId, oneshot::Sender<Refusal>>,
    /// When the carrier will next look at the clock.
    wakes_at: Option<Mono>,
}

/// The machine's answer, at once or later.
pub(crate) enum Answered {
    /// It is there.
    Now(Verdict),
    /// It comes; the sender lives as long as the line.
    Later(oneshot::Receiver<Verdict>),
}

impl QuotaLine {
    /// The line to a machine, and the orders it will give.
    pub(crate) fn new(
        stepper: Stepper<Quota>,
        store: Store,
        counters: Arc<Counters>,
    ) -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, receiver) = mpsc::unbounded_channel();
        let state = Mutex::new(State {
            stepper,
            effects: Vec::new(),
            waiting: BTreeMap::new(),
            followed: BTreeMap::new(),
            wakes_at: None,
        });
        let retired = watch::Sender::new(false);
        (
            Self(Arc::new(Inner {
                state,
                store,
                orders,
                counters,
                retired,
                intake: Mutex::default(),
            })),
            receiver,
        )
    }

    /// Tells the machine something that no request waits for.
    pub(crate) fn tell(&self, input: QuotaInput) {
        let mut state = self.0.state.lock();
        // Nobody asked: an answer in passing goes to whoever waits for it.
        let _nobody = self.step(&mut state, input, None);
    }

    /// Takes what a peer says. Signatures are checked before the lock is taken, and only as many as
    /// one peer may have checked: nobody's rows hold up requests.
    pub(crate) async fn hear(&self, from: NodeId, mut message: QuotaMessage) {
        if !message.is_within_bounds() {
            return;
        }
        if let QuotaMessage::Rows(rows) | QuotaMessage::Recalled { rows, .. } = &mut message {
            let Some(checked) = self.check(from, std::mem::take(rows)).await else { return };
            *rows = checked;
        }
        if let QuotaMessage::Witness(said) = &message
            && let Some(signed) = said.row()
        {
            let checked = self.check(from, vec![signed.clone()]).await;
            if checked.is_none_or(|rows| rows.is_empty()) {
                return;
            }
        }
        self.tell(QuotaInput::Received { from, message });
    }

    /// Of a peer's rows those that are known or well signed; none when it sends too many.
    async fn check(&self, from: NodeId, rows: Vec<SignedRow>) -> Option<Vec<SignedRow>> {
        let (rows, seal, now) = {
            let state = self.0.state.lock();
            let machine = state.stepper.machine();
            let news = |signed: SignedRow| (machine.may_be_news(&signed), signed);
            let rows: Vec<(bool, SignedRow)> = rows.into_iter().map(news).collect();
            (rows, machine.seal(), state.stepper.now().mono)
        };
        let count = rows.iter().filter(|(news, _)| *news).count();
        if !self.0.intake.lock().admit(now, from, count) {
            tracing::debug!(peer = %from.short(), count, "too many rows of budgets: not looked at");
            return None;
        }
        let check = move || {
            let (mut good, mut bad) = (Vec::with_capacity(rows.len()), None);
            for (news, signed) in rows {
                if !news || signed.is_signed(&*seal) {
                    good.push(signed);
                } else {
                    bad = Some(signed.row.holder.node);
                }
            }
            (good, bad)
        };
        let checked = match count {
            0..=CHECKED_HERE => Ok(check()),
            // The check of many takes milliseconds of a core.
            _ => tokio::task::spawn_blocking(check).await,
        };
        let (good, bad) = checked.ok()?;
        if let Some(node) = bad {
            let why = RowRefused::Signature(node);
            report::report(&self.0.counters, &QuotaEvent::RowRefused { from, why });
        }
        Some(good)
    }

    /// Tells the machine something that `id` waits for an answer to.
    fn ask(&self, id: RequestId, input: QuotaInput) -> Answered {
        let mut state = self.0.state.lock();
        if let Some(verdict) = self.step(&mut state, input, Some(id)) {
            return Answered::Now(verdict);
        }
        let (answer, later) = oneshot::channel();
        state.waiting.insert(id, answer);
        Answered::Later(later)
    }

    /// Tells the machine a fact of a trace; what it ordered in that step.
    pub(crate) fn replay(&self, input: QuotaInput) -> Vec<QuotaEffect> {
        let mut state = self.0.state.lock();
        let _nobody = self.step(&mut state, input, None);
        let last = state.stepper.recorded().pop();
        last.map(|step| step.effects).unwrap_or_default()
    }

    /// Tells when a request loses what it holds; `None` where another has its name.
    fn follow(&self, id: RequestId) -> Option<oneshot::Receiver<Refusal>> {
        let mut state = self.0.state.lock();
        let Entry::Vacant(place) = state.followed.entry(id) else { return None };
        let (tell, lost) = oneshot::channel();
        place.insert(tell);
        Some(lost)
    }

    /// A request holds nothing more that it could lose.
    fn unfollow(&self, id: RequestId) {
        self.0.state.lock().followed.remove(&id);
    }

    /// A request waits no more.
    fn forget(&self, id: RequestId) {
        self.0.state.lock().waiting.remove(&id);
    }

    /// A policy took effect.
    pub(crate) fn policy_changed(&self, book: Arc<PolicyBook>) {
        self.tell(QuotaInput::PolicyChanged { book });
    }

    /// The name of this node's durable store, under which it is granted rights.
    pub(crate) fn incarnation(&self) -> u64 {
        self.0.state.lock().stepper.machine().holder().incarnation
    }

    /// The latest time this node may have spent at, also before a crash.
    pub(crate) fn latest(&self) -> Wall {
        self.0.state.lock().stepper.machine().latest()
    }

    /// Every budget known here.
    pub(crate) fn status(&self) -> Vec<BudgetStatus> {
        let state = self.0.state.lock();
        state.stepper.machine().status(state.stepper.now())
    }

    /// What an account or key may still spend.
    pub(crate) fn remaining(&self, account: &AccountPath, key: Option<&KeyId>) -> Vec<Remaining> {
        let state = self.0.state.lock();
        state.stepper.machine().remaining(account, key, state.stepper.now())
    }

    /// The same, one by one: under the lock, so that what is done with each must be short.
    pub(crate) fn each_remaining(
        &self,
        account: &AccountPath,
        key: Option<&KeyId>,
        tell: impl FnMut(Remaining),
    ) {
        let state = self.0.state.lock();
        state.stepper.machine().each_remaining(account, key, state.stepper.now()).for_each(tell);
    }

    /// Gives every right away to peers, for good: this node leaves the mesh. What cannot be given
    /// within `patience` stays with it until its windows end.
    pub(crate) async fn retire(&self, patience: Micros) {
        let retired = async {
            let mut sign = self.0.retired.subscribe();
            self.tell(QuotaInput::Drained);
            // The sender lives in the line.
            drop(sign.wait_for(|retired| *retired).await);
            let (flushed, sent) = oneshot::channel();
            self.order(Order::Flush(flushed));
            // The carrier is gone only when the node is.
            let _sent = sent.await;
        };
        if tokio::time::timeout(patience.into(), retired).await.is_err() {
            tracing::warn!("not all budget rights could be given to peers in time");
        }
    }

    /// The node stays after all.
    pub(crate) fn stay(&self) {
        self.tell(QuotaInput::Stayed);
    }

    /// How long until the machine wants to be told the time.
    fn rest(&self) -> Option<Micros> {
        let mut state = self.0.state.lock();
        state.wakes_at = state.stepper.wake_at();
        // By the clock that the machine is told, whichever that is.
        let now = state.stepper.now().mono;
        state.wakes_at.map(|at| at.since(now))
    }

    /// Steps the machine and carries out what is quick. The verdict for `asking`, if it came.
    fn step(
        &self,
        state: &mut State,
        input: QuotaInput,
        asking: Option<RequestId>,
    ) -> Option<Verdict> {
        let mut verdict = None;
        let mut failed = Vec::new();
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let mut effects = std::mem::take(&mut state.effects);
            state.stepper.step(input, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    QuotaEffect::Persist { ticket, write } => {
                        if let Err(error) = self.persist(ticket, &write) {
                            failed.push((ticket, error));
                        }
                    }
                    QuotaEffect::Send { to, message } => self.order(Order::Send { to, message }),
                    QuotaEffect::Answer { id, verdict: said } if asking == Some(id) => {
                        verdict = Some(said);
                    }
                    QuotaEffect::Answer { id, verdict } => {
                        // Whoever left settles by itself.
                        if let Some(answer) = state.waiting.remove(&id) {
                            let _gone = answer.send(verdict);
                        } else if let Verdict::Refused(refusal) = verdict
                            && let Some(tell) = state.followed.remove(&id)
                        {
                            let _gone = tell.send(refusal.to_refusal());
                        }
                    }
                    QuotaEffect::Report(event) => report::report(&self.0.counters, &event),
                }
            }
            state.effects = effects;
            next = failed.pop().map(|(ticket, error): (u64, StoreError)| {
                QuotaInput::PersistFailed { ticket, why: error.to_string() }
            });
        }
        let sooner = state.stepper.wake_at().is_some_and(|at| {
            let sooner = state.wakes_at.is_none_or(|planned| at < planned);
            if sooner {
                state.wakes_at = Some(at);
            }
            sooner
        });
        if sooner {
            self.order(Order::WakeSooner);
        }
        let retired = state.stepper.machine().is_retired();
        self.0.retired.send_if_modified(|said| std::mem::replace(said, retired) != retired);
        verdict
    }
}

impl QuotaLine {
    /// Begins a write; called under the lock, so that writes keep the machine's order.
    fn persist(&self, ticket: u64, write: &QuotaWrite) -> Result<(), StoreError> {
        self.0.counters.budget_writes.bump();
        let written = self.0.store.begin(disk::batch(write)?)?;
        self.order(Order::Await { ticket, written });
        Ok(())
    }

    fn order(&self, order: Order) {
        // Fails only when the node is going down.
        let _closed = self.0.orders.send(order);
    }
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod witness_tests;
