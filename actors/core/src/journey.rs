//! The way of a request along its legs: which target is asked next, and when there is none.
//!
//! A route names targets in the order they should be tried: models of the mesh and models of
//! providers. Each is asked whole; inside the mesh [`crate::flow`] decides among nodes, at a
//! provider [`crate::upstream`] among keys and attempts. Owns what happens between targets: after a
//! failure before the first piece of an answer the next one is tried, after it one that can go on
//! where the answer broke off ([`crate::continuing`]) or else none, and money that is used up
//! leaves the models that cost none. Of a route from small models to large ones it owns which
//! answers are doubted, and who is asked when one was found wanting.
//!
//! ```text
//! Begun ─▶ Ask(leg) ─▶ Came… ─▶ Ended ─▶ Over
//!            ▲   │        │
//!            ├─ Doubted   │
//!            ├─ Failed    ├─▶ Fail
//!            └─ Continue ◀┘
//! ```

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use serde::{Deserialize, Serialize};

use crate::bill::Took;
use crate::routes::{Doubt, Judgement};

/// Targets of one request: enough for a chain with two fallbacks at two keys' worth of providers,
/// few enough that a poisoned request does not visit them all.
pub const MAX_LEGS: usize = 8;

/// Times an answer is gone on with elsewhere: two more failures than ought to happen. Each costs
/// the prompt once more.
pub const MAX_CONTINUED: u32 = 3;

/// Where a request can be answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// By a model of the mesh, on whichever node.
    Mesh {
        /// Its name.
        model: String,
    },
    /// By a provider.
    Provider {
        /// Its name in the configuration.
        provider: String,
        /// The model, as the configuration calls it.
        model: String,
    },
}

impl Target {
    /// Whether somebody is paid for it.
    pub const fn is_paid(&self) -> bool {
        matches!(self, Self::Provider { .. })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mesh { model } => write!(f, "{model}"),
            Self::Provider { provider, model } => write!(f, "{provider}/{model}"),
        }
    }
}

/// One target's turn, for the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// The target.
    pub target: Target,
    /// Why it was chosen, or why it was passed over.
    pub why: String,
    /// Whether it was asked.
    pub asked: bool,
    /// Why it ended without the answer's end.
    pub ended: Option<String>,
    /// What it took, as a provider bills it or a node counts it; what of it a budget counts is
    /// settled.
    pub took: Took,
    /// How sure it was of its answer, where that was asked.
    pub judged: Option<Judgement>,
}

impl Leg {
    /// A target that was not asked.
    pub const fn unasked(target: Target, why: String, ended: Option<String>) -> Self {
        let took = Took { tokens: 0, micro_dollars: 0 };
        Self { target, why, asked: false, ended, took, judged: None }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this leg.
    Ask(usize),
    /// Ask this leg to go on after what the caller has.
    Continue(usize),
    /// Tell the caller that this was all: it has as much as it asked for.
    Whole,
    /// Tell the caller that there is no (more) answer.
    Fail(Refusal),
}

/// Targets that go from small to large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rising {
    /// So many of the first ones do; those after them stand in when all of these fail.
    pub legs: usize,
    /// The least mean log-probability of an answer, in thousandths.
    pub min_millinats: i32,
}

/// One request's way.
#[derive(Clone, Debug)]
pub struct Journey {
    legs: Vec<Leg>,
    at: usize,
    /// The caller has a piece of the answer.
    delivered: bool,
    /// No provider may be paid.
    local_only: bool,
    /// What the caller is told when nobody is left: the first refusal that says what to do about
    /// it.
    refusal: Option<Refusal>,
    rising: Option<Rising>,
    /// The leg of the largest model whose answer was found wanting.
    doubted: Option<usize>,
    /// Times the answer was gone on with.
    continued: u32,
}

impl Journey {
    /// A request with these targets, in order, each with the reason it stands there. More than
    /// [`MAX_LEGS`] are not tried.
    pub fn new(targets: impl IntoIterator<Item = (Target, String)>) -> Self {
        let leg = |(target, why)| Leg::unasked(target, why, None);
        let legs = targets.into_iter().take(MAX_LEGS).map(leg).collect();
        Self {
            legs,
            at: 0,
            delivered: false,
            local_only: false,
            refusal: None,
            rising: None,
            doubted: None,
            continued: 0,
        }
    }

