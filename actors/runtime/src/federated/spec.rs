//! A job as people write it, checked: a model, its data by name, its rules and its pace.
//!
//! Owns the form of a job file and every bound of it that is not the round's own. Touches no data:
//! a job names a source, and each node's configuration says what that is. Numbers with a point
//! become millionths here, so that what is told to other nodes is whole numbers.

use selvedge_base::{Micros, NodeId};
use selvedge_federated::epidemic::{Epidemic, EpidemicError};
use selvedge_federated::fixed::{Clip, ClipError, MODEL_BITS};
use selvedge_federated::privacy::Privacy;
use selvedge_federated::privacy::accountant::{MicroEpsilon, PicoDelta};
use selvedge_federated::privacy::adaptive::Adaptive;
use selvedge_federated::proof::CHECKS;
use selvedge_federated::robust::Rule;
use selvedge_federated::round::{Committee, Digest, Guard, Job, JobError, Mode, Pace, Seat};
use selvedge_federated::server::Strategy;
use selvedge_federated::shamir::Scheme;
use selvedge_train::{Layer, Model, Schema, Shape, Subject, Target, TrainError, Tuning};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bases::BaseFacts;
use super::hints;
use super::task::{Announced, AnnouncedError, MAX_HELD_OUT, Task};

/// The wire version that knows rounds.
const ROUNDS_SINCE: u8 = 6;
/// The one whose nodes read jobs that are told in more than the first version of a setting.
const MORE_SINCE: u8 = 7;
/// The first one all of whose nodes know jobs with several clients of one node.
const SHARING_SINCE: u8 = 8;
/// The one whose nodes prove their shares and know sums in groups.
const PROVEN_SINCE: u8 = 11;

/// The longest job file: a hundred times the longest sensible one.
const MAX_TEXT_BYTES: usize = 64 << 10;
/// The longest name of a job or a source: what fits a column of a table.
const MAX_NAME: usize = 64;
/// What the largest thing of a round may take: the end of a round, with all its parts, is one
/// message and one record on the disk, which hold 8 MiB; a quarter of a MiB is left for the
/// certificate of a thousand clients.
pub(super) const MAX_ROUND_BYTES: usize = (8 << 20) - (256 << 10);
/// Bytes of an element of the field, and of a level of an update, as they are written at most.
const ELEMENT_BYTES: usize = 5;
/// Bytes of one value of an open sum at most.
const OPEN_BYTES: usize = 10;
/// The longest time of a pace: a day, after which somebody should look.
const MAX_PACE_MS: u64 = 24 * 3_600 * 1_000;
/// What a number with a point is counted in.
const MILLION: f64 = 1_000_000.0;
/// What a chance is counted in.
const PICO: f64 = 1e12;
/// The least and the greatest delta: the unit of the round's own, and what it allows.
const MIN_DELTA: f64 = 1e-12;
/// See [`MIN_DELTA`].
const MAX_DELTA: f64 = 1e-3;
/// The greatest number with a point: far above every rate, clip or pull that trains.
const MAX_NUMBER: f64 = 1_000.0;
/// Passes and examples in a step; the trainer has the same bounds.
const MAX_EPOCHS: u32 = 1_000;
/// See [`MAX_EPOCHS`].
const MAX_BATCH: u32 = 4_096;

