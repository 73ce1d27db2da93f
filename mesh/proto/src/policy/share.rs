//! Dividing a limit among holders.
//!
//! Holder `n` of weight `w_n` gets `floor(B·w_n/W)`. The units that are left, fewer than there are
//! holders, go one each to the holders in order, beginning with number `window mod holders`: a cap
//! too small to divide comes round to everybody. Shares add up to the limit exactly.
//!
//! A window in parts vests share by share, each rounded up: `ceil(share·(part + 1)/parts)`. That
//! only grows, and is the whole share in the last part. Dividing what vested so far anew in every
//! part would not do: a holder may lose a left-over unit that it has spent already (weights 1, 1,
//! 5, 5: of 2 units the first two get one each, of 3 the second gets none).

use selvedge_base::Wall;
use selvedge_crdt::escrow::Holder;

use super::{BudgetSpec, MAX_MEMBERS};

/// A limit, divided; what does not depend on the window is worked out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) limit: u64,
    /// The sum of the weights; at least 1.
    total: u64,
    /// Units left after all shares were rounded down.
    left: u64,
}

impl Split {
    /// Divides `limit` by the weights of `members`.
    pub(super) fn new(limit: u64, members: &[(Holder, u32)]) -> Self {
        debug_assert!(members.len() <= MAX_MEMBERS, "epochs are checked");
        let total = members.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>().max(1);
        let mut split = Self { limit, total, left: 0 };
        let whole: u64 = members.iter().map(|(_, weight)| split.floor(*weight)).sum();
        split.left = limit - whole.min(limit);
        split
    }

    /// What `holder` gets in a window; nothing when it is no member.
    pub(super) fn of(&self, members: &[(Holder, u32)], holder: &Holder, window: u64) -> u64 {
        let Ok(place) = members.binary_search_by(|(member, _)| member.cmp(holder)) else {
            return 0;
        };
        let count = members.len() as u64;
        let turn = (place as u64 + count - window % count) % count;
        self.floor(members[place].1) + u64::from(turn < self.left)
    }

    fn floor(&self, weight: u32) -> u64 {
        let share = u128::from(self.limit) * u128::from(weight) / u128::from(self.total);
        // A share of a 64-bit limit.
        share as u64
    }
}

/// How much of a share may be used at `wall`.
pub(super) fn vested(share: u64, spec: &BudgetSpec, window: u64, wall: Wall) -> u64 {
    let parts = u64::from(spec.sub_windows.max(1));
    if parts == 1 {
        return share;
    }
    let (begin, end) = (spec.period.start(window).0, spec.period.end(window).0);
    let span = u128::from(end.saturating_sub(begin).max(1));
    let gone = u128::from(wall.0.saturating_sub(begin)).min(span - 1);
    let part = gone * u128::from(parts) / span;
    ((u128::from(share) * (part + 1)).div_ceil(u128::from(parts))) as u64
}

/// When the next part of a window vests after `wall`; its end in the last part.
pub(super) fn vests_next(spec: &BudgetSpec, window: u64, wall: Wall) -> Wall {
    let (begin, end) = (spec.period.start(window), spec.period.end(window));
    let parts = u128::from(spec.sub_windows.max(1));
    let span = u128::from(end.0.saturating_sub(begin.0).max(1));
    if wall < begin || wall >= end {
        return if wall < begin { begin } else { end };
    }
    let part = u128::from(wall.0 - begin.0) * parts / span;
    // Rounded up: the first millisecond that counts to the next part.
    Wall(begin.0.saturating_add(((part + 1) * span).div_ceil(parts) as u64)).min(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use selvedge_base::NodeId;

    use crate::policy::tests::spec;
    use crate::policy::{Period, Unit};

    fn members(weights: &[u32]) -> Vec<(Holder, u32)> {
        let holder = |at: usize| Holder { node: NodeId([at as u8; 32]), incarnation: 1 };
        weights.iter().enumerate().map(|(at, weight)| (holder(at), *weight)).collect()
    }

    #[test]
    fn small_caps_come_round_to_everybody() {
        let members = members(&[1, 1, 1]);
        let split = Split::new(2, &members);
        let shares = |window| members.iter().map(move |(holder, _)| (holder, window));
        let all: Vec<Vec<u64>> = (0..3)
            .map(|w| shares(w).map(|(holder, w)| split.of(&members, holder, w)).collect())
            .collect();
        assert_eq!(all, [[1, 1, 0], [0, 1, 1], [1, 0, 1]]);
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_limit(
            limit in prop_oneof![1u64..100, any::<u64>()],
            weights in prop::collection::vec(prop_oneof![1u32..10, any::<u32>()], 1..40),
            window in any::<u64>(),
        ) {
            let weights: Vec<u32> = weights.into_iter().map(|weight| weight.max(1)).collect();
            let members = members(&weights);
            let split = Split::new(limit, &members);
            let shares = members.iter().map(|(holder, _)| split.of(&members, holder, window));
            let sum: u128 = shares.map(u128::from).sum();
            prop_assert_eq!(sum, u128::from(limit));
        }

        #[test]
        fn what_vested_only_grows_and_ends_as_the_share(
            share in prop_oneof![0u64..100, any::<u64>()],
            parts in 1u32..60,
            mut moments in prop::collection::vec(0u64..3_600_000, 1..20),
        ) {
            let spec = BudgetSpec {
                period: Period::Hour, sub_windows: parts, ..spec("x", Unit::Tokens, share.max(1))
            };
            let begin = Period::Hour.start(77).0;
            moments.sort_unstable();
            let mut before = 0;
            for ms in moments {
                let wall = Wall(begin + ms);
                let now = vested(share, &spec, 77, wall);
                prop_assert!(before <= now && now <= share);
                let next = vests_next(&spec, 77, wall);
                prop_assert!(wall < next && next <= Period::Hour.end(77));
                prop_assert_eq!(vested(share, &spec, 77, Wall(next.0 - 1)), now);
                before = now;
            }
            prop_assert_eq!(vested(share, &spec, 77, Period::Hour.end(77)), share);
            let at_begin = vested(share, &spec, 77, Wall(begin));
            prop_assert_eq!(vested(share, &spec, 77, Wall(0)), at_begin);
        }
    }
}
