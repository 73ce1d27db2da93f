//! Where a request could run best, as a pure function.
//!
//! Hard filters first: a peer that is not well, or a model that failed. Then the least estimated
//! completion time, `rtt + (pending + prompt tokens) / prefill rate + output × time per token`.
//! Stale load herds, so among near-equal candidates two are drawn and the better one is taken
//! (Mitzenmacher 2001), and those with unusually many requests in flight from here come later
//! (Prequal, NSDI 2024). A machine that runs low or hot comes after the others and is asked all
//! the same where there is no other. Every candidate gets its verdict, so that a decision can be
//! explained.
//! Owns no state: capability, label and tenant rules were applied by whoever lists candidates.

use std::fmt;

use selvedge_base::{Dice, Micros, NodeId};
use serde::{Deserialize, Serialize};

use crate::swim::PeerState;

/// A place where the request could run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which node.
    pub node: NodeId,
    /// Whether it is this node.
    pub is_me: bool,
    /// Its health as seen from here.
    pub state: PeerState,
    /// Round trip; none for this node or when not yet measured.
    pub rtt: Option<Micros>,
    /// Where the model stands there.
    pub model_state: Readiness,
    /// Sequences of the model being computed.
    pub running: u32,
    /// Requests waiting there.
    pub queued: u32,
    /// Prompt tokens not yet computed there.
    pub pending_prompt_tokens: u32,
    /// Prompt tokens per second there; 0 = not known.
    pub prefill_rate: u32,
    /// Microseconds per token there, at the present batch size; 0 = not known.
    pub step_us: u32,
    /// Requests this node has handed there and that are not finished.
    pub in_flight_from_here: u32,
    /// Why its machine should be spared, if it should.
    pub strain: Option<Strain>,
}

/// Why a machine should be spared while others can do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Strain {
    /// Its battery carries it, and is this full.
    Battery {
        /// Of a full one.
        percent: u8,
    },
    /// It is this hot.
    Hot {
        /// Tenths of a degree Celsius.
        decidegrees: i16,
    },
    /// A part of it is this near to where it throttles or stops.
    NearLimit {
        /// Tenths of a degree that are left.
        decidegrees: i16,
    },
}

impl fmt::Display for Strain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Battery { percent } => write!(f, "on battery at {percent} %"),
            Self::Hot { decidegrees } => write!(f, "at {} °C", Tenths(*decidegrees)),
            Self::NearLimit { decidegrees } => {
                write!(f, "{} °C below its critical point", Tenths(*decidegrees))
            }
        }
    }
}

/// A number of tenths as people write it.
struct Tenths(i16);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, all) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        match all % 10 {
            0 => write!(f, "{sign}{}", all / 10),
            tenth => write!(f, "{sign}{}.{tenth}", all / 10),
        }
    }
}

/// Where a model stands, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Readiness {
    /// Answers requests.
    Ready,
    /// Being loaded.
    Loading,
    /// On disk only.
    Cold,
    /// Could not be loaded.
    Failed,
}

/// What the request needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Tokens of the prompt, counted or estimated.
    pub prompt_tokens: u32,
    /// Tokens of the answer to expect.
    pub output_tokens: u32,
}

/// All candidates, best first, and the one to take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Every candidate: usable ones in the order to try them, then the excluded ones.
    pub ranked: Vec<Scored>,
    /// The one to take first: the first of `ranked`, none when all are excluded.
    pub chosen: Option<NodeId>,
}

/// A candidate's estimate and what was made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// Which node.
    pub node: NodeId,
    /// Estimated time to the end of the answer.
    pub estimate: Micros,
    /// Why it stands where it stands.
    pub verdict: Verdict,
}

/// Why a candidate stands where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Taken: the least estimated time.
    Fastest,
    /// Taken: this node, and no other is better by enough to make the trip.
    Local,
    /// Taken: as good as the fastest, and drawn so that not all nodes choose the same.
    Drawn,
    /// Usable, but slower.
    Slower,
    /// Usable, but has many requests of this node in flight.
    Busy,
    /// Usable, but its model is still loading.
    Loading,
    /// Usable, but its model is not in memory.
    Cold,
    /// Excluded: may be gone.
    Suspect,
    /// Excluded: computes without progress.
    Frozen,
    /// Excluded: gone.
    Dead,
    /// Excluded: could not load the model.
    Failed,
    /// Usable, but its machine is spared while another can answer.
    Spared(Strain),
}

impl Verdict {
    /// Whether the candidate may be tried at all.
    pub const fn usable(self) -> bool {
        !matches!(self, Self::Suspect | Self::Frozen | Self::Dead | Self::Failed)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fastest => "fastest",
            Self::Local => "local, and no peer is faster by enough",
            Self::Drawn => "drawn among the near-equal fastest",
            Self::Slower => "slower",
            Self::Busy => "has many of our requests in flight",
            Self::Loading => "model is loading there",
            Self::Cold => "model is not in memory there",
            Self::Suspect => "may be gone",
            Self::Frozen => "computes without progress",
            Self::Dead => "gone",
            Self::Failed => "could not load the model",
            Self::Spared(strain) => return write!(f, "{strain}: after others"),
        })
    }
}