/// Why a job file is not taken.
#[derive(Debug, Error)]
pub enum SpecError {
    /// It is longer than any job.
    #[error("the job file has {0} bytes; a job has at most {MAX_TEXT_BYTES}")]
    Length(usize),
    /// It is no TOML, or has other fields.
    #[error("the job file is not right: {0}")]
    Form(String),
    /// A name cannot be used.
    #[error("{field} is '{value}'; it needs 1 to {MAX_NAME} letters a-z, digits, '-' and '_'")]
    Name {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// A number is out of range.
    #[error("{field} is {value}; allowed: {allowed}")]
    Number {
        /// Which field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What would be right.
        allowed: String,
    },
    /// The model cannot be built.
    #[error("[model]: {0}")]
    Model(#[from] TrainError),
    /// The base model of a tuning cannot be had.
    #[error("model.base '{name}': {why}")]
    Base {
        /// What the file says.
        name: String,
        /// Why not.
        why: String,
    },
    /// A table says too little, or of both kinds of models something.
    #[error("[model] {0}")]
    Kind(&'static str),
    /// The rounds cannot be run.
    #[error("{0}")]
    Job(#[from] JobError),
    /// The job cannot have an epidemic mode, or not this one.
    #[error("[epidemic] {0}")]
    Epidemic(#[from] EpidemicError),
    /// It cannot be told.
    #[error("{0}")]
    Told(#[from] AnnouncedError),
    /// The clip is none.
    #[error("training.clip: {0}")]
    Clip(#[from] ClipError),
    /// The mesh is too small for the anchors.
    #[error(
        "the job wants {wanted} anchors and the mesh has {found} members that could be one: set \
         'anchors' to a number that is there (5, 9 or 16), or add nodes with `selvedge mesh invite`"
    )]
    TooFew {
        /// Members that may be anchors.
        found: usize,
        /// Anchors that the job says.
        wanted: usize,
    },
    /// One round does not fit a message.
    #[error(
        "one round of this model takes {bytes} bytes and a message holds {MAX_ROUND_BYTES}: use \
         fewer weights ({weights} now){}",
        or_else
    )]
    TooWide {
        /// Bytes of the end of a round.
        bytes: usize,
        /// Weights of the model.
        weights: usize,
        /// What else would help.
        or_else: &'static str,
    },
}

/// How a client trains, in whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Training {
    /// Passes over a client's examples in a round.
    pub epochs: u32,
    /// Examples in one step.
    pub batch: u32,
    /// Length of a step, in millionths.
    pub rate_millionths: u32,
    /// FedProx's mu, in thousandths.
    pub proximal_permille: u32,
}

/// What is to be known of a language model by its name, or why it cannot be tuned.
pub type Bases<'a> = &'a dyn Fn(&str) -> Result<BaseFacts, String>;

/// A checked job file: a job but for its anchors.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// What people call it.
    pub name: String,
    /// The source of its data, by the name that nodes' configurations give it.
    pub data: String,
    /// What is learned.
    pub subject: Subject,
    /// How a client trains.
    pub training: Training,
    /// The first weights are drawn from this.
    pub seed: u64,
    /// Of a thousand examples of a node so many are only measured on.
    pub held_out_permille: u16,
    /// What nodes do while no round ends, if they do something.
    pub epidemic: Option<Epidemic>,
    /// The job without anchors: its committee is empty.
    job: Job,
}

impl JobSpec {
    /// Reads and checks a job file; `bases` says what language models there are to be tuned.
    ///
    /// # Errors
    /// [`SpecError`], the first thing that is wrong.
    pub fn from_toml(text: &str, bases: Bases<'_>) -> Result<Self, SpecError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(SpecError::Length(text.len()));
        }
        let written = toml::from_str::<Written>(text).map_err(|error| {
            SpecError::Form(format!("{}{}", error.to_string().trim_end(), hints::of(text)))
        })?;
        written.checked(bases)
    }

    /// Whether a job or a source may be called so.
    pub fn is_name(name: &str) -> bool {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(fits)
    }

    /// The job with these anchors, as it is told to the mesh by a node; `first` is the digest of
    /// the first weights.
    ///
    /// # Errors
    /// [`SpecError::TooFew`] when they are fewer than the job says, [`SpecError::Job`] when they
    /// are not all different.
    pub fn told(
        &self,
        nonce: u64,
        anchors: &[Seat],
        first: Digest,
        by: NodeId,
    ) -> Result<Announced, SpecError> {
        self.has_room(anchors.len())?;
        let seats = anchors.iter().copied().take(self.job.scheme.anchors()).collect();
        let Self { data, subject, training, seed, held_out_permille, epidemic, .. } = self.clone();
        let task = Task { data, subject, training, seed, first, held_out_permille };
        let committee = Committee { epoch: 0, seats };
        let bound = task.digest(epidemic.as_ref())?;
        let job = Job { nonce, task: bound, committee, ..self.job.clone() };
        job.check()?;
        Ok(Announced { job, task, by, epidemic })
    }

    /// The first wire version whose nodes can be its anchors.
    pub(super) fn since(&self) -> u8 {
        known_since(&self.job, self.epidemic.is_some(), &self.subject)
    }

