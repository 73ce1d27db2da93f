//! One job at this node: its machines, and what carries out their orders.
//!
//! Owns the order of things: what came is handed to the machines, what they order to be stored is
//! begun in that order, what they order to be sent goes out, and what became of each is handed
//! back. Steps run on a thread that may block, since folding a round takes milliseconds of a core.
//! Decides nothing: who trains, what counts and what may be shown is [`selvedge_federated`]'s. The
//! machine of epidemic mode hears how far the client follows the chain, and tells it nothing. A
//! write that fails or a machine that panics ends the run; the next one begins from the disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use selvedge_base::{Machine as _, Mono, NodeId, Now};
use selvedge_crdt::escrow::Holder;
use selvedge_federated::epidemic::{
    Epidemic, Mixer, MixerEffect, MixerEvent, MixerInput, MixerStored, Told,
};
use selvedge_federated::mask::Seed;
use selvedge_federated::round::{
    Anchor, AnchorChange, AnchorInput, Client, ClientChange, ClientInput, Digest, Effect, Event,
    Job, Message, Pending, Tip,
};
use selvedge_federated::seal::OpeningKey;
use selvedge_net::{clock, entropy};
use selvedge_train::TrainError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::disk::{JobDisk, Loaded, RoundMeasured, Written};
use super::ledger::{LedgerLine, Paid};
use super::personal::{self, Kept};
use super::post::Post;
use super::state::JobState;
use super::trainer::{self, Bench, Learned};
use crate::store::{Batch, StoreError};

/// What is handed to the machines in one step of the thread at most: half of what may wait.
const AT_ONCE: usize = 16;

/// What came from a peer.
pub(super) struct Heard {
    pub(super) from: NodeId,
    pub(super) word: Word,
}

/// What a peer says of a job.
pub(super) enum Word {
    /// Of a round.
    Round(Box<Message>),
    /// Its own model, while no round ends.
    Personal(Box<Told>),
}

/// What a run is made of.
pub(super) struct Parts {
    pub(super) job: Arc<Job>,
    pub(super) name: Digest,
    pub(super) me: Holder,
    pub(super) key: OpeningKey,
    pub(super) seal: Arc<dyn selvedge_crdt::escrow::Seal>,
    pub(super) disk: JobDisk,
    pub(super) post: Post,
    pub(super) state: Arc<JobState>,
    /// What training needs; none where this node only follows.
    pub(super) bench: Option<(Bench, LedgerLine)>,
    /// The job's epidemic mode, if it has one.
    pub(super) epidemic: Option<Epidemic>,
}

/// Whose write it was.
#[derive(Clone, Copy)]
enum Whose {
    Anchor,
    Client,
    Mixer,
}

/// What happened.
enum Input {
    Anchor(AnchorInput),
    Client(ClientInput),
    Mixer(MixerInput),
}

/// What is to be done, in order; what goes to the disk is in the disk's words already.
enum Order {
    Store { whose: Whose, write: u64, batch: Batch },
    Send { to: NodeId, message: Box<Message> },
    Replay { to: NodeId, round: u64 },
    Train { round: u64 },
    Spend(selvedge_federated::privacy::ledger::Spend),
    Report(Event),
    Tell { to: NodeId, told: Box<Told> },
    Practise { round: u64, seq: u64, drift: Vec<i32> },
    Mixed(MixerEvent),
}

/// What moves to the thread that may block, and back.
struct Machines {
    job: Arc<Job>,
    disk: JobDisk,
    anchor: Anchor,
    written: Written,
    client: Option<Client>,
    mixer: Option<Mixer>,
    /// SCAFFOLD's control variate of this client.
    control: Vec<f32>,
    /// Whether it changed since it was written.
    moved: bool,
}

