//! What a run is: the job, the network, and who fails when. A seed draws all of it.

use std::sync::Arc;

use selvedge_base::{Micros, NodeId};
use selvedge_federated::epidemic::Epidemic;
use selvedge_federated::fixed::Clip;
use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta, Rho};
use selvedge_federated::privacy::adaptive::Adaptive;
use selvedge_federated::privacy::ledger::Cap;
use selvedge_federated::robust::Rule;
use selvedge_federated::round::{Committee, Guard, Job, Mode, Pace, Seat};
use selvedge_federated::seal::OpeningKey;
use selvedge_federated::server::Strategy;
use selvedge_federated::shamir::Scheme;

use super::kill::{Kill, Moment, Steps};
use super::steward::View;
use crate::stream::Stream;

/// Weights of the models here: enough for a block that is not full in every scheme.
pub(super) const DIM: usize = 7;
/// Clients that a sum is of at least, here: eight, as people should have, would make
/// every run slower.
const FLOOR: usize = 4;
/// Contributions that the data of most nodes allow: more than a job can ask for, with those that
/// crashes waste.
const PLENTY: u64 = 200;
/// The client that runs out of privacy after two: the others are enough for the floor without it.
const POOR: usize = 2;
/// Faults happen until then.
const FAULTY_S: u64 = 40;

/// A delta of 10^-5, of the jobs and of the nodes.
const DELTA: PicoDelta = PicoDelta(10_000_000);

/// Nodes that do not hear each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// From when.
    pub from: Micros,
    /// Until when.
    pub until: Micros,
    /// One side; the rest is the other.
    pub side: Vec<usize>,
    /// Only what this side says is lost.
    pub one_way: bool,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything random comes from.
    pub seed: u64,
    /// The job.
    pub job: Arc<Job>,
    /// Nodes: all are clients, the first ones are anchors.
    pub nodes: usize,
    /// Messages lost of a thousand, while faults happen.
    pub loss_permille: u64,
    /// Messages doubled of a thousand; one in four of the doubles comes much later.
    pub double_permille: u64,
    /// Shares damaged of a thousand.
    pub damage_permille: u64,
    /// Longest way of a message.
    pub delay: Micros,
    /// Whether disks are slow now and then.
    pub slow_disks: bool,
    /// Nodes that crash, when and until when.
    pub crashes: Vec<(usize, Micros, Micros)>,
    /// Nodes that die for good.
    pub deaths: Vec<(usize, Micros)>,
    /// Steps in which somebody dies.
    pub kills: Vec<Kill>,
    /// Who does not hear whom.
    pub cuts: Vec<Cut>,
    /// When a steward asks for other anchors, and for which.
    pub wishes: Vec<(Micros, Wish)>,
    /// One of the first anchors that dies for good once there are others.
    pub late: Option<(usize, Micros)>,
    /// An anchor that lies about its parts of sums.
    pub liar: Option<usize>,
    /// The job's epidemic mode, if it has one.
    pub epidemic: Option<Epidemic>,
    /// Steps of a personal model in which a node learns; after them it only mixes.
    pub learns: u64,
}

/// Sums in groups of two nodes.
fn set_groups(job: &mut Job, guard: Guard) {
    job.guard = Some(guard);
    job.min_clients = 2;
    job.target = job.target.max(job.floor());
}

/// Sums in groups. Three of two nodes are six of the eight there are: as many as train at least.
fn draw_groups(job: &mut Job, dice: &mut Stream) {
    let (groups, rule) = match dice.below(4) {
        0 => (2, Rule::Mean),
        1 => (3, Rule::Mean),
        2 => (3, Rule::Median),
        _ => (3, Rule::Trimmed { cut: 1 }),
    };
    set_groups(job, Guard { groups, rule });
}

/// The key of a node for shares.
pub(super) fn key(index: usize) -> OpeningKey {
    let number = (index as u64).to_be_bytes();
    OpeningKey::from_bytes(blake3::derive_key("selvedge 2026 simulated anchor", &number))
}

/// The name of a node.
pub(super) const fn name(index: usize) -> NodeId {
    let mut bytes = [7; 32];
    bytes[0] = index as u8;
    NodeId(bytes)
}

