//! One job at this node: its machines, and what carries out their orders.
//!
//! Owns the order of things: what came is handed to the machines, what they order to be stored is
//! begun in that order, what they order to be sent goes out, and what became of each is handed
//! back. Steps run on a thread that may block, since folding a round takes milliseconds of a core.
//! Decides nothing: who trains, what counts and what may be shown is [`selvedge_federated`]'s. The
//! machine of epidemic mode hears how far the clients follow the chain, and tells them nothing; of
//! a node with several parts of data the first one's client trains its personal model. Clients
//! train one after the other. A write that fails or a machine that panics ends the run; the next
//! one begins from the disk.

use std::collections::VecDeque;
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
    Anchor, AnchorChange, AnchorInput, ClientInput, Committee, Digest, Effect, Event, Job, Message,
    Tip,
};
use selvedge_federated::seal::OpeningKey;
use selvedge_net::{clock, entropy};
use selvedge_train::TrainError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::disk::{JobDisk, Loaded, RoundMeasured, Written};
use super::ledger::Paid;
use super::member::{Member, Own, members, order_of};
use super::personal::{self, Kept};
use super::post::Post;
use super::state::JobState;
use super::trainer::{self, Bench, Learned};
use super::tries::Failed;
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
    /// The clients of this node; none where it only follows.
    pub(super) own: Vec<Own>,
    /// The clients of all parts of the node's data, also of those that cannot be read now: what
    /// they contributed is not of the others' data.
    pub(super) holders: Vec<Holder>,
    /// Told when there is more to learn from than was read, where that may be.
    pub(super) grown: Option<watch::Receiver<u64>>,
    /// The job's epidemic mode, if it has one.
    pub(super) epidemic: Option<Epidemic>,
    /// Who is to be the job's anchors, once somebody asked for others; the last wish at the end.
    pub(super) seats: watch::Receiver<Vec<Committee>>,
}

/// Whose write it was; clients by their place among the node's.
#[derive(Clone, Copy)]
pub(super) enum Whose {
    Anchor,
    Client(usize),
    Mixer,
}

/// What happened.
enum Input {
    Anchor(AnchorInput),
    Client(usize, ClientInput),
    Mixer(MixerInput),
}

/// What is to be done, in order; what goes to the disk is in the disk's words already.
pub(super) enum Order {
    Store {
        whose: Whose,
        write: u64,
        batch: Batch,
    },
    Send {
        to: NodeId,
        message: Box<Message>,
    },
    Replay {
        to: NodeId,
        round: u64,
    },
    Train {
        at: usize,
    },
    Spend {
        at: usize,
        spend: selvedge_federated::privacy::ledger::Spend,
    },
    /// Of one of the clients, or of the anchor.
    Report {
        at: Option<usize>,
        event: Event,
    },
    Tell {
        to: NodeId,
        told: Box<Told>,
    },
    Practise {
        round: u64,
        seq: u64,
        drift: Vec<i32>,
    },
    Mixed(MixerEvent),
}

/// What moves to the thread that may block, and back.
struct Machines {
    job: Arc<Job>,
    disk: JobDisk,
    anchor: Anchor,
    written: Written,
    /// The first one follows the chain for all of them.
    members: Vec<Member>,
    mixer: Option<Mixer>,
}

/// A job that runs.
pub(super) struct Runner {
    parts: Parts,
    machines: Option<Machines>,
    writes: FuturesOrdered<Awaited>,
    /// What the ledgers say, of all clients: a commitment is one client's alone.
    paid: mpsc::UnboundedReceiver<Paid>,
    training: Option<JoinHandle<(Which, Result<Learned, TrainError>)>>,
    /// Which client is trained, or was last, and for which round.
    trains: Which,
    /// Who trains next: a client orders no second training before it heard of the first.
    to_train: VecDeque<usize>,
    judging: Option<JoinHandle<Judged>>,
    /// Which client's data judge, or did last, and the model of which round.
    judges: Which,
    measured: Vec<Vec<RoundMeasured>>,
    /// The round whose model each client's data judged last, or could not.
    judged: Vec<Option<u64>>,
    /// Whether there is more to learn from than was read.
    has_grown: bool,
    /// Training of this node's own model, and which step it is or was last. A round may end
    /// meanwhile; then nobody waits for it.
    practising: Option<JoinHandle<Practised>>,
    practises: (u64, u64),
    /// How well this node's own model does.
    judging_own: Option<JoinHandle<Result<Option<RoundMeasured>, TrainError>>>,
}

