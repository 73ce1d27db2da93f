//! Jobs of learning across nodes, as the admin API says them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /admin/federated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FederatedRequest {
    /// The job file, in TOML.
    pub(crate) text: String,
    /// Whether it is started without asking the members. Otherwise each is asked first whether its
    /// data fit, as `POST /admin/federated-check` does, for 12 seconds at most, and a job of which
    /// no round could end with the members that are there is refused. With `true` it starts for
    /// nodes that come later, or whoever asks has checked it.
    #[serde(default)]
    pub(crate) anyway: bool,
}

/// `POST /admin/federated-check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FederatedQuestion {
    /// The job file, in TOML.
    pub(crate) text: String,
    /// Whether it is to be started then: refused before members are asked where this node may not
    /// sign it, or a job has its name.
    #[serde(default)]
    pub(crate) starts: bool,
}

/// `POST /v1/requests/{id}/labels`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Labels {
    /// The class of each example of the request, counted from 0.
    #[schemars(length(min = 1, max = 1024))]
    pub(crate) labels: Vec<u32>,
}

/// `POST /admin/labels`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelOrder {
    /// The request, req_ and 32 hexadecimal digits.
    pub(crate) id: String,
    /// The class of each of its examples, counted from 0.
    #[schemars(length(min = 1, max = 1024))]
    pub(crate) labels: Vec<u32>,
}

/// What became of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Labelled {
    /// The model that was asked.
    pub(crate) model: String,
    /// Labelled requests of it that this node keeps.
    pub(crate) kept: u64,
    /// Requests that made room for it: the oldest of the account that had the most.
    pub(crate) forgotten: u64,
}

/// A job of the mesh at this node: `GET /admin/federated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedJob {
    /// What people call it.
    pub(crate) name: String,
    /// Why it does not run at this node, where it does not; the rest is empty then.
    pub(crate) not_here: Option<String>,
    /// Its digest, in hexadecimal: what names it for ever.
    pub(crate) job: String,
    /// Rounds that are over.
    pub(crate) round: u64,
    /// Rounds of the job.
    pub(crate) rounds: u64,
    /// FedAvg and its like.
    pub(crate) strategy: String,
    /// Whether anchors see single updates.
    pub(crate) secure: bool,
    /// What is made of single updates, or of the means of groups, with its numbers: `mean`,
    /// `median`, `trimmed mean (cut 1)`, `multi-Krum (byzantine 2, keep 6)`.
    #[serde(default)]
    pub(crate) rule: String,
    /// Sums of a round: with more than one, the rule is of their means.
    #[serde(default)]
    pub(crate) groups: u64,
    /// Distinct nodes that a sum is of at least.
    pub(crate) min_clients: u64,
    /// Clients of one node that a sum has at most.
    pub(crate) clients_per_node: u64,
    /// Weights of the model.
    pub(crate) weights: u64,
    /// The name of the data that it trains on.
    pub(crate) data: String,
    /// The digest of the last record.
    pub(crate) record: String,
    /// The digest of the model.
    pub(crate) model: String,
    /// The version of the model that answers here under the job's name; none before the first
    /// round is over.
    pub(crate) served: Option<u64>,
    /// Why it does not answer, where something else has the name or the base model is not here.
    pub(crate) not_served: Option<String>,
    /// Whether it is a language model, which is asked as others are.
    #[serde(default)]
    pub(crate) writes_text: bool,
    /// The anchors, by name.
    pub(crate) anchors: Vec<String>,
    /// Those of them that this node cannot reach now.
    #[serde(default)]
    pub(crate) anchors_not_reached: Vec<String>,
    /// How many of them it takes to end a round.
    #[serde(default)]
    pub(crate) anchors_needed: u64,
    /// The anchors that were asked for last and that are none yet.
    #[serde(default)]
    pub(crate) anchors_wanted: Vec<String>,
    /// Where the round that is open stands, as far as this node knows; none where it is no anchor,
    /// and once the job is done.
    #[serde(default)]
    pub(crate) open_round: Option<FederatedRound>,
    /// Contributions that were folded or expired.
    pub(crate) contributions: Vec<FederatedClient>,
    /// Contributions that this node refused as an anchor since its start, by reason.
    #[serde(default)]
    pub(crate) refused: BTreeMap<String, u64>,
    /// Whom this node refused as an anchor, or told of for what cannot be: up to 128 nodes, those
    /// that were refused last. Kept over restarts, but for what came since people were last told.
    #[serde(default)]
    pub(crate) refusals: Vec<FederatedRefusal>,
    /// Examples that this node trains on.
    pub(crate) examples: Option<u64>,
    /// Why this node does not train, where it does not.
    pub(crate) not_training: Option<String>,
    /// Whether this node contributes no more, since the epsilon of all its data for the job is
    /// spent.
    #[serde(default)]
    pub(crate) has_left: bool,
    /// Why the job does not go on at this node, where it failed too often or cannot be followed.
    #[serde(default)]
    pub(crate) stopped: Option<String>,
    /// The round this node trains for now.
    pub(crate) training: Option<u64>,
    /// Contributions of this node that count, since its start.
    pub(crate) counted: u64,
    /// Contributions of this node that never will, since its start.
    pub(crate) expired: u64,
    /// What this node has spent on the job, in millionths of epsilon.
    pub(crate) epsilon_spent_millionths: Option<u64>,
    /// What all jobs together have spent of this node's data for it; where they are in parts, of
    /// the part that spent most.
    pub(crate) data_epsilon_millionths: Option<u64>,
    /// What it may spend.
    pub(crate) epsilon_millionths: Option<u64>,
    /// How well the models did by this node's own examples that nobody trains on.
    pub(crate) measured: Vec<FederatedMeasured>,
    /// The parts of this node's data, each of which is a client by itself; none where they are not
    /// parted.
    pub(crate) parts: Vec<FederatedPart>,
    /// What this node's clients gave to the job: one for all of its data, or one for each part.
    #[serde(default)]
    pub(crate) clients: Vec<FederatedContributed>,
    /// This node's own model, where the job has epidemic mode and it came to that.
    pub(crate) personal: Option<FederatedPersonal>,
    /// Bytes of shares and parts that this node sent, since its start.
    pub(crate) sent_bytes: u64,
    /// What happened, newest last.
    pub(crate) lines: Vec<String>,
}

