//! A job whose majority of anchors is away, and one of nodes that are two clients each, in one
//! process: six nodes with keys, disks and data of their own, and real training.
//!
//! What runs is what a job's task runs, machines and records; messages arrive in the order they
//! were sent, and time is counted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

use redb::backends::InMemoryBackend;
use selvedge_base::{Micros, Wall};
use selvedge_federated::epidemic::MixerStored;
use selvedge_federated::round::Seat;
use selvedge_net::Identity;
use selvedge_proto::seal::sealing_key;
use selvedge_train::{Local, Source, Table};

use super::super::disk::Part;
use super::super::member::holder;
use super::super::personal::practise;
use super::super::trained::{TrainedError, TrainedModel};
use super::super::trainer::{Data, measured};
use super::super::{Announced, JobSpec, Task};
use super::*;
use crate::quota::NodeSeal;
use crate::store::Store;

const NODES: usize = 6;
/// Two anchors of five and a client that is none.
const FEW: std::ops::Range<usize> = 3..6;
const ROUNDS: u64 = 3;

/// Points of the plane; a class is where both coordinates have the same sign. Each node has points
/// of its own.
fn points(node: usize) -> String {
    let mut state = node as u64 + 1;
    let mut draw = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    let mut text = "x,y,side\n".to_owned();
    for _ in 0..100 {
        let (x, y) = (draw(), draw());
        let side = if x * y > 0.0 { "same" } else { "other" };
        writeln!(text, "{x},{y},{side}").unwrap();
    }
    text
}

fn job_file() -> String {
    format!(
        "name = 'plane'\ndata = 'points'\nrounds = {ROUNDS}\nmin_clients = 2\ntarget = 3\n\
         held_out_permille = 300\n\
         [model]\nshape = {{ flat = 2 }}\nclasses = 2\nhidden = [{{ dense = 16 }}]\n\
         [training]\nepochs = 2\nbatch = 8\nlearning_rate = 0.05\n\
         [mode]\nkind = 'plain'\nrule = 'mean'\n\
         [pace]\npatience_ms = 2000\n\
         [epidemic]\npeers = 2\nafter_ms = 4000\nevery_ms = 1000\n"
    )
}

struct Node {
    machines: Option<Machines>,
    identity: Arc<Identity>,
    disk: JobDisk,
    /// The parts of its data, each with what its client needs.
    benches: Vec<(Part, Bench)>,
    events: Vec<MixerEvent>,
}

struct World {
    told: Arc<Announced>,
    first: Tip,
    nodes: Vec<Node>,
    queue: VecDeque<(usize, usize, Word)>,
    away: BTreeSet<usize>,
    now: Mono,
    /// Whether the job's epidemic mode runs: its digest says so in any case.
    mixes: bool,
}

fn read(folder: &std::path::Path, node: usize, task: &Task) -> Data {
    let path = folder.join(format!("{node}.csv"));
    std::fs::write(&path, points(node)).unwrap();
    let values = ["x", "y"].map(str::to_owned).to_vec();
    let classes = ["same", "other"].map(str::to_owned).to_vec();
    let table = Table { path, label: "side".to_owned(), values, classes, scale: 1.0 };
    Data::read(&Source::Csv(table), task, None, None).unwrap()
}

impl World {
    async fn new(file: &str, parts: &[Part], mixes: bool, identities: &[Arc<Identity>]) -> Self {
        let spec = JobSpec::from_toml(file, &|_| Err("none".to_owned())).unwrap();
        let seat = |one: &Arc<Identity>| {
            let node = one.node_id();
            Seat { node, key: sealing_key(&node).unwrap() }
        };
        let seats: Vec<Seat> = identities.iter().map(seat).collect();
        let first = Task::digest_of(&Task::weights(&spec.subject, spec.seed).unwrap());
        let told = spec.told(7, &seats, first, seats[0].node).unwrap();
        let told = Arc::new(Announced::from_bytes(&told.to_bytes().unwrap()).unwrap());
        let first = told.first().unwrap();
        let local = Arc::new(Local::new().unwrap());
        let name = format!("selvedge-personal-{}-{mixes}-{}", std::process::id(), parts.len());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut nodes = Vec::new();
        for (at, identity) in identities.iter().enumerate() {
            let store = Store::with_backend(InMemoryBackend::new).await.unwrap();
            let (job, task) = (Arc::new(told.job.clone()), Arc::new(told.task.clone()));
            let bench = |(one, part): (usize, &Part)| {
                let data = Arc::new(read(&folder, at + NODES * one, &told.task));
                let (local, job, task) = (Arc::clone(&local), Arc::clone(&job), Arc::clone(&task));
                (part.clone(), Bench { local, job, task, data })
            };
            nodes.push(Node {
                machines: None,
                identity: Arc::clone(identity),
                disk: JobDisk::new(store, &told.job.digest()),
                benches: parts.iter().enumerate().map(bench).collect(),
                events: Vec::new(),
            });
        }
        std::fs::remove_dir_all(&folder).unwrap();
        let (queue, away) = (VecDeque::new(), BTreeSet::new());
        let mut world = Self { told, first, nodes, queue, away, now: Mono(0), mixes };
        (0..NODES).for_each(|at| world.start(at));
        world
    }

