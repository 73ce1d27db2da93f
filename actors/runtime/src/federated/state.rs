//! How a job stands at this node, for people.
//!
//! Owns what is shown and the bound on it. Decides nothing, and nobody who decides reads it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use selvedge_base::{Mono, NodeId, Wall};
use selvedge_federated::epidemic::MixerEvent;
use selvedge_federated::privacy::accountant::MicroEpsilon;
use selvedge_federated::round::{ContributionId, Event, Job, OpenRound, Refused, Tip, Why};
use selvedge_train::Subject;
use tokio::sync::watch;

use super::disk::{Part, RoundMeasured, hex};
use super::personal::{Kept, PersonalProgress};
use super::refused::{Naming, Noted, Recorded, Refusees};
use super::served::Served;
use super::task::Announced;
use super::tuned::Tuned;

/// Lines kept of what happened: what fits a screen.
const MAX_LINES: usize = 32;
/// Nodes that one line names: two lines of a terminal.
const MAX_NAMED: usize = 16;

/// What people are told where a part of a sum is wrong and nobody knows whose.
const DISAGREE: &str = "parts of the round's sum contradict each other, and too few anchors showed \
                        theirs to tell whose is wrong: bring the anchors back that are away";

/// A job at this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// Rounds that are over.
    pub round: u64,
    /// Rounds of the job.
    pub rounds: u64,
    /// The digest of the last record, in hexadecimal.
    pub record: String,
    /// The digest of the model and what its strategy remembers.
    pub model: String,
    /// The anchors of the next round.
    pub anchors: Vec<NodeId>,
    /// How many sets of anchors the job had before them.
    pub epoch: u64,
    /// Where the next round stands, where this node is one of them.
    pub open: Option<OpenRound>,
    /// A round of which this node, as it proposed, found that too few nodes contributed; none once
    /// more came, or that round is over.
    pub too_few: Option<u64>,
    /// Contributions that were folded or expired, by node.
    pub contributions: BTreeMap<NodeId, u64>,
    /// Contributions that this node refused as an anchor since its start, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Whom this node refused, as an anchor or for what cannot be, by reason; of a bounded number
    /// of nodes, those that were refused last. Kept over restarts, but for what came since it
    /// was last written down.
    pub refusals: BTreeMap<NodeId, BTreeMap<&'static str, u64>>,
    /// What this node has spent on the job, where it has privacy.
    pub spent: Option<MicroEpsilon>,
    /// Examples that this node trains on; none where it only follows.
    pub examples: Option<u64>,
    /// Why it does not train, where it does not.
    pub why_not: Option<String>,
    /// Whether none of its clients contributes any more, since their epsilon is spent.
    pub has_left: bool,
    /// Why the job does not go on here before the node is started anew, or ever.
    pub stopped: Option<String>,
    /// The round it trains for now.
    pub training: Option<u64>,
    /// Contributions of this node that count.
    pub counted: u64,
    /// Contributions of this node that never will.
    pub expired: u64,
    /// How well the models did by this node's own examples: all of its clients' together, of the
    /// rounds that all of them measured.
    pub measured: Vec<RoundMeasured>,
    /// The same of each client by itself: of all of the node's data, or of each of their parts.
    pub parts: Vec<PartProgress>,
    /// This node's own model, where the job has epidemic mode and it came to that.
    pub personal: Option<PersonalProgress>,
    /// Where a language model is tuned: the rounds in the one that this node's engine answers by,
    /// or why it does not; none before there is one.
    pub answers: Option<Result<u64, String>>,
    /// What happened, newest last.
    pub lines: Vec<String>,
}