/// A job that runs.
pub(super) struct Runner {
    parts: Parts,
    machines: Option<Machines>,
    writes: FuturesOrdered<Awaited>,
    paid: Option<mpsc::UnboundedReceiver<Paid>>,
    /// The machine orders no second training before it heard of the first.
    training: Option<JoinHandle<(u64, Result<Learned, TrainError>)>>,
    /// The round that is, or was last, trained for.
    trains: u64,
    judging: Option<JoinHandle<Result<Option<RoundMeasured>, TrainError>>>,
    measured: Vec<RoundMeasured>,
    /// Training of this node's own model, and which step it is or was last. A round may end
    /// meanwhile; then nobody waits for it.
    practising: Option<JoinHandle<Practised>>,
    practises: (u64, u64),
    /// How well this node's own model does.
    judging_own: Option<JoinHandle<Result<Option<RoundMeasured>, TrainError>>>,
}

/// A run that ends, since its job was taken away or it failed, leaves no work behind: whoever runs
/// the job next reads the data anew.
impl Drop for Runner {
    fn drop(&mut self) {
        if let Some((bench, _)) = &self.parts.bench {
            bench.data.stop();
        }
    }
}

/// What came of training this node's own model.
type Practised = ((u64, u64), Result<(u32, Vec<i32>), TrainError>);

/// What became of a write, once it is known.
type Awaited = futures::future::BoxFuture<'static, (Whose, u64, Result<(), StoreError>)>;

impl Runner {
    /// A run from what the disk has.
    pub(super) fn new(parts: Parts, loaded: Loaded) -> Self {
        let Parts { job, me, key, seal, disk, epidemic, .. } = &parts;
        let Loaded { anchor, written, client, control, moved, measured, personal } = loaded;
        personal.iter().for_each(|kept| parts.state.kept(kept));
        // Whoever does not train has nothing to tell.
        let epidemic = epidemic.filter(|_| parts.bench.is_some());
        let mixer = epidemic.map(|rules| {
            let kept = personal.map(|kept| kept.stored).unwrap_or_default();
            begin_mixing(job, rules, *me, kept, &client.tip)
        });
        let client = parts
            .bench
            .is_some()
            .then(|| Client::new(Arc::clone(job), *me, Arc::clone(seal), client));
        let anchor = Anchor::new(Arc::clone(job), me.node, key.clone(), Arc::clone(seal), anchor);
        let machines = Machines {
            job: Arc::clone(job),
            disk: disk.clone(),
            anchor,
            written,
            client,
            mixer,
            control,
            moved,
        };
        parts.state.measured(&measured);
        let paid = parts.bench.as_ref().map(|(_, ledger)| ledger.listen(parts.name));
        Self {
            parts,
            machines: Some(machines),
            writes: FuturesOrdered::new(),
            paid,
            training: None,
            trains: 0,
            judging: None,
            measured,
            practising: None,
            practises: (0, 0),
            judging_own: None,
        }
    }

    /// Runs until the job is taken away, or something fails.
    ///
    /// # Errors
    /// Why it cannot go on; the next run begins from the disk.
    pub(super) async fn run(mut self, heard: &mut mpsc::Receiver<Heard>) -> Result<(), String> {
        self.show();
        self.judge();
        self.judge_own();
        loop {
            let mut inputs = self.wait(heard).await?;
            while inputs.len() < AT_ONCE
                && let Ok(more) = heard.try_recv()
            {
                self.take(more, &mut inputs);
            }
            self.step(inputs).await?;
        }
    }