/// Where a node is an anchor.
pub(super) fn seat(index: usize) -> Seat {
    Seat { node: name(index), key: key(index).public() }
}

/// The committee of so many nodes from one on.
pub(super) fn committee(epoch: u64, first: usize, scheme: Scheme) -> Committee {
    Committee { epoch, seats: (first..first + scheme.anchors()).map(seat).collect() }
}

/// That a steward asks for other anchors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The node where it is asked, or the next one that is up.
    pub steward: usize,
    /// Whether nodes that are no anchors come first; else anchors that can be reached stay.
    pub fresh: bool,
    /// Whom it can reach, as it sees it.
    pub view: View,
}

impl Plan {
    /// A plan without faults.
    pub fn calm(seed: u64, scheme: Scheme, mode: Mode, rounds: u64) -> Self {
        let nodes = scheme.anchors() + 3;
        let job = Job {
            nonce: seed,
            task: [0; 32],
            dim: DIM,
            clip: Clip::try_from(1 << 18).unwrap_or_else(|_| unreachable!("a fixed clip")),
            mode,
            scheme,
            committee: committee(0, 0, scheme),
            min_clients: FLOOR,
            target: nodes,
            sample_permille: 1_000,
            max_examples: 100,
            receipts: scheme.anchors() - 1,
            rounds,
            strategy: Strategy::Average { proximal_permille: 0 },
            privacy: None,
            pace: Pace {
                tick: Micros::millis(200),
                stagger: Micros::millis(400),
                gather: Micros::millis(600),
                patience: Micros::secs(2),
            },
            per_node: 1,
            guard: (mode == Mode::Secure).then_some(Guard::ONE),
        };
        Self {
            seed,
            job: Arc::new(job),
            nodes,
            loss_permille: 0,
            double_permille: 0,
            damage_permille: 0,
            delay: Micros::millis(20),
            slow_disks: false,
            crashes: Vec::new(),
            deaths: Vec::new(),
            kills: Vec::new(),
            cuts: Vec::new(),
            wishes: Vec::new(),
            late: None,
            liar: None,
            epidemic: None,
            learns: 0,
        }
    }

    /// Clients of a node: where the job counts several, some nodes have fewer.
    pub(super) fn clients(&self, node: usize) -> u64 {
        1 + node as u64 % u64::from(self.job.per_node)
    }

    /// The same plan, whose nodes have up to so many clients.
    pub fn with_clients(mut self, per_node: u8) -> Self {
        let mut job = (*self.job).clone();
        job.per_node = per_node;
        job.target *= usize::from(per_node);
        self.job = Arc::new(job);
        self
    }

    /// The same plan, whose sums are in groups of two nodes at least.
    pub fn with_groups(mut self, guard: Guard) -> Self {
        let mut job = (*self.job).clone();
        set_groups(&mut job, guard);
        self.job = Arc::new(job);
        self
    }

    /// What the data of a node may spend, in a job with privacy.
    pub(super) fn cap(&self, node: usize) -> Cap {
        let delta = DELTA;
        let contributions = if node == POOR { 2 } else { PLENTY };
        let cost = self.job.privacy.map_or(Rho(0), |privacy| privacy.cost());
        Cap { epsilon: cost.times(contributions).epsilon(delta), delta }
    }

    /// The same plan with privacy, whose job allows a node so many contributions.
    pub fn with_privacy(mut self, contributions: u64) -> Self {
        let mut job = (*self.job).clone();
        let honest = if job.mode == Mode::Secure { FLOOR as u32 } else { 1 };
        let epsilon = MicroEpsilon::default();
        let mut privacy = Privacy {
            noise_milli: 4_000,
            norm: 1 << 17,
            honest,
            delta: DELTA,
            epsilon,
            adaptive: None,
        };
        privacy.epsilon = privacy.spent(contributions);
        job.privacy = Some(privacy);
        self.job = Arc::new(job);
        self
    }

    /// The same plan, in which the norm follows the updates, if it is with privacy and in a mode
    /// for that.
    pub fn with_following_norm(mut self) -> Self {
        let mut job = (*self.job).clone();
        if let Some(privacy) = &mut job.privacy {
            privacy.adaptive = Some(Adaptive { quantile_permille: 500, rate_permille: 200 });
        }
        self.job = Arc::new(job);
        self
    }

