//! Whether data fit a job before the job is told: this node's own, and those of all members.
//!
//! Owns the question over links, its bounds, and the one way in which a part of this node's data
//! becomes what a client trains on: whoever is asked goes it as whoever trains does. What an answer
//! may say is [`selvedge_federated::fits`]'s; why data do not fit in full stays with the node that
//! has them: in its log, and in its own operator's report.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::{Code, Micros, Mono, NodeId, Refusal, Stage};
use selvedge_core::{FitsWord, Opening};
use selvedge_federated::fits::{Answer, Fit, FitsReply, Misfit, Outlook, Verdict};
use selvedge_federated::refusals::Refusals;
use selvedge_federated::round::{Job, Seat};
use selvedge_net::{FrameSender, Link, NetError, clock};
use selvedge_proto::records::check_name;
use selvedge_proto::seal::sealing_key;
use selvedge_proto::settings::MAX_CONTENT_BYTES;
use selvedge_proto::swim::PeerState;
use selvedge_train::{Requests, Source, TrainError, Wrong};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::disk::Part;
use super::jobs::{DataSource, Federation};
use super::labelled::{Lessons, log_of};
use super::ledger::LedgerLine;
use super::member::ledger_name;
use super::rests::Rests;
use super::trainer::{Data, labelled, try_out};
use super::{Announced, AnnouncedError, BaseModel, JobSpec, Task, key_of};
use crate::handoff::{CONTROL_PRIORITY, begin};
use crate::shared::Shared;

/// The wire version that knows the question.
const SINCE: u8 = 12;
/// Askers whose questions are looked at or wait: some operators of a mesh at once. One looks, and
/// each asks one thing at a time.
const MAX_ASKING: usize = 4;
/// How long a node looks at its data, its wait for other questions included: somebody stands before
/// a terminal meanwhile. A disk reads a gigabyte in it; whoever has more says that it is late,
/// which keeps nobody from starting a job.
const LOOK_WITHIN: Micros = Micros::secs(10);
/// How long a link to a member that is there is waited for: as long as one takes that was lost and
/// is dialled again on a LAN.
const LINK_WITHIN: Micros = Micros::secs(2);
/// How long an answer may take: the look, and two seconds for the way there and back.
const ANSWER_WITHIN: Micros = Micros::secs(12);
/// A question is not a job: the number that tells jobs apart is the same for all. The same question
/// is the same bytes.
const NONCE: u64 = 0;

/// Members that a refusal names: some lines of a terminal. All of them are in the report.
const MAX_NAMED: usize = 8;

/// What is said of who has data looked at, beside the words of reasons.
const LOOKS: &str = "looks";

/// Why a part of this node's data is not trained on.
#[derive(Debug)]
pub(super) struct Unfit {
    /// What others may hear.
    pub(super) reason: Misfit,
    /// What only this node's own people may: it may have parts of a file in it.
    pub(super) why: String,
}

/// What all members said of a job that is not told yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FitsReport {
    /// What the job is called.
    pub name: String,
    /// The name of the data that it trains on.
    pub data: String,
    /// Every member: this node first, the others by name.
    pub nodes: Vec<NodeFits>,
    /// What follows.
    pub verdict: Verdict,
    /// Anchors of the job.
    pub anchors: usize,
    /// Members that could be one now.
    pub anchors_reached: usize,
    /// Examples beyond which a client counts no more; none where all count alike.
    pub max_examples: Option<u32>,
    /// Rounds of the job.
    pub rounds: u64,
    /// Of a thousand clients so many are asked first in a round.
    pub sample_permille: u32,
    /// Contributions of a client that the job's epsilon allows, where it has privacy.
    pub allowed: Option<u64>,
    /// The same of this node's data, less what earlier jobs had of them; of parts, of the one that
    /// has most left. None where they do not train.
    pub left: Option<u64>,
}

/// What a node's own people may hear of its data, beside what all may.
#[derive(Debug, Default)]
struct OwnLook {
    /// Why they do not fit, in full.
    why: Option<String>,
    /// How many contributions to the job they have epsilon for, where it has privacy.
    left: Option<u64>,
}

impl From<String> for OwnLook {
    fn from(why: String) -> Self {
        Self { why: Some(why), left: None }
    }
}

/// What a member said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFits {
    /// The member.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// What it said.
    pub answer: Answer,
    /// Of this node: why its data do not fit, in full.
    pub why: Option<String>,
}