/// A client by its place, and a round.
type Which = (usize, u64);

/// How well a model does by the data of a client.
type Judged = (Which, Result<Option<RoundMeasured>, TrainError>);

/// A run that ends, since its job was taken away or it failed, leaves no work behind: whoever runs
/// the job next reads the data anew.
impl Drop for Runner {
    fn drop(&mut self) {
        self.parts.own.iter().for_each(|own| own.bench.data.stop());
    }
}

/// What came of training this node's own model.
type Practised = ((u64, u64), Result<(u32, Vec<i32>), TrainError>);

/// What became of a write, once it is known.
type Awaited = futures::future::BoxFuture<'static, (Whose, u64, Result<(), StoreError>)>;

impl Runner {
    /// A run from what the disk has.
    pub(super) fn new(mut parts: Parts, loaded: Loaded) -> Self {
        // What was told before this run is heard again.
        parts.seats.mark_changed();
        let Parts { job, me, key, seal, disk, epidemic, .. } = &parts;
        let Loaded { anchor, written, clients, personal, is_lost, refused } = loaded;
        parts.state.refused_before(refused);
        personal.iter().for_each(|kept| parts.state.kept(kept));
        let own = parts.own.iter().map(|own| (own.part.clone(), own.me));
        let (members, measured) = members(job, (seal, &parts.holders), own, clients);
        // Whoever does not train has nothing to tell.
        let mixing = epidemic.filter(|_| !is_lost).zip(members.first());
        let mixer = mixing.map(|(rules, first)| {
            let kept = personal.map(|kept| kept.stored).unwrap_or_default();
            begin_mixing(job, rules, *me, kept, first.client.tip())
        });
        let anchor = Anchor::new(Arc::clone(job), me.node, key.clone(), Arc::clone(seal), anchor);
        let machines =
            Machines { job: Arc::clone(job), disk: disk.clone(), anchor, written, members, mixer };
        let (tell, paid) = mpsc::unbounded_channel();
        for (at, own) in parts.own.iter().enumerate() {
            own.ledger.listen(parts.name, tell.clone());
            parts.state.measured(at, measured.get(at).map_or(&[], Vec::as_slice));
        }
        let judged = |all: &Vec<RoundMeasured>| all.last().map(|last| last.round);
        let judged = measured.iter().map(judged).collect();
        Self {
            parts,
            machines: Some(machines),
            writes: FuturesOrdered::new(),
            paid,
            training: None,
            trains: (0, 0),
            to_train: VecDeque::new(),
            judging: None,
            judges: (0, 0),
            measured,
            judged,
            has_grown: false,
            practising: None,
            practises: (0, 0),
            judging_own: None,
        }
    }

    /// Runs until there are more examples than were read, or something fails; a job that is taken
    /// away is dropped.
    ///
    /// # Errors
    /// Why it cannot go on; the next run begins from the disk.
    pub(super) async fn run(mut self, heard: &mut mpsc::Receiver<Heard>) -> Result<(), Failed> {
        self.show();
        self.stand();
        self.judge();
        self.judge_own();
        let begun = (clock::mono(), self.round());
        loop {
            if self.is_outgrown(begun) {
                return Ok(());
            }
            let mut inputs = self.wait(heard).await?;
            while inputs.len() < AT_ONCE
                && let Ok(more) = heard.try_recv()
            {
                self.take(more, &mut inputs);
            }
            self.step(inputs).await?;
        }
    }

    /// The round that the chain is at.
    fn round(&self) -> u64 {
        self.machines.as_ref().map_or(0, |all| all.anchor.tip().round)
    }