    /// Waits for what happens next.
    async fn wait(&mut self, heard: &mut mpsc::Receiver<Heard>) -> Result<Vec<Input>, String> {
        let wake = self.wake_at().unwrap_or(Mono(u64::MAX));
        let rest = wake.since(clock::mono()).min(LONGEST_REST);
        let mut inputs = Vec::new();
        tokio::select! {
            biased;
            Some((whose, write, result)) = self.writes.next() => {
                result.map_err(|error| error.to_string())?;
                inputs.push(match whose {
                    Whose::Anchor => Input::Anchor(AnchorInput::Stored { write }),
                    Whose::Client => Input::Client(ClientInput::Stored { write }),
                    Whose::Mixer => {
                        self.judge_own();
                        Input::Mixer(MixerInput::Stored { write })
                    }
                });
            }
            Some(paid) = next(&mut self.paid) => {
                let commitment = paid.commitment;
                inputs.push(Input::Client(match paid.said {
                    Ok(()) => ClientInput::Granted { commitment },
                    Err(why) => ClientInput::Denied { commitment, why },
                }));
            }
            learned = done(&mut self.training) => {
                self.training = None;
                self.parts.state.training(None);
                let (round, learned) = learned.unwrap_or((self.trains, Err(panicked())));
                self.learned(round, learned, &mut inputs);
            }
            practised = done(&mut self.practising) => {
                self.practising = None;
                let practised = practised.unwrap_or((self.practises, Err(panicked())));
                inputs.push(Input::Mixer(self.practised(practised)));
            }
            judged = done(&mut self.judging_own) => {
                self.judging_own = None;
                match judged.unwrap_or(Err(panicked())) {
                    Ok(found) => self.parts.state.personal_measured(found),
                    Err(error) => tracing::warn!(%error, "a personal model was not measured"),
                }
            }
            judged = done(&mut self.judging) => {
                self.judging = None;
                self.judged(judged.unwrap_or(Err(panicked())));
            }
            more = heard.recv() => match more {
                Some(more) => self.take(more, &mut inputs),
                // The sender lives as long as the job.
                None => return Err("the job's mailbox is gone".to_owned()),
            },
            () = tokio::time::sleep(rest.into()) => {}
        }
        // Whatever else came: what keeps coming must not hold back the time.
        if wake <= clock::mono() {
            inputs.push(Input::Anchor(AnchorInput::Ticked));
            inputs.push(Input::Client(ClientInput::Ticked));
            if self.parts.epidemic.is_some() {
                let reachable = self.parts.post.reachable();
                inputs.push(Input::Mixer(MixerInput::Ticked { reachable }));
            }
        }
        Ok(inputs)
    }

    fn wake_at(&self) -> Option<Mono> {
        let machines = self.machines.as_ref()?;
        let client = machines.client.as_ref().and_then(selvedge_base::Machine::wake_at);
        let mixer = machines.mixer.as_ref().and_then(selvedge_base::Machine::wake_at);
        [machines.anchor.wake_at(), client, mixer].into_iter().flatten().min()
    }

    /// A message is for the client, the anchor, or both.
    fn take(&self, heard: Heard, inputs: &mut Vec<Input>) {
        let Heard { from, word } = heard;
        let message = match word {
            Word::Round(message) => message,
            Word::Personal(told) => {
                return inputs.push(Input::Mixer(MixerInput::Received { from, told }));
            }
        };
        let (client, anchor) = message.is_for();
        if client {
            let message = message.clone();
            inputs.push(Input::Client(ClientInput::Received { from, message }));
        }
        if anchor {
            inputs.push(Input::Anchor(AnchorInput::Received { from, message }));
        }
    }

    fn learned(&self, round: u64, learned: Result<Learned, TrainError>, inputs: &mut Vec<Input>) {
        match learned {
            Ok(Learned { delta, examples }) => {
                let seed = Seed(entropy::seed());
                inputs.push(Input::Client(ClientInput::Trained {
                    base_round: round,
                    examples,
                    delta,
                    seed,
                }));
            }
            Err(error) => {
                tracing::warn!(job = self.parts.state.name(), round, %error, "training failed");
                self.parts.state.trouble(format!("this node could not train: {error}"));
                inputs.push(Input::Client(ClientInput::Untrained { base_round: round }));
            }
        }
    }

    fn practised(&self, ((round, seq), practised): Practised) -> MixerInput {
        match practised {
            Ok((examples, levels)) => MixerInput::Trained { round, seq, examples, levels },
            Err(error) => {
                tracing::warn!(job = self.parts.state.name(), %error, "training failed");
                self.parts.state.trouble(format!("this node could not train: {error}"));
                MixerInput::Untrained { round, seq }
            }
        }
    }