/// One client of this node in a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartProgress {
    /// The part of the node's data, by name; none where they are not parted.
    pub part: Option<String>,
    /// Which client of the node it is in the record.
    pub client: u64,
    /// The last number that it gave to a contribution.
    pub written: u64,
    /// The last one of which enough anchors said that they hold it, since the node's start.
    pub receipted: u64,
    /// The round that the last one was trained for, while it is neither folded nor expired.
    pub under_way: Option<u64>,
    /// Examples that it trains on; none where it does not.
    pub examples: Option<u64>,
    /// Why it does not train, where it does not.
    pub why_not: Option<String>,
    /// Whether it contributes no more, since its epsilon is spent.
    pub has_left: bool,
    /// The round it trains for now.
    pub training: Option<u64>,
    /// Its contributions that count, since the node's start.
    pub counted: u64,
    /// Its contributions that never will.
    pub expired: u64,
    /// What it has spent on the job, where that has privacy.
    pub spent: Option<MicroEpsilon>,
    /// What all jobs together have spent of its data.
    pub data_spent: Option<MicroEpsilon>,
    /// How well the models did by its own examples.
    pub measured: Vec<RoundMeasured>,
}

/// How far the contributions of a client are.
pub(super) struct Contributed {
    /// Which client of its node.
    pub(super) client: u64,
    /// The last number that it gave.
    pub(super) written: u64,
    /// The round of the one that is neither folded nor expired.
    pub(super) under_way: Option<u64>,
}

impl JobProgress {
    /// What is the node's follows from its clients.
    fn add_up(&mut self) {
        let parts = &self.parts;
        if parts.is_empty() {
            return;
        }
        let examples = parts.iter().filter_map(|part| part.examples);
        self.examples = examples.reduce(u64::saturating_add);
        let why_not = parts.first().and_then(|part| part.why_not.clone());
        self.why_not = why_not.filter(|_| self.examples.is_none());
        let mut train = parts.iter().filter(|part| part.examples.is_some());
        self.has_left = self.examples.is_some() && train.all(|part| part.has_left);
        self.training = parts.iter().find_map(|part| part.training);
        self.counted = parts.iter().map(|part| part.counted).sum();
        self.expired = parts.iter().map(|part| part.expired).sum();
        self.spent = parts.iter().filter_map(|part| part.spent).max();
        let measure = parts.iter().filter(|part| !part.measured.is_empty());
        let measure: Vec<&[RoundMeasured]> = measure.map(|part| &*part.measured).collect();
        self.measured = together(&measure);
    }
}

/// Why a contribution expired, in words.
const fn expired(why: Why) -> &'static str {
    match why {
        Why::Stale => {
            "it came too many rounds late, as where a node was off; the next one is trained from \
             the newest model"
        }
        Why::Reconfigured => {
            "the anchors were replaced before it was counted; the next one goes to those that the \
             job has now"
        }
    }
}

/// How well models did by several clients' examples, of the rounds that all of them measured.
fn together(parts: &[&[RoundMeasured]]) -> Vec<RoundMeasured> {
    let Some((first, others)) = parts.split_first() else { return Vec::new() };
    let sum = |one: &RoundMeasured| {
        others.iter().try_fold(*one, |sum, other| {
            let found = other.binary_search_by_key(&one.round, |one| one.round).ok()?;
            let RoundMeasured { round, right, examples, loss_micronats } = other[found];
            let all = sum.examples.saturating_add(examples);
            // A mean over the tokens of both.
            let weighed = |loss: Option<u64>, of: u64| Some(u128::from(loss?) * u128::from(of));
            let loss = weighed(sum.loss_micronats, sum.examples)
                .zip(weighed(loss_micronats, examples))
                .map(|(a, b)| ((a + b) / u128::from(all.max(1))) as u64);
            let right = sum.right.saturating_add(right);
            Some(RoundMeasured { round, right, examples: all, loss_micronats: loss })
        })
    };
    first.iter().filter_map(sum).collect()
}

