//! Which nodes could answer, and which should: the hard filters before the choice.
//!
//! Owns the snapshot of the mesh that routing looks at, how a model's name becomes a file, and how
//! far data may travel. The estimate and the choice among what is left are
//! [`selvedge_proto::choice`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{
    Blame, Code, Dice, MeshId, Micros, ModelDigest, NodeId, Refusal, Retry, Stage,
};
use selvedge_contract::{Condition, EngineStatus, Machine, ModelCard, ModelState, ModelStatus};
use selvedge_proto::choice::{self, Candidate, Choice, Readiness, Strain};
use selvedge_proto::swim::PeerState;
use selvedge_proto::wire::Label;
use serde::{Deserialize, Serialize};

/// Answer tokens assumed when the caller set no limit: a usual chat answer.
const USUAL_ANSWER_TOKENS: u32 = 256;
/// The least of a digest that may follow `name@`: fewer digits could fit several files.
const MIN_DIGEST_PREFIX: usize = 8;
/// Characters of a digest as it is written.
const DIGEST_CHARS: usize = 64;
/// Model names listed in a refusal: enough to see a typing error.
const NAMES_IN_REFUSAL: usize = 8;

/// A battery that carries its machine and is emptier than this is spared: the last fifth is what
/// people leave a device for what they do at it.
const LOW_BATTERY_PERCENT: u8 = 20;
/// A machine this hot is spared, in tenths of a degree: most processors throttle from 95 °C on.
const HOT_DECIDEGREES: i16 = 900;
/// ... and so is one of which a part is this near to its critical point.
const NEAR_LIMIT_DECIDEGREES: i16 = 50;

/// What one node knows of the mesh at a moment; replaced as a whole, never changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeshView {
    /// This node.
    pub me: NodeId,
    /// The mesh it belongs to.
    pub mesh: Option<MeshId>,
    /// All nodes, this one first, then in the order of their ids.
    pub nodes: Vec<NodeView>,
}

/// What is known of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// Whether it is this one.
    pub me: bool,
    /// The name people gave it.
    pub name: String,
    /// The place it stands in.
    pub site: String,
    /// Whether it can be relied on.
    pub state: PeerState,
    /// Why it is in this state, in words.
    pub why: String,
    /// Whether there is a connection to it (always true for this node).
    pub linked: bool,
    /// Measured round trip.
    pub rtt: Option<Micros>,
    /// Where its QUIC endpoint can be reached.
    pub addrs: Vec<SocketAddr>,
    /// Its HTTP surface.
    pub api: Option<SocketAddr>,
    /// The version of its program.
    pub version: String,
    /// Its models and how busy they are.
    pub engine: EngineStatus,
    /// Its machine; of a node that has not told of it, nothing is known.
    pub machine: Machine,
}

/// A model of the mesh, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// What it is.
    pub card: ModelCard,
    /// Names of the nodes that have it and can be relied on.
    pub nodes: Vec<String>,
    /// Whether one of them could answer at once.
    pub ready: bool,
}

/// What a request needs of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The model as the caller wrote it: a name, `name@digest prefix`, or a digest.
    pub model: String,
    /// The file, once a first choice settled on one.
    pub digest: Option<ModelDigest>,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// The caller's limit for the answer.
    pub answer_tokens: Option<u32>,
    /// How far the data may travel.
    pub label: Label,
}

impl MeshView {
    /// What is known of a node.
    pub fn node(&self, id: &NodeId) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.node == *id)
    }

    /// What is known of this node.
    pub fn myself(&self) -> Option<&NodeView> {
        self.node(&self.me)
    }

    /// A node's name, or the end of its id when it has none.
    pub fn name_of(&self, id: &NodeId) -> String {
        let named = self.node(id).filter(|node| !node.name.is_empty());
        named.map_or_else(|| id.short(), |node| node.name.clone())
    }

    /// How many other nodes that can be asked have which files in memory.
    pub fn copies(&self) -> BTreeMap<ModelDigest, u32> {
        let mut copies = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| !node.me && node.is_usable()) {
            let ready = node.engine.models.iter().filter(|model| model.state == ModelState::Ready);
            for model in ready {
                *copies.entry(model.card.digest).or_default() += 1;
            }
        }
        copies
    }

    /// The union of all models on nodes that can be relied on, by name, then digest.
    pub fn models(&self) -> Vec<ModelSummary> {
        let mut union: BTreeMap<(String, ModelDigest), ModelSummary> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.is_usable()) {
            for model in &node.engine.models {
                if model.state == ModelState::Failed {
                    continue;
                }
                let key = (model.card.name.clone(), model.card.digest);
                let summary = union.entry(key).or_insert_with(|| ModelSummary {
                    card: model.card.clone(),
                    nodes: Vec::new(),
                    ready: false,
                });
                summary.nodes.push(self.name_of(&node.node));
                summary.ready |= model.state == ModelState::Ready;
            }
        }
        union.into_values().collect()
    }
}