impl FitsReport {
    /// Whether rounds of the job could end with the members that are there, those that did not say
    /// among them.
    ///
    /// # Errors
    /// A refusal with who does not fit for which reason, and what to do.
    pub(crate) fn may_start(&self) -> Result<(), Refusal> {
        let Verdict { needed, nodes, away, .. } = self.verdict;
        if self.verdict.outlook() != Outlook::TooFew {
            return Ok(());
        }
        let unfit = self.nodes.iter().filter_map(|one| {
            let Answer::Said(fit) = one.answer else { return None };
            let misfit = fit.misfit.filter(|_| !fit.trains())?;
            Some(format!("{} ({})", one.name, misfit.word()))
        });
        let unfit: Vec<String> = unfit.collect();
        let fit = if nodes == 1 { "node fits" } else { "nodes fit" };
        let mut why = format!("{nodes} {fit}, and a round needs {needed} nodes: too few");
        if !unfit.is_empty() {
            why.push_str("; without data that fit: ");
            why.push_str(&unfit[..unfit.len().min(MAX_NAMED)].join(", "));
        }
        if unfit.len() > MAX_NAMED {
            why.push_str(&format!(" and {} more", unfit.len() - MAX_NAMED));
        }
        if away > 0 {
            let are = if away == 1 { "member is" } else { "members are" };
            why.push_str(&format!("; {away} {are} away"));
        }
        why.push_str(
            "; POST /admin/federated-check says what each member says, and with `anyway` the job \
             starts for nodes that come later",
        );
        Err(Refusal::client(Stage::Validate, Code::InvalidRequest, why))
    }
}

/// The questions that this node answers now.
pub(super) struct Checks {
    /// One reads data at a time, whether for a question or for a job.
    turn: Arc<Semaphore>,
    asking: Mutex<BTreeSet<NodeId>>,
    rests: Mutex<Rests>,
    /// What this node's people were told of them.
    said: Mutex<Refusals>,
}

/// Held by whatever reads, until it has: also where nobody waits for it any more.
pub(super) type Turn = Arc<OwnedSemaphorePermit>;

/// A place among those who ask.
struct Place<'a> {
    checks: &'a Checks,
    asker: NodeId,
    /// When what it asks is looked at: after its last question's rest.
    begins: Mono,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.checks.rests.lock().over(clock::mono(), self.asker, self.begins);
        self.checks.asking.lock().remove(&self.asker);
    }
}

impl Default for Checks {
    fn default() -> Self {
        let turn = Arc::new(Semaphore::new(1));
        Self { turn, asking: Mutex::default(), rests: Mutex::default(), said: Mutex::default() }
    }
}

impl Checks {
    /// A place for whoever asks; none for a second question of the same node, nor while as many ask
    /// as may.
    fn place(&self, asker: NodeId) -> Option<Place<'_>> {
        let mut asking = self.asking.lock();
        let is_taken = asking.len() < MAX_ASKING && asking.insert(asker);
        drop(asking);
        let now = clock::mono();
        let begins = now.plus(self.rests.lock().left(now, &asker));
        is_taken.then(|| Place { checks: self, asker, begins })
    }

    /// The turn to read data; whoever comes first has it first. Nobody who has it asks for it
    /// again.
    ///
    /// # Errors
    /// Never, as long as the node runs.
    pub(super) async fn turn(&self) -> Result<Turn, String> {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        turn.map(Arc::new).map_err(|error| error.to_string())
    }
}

/// A part of this node's data, as a client trains on it.
pub(super) struct PartRead {
    pub(super) data: Arc<Data>,
    pub(super) ledger: LedgerLine,
    /// Labelled requests that do not fit the job.
    pub(super) left_out: u64,
}

impl Unfit {
    fn new(reason: Misfit, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }

    fn failed(why: &dyn std::fmt::Display) -> Self {
        Self::new(Misfit::Failed, why.to_string())
    }

    fn of_job(error: &AnnouncedError) -> Self {
        let reason = match error {
            AnnouncedError::First => Misfit::Processor,
            AnnouncedError::Version(_)
            | AnnouncedError::Bytes(_)
            | AnnouncedError::Unbound
            | AnnouncedError::Wide(_)
            | AnnouncedError::Key(_)
            | AnnouncedError::Job(_)
            | AnnouncedError::Epidemic(_)
            | AnnouncedError::Model(_)
            | AnnouncedError::Weight(_) => Misfit::Program,
        };
        Self::new(reason, error.to_string())
    }
}