    /// The plan of a seed: that of [`Plan::averaging`] with a strategy, now and then with a rule
    /// that looks at single updates, with clients and proposers that die in their steps, with cuts
    /// that leave no quorum anywhere, and with stewards who do not know of each other.
    pub fn seeded(seed: u64) -> Self {
        let mut plan = Self::averaging(seed);
        plan.draw_strategy(&mut Stream::keyed(seed, 4, 0, 0));
        plan.draw_kills(&mut Stream::keyed(seed, 5, 0, 0));
        plan.draw_shards(&mut Stream::keyed(seed, 6, 0, 0));
        plan.draw_wishes(&mut Stream::keyed(seed, 7, 0, 0));
        plan.draw_stewards(&mut Stream::keyed(seed, 30, 0, 0));
        plan
    }

    /// The plan of a seed whose rounds are means and whose anchors alone die in their steps. Every
    /// fourth one is with privacy, every eighth with a norm that follows, and of all of them every
    /// fifth with several clients on a node.
    pub fn averaging(seed: u64) -> Self {
        let mut dice = Stream::keyed(seed, 1, 0, 0);
        let scheme = match dice.below(10) {
            0..8 => Scheme::Five,
            8 => Scheme::Nine,
            _ => Scheme::Sixteen,
        };
        let mode = match dice.below(5) {
            0 => Mode::Plain(Rule::Mean),
            _ => Mode::Secure,
        };
        let mut plan = Self::calm(seed, scheme, mode, 3 + dice.below(6));
        let mut job = (*plan.job).clone();
        job.target = 4 + dice.below(plan.nodes as u64 - 3) as usize;
        job.sample_permille = [1_000, 600][dice.below(2) as usize];
        plan.job = Arc::new(job);
        plan.loss_permille = [0, 20, 150][dice.below(3) as usize];
        plan.double_permille = [0, 30, 200][dice.below(3) as usize];
        plan.damage_permille = [0, 0, 50][dice.below(3) as usize];
        plan.delay = Micros::millis([20, 300, 1_500][dice.below(3) as usize]);
        plan.slow_disks = dice.chance(500);
        plan.draw_faults(&mut Stream::keyed(seed, 2, 0, 0));
        let plan = match seed % 8 {
            3 => plan.with_privacy(PLENTY),
            7 => plan.with_privacy(PLENTY).with_following_norm(),
            _ => plan,
        };
        match seed % 5 {
            4 => plan.with_clients(2 + (seed / 5 % 2) as u8),
            _ => plan,
        }
    }

    /// The plan of a seed with epidemic mode: the seed's faults, and a cut that leaves one side
    /// without a quorum, or so many anchors down that nobody has one.
    pub fn mixing(seed: u64) -> Self {
        let mut plan = Self::seeded(seed);
        let mut job = (*plan.job).clone();
        (job.mode, job.guard, job.privacy) = (Mode::Plain(Rule::Mean), None, None);
        plan.job = Arc::new(job);
        let mut dice = Stream::keyed(seed, 3, 0, 0);
        let from = Micros::millis(500 + dice.below(6_000));
        let until = from.plus(Micros::millis(15_000 + dice.below(30_000)));
        let (quorum, anchors) = (plan.job.quorum(), plan.job.scheme.anchors());
        if dice.chance(700) {
            let few = dice.below(quorum as u64) as usize;
            let is_there = |node: &usize| *node < few || *node >= anchors;
            let side = (0..plan.nodes).filter(is_there).collect();
            plan.cuts.push(Cut { from, until, side, one_way: dice.chance(100) });
        } else {
            plan.crashes.extend((0..quorum).map(|node| (node, from, until)));
        }
        plan.learns = dice.below(30);
        plan.epidemic = Some(Epidemic {
            peers: 1 + dice.below(3) as u8,
            after: plan.job.pace.patience.plus(Micros::millis(dice.below(3_000))),
            every: Micros::millis(400 + dice.below(1_500)),
        });
        plan
    }

