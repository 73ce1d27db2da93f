//! One job: a division of the digits, a strategy, a seed; its accuracy by round.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use selvedge_base::Micros;
use selvedge_federated::fixed::{Clip, MODEL_BITS};
use selvedge_federated::robust::Rule;
use selvedge_federated::round::{Committee, Guard, Job, Mode, Pace};
use selvedge_federated::server::{Server, Strategy};
use selvedge_federated::shamir::Scheme;
use selvedge_tests::time::Stopwatch;
use selvedge_train::{Control, Examples, Local, Model, Plan, measure};

use crate::divided::{Divided, Division};
use crate::fleet::{Fleet, Spent, Trained};
use selvedge_tests::digits::model;

/// Clients of every job.
pub(crate) const CLIENTS: usize = 10;
/// How far a weight may move in a round: further than it does where nobody lies. Attackers of a
/// model that is lost come to more, which is cut.
const CLIP: u32 = 1 << MODEL_BITS;
/// The same as a value.
pub(crate) const CLIP_VALUE: f32 = CLIP as f32 / (1_u32 << MODEL_BITS) as f32;
/// What an attacker sends is what it learned, four times the other way.
const ATTACK: f32 = -4.0;
/// What is trained with: the literature's figures for this model.
const PLAN: Plan = Plan { epochs: 2, batch: 32, learning_rate: 0.05, proximal: 0.0, seed: 0 };

/// A job of the bench.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) division: Division,
    pub(crate) scaffold: bool,
    pub(crate) mode: Mode,
    pub(crate) rounds: u64,
    /// The first so many clients attack.
    pub(crate) attackers: usize,
    pub(crate) seed: u64,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Share of digits that were right, by round.
    pub(crate) accuracy: Vec<f64>,
    /// Bytes that one client sent to anchors of other nodes in one round, on the mean.
    pub(crate) bytes: u64,
    /// Time of each round, without measuring.
    pub(crate) times: Vec<Duration>,
    /// Time of all threads together in one round, by what it went to.
    pub(crate) spent: Spent,
}

impl Outcome {
    pub(crate) fn best(&self) -> f64 {
        best(&self.accuracy)
    }

    pub(crate) fn last(&self) -> f64 {
        last(&self.accuracy)
    }
}

/// The best round of a job.
pub(crate) fn best(accuracy: &[f64]) -> f64 {
    accuracy.iter().copied().fold(0.0, f64::max)
}

/// The last round of a job.
pub(crate) fn last(accuracy: &[f64]) -> f64 {
    accuracy.last().copied().unwrap_or_default()
}

/// A job of clients of whom none has more examples than `most`.
fn job(setting: &Setting, dim: usize, most: usize) -> Result<Job> {
    let strategy = if setting.scaffold {
        Strategy::Scaffold { clients: u32::try_from(CLIENTS)? }
    } else {
        Strategy::Average { proximal_permille: 0 }
    };
    Ok(Job {
        task: [0; 32],
        nonce: setting.seed,
        dim,
        clip: Clip::new(CLIP)?,
        mode: setting.mode,
        scheme: Scheme::Five,
        committee: Committee { epoch: 0, seats: Vec::new() },
        // Where the rule keeps eight honest ones of ten, all ten must be there.
        per_node: 1,
        guard: (setting.mode == Mode::Secure).then_some(Guard::ONE),
        min_clients: if setting.attackers > 0 { CLIENTS } else { 8 },
        target: CLIENTS,
        sample_permille: 1_000,
        // A weight is so many 64ths of this: far above what anyone has, clients of unequal size
        // would weigh alike.
        max_examples: u32::try_from(most)?,
        receipts: 4,
        rounds: setting.rounds,
        strategy,
        privacy: None,
        pace: Pace {
            tick: Micros::millis(200),
            stagger: Micros::millis(400),
            gather: Micros::millis(600),
            patience: Micros::secs(60),
        },
    })
}