    /// Whether so many members are enough for its anchors.
    ///
    /// # Errors
    /// [`SpecError::TooFew`].
    pub fn has_room(&self, members: usize) -> Result<(), SpecError> {
        let wanted = self.job.scheme.anchors();
        if members < wanted {
            return Err(SpecError::TooFew { found: members, wanted });
        }
        Ok(())
    }

    /// Its rules, without anchors.
    pub const fn rules(&self) -> &Job {
        &self.job
    }

    /// Bytes that a client sends in a round, to all anchors, at most.
    pub const fn upload_bytes(&self) -> usize {
        let (scheme, values) = (self.job.scheme, self.job.payload_len());
        let anchors = scheme.anchors();
        match self.job.mode {
            // Elements are sealed as four bytes each; every anchor gets the whole proof.
            Mode::Secure => {
                let sealed = 4 * (scheme.share_len(values) + CHECKS);
                anchors * (sealed + ELEMENT_BYTES * CHECKS * scheme.threshold())
            }
            Mode::Plain(_) => anchors * ELEMENT_BYTES * values,
        }
    }
}

/// The first wire version whose nodes can be anchors of a job: older ones cannot read what the
/// job's setting says, do not know clients beside each other on one node, or prove no shares.
pub(super) fn known_since(job: &Job, has_epidemic: bool, subject: &Subject) -> u8 {
    let follows = job.privacy.is_some_and(|privacy| privacy.adaptive.is_some());
    if job.guard.is_some() {
        return PROVEN_SINCE;
    }
    if job.per_node > 1 {
        return SHARING_SINCE;
    }
    let has_more = follows || has_epidemic || subject.as_model().is_none();
    if has_more { MORE_SINCE } else { ROUNDS_SINCE }
}

/// Bytes of the end of a round, and of the largest message before it.
pub(super) const fn round_bytes(job: &Job) -> usize {
    let (parts, values) = (job.openings(), job.payload_len());
    match job.mode {
        Mode::Secure => {
            // Everybody's parts may be kept, not only as many as are needed.
            job.scheme.anchors() * ELEMENT_BYTES * job.part_len()
        }
        Mode::Plain(_) => parts * OPEN_BYTES * values,
    }
}

/// The job file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    data: String,
    rounds: u64,
    #[serde(default = "five")]
    anchors: usize,
    #[serde(default = "eight")]
    min_clients: usize,
    target: Option<usize>,
    #[serde(default = "a_client")]
    clients_per_node: u8,
    #[serde(default = "all")]
    sample_permille: u32,
    #[serde(default)]
    seed: u64,
    #[serde(default = "a_tenth")]
    held_out_permille: u16,
    model: WrittenModel,
    training: WrittenTraining,
    #[serde(default)]
    strategy: WrittenStrategy,
    #[serde(default)]
    mode: WrittenMode,
    #[serde(default)]
    pace: WrittenPace,
    privacy: Option<WrittenPrivacy>,
    epidemic: Option<WrittenEpidemic>,
}

/// The smallest set of anchors there is.
const fn five() -> usize {
    5
}

/// The floor of privacy unless told otherwise: what a sum of eight says of one of them is little.
const fn eight() -> usize {
    8
}

/// Clients of a node that count unless told otherwise: what a node has then weighs as one.
const fn a_client() -> u8 {
    1
}

/// What is only measured on unless told otherwise: enough to see a model learn, and little lost.
const fn a_tenth() -> u16 {
    100
}

