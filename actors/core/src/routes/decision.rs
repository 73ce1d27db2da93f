//! One decision: every target of the route with its verdict, and the order in which to try them.
//!
//! Owns the way from a request to that order, and the refusal when there is none. The words for
//! people are in [`super::explain`].

use std::collections::BTreeSet;
use std::sync::Arc;

use selvedge_base::{Blame, Code, Mono, Refusal, Retry, Stage};

use super::check::{Place, Policy, Resolved, Route, Routes};
use super::facts::{Facts, Measured};
use super::filter::{self, Candidate, Reason};
use super::order::{self, Score};
use super::{Complexity, MAX_TRIED, Request};
use crate::catalogue::{Found, Missing, Model};

/// A hint how long to wait when nothing says when a target is back: about as long as it takes until
/// a restarted node is seen again.
const RETRY_BLINDLY: selvedge_base::Micros = selvedge_base::Micros::secs(5);

/// What was decided for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The model as the caller wrote it.
    pub asked: String,
    /// The aliases that were followed.
    pub via: Vec<String>,
    /// The route.
    pub route: Arc<Route>,
    /// How hard the request looks; only told where the policy asks.
    pub complexity: Option<Complexity>,
    /// All targets in the order written.
    pub verdicts: Vec<Verdict>,
    /// Which of them to try, best first; at most [`MAX_TRIED`].
    pub order: Vec<usize>,
}

/// What was decided about one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the place calls the model.
    pub model: String,
    /// What the catalogue knows of it.
    pub known: Option<Arc<Model>>,
    /// Whether it is tried, and when.
    pub standing: Standing,
    /// Why it stands there; only usable ones have a score.
    pub score: Option<Score>,
}

/// Whether a target is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As the first.
    Chosen,
    /// When those before it fail; from 2.
    Next(usize),
    /// It could be, but the policy or the number of attempts ends before it.
    Unused,
    /// It cannot be, for every one of these.
    Excluded(Vec<Reason>),
}

impl Routes {
    /// What answers a request; `None` when no route has its model's name.
    pub fn decide(&self, request: &Request, facts: &Facts, now: Mono) -> Option<Decision> {
        let Resolved { route, rest, via } = self.resolve(&request.model)?;
        let verdicts = route.targets.iter().map(|target| {
            let (model, known) = match &target.place {
                Place::Mesh { model } => (model.as_ref().unwrap_or(&rest), None),
                Place::Provider { kind, model: None, .. } => {
                    let known = self.catalogue().find(*kind, &rest).map(Found::model).cloned();
                    (&rest, known)
                }
                Place::Provider { model: Some(model), known, .. } => (model, known.clone()),
            };
            let standing = Standing::Unused;
            Verdict { model: model.clone(), known, standing, score: None }
        });
        let mut verdicts: Vec<Verdict> = verdicts.collect();
        let complexity = request.signals.complexity();
        let (order, excluded, scores) = {
            let candidates = candidates(route, &verdicts, facts);
            let mut excluded = Vec::new();
            let mut usable = Vec::new();
            for candidate in candidates {
                let reasons = filter::reasons(&candidate, route, request, facts, now);
                if reasons.is_empty() {
                    usable.push(candidate);
                } else {
                    excluded.push((candidate.number, reasons));
                }
            }
            let ordered = order::ordered(route, request, complexity, &usable);
            let scores: Vec<(usize, Score)> =
                ordered.into_iter().map(|(candidate, score)| (candidate.number, score)).collect();
            let tried = if route.policy == Policy::Fixed { 1 } else { MAX_TRIED };
            let order: Vec<usize> = scores.iter().map(|(number, _)| *number).take(tried).collect();
            (order, excluded, scores)
        };
        for (number, reasons) in excluded {
            verdicts[number].standing = Standing::Excluded(reasons);
        }
        for (number, score) in scores {
            verdicts[number].score = Some(score);
        }
        for (at, number) in order.iter().enumerate() {
            verdicts[*number].standing =
                if at == 0 { Standing::Chosen } else { Standing::Next(at + 1) };
        }
        let small_first = matches!(route.policy, Policy::SmallFirst { .. });
        Some(Decision {
            asked: request.model.clone(),
            via,
            route: Arc::clone(route),
            complexity: small_first.then_some(complexity),
            verdicts,
            order,
        })
    }
}

impl Routes {
    /// Whether a route has this name, by itself or by an alias.
    pub fn has(&self, model: &str) -> bool {
        // Most names are of no route: an error that says so would be made for nobody.
        self.lookup(model).is_some() && self.resolve(model).is_some()
    }

    /// Whether a request for this name is judged by its complexity. For all others the text need
    /// not be read for signals.
    pub fn asks_complexity(&self, model: &str) -> bool {
        let route = self.resolve(model).map(|resolved| resolved.route);
        route.is_some_and(|route| matches!(route.policy, Policy::SmallFirst { .. }))
    }
}