    /// Hands what happened to the machines, and carries out what they order.
    async fn step(&mut self, inputs: Vec<Input>) -> Result<(), String> {
        if inputs.is_empty() {
            return Ok(());
        }
        let Some(machines) = self.machines.take() else {
            return Err("the machines are gone".to_owned());
        };
        let stepped = tokio::task::spawn_blocking(move || machines.step(inputs, &clock::now)).await;
        let (machines, orders) = stepped.map_err(|error| format!("a step panicked: {error}"))?;
        self.machines = Some(machines);
        for order in orders.map_err(|error| error.to_string())? {
            self.carry_out(order)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, order: Order) -> Result<(), String> {
        match order {
            Order::Store { whose, write, batch } => {
                let written = self.parts.disk.begin(batch).map_err(|error| error.to_string())?;
                self.writes.push_back(Box::pin(async move {
                    (whose, write, written.await.unwrap_or(Err(StoreError::Closed)))
                }));
            }
            Order::Send { to, message } => self.parts.post.send(to, *message),
            Order::Replay { to, round } => {
                let (disk, post) = (self.parts.disk.clone(), self.parts.post.clone());
                post.replay(to, round, move || disk.round(round));
            }
            Order::Train { round } => self.train(round),
            Order::Spend(spend) => {
                if let Some((_, ledger)) = &self.parts.bench {
                    ledger.ask(spend);
                }
            }
            Order::Report(event) => {
                let folded = matches!(event, Event::Folded { .. });
                self.parts.state.happened(&event);
                if folded {
                    self.show();
                    self.judge();
                }
            }
            Order::Tell { to, told } => self.parts.post.tell(to, *told),
            Order::Practise { round, seq, drift } => self.practise((round, seq), drift),
            Order::Mixed(event) => self.parts.state.mixed(&event, clock::now().wall),
        }
        Ok(())
    }

    fn train(&mut self, round: u64) {
        let Some((bench, _)) = &self.parts.bench else { return };
        let Some(client) = self.machines.as_ref().and_then(|all| all.client.as_ref()) else {
            return;
        };
        let (bench, tip) = (bench.clone(), client.tip().clone());
        let seed = order_of(&tip, &self.parts.me.node, 0);
        let control = self.machines.as_ref().map(|all| all.control.clone()).unwrap_or_default();
        self.parts.state.training(Some(round));
        self.trains = round;
        self.training = Some(tokio::task::spawn_blocking(move || {
            let Bench { local, job, task, data } = &bench;
            (round, trainer::train(local, job, task, data, (&tip, &control), &seed))
        }));
    }

    /// Trains from this node's own model.
    fn practise(&mut self, which: (u64, u64), drift: Vec<i32>) {
        let Some((bench, _)) = &self.parts.bench else { return };
        let Some(client) = self.machines.as_ref().and_then(|all| all.client.as_ref()) else {
            return;
        };
        let (bench, tip) = (bench.clone(), client.tip().clone());
        let seed = order_of(&tip, &self.parts.me.node, which.1);
        self.practises = which;
        self.practising = Some(tokio::task::spawn_blocking(move || {
            (which, personal::practise(&bench, (&tip, &drift), &seed))
        }));
    }

    /// Measures this node's own model, unless that is being done for an earlier one.
    fn judge_own(&mut self) {
        let idle = self.judging_own.is_none();
        let Some((bench, _)) = self.parts.bench.as_ref().filter(|_| idle) else { return };
        if self.parts.epidemic.is_none() {
            return;
        }
        let (bench, disk) = (bench.clone(), self.parts.disk.clone());
        self.judging_own = Some(tokio::task::spawn_blocking(move || {
            let Ok(Some(kept)) = disk.personal() else { return Ok(None) };
            let round = kept.stored.told.as_ref().map_or(0, |told| told.base.round);
            trainer::measured(&bench.local, &bench.task, &bench.data, &kept.weights, round)
        }));
    }

    /// Measures the model of the last round, unless that is being done for an earlier one.
    fn judge(&mut self) {
        let Some((bench, _)) = self.parts.bench.as_ref().filter(|_| self.judging.is_none()) else {
            return;
        };
        let Some(machines) = &self.machines else { return };
        let tip = machines.anchor.tip();
        if self.measured.last().is_some_and(|last| last.round >= tip.round) {
            return;
        }
        let (bench, tip) = (bench.clone(), tip.clone());
        self.judging = Some(tokio::task::spawn_blocking(move || {
            trainer::judge(&bench.local, &bench.task, &bench.data, &tip)
        }));
    }

    fn judged(&mut self, judged: Result<Option<RoundMeasured>, TrainError>) {
        match judged {
            Ok(Some(measured)) => {
                self.measured.push(measured);
                self.parts.state.measured(&self.measured);
                let batch = self.parts.disk.measured(&self.measured);
                // A curve with a gap harms nobody.
                if let Err(error) = batch.and_then(|batch| self.parts.disk.begin(batch)) {
                    tracing::debug!(%error, "how well a model does was not written");
                }
                self.judge();
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(job = self.parts.state.name(), %error, "a model was not measured");
            }
        }
    }

    /// Tells people where the job is.
    fn show(&self) {
        if let Some(machines) = &self.machines {
            self.parts.state.follows(&self.parts.job, machines.anchor.tip(), &self.parts.me.node);
        }
    }
}

impl Machines {
    /// Takes what happened, in order; what is to be done.
    fn step(
        mut self,
        inputs: Vec<Input>,
        clock: &dyn Fn() -> Now,
    ) -> (Self, Result<Vec<Order>, StoreError>) {
        let mut orders = Vec::new();
        for input in inputs {
            let now = clock();
            let done = match input {
                Input::Anchor(input) => self.step_anchor(now, input, &mut orders),
                Input::Client(input) => self.step_client(now, input, &mut orders),
                Input::Mixer(input) => self.step_mixer(now, input, &mut orders),
            };
            if let Err(error) = done {
                return (self, Err(error));
            }
        }
        (self, Ok(orders))
    }