    /// Whether a cut keeps what one node says at a moment from another.
    pub(super) fn is_cut(&self, from: usize, to: usize, at: Micros) -> bool {
        self.cuts.iter().any(|cut| {
            let (here, there) = (cut.side.contains(&from), cut.side.contains(&to));
            let apart = if cut.one_way { here && !there } else { here != there };
            apart && cut.from <= at && at < cut.until
        })
    }

    fn draw_faults(&mut self, dice: &mut Stream) {
        let anchors = self.job.scheme.anchors();
        let span = Micros::secs(FAULTY_S).0;
        if dice.chance(600) {
            for _ in 0..1 + dice.below(6) {
                let from = dice.below(span);
                let back = Micros(from + dice.below(Micros::secs(10).0));
                self.crashes.push((dice.below(self.nodes as u64) as usize, Micros(from), back));
            }
        }
        if dice.chance(700) {
            for _ in 0..1 + dice.below(6) {
                let moment = dice.below(Moment::ANCHORS.len() as u64) as usize;
                let steps = Steps::Of(Moment::ANCHORS[moment]);
                self.draw_kill(dice, steps, 40);
            }
        }
        if dice.chance(600) {
            for _ in 0..1 + dice.below(4) {
                let from = Micros(dice.below(span));
                let until = Micros((from.0 + dice.below(Micros::secs(20).0)).min(span));
                let side = (0..self.nodes).filter(|_| dice.chance(400)).collect();
                self.cuts.push(Cut { from, until, side, one_way: dice.chance(300) });
            }
        }
        // As many anchors die as the scheme allows, or clients that are none, or nobody. Not both:
        // what a dead client shared to some anchors only is gone with those of them that die.
        let lost = anchors - self.job.gathering();
        match dice.below(3) {
            0 => {
                let first = dice.below(anchors as u64) as usize;
                for at in 0..1 + dice.below(lost as u64) as usize {
                    self.deaths.push(((first + at * 2) % anchors, Micros(dice.below(span))));
                }
                self.deaths.sort_by_key(|(node, _)| *node);
                self.deaths.dedup_by_key(|(node, _)| *node);
            }
            1 => self.deaths.push((self.nodes - 1, Micros(dice.below(span)))),
            _ => {}
        }
    }

    /// Now and then a steward asks for other anchors, also more than once and soon after; and once
    /// there are others one more of the first ones may die.
    fn draw_wishes(&mut self, dice: &mut Stream) {
        if !dice.chance(350) {
            return;
        }
        let span = Micros::secs(FAULTY_S).0;
        for _ in 0..1 + dice.below(3) {
            let at = Micros(dice.below(span * 2 / 3));
            let steward = dice.below(self.nodes as u64) as usize;
            let fresh = dice.chance(400);
            self.wishes.push((at, Wish { steward, fresh, view: View::All }));
        }
        let anchors = self.job.scheme.anchors();
        let node = dice.below(anchors as u64) as usize;
        let last = self.deaths.iter().map(|(_, at)| *at);
        let last = last.chain(self.wishes.iter().map(|(at, _)| *at)).max().unwrap_or_default();
        let at = last.plus(Micros::secs(3)).plus(Micros(dice.below(Micros::secs(15).0)));
        // Whoever is to die is no client, and of those there must be enough without it.
        let others = (0..self.nodes).filter(|one| *one != node && self.is_client(*one)).count();
        let lives = self.deaths.iter().all(|(dead, _)| *dead != node);
        // Where as many died before as one set of anchors bears it is the more worth seeing.
        let odds = if self.deaths.is_empty() { 400 } else { 900 };
        if dice.chance(odds) && lives && others > self.job.floor() {
            self.late = Some((node, at));
        }
    }

    fn draw_kill(&mut self, dice: &mut Stream, steps: Steps, most: u64) {
        let (after, before) = (dice.below(most) as u32, dice.chance(500));
        let back = Some(Micros::millis(dice.below(8_000)));
        self.kills.push(Kill { steps, after, before, back });
    }

    /// Which steps of clients and of proposers somebody dies in.
    fn draw_kills(&mut self, dice: &mut Stream) {
        if dice.chance(400) {
            for _ in 0..1 + dice.below(3) {
                let moment = dice.below(Moment::CLIENTS.len() as u64) as usize;
                self.draw_kill(dice, Steps::Of(Moment::CLIENTS[moment]), 30);
            }
        }
        if dice.chance(400) {
            for _ in 0..1 + dice.below(2) {
                let (round, turn) = (dice.below(self.job.rounds), dice.below(5) as usize / 4);
                self.draw_kill(dice, Steps::OfProposer { round, turn }, 40);
            }
        }
    }