/// What others may hear of an error: nothing of its text.
const fn misfit(error: &TrainError) -> Misfit {
    match error {
        TrainError::Io { .. } => Misfit::File,
        TrainError::Malformed { wrong, .. } => match wrong {
            Wrong::Content => Misfit::Content,
            Wrong::Columns => Misfit::Columns,
            Wrong::Classes => Misfit::Classes,
            Wrong::Empty => Misfit::Few,
        },
        TrainError::Schema(_) => Misfit::Columns,
        TrainError::TooLarge { .. } => Misfit::Large,
        // What is read is planned for: whether anything is left to train on.
        TrainError::Plan(_) => Misfit::Few,
        TrainError::Model(_) | TrainError::Base(_) => Misfit::Base,
        TrainError::Diverged { .. }
        | TrainError::Stopped
        | TrainError::Unclear { .. }
        | TrainError::Compute(_) => Misfit::Failed,
    }
}

impl Federation {
    /// Reads a part of this node's data as a client trains on it. `other` are data of this node for
    /// the same job; `turn` is held for as long as it takes.
    ///
    /// # Errors
    /// [`Unfit`].
    pub(super) async fn read_part(
        &self,
        shared: &Arc<Shared>,
        (rules, task): (&Job, &Arc<Task>),
        (part, own): (&Part, &DataSource),
        other: Option<Arc<Data>>,
        turn: Turn,
    ) -> Result<PartRead, Unfit> {
        let name = ledger_name(&task.data, part);
        if own.cap.is_some() && rules.privacy.is_none() {
            let why =
                format!("its data '{name}' have a bound of epsilon, and the job has no [privacy]");
            return Err(Unfit::new(Misfit::Privacy, why));
        }
        let ledger = self.ledger(&name, own).map_err(|error| Unfit::failed(&error))?;
        let base = match task.subject.as_tuning() {
            Some(tuning) => {
                let file = BaseModel::file_of(&self.parts.bases, tuning);
                Some(file.map_err(|why| Unfit::new(Misfit::Base, why))?)
            }
            None => None,
        };
        let (from, reading) = (own.source.clone(), Arc::clone(task));
        let (log, shared) = (Arc::clone(self.log()), Arc::clone(shared));
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let unread = |error: TrainError| (misfit(&error), error.to_string());
            if let Source::Requests(Requests { model }) = &from {
                let is_labelled = reading.subject.as_model().is_some();
                let reason = if is_labelled { Misfit::Failed } else { Misfit::Columns };
                let lessons = log_of(&log, &shared, model, &reading.subject);
                let lessons = lessons.map_err(|why| (reason, why))?;
                let left_out = lessons.unfit;
                let data = Data::of(&reading, lessons).map_err(unread)?;
                return Ok((data, left_out));
            }
            let data = Data::read(&from, &reading, base.as_deref(), other.as_deref());
            Ok::<_, (Misfit, String)>((data.map_err(unread)?, 0))
        });
        let read = read.await.map_err(|error| Unfit::failed(&error))?;
        let unfit = |(reason, why): (Misfit, String)| {
            Unfit::new(reason, format!("its data '{name}' do not fit: {why}"))
        };
        let (data, left_out) = read.map_err(unfit)?;
        Ok(PartRead { data: Arc::new(data), ledger, left_out })
    }

    /// Looks at this node's own data for whoever asks: what others may hear, and why in full.
    async fn looked(
        &self,
        shared: &Arc<Shared>,
        asker: NodeId,
        job: Vec<u8>,
    ) -> (FitsReply, OwnLook) {
        let Some(place) = self.checks.place(asker) else {
            return (FitsReply::Busy, OwnLook::default());
        };
        let look = async {
            // Not refused meanwhile: whoever starts a job right after it checked it wants to know.
            tokio::time::sleep(place.begins.since(clock::mono()).into()).await;
            self.look_at_own(shared, job).await
        };
        match tokio::time::timeout(LOOK_WITHIN.into(), look).await {
            Ok(Ok((fit, own))) => (FitsReply::Looked(fit), own),
            Ok(Err(Unfit { reason, why })) => (FitsReply::Looked(Fit::not(reason)), why.into()),
            Err(_late) => (FitsReply::Late, OwnLook::default()),
        }
    }

    async fn look_at_own(
        &self,
        shared: &Arc<Shared>,
        job: Vec<u8>,
    ) -> Result<(Fit, OwnLook), Unfit> {
        if job.len() > MAX_CONTENT_BYTES {
            let why = format!("a job of {} bytes; it has {MAX_CONTENT_BYTES} at most", job.len());
            return Err(Unfit::new(Misfit::Program, why));
        }
        let turn = self.checks.turn().await.map_err(|error| Unfit::failed(&error))?;
        let held = Arc::clone(&turn);
        let read = tokio::task::spawn_blocking(move || {
            let _turn = held;
            let told = Announced::from_bytes(&job)?;
            // Whoever comes to other first weights follows no round.
            told.first()?;
            Ok::<_, AnnouncedError>(told)
        });
        let told = read.await.map_err(|error| Unfit::failed(&error))?;
        let Announced { job, task, .. } = told.map_err(|error| Unfit::of_job(&error))?;
        if let Some(why) = self.is_full() {
            return Err(Unfit::new(Misfit::Full, why));
        }
        let Some(parts) = self.parts.data.get(&task.data) else {
            return Err(Unfit::new(Misfit::Source, no_source(&task.data)));
        };
        let task = Arc::new(task);
        let (mut fit, mut look) = (Fit::default(), OwnLook::default());
        let mut first: Option<Arc<Data>> = None;
        for own in parts.iter().take(usize::from(job.per_node)) {
            let (other, turn) = (first.clone(), Arc::clone(&turn));
            match self.read_part(shared, (&job, &task), own, other, turn).await {
                Ok(PartRead { ledger, .. }) if spent(&job, &ledger) => {
                    fit = fit.but(Misfit::Spent);
                    let name = ledger_name(&task.data, own.0);
                    look.why.get_or_insert_with(|| too_little(&name, own.1));
                }
                Ok(PartRead { data, ledger, .. }) => {
                    fit = fit.with(&job, data.len() as u64);
                    let left = job.privacy.and_then(|privacy| ledger.left_for(&privacy));
                    look.left = look.left.max(left);
                    first.get_or_insert(data);
                }
                Err(unfit) => {
                    fit = fit.but(unfit.reason);
                    look.why.get_or_insert(unfit.why);
                }
            }
        }
        Ok((fit, look))
    }

    /// Asks all members whether their data fit the job of a file, and looks at this node's own.
    /// With `starts` it is to be started then.
    ///
    /// # Errors
    /// A refusal with what is wrong with the file, or with the mesh for it; of what is to be
    /// started, also where this node may not sign or a job has the name, before anybody is asked.
    pub(crate) async fn ask_all(
        &self,
        shared: &Arc<Shared>,
        members: Vec<(NodeId, String)>,
        (text, starts): (&str, bool),
    ) -> Result<FitsReport, Refusal> {
        let bad = |why: String| Refusal::client(Stage::Validate, Code::InvalidRequest, why);
        let (spec, first) = self.checked(shared, text).await?;
        if starts {
            shared.routing.may_tell_job(&key_of(&spec.name))?;
        }
        let (seats, anchors_reached) = self.any_anchors(shared, &spec, &members);
        let told = spec.told(NONCE, &seats, Task::digest_of(&first), self.me());
        let told = told.map_err(|why| bad(why.to_string()))?;
        let content = told.to_bytes().map_err(|why| bad(why.to_string()))?;
        let (job, me) = (&told.job, self.me());
        let named = |node: NodeId, name: &str| {
            let view = shared.view.load();
            let is_named = view.node(&node).is_some_and(|node| !node.name.is_empty());
            match check_name(name) {
                Ok(()) if !is_named => name.to_owned(),
                Ok(()) | Err(_) => view.name_of(&node),
            }
        };
        let own = self.looked(shared, me, content.clone());
        let others = members.into_iter().filter(|(node, _)| *node != me).map(|(node, name)| {
            let name = named(node, &name);
            let asked = self.ask(shared, node, &told, content.clone());
            async move { NodeFits { node, name, answer: asked.await, why: None } }
        });
        let others = futures::future::join_all(others);
        let ((reply, OwnLook { why, left }), mut others) = futures::future::join(own, others).await;
        others.sort_by(|one, other| (&one.name, one.node).cmp(&(&other.name, other.node)));
        let mut nodes =
            vec![NodeFits { node: me, name: named(me, ""), answer: answer_of(reply, job), why }];
        nodes.append(&mut others);
        let verdict = Verdict::of(job, nodes.iter().map(|one| one.answer));
        let JobSpec { name, data, .. } = spec;
        let anchors = job.scheme.anchors();
        let max_examples = job.privacy.is_none().then_some(job.max_examples);
        let allowed = job.privacy.map(|privacy| privacy.contributions());
        Ok(FitsReport {
            name,
            data,
            nodes,
            verdict,
            anchors,
            anchors_reached,
            max_examples,
            rounds: job.rounds,
            sample_permille: job.sample_permille,
            allowed,
            left,
        })
    }

    /// Anchors for the question: those that could be, then whoever is away and may be back. And how
    /// many could be now.
    fn any_anchors(
        &self,
        shared: &Shared,
        spec: &JobSpec,
        members: &[(NodeId, String)],
    ) -> (Vec<Seat>, usize) {
        let mut seats = self.can_be_anchors(shared, NONCE, spec.since());
        let reached = seats.len();
        let known: BTreeSet<NodeId> = seats.iter().map(|seat| seat.node).collect();
        let away = members.iter().filter(|(node, _)| !known.contains(node));
        seats.extend(
            away.filter_map(|(node, _)| Some(Seat { node: *node, key: sealing_key(node)? })),
        );
        (seats, reached)
    }

    /// The link to a member; waits for one a moment where the member is there. One that is there
    /// for others and not linked from here may train all the same.
    async fn linked(&self, shared: &Shared, node: NodeId) -> Result<Link, Answer> {
        let mut changes = shared.view_changed.subscribe();
        let waits = async {
            loop {
                let link = self.endpoint().link(&node).filter(|link| !link.is_closed());
                let is_over = link.is_some() || !is_there(shared, node);
                if is_over || changes.changed().await.is_err() {
                    return link;
                }
            }
        };
        let link = tokio::time::timeout(LINK_WITHIN.into(), waits).await.ok().flatten();
        link.ok_or_else(|| if is_there(shared, node) { Answer::Unreached } else { Answer::Away })
    }

    /// Asks one member.
    async fn ask(
        &self,
        shared: &Shared,
        node: NodeId,
        told: &Announced,
        content: Vec<u8>,
    ) -> Answer {
        let asked = async {
            let link = match self.linked(shared, node).await {
                Ok(link) => link,
                Err(answer) => return answer,
            };
            if link.version() < told.since() {
                return Answer::Said(Fit::not(Misfit::Program));
            }
            if link.version() < SINCE {
                return Answer::Older;
            }
            match exchange(&link, FitsWord { job: content }).await {
                Ok(reply) => answer_of(reply, &told.job),
                Err(error) => {
                    tracing::debug!(peer = %node.short(), %error, "a node did not say if it fits");
                    // What went wrong with one question on a link that stands is no absence.
                    if link.is_closed() { Answer::Away } else { Answer::Late }
                }
            }
        };
        tokio::time::timeout(ANSWER_WITHIN.into(), asked).await.unwrap_or(Answer::Late)
    }

    /// Tells this node's own people that a member has data here looked at.
    fn tell_of(&self, shared: &Shared, asker: NodeId, reply: FitsReply) {
        let is_looked_at = match reply {
            FitsReply::Looked(fit) => fit.misfit != Some(Misfit::Source),
            FitsReply::Late => true,
            FitsReply::Busy => false,
        };
        if is_looked_at && self.checks.said.lock().note(clock::mono(), asker, LOOKS, 1).is_some() {
            let node = shared.view.load().name_of(&asker);
            tracing::info!(node, "a member asks whether data here fit a job; they are looked at");
        }
    }

    /// Tells this node's own people why its data do not fit, at a pace that they can read.
    fn tell(&self, shared: &Shared, asker: NodeId, misfit: Misfit, why: &str) {
        let reason = misfit.word();
        // Most nodes have no data for most jobs.
        if misfit == Misfit::Source {
            tracing::debug!(peer = %asker.short(), why, "this node would not train for a job");
            return;
        }
        if self.checks.said.lock().note(clock::mono(), asker, reason, 1).is_some() {
            let node = shared.view.load().name_of(&asker);
            tracing::warn!(node, reason, why, "data here do not fit a job that a node may start");
        }
    }

    /// Whether this node's own data are what the job says, as far as it would train on them; one
    /// that has none has no say in it, and labelled requests may come later.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub(super) async fn own_fit(&self, shared: &Arc<Shared>, spec: &JobSpec) -> Result<(), String> {
        let most = usize::from(spec.rules().per_node);
        for (part, own) in self.parts.data.get(&spec.data).into_iter().flatten().take(most) {
            let turn = self.checks.turn().await?;
            let read = self.own_fits(shared, spec, own, turn).await;
            let name = ledger_name(&spec.data, part);
            read.map_err(|why| format!("this node's data '{name}' do not fit: {why}"))?;
        }
        Ok(())
    }

    async fn own_fits(
        &self,
        shared: &Arc<Shared>,
        spec: &JobSpec,
        own: &DataSource,
        turn: Turn,
    ) -> Result<(), String> {
        let (source, subject) = (own.source.clone(), spec.subject.clone());
        if let Source::Requests(Requests { model }) = &source {
            let (log, model) = (Arc::clone(self.log()), model.clone());
            let shared = Arc::clone(shared);
            let reading = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                let Lessons { values, labels, .. } = log_of(&log, &shared, &model, &subject)?;
                // There may be none yet.
                let read = (!labels.is_empty()).then(|| labelled(&subject, values, labels));
                read.transpose().map(drop).map_err(|error| error.to_string())
            });
            return reading.await.map_err(|error| error.to_string())?;
        }
        let base = match spec.subject.as_tuning() {
            Some(tuning) => Some(BaseModel::file_of(&self.parts.bases, tuning)?),
            None => None,
        };
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            try_out(&source, &subject, base.as_deref())
        });
        let read = reading.await.map_err(|error| error.to_string())?;
        read.map_err(|error| error.to_string())
    }
}