/// Where the job stands.
pub(super) struct JobState {
    name: String,
    /// What is trained.
    subject: Subject,
    /// The newest model of the job that was folded into; none before its first round is over.
    served: ArcSwapOption<Served>,
    /// The same of a job that tunes a language model.
    tuned: ArcSwapOption<Tuned>,
    progress: Mutex<JobProgress>,
    lines: Mutex<VecDeque<String>>,
    refusees: Refusees,
    /// Told whenever something is shown otherwise.
    changed: watch::Sender<()>,
}

impl JobState {
    /// A job before anything is known of it here but its rules.
    pub(super) fn new(name: &str, told: &Announced, changed: watch::Sender<()>) -> Self {
        let job = &told.job;
        let anchors = job.committee.seats.iter().map(|seat| seat.node).collect();
        let begins = JobProgress { rounds: job.rounds, anchors, ..JobProgress::default() };
        let (progress, lines) = (Mutex::new(begins), Mutex::default());
        let (name, subject) = (name.to_owned(), told.task.subject.clone());
        let (served, tuned) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        let refusees = Refusees::new(&name);
        Self { name, subject, served, tuned, progress, lines, refusees, changed }
    }

    /// The same with the names that the mesh has for nodes.
    pub(super) fn naming(self, naming: Naming) -> Self {
        Self { refusees: self.refusees.named(naming), ..self }
    }

    /// Whom earlier lives of this node refused.
    pub(super) fn refused_before(&self, recorded: Recorded) {
        self.refusees.restore(recorded);
    }

    /// Whom this node refused, to be written down.
    pub(super) fn recorded(&self) -> Recorded {
        self.refusees.recorded()
    }

    /// The model that answers now.
    pub(super) fn served(&self) -> Option<Arc<Served>> {
        self.served.load_full()
    }

    /// The language model that answers now, where one is tuned.
    pub(super) fn tuned(&self) -> Option<Arc<Tuned>> {
        self.tuned.load_full()
    }