    /// A node begins from its disk.
    fn start(&mut self, at: usize) {
        let Node { identity, disk, benches, .. } = &self.nodes[at];
        let (id, job) = (identity.node_id(), Arc::new(self.told.job.clone()));
        let seal = Arc::new(NodeSeal::new(Arc::clone(identity)));
        let me = Holder { node: id, incarnation: 1 };
        let parts: Vec<Part> = benches.iter().map(|(part, _)| part.clone()).collect();
        let own = parts.iter().map(|part| (part.clone(), holder(identity, 1, part)));
        let loaded = disk.load(&job, &self.first, &*seal, &parts).unwrap();
        let seal: Arc<dyn selvedge_crdt::escrow::Seal> = seal;
        let holders: Vec<Holder> = own.clone().map(|(_, me)| me).collect();
        let (members, _) = members(&job, (&seal, &holders), own, loaded.clients);
        let key = OpeningKey::from_bytes(*identity.opening_secret());
        let stored = loaded.personal.map(|kept| kept.stored).unwrap_or_default();
        let mixer = self
            .told
            .epidemic
            .filter(|_| self.mixes)
            .map(|rules| begin_mixing(&job, rules, me, stored, members[0].client.tip()));
        self.nodes[at].machines = Some(Machines {
            anchor: Anchor::new(job.clone(), id, key, seal.clone(), loaded.anchor),
            written: loaded.written,
            members,
            mixer,
            disk: disk.clone(),
            job,
        });
    }

    fn machines(&self, at: usize) -> &Machines {
        self.nodes[at].machines.as_ref().unwrap()
    }

    fn tip(&self, at: usize) -> &Tip {
        self.machines(at).members[0].client.tip()
    }

    fn stored(&self, at: usize) -> &MixerStored {
        self.machines(at).mixer.as_ref().unwrap().stored()
    }

