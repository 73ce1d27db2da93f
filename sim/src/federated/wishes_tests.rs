//! What copies of a setting come to, and what is counted and held against wishes.

use selvedge_base::{Micros, Mono};
use selvedge_federated::round::{Behind, Committee, Mode};
use selvedge_federated::shamir::Scheme;

use super::Wishes;
use crate::federated::plan::{Plan, committee};

fn wishes() -> Wishes {
    Wishes::new(&Plan::calm(1, Scheme::Five, Mode::Secure, 3))
}

fn wish(epoch: u64, first: usize) -> Committee {
    committee(epoch, first, Scheme::Five)
}

const fn at(secs: u64) -> Mono {
    Mono(Micros::secs(secs).0)
}

fn sorted(mut seen: Vec<&'static str>) -> Vec<&'static str> {
    seen.sort_unstable();
    seen
}

/// Two nodes tell each other all that they have.
fn exchange(wishes: &mut Wishes, (one, other): (usize, usize), now: Mono) {
    let (ours, theirs) = (wishes.line(one), wishes.line(other));
    assert!(wishes.takes(one, theirs, now));
    assert!(wishes.takes(other, ours, now));
    assert!(!wishes.differ(one, other));
    assert_eq!(wishes.known(one), wishes.known(other));
}

#[test]
fn what_was_asked_for_on_both_sides_of_a_cut_comes_together() {
    let mut wishes = wishes();
    assert_eq!(wishes.asks(0, at(0), &wish(1, 1), |_| true), Ok(vec![]));
    assert_eq!(wishes.handed(0, at(0), true), [""; 0]);
    let seen = wishes.asks(1, at(1), &wish(1, 2), |other| other == 0).unwrap_or_default();
    assert_eq!(seen, ["two stewards with different wishes", "wishes on both sides of a cut"]);
    assert_eq!(wishes.handed(1, at(1), true), [""; 0]);
    assert!(wishes.differ(0, 1));
    exchange(&mut wishes, (0, 1), at(6));
    assert_eq!(wishes.known(0).len(), 2);
    let seen = sorted(wishes.handed(0, at(6), true));
    let twice = "a wish told twice to an anchor";
    let (late, both) = ("a wish heard late by an anchor", "wishes of both sides of a cut heard");
    assert_eq!(seen, [late, twice, both]);
    // The other one heard them the other way round; one accepted what it is told of only now.
    assert!(wishes.accepts(0, &wish(1, 1)));
    let seen = sorted(wishes.handed(1, at(6), true));
    let after = "a wish heard after another anchor accepted it";
    assert_eq!(seen, [after, late, twice, "wishes heard in another order", both]);
    // Of whoever is no anchor nothing is counted.
    let line = wishes.line(1);
    assert!(wishes.takes(2, line, at(7)));
    assert_eq!(wishes.handed(2, at(7), false), [""; 0]);
}

#[test]
fn a_steward_that_was_behind_hides_no_later_wish() {
    let mut wishes = wishes();
    for epoch in 1..3 {
        assert_eq!(wishes.asks(0, at(epoch), &wish(epoch, 1), |_| false), Ok(vec![]));
        wishes.handed(0, at(epoch), true);
    }
    let behind = wishes.asks(0, at(3), &wish(1, 3), |_| false);
    assert_eq!(behind, Err(Behind { known: 2, asked: 1 }));
    // A node that knows of nothing is told of nothing later.
    let seen = wishes.asks(1, at(3), &wish(1, 3), |_| false).unwrap_or_default();
    let two =
        ["two stewards with different wishes", "two stewards with wishes of different epochs"];
    assert_eq!(seen, two);
    exchange(&mut wishes, (0, 1), at(4));
    let known = wishes.known(1);
    assert_eq!((known.len(), known.last()), (3, Some(&wish(2, 1))));
    assert!(known.contains(&wish(1, 1)) && known.contains(&wish(1, 3)));
    let after: Vec<&Committee> = wishes.after(1).collect();
    assert_eq!(after, [&wish(2, 1)]);
    assert!(wishes.has_followed(&wish(1, 1)) && !wishes.has_followed(&wish(1, 3)));
}

#[test]
fn a_wish_is_due_once_all_who_propose_know_it() {
    let mut wishes = wishes();
    assert!(wishes.is_empty());
    assert_eq!(wishes.asks(0, at(0), &wish(1, 1), |_| false), Ok(vec![]));
    wishes.handed(0, at(0), true);
    wishes.owes(1, 1, &[0, 1]);
    assert_eq!(wishes.due(1), None);
    let line = wishes.line(0);
    assert!(wishes.takes(1, line.clone(), at(1)));
    assert!(!wishes.takes(1, line, at(1)), "it knows that");
    wishes.handed(1, at(1), true);
    wishes.owes(2, 2, &[0, 1]);
    assert_eq!(wishes.due(2), None, "of another epoch");
    wishes.owes(2, 1, &[0, 1]);
    assert_eq!((wishes.due(2), wishes.due(3)), (Some(1), None));
    // Nobody may accept what it was not told of.
    assert!(wishes.accepts(1, &wish(1, 1)));
    assert!(!wishes.accepts(2, &wish(1, 1)) && !wishes.accepts(0, &wish(1, 2)));
}

#[test]
fn the_anchors_of_all_nodes_are_of_one_line() {
    let mut line = wishes();
    assert!(line.follows(0, &wish(0, 0)));
    assert!(line.follows(1, &wish(1, 2)) && line.follows(1, &wish(1, 2)));
    assert!(!line.follows(1, &wish(1, 3)), "others of the same epoch");
    assert!(!line.follows(1, &wish(0, 0)), "another epoch of the same round");
    assert!(!line.follows(2, &wish(3, 1)), "an epoch was passed over");
    let mut first = wishes();
    assert!(!first.follows(0, &wish(0, 1)), "not those of the job");
}
