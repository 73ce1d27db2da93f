//! An anchor that lies about its part of sums, to everybody in another way.
//!
//! Owns the plans with one and what it makes of the messages that leave it: inside it is like all
//! others, so that it follows the chain. One lies, and no more parts than tell it are away for
//! longer than they are waited for: what k parts alone say nobody can check.

use selvedge_base::{Micros, NodeId};
use selvedge_federated::field::Fp;
use selvedge_federated::round::{Digest, Folded, Message, Opening, Partial};

use super::plan::{Plan, name};
use crate::names::StandIn;
use crate::stream::Stream;

/// The most messages lost of a thousand here: three sendings of a part are lost together once in
/// a hundred thousand times, and a run has some hundred parts.
const LOST_PERMILLE: u64 = 20;

impl Plan {
    /// The plan of a seed in which one of the first anchors lies: its job, its network and its
    /// disks, with one of the other anchors down now and then.
    pub fn lying(seed: u64) -> Self {
        let mut plan = Self::averaging(seed);
        plan.draw_strategy(&mut Stream::keyed(seed, 4, 0, 0));
        plan.crashes.clear();
        plan.deaths.clear();
        plan.cuts.clear();
        plan.kills.clear();
        plan.damage_permille = 0;
        plan.loss_permille = plan.loss_permille.min(LOST_PERMILLE);
        let mut dice = Stream::keyed(seed, 8, 0, 0);
        let anchors = plan.job.scheme.anchors() as u64;
        let liar = dice.below(anchors);
        plan.liar = Some(liar as usize);
        let mut from = 0;
        for _ in 0..dice.below(4) {
            let node = (liar + 1 + dice.below(anchors - 1)) % anchors;
            from += 1 + dice.below(Micros::secs(6).0);
            let back = from + dice.below(Micros::secs(8).0);
            plan.crashes.push((node as usize, Micros(from), Micros(back)));
            from = back;
        }
        plan
    }
}

/// What leaves a liar in place of a message; nothing where it has nothing to lie about.
pub(super) fn lie(plan: &Plan, liar: usize, to: usize, message: &Message) -> Option<Message> {
    match message {
        Message::Opened(part) => Some(Message::Opened(Box::new(spoilt(plan, liar, to, part)))),
        Message::Folded(folded) => {
            let lie = made_up(plan, liar, to, folded)?;
            Some(Message::Folded(Box::new(lie)))
        }
        Message::Share { .. }
        | Message::Receipt(_)
        | Message::Refused { .. }
        | Message::Prepare { .. }
        | Message::Promise { .. }
        | Message::Behind { .. }
        | Message::Propose { .. }
        | Message::Accepted(_)
        | Message::Closed(_)
        | Message::Ask { .. } => None,
    }
}

/// A part with other values, signed all the same.
fn spoilt(plan: &Plan, liar: usize, to: usize, part: &Opening) -> Opening {
    let mut partial = part.partial.clone();
    match &mut partial {
        Partial::Shares(values) => {
            let by = Fp::reduced(1 + to as u64);
            values.iter_mut().take(1).for_each(|value| *value = value.plus(by));
        }
        Partial::Open(aggregate) => {
            let by = 1 + to as i64;
            aggregate.sum.iter_mut().take(1).for_each(|value| {
                // Within what updates add up to, as it would be seen otherwise.
                *value += if *value > 0 { -by } else { by };
            });
        }
    }
    let (job, me): (Digest, NodeId) = (plan.job.digest(), name(liar));
    Opening::sign(&job, part.round, part.close, me, partial, &StandIn(me))
}

/// The end of a round of as few parts as tell one, one of them the liar's: another model.
fn made_up(plan: &Plan, liar: usize, to: usize, folded: &Folded) -> Option<Folded> {
    let me = name(liar);
    let (own, others): (Vec<&Opening>, Vec<&Opening>) =
        folded.openings.iter().partition(|part| part.anchor == me);
    let own = own.first().filter(|part| matches!(part.partial, Partial::Shares(_)))?;
    let mut openings = vec![spoilt(plan, liar, to, own)];
    openings.extend(others.into_iter().take(plan.job.openings() - 1).cloned());
    Some(Folded { certificate: folded.certificate.clone(), openings })
}