/// Whether the mesh sees a member.
fn is_there(shared: &Shared, node: NodeId) -> bool {
    shared.view.load().node(&node).is_some_and(|node| node.state == PeerState::Alive)
}

/// Why a node without data for a job does not train for it.
pub(super) fn no_source(name: &str) -> String {
    format!(
        "it has no data '{name}': a [[data]] table of its configuration gives it some, and a \
         restart, if it was added since the node started"
    )
}

/// Whether nothing of a job could leave any more. Of one that runs already, what was paid for goes
/// out all the same, so only who looks asks this.
fn spent(job: &Job, ledger: &LedgerLine) -> bool {
    job.privacy.is_some_and(|privacy| ledger.is_spent_for(&privacy))
}

/// The same in words, and what to do.
fn too_little(name: &str, own: &DataSource) -> String {
    if own.cap.is_some() {
        return format!(
            "what is left of the bound of epsilon of its data '{name}' is less than one \
             contribution of the job costs: take part with other data, or raise the bound"
        );
    }
    format!(
        "its data '{name}' have no bound of epsilon, so all that they gave to earlier jobs counts \
         against what this one promises, and not one contribution is left: take part with other \
         data, or give them a bound (`epsilon = N` in their [[data]] table) that all jobs share"
    )
}

fn answer_of(reply: FitsReply, job: &Job) -> Answer {
    match reply {
        FitsReply::Looked(fit) => Answer::Said(fit.within(job)),
        FitsReply::Busy => Answer::Busy,
        FitsReply::Late => Answer::Late,
    }
}

async fn exchange(link: &Link, word: FitsWord) -> Result<FitsReply, NetError> {
    let (mut sender, mut receiver) = link.open(CONTROL_PRIORITY).await?;
    begin(&mut sender, &Opening::Fits(Box::new(word))).await?;
    sender.finish();
    let nothing = || NetError::Lost("the peer said nothing".to_owned());
    receiver.recv::<FitsReply>().await?.ok_or_else(nothing)
}

/// Answers a member that asks whether this node's data fit a job.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    from: NodeId,
    word: FitsWord,
    mut sender: FrameSender,
) -> Result<(), NetError> {
    let federation = &shared.federation;
    let (reply, OwnLook { why, .. }) = tokio::select! {
        looked = federation.looked(shared, from, word.job) => looked,
        // Nobody waits for it any more; what reads goes on to its end.
        () = sender.stopped() => return Ok(()),
    };
    federation.tell_of(shared, from, reply);
    if let (FitsReply::Looked(Fit { misfit: Some(misfit), .. }), Some(why)) = (reply, &why) {
        federation.tell(shared, from, misfit, why);
    }
    sender.send(&reply).await?;
    sender.finish();
    Ok(())
}

#[cfg(test)]
#[path = "fits_tests.rs"]
mod tests;