impl MeshView {
    /// The file a caller means, if this node has it.
    pub fn own_model(&self, asked: &str) -> Option<ModelDigest> {
        let digest = resolve(self, asked).ok()?;
        self.myself()?.model(&digest).map(|_| digest)
    }

    /// The file a caller means, as far as it is known.
    pub fn file_of(&self, asked: &str) -> Option<ModelDigest> {
        find(self, asked)
    }

    /// What a caller means, if any node of the mesh has it.
    pub fn card_of(&self, asked: &str) -> Option<&ModelCard> {
        let digest = find(self, asked)?;
        self.nodes.iter().find_map(|node| node.model(&digest)).map(|model| &model.card)
    }

    /// Whether any node of the mesh has what a caller means as a model that is asked with tensors;
    /// one of an older version may take its file for something else.
    pub fn infers(&self, asked: &str) -> bool {
        let Some(digest) = find(self, asked) else { return false };
        let mut held = self.nodes.iter().filter_map(|node| node.model(&digest));
        held.any(|model| model.card.infers())
    }

    /// Whether any node of the mesh has what a caller means.
    pub fn has_model(&self, asked: &str) -> bool {
        let has = |digest| self.nodes.iter().any(|node| node.model(&digest).is_some());
        find(self, asked).is_some_and(has)
    }

    /// Whether any node of the mesh has a model of this name that no job of learning made.
    pub fn has_file(&self, name: &str) -> bool {
        let mut cards =
            self.nodes.iter().flat_map(|node| &node.engine.models).map(|model| &model.card);
        cards.any(|card| card.name == name && card.round().is_none())
    }

    /// The name of the model a caller means: of a digest the name a node has the file under, of
    /// `name@digest` the name. What is counted by model must not depend on how it is written.
    pub fn plain_model_name(&self, asked: &str) -> String {
        if let Some(digest) = as_digest(asked) {
            let named = self.nodes.iter().find_map(|node| node.model(&digest));
            return named.map_or_else(|| asked.to_owned(), |model| model.card.name.clone());
        }
        match asked.rsplit_once('@') {
            Some((name, prefix)) if prefix.len() >= MIN_DIGEST_PREFIX => name.to_owned(),
            _ => asked.to_owned(),
        }
    }
}

impl NodeView {
    /// Whether requests may go there at all.
    pub const fn is_usable(&self) -> bool {
        self.me || (self.linked && matches!(self.state, PeerState::Alive))
    }

    fn model(&self, digest: &ModelDigest) -> Option<&ModelStatus> {
        self.engine.models.iter().find(|model| model.card.digest == *digest)
    }
}

/// Chooses a node for a need, none of `exclude`.
///
/// # Errors
/// `ModelNotFound` when no node has such a model, `Unsupported` when it writes nothing, `Forbidden`
/// when only nodes beyond the label's boundary have it. A choice without a chosen node means that
/// every candidate is out.
pub fn choose(
    view: &MeshView,
    need: &Need,
    exclude: &[NodeId],
    in_flight: &BTreeMap<NodeId, u32>,
    dice: &mut Dice,
) -> Result<(ModelDigest, Choice), Refusal> {
    choose_made(view, need, exclude, in_flight, (dice, writes))
}

/// Chooses a node whose model writes down what is said in sound.
///
/// # Errors
/// As [`choose`]; `Unsupported` when the model hears nothing.
pub fn choose_listener(
    view: &MeshView,
    need: &Need,
    exclude: &[NodeId],
    in_flight: &BTreeMap<NodeId, u32>,
    dice: &mut Dice,
) -> Result<(ModelDigest, Choice), Refusal> {
    choose_made(view, need, exclude, in_flight, (dice, hears))
}

/// Refuses a model that is not made for what is asked.
type IsMade = fn(&ModelCard) -> Result<(), Refusal>;

