//! The machines of one job in one process: messages arrive at once, disks answer at once.
//!
//! Owns the waves in which messages are delivered and the clock, which moves when nothing is left
//! to say. In a wave every node takes what was sent to it before, as many nodes at a time as there
//! are threads; what they say comes in the order of the nodes, so that threads change no model.
//! Shares are real and sealed, signatures real. Training is asked of whoever runs the fleet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use selvedge_base::codec::{self, MAX_FRAME};
use selvedge_base::{Machine, Micros, Mono, NodeId, Now, Wall};
use selvedge_core::{FederatedWord, Opening};
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::{Holder, Seal};
use selvedge_federated::mask::Seed;
use selvedge_federated::round::{
    Anchor, AnchorChange, AnchorInput, AnchorStored, Client, ClientInput, ClientStored, Committee,
    Digest, Effect, Event, Folded, Job, Message, Seat, Tip,
};
use selvedge_federated::seal::OpeningKey;
use selvedge_federated::server::Server;
use selvedge_net::Identity;
use selvedge_proto::seal::is_signed;
use selvedge_tests::time::Stopwatch;

/// What a client hands in: an update of its payload's length, and the examples behind it.
pub(crate) struct Trained {
    pub(crate) delta: Vec<f32>,
    pub(crate) examples: u32,
}

/// Waves of one job before it counts as stuck: a job of 30 rounds takes some hundreds.
const WAVES: usize = 1_000_000;

/// What a node's time goes to, each with its name in the report.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Training,
    /// A client makes its contribution: levels, shares, seals.
    Sharing,
    /// The bytes of its contribution are counted, which writes them as they go to one anchor.
    Counting,
    /// An anchor opens a share and holds it.
    Taking,
    /// An anchor sums what it holds of the closed set.
    Summing,
    /// An anchor puts sums together, or a node follows what was put together.
    Folding,
    /// All that is small: asking, promising, accepting, receipts.
    Agreeing,
}

pub(crate) const PARTS: [&str; 7] =
    ["training", "sharing", "counting", "taking", "summing", "folding", "agreeing"];

/// Time by part, of all threads together.
pub(crate) type Spent = [Duration; PARTS.len()];

struct Node {
    id: NodeId,
    client: Client,
    /// The first nodes are anchors too.
    anchor: Option<Anchor>,
}

/// What comes to a node.
enum Input {
    Ticked,
    Received { from: NodeId, message: Box<Message> },
}

/// What a node made of a wave.
#[derive(Default)]
struct Said {
    messages: Vec<(NodeId, Message)>,
    folded: Vec<Folded>,
    /// Whom it tells the end of which round.
    replays: Vec<(NodeId, u64)>,
    /// Bytes that its client sent to anchors of other nodes.
    sent: u64,
    spent: Spent,
}

/// Trains a client from a model.
pub(crate) trait Train: Fn(usize, &Server) -> Result<Trained> + Sync {}

impl<T: Fn(usize, &Server) -> Result<Trained> + Sync> Train for T {}

/// A job that runs.
pub(crate) struct Fleet {
    pub(crate) job: Arc<Job>,
    nodes: Vec<Node>,
    /// What was sent, by whom it is for.
    inputs: Vec<Vec<Input>>,
    places: BTreeMap<NodeId, usize>,
    folded: Vec<Folded>,
    now: Mono,
    threads: usize,
    /// Bytes that clients sent to anchors of other nodes.
    pub(crate) sent: u64,
    pub(crate) spent: Spent,
}

/// A node's own key.
struct OwnSeal(Identity);

impl Seal for OwnSeal {
    fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(&self.0.sign(bytes))
    }

    fn is_signed(&self, signer: &NodeId, bytes: &[u8], signature: &Signature) -> bool {
        is_signed(signer, bytes, signature)
    }
}

impl Fleet {
    /// A fleet of so many clients for a job, whose committee is filled in here.
    pub(crate) fn new(
        mut job: Job,
        clients: usize,
        first: Vec<i32>,
        threads: usize,
    ) -> Result<Self> {
        let identities: Vec<Identity> = (0..clients).map(|_| Identity::generate()).collect();
        let key = |one: &Identity| OpeningKey::from_bytes(one.derive("federated shares"));
        let seats = identities.iter().take(job.scheme.anchors());
        let seats = seats.map(|one| Seat { node: one.node_id(), key: key(one).public() });
        job.committee = Committee { epoch: 0, seats: seats.collect() };
        job.check()?;
        let job = Arc::new(job);
        let tip = Tip::first(&job, first)?;
        let node = |(at, identity): (usize, Identity)| {
            let (id, key) = (identity.node_id(), key(&identity));
            let seal: Arc<dyn Seal> = Arc::new(OwnSeal(identity));
            let holder = Holder { node: id, incarnation: 1 };
            let stored = ClientStored::new(tip.clone());
            let client = Client::new(job.clone(), holder, seal.clone(), stored);
            let anchor = (at < job.scheme.anchors())
                .then(|| Anchor::new(job.clone(), id, key, seal, AnchorStored::new(tip.clone())));
            Node { id, client, anchor }
        };
        let nodes: Vec<Node> = identities.into_iter().enumerate().map(node).collect();
        let places = nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let inputs = nodes.iter().map(|_| Vec::new()).collect();
        let (folded, now) = (Vec::new(), Mono(0));
        let (sent, spent) = (0, Spent::default());
        Ok(Self { job, nodes, inputs, places, folded, now, threads, sent, spent })
    }