    fn step_anchor(
        &mut self,
        now: Now,
        input: AnchorInput,
        orders: &mut Vec<Order>,
    ) -> Result<(), StoreError> {
        let mut effects: Vec<Effect<AnchorChange>> = Vec::new();
        self.anchor.step(now, input, &mut effects);
        for effect in effects {
            orders.push(match effect {
                Effect::Store { write, change } => {
                    let now = self.anchor.stored();
                    let batch = self.disk.anchor(&change, now, &mut self.written)?;
                    Order::Store { whose: Whose::Anchor, write, batch }
                }
                Effect::Send { to, message } => Order::Send { to, message },
                Effect::Replay { to, round } => Order::Replay { to, round },
                // An anchor trains nothing and owes nobody.
                Effect::Train { .. } | Effect::Spend(_) => continue,
                Effect::Report(event) => Order::Report(event),
            });
        }
        Ok(())
    }

    fn step_client(
        &mut self,
        now: Now,
        input: ClientInput,
        orders: &mut Vec<Order>,
    ) -> Result<(), StoreError> {
        let Some(client) = &mut self.client else { return Ok(()) };
        let before: Option<Pending> = client.pending().cloned();
        let mut effects: Vec<Effect<ClientChange>> = Vec::new();
        let round = client.tip().round;
        client.step(now, input, &mut effects);
        let has_followed = client.tip().round > round;
        let counted: BTreeSet<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Report(Event::Counted(id)) => Some(*id),
                _ => None,
            })
            .collect();
        if let Some(pending) = before.filter(|pending| counted.contains(&pending.id))
            && let Some(control) = trainer::moved(&self.job, &self.control, &pending)
        {
            self.control = control;
            self.moved = true;
        }
        for effect in effects {
            orders.push(match effect {
                Effect::Store { write, change } => {
                    let control = std::mem::take(&mut self.moved).then_some(&*self.control);
                    let batch = self.disk.client(&change, client.stored(), control)?;
                    Order::Store { whose: Whose::Client, write, batch }
                }
                Effect::Send { to, message } => Order::Send { to, message },
                Effect::Train { round } => Order::Train { round },
                Effect::Spend(spend) => Order::Spend(spend),
                // A client keeps no rounds for others: this node's anchor does.
                Effect::Replay { .. } => continue,
                // The anchor tells of rounds.
                Effect::Report(Event::Folded { .. }) => continue,
                Effect::Report(event) => Order::Report(event),
            });
        }
        match (&mut self.mixer, &self.client) {
            (Some(mixer), Some(client)) if has_followed => {
                let mut effects = Vec::new();
                personal::follow(mixer, &self.job, client.tip(), now, &mut effects);
                self.mixer_orders(effects, orders)
            }
            _ => Ok(()),
        }
    }

    fn step_mixer(
        &mut self,
        now: Now,
        input: MixerInput,
        orders: &mut Vec<Order>,
    ) -> Result<(), StoreError> {
        let Some(mixer) = &mut self.mixer else { return Ok(()) };
        let mut effects = Vec::new();
        mixer.step(now, input, &mut effects);
        self.mixer_orders(effects, orders)
    }

    fn mixer_orders(
        &self,
        effects: Vec<MixerEffect>,
        orders: &mut Vec<Order>,
    ) -> Result<(), StoreError> {
        let base = self.client.as_ref().map_or(&[][..], |client| client.tip().server.model());
        for effect in effects {
            orders.push(match effect {
                MixerEffect::Store { write, change } => {
                    let batch = self.disk.keep(&Kept::new(&change.stored, base))?;
                    Order::Store { whose: Whose::Mixer, write, batch }
                }
                MixerEffect::Send { to, told } => Order::Tell { to, told },
                MixerEffect::Train { round, seq, drift } => Order::Practise { round, seq, drift },
                MixerEffect::Report(event) => Order::Mixed(event),
            });
        }
        Ok(())
    }
}

