//! Real rounds for tests: machines of six nodes with keys of their own, in one process.
//!
//! Messages arrive in the order they were sent and disks answer at once. Owns no rule: what comes
//! out is what the machines made. Training is a draw that follows from node and round, unless a
//! test brings its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use selvedge_base::{Machine, Mono, NodeId, Now, Wall};
use selvedge_crdt::escrow::Holder;
use selvedge_federated::mask::Seed;
use selvedge_federated::round::{
    Anchor, AnchorChange, AnchorInput, AnchorStored, Client, ClientInput, ClientStored, Committee,
    Effect, Folded, Job, Message, Seat, Tip,
};
use selvedge_federated::seal::OpeningKey;
use selvedge_net::Identity;
use selvedge_proto::seal::sealing_key;

use super::trainer::Learned;
use super::{Announced, BaseModel, JobSpec, Task};
use crate::quota::NodeSeal;

/// Five anchors, and one that takes a place among them when they are replaced.
const NODES: usize = 6;
/// Steps before a job counts as stuck.
const STEPS: usize = 200_000;

/// A job that came to its end.
pub(super) struct Ran {
    pub(super) told: Announced,
    pub(super) rounds: Vec<Folded>,
    pub(super) tip: Tip,
    pub(super) nodes: Vec<NodeId>,
}

/// What a node learned from a model, for tests that train.
pub(super) type Train<'a> = &'a dyn Fn(usize, &Announced, &Tip) -> Learned;

struct Node {
    client: Client,
    anchor: Anchor,
}

struct World<'a> {
    told: Announced,
    train: Option<Train<'a>>,
    job: Arc<Job>,
    ids: Vec<NodeId>,
    nodes: Vec<Node>,
    queue: VecDeque<(NodeId, NodeId, Message)>,
    rounds: BTreeMap<u64, Folded>,
    now: Mono,
}

/// A job file with a small model, and more lines before and after it.
pub(super) fn job_file(before: &str, after: &str) -> String {
    format!(
        "name = 'small'\ndata = 'digits'\nmin_clients = 4\ntarget = 6\n{before}\n\
         [model]\nshape = {{ flat = 4 }}\nclasses = 2\nhidden = [{{ dense = 3 }}]\n\
         [training]\nepochs = 1\nbatch = 8\nlearning_rate = 0.1\n{after}\n"
    )
}

/// Runs the job of such a file. With `replaced` another node takes the place of the first anchor
/// while the job runs.
pub(super) fn run(file: &str, replaced: bool) -> Ran {
    run_with(file, &[], replaced, None)
}

/// The same, with models to tune and with training.
pub(super) fn run_with(
    file: &str,
    bases: &[BaseModel],
    replaced: bool,
    train: Option<Train<'_>>,
) -> Ran {
    let facts = |name: &str| BaseModel::facts(bases, name);
    let spec = JobSpec::from_toml(file, &facts).expect("a job");
    let identities: Vec<Identity> = (0..NODES).map(|_| Identity::generate()).collect();
    let seat = |one: &Identity| Seat {
        node: one.node_id(),
        key: sealing_key(&one.node_id()).expect("a key"),
    };
    let seats: Vec<Seat> = identities.iter().map(seat).collect();
    let first = Task::digest_of(&Task::weights(&spec.subject, spec.seed).expect("a model"));
    let told = spec.told(7, &seats, first, seats[0].node).expect("a job");
    let (job, tip) = (Arc::new(told.job.clone()), told.first().expect("a beginning"));
    let node = |identity: Identity| {
        let (id, key) = (identity.node_id(), OpeningKey::from_bytes(*identity.opening_secret()));
        let seal = Arc::new(NodeSeal::new(Arc::new(identity)));
        let holder = Holder { node: id, incarnation: 1 };
        let stored = ClientStored::new(tip.clone());
        let client = Client::new(job.clone(), holder, seal.clone(), stored);
        let anchor = Anchor::new(job.clone(), id, key, seal, AnchorStored::new(tip.clone()));
        Node { client, anchor }
    };
    let ids: Vec<NodeId> = seats.iter().map(|seat| seat.node).collect();
    let mut world = World {
        told: told.clone(),
        train,
        job: job.clone(),
        ids: ids.clone(),
        nodes: identities.into_iter().map(node).collect(),
        queue: VecDeque::new(),
        rounds: BTreeMap::new(),
        now: Mono(0),
    };
    if replaced {
        let committee = Committee { epoch: 1, seats: seats[1..].to_vec() };
        for at in 0..NODES {
            world.step_anchor(at, AnchorInput::Reconfigured { committee: committee.clone() });
        }
    }
    world.run();
    let tip = world.nodes[0].client.tip().clone();
    let same = |node: &Node| *node.client.tip() == tip;
    assert!(world.nodes.iter().all(same), "all come to the same end");
    Ran { told, rounds: world.rounds.into_values().collect(), tip, nodes: ids }
}