    /// The same, with targets that go from small to large.
    #[must_use]
    pub fn rising(self, rising: Option<Rising>) -> Self {
        Self { rising, ..self }
    }

    /// The legs, for the record.
    pub fn legs(&self) -> &[Leg] {
        &self.legs
    }

    /// The same, of a way that is over.
    pub fn take_legs(&mut self) -> Vec<Leg> {
        std::mem::take(&mut self.legs)
    }

    /// The target of the leg that is being asked.
    pub fn target(&self) -> Option<&Target> {
        self.legs.get(self.at).map(|leg| &leg.target)
    }

    /// The request was admitted: where to begin.
    pub fn begin(&mut self) -> Step {
        self.ask()
    }

    /// The budgets allow no more money: targets that are paid are passed over from here on.
    pub fn local_only(&mut self) -> Step {
        self.local_only = !plant::is_on(Plant::LocalOnlyForgotten);
        if let Some(leg) = self.legs.get_mut(self.at).filter(|leg| leg.target.is_paid()) {
            leg.asked = false;
            leg.ended = Some("the budget for money is used up".to_owned());
            self.at += 1;
        }
        self.ask()
    }

    /// The present leg took this much so far.
    pub fn took(&mut self, took: Took) {
        if let Some(leg) = self.legs.get_mut(self.at) {
            leg.took = took;
        }
    }

    /// By what the present leg's answer is judged before the caller has any of it; none when it is
    /// taken as it is, since nobody larger could be asked, or since there are several `answers`, of
    /// which each would have to be judged, and all asked for again.
    pub fn doubt(&self, answers: u32) -> Option<Doubt> {
        let rising = self.rising?;
        let next = self.legs.get(..rising.legs)?.get(self.at + 1)?;
        let may_ask = !(self.local_only && next.target.is_paid());
        (may_ask && answers == 1).then(|| Doubt::new(rising.min_millinats))
    }

    /// The present leg's answer was judged.
    pub fn judged(&mut self, judgement: Judgement) {
        if let Some(leg) = self.legs.get_mut(self.at) {
            leg.judged = Some(judgement);
        }
    }

    /// The present leg's answer is not good enough, and the caller has none of it: the next larger
    /// model is asked.
    pub fn doubted(&mut self) -> Step {
        if let Some(leg) = self.legs.get_mut(self.at) {
            leg.ended = Some("a larger model is asked".to_owned());
        }
        self.doubted = Some(self.at);
        self.at += 1;
        self.ask()
    }

    /// A piece of the answer went to the caller.
    pub const fn came(&mut self) {
        self.delivered = true;
    }

    /// The present leg is over without the answer's end.
    pub fn failed(&mut self, refusal: Refusal) -> Step {
        if let Some(leg) = self.legs.get_mut(self.at) {
            leg.ended = Some(refusal.message.clone());
        }
        let delivered = self.delivered && !plant::is_on(Plant::SecondVoice);
        if delivered || is_final(&refusal) {
            return Step::Fail(refusal);
        }
        // A budget that refuses tells the caller what to do; the failures after it are of
        // stand-ins.
        if self.refusal.as_ref().is_none_or(|known| known.code != Code::QuotaExhausted) {
            self.refusal = Some(refusal);
        }
        self.at += 1;
        self.ask()
    }

