//! In which order usable targets are tried.
//!
//! Owns the policies. Each gives every candidate a score of integers; the order is by score, then
//! by the order written, so that two nodes with the same facts agree.

use std::fmt;

use selvedge_base::Micros;
use serde::{Deserialize, Serialize};

use super::Complexity;
use super::check::{Policy, Route};
use super::config::StickyBy;
use super::filter::Candidate;
use super::request::Request;
use crate::catalogue::Counts;

/// One request in this many tries a target first that was never measured. It costs a little speed
/// until everything has been measured once, and nothing afterwards.
const EXPLORE_EVERY: u64 = 16;

/// Why a target stands where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Score {
    /// Where it is written, from 1.
    Written(u32),
    /// Its share of the callers.
    Share {
        /// Its weight.
        weight: u32,
        /// The sum of weights it was drawn among.
        of: u64,
        /// What made the draw.
        by: StickyBy,
        /// In which draw it came up, from 1.
        draw: u32,
    },
    /// What a usual answer costs, in micro-dollars.
    Cost(u64),
    /// What it costs is not known.
    CostUnknown,
    /// How long a usual answer takes.
    Time(Micros),
    /// It was never measured.
    Unmeasured,
    /// It was never measured, and this request is one of those that find out.
    Explored,
    /// How busy it is.
    Load {
        /// Requests in progress and waiting.
        in_flight: u32,
        /// In proportion to this.
        weight: u32,
    },
    /// How large it is among the targets, from 1, and how large it has to be.
    Size {
        /// Its place from small to large.
        level: u32,
        /// The smallest that is large enough.
        wanted: u32,
    },
}

/// The usable ones in the order in which they are tried, each with its score.
pub(super) fn ordered<'a>(
    route: &Route,
    request: &Request,
    complexity: Complexity,
    usable: &[Candidate<'a>],
) -> Vec<(Candidate<'a>, Score)> {
    match route.policy {
        Policy::Fixed | Policy::Fallback => {
            usable.iter().map(|c| (*c, Score::Written(c.number as u32 + 1))).collect()
        }
        Policy::Weighted(by) => weighted(route, request, by, usable),
        Policy::Cheapest => sorted(usable, |c| {
            cost(c, request).map_or((u128::MAX, Score::CostUnknown), |cost| {
                (u128::from(cost), Score::Cost(cost))
            })
        }),
        Policy::Fastest => fastest(request, usable),
        Policy::LeastLoaded => sorted(usable, |c| {
            let in_flight = c.measured.map_or(0, |measured| measured.in_flight);
            let weight = c.target.weight.max(1);
            // One more than there are, so that of two idle ones the larger comes first.
            let scaled = (u128::from(in_flight) + 1) << 32;
            (scaled / u128::from(weight), Score::Load { in_flight, weight })
        }),
        Policy::SmallFirst { .. } => by_size(route, complexity, usable),
    }
}

fn sorted<'a>(
    usable: &[Candidate<'a>],
    score: impl Fn(&Candidate<'a>) -> (u128, Score),
) -> Vec<(Candidate<'a>, Score)> {
    let scored = usable.iter().map(|candidate| (score(candidate), *candidate));
    let mut scored: Vec<((u128, Score), Candidate<'a>)> = scored.collect();
    scored.sort_by_key(|((key, _), candidate)| (*key, candidate.number));
    scored.into_iter().map(|((_, score), candidate)| (candidate, score)).collect()
}

/// What a usual answer costs here; `None` when that is not known.
pub(super) fn cost(candidate: &Candidate<'_>, request: &Request) -> Option<u64> {
    let counts = Counts {
        prompt: u64::from(request.needs.prompt_tokens),
        completion: u64::from(request.expected_answer()),
        ..Counts::default()
    };
    candidate.price().map_or(Some(0), |price| price.cost(&counts).ok())
}

/// The unmeasured come after the measured, but first for one request in sixteen.
fn fastest<'a>(request: &Request, usable: &[Candidate<'a>]) -> Vec<(Candidate<'a>, Score)> {
    let explores = request.seed.is_multiple_of(EXPLORE_EVERY);
    let tokens = request.expected_answer();
    sorted(usable, |c| match c.measured.and_then(|measured| measured.latency) {
        Some(latency) => {
            let time = latency.answer(tokens);
            (1 + u128::from(time.0), Score::Time(time))
        }
        None if explores => (0, Score::Explored),
        None => (u128::MAX, Score::Unmeasured),
    })
}

