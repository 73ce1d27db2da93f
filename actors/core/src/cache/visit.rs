//! One request's visit to the cache: what it may do there, how long it waits for others, and
//! whether its answer is kept.
//!
//! Owns what follows from the caller's word, from the record of an answer and from the time. The
//! answers are [`super::Cache`]'s.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono};
use selvedge_contract::FinishReason;

use crate::journey::Target;
use crate::record::{Outcome, RequestRecord};

/// Times one request waits for somebody else's answer: when that fails it asks itself or waits for
/// the one who does, and when that fails too it goes its own way, so that a target that refuses all
/// does not refuse them one after another.
const ROUNDS: u8 = 2;
/// A request waits for others for this part of its time, all rounds together: the rest is for its
/// own answer.
const PATIENCE: u64 = 2;

/// What the caller says about the cache (in the spirit of RFC 9111, section 5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// An answer of its own, which may be kept.
    pub no_cache: bool,
    /// Nothing is to be kept of it.
    pub no_store: bool,
    /// An answer that is kept, or none.
    pub only_cached: bool,
    /// An answer whose words were drawn by chance will do.
    pub sampled: bool,
}

/// What a request may do at the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Take what is kept, wait for who asks the same, or ask for both.
    Look,
    /// Take what is kept; if nothing is, pass by for this reason.
    Find(&'static str),
    /// Ask for an answer of its own, which may be kept.
    Anew,
    /// Pass by, for this reason.
    Beside(&'static str),
}

impl Wish {
    /// What a request of this wish may do; `by_chance` when its words are drawn by chance and
    /// nobody but the caller could say that one answer is as good as another.
    pub const fn way(self, by_chance: bool) -> Way {
        if by_chance && !self.sampled {
            return Way::Beside("sampled");
        }
        match (self.no_cache, self.no_store, self.only_cached) {
            (true, true, _) => Way::Beside("no-store"),
            (true, false, _) => Way::Anew,
            (false, _, true) => Way::Find("not-kept"),
            (false, true, false) => Way::Find("no-store"),
            (false, false, false) => Way::Look,
        }
    }
}

/// How long a request still waits for others who ask the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    until: Mono,
    rounds: u8,
}

impl Waits {
    /// Of a request that came now and may take so long.
    pub const fn new(now: Mono, deadline: Micros) -> Self {
        Self { until: now.plus(Micros(deadline.0 / PATIENCE)), rounds: ROUNDS }
    }

    /// Whether it waits once more, and until when.
    pub const fn again(&mut self) -> Option<Mono> {
        if self.rounds == 0 {
            return None;
        }
        self.rounds -= 1;
        Some(self.until)
    }
}

/// Whether an answer may be kept: it came whole, and from the target that the question would be
/// asked of first. Another one's, asked since that one failed or a budget was used up, is not to
/// outlive the reason.
pub fn is_faithful(record: &RequestRecord, first: &Target) -> bool {
    let whole = matches!(
        record.outcome,
        Outcome::Finished { reason: FinishReason::Stop | FinishReason::Length, .. }
    );
    let by_first = match record.legs.first() {
        Some(leg) => leg.target == *first && leg.asked && leg.ended.is_none(),
        // What a model of the mesh answers by itself has no targets to go along.
        None => !first.is_paid(),
    };
    if plant::is_on(Plant::StandInKept) {
        return whole;
    }
    let strayed = first.is_paid() && !record.attempts.is_empty();
    whole && by_first && !strayed && record.downgraded_to.is_none()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use selvedge_base::RequestId;
    use selvedge_contract::Usage;
    use selvedge_proto::choice::Choice;

    use super::*;
    use crate::journey::Leg;
    use crate::record::Attempt;

    #[test]
    fn a_wish_says_what_may_be_done() {
        let none = Wish::default();
        assert_eq!(none.way(false), Way::Look);
        assert_eq!(none.way(true), Way::Beside("sampled"));
        assert_eq!(Wish { sampled: true, ..none }.way(true), Way::Look);
        assert_eq!(Wish { no_cache: true, ..none }.way(false), Way::Anew);
        assert_eq!(Wish { no_store: true, ..none }.way(false), Way::Find("no-store"));
        assert_eq!(Wish { only_cached: true, ..none }.way(false), Way::Find("not-kept"));
        let both = Wish { no_cache: true, no_store: true, ..none };
        assert_eq!(both.way(false), Way::Beside("no-store"));
    }

    #[test]
    fn nobody_waits_for_more_than_half_of_its_time() {
        let mut waits = Waits::new(Mono(1_000), Micros(600));
        // The end does not move, however often one waits.
        assert_eq!(waits.again(), Some(Mono(1_300)));
        assert_eq!(waits.again(), Some(Mono(1_300)));
        assert_eq!(waits.again(), None);
    }

    fn attempt() -> Attempt {
        let choice = Choice { ranked: Vec::new(), chosen: None };
        Attempt { node: selvedge_base::NodeId([1; 32]), choice, from_index: 0, ended: None }
    }

    fn record(target: &Target, asked: bool, ended: Option<&str>) -> RequestRecord {
        let ended = ended.map(str::to_owned);
        let leg = Leg { asked, ..Leg::unasked(target.clone(), String::new(), ended) };
        RequestRecord {
            id: RequestId(1),
            model: "chat".to_owned(),
            downgraded_to: None,
            tenant: "acme".to_owned(),
            legs: vec![leg],
            attempts: Vec::new(),
            outcome: Outcome::Finished { reason: FinishReason::Stop, usage: Usage::default() },
            took: Micros(1),
            first_token: None,
            longest_gap: None,
            saving: None,
        }
    }

    #[test]
    fn only_a_whole_answer_of_the_first_target_is_kept() {
        let paid = Target::Provider { provider: "lab".to_owned(), model: "large".to_owned() };
        let mesh = Target::Mesh { model: "large".to_owned() };
        assert!(is_faithful(&record(&paid, true, None), &paid));
        assert!(!is_faithful(&record(&paid, true, None), &mesh));
        assert!(!is_faithful(&record(&paid, false, None), &paid));
        assert!(!is_faithful(&record(&paid, true, Some("it failed")), &paid));
        // A node of the mesh had a turn: its own target's in the one case, a stand-in's in the
        // other.
        let tried = vec![attempt()];
        let strayed = RequestRecord { attempts: tried.clone(), ..record(&paid, true, None) };
        assert!(!is_faithful(&strayed, &paid));
        let own = RequestRecord { attempts: tried, ..record(&mesh, true, None) };
        assert!(is_faithful(&own, &mesh));
        let plain = RequestRecord { legs: Vec::new(), ..own.clone() };
        assert!(is_faithful(&plain, &mesh) && !is_faithful(&plain, &paid));
        let lesser = Some("small".to_owned());
        assert!(!is_faithful(&RequestRecord { downgraded_to: lesser, ..own.clone() }, &mesh));
        let cut = Outcome::Finished { reason: FinishReason::Quota, usage: Usage::default() };
        assert!(!is_faithful(&RequestRecord { outcome: cut, ..own.clone() }, &mesh));
        assert!(!is_faithful(&RequestRecord { outcome: Outcome::Cancelled, ..own }, &mesh));
    }
}