    /// Runs the job to its end. `train` is asked for a client's update from a model, `after` is
    /// told the model of every round.
    pub(crate) fn run(
        &mut self,
        train: impl Fn(usize, &Server) -> Result<Trained> + Sync,
        mut after: impl FnMut(&Server) -> Result<()>,
    ) -> Result<()> {
        let mut told = 0;
        for _ in 0..WAVES {
            if self.inputs.iter().all(Vec::is_empty) {
                if self.nodes.iter().all(|node| node.client.tip().round >= self.job.rounds) {
                    return self.agree();
                }
                self.now = self.now.plus(Micros(self.job.pace.tick.0 / 2));
                self.inputs.iter_mut().for_each(|inputs| inputs.push(Input::Ticked));
            }
            self.wave(&train)?;
            let tip = self.nodes[0].client.tip();
            if tip.round > told {
                told = tip.round;
                after(&tip.server)?;
            }
        }
        bail!("the job is stuck in round {told}")
    }

    /// The end: every node has the same record and the same model.
    fn agree(&self) -> Result<()> {
        let first = self.nodes[0].client.tip();
        for node in &self.nodes {
            let tip = node.client.tip();
            let same = (tip.record, tip.server.digest()) == (first.record, first.server.digest());
            ensure!(same, "node {} has another model", node.id.short());
        }
        Ok(())
    }

    /// Every node takes what came to it; what they say is for the next wave.
    fn wave(&mut self, train: &impl Train) -> Result<()> {
        let now = Now { mono: self.now, wall: Wall(self.now.0) };
        let inputs = self.inputs.iter_mut().map(std::mem::take);
        let busy: Vec<_> = self.nodes.iter_mut().zip(inputs).enumerate().collect();
        let mut all = taken(busy, now, self.threads, train)?;
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().for_each(|(at, said)| self.hear(at, said));
        Ok(())
    }

    /// What a node said comes to whom it is for.
    fn hear(&mut self, at: usize, said: Said) {
        self.sent += said.sent;
        self.spent.iter_mut().zip(said.spent).for_each(|(sum, own)| *sum += own);
        for folded in said.folded {
            if folded.certificate.close.round == self.folded.len() as u64 {
                self.folded.push(folded);
            }
        }
        let from = self.nodes[at].id;
        let replays = said.replays.into_iter().filter_map(|(to, round)| {
            let folded = self.folded.get(usize::try_from(round).ok()?)?.clone();
            Some((to, Message::Folded(Box::new(folded))))
        });
        for (to, message) in said.messages.into_iter().chain(replays) {
            if let Some(&to) = self.places.get(&to) {
                let message = Box::new(message);
                self.inputs[to].push(Input::Received { from, message });
            }
        }
    }
}

/// What nodes make of what came to them, as many at a time as there are threads; in no order.
fn taken(
    busy: Vec<(usize, (&mut Node, Vec<Input>))>,
    now: Now,
    threads: usize,
    train: &impl Train,
) -> Result<Vec<(usize, Said)>> {
    let busy = Mutex::new(busy.into_iter().filter(|(_, (_, inputs))| !inputs.is_empty()));
    let work = || -> Result<Vec<(usize, Said)>> {
        let mut all = Vec::new();
        loop {
            let next = busy.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((at, (node, inputs))) = next else { return Ok(all) };
            all.push((at, node.take(at, now, inputs, train)?));
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut all = work()?;
        for other in others {
            all.extend(other.join().ok().context("a node panicked")??);
        }
        Ok(all)
    })
}

impl Node {
    fn take(
        &mut self,
        at: usize,
        now: Now,
        inputs: Vec<Input>,
        train: &impl Train,
    ) -> Result<Said> {
        let mut said = Said::default();
        for input in inputs {
            match input {
                Input::Ticked => {
                    self.step_client(at, now, ClientInput::Ticked, train, &mut said)?;
                    self.step_anchor(now, AnchorInput::Ticked, &mut said);
                }
                Input::Received { from, message } => {
                    let (for_client, for_anchor) = message.is_for();
                    if for_client && for_anchor && self.anchor.is_some() {
                        let message = message.clone();
                        self.step_anchor(now, AnchorInput::Received { from, message }, &mut said);
                    }
                    if for_client {
                        let input = ClientInput::Received { from, message };
                        self.step_client(at, now, input, train, &mut said)?;
                    } else if for_anchor {
                        self.step_anchor(now, AnchorInput::Received { from, message }, &mut said);
                    }
                }
            }
        }
        Ok(said)
    }

