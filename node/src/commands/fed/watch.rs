//! `selvedge fed watch`: the rounds of a job as they pass, and why one does not come.
//!
//! Owns what is said of a round that waits, and how often. Others' epsilon nobody here knows, so a
//! round that lacks contributions is waited for, also where this node has none to give.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use indicatif::ProgressBar;
use selvedge_base::{Micros, Mono};
use selvedge_net::clock;
use selvedge_train::curve::{svg, svg_of_losses};

use super::show::{NATS, accuracy, jobs, of_needed};
use crate::client::Client;
use crate::http::wire::{self, FederatedJob, FederatedMeasured};
use crate::ui;

/// How long a job is watched at most: a year, in which it may have an hour's rounds.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Between two looks where the node says nothing: which anchors are reached changes without a word
/// of the job's.
const LOOK: Duration = Duration::from_secs(5);
/// Without an end of a round until it is said why: longer than a round of a small model takes, and
/// about as long as somebody looks at a terminal where nothing happens.
const SILENCE: Micros = Micros::secs(20);
/// After the last round for its figure: measuring a small language model takes minutes where the
/// node's other work goes first, and nobody waits much longer for one figure.
const FIGURE: Micros = Micros::secs(300);
/// Reasons told of one round: each is told once, and what changes to and fro is bounded by this.
const MAX_REASONS: usize = 16;
/// Looks that wait to be shown.
const WAITING: usize = 4;
/// Rounds after which a node with data that has no figure of any tells them without: the figures of
/// a round come a while after its end.
const UNMEASURED: u64 = 2;
/// Digits of a digest that tell it from others at a glance.
const SHORT: usize = 16;

/// Shows the rounds until the job is done.
pub(super) fn watch(client: &Client, name: &str, picture: Option<&Path>) -> Result<()> {
    picture.map_or(Ok(()), may_be_drawn)?;
    let told = listen(client)?;
    let mut watched = Watched::new(clock::mono());
    let mut bar: Option<ProgressBar> = None;
    loop {
        let all = match told.recv_timeout(LOOK) {
            Ok(all) => all?,
            Err(RecvTimeoutError::Timeout) => jobs(client)?,
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the node stopped before the job was done; it goes on when the node does")
            }
        };
        let Some(job) = all.into_iter().find(|job| job.name == name) else {
            bail!("there is no job '{name}'; `selvedge fed status` lists them");
        };
        if let Some(why) = &job.not_here {
            bail!("the job '{name}' does not run at this node: {why}");
        }
        let bar = bar.get_or_insert_with(|| ui::bar(job.rounds, "{bar:30} {pos} of {len} rounds"));
        bar.set_position(job.round);
        let now = clock::mono();
        watched.passed(now, &job).into_iter().for_each(|line| bar.suspend(|| ui::out(line)));
        if watched.is_done(now, &job) {
            bar.finish_and_clear();
            watched.lacks(&job).into_iter().for_each(ui::note);
            ui::out(format_args!("done: {} rounds, model {}", job.rounds, short(&job.model)));
            return picture.map_or(Ok(()), |file| draw(&job, file));
        }
        if let Some(why) = given_up(&job) {
            bar.finish_and_clear();
            bail!(why);
        }
        if let Some(why) = watched.waits(now, &job) {
            bar.suspend(|| ui::note(why));
        }
    }
}

/// What the node says from now on.
fn listen(client: &Client) -> Result<Receiver<Result<Vec<FederatedJob>>>> {
    let (tell, told) = sync_channel(WAITING);
    let client = client.clone();
    let listener = std::thread::Builder::new().name("rounds".to_owned());
    listener.spawn(move || {
        let lines = client.lines::<wire::List<FederatedJob>>("/admin/federated-watch", LONGEST);
        let lines = match lines {
            Ok(lines) => lines,
            Err(why) => {
                // Whoever watched has ended.
                let _gone = tell.send(Err(why));
                return;
            }
        };
        for jobs in lines {
            if tell.send(jobs.map(|jobs| jobs.data)).is_err() {
                return;
            }
        }
    })?;
    Ok(told)
}

/// What was shown of a job.
struct Watched {
    /// The last round whose figure was shown.
    shown: Option<u64>,
    /// The last one that was told to be over, without a figure.
    over: Option<u64>,
    /// Rounds that are over, and since when.
    round: u64,
    since: Mono,
    /// Why the next one waits, as far as that was told.
    said: BTreeSet<String>,
}

impl Watched {
    const fn new(now: Mono) -> Self {
        Self { shown: None, over: None, round: 0, since: now, said: BTreeSet::new() }
    }

    /// The lines of what is new.
    fn passed(&mut self, now: Mono, job: &FederatedJob) -> Vec<String> {
        // What was asked for may be newer than what is told next.
        if job.round > self.round {
            (self.round, self.since) = (job.round, now);
            self.said.clear();
        }
        let last = self.shown;
        let new = job.measured.iter().filter(|one| last.is_none_or(|last| one.round > last));
        let new = new.map(|one| format!("round {:>3}   {}", one.round, accuracy(one)));
        let mut lines: Vec<String> = new.collect();
        if let Some(measured) = job.measured.last() {
            self.shown = last.max(Some(measured.round));
        } else if measures_nothing(job) || job.round > UNMEASURED {
            if self.over.is_none() {
                let why = match measures_nothing(job) {
                    true => "this node measures nothing",
                    false => "no figures are here yet",
                };
                lines.push(format!("{why}: rounds without their figures"));
            }
            // Rounds that were over before are not told one by one.
            let first = self.over.map_or(job.round, |last| last.saturating_add(1)).max(1);
            lines.extend((first..=job.round).map(|round| format!("round {round:>3}   is over")));
            self.over = self.over.max(Some(job.round));
        }
        lines
    }

