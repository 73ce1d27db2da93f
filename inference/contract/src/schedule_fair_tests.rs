//! Turns of tenants: shares, priorities and deadlines, and what none of them may do.

use std::collections::BTreeSet;

use super::*;
use crate::fair::{MOST_OVERTAKEN, Priority};

/// A tenant's request that shares nothing with others.
fn of(tenant: &str, id: u128, prompt: u32, answer: u32) -> Arrival {
    Arrival { claim: Claim::of(tenant), ..arrival(id, prompt, answer) }
}

/// The same, as urgent as this.
fn ranked(priority: Priority, arrival: Arrival) -> Arrival {
    Arrival { claim: Claim { priority, ..arrival.claim }, ..arrival }
}

/// The same, with a deadline.
fn until(deadline: u64, arrival: Arrival) -> Arrival {
    Arrival { claim: Claim { deadline: Some(Mono(deadline)), ..arrival.claim }, ..arrival }
}

/// In which order requests are begun, until at least so many were or all have ended.
fn order(engine: &mut Engine, most: usize) -> Vec<u128> {
    let mut order = Vec::new();
    for _ in 0..10_000 {
        if order.len() >= most || engine.schedule.is_idle() {
            return order;
        }
        order.extend(engine.step().admitted.into_iter().map(|id| id.0));
    }
    panic!("something never ends");
}

#[test]
fn a_full_queue_of_one_tenant_does_not_hold_up_another() {
    let mut engine = Engine::new(bounds(1, 20, 100));
    for id in 1..=5 {
        engine.arrive(of("acme", id, 10, 10)).expect("fits");
    }
    for id in 11..=12 {
        engine.arrive(of("zeta", id, 10, 10)).expect("fits");
    }
    assert_eq!(order(&mut engine, usize::MAX), [1, 11, 2, 12, 3, 4, 5]);
}

#[test]
fn who_comes_later_has_saved_nothing_up() {
    let mut engine = Engine::new(bounds(1, 20, 100));
    for id in 1..=6 {
        engine.arrive(of("acme", id, 10, 10)).expect("fits");
    }
    assert_eq!(order(&mut engine, 4), [1, 2, 3, 4]);
    for id in 11..=14 {
        engine.arrive(of("zeta", id, 10, 10)).expect("fits");
    }
    assert_eq!(order(&mut engine, usize::MAX), [11, 5, 12, 6, 13, 14]);
}

#[test]
fn shares_are_counted_in_tokens() {
    let mut engine = Engine::new(bounds(1, 20, 100));
    for id in 1..=3 {
        engine.arrive(of("acme", id, 100, 21)).expect("fits");
    }
    for id in 11..=20 {
        engine.arrive(of("zeta", id, 10, 21)).expect("fits");
    }
    // Four of 30 tokens are as much as one of 120.
    let wanted = [1, 11, 12, 13, 14, 2, 15, 16, 17, 18, 3, 19, 20];
    assert_eq!(order(&mut engine, usize::MAX), wanted);
}

#[test]
fn one_that_asks_again_only_when_it_was_answered_has_no_more_for_it() {
    let mut engine = Engine::new(bounds(2, 20, 100));
    for id in 1..=12 {
        engine.arrive(of("zeta", id, 10, 21)).expect("fits");
    }
    let (mut long, mut short, mut last) = (0, 0, 100);
    engine.arrive(of("acme", last, 100, 21)).expect("fits");
    while short < 12 {
        for id in engine.step().admitted {
            if id.0 >= 100 { long += 1 } else { short += 1 }
        }
        if engine.finished.contains(&RequestId(last)) {
            last += 1;
            engine.arrive(of("acme", last, 100, 21)).expect("fits");
        }
    }
    // Twelve of 30 tokens are as much as three of 120.
    assert!((2..=4).contains(&long), "{long}");
}