    fn step_client(
        &mut self,
        at: usize,
        now: Now,
        input: ClientInput,
        train: &impl Train,
        said: &mut Said,
    ) -> Result<()> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            let part = part_of_client(&input);
            let begun = Stopwatch::start();
            self.client.step(now, input, &mut effects);
            said.spent[part as usize] += begun.elapsed();
            // All shares of one contribution are of one length.
            let mut share = None;
            for effect in effects {
                match effect {
                    Effect::Store { write, .. } => inputs.push_back(ClientInput::Stored { write }),
                    Effect::Send { to, message } => {
                        // What a node says to itself is on no wire.
                        if to != self.id && matches!(*message, Message::Share { .. }) {
                            let begun = Stopwatch::start();
                            let job = self.client.tip().job;
                            let bytes = share.map_or_else(|| on_the_wire(job, &message), Ok)?;
                            share = Some(bytes);
                            said.sent += bytes;
                            said.spent[Part::Counting as usize] += begun.elapsed();
                        }
                        said.messages.push((to, *message));
                    }
                    Effect::Train { round } => {
                        let begun = Stopwatch::start();
                        let Trained { delta, examples } = train(at, &self.client.tip().server)?;
                        said.spent[Part::Training as usize] += begun.elapsed();
                        let number = (at as u64) << 32 | round;
                        let seed = Seed(blake3::derive_key("bench share", &number.to_le_bytes()));
                        let base_round = round;
                        let input = ClientInput::Trained { base_round, examples, delta, seed };
                        inputs.push_back(input);
                    }
                    Effect::Report(event) => told(&event)?,
                    // The bench's jobs are without privacy.
                    Effect::Replay { .. } | Effect::Spend(_) => {}
                }
            }
        }
        Ok(())
    }

    fn step_anchor(&mut self, now: Now, input: AnchorInput, said: &mut Said) {
        let Some(anchor) = &mut self.anchor else { return };
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            let part = part_of_anchor(&input);
            let begun = Stopwatch::start();
            anchor.step(now, input, &mut effects);
            said.spent[part as usize] += begun.elapsed();
            for effect in effects {
                match effect {
                    Effect::Store { write, change } => {
                        if let AnchorChange::Folded(folded) = *change {
                            said.folded.push(*folded);
                        }
                        inputs.push_back(AnchorInput::Stored { write });
                    }
                    Effect::Send { to, message } => said.messages.push((to, *message)),
                    Effect::Replay { to, round } => said.replays.push((to, round)),
                    Effect::Train { .. } | Effect::Spend(_) | Effect::Report(_) => {}
                }
            }
        }
    }
}

/// Bytes of the frame in which a message of a job goes to another node.
fn on_the_wire(job: Digest, message: &Message) -> Result<u64> {
    let word = FederatedWord { job, message: message.clone() };
    let frame = codec::encode(&Opening::Federated(Box::new(word)), MAX_FRAME)?;
    Ok(frame.len() as u64)
}

fn part_of_client(input: &ClientInput) -> Part {
    match input {
        ClientInput::Trained { .. } => Part::Sharing,
        ClientInput::Received { message, .. } => part_of(message),
        ClientInput::Stored { .. }
        | ClientInput::Untrained { .. }
        | ClientInput::Granted { .. }
        | ClientInput::Denied { .. }
        | ClientInput::Ticked => Part::Agreeing,
    }
}

fn part_of_anchor(input: &AnchorInput) -> Part {
    match input {
        AnchorInput::Received { message, .. } => part_of(message),
        AnchorInput::Stored { .. } | AnchorInput::Reconfigured { .. } | AnchorInput::Ticked => {
            Part::Agreeing
        }
    }
}

fn part_of(message: &Message) -> Part {
    match message {
        Message::Share { .. } => Part::Taking,
        // The acceptance that makes a quorum has the proposer sum.
        Message::Closed(_) | Message::Accepted(_) => Part::Summing,
        Message::Opened(_) | Message::Folded(_) => Part::Folding,
        Message::Receipt(_)
        | Message::Refused { .. }
        | Message::Prepare { .. }
        | Message::Promise { .. }
        | Message::Behind { .. }
        | Message::Propose { .. }
        | Message::Ask { .. } => Part::Agreeing,
    }
}

/// A bench in which something is refused measures something else than it says.
fn told(event: &Event) -> Result<()> {
    match event {
        Event::BadUpdate(_)
        | Event::Refused { .. }
        | Event::LeftOut { .. }
        | Event::Expired(..)
        | Event::PrivacySpent { .. }
        | Event::PrivacyDenied(_)
        | Event::Unasked { .. }
        | Event::Disagree { .. }
        | Event::Misdeed { .. } => {
            bail!("in a calm job this happened: {event:?}")
        }
        Event::Receipted(_)
        | Event::Counted(_)
        | Event::Closed { .. }
        | Event::BelowFloor { .. }
        | Event::Folded { .. } => Ok(()),
    }
}
