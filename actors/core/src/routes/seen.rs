//! Facts about targets, out of what a node knows of its mesh and of its desks before providers.
//!
//! Owns the translation only: nothing here is chosen.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono};
use selvedge_contract::{ModelCard, ModelState};

use super::{Latency, Measured, MeshFacts, ProviderFacts, Reach};
use crate::catalogue::{Abilities, Capability, Modality};
use crate::journey::Target;
use crate::route::{MeshView, NodeView};
use crate::upstream::Denied;

/// How long a provider without a usable key is passed over before it is looked at again.
const LOOK_AGAIN: Micros = Micros::secs(1);

impl MeshFacts {
    /// The models of the mesh, by name: those on nodes that can be relied on.
    pub fn of(view: &MeshView, measured: &BTreeMap<Target, Latency>) -> BTreeMap<String, Self> {
        let mut facts: BTreeMap<String, Self> = BTreeMap::new();
        for node in view.nodes.iter().filter(|node| node.is_usable()) {
            let reach = reach(view, node);
            for model in node.engine.models.iter().filter(|m| m.state != ModelState::Failed) {
                let name = &model.card.name;
                let held = facts.entry(name.clone()).or_insert_with(|| Self {
                    nearest: reach,
                    abilities: of(&model.card),
                    measured: Measured {
                        broken_until: None,
                        latency: measured.get(&Target::Mesh { model: name.clone() }).copied(),
                        in_flight: 0,
                    },
                });
                held.nearest = held.nearest.min(reach);
                held.measured.in_flight += model.running + model.queued;
            }
        }
        facts
    }
}

impl ProviderFacts {
    /// What is known of a provider of this name: what its desk says of an attempt now, and how many
    /// attempts run.
    pub fn of(
        name: &str,
        allowed: Result<(), Denied>,
        running: u32,
        measured: &BTreeMap<Target, Latency>,
        now: Mono,
    ) -> Self {
        let mut known = Self::default();
        match allowed {
            Ok(()) => {}
            Err(Denied::Open(until)) => known.broken_until = Some(until),
            Err(Denied::Limited(until)) => known.keys_empty_until = Some(until),
            Err(Denied::Full | Denied::NoKey) => {
                known.keys_empty_until = Some(now.plus(LOOK_AGAIN));
            }
        }
        for (target, latency) in measured {
            match target {
                Target::Provider { provider, model } if provider == name => {
                    let latency = Some(*latency);
                    let held = Measured { broken_until: None, latency, in_flight: running };
                    known.models.insert(model.clone(), held);
                }
                Target::Provider { .. } | Target::Mesh { .. } => {}
            }
        }
        known
    }
}

fn reach(view: &MeshView, node: &NodeView) -> Reach {
    if node.me {
        return Reach::Node;
    }
    let same = view.myself().is_some_and(|me| !me.site.is_empty() && me.site == node.site);
    if same { Reach::Site } else { Reach::Mesh }
}

/// What a model of the mesh can do.
fn of(card: &ModelCard) -> Abilities {
    let context_tokens = card.context_length;
    if card.infers() && !card.embeds() {
        // It is asked under its own name alone, by whoever knows its tensors.
        return Abilities::default();
    }
    if card.embeds() {
        return Abilities {
            // A longer text is cut, or refused by the node where it is not to be cut.
            context_tokens: u32::MAX,
            input: [Modality::Text].into(),
            // How many it is the node that has it tells when it is asked for others.
            embedding_dimensions: Some(u32::MAX),
            ..Abilities::default()
        };
    }
    if card.hears() {
        return Abilities {
            // It reads no text, so that no chat goes there.
            context_tokens: 0,
            input: [Modality::Audio].into(),
            output: [Modality::Text].into(),
            ..Abilities::default()
        };
    }
    Abilities {
        context_tokens,
        input: [Modality::Text].into(),
        output: [Modality::Text].into(),
        can: [
            Capability::Streaming,
            Capability::Prefill,
            Capability::JsonObject,
            Capability::JsonSchema,
            Capability::Tools,
        ]
        .into(),
        ..Abilities::default()
    }
}
