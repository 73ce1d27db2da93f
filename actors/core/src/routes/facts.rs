//! What is known of targets at a moment: health, speed and load.
//!
//! A snapshot, made by the shell whenever something changes, shared by all requests and never
//! changed by a decision. What is absent is not known, which
//! is not the same as bad.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono};
use serde::{Deserialize, Serialize};

use crate::catalogue::Abilities;

/// A new measurement moves the average by one part in this many: about the last ten answers count,
/// so that a slow spell shows within seconds and one slow answer does not.
const SMOOTHING: u64 = 8;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Models of the mesh, by name. One that is absent is on no node that can be relied on.
    pub mesh: BTreeMap<String, MeshFacts>,
    /// Providers, by configured name. One that is absent has never been used.
    pub providers: BTreeMap<String, ProviderFacts>,
}

/// A model of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshFacts {
    /// Where the nearest node is that has it.
    pub nearest: Reach,
    /// What it takes and can do.
    pub abilities: Abilities,
    /// How it does.
    pub measured: Measured,
}

/// How far away something of the mesh is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reach {
    /// On this node.
    #[default]
    Node,
    /// On a node of this site.
    Site,
    /// On a node elsewhere in the mesh.
    Mesh,
}

/// A provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderFacts {
    /// Nothing is sent there until then, since it failed too often.
    pub broken_until: Option<Mono>,
    /// None of its keys may be used until then.
    pub keys_empty_until: Option<Mono>,
    /// Its models, by its own names for them.
    pub models: BTreeMap<String, Measured>,
}

/// How one target does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Nothing is sent to this model until then, since it failed too often.
    pub broken_until: Option<Mono>,
    /// How fast it answers, once measured.
    pub latency: Option<Latency>,
    /// Requests in progress and waiting.
    pub in_flight: u32,
}

/// How fast something answers: moving averages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// To the first token.
    pub first_token: Micros,
    /// From token to token.
    pub per_token: Micros,
}

impl Latency {
    /// How long an answer of so many tokens takes.
    pub const fn answer(self, tokens: u32) -> Micros {
        self.first_token.plus(self.per_token.times(tokens as u64))
    }

    /// Takes in the times of one more answer. Averages stay between the least and the most that was
    /// ever measured.
    pub fn observe(&mut self, first_token: Micros, per_token: Micros) {
        self.first_token = smoothed(self.first_token, first_token);
        self.per_token = smoothed(self.per_token, per_token);
    }
}

/// Rounds towards the new value, so that an average reaches what stays the same.
const fn smoothed(old: Micros, new: Micros) -> Micros {
    if new.0 >= old.0 {
        Micros(old.0 + (new.0 - old.0).div_ceil(SMOOTHING))
    } else {
        Micros(old.0 - (old.0 - new.0).div_ceil(SMOOTHING))
    }
}