/// Runs a job, so many nodes at a time.
pub(crate) fn run(data: &Divided, setting: &Setting, threads: usize) -> Result<Outcome> {
    let model = model();
    // One for each client, as every node has one.
    let locals = (0..CLIENTS).map(|_| Local::new()).collect::<Result<Vec<_>, _>>()?;
    let clients = data.clients(setting.division, setting.seed)?;
    let first = model.first(setting.seed)?;
    let units = first.iter().map(|weight| to_units(*weight)).collect();
    let most = clients.iter().map(Examples::len).max().unwrap_or_default();
    let mut fleet = Fleet::new(job(setting, first.len(), most)?, CLIENTS, units, threads)?;
    let own: Vec<Mutex<Vec<f32>>> =
        (0..CLIENTS).map(|_| Mutex::new(vec![0.0; first.len()])).collect();
    let (mut accuracy, mut times) = (Vec::new(), Vec::new());
    let mut begun = Stopwatch::start();
    fleet.run(
        |client, server| {
            let job = Work { model: &model, local: &locals[client], setting, client };
            let mut own = own[client].lock().unwrap_or_else(PoisonError::into_inner);
            job.train(server, &clients[client], &mut own)
        },
        |server| {
            times.push(begun.elapsed());
            let weights = from_units(server.model().iter().map(|unit| i64::from(*unit)));
            accuracy.push(measure(&locals[0], &model, &weights, &data.digits.test)?.accuracy());
            begun = Stopwatch::start();
            Ok(())
        },
    )?;
    ensure!(times.len() as u64 == setting.rounds, "{} rounds were seen", times.len());
    let rounds = u32::try_from(setting.rounds)?;
    Ok(Outcome {
        accuracy,
        bytes: fleet.sent / (setting.rounds * CLIENTS as u64),
        times,
        spent: fleet.spent.map(|spent| spent / rounds),
    })
}

/// One client's part of one round.
struct Work<'a> {
    model: &'a Model,
    local: &'a Local,
    setting: &'a Setting,
    client: usize,
}

impl Work<'_> {
    fn train(&self, server: &Server, data: &Examples, own: &mut [f32]) -> Result<Trained> {
        let base = from_units(server.model().iter().map(|unit| i64::from(*unit)));
        let global = from_units(server.control().iter().copied());
        let control = self.setting.scaffold.then_some(Control { global: &global, own: &*own });
        let number = self.setting.seed << 8 | self.client as u64;
        // The order of a client's examples changes with every round, through its model.
        let seed = number ^ u64::from_le_bytes(first_eight(&server.digest()));
        let update = self.local.train(self.model, &base, data, &Plan { seed, ..PLAN }, control)?;
        let mut delta = update.delta;
        if self.client < self.setting.attackers {
            delta.iter_mut().for_each(|value| *value *= ATTACK);
        }
        if let Some(change) = update.control {
            own.iter_mut().zip(&change).for_each(|(own, change)| *own += change);
            delta.extend(change);
        }
        delta.iter_mut().for_each(|value| *value = value.clamp(-CLIP_VALUE, CLIP_VALUE));
        Ok(Trained { delta, examples: u32::try_from(update.examples)? })
    }
}

fn first_eight(digest: &[u8; 32]) -> [u8; 8] {
    let mut eight = [0; 8];
    eight.copy_from_slice(&digest[..8]);
    eight
}

fn to_units(weight: f32) -> i32 {
    (weight * (1_u32 << MODEL_BITS) as f32).round() as i32
}

fn from_units(units: impl Iterator<Item = i64>) -> Vec<f32> {
    units.map(|unit| (unit as f64 / f64::from(1_u32 << MODEL_BITS)) as f32).collect()
}

/// The rule of a job that is attacked: the two that may lie are left out.
pub(crate) const KRUM: Mode = Mode::Plain(Rule::MultiKrum { byzantine: 2, keep: 8 });