    /// Now and then two cuts at once, which leave three parts of the anchors and a quorum in none:
    /// one cut alone leaves one wherever their number is odd.
    fn draw_shards(&mut self, dice: &mut Stream) {
        if !dice.chance(200) {
            return;
        }
        let (quorum, anchors) = (self.job.quorum(), self.job.scheme.anchors());
        let from = dice.below(Micros::secs(15).0);
        let until = from + Micros::secs(3).0 + dice.below(Micros::secs(12).0);
        let (first, most) = (dice.below(anchors as u64) as usize, quorum - 1);
        // The second part leaves the third one no quorum either.
        let second = most - dice.below((3 * most - anchors + 1) as u64) as usize;
        for (begins, len) in [(0, most), (most, second)] {
            let is_in = |place: usize| (begins..begins + len).contains(&place);
            let is_there = |node: &usize| match *node < anchors {
                true => is_in((node + first) % anchors),
                // A node that is no anchor is somewhere, too.
                false => is_in(node % anchors),
            };
            let side = (0..self.nodes).filter(is_there).collect();
            let (from, until) = (Micros(from), Micros(until));
            self.cuts.push(Cut { from, until, side, one_way: false });
        }
    }

    /// What is made of a sum; and a job of open means without privacy may get another rule. More
    /// jobs are open than before: those lose no more anchors, so that the faults stay bearable.
    pub(super) fn draw_strategy(&mut self, dice: &mut Stream) {
        let mut job = (*self.job).clone();
        job.strategy = match dice.below(8) {
            0..3 => job.strategy,
            3 => Strategy::Average { proximal_permille: 10 },
            4 | 5 => Strategy::Adam { rate: 1 << 16, tau: 1 << 10 },
            _ => Strategy::Scaffold { clients: self.nodes as u32 },
        };
        let is_free = job.privacy.is_none() && job.per_node == 1;
        if is_free && dice.chance(350) {
            (job.mode, job.guard) = (Mode::Plain(Rule::Mean), None);
        }
        let sees_updates = job.mode != Mode::Secure && job.per_node == 1 && !job.follows_norm();
        if sees_updates {
            job.mode = Mode::Plain(match dice.below(4) {
                0 => Rule::Mean,
                1 => Rule::Median,
                3 if is_free => {
                    let byzantine = dice.below(2) as u32;
                    job.min_clients += byzantine as usize;
                    Rule::MultiKrum { byzantine, keep: 2 + dice.below(2) as u32 }
                }
                _ => Rule::Trimmed { cut: 1 },
            });
        }
        if job.mode == Mode::Secure && is_free && dice.chance(500) {
            draw_groups(&mut job, dice);
        }
        self.job = Arc::new(job);
    }

    /// Whether a node trains too. An anchor that is to die does not: what it had shared to a few
    /// anchors only would be lost with it, which is a client's death and another anchor's at once.
    pub(super) fn is_client(&self, node: usize) -> bool {
        let anchors = self.job.scheme.anchors();
        let dies = self.deaths.iter().any(|(dead, _)| *dead == node);
        // Nor does one that lies: its client would share with whom it likes.
        let lies = self.liar == Some(node);
        node >= anchors || !(dies || lies || self.late.is_some_and(|(dead, _)| dead == node))
    }

    /// Until when faults happen.
    pub fn faulty_until(&self) -> Micros {
        let ends = self.crashes.iter().map(|(.., back)| *back);
        let ends = ends.chain(self.deaths.iter().map(|(_, at)| *at));
        let ends = ends.chain(self.cuts.iter().map(|cut| cut.until));
        let ends = ends.chain(self.wishes.iter().map(|(at, _)| *at));
        let ends = ends.chain(self.late.map(|(_, at)| at));
        let is_lossy = self.loss_permille + self.double_permille + self.damage_permille > 0;
        let lossy = is_lossy.then_some(Micros::secs(FAULTY_S));
        ends.chain(lossy).max().unwrap_or_default()
    }
}