    fn find(&self, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.identity.node_id() == *id)
    }

    async fn step(&mut self, at: usize, input: Input) {
        let now = Now { mono: self.now, wall: Wall(self.now.0) };
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let machines = self.nodes[at].machines.take().unwrap();
            let (machines, orders) = machines.step(vec![input], &|| now);
            self.nodes[at].machines = Some(machines);
            for order in orders.unwrap() {
                inputs.extend(self.carry_out(at, order).await);
            }
        }
    }

    async fn carry_out(&mut self, at: usize, order: Order) -> Option<Input> {
        let tip = self.tip(at).clone();
        let Node { disk, benches, identity, events, machines } = &mut self.nodes[at];
        match order {
            Order::Store { whose, write, batch } => {
                disk.begin(batch).unwrap().await.unwrap().unwrap();
                return Some(match whose {
                    Whose::Anchor => Input::Anchor(AnchorInput::Stored { write }),
                    Whose::Client(one) => Input::Client(one, ClientInput::Stored { write }),
                    Whose::Mixer => Input::Mixer(MixerInput::Stored { write }),
                });
            }
            Order::Send { to, message } => self.send(at, &to, Word::Round(message)),
            Order::Tell { to, told } => self.send(at, &to, Word::Personal(told)),
            Order::Replay { to, round } => {
                let folded = disk.round(round).unwrap().map(Box::new).map(Message::Folded);
                if let Some(message) = folded {
                    self.send(at, &to, Word::Round(Box::new(message)));
                }
            }
            Order::Train { at: one } => {
                let member = &mut machines.as_mut().unwrap().members[one];
                let round = member.client.begins()?;
                let tip = member.client.tip().clone();
                let (part, Bench { local, job, task, data }) = &benches[one];
                let part = part.is_some().then_some(member.client.me().incarnation);
                let order = order_of(&tip, &identity.node_id(), part, 0);
                let from = (&tip, member.control());
                let learned = trainer::train(local, job, task, data, from, &order).unwrap();
                let Learned { delta, examples } = learned;
                let seed = Seed(order);
                let trained = ClientInput::Trained { base_round: round, examples, delta, seed };
                return Some(Input::Client(one, trained));
            }
            Order::Practise { round, seq, drift } => {
                let order = order_of(&tip, &identity.node_id(), None, seq);
                let (examples, levels) = practise(&benches[0].1, (&tip, &drift), &order).unwrap();
                return Some(Input::Mixer(MixerInput::Trained { round, seq, examples, levels }));
            }
            Order::Mixed(event) => events.push(event),
            Order::Spend { .. } => panic!("the job has no privacy"),
            Order::Report { .. } => {}
        }
        None
    }

    fn send(&mut self, from: usize, to: &NodeId, word: Word) {
        let Some(to) = self.find(to) else { return };
        if !self.away.contains(&from) && !self.away.contains(&to) {
            self.queue.push_back((from, to, word));
        }
    }

    /// Time passes until something is so.
    async fn until(&mut self, limit: Micros, is_so: impl Fn(&Self) -> bool) {
        let end = self.now.plus(limit);
        while !is_so(self) {
            assert!(self.now < end, "it is not so after {limit:?}");
            while let Some((from, to, word)) = self.queue.pop_front() {
                self.deliver(from, to, word).await;
            }
            self.now = self.now.plus(self.told.job.pace.tick);
            let here: Vec<usize> = (0..NODES).filter(|at| !self.away.contains(at)).collect();
            let ids = here.iter().map(|at| self.nodes[*at].identity.node_id());
            let reachable: BTreeSet<NodeId> = ids.collect();
            for at in here {
                self.step(at, Input::Anchor(AnchorInput::Ticked)).await;
                for one in 0..self.nodes[at].benches.len() {
                    self.step(at, Input::Client(one, ClientInput::Ticked)).await;
                }
                let reachable = reachable.clone();
                self.step(at, Input::Mixer(MixerInput::Ticked { reachable })).await;
            }
        }
    }

    async fn deliver(&mut self, from: usize, to: usize, word: Word) {
        let from = self.nodes[from].identity.node_id();
        match word {
            Word::Personal(told) => {
                self.step(to, Input::Mixer(MixerInput::Received { from, told })).await;
            }
            Word::Round(message) => {
                let (for_client, for_anchor) = message.is_for();
                for one in 0..self.nodes[to].benches.len() {
                    let is_for = self.machines(to).members[one].is_for(&message);
                    if for_client && is_for {
                        let message = message.clone();
                        let input = ClientInput::Received { from, message };
                        self.step(to, Input::Client(one, input)).await;
                    }
                }
                if for_anchor {
                    self.step(to, Input::Anchor(AnchorInput::Received { from, message })).await;
                }
            }
        }
    }

    /// Right answers of a model on what three nodes hold out, of 90.
    fn right(&self, weights: &[i32]) -> u64 {
        let right = FEW.map(|at| {
            let Bench { local, task, data, .. } = &self.nodes[at].benches[0].1;
            measured(local, task, data, weights, 0).unwrap().unwrap().right
        });
        right.sum()
    }

    /// The rounds begin, most anchors go away, come back, and the job comes to its end.
    async fn run(&mut self, meanwhile: Micros) -> u64 {
        self.until(Micros::secs(60), |all| (0..NODES).all(|at| all.tip(at).round == 1)).await;
        let common = self.right(self.tip(3).server.model());
        self.away = (0..NODES).filter(|at| !FEW.contains(at)).collect();
        self.queue.clear();
        let until = self.now.plus(meanwhile);
        self.until(meanwhile.plus(Micros::secs(1)), |all| all.now >= until).await;
        assert!((0..NODES).all(|at| self.tip(at).round == 1), "no round ends without a quorum");
        common
    }

    /// Those who were away come back from their disks.
    async fn heal(&mut self) {
        std::mem::take(&mut self.away).into_iter().for_each(|at| self.start(at));
        self.until(Micros::secs(120), |all| {
            (0..NODES).all(|at| {
                let anchor = all.machines(at).anchor.tip().round;
                all.tip(at).round == ROUNDS && anchor == ROUNDS
            })
        })
        .await;
    }
}