fn choose_made(
    view: &MeshView,
    need: &Need,
    exclude: &[NodeId],
    in_flight: &BTreeMap<NodeId, u32>,
    (dice, is_made): (&mut Dice, IsMade),
) -> Result<(ModelDigest, Choice), Refusal> {
    let digest = match need.digest {
        Some(digest) => digest,
        None => resolve(view, &need.model)?,
    };
    let holders: Vec<&NodeView> =
        view.nodes.iter().filter(|node| node.model(&digest).is_some()).collect();
    let Some(held) = holders.first().and_then(|node| node.model(&digest)) else {
        return Err(not_found(view, &need.model));
    };
    is_made(&held.card)?;
    let inside: Vec<&NodeView> =
        holders.into_iter().filter(|node| may_reach(view, node, need.label)).collect();
    if inside.is_empty() {
        return Err(out_of_bounds(need));
    }
    let candidates = inside
        .into_iter()
        .filter(|node| !exclude.contains(&node.node))
        .filter_map(|node| candidate(node, &digest, in_flight))
        .collect::<Vec<_>>();
    let answer_tokens = need.answer_tokens.unwrap_or(USUAL_ANSWER_TOKENS).min(USUAL_ANSWER_TOKENS);
    let demand = choice::Need { prompt_tokens: need.prompt_tokens, output_tokens: answer_tokens };
    Ok((digest, choice::choose(demand, &candidates, dice)))
}

/// The file of a model that is asked with tensors, and the nodes that have it and may be asked:
/// this node if its model is loaded, then others whose model is, then this node, then the others,
/// each in the order of ids; those whose machines should be spared after all of them.
///
/// # Errors
/// `ModelNotFound` when no node has such a model, `Unsupported` when it writes text or makes
/// vectors, `Forbidden` when only nodes beyond the label's boundary have it.
pub fn holders(
    view: &MeshView,
    model: &str,
    label: Label,
) -> Result<(ModelDigest, Vec<NodeId>), Refusal> {
    let digest = resolve(view, model)?;
    let all = view.nodes.iter().filter_map(|node| Some((node, node.model(&digest)?)));
    let mut all: Vec<(&NodeView, &ModelStatus)> = all.collect();
    if all.is_empty() {
        return Err(not_found(view, model));
    }
    // A node of an older version may take the file for something else.
    all.retain(|(_, held)| held.card.infers());
    if all.is_empty() {
        let message = format!("model '{model}' is not asked with tensors");
        return Err(Refusal::client(Stage::Route, Code::Unsupported, message).param("model"));
    }
    all.retain(|(node, _)| may_reach(view, node, label));
    if all.is_empty() {
        let (model, digest) = (model.to_owned(), Some(digest));
        let need = Need { model, digest, prompt_tokens: 0, answer_tokens: None, label };
        return Err(out_of_bounds(&need));
    }
    all.retain(|(node, status)| {
        node.is_usable() && (node.me || status.state != ModelState::Failed)
    });
    // One that must load may have to throw another out for it.
    all.sort_by_key(|(node, status)| {
        let spared = strain(&node.machine.now).is_some();
        (spared, status.state != ModelState::Ready, !node.me, node.node)
    });
    Ok((digest, all.into_iter().map(|(node, _)| node.node).collect()))
}

/// The file a name means: exact digest, `name@prefix`, or the name (this node's file first, then
/// the one on most nodes, then the smallest digest, so that all nodes agree).
fn resolve(view: &MeshView, name: &str) -> Result<ModelDigest, Refusal> {
    find(view, name).ok_or_else(|| not_found(view, name))
}

/// The digest that a name is, if it is one. Nearly no name is as long, and an error that nobody
/// reads takes longer to write than the rest of the look-up.
fn as_digest(name: &str) -> Option<ModelDigest> {
    if name.len() != DIGEST_CHARS {
        return None;
    }
    name.parse().ok()
}

fn find(view: &MeshView, name: &str) -> Option<ModelDigest> {
    if let Some(digest) = as_digest(name) {
        return Some(digest);
    }
    let (wanted, prefix) = match name.rsplit_once('@') {
        Some((wanted, prefix)) if prefix.len() >= MIN_DIGEST_PREFIX => (wanted, Some(prefix)),
        _ => (name, None),
    };
    let mut holders: BTreeMap<ModelDigest, (bool, usize)> = BTreeMap::new();
    for node in &view.nodes {
        for model in &node.engine.models {
            let fits = prefix.is_none_or(|p| model.card.digest.to_string().starts_with(p));
            if model.card.name == wanted && fits {
                let entry = holders.entry(model.card.digest).or_default();
                entry.0 |= node.me;
                entry.1 += 1;
            }
        }
    }
    let best = holders
        .into_iter()
        .max_by_key(|(digest, (mine, count))| (*mine, *count, std::cmp::Reverse(*digest)));
    best.map(|(digest, _)| digest)
}

