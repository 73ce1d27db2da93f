//! Whether a target may be tried at all, and every reason why not.
//!
//! Owns the hard conditions: the data's boundary, abilities, health, money. None of them is ever
//! traded for speed or price.

use selvedge_base::Mono;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::check::{Place, Route, Target};
use super::facts::{Facts, Measured, Reach};
use super::request::{Boundary, Request};
use crate::catalogue::{Abilities, Capability, Missing, Modality, Model, Price};

/// Why a target is not tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Reason {
    /// No node that can be relied on has the model.
    #[error("no node that can be relied on has this model")]
    Absent,
    /// The data may not travel there.
    #[error("the request's data may not leave {0}")]
    Boundary(String),
    /// The data may go to providers of some regions, and this is none of them.
    #[error("the request's data may go to named regions only, and this target is in {0}")]
    Region(String),
    /// The request needs something that is not there.
    #[error("it lacks {0}")]
    Missing(Missing),
    /// The route asks for something that is not there.
    #[error("the route asks for {0}, which it lacks")]
    RouteNeeds(Capability),
    /// Its context is smaller than the route asks for.
    #[error("the route asks for a context of {needs} tokens (it has {has})")]
    RouteContext {
        /// Tokens the route asks for.
        needs: u32,
        /// Tokens there are.
        has: u32,
    },
    /// It is kept for requests of another kind.
    #[error("it is kept for requests with {0}")]
    KeptFor(String),
    /// It failed too often.
    #[error("it failed too often and rests for another {} ms", until.since(*now).as_millis())]
    Broken {
        /// When it is tried again.
        until: Mono,
        /// When this was said.
        now: Mono,
    },
    /// No key may be used.
    #[error("none of its keys may be used for another {} ms", until.since(*now).as_millis())]
    NoKey {
        /// When one may.
        until: Mono,
        /// When this was said.
        now: Mono,
    },
    /// A budget counts money, and what this costs is not known.
    #[error("its price is not known, so no budget of money can pay for it")]
    Unpriced,
    /// Money is kept.
    #[error("{left} per mille of the budget is left, and the route keeps {keep} for other things")]
    BudgetKept {
        /// What is left, in thousandths.
        left: u16,
        /// What is kept, in thousandths.
        keep: u16,
    },
    /// It has no share.
    #[error("its weight is 0")]
    NoShare,
}

impl Reason {
    /// When it passes by itself, if it does.
    pub const fn until(&self) -> Option<Mono> {
        match self {
            Self::Broken { until, .. } | Self::NoKey { until, .. } => Some(*until),
            Self::Absent
            | Self::Boundary(_)
            | Self::Region(_)
            | Self::Missing(_)
            | Self::RouteNeeds(_)
            | Self::RouteContext { .. }
            | Self::KeptFor(_)
            | Self::Unpriced
            | Self::BudgetKept { .. }
            | Self::NoShare => None,
        }
    }
}

/// A target with what is known of it for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) number: usize,
    pub(super) target: &'a Target,
    /// What the place calls the model.
    pub(super) model: &'a str,
    /// What the catalogue knows of a provider's model.
    pub(super) known: Option<&'a Model>,
    pub(super) measured: Option<&'a Measured>,
}

impl Candidate<'_> {
    /// What an answer of the expected length costs; mesh models and one's own
    /// servers bill nothing.
    pub(super) fn price(&self) -> Option<&Price> {
        match &self.target.place {
            Place::Mesh { .. } | Place::Provider { free: true, .. } => None,
            Place::Provider { .. } => {
                Some(self.known.map_or(&Price::Unknown, |model| &model.price))
            }
        }
    }

    fn bills(&self) -> bool {
        match self.price() {
            None => false,
            Some(Price::Unknown) => true,
            Some(Price::Known(tariff)) => **tariff != crate::catalogue::Tariff::default(),
        }
    }
}

