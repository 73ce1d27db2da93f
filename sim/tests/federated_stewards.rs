//! Stewards who do not know of each other: each is heard, and one line of anchors follows.
//!
//! What seeds draw among other faults is here alone, so that it surely happens.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use selvedge_base::Micros;
use selvedge_federated::round::Mode;
use selvedge_federated::shamir::Scheme;
use selvedge_sim::federated::{Cut, Plan, View, Wish, run};

const SEEDS: u64 = 6;

/// A steward that takes somebody for lost, and knows of no cut yet.
fn wish(steward: usize, overlooks: usize) -> Wish {
    let view = View::Own { ago: Micros::secs(20), overlooks: Some(overlooks) };
    Wish { steward, fresh: false, view }
}

fn calm(seed: u64, rounds: u64) -> Plan {
    Plan::calm(seed, Scheme::Five, Mode::Secure, rounds)
}

/// Every promise holds in these plans, and all of this happens in one or another of them.
fn holds(plan: impl Fn(u64) -> Plan, wanted: &[&str]) {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let outcome = run(&plan(seed));
        assert!(outcome.broken.is_empty(), "seed {seed}: {outcome:?}");
        assert!(outcome.counters.seen.contains_key("anchors replaced"), "seed {seed}");
        seen.extend(outcome.counters.seen.into_keys());
    }
    let missing: Vec<_> = wanted.iter().filter(|what| !seen.contains(**what)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?} of {seen:?}");
}

#[test]
fn two_who_ask_at_once_are_both_heard() {
    let plan = |seed| {
        let mut plan = calm(seed, 9);
        plan.wishes.push((Micros::millis(1_000), wish(1, 0)));
        plan.wishes.push((Micros::millis(1_100), wish(3, 4)));
        plan
    };
    holds(plan, &["two stewards with different wishes", "wishes heard in another order"]);
}

#[test]
fn what_was_asked_for_on_both_sides_of_a_cut_is_known_on_both_in_the_end() {
    let plan = |seed| {
        let mut plan = calm(seed, 6);
        let (from, until) = (Micros::millis(500), Micros::secs(9));
        plan.cuts.push(Cut { from, until, side: vec![0, 1, 5], one_way: false });
        plan.wishes.push((Micros::millis(1_000), wish(0, 4)));
        plan.wishes.push((Micros::millis(1_200), wish(2, 0)));
        // One that was told is told again when it starts.
        plan.crashes.push((3, Micros::secs(6), Micros::secs(7)));
        plan
    };
    holds(
        plan,
        &[
            "a wish heard late by an anchor",
            "a wish on one side of a cut",
            "two stewards with different wishes",
            "wishes of both sides of a cut heard",
            "wishes on both sides of a cut",
            "wishes told again at a start",
        ],
    );
}

#[test]
fn a_steward_that_is_behind_keeps_nobody_from_the_next_anchors() {
    let plan = |seed| {
        let mut plan = calm(seed, 14);
        let back = Micros::secs(12);
        plan.crashes.push((7, Micros::millis(300), back));
        plan.wishes.push((Micros::millis(500), wish(0, 4)));
        plan.wishes.push((back, wish(0, 3)));
        // Before it has caught up, which takes it less than two ticks.
        plan.wishes.push((back.plus(Micros::millis(1)), wish(7, 2)));
        plan
    };
    holds(plan, &["anchors replaced again", "two stewards with wishes of different epochs"]);
}