impl World<'_> {
    fn run(&mut self) {
        for _ in 0..STEPS {
            if let Some((from, to, message)) = self.queue.pop_front() {
                self.deliver(from, to, message);
            } else if self.nodes.iter().all(|node| node.client.tip().round >= self.job.rounds) {
                return;
            } else {
                self.now = self.now.plus(self.job.pace.tick);
                for at in 0..NODES {
                    self.step_client(at, ClientInput::Ticked);
                    self.step_anchor(at, AnchorInput::Ticked);
                }
            }
        }
        panic!("the job is stuck in round {}", self.rounds.len());
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) {
        let Some(to) = self.ids.iter().position(|id| *id == to) else { return };
        let (for_client, for_anchor) = message.is_for();
        let message = Box::new(message);
        if for_anchor {
            self.step_anchor(to, AnchorInput::Received { from, message: message.clone() });
        }
        if for_client {
            self.step_client(to, ClientInput::Received { from, message });
        }
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall: Wall(self.now.0) }
    }

    fn step_client(&mut self, at: usize, input: ClientInput) {
        let now = self.clock();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.nodes[at].client.step(now, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Store { write, .. } => inputs.push_back(ClientInput::Stored { write }),
                    Effect::Send { to, message } => {
                        self.queue.push_back((self.ids[at], to, *message));
                    }
                    Effect::Train { round } => inputs.push_back(self.trained(at, round)),
                    Effect::Spend(_) => panic!("these jobs are without privacy"),
                    Effect::Replay { .. } | Effect::Report(_) => {}
                }
            }
        }
    }

    fn trained(&self, at: usize, round: u64) -> ClientInput {
        let number = ((at as u64) << 32 | round).to_be_bytes();
        let seed = Seed(blake3::derive_key("selvedge 2026 test share", &number));
        if let Some(train) = self.train {
            let Learned { delta, examples } = train(at, &self.told, self.nodes[at].client.tip());
            return ClientInput::Trained { base_round: round, examples, delta, seed };
        }
        let draw = |weight: usize| ((at * 7 + weight * 3 + round as usize) % 11) as f32 / 50.0;
        let delta = (0..self.job.payload_len()).map(draw).collect();
        ClientInput::Trained { base_round: round, examples: 50 + at as u32, delta, seed }
    }

    fn step_anchor(&mut self, at: usize, input: AnchorInput) {
        let now = self.clock();
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.nodes[at].anchor.step(now, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Store { write, change } => {
                        if let AnchorChange::Folded(folded) = *change {
                            let round = folded.certificate.close.round;
                            self.rounds.entry(round).or_insert(*folded);
                        }
                        inputs.push_back(AnchorInput::Stored { write });
                    }
                    Effect::Send { to, message } => {
                        self.queue.push_back((self.ids[at], to, *message));
                    }
                    Effect::Replay { to, round } => {
                        if let Some(folded) = self.rounds.get(&round).cloned() {
                            let message = Message::Folded(Box::new(folded));
                            self.queue.push_back((self.ids[at], to, message));
                        }
                    }
                    Effect::Train { .. } | Effect::Spend(_) | Effect::Report(_) => {}
                }
            }
        }
    }
}