#[test]
fn urgency_goes_before_a_tenants_own_and_nobody_elses() {
    for theirs in [Priority::Normal, Priority::High] {
        let mut engine = Engine::new(bounds(1, 20, 100));
        for id in 1..=3 {
            engine.arrive(of("acme", id, 10, 10)).expect("fits");
        }
        engine.arrive(ranked(Priority::High, of("acme", 4, 10, 10))).expect("fits");
        for id in 11..=13 {
            engine.arrive(ranked(theirs, of("zeta", id, 10, 10))).expect("fits");
        }
        assert_eq!(order(&mut engine, usize::MAX), [4, 11, 1, 12, 2, 13, 3], "{theirs:?}");
    }
}

#[test]
fn what_is_not_urgent_goes_behind_everybodys() {
    let mut engine = Engine::new(bounds(1, 20, 100));
    engine.arrive(ranked(Priority::Low, of("acme", 1, 10, 10))).expect("fits");
    engine.arrive(of("acme", 2, 10, 10)).expect("fits");
    engine.arrive(of("zeta", 3, 10, 10)).expect("fits");
    engine.arrive(of("zeta", 4, 10, 10)).expect("fits");
    assert_eq!(order(&mut engine, usize::MAX), [2, 3, 4, 1]);
}

/// How many are begun before the request 0, behind which others come without end.
fn begun_before(engine: &mut Engine, mut next: impl FnMut(u128) -> Arrival) -> usize {
    let (mut id, mut begun) = (1_000, 0);
    for _ in 0..100_000 {
        while engine.schedule.queued() < 8 {
            engine.arrive(next(id)).expect("fits");
            id += 1;
        }
        for admitted in engine.step().admitted {
            if admitted == RequestId(0) {
                return begun;
            }
            begun += 1;
        }
    }
    panic!("it is never begun");
}

#[test]
fn what_is_not_urgent_is_begun_within_the_bound() {
    let mut engine = Engine::new(bounds(1, 20, 100));
    for id in 1..=5 {
        engine.arrive(of("zeta", id, 2, 2)).expect("fits");
    }
    engine.arrive(ranked(Priority::Low, of("acme", 0, 2, 2))).expect("fits");
    let tenant = |id: u128| if id.is_multiple_of(2) { "zeta" } else { "beta" };
    let begun = begun_before(&mut engine, |id| of(tenant(id), id, 2, 2));
    assert_eq!(begun, 5 + MOST_OVERTAKEN as usize);
}

#[test]
fn a_tenants_urgent_ones_do_not_hold_up_its_others_for_ever() {
    let mut engine = Engine::new(bounds(1, 20, 100));
    engine.arrive(of("acme", 0, 2, 2)).expect("fits");
    let begun = begun_before(&mut engine, |id| ranked(Priority::High, of("acme", id, 2, 2)));
    assert_eq!(begun, MOST_OVERTAKEN as usize);
}

#[test]
fn of_a_tenants_requests_the_one_with_the_first_deadline_is_next() {
    let mut engine = Engine::new(bounds(1, 20, 100));
    engine.arrive(of("acme", 1, 10, 10)).expect("fits");
    for (id, deadline) in [(2, 900), (3, 300), (4, 900)] {
        engine.arrive(until(deadline, of("acme", id, 10, 10))).expect("fits");
    }
    assert_eq!(order(&mut engine, usize::MAX), [3, 2, 4, 1]);
}

#[test]
fn what_was_not_begun_in_time_is_not_begun() {
    let mut engine = Engine::new(bounds(1, 20, 100));
    for (id, deadline) in [(1, 10), (2, 20), (3, 30)] {
        engine.arrive(until(deadline, of("acme", id, 10, 10))).expect("fits");
    }
    assert_eq!(order(&mut engine, 1), [1]);
    assert!(engine.schedule.expire(Mono(19)).is_empty());
    assert_eq!(engine.schedule.expire(Mono(20)), [RequestId(2)]);
    assert_eq!(order(&mut engine, usize::MAX), [3]);
    assert_eq!(engine.finished, [1, 3].map(RequestId), "what runs is the caller's to end");
}