/// Candidates within this much of the least estimate count as equal: estimates come from load
/// that is up to a probe period old, and are wrong by about a fifth anyway. In permille.
const NEAR_EQUAL_PERMILLE: u64 = 200;
/// ... but never less than a probe period and a bit: below that, the age of the load decides.
const NEAR_EQUAL_AT_LEAST: Micros = Micros::millis(50);
/// A peer must beat this node by this much to be worth the trip: a connection may break, a
/// neighbour's load may be stale, and the answer crosses the network token by token.
const LOCAL_SLACK: Micros = Micros::millis(100);
/// Rates assumed where nothing was measured yet: those of a small model on four slow cores, so
/// that a node of unknown speed is tried but not preferred over a known fast one.
const UNKNOWN_PREFILL_RATE: u32 = 100;
/// Microseconds per token assumed where nothing was measured yet.
const UNKNOWN_STEP_US: u32 = 50_000;
/// What loading a model costs in the estimate: reading a gigabyte from a slow disk.
const LOAD_TIME: Micros = Micros::secs(10);
/// What is left of loading on average, once it began.
const LOADING_TIME: Micros = Micros(LOAD_TIME.0 / 2);
/// A trip of unknown length: a slow LAN.
const UNKNOWN_RTT: Micros = Micros::millis(5);
/// A peer with more requests of this node in flight than this quantile of all candidates is hot
/// (Prequal's choice), in permille.
const HOT_QUANTILE_PERMILLE: usize = 840;
/// ... and comes later only while a cool one takes at most this many times as long: among unequal
/// machines the fast one deserves more requests.
const COOL_WORTH: u64 = 2;
/// Where the model is in memory comes first, unless it takes more than this many times as long as
/// loading it elsewhere: a load may throw another model out there, whose next request pays for it.
const LOAD_WORTH: u64 = 2;

/// Ranks the candidates for `need` and says which to take first.
pub fn choose(need: Need, candidates: &[Candidate], dice: &mut Dice) -> Choice {
    let hot_above = hot_threshold(candidates);
    let coolest = candidates
        .iter()
        .filter(|candidate| first_verdict(candidate, hot_above) == Verdict::Slower)
        .map(|candidate| estimate(need, candidate))
        .min();
    let soonest = soonest_ready(need, candidates);
    let mut ranked: Vec<(Candidate, Scored, Rank)> = candidates
        .iter()
        .map(|candidate| {
            let estimate = estimate(need, candidate);
            let mut verdict = first_verdict(candidate, hot_above);
            let worth = |cool: Micros| cool <= estimate.times(COOL_WORTH);
            if verdict == Verdict::Busy && !coolest.is_some_and(worth) {
                verdict = Verdict::Slower;
            }
            let loads = matches!(verdict, Verdict::Loading | Verdict::Cold);
            let late = |ready: Micros| estimate.times(LOAD_WORTH) < ready;
            let tier = if loads && soonest.is_some_and(late) { 0 } else { tier(verdict) };
            // To load a model is work, too.
            let rank = (tier, candidate.strain.is_some());
            (candidate.clone(), Scored { node: candidate.node, estimate, verdict }, rank)
        })
        .collect();
    // Ties go by name, so that the order never depends on the caller's.
    ranked.sort_by_key(|(_, scored, rank)| (*rank, scored.estimate, scored.node));
    let chosen = pick(&mut ranked, dice);
    Choice { ranked: ranked.into_iter().map(|(_, scored, _)| scored).collect(), chosen }
}

/// `rtt + (pending + prompt) / prefill rate + waiting for a place + output × time per token`.
pub fn estimate(need: Need, candidate: &Candidate) -> Micros {
    let rate = u64::from(known(candidate.prefill_rate, UNKNOWN_PREFILL_RATE));
    let step = u64::from(known(candidate.step_us, UNKNOWN_STEP_US));
    let trip = match (candidate.is_me, candidate.rtt) {
        (true, _) => Micros::ZERO,
        (false, rtt) => rtt.unwrap_or(UNKNOWN_RTT),
    };
    let load = match candidate.model_state {
        Readiness::Ready => Micros::ZERO,
        Readiness::Loading => LOADING_TIME,
        Readiness::Cold | Readiness::Failed => LOAD_TIME,
    };
    let prompt = u64::from(candidate.pending_prompt_tokens) + u64::from(need.prompt_tokens);
    let prefill = Micros(prompt.saturating_mul(1_000_000) / rate);
    let decode = Micros(step.saturating_mul(u64::from(need.output_tokens)));
    // A queued request waits for a running one to finish; answers are alike in length, and each of
    // the running ones is half done on average.
    let places = u64::from(candidate.running.max(1));
    let rounds = u64::from(candidate.queued).div_ceil(places);
    let waiting = Micros(decode.0.saturating_mul(rounds * 2 + u64::from(rounds > 0)) / 2);
    trip.plus(load).plus(prefill).plus(waiting).plus(decode)
}