    /// The present leg broke off an answer of which the caller has a part that can be gone on
    /// with. `able` says of each leg whether it can do that, `left` how many tokens the caller may
    /// still get, if it said. The next one that can is asked, or the same once more; where nothing
    /// is left to say, nobody.
    pub fn broke_off(&mut self, refusal: Refusal, able: &[bool], left: Option<u64>) -> Step {
        let breaks = refusal.blame == Blame::Provider || refusal.retry == Retry::Elsewhere;
        let may = breaks && !is_final(&refusal) && self.continued < MAX_CONTINUED;
        if !self.delivered || !may {
            return self.failed(refusal);
        }
        if left == Some(0) {
            if let Some(leg) = self.legs.get_mut(self.at) {
                leg.ended = Some(refusal.message);
            }
            return Step::Whole;
        }
        let can = |at: usize, leg: &Leg| {
            let able = able.get(at).copied().unwrap_or(false) || plant::is_on(Plant::GoesOnUnable);
            able && !(self.local_only && leg.target.is_paid())
        };
        let legs = || self.legs.iter().enumerate();
        let next = legs().find(|(at, leg)| *at > self.at && !leg.asked && can(*at, leg));
        let next = next.map(|(at, _)| at);
        let here = self.legs.get(self.at).map(|leg| &leg.target);
        let tries = legs().filter(|(_, leg)| leg.asked && Some(&leg.target) == here).count();
        let again = || {
            let (at, leg) = legs().nth(self.at)?;
            (tries < 2 && can(at, leg)).then(|| leg.target.clone())
        };
        let (at, again) = match next {
            Some(at) => (at, None),
            None => (self.legs.len(), again()),
        };
        if next.is_none() && again.is_none() {
            return self.failed(refusal);
        }
        if let Some(leg) = self.legs.get_mut(self.at) {
            leg.ended = Some(refusal.message);
        }
        if let Some(target) = again {
            self.legs.push(Leg::unasked(target, "asked once more".to_owned(), None));
        }
        if let Some(leg) = self.legs.get_mut(at) {
            leg.asked = true;
            leg.why.push_str("; goes on where the answer broke off");
        }
        self.continued += 1;
        self.at = at;
        Step::Continue(at)
    }

    /// Where the way is.
    pub const fn at(&self) -> usize {
        self.at
    }

    fn ask(&mut self) -> Step {
        while self.legs.get(self.at).is_some() {
            // A doubtful answer is better than a smaller model's.
            if self.rising.is_some_and(|rising| self.at >= rising.legs)
                && let Some(step) = self.stand_in()
            {
                return step;
            }
            let Some(leg) = self.legs.get_mut(self.at) else { break };
            if !(self.local_only && leg.target.is_paid()) {
                leg.asked = true;
                return Step::Ask(self.at);
            }
            leg.ended = Some("the budget for money is used up".to_owned());
            self.at += 1;
        }
        if let Some(step) = self.stand_in() {
            return step;
        }
        Step::Fail(self.refusal.take().unwrap_or_else(|| nowhere(self.local_only)))
    }

    /// Asks the model again whose answer was doubted, since no larger one gives any: what it says
    /// then is taken as it is.
    fn stand_in(&mut self) -> Option<Step> {
        let leg = self.legs.get(self.doubted.take()?)?;
        let why = "no larger model answers: what this one says is taken as it is".to_owned();
        let again = Leg { asked: true, ..Leg::unasked(leg.target.clone(), why, None) };
        self.rising = None;
        self.at = self.legs.len();
        self.legs.push(again);
        Some(Step::Ask(self.at))
    }
}

/// Whether no other target would say anything else: the request itself is at fault. What one target
/// lacks (the model, a word for a field, room for the prompt) another one may have.
const fn is_final(refusal: &Refusal) -> bool {
    let of_the_target = matches!(
        refusal.code,
        Code::ModelNotFound
            | Code::ModelUnavailable
            | Code::Unsupported
            | Code::ContextLengthExceeded
            | Code::QuotaExhausted
    );
    let never = matches!(refusal.retry, Retry::Never) && matches!(refusal.blame, Blame::Client);
    let gone = matches!(refusal.code, Code::Cancelled | Code::Timeout)
        && !matches!(refusal.retry, Retry::Elsewhere);
    (never && !of_the_target) || gone
}

fn nowhere(local_only: bool) -> Refusal {
    let message = if local_only {
        "the budget for money is used up, and no model of the mesh stands in for this one"
    } else {
        "no target of this route can be asked"
    };
    Refusal::new(Stage::Route, Blame::Us, Retry::Never, Code::ModelUnavailable, message)
}

#[cfg(test)]
#[path = "journey_tests.rs"]
mod tests;