/// A round that is not over, as an anchor knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedRound {
    /// Which, counted from 0: so many are over.
    pub(crate) round: u64,
    /// What it waits for. `gathering`: contributions, and somebody to propose. `asking`: what the
    /// anchors hold. `proposing`: anchors that accept the set. `closed`, `opening`: the parts of
    /// the set's sum; with `opening` this node has shown its own.
    pub(crate) phase: String,
    /// Who proposes, or proposed what was closed, by name; none while nobody does.
    pub(crate) proposer: Option<String>,
    /// Whether that is this node.
    pub(crate) here: bool,
    /// Nodes of which this node holds a contribution that may count in it; others may hold more.
    #[serde(default)]
    pub(crate) contributed: u64,
    /// Nodes that it takes.
    #[serde(default)]
    pub(crate) needed: u64,
    /// Whether this node proposed and found too few in what all of the anchors that answered hold,
    /// and no more came since.
    #[serde(default)]
    pub(crate) too_few: bool,
}

/// What a client of this node gave to a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedContributed {
    /// The part of the node's data; none where they are not parted.
    pub(crate) part: Option<String>,
    /// Which client of the node it is in the job's record, in hexadecimal.
    pub(crate) client: String,
    /// The last number that it gave to a contribution; they count from 1.
    pub(crate) written: u64,
    /// The last one of which enough anchors said that they hold it, since the node's start.
    pub(crate) receipted: u64,
    /// The round, counted from 0, that the last one was trained for, while it is neither folded
    /// nor expired.
    pub(crate) under_way: Option<u64>,
}

/// A part of this node's data, a client by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedPart {
    /// Its name.
    pub(crate) part: String,
    /// Examples that it trains on.
    pub(crate) examples: Option<u64>,
    /// Why it does not train, where it does not.
    pub(crate) not_training: Option<String>,
    /// Whether it contributes no more, since its epsilon is spent.
    #[serde(default)]
    pub(crate) has_left: bool,
    /// The round it trains for now.
    pub(crate) training: Option<u64>,
    /// Its contributions that count, since the node's start.
    pub(crate) counted: u64,
    /// Its contributions that never will, since the node's start.
    pub(crate) expired: u64,
    /// What it has spent on the job, in millionths of epsilon.
    pub(crate) epsilon_spent_millionths: Option<u64>,
    /// What all jobs together have spent of its data.
    pub(crate) data_epsilon_millionths: Option<u64>,
    /// How well the models did by its own examples that nobody trains on.
    pub(crate) measured: Vec<FederatedMeasured>,
}