    /// The round by which this node's engine answers, or why it does not.
    pub(super) fn answers(&self, told: Result<u64, String>) {
        let mut progress = self.progress.lock();
        if progress.answers.as_ref() != Some(&told) {
            progress.answers = Some(told);
            drop(progress);
            self.changed.send_replace(());
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// All of it.
    pub(super) fn progress(&self) -> JobProgress {
        let lines = self.lines.lock().iter().cloned().collect();
        let refusals = self.refusees.counts();
        let mut progress = JobProgress { lines, refusals, ..self.progress.lock().clone() };
        progress.add_up();
        progress
    }

    /// This node has no data for the job.
    pub(super) fn takes_no_part(&self, why_not: String) {
        let mut progress = self.progress.lock();
        progress.parts.clear();
        progress.why_not = Some(why_not);
    }

    /// No client of this node trains any more; what each has spent stays told.
    pub(super) fn gives_up(&self, why_not: &str) {
        let mut progress = self.progress.lock();
        for part in &mut progress.parts {
            part.why_not = Some(why_not.to_owned());
        }
        progress.why_not = Some(why_not.to_owned());
    }

    /// The job does not go on here.
    pub(super) fn stops(&self, why: String) {
        self.progress.lock().stopped = Some(why.clone());
        self.trouble(why);
    }

    /// The clients of this node, those that train first: how many examples each has, or why it
    /// does not train.
    pub(super) fn takes_part(&self, parts: Vec<(Part, Result<u64, String>)>) {
        let mut progress = self.progress.lock();
        let mut before = std::mem::take(&mut progress.parts);
        for (part, examples) in parts {
            let known = before.iter().position(|one| one.part == part);
            let known = known.map(|at| before.swap_remove(at)).unwrap_or_default();
            let (examples, why_not) = match examples {
                Ok(examples) => (Some(examples), None),
                Err(why_not) => (None, Some(why_not)),
            };
            progress.parts.push(PartProgress { part, examples, why_not, training: None, ..known });
        }
    }

    /// What the clients have spent on the job, in their order.
    pub(super) fn spent(&self, spent: impl Iterator<Item = MicroEpsilon>) {
        let mut progress = self.progress.lock();
        for (part, spent) in progress.parts.iter_mut().zip(spent) {
            part.spent = Some(spent);
        }
    }

    /// Where the next round stands here, and how far the contributions of the node's clients are.
    pub(super) fn stands(
        &self,
        open: Option<OpenRound>,
        clients: impl Iterator<Item = Contributed>,
    ) {
        let mut progress = self.progress.lock();
        let mut is_new = progress.open != open;
        let before = progress.open.zip(open).filter(|(before, open)| before.round == open.round);
        if before.is_some_and(|(before, open)| open.nodes > before.nodes) {
            // What was found is over: it is found anew if these are too few as well.
            progress.too_few = None;
        }
        progress.open = open;
        for (part, Contributed { client, written, under_way }) in
            progress.parts.iter_mut().zip(clients)
        {
            let told = (part.client, part.written, part.under_way);
            is_new |= told != (client, written, under_way);
            (part.client, part.written, part.under_way) = (client, written, under_way);
        }
        drop(progress);
        if is_new {
            self.changed.send_replace(());
        }
    }

    pub(super) fn follows(&self, job: &Job, tip: &Tip) {
        let mut contributions = BTreeMap::new();
        for client in tip.done.keys() {
            contributions.insert(client.node, tip.contributions(&client.node));
        }
        // First weights know nothing that anybody could ask.
        // Both machines of a node tell of a round.
        match &self.subject {
            _ if tip.round == 0 => {}
            Subject::Model(model) => {
                if self.served().is_none_or(|served| served.round < tip.round) {
                    self.served.store(Some(Arc::new(Served::of(model, tip))));
                }
            }
            Subject::Tuning(tuning) => {
                if self.tuned().is_none_or(|tuned| tuned.round < tip.round) {
                    self.tuned.store(Some(Arc::new(Tuned::of(tuning, tip))));
                }
            }
        }
        let mut progress = self.progress.lock();
        progress.round = tip.round;
        progress.too_few = progress.too_few.filter(|&round| round >= tip.round);
        progress.rounds = job.rounds;
        progress.record = hex(&tip.record);
        progress.model = hex(&tip.server.digest());
        progress.epoch = tip.committee.epoch;
        progress.anchors = tip.committee.seats.iter().map(|seat| seat.node).collect();
        progress.contributions = contributions;
        drop(progress);
        self.changed.send_replace(());
    }

    /// This node trains for a round, or for none; a training may outlast its round.
    pub(super) fn training(&self, at: usize, round: Option<u64>) {
        self.part(at, |part| part.training = round);
        self.changed.send_replace(());
    }

    pub(super) fn measured(&self, at: usize, all: &[RoundMeasured]) {
        self.part(at, |part| part.measured = all.to_vec());
        self.changed.send_replace(());
    }

    /// Does something with what is shown of a client.
    fn part(&self, at: usize, act: impl FnOnce(&mut PartProgress)) {
        if let Some(part) = self.progress.lock().parts.get_mut(at) {
            act(part);
        }
    }

    /// What is said of a client, where there are several of them.
    pub(super) fn of_client(&self, at: Option<usize>, said: String) -> String {
        let progress = self.progress.lock();
        let part = at.and_then(|at| progress.parts.get(at)?.part.as_ref());
        match part {
            Some(part) => format!("{part}: {said}"),
            None => said,
        }
    }

    /// The personal model that the disk has.
    pub(super) fn kept(&self, kept: &Kept) {
        self.progress.lock().personal = Some(PersonalProgress::of(kept));
        self.changed.send_replace(());
    }

    /// How well this node's own model does.
    pub(super) fn personal_measured(&self, found: Option<RoundMeasured>) {
        if let Some(personal) = &mut self.progress.lock().personal {
            personal.measured = found;
        }
        self.changed.send_replace(());
    }

    /// Notes what the machine of epidemic mode reported.
    pub(super) fn mixed(&self, event: &MixerEvent, now: Wall) {
        let job = &self.name;
        let line = {
            let mut progress = self.progress.lock();
            // What is refused before this node has a model of its own makes none.
            if matches!(event, MixerEvent::Unmixed { .. }) && progress.personal.is_none() {
                None
            } else {
                progress.personal.get_or_insert_default().happened(event, now)
            }
        };
        match event {
            MixerEvent::Began { .. } | MixerEvent::Ended { .. } => {
                tracing::info!(job, line, "epidemic mode");
            }
            MixerEvent::Stepped { seq, age, mixed } => {
                tracing::debug!(job, seq, age, mixed, "a personal model made a step");
            }
            MixerEvent::Unmixed { by, why } => {
                tracing::debug!(job, peer = %by.short(), %why, "a personal model is not mixed");
            }
            MixerEvent::BadTraining => tracing::warn!(job, line, "epidemic mode"),
        }
        match line {
            Some(line) => self.trouble(line),
            None => {
                self.changed.send_replace(());
            }
        }
    }

    /// Something that people should know of.
    pub(super) fn trouble(&self, line: String) {
        let mut lines = self.lines.lock();
        if lines.back() == Some(&line) {
            return;
        }
        if lines.len() >= MAX_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
        self.changed.send_replace(());
    }

    fn refused(&self, why: Refused, times: u64) {
        *self.progress.lock().refused.entry(why.kind()).or_default() += times;
    }

    /// Nobody could refuse it before it was added up, and nobody can say which of them it is:
    /// people should look who is among them again and again.
    fn left_out(&self, round: u64, ids: &[ContributionId]) {
        let job = &self.name;
        let mut names: Vec<String> =
            ids.iter().take(MAX_NAMED).map(|id| self.refusees.name(&id.client.node)).collect();
        if ids.len() > MAX_NAMED {
            names.push(format!("{} more", ids.len() - MAX_NAMED));
        }
        let names = names.join(", ");
        tracing::warn!(job, round, clients = names, "what they add up to cannot be: left out");
        self.refused(Refused::Beyond, ids.len() as u64);
        ids.iter().for_each(|id| self.refusees.beyond(id.client.node));
        self.trouble(format!(
            "round {}: one of {names} lies, and none of them counts: what they add up to is beyond \
             what updates within the clip make",
            round + 1
        ));
    }

    /// A refusal was noted.
    fn noted(&self, Noted { line }: Noted) {
        match line {
            Some(line) => self.trouble(line),
            None => {
                self.changed.send_replace(());
            }
        }
    }

    /// A contribution was refused by this node's anchor, or one of a client of this node.
    fn turned_down(
        &self,
        at: Option<usize>,
        (id, from): (&ContributionId, NodeId),
        why: Refused,
        now: Mono,
    ) -> bool {
        let job = &self.name;
        let (client, peer) = (id.client.node.short(), from.short());
        tracing::debug!(job, client, peer, %why, "refused");
        let Some(at) = at else {
            self.refused(why, 1);
            let said = self.refusees.contribution(now, from, why);
            return said.map(|said| self.noted(said)).is_some();
        };
        // A client hears of its own from anchors, which count it. That it was in a sum which cannot
        // be it finds out itself: whoever else says so may be lying.
        if why == Refused::Beyond && from == id.client.node {
            let said = format!("contribution {} does not count: {why}", id.seq);
            self.trouble(self.of_client(Some(at), said));
        }
        false
    }

    /// Notes what the machine of a client reported, or that of the anchor. Whether whom it refused
    /// is to be written down.
    pub(super) fn happened(&self, at: Option<usize>, event: &Event, now: Mono) -> bool {
        let job = &self.name;
        let said = |said: String| self.trouble(self.of_client(at, said));
        match event {
            Event::Counted(_) => {
                at.into_iter().for_each(|at| self.part(at, |part| part.counted += 1));
            }
            Event::Expired(id, why) => {
                at.into_iter().for_each(|at| self.part(at, |part| part.expired += 1));
                said(format!("contribution {} does not count: {}", id.seq, expired(*why)));
            }
            Event::Closed { round, entries } => {
                tracing::debug!(job, round, entries, "a set is closed");
            }
            Event::Folded { round, record } => {
                tracing::info!(job, round, record = %hex(record), "a round is over");
            }
            Event::BelowFloor { round, found } => {
                tracing::debug!(job, round, found, "too few contributed to close");
                // No line: it would outlast the round.
                let before = self.progress.lock().too_few.replace(*round);
                if before != Some(*round) {
                    self.changed.send_replace(());
                }
            }
            Event::Receipted(id) => {
                tracing::debug!(job, seq = id.seq, "a contribution is safe");
                at.into_iter().for_each(|at| self.part(at, |part| part.receipted = id.seq));
            }
            Event::Refused { id, from, why } => {
                return self.turned_down(at, (id, *from), *why, now);
            }
            Event::LeftOut { round, ids } => {
                self.left_out(*round, ids);
                return true;
            }
            Event::PrivacySpent { spent } => {
                tracing::info!(job, %spent, "this node contributes no more: its epsilon is spent");
                at.into_iter().for_each(|at| self.part(at, |part| part.has_left = true));
                said(format!("contributes no more: its epsilon is spent, {spent} on this job"));
            }
            Event::PrivacyDenied(why) => {
                tracing::warn!(job, %why, "this node contributes no more");
                at.into_iter().for_each(|at| self.part(at, |part| part.has_left = true));
                said(why.to_string());
            }
            Event::BadUpdate(why) => {
                tracing::warn!(job, %why, "what was trained cannot be contributed");
                said(format!("what was trained cannot be contributed: {why}"));
            }
            // Nobody is blamed: word of the wish may be on its way, and whoever heard of a set that
            // was accepted somewhere has to propose it.
            Event::Unasked { by, round } => {
                tracing::debug!(job, round, peer = %by.short(), "other anchors are proposed");
            }
            Event::Disagree { round } => {
                tracing::warn!(job, round, "parts of the round's sum contradict each other");
                said(DISAGREE.to_owned());
            }
            Event::Misdeed { by, what } => {
                tracing::debug!(job, peer = %by.short(), what, "a peer sent what cannot be");
                let said = self.refusees.misdeed(now, *by, what);
                return said.map(|said| self.noted(said)).is_some();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use selvedge_crdt::escrow::Holder;
    use selvedge_federated::privacy::ledger::{Bound, Overspent};
    use selvedge_federated::round::{ContributionId, Phase};

    use super::super::test_rounds::{job_file, run};
    use super::*;

    #[test]
    fn an_open_round_and_what_clients_gave_are_told_once_they_change() {
        let told = run(&job_file("rounds = 1", ""), false).told;
        let changed = watch::Sender::new(());
        let mut seen = changed.subscribe();
        let state = JobState::new("small", &told, changed);
        state.takes_part(vec![(Some("a".to_owned()), Ok(9)), (Some("b".to_owned()), Ok(3))]);
        let client = |client, written| Contributed { client, written, under_way: Some(2) };
        let open = OpenRound { round: 2, phase: Phase::Gathering, proposer: None, nodes: 0 };
        let mut is_told = |open| {
            state.stands(Some(open), [client(7, 3), client(8, 5)].into_iter());
            let is_new = seen.has_changed().is_ok_and(|is_new| is_new);
            seen.mark_unchanged();
            is_new
        };
        assert!(is_told(open) && !is_told(open), "nothing new is told");
        assert!(is_told(OpenRound { nodes: 1, ..open }), "who waits sees that more came");
        assert!(is_told(OpenRound { phase: Phase::Asking, ..open }));
        let client = Holder { node: NodeId([1; 32]), incarnation: 8 };
        state.happened(Some(1), &Event::Receipted(ContributionId { client, seq: 4 }), Mono(0));
        let JobProgress { parts, open, .. } = state.progress();
        assert_eq!(open.map(|open| open.phase), Some(Phase::Asking));
        let gave = |one: &PartProgress| (one.client, one.written, one.receipted, one.under_way);
        let gave: Vec<_> = parts.iter().map(gave).collect();
        assert_eq!(gave, [(7, 3, 0, Some(2)), (8, 5, 4, Some(2))]);
    }

    #[test]
    fn a_node_has_left_once_the_epsilon_of_all_its_clients_is_spent() {
        let told = run(&job_file("rounds = 1", ""), false).told;
        let state = JobState::new("small", &told, watch::Sender::new(()));
        let part = |name: &str| Some(name.to_owned());
        let no = Err("no such file".to_owned());
        state.takes_part(vec![(part("a"), Ok(9)), (part("b"), Ok(3)), (part("c"), no)]);
        let left = |state: &JobState| {
            let JobProgress { parts, has_left, .. } = state.progress();
            (parts.iter().map(|part| part.has_left).collect::<Vec<_>>(), has_left)
        };
        assert_eq!(left(&state), (vec![false; 3], false));
        let spent = MicroEpsilon(4_000_000);
        state.happened(Some(1), &Event::PrivacySpent { spent }, Mono(0));
        assert_eq!(left(&state), (vec![false, true, false], false));
        let (epsilon, cap, whose) = (MicroEpsilon(4_011_912), spent, Bound::Job);
        let denied = Event::PrivacyDenied(Overspent { epsilon, cap, whose });
        state.happened(Some(0), &denied, Mono(0));
        assert_eq!(left(&state), (vec![true, true, false], true));
        let JobProgress { lines, .. } = state.progress();
        let [spent, denied] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(spent, "b: contributes no more: its epsilon is spent, 4.00 on this job");
        assert!(denied.contains("epsilon would be 4.02 of 4.00; "), "{denied}");
        state.takes_no_part("no data".to_owned());
        assert!(!left(&state).1, "it follows");
    }

    #[test]
    fn what_a_round_waits_for_is_told_as_long_as_it_waits() {
        let ran = run(&job_file("rounds = 1", ""), false);
        let state = JobState::new("small", &ran.told, watch::Sender::new(()));
        let job = &ran.told.job;
        let below = |round| Event::BelowFloor { round, found: 1 };
        state.happened(None, &below(0), Mono(0));
        let told = |state: &JobState| {
            let JobProgress { too_few, lines, .. } = state.progress();
            (too_few, lines)
        };
        assert_eq!(told(&state), (Some(0), Vec::new()));
        let stands = |nodes| {
            let open = OpenRound { round: 0, phase: Phase::Gathering, proposer: None, nodes };
            state.stands(Some(open), std::iter::empty());
            told(&state).0
        };
        assert_eq!((stands(1), stands(1)), (Some(0), Some(0)), "nobody else came");
        assert_eq!(stands(2), None, "one more came");
        state.happened(None, &below(0), Mono(0));
        assert_eq!(stands(2), Some(0));
        state.follows(job, &ran.tip);
        assert_eq!(told(&state), (None, Vec::new()), "the round is over");
    }

    #[test]
    fn why_a_contribution_does_not_count_is_told_in_words() {
        let told = run(&job_file("rounds = 1", ""), false).told;
        let state = JobState::new("small", &told, watch::Sender::new(()));
        state.takes_part(vec![(None, Ok(9))]);
        let client = Holder { node: NodeId([1; 32]), incarnation: 8 };
        for (seq, why) in [(1, Why::Stale), (2, Why::Reconfigured)] {
            let event = Event::Expired(ContributionId { client, seq }, why);
            state.happened(Some(0), &event, Mono(0));
        }
        let JobProgress { lines, expired, .. } = state.progress();
        assert_eq!(expired, 2);
        let [late, replaced] = &lines[..] else { panic!("{lines:?}") };
        assert!(late.starts_with("contribution 1 does not count: it came too"), "{late}");
        assert!(replaced.starts_with("contribution 2 does not count: the anchors"), "{replaced}");
    }

    #[test]
    fn who_was_in_a_sum_that_cannot_be_is_named_and_counted() {
        let told = run(&job_file("rounds = 1", ""), false).told;
        let state = JobState::new("small", &told, watch::Sender::new(()));
        state.takes_part(vec![(None, Ok(9))]);
        let id = |node: u8| {
            let client = Holder { node: NodeId([node; 32]), incarnation: 1 };
            ContributionId { client, seq: 3 }
        };
        let ids: Vec<ContributionId> = (0..20).map(id).collect();
        state.happened(None, &Event::LeftOut { round: 6, ids: ids[..2].to_vec() }, Mono(0));
        state.happened(None, &Event::LeftOut { round: 7, ids: ids.clone() }, Mono(0));
        let (id, why) = (ids[0], Refused::Beyond);
        let from = id.client.node;
        state.happened(Some(0), &Event::Refused { id, from, why }, Mono(0));
        let JobProgress { refused, refusals, lines, .. } = state.progress();
        assert_eq!(refused.into_iter().collect::<Vec<_>>(), [("beyond", 22)]);
        assert_eq!(refusals.len(), 20);
        let times = |at: usize| refusals[&ids[at].client.node]["beyond"];
        assert_eq!((times(1), times(2)), (2, 1));
        let [seventh, eighth, own] = &lines[..] else { panic!("{lines:?}") };
        let names = ids.iter().map(|id| id.client.node.short());
        assert!(seventh.starts_with("round 7: one of "), "{seventh}");
        assert_eq!(names.clone().filter(|name| seventh.contains(name)).count(), 2, "{seventh}");
        assert_eq!(names.filter(|name| eighth.contains(name)).count(), 16, "{eighth}");
        assert!(eighth.contains("4 more"), "{eighth}");
        assert!(own.contains("contribution 3 does not count"), "{own}");
    }

    #[test]
    fn whoever_sent_what_is_refused_is_blamed_and_nobody_whose_name_is_on_it() {
        let told = run(&job_file("rounds = 1", ""), false).told;
        let state = JobState::new("small", &told, watch::Sender::new(()));
        let (liar, victim) = (NodeId([1; 32]), NodeId([2; 32]));
        let client = Holder { node: victim, incarnation: 1 };
        let id = ContributionId { client, seq: 1 };
        let sent = Event::Refused { id, from: liar, why: Refused::Sender };
        assert!(state.happened(None, &sent, Mono(0)), "it is said");
        assert!(!state.happened(None, &sent, Mono(1)), "and not again at once");
        // Another node's word that a contribution does not count is no reason to say so.
        let forged = Event::Refused { id, from: liar, why: Refused::Beyond };
        assert!(!state.happened(Some(0), &forged, Mono(2)));
        let what = "a receipt that does not fit".to_owned();
        assert!(state.happened(Some(0), &Event::Misdeed { by: liar, what }, Mono(3)));
        let JobProgress { refused, refusals, lines, .. } = state.progress();
        assert_eq!(refused, BTreeMap::from([("sender", 2)]));
        let of_liar = BTreeMap::from([("misdeed", 1), ("sender", 2)]);
        assert_eq!(refusals, BTreeMap::from([(liar, of_liar)]));
        let [first, second] = &lines[..] else { panic!("{lines:?}") };
        assert!(first.starts_with(&format!("refused a contribution of {}", liar.short())));
        assert!(second.ends_with("sent a receipt that does not fit"), "{second}");
    }
}