    /// Whether all is shown that there will be: the figures of the last round come after it.
    fn is_done(&self, now: Mono, job: &FederatedJob) -> bool {
        // A node that had no figure of all rounds may hold nothing out, and then has none to come.
        let patience = if job.measured.is_empty() { SILENCE } else { FIGURE };
        job.round >= job.rounds && (self.lacks(job).is_none() || now.since(self.since) >= patience)
    }

    /// Which figure is not there yet of those that come.
    fn lacks(&self, job: &FederatedJob) -> Option<String> {
        let is_shown = measures_nothing(job) || self.shown >= Some(job.round);
        (!is_shown).then(|| format!("the figure of round {} is not there yet", job.round))
    }

    /// Why the next round does not come, where that is due and was not told yet.
    fn waits(&mut self, now: Mono, job: &FederatedJob) -> Option<String> {
        if !self.is_silent(now) || self.said.len() >= MAX_REASONS {
            return None;
        }
        let why = match job.round >= job.rounds {
            true => self.lacks(job)?,
            false => format!("round {} waits: {}", job.round.saturating_add(1), reasons(job)),
        };
        self.said.insert(why.clone()).then_some(why)
    }

    /// Whether no round has ended for a while.
    fn is_silent(&self, now: Mono) -> bool {
        now.since(self.since) >= SILENCE
    }
}

/// Whether no figures are to come from a node, as it has no data for the job. One with data that
/// has none yet may still measure.
const fn measures_nothing(job: &FederatedJob) -> bool {
    job.not_training.is_some()
}

/// What an open round waits for, as far as this node knows.
fn reasons(job: &FederatedJob) -> String {
    let (all, lost) = (&job.anchors, &job.anchors_not_reached);
    let there = all.len().saturating_sub(lost.len()) as u64;
    let mut words = Vec::new();
    if !lost.is_empty() {
        let lost = lost.join(", ");
        words.push(match there < job.anchors_needed {
            true => format!(
                "of its {} anchors {lost} are not reached from here, and it takes {}",
                all.len(),
                job.anchors_needed
            ),
            false => format!("its anchors {lost} are not reached from here: it takes longer"),
        });
    }
    match &job.open_round {
        Some(open) => words.extend(of_needed(open)),
        None if job.examples.is_none() && job.not_training.is_none() => {
            words.push("this node still reads its data".to_owned());
        }
        None => words.push(format!(
            "this node does not know of the round as an anchor; `selvedge fed status {}` at one \
             says who contributed",
            job.name
        )),
    }
    if job.has_left {
        words.push("this node's data left, as their epsilon is spent".to_owned());
        if job.open_round.as_ref().is_some_and(|open| open.too_few) {
            words.push(format!(
                "it has waited, and ends only if others contribute; else `selvedge fed cancel {}`, \
                 and submit it with more epsilon, more noise or other data",
                job.name
            ));
        }
    } else if job.training.is_some() {
        words.push("this node trains for it".to_owned());
    }
    if words.is_empty() {
        return "enough nodes contributed, and no anchor has ended it yet".to_owned();
    }
    words.join("; ")
}

/// Why it is of no use to wait here. That a round lacks contributions is no reason: others may
/// still give them.
fn given_up(job: &FederatedJob) -> Option<String> {
    let why = job.stopped.as_ref()?;
    Some(format!("the job '{}' does not go on at this node: {why}", job.name))
}

/// Refuses a name of another kind of picture, and a place where none can be written: that shows now
/// and not after the last round.
fn may_be_drawn(file: &Path) -> Result<()> {
    if file.extension().is_some_and(|end| !end.eq_ignore_ascii_case("svg")) {
        bail!("the picture is SVG: name a file that ends in .svg, not {}", file.display());
    }
    let is_new = !file.exists();
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .and_then(|_| if is_new { std::fs::remove_file(file) } else { Ok(()) })
        .with_context(|| cannot_write(file))
}

fn cannot_write(file: &Path) -> String {
    format!("cannot write {}; --picture FILE names another place", file.display())
}

/// The accuracy of the rounds as a picture, or the loss of a language model.
fn draw(job: &FederatedJob, file: &Path) -> Result<()> {
    if job.measured.is_empty() {
        ui::warn(format_args!(
            "nothing is measured at this node, so {} is not written: watch the job at a node with \
             data for it",
            file.display()
        ));
        return Ok(());
    }
    let share = |one: &FederatedMeasured| one.right as f64 / one.examples.max(1) as f64;
    let points = job.measured.iter().map(|one| (one.round, share(one)));
    let points: Vec<(u64, f64)> = points.collect();
    let losses = job.measured.iter().filter_map(|one| Some((one.round, one.loss_micronats?)));
    let losses: Vec<(u64, f64)> =
        losses.map(|(round, micronats)| (round, micronats as f64 / NATS)).collect();
    let picture = match losses.is_empty() {
        true => svg(&job.name, &points, &[], &[]),
        false => svg_of_losses(&job.name, &losses),
    };
    std::fs::write(file, picture).with_context(|| cannot_write(file))?;
    ui::note(format_args!("the curve is in {}", file.display()));
    Ok(())
}

fn short(digest: &str) -> &str {
    digest.get(..SHORT).unwrap_or(digest)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