#[tokio::test]
async fn a_side_without_a_quorum_learns_on_and_then_follows_the_chain() {
    let identities: Vec<_> = (0..NODES).map(|_| Arc::new(Identity::generate())).collect();
    let mut world = World::new(&job_file(), &[None], true, &identities).await;
    let common = world.run(Micros::secs(60)).await;
    // A node that is killed meanwhile goes on from its disk, under the next number.
    let before = world.stored(4).clone();
    world.nodes[4].machines = None;
    world.start(4);
    assert_eq!(*world.stored(4), before);
    let until = world.now.plus(Micros::secs(20));
    world.until(Micros::secs(21), |all| all.now >= until).await;
    let age_of = |stored: &MixerStored| stored.told.as_ref().map_or(0, |told| told.seq);
    assert!(age_of(world.stored(4)) > age_of(&before) + 10);
    for at in FEW {
        let kept = world.nodes[at].disk.personal().unwrap().unwrap();
        let own = world.right(&kept.weights);
        println!("node {at}: {common} of 90 by the common model, {own} by its own");
        assert!(own >= common + 9 && own >= 76, "node {at}: {common} {own}");
        assert_eq!(kept.stored.marks.len(), 2, "it mixed the models of both others");
        let mixed = |event: &&MixerEvent| matches!(event, MixerEvent::Stepped { mixed: 1.., .. });
        assert!(world.nodes[at].events.iter().filter(mixed).count() > 20);
    }
    world.heal().await;
    let tip = world.tip(0).clone();
    assert!((0..NODES).all(|at| *world.tip(at) == tip));
    for at in 0..NODES {
        assert!(!world.machines(at).mixer.as_ref().unwrap().is_on());
        let kept = world.nodes[at].disk.personal().unwrap();
        assert_eq!(kept.is_some(), FEW.contains(&at), "who had a quorum made no model of its own");
        let Some(kept) = kept else { continue };
        let file = kept.to_file("plane", &world.told).unwrap().unwrap();
        let read = TrainedModel::from_bytes(&file);
        assert!(matches!(read, Err(TrainedError::Personal)), "{read:?}");
    }
    // Where nobody mixes, the same rounds come to the same chain, byte for byte.
    let mut plain = World::new(&job_file(), &[None], false, &identities).await;
    assert_eq!(plain.run(Micros::secs(60)).await, common);
    plain.nodes[4].machines = None;
    plain.start(4);
    let until = plain.now.plus(Micros::secs(20));
    plain.until(Micros::secs(21), |all| all.now >= until).await;
    plain.heal().await;
    assert_eq!(*plain.tip(0), tip);
    assert!((0..NODES).all(|at| plain.nodes[at].disk.personal().unwrap().is_none()));
}

/// Six nodes with two parts of data each: twelve clients, of which each counts for itself.
#[tokio::test]
async fn the_parts_of_a_nodes_data_are_clients_each() {
    let file = "name = 'plane'\ndata = 'points'\nrounds = 4\nmin_clients = 5\ntarget = 12\n\
         clients_per_node = 2\n\
         [model]\nshape = { flat = 2 }\nclasses = 2\nhidden = [{ dense = 8 }]\n\
         [training]\nepochs = 1\nbatch = 8\nlearning_rate = 0.05\n\
         [strategy]\nkind = 'scaffold'\nclients = 12\n[pace]\npatience_ms = 2000\n";
    let parts = [Some("ward-a".to_owned()), Some("ward-b".to_owned())];
    let identities: Vec<_> = (0..NODES).map(|_| Arc::new(Identity::generate())).collect();
    let mut world = World::new(file, &parts, false, &identities).await;
    world.until(Micros::secs(60), |all| all.tip(0).round == 2).await;
    // One that is killed goes on from its disk, with both clients as they were.
    let of = |all: &World, at: usize| -> Vec<_> {
        let members = all.machines(at).members.iter();
        let one = |one: &Member| (one.client.stored().clone(), one.control().to_vec());
        members.map(one).collect()
    };
    let before = of(&world, 4);
    world.nodes[4].machines = None;
    world.start(4);
    assert!(of(&world, 4) == before, "both clients are as they were");
    world.until(Micros::secs(60), |all| (0..NODES).all(|at| all.tip(at).round == 4)).await;
    let tip = world.tip(0).clone();
    let mut counted = BTreeSet::new();
    for round in 0..4 {
        let close = world.nodes[0].disk.round(round).unwrap().unwrap().certificate.close;
        assert!(
            close.nodes() >= 5 && close.entries.len() >= 8,
            "{} of round {round}",
            close.nodes()
        );
        for entry in &close.entries {
            assert!(counted.insert(entry.header.id), "{:?} was folded twice", entry.header.id);
        }
    }
    for (at, identity) in identities.iter().enumerate() {
        let machines = world.machines(at);
        assert!(machines.members.iter().all(|member| *member.client.tip() == tip), "node {at}");
        let [a, b] = &machines.members[..] else { panic!("two clients") };
        assert_ne!(a.client.me(), b.client.me());
        for (member, part) in [a, b].into_iter().zip(&parts) {
            assert_eq!(member.client.me(), holder(identity, 1, part), "whatever the order");
            assert!(tip.last(&member.client.me()) >= 3, "each contributed: {:?}", tip.done);
            assert!(member.control().iter().any(|value| *value != 0.0), "and has its own drift");
        }
        assert_ne!(a.control(), b.control());
    }
    // Without parts a client is who it was before there were any.
    let node = identities[0].node_id();
    assert_eq!(holder(&identities[0], 7, &None), Holder { node, incarnation: 7 });
}