fn may_reach(view: &MeshView, node: &NodeView, label: Label) -> bool {
    match label {
        Label::Node => node.me || plant::is_on(Plant::LabelIgnored),
        Label::Site => view.myself().is_some_and(|me| me.site == node.site),
        Label::Mesh | Label::Anywhere => true,
    }
}

fn candidate(
    node: &NodeView,
    digest: &ModelDigest,
    in_flight: &BTreeMap<NodeId, u32>,
) -> Option<Candidate> {
    let model = node.model(digest)?;
    Some(Candidate {
        node: node.node,
        is_me: node.me,
        state: if node.is_usable() { PeerState::Alive } else { worst(node.state) },
        rtt: node.rtt,
        model_state: match model.state {
            ModelState::Ready => Readiness::Ready,
            ModelState::Loading => Readiness::Loading,
            ModelState::Cold => Readiness::Cold,
            ModelState::Failed => Readiness::Failed,
        },
        running: model.running,
        queued: model.queued,
        pending_prompt_tokens: model.pending_prompt_tokens,
        prefill_rate: model.prefill_rate,
        step_us: model.step_us,
        in_flight_from_here: in_flight.get(&node.node).copied().unwrap_or(0),
        strain: strain(&node.machine.now).filter(|_| !plant::is_on(Plant::StrainIgnored)),
    })
}

/// Why a machine should be spared, if it should. What is not known is no reason.
pub fn strain(now: &Condition) -> Option<Strain> {
    let percent = now.battery_percent.filter(|_| now.on_battery == Some(true));
    let low = percent.filter(|percent| *percent < LOW_BATTERY_PERCENT);
    let hot = now.temperature.filter(|heat| *heat >= HOT_DECIDEGREES);
    let near = now.headroom.filter(|left| *left <= NEAR_LIMIT_DECIDEGREES);
    low.map(|percent| Strain::Battery { percent })
        .or(hot.map(|decidegrees| Strain::Hot { decidegrees }))
        .or(near.map(|decidegrees| Strain::NearLimit { decidegrees }))
}

/// A node without a connection is as good as dead to a request, whatever was last heard of it.
const fn worst(state: PeerState) -> PeerState {
    match state {
        PeerState::Alive => PeerState::Dead,
        PeerState::Suspect | PeerState::Frozen | PeerState::Dead => state,
    }
}

fn not_found(view: &MeshView, name: &str) -> Refusal {
    let names: BTreeSet<String> =
        view.models().into_iter().map(|model| model.card.name).take(NAMES_IN_REFUSAL).collect();
    let known = if names.is_empty() {
        "no node of this mesh has any model yet: `selvedge models pull` fetches one".to_owned()
    } else {
        format!("this mesh has: {}", names.into_iter().collect::<Vec<_>>().join(", "))
    };
    let shown: String = name.chars().take(80).collect();
    let message = format!("the model '{shown}' does not exist here; {known}");
    Refusal::client(Stage::Route, Code::ModelNotFound, message).param("model")
}

/// Refuses a model that is not made to write text.
fn writes(card: &ModelCard) -> Result<(), Refusal> {
    if card.writes() {
        return Ok(());
    }
    let name = &card.name;
    let does = match (card.embeds(), card.hears()) {
        (true, _) => "makes embeddings and generates no text; ask it at POST /v1/embeddings".into(),
        (_, true) => "writes down what is said in sound and generates no text; ask it at POST \
                      /v1/audio/transcriptions"
            .into(),
        _ => format!(
            "takes and gives tensors and generates no text; ask it at POST /v2/models/{name}/infer"
        ),
    };
    let message = format!("model '{name}' {does}");
    Err(Refusal::client(Stage::Route, Code::Unsupported, message).param("model"))
}

/// Refuses a model that is not made to hear.
fn hears(card: &ModelCard) -> Result<(), Refusal> {
    if card.hears() {
        return Ok(());
    }
    let message = format!(
        "model '{}' hears nothing; models made to write down what is said do, such as Whisper",
        card.name
    );
    Err(Refusal::client(Stage::Route, Code::Unsupported, message).param("model"))
}

fn out_of_bounds(need: &Need) -> Refusal {
    let message = format!(
        "the request's data is labelled {:?} and no node within that boundary has model '{}'",
        need.label, need.model
    );
    Refusal::new(Stage::Route, Blame::Us, Retry::Never, Code::Forbidden, message)
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