const fn all() -> u32 {
    1_000
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenModel {
    shape: Option<Shape>,
    classes: Option<usize>,
    hidden: Option<Vec<Layer>>,
    base: Option<String>,
    lora: Option<WrittenLora>,
    window: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenLora {
    rank: usize,
    alpha: usize,
    targets: Vec<Target>,
}

impl Default for WrittenLora {
    /// Where the paper found a small rank to be enough: queries and values.
    fn default() -> Self {
        Self { rank: 8, alpha: 16, targets: vec![Target::Q, Target::V] }
    }
}

/// Tokens of a window unless told otherwise: some sentences, in a second of a core.
const USUAL_WINDOW: usize = 128;

impl WrittenModel {
    fn checked(self, seed: u64, bases: Bases<'_>) -> Result<Subject, SpecError> {
        let Self { shape, classes, hidden, base, lora, window } = self;
        let Some(base) = base else {
            if lora.is_some() || window.is_some() {
                return Err(SpecError::Kind("has 'lora' or 'window' without a 'base' to tune"));
            }
            let (Some(shape), Some(classes)) = (shape, classes) else {
                return Err(SpecError::Kind("needs 'shape' and 'classes', or a 'base' to tune"));
            };
            let hidden = hidden.unwrap_or_default();
            return Ok(Subject::Model(Model { schema: Schema { shape, classes }, hidden }));
        };
        if shape.is_some() || classes.is_some() || hidden.is_some() {
            return Err(SpecError::Kind("has a 'base' to tune and layers of its own: one of both"));
        }
        let BaseFacts { digest, shape } = match bases(&base) {
            Ok(facts) => facts,
            Err(why) => return Err(SpecError::Base { name: plain(&base), why }),
        };
        let WrittenLora { rank, alpha, mut targets } = lora.unwrap_or_default();
        targets.sort_unstable();
        let window = window.unwrap_or(USUAL_WINDOW);
        Ok(Subject::Tuning(Tuning { base, digest, shape, rank, alpha, targets, window, seed }))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTraining {
    epochs: u32,
    batch: u32,
    learning_rate: f64,
    #[serde(default = "one")]
    clip: f64,
    #[serde(default = "ten_thousand")]
    max_examples: u32,
}

const fn one() -> f64 {
    1.0
}

/// Examples beyond which a client counts no more, unless told otherwise.
const fn ten_thousand() -> u32 {
    10_000
}

#[derive(Debug, Default, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum WrittenStrategy {
    #[default]
    FedAvg,
    FedProx {
        mu: f64,
    },
    FedAdam {
        rate: f64,
        tau: f64,
    },
    Scaffold {
        clients: u32,
    },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum WrittenMode {
    Secure {
        #[serde(default = "a_sum")]
        groups: u8,
        #[serde(default)]
        rule: WrittenRule,
    },
    Plain {
        rule: WrittenRule,
    },
}

/// Sums of a secure job unless it says more: each more wants the floor of nodes once more.
const fn a_sum() -> u8 {
    1
}

impl Default for WrittenMode {
    /// Nobody sees updates unless a job says so.
    fn default() -> Self {
        Self::Secure { groups: a_sum(), rule: WrittenRule::Mean }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum WrittenRule {
    #[default]
    Mean,
    Median,
    Trimmed {
        cut: u32,
    },
    MultiKrum {
        byzantine: u32,
        keep: u32,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPrivacy {
    noise: f64,
    norm: f64,
    honest: Option<u32>,
    delta: f64,
    epsilon: f64,
    quantile: Option<f64>,
    #[serde(default = "a_fifth")]
    norm_rate: f64,
}

/// The largest step of a norm that follows the updates, unless told otherwise: the paper's.
const fn a_fifth() -> f64 {
    0.2
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEpidemic {
    #[serde(default = "two")]
    peers: u8,
    after_ms: Option<u64>,
    #[serde(default = "ten_seconds")]
    every_ms: u64,
}

/// Peers that a personal model is told to unless said otherwise: with two, all hear of all in a few
/// steps, and a model leaves no more often than it comes.
const fn two() -> u8 {
    2
}

/// Between two steps unless said otherwise: a model of a megabyte to two peers is then a fiftieth
/// of a home's link.
const fn ten_seconds() -> u64 {
    10_000
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenPace {
    tick_ms: u64,
    stagger_ms: u64,
    gather_ms: u64,
    patience_ms: u64,
}

impl Default for WrittenPace {
    /// What suits a LAN: looks some times a second, and a round waits a minute for stragglers.
    fn default() -> Self {
        Self { tick_ms: 200, stagger_ms: 400, gather_ms: 600, patience_ms: 60_000 }
    }
}

impl Written {
    fn checked(self, bases: Bases<'_>) -> Result<JobSpec, SpecError> {
        check_name("name", &self.name)?;
        check_name("data", &self.data)?;
        let scheme = match self.anchors {
            5 => Scheme::Five,
            9 => Scheme::Nine,
            16 => Scheme::Sixteen,
            other => return Err(wrong("anchors", other, "5, 9 or 16")),
        };
        let subject = self.model.checked(self.seed, bases)?;
        let dim = subject.size()?;
        let (strategy, proximal_permille) = self.strategy.checked()?;
        let WrittenTraining { epochs, batch, learning_rate, clip, max_examples } = self.training;
        let training = Training {
            epochs: within("training.epochs", epochs, MAX_EPOCHS)?,
            batch: within("training.batch", batch, MAX_BATCH)?,
            rate_millionths: scaled("training.learning_rate", learning_rate, MILLION)?,
            proximal_permille,
        };
        let (mode, guard) = self.mode.checked();
        let privacy = self.privacy.map(|written| written.checked(mode, self.min_clients));
        let job = Job {
            nonce: 0,
            task: [0; 32],
            dim,
            clip: Clip::new(scaled("training.clip", clip, f64::from(1_u32 << MODEL_BITS))?)?,
            mode,
            scheme,
            committee: Committee { epoch: 0, seats: Vec::new() },
            min_clients: self.min_clients,
            target: 0,
            sample_permille: self.sample_permille,
            max_examples,
            // All but one: what the protocol needs for nothing to be lost.
            receipts: scheme.anchors() - 1,
            rounds: self.rounds,
            strategy,
            privacy: privacy.transpose()?,
            pace: self.pace.checked()?,
            per_node: self.clients_per_node,
            guard,
        };
        let job = Job { target: target(self.target, &job)?, ..job };
        let Self { name, data, seed, held_out_permille, epidemic, .. } = self;
        if held_out_permille > MAX_HELD_OUT {
            return Err(wrong("held_out_permille", held_out_permille, "0 to 500"));
        }
        let epidemic = epidemic.map(|written| written.checked(&job)).transpose()?;
        let spec =
            JobSpec { name, data, subject, training, seed, held_out_permille, epidemic, job };
        // The rest of the rules are the round's own; they need anchors, and any will do.
        spec.told(0, &stand_ins(scheme), [0; 32], NodeId([0; 32]))?;
        let bytes = round_bytes(&spec.job);
        if bytes > MAX_ROUND_BYTES {
            let or_else = match mode {
                Mode::Plain(_) => ", or secure mode",
                Mode::Secure if spec.job.groups() > 1 => ", or fewer groups",
                Mode::Secure => "",
            };
            return Err(SpecError::TooWide { bytes, weights: dim, or_else });
        }
        Ok(spec)
    }
}

impl WrittenStrategy {
    /// The strategy, and the thousandths of mu that its clients train with.
    fn checked(self) -> Result<(Strategy, u32), SpecError> {
        let unit = f64::from(1_u32 << MODEL_BITS);
        Ok(match self {
            Self::FedAvg => (Strategy::Average { proximal_permille: 0 }, 0),
            Self::FedProx { mu } => {
                let proximal_permille = scaled("strategy.mu", mu, 1_000.0)?;
                (Strategy::Average { proximal_permille }, proximal_permille)
            }
            Self::FedAdam { rate, tau } => {
                let rate = scaled("strategy.rate", rate, unit)?;
                (Strategy::Adam { rate, tau: scaled("strategy.tau", tau, unit)? }, 0)
            }
            Self::Scaffold { clients } => (Strategy::Scaffold { clients }, 0),
        })
    }
}

impl WrittenMode {
    const fn checked(self) -> (Mode, Option<Guard>) {
        match self {
            Self::Secure { groups, rule } => {
                (Mode::Secure, Some(Guard { groups, rule: rule.checked() }))
            }
            Self::Plain { rule } => (Mode::Plain(rule.checked()), None),
        }
    }
}

impl WrittenRule {
    const fn checked(self) -> Rule {
        match self {
            Self::Mean => Rule::Mean,
            Self::Median => Rule::Median,
            Self::Trimmed { cut } => Rule::Trimmed { cut },
            Self::MultiKrum { byzantine, keep } => Rule::MultiKrum { byzantine, keep },
        }
    }
}

/// What a round waits for: as many as a set needs at least, unless said.
fn target(said: Option<usize>, job: &Job) -> Result<usize, SpecError> {
    let floor = job.floor();
    match said {
        Some(target) if target < floor && job.groups() > 1 => {
            let allowed = format!("'min_clients' times 'groups' ({floor}) or more");
            Err(wrong("target", target, &allowed))
        }
        Some(target) if target < floor => {
            Err(wrong("target", target, &format!("'min_clients' ({floor}) or more")))
        }
        Some(target) => Ok(target),
        None => Ok(floor),
    }
}

impl WrittenPrivacy {
    fn checked(self, mode: Mode, min_clients: usize) -> Result<Privacy, SpecError> {
        // Where nobody sees an update, all noise of a sum hides each of them, but for that of the
        // one who looks.
        let honest = match mode {
            Mode::Secure => u32::try_from(min_clients).unwrap_or(u32::MAX).saturating_sub(1).max(1),
            Mode::Plain(_) => 1,
        };
        if !(MIN_DELTA..=MAX_DELTA).contains(&self.delta) {
            return Err(wrong("privacy.delta", self.delta, &format!("{MIN_DELTA} to {MAX_DELTA}")));
        }
        let norm = scaled("privacy.norm", self.norm, f64::from(1_u32 << MODEL_BITS))?;
        Ok(Privacy {
            noise_milli: scaled("privacy.noise", self.noise, 1_000.0)?,
            norm,
            honest: self.honest.unwrap_or(honest),
            delta: PicoDelta((self.delta * PICO).round() as u64),
            epsilon: MicroEpsilon(scaled("privacy.epsilon", self.epsilon, MILLION)?.into()),
            adaptive: self
                .quantile
                .map(|quantile| -> Result<Adaptive, SpecError> {
                    Ok(Adaptive {
                        quantile_permille: scaled("privacy.quantile", quantile, 1_000.0)?,
                        rate_permille: scaled("privacy.norm_rate", self.norm_rate, 1_000.0)?,
                    })
                })
                .transpose()?,
        })
    }
}

impl WrittenEpidemic {
    fn checked(&self, job: &Job) -> Result<Epidemic, SpecError> {
        // Twice what a round waits for stragglers: then it is not they who keep it open.
        let after = self.after_ms.map(|millis| span("epidemic.after_ms", millis)).transpose()?;
        let rules = Epidemic {
            peers: self.peers,
            after: after.unwrap_or(job.pace.patience.times(2)),
            every: span("epidemic.every_ms", self.every_ms)?,
        };
        rules.check(job)?;
        Ok(rules)
    }
}

/// A time of a pace.
fn span(field: &'static str, millis: u64) -> Result<Micros, SpecError> {
    match millis {
        1..=MAX_PACE_MS => Ok(Micros::millis(millis)),
        _ => Err(wrong(field, millis, &format!("1 to {MAX_PACE_MS}"))),
    }
}

impl WrittenPace {
    fn checked(&self) -> Result<Pace, SpecError> {
        Ok(Pace {
            tick: span("pace.tick_ms", self.tick_ms)?,
            stagger: span("pace.stagger_ms", self.stagger_ms)?,
            gather: span("pace.gather_ms", self.gather_ms)?,
            patience: span("pace.patience_ms", self.patience_ms)?,
        })
    }
}

/// Anchors that no node is, for checking rules that need some.
fn stand_ins(scheme: Scheme) -> Vec<Seat> {
    let seat = |at: usize| {
        let bytes = [at as u8 + 1; 32];
        Seat { node: NodeId(bytes), key: bytes }
    };
    (0..scheme.anchors()).map(seat).collect()
}

fn check_name(field: &'static str, value: &str) -> Result<(), SpecError> {
    if !JobSpec::is_name(value) {
        return Err(SpecError::Name { field, value: plain(value) });
    }
    Ok(())
}

/// A name as it may stand in a message.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

fn within(field: &'static str, value: u32, most: u32) -> Result<u32, SpecError> {
    match value {
        0 => Err(wrong(field, value, &format!("1 to {most}"))),
        _ if value > most => Err(wrong(field, value, &format!("1 to {most}"))),
        _ => Ok(value),
    }
}

/// A number above zero in units of one part of `unit`.
fn scaled(field: &'static str, value: f64, unit: f64) -> Result<u32, SpecError> {
    let units = (value * unit).round();
    // The comparison is false for what is not a number.
    if !(value <= MAX_NUMBER && (1.0..=f64::from(u32::MAX)).contains(&units)) {
        return Err(wrong(field, value, &format!("{} to {MAX_NUMBER}", 1.0 / unit)));
    }
    Ok(units as u32)
}

fn wrong(field: &'static str, value: impl ToString, allowed: &str) -> SpecError {
    SpecError::Number { field, value: value.to_string(), allowed: allowed.to_owned() }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