fn candidates<'a>(
    route: &'a Route,
    verdicts: &'a [Verdict],
    facts: &'a Facts,
) -> impl Iterator<Item = Candidate<'a>> {
    route.targets.iter().zip(verdicts).enumerate().map(|(number, (target, verdict))| Candidate {
        number,
        target,
        model: &verdict.model,
        known: verdict.known.as_deref(),
        measured: measured(&target.place, &verdict.model, facts),
    })
}

fn measured<'a>(place: &Place, model: &str, facts: &'a Facts) -> Option<&'a Measured> {
    match place {
        Place::Mesh { .. } => facts.mesh.get(model).map(|held| &held.measured),
        Place::Provider { provider, .. } => facts.providers.get(provider)?.models.get(model),
    }
}

impl Decision {
    /// The target that answers, if any can.
    pub fn chosen(&self) -> Option<usize> {
        self.order.first().copied()
    }

    /// The next larger target to ask when the answer of `number` is not good enough: of those to be
    /// tried, the smallest that is larger.
    pub fn larger_than(&self, number: usize) -> Option<usize> {
        if !matches!(self.route.policy, Policy::SmallFirst { .. }) {
            return None;
        }
        self.order.iter().copied().filter(|other| *other > number).min()
    }

    /// Why no target can be tried; `None` when one can. The reason that is easiest to remove
    /// decides: what passes by itself, then money, then what the request asks for, then where its
    /// data may go.
    pub fn refusal(&self, now: Mono) -> Option<Refusal> {
        if !self.order.is_empty() {
            return None;
        }
        let reasons = self.verdicts.iter().map(|verdict| match &verdict.standing {
            Standing::Excluded(reasons) => reasons.as_slice(),
            Standing::Chosen | Standing::Next(_) | Standing::Unused => &[],
        });
        let reasons: Vec<&[Reason]> = reasons.filter(|reasons| !reasons.is_empty()).collect();
        let easiest = reasons.iter().map(|of| of.iter().map(weight).max().unwrap_or(0)).min();
        let decisive = reasons.iter().flat_map(|of| of.iter().max_by_key(|reason| weight(reason)));
        let mut decisive: Vec<&Reason> =
            decisive.filter(|reason| Some(weight(reason)) == easiest).collect();
        decisive.dedup();
        let words: BTreeSet<String> = decisive.iter().map(ToString::to_string).collect();
        let asked: String = self.asked.chars().take(80).collect();
        let message = format!(
            "no target of route '{}' can answer this request for '{asked}': {}",
            self.route.name,
            words.into_iter().collect::<Vec<_>>().join("; ")
        );
        let refuse =
            |blame, retry, code| Some(Refusal::new(Stage::Route, blame, retry, code, message));
        match decisive.first() {
            Some(Reason::Broken { .. } | Reason::NoKey { .. }) => {
                let back = decisive.iter().filter_map(|reason| reason.until()).min();
                let wait = back.map_or(RETRY_BLINDLY, |back| back.since(now));
                refuse(Blame::Provider, Retry::After(wait), Code::ModelUnavailable)
            }
            Some(Reason::Absent) => {
                refuse(Blame::Us, Retry::After(RETRY_BLINDLY), Code::ModelUnavailable)
            }
            Some(Reason::Unpriced | Reason::BudgetKept { .. }) => {
                refuse(Blame::Client, Retry::Never, Code::QuotaExhausted)
            }
            Some(Reason::Missing(Missing::Context { .. } | Missing::Prompt { .. })) => {
                refuse(Blame::Client, Retry::Never, Code::ContextLengthExceeded)
            }
            Some(Reason::Missing(_) | Reason::KeptFor(_)) => {
                refuse(Blame::Client, Retry::Never, Code::Unsupported)
            }
            Some(Reason::Boundary(_) | Reason::Region(_)) => {
                refuse(Blame::Us, Retry::Never, Code::Forbidden)
            }
            Some(Reason::RouteNeeds(_) | Reason::RouteContext { .. } | Reason::NoShare) | None => {
                refuse(Blame::Us, Retry::Never, Code::ModelUnavailable)
            }
        }
    }
}

/// How hard a reason is to remove.
const fn weight(reason: &Reason) -> u32 {
    match reason {
        Reason::Broken { .. } | Reason::NoKey { .. } => 1,
        Reason::Absent => 2,
        Reason::BudgetKept { .. } => 3,
        Reason::Unpriced => 4,
        Reason::Missing(_) => 5,
        Reason::KeptFor(_) => 6,
        Reason::Boundary(_) | Reason::Region(_) => 7,
        Reason::RouteNeeds(_) | Reason::RouteContext { .. } => 8,
        Reason::NoShare => 9,
    }
}