/// Another order of the examples in every round and step of one's own, and at every node.
fn order_of(tip: &Tip, me: &NodeId, step: u64) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 federated order");
    hasher.update(&tip.record);
    hasher.update(&me.0);
    if step > 0 {
        hasher.update(&step.to_be_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// The machine of epidemic mode as the disk has it, where the chain is now.
fn begin_mixing(
    job: &Arc<Job>,
    rules: Epidemic,
    me: Holder,
    stored: MixerStored,
    tip: &Tip,
) -> Mixer {
    let mut mixer = Mixer::new(Arc::clone(job), rules, me, stored);
    // A machine that begins has nothing to order before time passes.
    personal::follow(&mut mixer, job, tip, clock::now(), &mut Vec::new());
    mixer
}

/// The longest that a job sleeps: one that is done has nothing to wake for.
const LONGEST_REST: selvedge_base::Micros = selvedge_base::Micros::secs(60);

/// The next of a queue that may not be there.
async fn next<T>(queue: &mut Option<mpsc::UnboundedReceiver<T>>) -> Option<T> {
    match queue {
        Some(queue) => queue.recv().await,
        None => std::future::pending().await,
    }
}

/// What came of work on another thread, once there is some; none when it panicked.
async fn done<T>(work: &mut Option<JoinHandle<T>>) -> Option<T> {
    match work {
        Some(handle) => handle.await.ok(),
        None => std::future::pending().await,
    }
}

fn panicked() -> TrainError {
    TrainError::Plan("the work panicked; the log says where".to_owned())
}

#[cfg(test)]
#[path = "personal_tests.rs"]
mod tests;