/// Draws targets one after another. The first draw is among *all* targets of the route: a caller
/// whose target is out for a while moves to another and comes back, and nobody else moves.
fn weighted<'a>(
    route: &Route,
    request: &Request,
    by: StickyBy,
    usable: &[Candidate<'a>],
) -> Vec<(Candidate<'a>, Score)> {
    let (by, key) = sticky_key(request, by);
    let mut left: Vec<usize> = (0..route.targets.len()).collect();
    let mut drawn = Vec::with_capacity(usable.len());
    for draw in 1.. {
        let of: u64 = left.iter().map(|at| u64::from(route.targets[*at].weight)).sum();
        if of == 0 || drawn.len() == usable.len() {
            break;
        }
        let mut point = point(&route.name, &request.tenant, by, &key, draw, of);
        let holds = |at: &usize| {
            let weight = u64::from(route.targets[*at].weight);
            let here = point < weight;
            point = point.saturating_sub(weight);
            here
        };
        let Some(found) = left.iter().position(holds) else { break };
        let number = left.remove(found);
        if let Some(candidate) = usable.iter().find(|candidate| candidate.number == number) {
            let weight = candidate.target.weight;
            drawn.push((*candidate, Score::Share { weight, of, by, draw }));
        }
    }
    drawn
}

/// What makes two requests draw alike. A request without a user or conversation draws for itself.
fn sticky_key(request: &Request, by: StickyBy) -> (StickyBy, Vec<u8>) {
    let named = match by {
        StickyBy::Tenant => Some(Vec::new()),
        StickyBy::User => request.user.as_ref().map(|user| user.as_bytes().to_vec()),
        StickyBy::Conversation => request.conversation.as_ref().map(|c| c.as_bytes().to_vec()),
        StickyBy::Request => None,
    };
    named.map_or_else(|| (StickyBy::Request, request.seed.to_be_bytes().to_vec()), |key| (by, key))
}

/// A point below `of`, the same everywhere for the same words.
fn point(route: &str, tenant: &str, by: StickyBy, key: &[u8], draw: u32, of: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 share of a route");
    for word in [route.as_bytes(), tenant.as_bytes(), by.as_str().as_bytes(), key] {
        hasher.update(&(word.len() as u64).to_be_bytes());
        hasher.update(word);
    }
    hasher.update(&draw.to_be_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // The high half of the product is below `of`, and as even as 64 bits allow.
    ((u128::from(u64::from_be_bytes(first)) * u128::from(of)) >> 64) as u64
}

/// From the smallest that is large enough upwards; then, as a last resort, downwards.
fn by_size<'a>(
    route: &Route,
    complexity: Complexity,
    usable: &[Candidate<'a>],
) -> Vec<(Candidate<'a>, Score)> {
    let score = complexity.score();
    let enough = route.targets.iter().position(|target| score <= target.up_to);
    let wanted = enough.unwrap_or(route.targets.len() - 1);
    sorted(usable, |c| {
        let key = match c.number.checked_sub(wanted) {
            Some(larger) => larger as u128,
            None => (1 << 32) + (wanted - c.number) as u128,
        };
        (key, Score::Size { level: c.number as u32 + 1, wanted: wanted as u32 + 1 })
    })
}

impl StickyBy {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::User => "user",
            Self::Conversation => "conversation",
            Self::Request => "request",
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(at) => write!(f, "number {at} in the order written"),
            Self::Share { weight, of, by, draw } => {
                write!(f, "{weight} of {of} shares, draw {draw} of this {}", by.as_str())
            }
            Self::Cost(micro_dollars) => {
                write!(f, "{micro_dollars} micro-dollars for a usual answer")
            }
            Self::CostUnknown => f.write_str("price not known"),
            Self::Time(time) => write!(f, "{} ms for a usual answer", time.as_millis()),
            Self::Unmeasured => f.write_str("never measured"),
            Self::Explored => f.write_str("never measured: this request finds out"),
            Self::Load { in_flight, weight } => {
                write!(f, "{in_flight} in progress, for a weight of {weight}")
            }
            Self::Size { level, wanted } => {
                write!(f, "size {level}, where {wanted} is large enough")
            }
        }
    }
}