/// This node's own model of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedPersonal {
    /// Since when, in seconds since 1970, this node has seen no end of a round, while it mixes with
    /// peers.
    pub(crate) no_quorum_since_s: Option<u64>,
    /// Rounds that are in the common model which it drifted from.
    pub(crate) round: u64,
    /// Steps that are in it.
    pub(crate) age: u32,
    /// Models of peers that were mixed, since the node's start.
    pub(crate) mixed: u64,
    /// Models of peers that were not, by the reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// How well it does by this node's own examples that nobody trains on.
    pub(crate) measured: Option<FederatedMeasured>,
}

/// Whether a job could have a name: `GET /admin/federated-name/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedName {
    /// Why not, where something else answers to it at this node.
    pub(crate) taken: Option<String>,
}

/// Whether nodes' data fit a job that is not told yet: `POST /admin/federated-check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedCheck {
    /// What people call the job.
    pub(crate) name: String,
    /// The name of the data that it trains on.
    pub(crate) data: String,
    /// `enough`: rounds can end. `unsure`: only if some of those train that are there and did not
    /// say. `few`: not with the nodes that are there now.
    pub(crate) outlook: String,
    /// Distinct nodes that have to train before a round can end.
    pub(crate) needed: u64,
    /// Nodes whose data fit.
    pub(crate) fit: u64,
    /// Clients that those have.
    pub(crate) clients: u64,
    /// Nodes that are there and did not say.
    pub(crate) unsaid: u64,
    /// Nodes that are away.
    pub(crate) away: u64,
    /// Anchors of the job.
    pub(crate) anchors: u64,
    /// Members that could be one now.
    pub(crate) anchors_reached: u64,
    /// Examples beyond which a client counts no more; none where all count alike.
    pub(crate) max_examples: Option<u64>,
    /// Rounds of the job.
    #[serde(default)]
    pub(crate) rounds: u64,
    /// Of a thousand clients so many are asked first in a round.
    #[serde(default = "all_clients")]
    pub(crate) sample_permille: u64,
    /// Contributions of a client that the job's epsilon allows; none where it has no differential
    /// privacy.
    #[serde(default)]
    pub(crate) contributions_allowed: Option<u64>,
    /// Contributions that the data of the node that answers have epsilon for, less what earlier
    /// jobs had of them; none without privacy, and where they do not train.
    #[serde(default)]
    pub(crate) contributions_left: Option<u64>,
    /// All members: this node first, the others by name.
    pub(crate) nodes: Vec<FederatedFit>,
}

/// As a node of before, which does not say, counted.
const fn all_clients() -> u64 {
    1_000
}

/// What a member said of a job that is not told yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedFit {
    /// The node's name.
    pub(crate) node: String,
    /// The node's id.
    pub(crate) id: String,
    /// Whether it is the node that answers.
    pub(crate) me: bool,
    /// `fits`, `unfit`, `busy` with other such questions, `late`, `older` than the question,
    /// `unreached` from here though it is there, or `away`.
    pub(crate) answer: String,
    /// Why it would not train, or not on all parts of its data, in a word: `source`, `file`,
    /// `content`, `columns`, `classes`, `few`, `large`, `privacy`, `base`, `program`, `processor`,
    /// `full`, `failed`, `spent`.
    pub(crate) reason: Option<String>,
    /// The same in full, of the node that answers alone.
    pub(crate) why: Option<String>,
    /// Its clients that would train.
    pub(crate) clients: u64,
    /// Examples that they would train on; none of a job with differential privacy, whose rounds do
    /// not tell them either.
    pub(crate) examples: Option<u64>,
}

/// A piece of the chain of a job as a file: `GET /admin/federated-chain/{piece}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedPiece {
    /// The bytes, in base64; none behind the last piece.
    pub(crate) base64: Option<String>,
}

/// Who contributed how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedClient {
    /// The node's name.
    pub(crate) node: String,
    /// Its contributions that were folded or expired.
    pub(crate) contributions: u64,
}

/// Who was refused how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedRefusal {
    /// The node's name, which it writes itself.
    pub(crate) node: String,
    /// The node's id, which nobody else can have.
    pub(crate) id: String,
    /// How often, by reason. `ahead`, `epoch`, `no_anchor` and `replayed` come to nodes that do all
    /// they should, too; `beyond` counts all who were in a sum with one that lies.
    pub(crate) reasons: BTreeMap<String, u64>,
}

/// How well a model did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct FederatedMeasured {
    /// Rounds folded into it.
    pub(crate) round: u64,
    /// Examples that were given their own label.
    pub(crate) right: u64,
    /// Examples in all; where a language model is tuned, tokens.
    pub(crate) examples: u64,
    /// Where one is tuned: the mean loss of a token, in millionths of a nat.
    pub(crate) loss_micronats: Option<u64>,
}
