//! Stewards that replace anchors as `selvedge fed anchors` does, also two who do not know of each
//! other.
//!
//! Owns whom a steward takes for lost, whom it asks for, and the draw of two stewards at once; what
//! becomes of a wish is [`super::wishes`]'s. The rules are those of the product
//! (`federated/seats.rs` of the runtime): whoever can be reached and is an anchor stays. Some
//! wishes are for others first, which the product never asks for: more seats change hands so.

use std::sync::Arc;

use selvedge_base::Micros;
use selvedge_federated::round::{Committee, Job, Tip};

use super::plan::{Cut, Plan, Wish, name, seat};
use crate::stream::Stream;

/// What a steward knows of links is as old as this: a node that fell silent is suspected first.
const STALE: Micros = Micros::secs(5);
/// Longest way of a message where a job is far enough for a second set of anchors in time.
const QUICK: Micros = Micros::millis(300);
/// Rounds of a job of which one steward knows the second set of anchors and another one the first:
/// some seconds' worth, so that both wishes come before its end.
const LONG: u64 = 12;

/// Whom a steward can reach, as it sees it, of the nodes that are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// All: it has not noticed any cut.
    All,
    /// Whoever was not cut off from its node so long ago, but for one that it takes for lost.
    Own {
        /// How old its knowledge of cuts is.
        ago: Micros,
        /// Whom it takes for lost.
        overlooks: Option<usize>,
    },
}

impl View {
    /// Whether a node that is up can be reached from a steward's, as that sees it now.
    pub(super) fn reaches(&self, plan: &Plan, steward: usize, node: usize, now: Micros) -> bool {
        match self {
            Self::All => true,
            Self::Own { ago, overlooks } => {
                let at = Micros(now.0.saturating_sub(ago.0));
                let is_cut = plan.is_cut(steward, node, at) || plan.is_cut(node, steward, at);
                node == steward || (*overlooks != Some(node) && !is_cut)
            }
        }
    }
}

/// Whom a steward asks for by what its node knows of the chain, among those nodes that it can
/// reach. Why nobody, where it may not or cannot.
pub(super) fn asked_for(
    job: &Job,
    tip: &Tip,
    fresh: bool,
    reached: &[usize],
) -> Result<Committee, &'static str> {
    if tip.round >= job.rounds {
        return Err("a job over before its anchors were replaced");
    }
    let is_seated = |node: &usize| tip.committee.place(&name(*node)).is_some();
    let (seated, others): (Vec<usize>, Vec<usize>) = reached.iter().copied().partition(is_seated);
    if seated.len() < job.gathering() {
        return Err("too few anchors to hand a job on");
    }
    let (first, then) = if fresh { (others, seated) } else { (seated, others) };
    let nodes: Vec<usize> = first.into_iter().chain(then).collect();
    let Some(nodes) = nodes.get(..job.scheme.anchors()) else {
        return Err("too few nodes to replace anchors");
    };
    let epoch = tip.committee.epoch + 1;
    Ok(Committee { epoch, seats: nodes.iter().map(|node| seat(*node)).collect() })
}

/// What one of two stewards asks for, wherever and whenever it does.
#[derive(Clone, Copy)]
struct Mind {
    fresh: bool,
    overlooks: usize,
}

impl Mind {
    const fn at(self, steward: usize) -> Wish {
        let view = View::Own { ago: STALE, overlooks: Some(self.overlooks) };
        Wish { steward, fresh: self.fresh, view }
    }
}

impl Plan {
    /// Now and then two stewards who do not know of each other, each with another view of who is
    /// lost: at once, on the two sides of a cut, or one of them behind.
    pub(super) fn draw_stewards(&mut self, dice: &mut Stream) {
        if !dice.chance(600) {
            return;
        }
        match dice.below(4) {
            0 => self.draw_at_once(dice),
            2 | 3 if self.delay <= QUICK => self.draw_behind(dice),
            _ => self.draw_apart(dice),
        }
    }

    /// Two stewards who ask for different anchors: each takes another one for lost.
    fn draw_minds(&self, dice: &mut Stream) -> [Mind; 2] {
        let anchors = self.job.scheme.anchors();
        let first = dice.below(anchors as u64) as usize;
        let second = (first + 1 + dice.below(anchors as u64 - 1) as usize) % anchors;
        // A client that is to die may not be an anchor too: that would be two deaths at once.
        let may_be_fresh = self.deaths.iter().all(|(node, _)| *node < anchors);
        let fresh = dice.chance(500) && may_be_fresh;
        [Mind { fresh, overlooks: first }, Mind { fresh: false, overlooks: second }]
    }

    /// A node, and another one.
    fn draw_pair(&self, dice: &mut Stream) -> (usize, usize) {
        let one = dice.below(self.nodes as u64) as usize;
        (one, (one + 1 + dice.below(self.nodes as u64 - 1) as usize) % self.nodes)
    }

    /// Both ask before word of the first wish is everywhere.
    fn draw_at_once(&mut self, dice: &mut Stream) {
        let ([first, second], (one, other)) = (self.draw_minds(dice), self.draw_pair(dice));
        let at = Micros::millis(300 + dice.below(5_000));
        self.wishes.push((at, first.at(one)));
        self.wishes.push((at.plus(Micros::millis(dice.below(1_500))), second.at(other)));
    }

    /// A cut leaves one of them with too few anchors for a quorum, before it notices.
    fn draw_apart(&mut self, dice: &mut Stream) {
        let (quorum, anchors) = (self.job.quorum(), self.job.scheme.anchors());
        let few = 1 + dice.below(quorum as u64 - 1) as usize;
        let first = dice.below(anchors as u64) as usize;
        let is_there = |node: &usize| match *node < anchors {
            true => (node + anchors - first) % anchors < few,
            false => dice.chance(400),
        };
        let (side, rest): (Vec<usize>, Vec<usize>) = (0..self.nodes).partition(is_there);
        let from = Micros::millis(600 + dice.below(4_000));
        let until = from.plus(Micros::millis(3_000 + dice.below(8_000)));
        let minds = self.draw_minds(dice);
        for (here, mind) in [&side, &rest].into_iter().zip(minds) {
            let steward = here[dice.below(here.len() as u64) as usize];
            // Some ask just before, so that word of it is under way to the other side.
            let at = Micros(from.0 - 300_000).plus(Micros::millis(dice.below(2_500)));
            self.wishes.push((at, mind.at(steward)));
        }
        self.cuts.push(Cut { from, until, side, one_way: dice.chance(250) });
    }

    /// One is down while the job gets other anchors, and asks as soon as it is back, for those that
    /// come after the first ones; the other one asks once more at that time.
    fn draw_behind(&mut self, dice: &mut Stream) {
        let ([first, second], (behind, other)) = (self.draw_minds(dice), self.draw_pair(dice));
        let from = Micros::millis(200 + dice.below(1_500));
        let back = from.plus(Micros::millis(7_000 + dice.below(6_000)));
        self.crashes.push((behind, from, back));
        let asked = from.plus(Micros::millis(100 + dice.below(1_000)));
        let again = Micros(back.0 - 300_000).plus(Micros::millis(dice.below(600)));
        let late = back.plus(Micros::millis(1 + dice.below(100)));
        self.wishes.push((asked, first.at(other)));
        self.wishes.push((again, first.at(other)));
        self.wishes.push((late, second.at(behind)));
        let mut job = (*self.job).clone();
        job.rounds = job.rounds.max(LONG);
        self.job = Arc::new(job);
    }
}