#[test]
fn who_was_paused_is_first_and_never_late() {
    let mut engine = Engine::new(bounds(3, 8, 4));
    for id in 1..=3 {
        engine.arrive(until(1, of("acme", id, 10, 150))).expect("fits alone");
    }
    assert_eq!(engine.step().admitted.len(), 3);
    engine.arrive(of("zeta", 4, 10, 10)).expect("fits");
    let (mut paused, mut pauses) = (BTreeSet::new(), 0);
    for _ in 0..2_000 {
        let plan = engine.step();
        for id in plan.admitted {
            assert!(id != RequestId(4) || paused.is_empty(), "{paused:?} wait");
            paused.remove(&id);
        }
        pauses += plan.paused.len();
        paused.extend(plan.paused);
        assert!(engine.schedule.expire(Mono(9)).is_empty());
    }
    assert!(pauses > 0, "four pages do not hold three such answers");
    assert_eq!(engine.finished.len(), 4);
}

/// Two tenants and how they ask: prompt, answer, tenant, priority.
fn asked() -> impl Strategy<Value = Vec<(u32, u32, usize, usize)>> {
    prop::collection::vec((1u32..300, 1u32..100, 0usize..3, 0usize..3), 1..60)
}

const TENANTS: [&str; 3] = ["acme", "zeta", "beta"];
const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However long their requests are and however many run together: of two tenants that always
    /// ask, neither is given more than one longest request more than the other.
    #[test]
    fn two_that_always_ask_are_given_the_same(
        costs in prop::collection::vec((1u32..300, 1u32..60), 2..30), batch in 1usize..9,
    ) {
        let mut engine = Engine::new(bounds(batch, 40, 100_000));
        let longest = costs.iter().map(|(prompt, answer)| prompt + answer - 1).max();
        let longest = i64::from(longest.unwrap_or(0));
        let mut costs = costs.iter().cycle();
        let mut asked: BTreeMap<RequestId, (usize, i64)> = BTreeMap::new();
        let (mut waiting, mut given) = ([0usize; 2], [0i64; 2]);
        for _ in 0..1_500 {
            for (at, tenant) in TENANTS.iter().take(2).enumerate() {
                // More than can begin in one step.
                while waiting[at] < 10 {
                    let (prompt, answer) = *costs.next().expect("without end");
                    let id = RequestId(asked.len() as u128);
                    engine.arrive(of(tenant, id.0, prompt, answer)).expect("fits");
                    asked.insert(id, (at, i64::from(prompt + answer - 1)));
                    waiting[at] += 1;
                }
            }
            for id in engine.step().admitted {
                let (at, cost) = asked[&id];
                waiting[at] -= 1;
                given[at] += cost;
                prop_assert!((given[0] - given[1]).abs() <= longest, "{given:?}");
            }
        }
        prop_assert!(given.iter().all(|given| *given > 0), "{given:?}");
    }

    /// Whoever asks for what and however urgent: all that was accepted ends, and no more tenants
    /// are remembered than there are places.
    #[test]
    fn whatever_is_claimed_everything_ends(
        requests in asked(), batch in 1usize..5, pages in 10u64..40,
    ) {
        let mut engine = Engine::new(bounds(batch, 8, pages));
        let mut accepted = 0;
        for (id, (prompt, answer, tenant, priority)) in requests.into_iter().enumerate() {
            let one = of(TENANTS[tenant], id as u128, prompt, answer);
            let one = until(u64::from(prompt), ranked(PRIORITIES[priority], one));
            accepted += usize::from(engine.arrive(one).is_ok());
            engine.step();
            prop_assert!(engine.schedule.shares.remembered() <= batch + 8);
        }
        engine.finish();
        prop_assert_eq!(engine.finished.len(), accepted);
        prop_assert_eq!(engine.schedule.shares.remembered(), 0);
    }
}