    /// Whether to begin anew for what there is more to learn from. Work that is under way comes
    /// first, and what was paid for. Between two rounds at most: whoever begins anew waits for a
    /// round from its beginning, and one that never ends would be waited for always. Whoever has
    /// no example begins soon with the first one.
    fn is_outgrown(&self, (begun, round): (Mono, u64)) -> bool {
        let Some(machines) = self.machines.as_ref().filter(|_| self.has_grown) else {
            return false;
        };
        // What a write says that nobody waits for the next run would not know.
        let is_idle = self.training.is_none()
            && self.practising.is_none()
            && self.writes.is_empty()
            && !machines.members.iter().any(|member| member.client.is_unpaid());
        let (now, since) = (self.round(), clock::mono().since(begun));
        let goes_on = now > round && now < self.parts.job.rounds && since >= READ_AGAIN;
        is_idle && (goes_on || self.parts.own.is_empty() && since >= READ_FIRST)
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
                    Whose::Client(at) => Input::Client(at, ClientInput::Stored { write }),
                    Whose::Mixer => {
                        self.judge_own();
                        Input::Mixer(MixerInput::Stored { write })
                    }
                });
            }
            Some(paid) = self.paid.recv() => {
                let commitment = paid.commitment;
                self.each_client(&mut inputs, |_| Some(match paid.said {
                    Ok(()) => ClientInput::Granted { commitment },
                    Err(why) => ClientInput::Denied { commitment, why },
                }));
            }
            learned = done(&mut self.training) => {
                self.training = None;
                let (which, learned) = learned.unwrap_or((self.trains, Err(panicked())));
                self.parts.state.training(which.0, None);
                self.learned(which, learned, &mut inputs);
                self.train();
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
                self.judged(judged.unwrap_or((self.judges, Err(panicked()))));
            }
            () = grows(&mut self.parts.grown) => self.has_grown = true,
            Some(wishes) = reseated(&mut self.parts.seats) => inputs.extend(wishes),
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
            self.each_client(&mut inputs, |_| Some(ClientInput::Ticked));
            if self.parts.epidemic.is_some() {
                let reachable = self.parts.post.reachable();
                inputs.push(Input::Mixer(MixerInput::Ticked { reachable }));
            }
        }
        Ok(inputs)
    }

    fn wake_at(&self) -> Option<Mono> {
        let machines = self.machines.as_ref()?;
        let clients = machines.members.iter().filter_map(|member| member.client.wake_at()).min();
        let mixer = machines.mixer.as_ref().and_then(selvedge_base::Machine::wake_at);
        [machines.anchor.wake_at(), clients, mixer].into_iter().flatten().min()
    }

    /// Something for each client that it is for, in their order.
    fn each_client(&self, inputs: &mut Vec<Input>, input: impl Fn(&Member) -> Option<ClientInput>) {
        let each = self.machines.iter().flat_map(|all| &all.members).enumerate();
        let each = each.filter_map(|(at, member)| Some(Input::Client(at, input(member)?)));
        inputs.extend(each);
    }

    /// A message is for clients, the anchor, or both.
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
            self.each_client(inputs, |member| {
                let message = member.is_for(&message).then(|| message.clone())?;
                Some(ClientInput::Received { from, message })
            });
        }
        if anchor {
            inputs.push(Input::Anchor(AnchorInput::Received { from, message }));
        }
    }

    fn learned(
        &self,
        (at, round): Which,
        learned: Result<Learned, TrainError>,
        inputs: &mut Vec<Input>,
    ) {
        inputs.push(Input::Client(
            at,
            match learned {
                Ok(Learned { delta, examples }) => {
                    let seed = Seed(entropy::seed());
                    ClientInput::Trained { base_round: round, examples, delta, seed }
                }
                Err(error) => {
                    tracing::warn!(job = self.parts.state.name(), round, %error, "training failed");
                    let said = format!("this node could not train: {error}");
                    self.parts.state.trouble(self.parts.state.of_client(Some(at), said));
                    ClientInput::Untrained { base_round: round }
                }
            },
        ));
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
    async fn step(&mut self, inputs: Vec<Input>) -> Result<(), Failed> {
        if inputs.is_empty() {
            return Ok(());
        }
        let Some(machines) = self.machines.take() else {
            return Err("the machines are gone".to_owned().into());
        };
        let before = machines.followed();
        let stepped = tokio::task::spawn_blocking(move || machines.step(inputs, &clock::now)).await;
        let (machines, orders) = stepped?;
        let has_followed = machines.followed() != before;
        self.machines = Some(machines);
        if has_followed {
            // What a client has spent it knows from the chain, as far as it followed that itself.
            self.show();
        }
        for order in orders.map_err(|error| error.to_string())? {
            self.carry_out(order)?;
        }
        self.stand();
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
            Order::Train { at } => {
                self.to_train.push_back(at);
                self.train();
            }
            Order::Spend { at, spend } => {
                if let Some(own) = self.parts.own.get(at) {
                    own.ledger.ask(spend);
                }
            }
            Order::Report { at, event } => {
                let folded = matches!(event, Event::Folded { .. });
                if self.parts.state.happened(at, &event, clock::mono()) {
                    self.write_refused();
                }
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

    /// Trains the client whose turn it is, unless one is being trained. Whoever waited begins from
    /// the newest model, and what it learns is of that round.
    fn train(&mut self) {
        while self.training.is_none() {
            let Some(at) = self.to_train.pop_front() else { return };
            let member = self.machines.as_mut().and_then(|all| all.members.get_mut(at));
            let (Some(own), Some(member)) = (self.parts.own.get(at), member) else { continue };
            let Some(round) = member.client.begins() else { continue };
            let (bench, tip) = (own.bench.clone(), member.client.tip().clone());
            let part = own.part.is_some().then_some(own.me.incarnation);
            let seed = order_of(&tip, &own.me.node, part, 0);
            let control = member.control().to_vec();
            self.parts.state.training(at, Some(round));
            self.trains = (at, round);
            self.training = Some(tokio::task::spawn_blocking(move || {
                let Bench { local, job, task, data } = &bench;
                ((at, round), trainer::train(local, job, task, data, (&tip, &control), &seed))
            }));
        }
    }

    /// Trains from this node's own model.
    fn practise(&mut self, which: (u64, u64), drift: Vec<i32>) {
        let member = self.machines.as_ref().and_then(|all| all.members.first());
        let (Some(own), Some(member)) = (self.parts.own.first(), member) else { return };
        let (bench, tip) = (own.bench.clone(), member.client.tip().clone());
        let seed = order_of(&tip, &self.parts.me.node, None, which.1);
        self.practises = which;
        self.practising = Some(tokio::task::spawn_blocking(move || {
            (which, personal::practise(&bench, (&tip, &drift), &seed))
        }));
    }

    /// Measures this node's own model, unless that is being done for an earlier one.
    fn judge_own(&mut self) {
        let idle = self.judging_own.is_none();
        let Some(own) = self.parts.own.first().filter(|_| idle) else { return };
        if self.parts.epidemic.is_none() {
            return;
        }
        let (bench, disk) = (own.bench.clone(), self.parts.disk.clone());
        self.judging_own = Some(tokio::task::spawn_blocking(move || {
            let Ok(Some(kept)) = disk.personal() else { return Ok(None) };
            let round = kept.stored.told.as_ref().map_or(0, |told| told.base.round);
            trainer::measured(&bench.local, &bench.task, &bench.data, &kept.weights, round)
        }));
    }

    /// Measures the model of the last round by the data of one client that has not, unless that is
    /// being done for another.
    fn judge(&mut self) {
        let Some(machines) = self.machines.as_ref().filter(|_| self.judging.is_none()) else {
            return;
        };
        let tip = machines.anchor.tip();
        let is_due = |at: &usize| {
            self.judged.get(*at).copied().flatten().is_none_or(|round| round < tip.round)
        };
        // In turns: fast rounds must not keep the later ones from being measured.
        let count = self.parts.own.len();
        let mut turns = (1..=count).map(|next| (self.judges.0 + next) % count);
        let Some(at) = turns.find(is_due) else { return };
        let Some(own) = self.parts.own.get(at) else { return };
        let (bench, tip) = (own.bench.clone(), tip.clone());
        self.judges = (at, tip.round);
        self.judging = Some(tokio::task::spawn_blocking(move || {
            let found = trainer::judge(&bench.local, &bench.task, &bench.data, &tip);
            ((at, tip.round), found)
        }));
    }

    fn judged(&mut self, ((at, round), judged): Judged) {
        // Also where nothing was found: the data of the others wait.
        if let Some(last) = self.judged.get_mut(at) {
            *last = Some(round);
        }
        match judged {
            Ok(Some(found)) => {
                let (Some(measured), Some(own)) =
                    (self.measured.get_mut(at), self.parts.own.get(at))
                else {
                    return;
                };
                measured.push(found);
                self.parts.state.measured(at, measured);
                let batch = self.parts.disk.measured(&own.part, measured);
                // A curve with a gap harms nobody.
                if let Err(error) = batch.and_then(|batch| self.parts.disk.begin(batch)) {
                    tracing::debug!(%error, "how well a model does was not written");
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(job = self.parts.state.name(), %error, "a model was not measured");
            }
        }
        self.judge();
    }

    /// Writes down whom this node refused: where people are told of it, and the first time that a
    /// node is refused for a reason; so this is seldom.
    fn write_refused(&self) {
        let Parts { disk, state, .. } = &self.parts;
        // A count that is too low harms nobody.
        if let Err(error) = disk.refused(&state.recorded()).and_then(|batch| disk.begin(batch)) {
            tracing::debug!(%error, "who was refused was not written");
        }
    }

    /// Tells people where the round that is open stands, and what this node's clients gave to it.
    fn stand(&self) {
        if let Some(machines) = &self.machines {
            let clients = machines.members.iter().zip(&self.parts.own);
            let clients = clients.map(|(member, own)| member.contributed(own.me));
            self.parts.state.stands(machines.anchor.open_round(), clients);
        }
    }

    /// Tells people where the job is.
    fn show(&self) {
        if let Some(machines) = &self.machines {
            self.parts.state.follows(&self.parts.job, machines.anchor.tip());
            if self.parts.job.privacy.is_some() {
                let spent = machines.members.iter().map(|member| member.client.spent());
                self.parts.state.spent(spent);
            }
        }
    }
}

impl Machines {
    /// Rounds that the clients followed, all together.
    fn followed(&self) -> u64 {
        self.members.iter().map(|member| member.client.tip().round).sum()
    }

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
                Input::Client(at, input) => self.step_client(now, at, input, &mut orders),
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
                Effect::Report(event) => Order::Report { at: None, event },
            });
        }
        Ok(())
    }

    fn step_client(
        &mut self,
        now: Now,
        at: usize,
        input: ClientInput,
        orders: &mut Vec<Order>,
    ) -> Result<(), StoreError> {
        let first = self.members.first().filter(|_| at > 0).map(|one| one.client.tip().round);
        let Some(member) = self.members.get_mut(at) else { return Ok(()) };
        let round = member.client.tip().round;
        member.step((at, first), (&self.job, &self.disk), now, input, orders)?;
        let has_followed = at == 0 && member.client.tip().round > round;
        match (&mut self.mixer, self.members.first()) {
            (Some(mixer), Some(first)) if has_followed => {
                let mut effects = Vec::new();
                personal::follow(mixer, &self.job, first.client.tip(), now, &mut effects);
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
        let first = self.members.first();
        let base = first.map_or(&[][..], |first| first.client.tip().server.model());
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

/// Between two looks of whoever has no example yet: rows that do not fit must not make a job begin
/// anew with each of them.
const READ_FIRST: selvedge_base::Micros = selvedge_base::Micros::secs(1);

/// Between two readings of data that grow: each begins the job anew, from the disk.
const READ_AGAIN: selvedge_base::Micros = selvedge_base::Micros::secs(60);

/// The longest that a job sleeps: one that is done has nothing to wake for.
const LONGEST_REST: selvedge_base::Micros = selvedge_base::Micros::secs(60);

/// Waits until somebody asks for other anchors; never ends well where nobody can any more.
async fn reseated(seats: &mut watch::Receiver<Vec<Committee>>) -> Option<Vec<Input>> {
    seats.changed().await.ok()?;
    let wish = |one: &Committee| AnchorInput::Reconfigured { committee: one.clone() };
    Some(seats.borrow_and_update().iter().map(|one| Input::Anchor(wish(one))).collect())
}

/// Resolves when there is more to learn from, where that may be.
async fn grows(grown: &mut Option<watch::Receiver<u64>>) {
    let told = match grown {
        Some(grown) => grown.changed().await,
        None => std::future::pending().await,
    };
    if told.is_err() {
        // The node stops.
        std::future::pending().await
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
