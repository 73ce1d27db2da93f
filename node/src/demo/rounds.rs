//! What the nodes of the demo say of their job while it runs.
//!
//! Owns listening to all of them at once, and what follows from what each said last: who proposes,
//! how many digits are told right, whether all is over. Kills nobody.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use selvedge_base::{Micros, Mono};
use selvedge_net::clock;

use super::cast::Player;
use crate::http::wire::{FederatedJob, FederatedMeasured, FederatedPart, List};

/// The longest that all of it may take; the usual time is ten seconds.
const LONGEST: Duration = Duration::from_secs(300);
/// How long no node may have any news: a round takes less than a second.
const STALL: Duration = Duration::from_secs(60);
/// What may wait to be heard: five nodes say less in a minute. One that has more to say waits.
const WAITING: usize = 1_024;
/// What an open round waits for while the node that proposes decides it; who dies then dies in the
/// middle of its turn.
const PROPOSES: [&str; 2] = ["asking", "proposing"];

/// Something that a node said.
struct Heard {
    /// Its place among the players.
    at: usize,
    /// Its process: what it said before it was killed counts no more after its return.
    life: u32,
    job: FederatedJob,
}

/// What all of them said last.
pub(super) struct Rounds {
    job: &'static str,
    tell: SyncSender<Heard>,
    told: Receiver<Heard>,
    latest: BTreeMap<usize, FederatedJob>,
    begun: Mono,
}

/// A node that decides an open round.
#[derive(Clone, Debug)]
pub(super) struct Proposer {
    pub(super) at: usize,
    /// Counted from 0: so many are over.
    pub(super) round: u64,
    /// `asking` or `proposing`.
    pub(super) phase: String,
}

/// How well a model does by the digits that nodes hold out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) right: u64,
    pub(super) examples: u64,
}

impl Share {
    pub(super) fn part(self) -> f64 {
        self.right as f64 / self.examples.max(1) as f64
    }
}

impl Rounds {
    /// Of a job; nobody is listened to yet.
    pub(super) fn of(job: &'static str) -> Self {
        let (tell, told) = sync_channel(WAITING);
        Self { job, tell, told, latest: BTreeMap::new(), begun: clock::mono() }
    }

    /// Listens to a node from now on, until it dies.
    pub(super) fn listen(&self, at: usize, player: &Player) -> Result<()> {
        let (client, life, name) = (player.client().clone(), player.pid(), self.job);
        let tell = self.tell.clone();
        let listener = std::thread::Builder::new().name(format!("{} rounds", player.name()));
        listener.spawn(move || {
            // Whoever says no more has died or is at its end: the story notices either.
            let Ok(told) = client.lines::<List<FederatedJob>>("/admin/federated-watch", LONGEST)
            else {
                return;
            };
            for jobs in told.map_while(Result::ok) {
                // It may not have heard of the job yet.
                let job = jobs.data.into_iter().find(|job| job.name == name);
                if job.is_some_and(|job| tell.send(Heard { at, life, job }).is_err()) {
                    return;
                }
            }
        })?;
        Ok(())
    }

    /// Waits until a node has news, and takes in all there are.
    pub(super) fn hear(&mut self, players: &[Player]) -> Result<()> {
        let taken = clock::mono().since(self.begun);
        let left = LONGEST.saturating_sub(Duration::from_micros(taken.0));
        let first = self.told.recv_timeout(STALL.min(left)).map_err(|_| {
            anyhow!(
                "the job goes on no more, {} s after it began; run the demo with -v to see why",
                taken.as_millis() / 1_000
            )
        })?;
        // Only what each said last: a round may be over by the time that its beginning is read.
        for heard in std::iter::once(first).chain(self.told.try_iter()) {
            let said = players.get(heard.at);
            if said.is_some_and(|player| player.lives() && player.pid() == heard.life) {
                self.latest.insert(heard.at, heard.job);
            }
        }
        for (at, job) in &self.latest {
            let name = players.get(*at).map_or("a node", Player::name);
            if let Some(why) = job.not_here.as_ref().or(job.not_training.as_ref()) {
                bail!("{name} does not take part: {why}");
            }
        }
        Ok(())
    }

    /// What a node said before it died is old.
    pub(super) fn forget(&mut self, at: usize) {
        self.latest.remove(&at);
    }

    /// Since the job began.
    pub(super) fn taken(&self) -> Micros {
        clock::mono().since(self.begun)
    }

    /// Who says of itself that it decides the round that is open.
    pub(super) fn proposer(&self) -> Option<Proposer> {
        self.latest.iter().find_map(|(at, job)| {
            let open = job.open_round.as_ref()?;
            let proposes = open.here && PROPOSES.contains(&open.phase.as_str());
            let phase = open.phase.clone();
            proposes.then_some(Proposer { at: *at, round: open.round, phase })
        })
    }

    /// Asks those that live whether a round is open at all of them.
    pub(super) fn is_open(&self, round: u64, players: &[Player]) -> Result<bool> {
        for player in players.iter().filter(|player| player.lives()) {
            let jobs: List<FederatedJob> = player.client().get("/admin/federated")?;
            let job = jobs.data.iter().find(|job| job.name == self.job);
            if job.is_some_and(|job| job.round > round) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How well the model after a round does at all nodes that live; none before all have measured.
    pub(super) fn share(&self, round: u64, players: &[Player]) -> Option<Share> {
        let mut all = Share::default();
        for (at, _) in players.iter().enumerate().filter(|(_, player)| player.lives()) {
            // A busy node may have left a round out for the one after it.
            let measured = &self.latest.get(&at)?.measured;
            let found = measured.iter().find(|one| one.round >= round)?;
            all.right += found.right;
            all.examples += found.examples;
        }
        (all.examples > 0).then_some(all)
    }

    /// Each node alone, by its own digits.
    pub(super) fn own(&self) -> Vec<Vec<(u64, f64)>> {
        let point = |one: &FederatedMeasured| {
            (one.round, Share { right: one.right, examples: one.examples }.part())
        };
        self.latest.values().map(|job| job.measured.iter().map(point).collect()).collect()
    }

    /// Whether so many nodes have all rounds, and measured the last one.
    pub(super) fn are_over(&self, rounds: u64, nodes: usize) -> bool {
        let done = |job: &&FederatedJob| {
            let measured = job.measured.last().is_some_and(|one| one.round >= rounds);
            job.round >= rounds && measured
        };
        self.latest.values().filter(done).count() == nodes
    }

    /// The job as one of them has it in the end, if all came to the same model and record, and all
    /// nodes and so many clients took part.
    pub(super) fn outcome(&self, clients: usize) -> Result<&FederatedJob> {
        let first = self.latest.values().next().context("no node has the job")?;
        let differs =
            |job: &&FederatedJob| (&job.model, &job.record) != (&first.model, &first.record);
        if let Some(other) = self.latest.values().find(differs) {
            bail!("the nodes came to different models: {} and {}", first.model, other.model);
        }
        let nodes = first.contributions.len();
        ensure!(nodes == self.latest.len(), "only {nodes} nodes contributed");
        let trains = |part: &&FederatedPart| part.not_training.is_none();
        let found: usize =
            self.latest.values().map(|job| job.parts.iter().filter(trains).count()).sum();
        ensure!(found == clients, "{found} clients took part, of {clients}");
        Ok(first)
    }
}