/// Every reason why a candidate is not tried; none when it may be.
pub(super) fn reasons(
    candidate: &Candidate<'_>,
    route: &Route,
    request: &Request,
    facts: &Facts,
    now: Mono,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    reasons.extend(boundary(candidate, request, facts));
    reasons.extend(kept_for(candidate.target, request));
    match abilities(candidate, facts) {
        Some(abilities) => {
            let missing = abilities.missing(&request.needs);
            reasons.extend(missing.into_iter().map(Reason::Missing));
            let lacks = route.needs.difference(&abilities.can);
            reasons.extend(lacks.map(|what| Reason::RouteNeeds(*what)));
            if abilities.context_tokens < route.min_context {
                let (needs, has) = (route.min_context, abilities.context_tokens);
                reasons.push(Reason::RouteContext { needs, has });
            }
        }
        None if matches!(candidate.target.place, Place::Mesh { .. }) => {
            reasons.push(Reason::Absent);
        }
        None => {}
    }
    reasons.extend(health(candidate, facts, now));
    if let Some(money) = request.money
        && candidate.bills()
    {
        if candidate.price() == Some(&Price::Unknown) {
            reasons.push(Reason::Unpriced);
        }
        let (left, keep) = (money.left_permille, route.keep_budget_permille);
        if left < keep {
            reasons.push(Reason::BudgetKept { left, keep });
        }
    }
    if candidate.target.weight == 0 {
        reasons.push(Reason::NoShare);
    }
    reasons
}

/// What is known of its abilities. A provider's model that the catalogue does not know is tried
/// without: the provider refuses what it cannot do.
fn abilities<'a>(candidate: &Candidate<'a>, facts: &'a Facts) -> Option<&'a Abilities> {
    match &candidate.target.place {
        Place::Mesh { .. } => facts.mesh.get(candidate.model).map(|model| &model.abilities),
        Place::Provider { .. } => candidate.known.map(|model| &model.abilities),
    }
}

fn boundary(candidate: &Candidate<'_>, request: &Request, facts: &Facts) -> Option<Reason> {
    match &candidate.target.place {
        Place::Mesh { .. } => {
            let nearest = facts.mesh.get(candidate.model)?.nearest;
            let (most, named) = match &request.boundary {
                Boundary::Node => (Reach::Node, "this node"),
                Boundary::Site => (Reach::Site, "this site"),
                Boundary::Mesh | Boundary::Regions(_) | Boundary::Anywhere => return None,
            };
            (nearest > most).then(|| Reason::Boundary(named.to_owned()))
        }
        Place::Provider { .. } => match &request.boundary {
            Boundary::Anywhere => None,
            Boundary::Regions(regions) => {
                let here = candidate.target.region.as_deref();
                let inside = here.is_some_and(|here| regions.contains(here));
                let named = here.unwrap_or("none that is configured").to_owned();
                (!inside).then_some(Reason::Region(named))
            }
            Boundary::Mesh => Some(Reason::Boundary("this mesh".to_owned())),
            Boundary::Site => Some(Reason::Boundary("this site".to_owned())),
            Boundary::Node => Some(Reason::Boundary("this node".to_owned())),
        },
    }
}

fn kept_for(target: &Target, request: &Request) -> Option<Reason> {
    let asked = !target.only_for.is_disjoint(&request.needs.can);
    let given = !target.only_input.is_disjoint(&request.needs.input);
    if target.only_for.is_empty() && target.only_input.is_empty() || asked || given {
        return None;
    }
    let abilities = target.only_for.iter().map(Capability::to_string);
    let kinds: Vec<String> =
        abilities.chain(target.only_input.iter().map(Modality::to_string)).collect();
    Some(Reason::KeptFor(kinds.join(" or ")))
}

fn health(candidate: &Candidate<'_>, facts: &Facts, now: Mono) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut broken = candidate.measured.and_then(|measured| measured.broken_until);
    if let Place::Provider { provider, .. } = &candidate.target.place
        && let Some(provider) = facts.providers.get(provider)
    {
        broken = broken.max(provider.broken_until);
        let until = provider.keys_empty_until.filter(|until| *until > now);
        reasons.extend(until.map(|until| Reason::NoKey { until, now }));
    }
    let until = broken.filter(|until| *until > now);
    reasons.extend(until.map(|until| Reason::Broken { until, now }));
    reasons
}