const fn known(measured: u32, otherwise: u32) -> u32 {
    if measured == 0 { otherwise } else { measured }
}

/// The least time where the model is in memory; none where it is nowhere.
fn soonest_ready(need: Need, candidates: &[Candidate]) -> Option<Micros> {
    let ready = |candidate: &&Candidate| {
        candidate.state == PeerState::Alive && candidate.model_state == Readiness::Ready
    };
    candidates.iter().filter(ready).map(|candidate| estimate(need, candidate)).min()
}

/// Requests in flight above which a peer is hot; none when all have about the same.
fn hot_threshold(candidates: &[Candidate]) -> u32 {
    let usable = |candidate: &&Candidate| candidate.state == PeerState::Alive && !candidate.is_me;
    let mut flights: Vec<u32> =
        candidates.iter().filter(usable).map(|c| c.in_flight_from_here).collect();
    flights.sort_unstable();
    let at = flights.len() * HOT_QUANTILE_PERMILLE / 1_000;
    flights.get(at.min(flights.len().saturating_sub(1))).copied().unwrap_or(u32::MAX)
}

fn first_verdict(candidate: &Candidate, hot_above: u32) -> Verdict {
    match candidate.state {
        PeerState::Suspect => return Verdict::Suspect,
        PeerState::Frozen => return Verdict::Frozen,
        PeerState::Dead => return Verdict::Dead,
        PeerState::Alive => {}
    }
    let is_busy = !candidate.is_me && candidate.in_flight_from_here > hot_above;
    match (candidate.model_state, candidate.strain) {
        (Readiness::Failed, _) => Verdict::Failed,
        (Readiness::Cold, _) => Verdict::Cold,
        (Readiness::Loading, _) => Verdict::Loading,
        (Readiness::Ready, Some(strain)) => Verdict::Spared(strain),
        (Readiness::Ready, None) if is_busy => Verdict::Busy,
        (Readiness::Ready, None) => Verdict::Slower,
    }
}

/// Ready ones first, then busy ones, then those that are spared, then those that must load, then
/// those that cannot. Where all that are ready are overloaded, those that must load compete with
/// them.
const fn tier(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Fastest | Verdict::Local | Verdict::Drawn | Verdict::Slower => 0,
        Verdict::Busy => 1,
        Verdict::Spared(_) => 2,
        Verdict::Loading => 3,
        Verdict::Cold => 4,
        Verdict::Suspect | Verdict::Frozen | Verdict::Dead | Verdict::Failed => 5,
    }
}

/// The tier of a candidate, and within it whether its machine is spared.
type Rank = (u8, bool);

/// Moves the one to take to the front and says why it was taken.
fn pick(ranked: &mut [(Candidate, Scored, Rank)], dice: &mut Dice) -> Option<NodeId> {
    let (_, best, best_rank) = ranked.first().filter(|(_, best, _)| best.verdict.usable())?;
    let (best_rank, least) = (*best_rank, best.estimate);
    let rivals = ranked.iter().take_while(|(_, _, rank)| *rank == best_rank).count();
    let within = |slack: Micros, scored: &Scored| scored.estimate <= least.plus(slack);
    let local = ranked[..rivals]
        .iter()
        .position(|(candidate, scored, _)| candidate.is_me && within(LOCAL_SLACK, scored));
    let slack = Micros(least.0 / 1_000 * NEAR_EQUAL_PERMILLE).max(NEAR_EQUAL_AT_LEAST);
    let near = ranked[..rivals].iter().take_while(|(_, scored, _)| within(slack, scored)).count();
    let (at, verdict) = match local {
        Some(at) => (at, Verdict::Local),
        None if near > 1 => {
            let (first, second) = two_of(near, dice);
            let key = |at: usize| (ranked[at].0.in_flight_from_here, ranked[at].1.estimate);
            let at = if key(first) <= key(second) { first } else { second };
            (at, if at == 0 { Verdict::Fastest } else { Verdict::Drawn })
        }
        None => (0, Verdict::Fastest),
    };
    // A taken candidate that must load, or should be spared, says so rather than "fastest".
    if !matches!(ranked[at].1.verdict, Verdict::Loading | Verdict::Cold) && best_rank.0 == 0 {
        ranked[at].1.verdict = verdict;
    }
    ranked[..=at].rotate_right(1);
    ranked.first().map(|(_, scored, _)| scored.node)
}

/// Two different indices below `count`, which is at least 2.
fn two_of(count: usize, dice: &mut Dice) -> (usize, usize) {
    let first = dice.below(count as u64) as usize;
    let second = dice.below(count as u64 - 1) as usize;
    (first, if second >= first { second + 1 } else { second })
}

#[cfg(test)]
mod tests;
