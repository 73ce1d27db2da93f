//! The machines of one job in one process: messages arrive at once, disks answer at once.
//!
//! Owns the queue and the clock, which moves when nothing is left to say. Shares are real and
//! sealed, signatures real. Training is asked of whoever runs the fleet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use selvedge_base::{Machine, Micros, Mono, NodeId, Now, Wall};
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::{Holder, Seal};
use selvedge_federated::mask::Seed;
use selvedge_federated::round::{
    Anchor, AnchorChange, AnchorInput, AnchorStored, Client, ClientInput, ClientStored, Committee,
    Effect, Event, Folded, Job, Message, Seat, Tip,
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

/// Steps of one job before it counts as stuck: a job of 30 rounds takes some ten thousand.
const STEPS: usize = 10_000_000;

struct Node {
    id: NodeId,
    client: Client,
    /// The first nodes are anchors too.
    anchor: Option<Anchor>,
}

/// A job that runs.
pub(crate) struct Fleet {
    pub(crate) job: Arc<Job>,
    nodes: Vec<Node>,
    queue: VecDeque<(NodeId, usize, Message)>,
    places: BTreeMap<NodeId, usize>,
    folded: Vec<Folded>,
    now: Mono,
    /// Rounds that were told to `after`.
    told: u64,
    /// Bytes that clients sent to anchors.
    pub(crate) sent: u64,
    /// Time that training took.
    pub(crate) training: Duration,
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
    pub(crate) fn new(mut job: Job, clients: usize, first: Vec<i32>) -> Result<Self> {
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
        Ok(Self {
            job,
            nodes,
            queue: VecDeque::new(),
            places,
            folded: Vec::new(),
            now: Mono(0),
            told: 0,
            sent: 0,
            training: Duration::ZERO,
        })
    }

    /// Runs the job to its end. `train` is asked for a client's update from a model, `after` is
    /// told the model of every round.
    pub(crate) fn run(
        &mut self,
        mut train: impl FnMut(usize, &Server) -> Result<Trained>,
        mut after: impl FnMut(&Server) -> Result<()>,
    ) -> Result<()> {
        for _ in 0..STEPS {
            if let Some((from, to, message)) = self.queue.pop_front() {
                self.deliver(from, to, message, &mut train)?;
            } else if self.nodes.iter().all(|node| node.client.tip().round >= self.job.rounds) {
                return self.agree();
            } else {
                self.tick(&mut train)?;
            }
            let tip = self.nodes[0].client.tip();
            if tip.round > self.told {
                self.told = tip.round;
                after(&tip.server)?;
            }
        }
        bail!("the job is stuck in round {}", self.told)
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

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: Wall(self.now.0) }
    }

    fn tick(&mut self, train: &mut impl FnMut(usize, &Server) -> Result<Trained>) -> Result<()> {
        self.now = self.now.plus(Micros(self.job.pace.tick.0 / 2));
        for at in 0..self.nodes.len() {
            self.step_client(at, ClientInput::Ticked, train)?;
            self.step_anchor(at, AnchorInput::Ticked);
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        from: NodeId,
        to: usize,
        message: Message,
        train: &mut impl FnMut(usize, &Server) -> Result<Trained>,
    ) -> Result<()> {
        let (for_client, for_anchor) = message.is_for();
        let message = Box::new(message);
        if for_anchor {
            let message = message.clone();
            self.step_anchor(to, AnchorInput::Received { from, message });
        }
        if for_client {
            self.step_client(to, ClientInput::Received { from, message }, train)?;
        }
        Ok(())
    }

    fn step_client(
        &mut self,
        at: usize,
        input: ClientInput,
        train: &mut impl FnMut(usize, &Server) -> Result<Trained>,
    ) -> Result<()> {
        let now = self.clock();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.nodes[at].client.step(now, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Store { write, .. } => inputs.push_back(ClientInput::Stored { write }),
                    Effect::Send { to, message } => {
                        if matches!(*message, Message::Share { .. }) {
                            self.sent += postcard::experimental::serialized_size(&*message)? as u64;
                        }
                        self.send(at, to, *message);
                    }
                    Effect::Train { round } => {
                        let begun = Stopwatch::start();
                        let done = train(at, &self.nodes[at].client.tip().server)?;
                        self.training += begun.elapsed();
                        let number = (at as u64) << 32 | round;
                        let seed = Seed(blake3::derive_key("bench share", &number.to_le_bytes()));
                        let Trained { delta, examples } = done;
                        let base_round = round;
                        inputs.push_back(ClientInput::Trained {
                            base_round,
                            examples,
                            delta,
                            seed,
                        });
                    }
                    Effect::Report(event) => told(&event)?,
                    // The bench's jobs are without privacy.
                    Effect::Replay { .. } | Effect::Spend(_) => {}
                }
            }
        }
        Ok(())
    }

    fn step_anchor(&mut self, at: usize, input: AnchorInput) {
        let now = self.clock();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            let Some(anchor) = &mut self.nodes[at].anchor else { return };
            anchor.step(now, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Store { write, change } => {
                        if let AnchorChange::Folded(folded) = *change
                            && folded.certificate.close.round == self.folded.len() as u64
                        {
                            self.folded.push(*folded);
                        }
                        inputs.push_back(AnchorInput::Stored { write });
                    }
                    Effect::Send { to, message } => self.send(at, to, *message),
                    Effect::Replay { to, round } => {
                        let place = usize::try_from(round).unwrap_or(usize::MAX);
                        if let Some(folded) = self.folded.get(place).cloned() {
                            self.send(at, to, Message::Folded(Box::new(folded)));
                        }
                    }
                    Effect::Train { .. } | Effect::Spend(_) | Effect::Report(_) => {}
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: Message) {
        if let Some(&to) = self.places.get(&to) {
            self.queue.push_back((self.nodes[from].id, to, message));
        }
    }
}

/// A bench in which something is refused measures something else than it says.
fn told(event: &Event) -> Result<()> {
    match event {
        Event::BadUpdate(_)
        | Event::Refused { .. }
        | Event::Expired(..)
        | Event::PrivacySpent { .. }
        | Event::PrivacyDenied(_)
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
