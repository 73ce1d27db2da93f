//! What counts as a partition, as a double and as overtaken.

use super::{Faults, Parts};

/// Anchors apart by the part that each is in.
fn apart(parts: &'static [u8]) -> impl Fn(usize, usize) -> bool {
    move |from, to| parts[from] != parts[to]
}

#[test]
fn a_cut_leaves_a_quorum_on_one_side_or_on_none() {
    let all = [0, 1, 2, 3, 4];
    assert_eq!(Parts::of(&all, 3, apart(&[0; 5])), None);
    assert_eq!(Parts::of(&all, 3, apart(&[0, 0, 0, 1, 1])), Some(Parts::OneSide));
    assert_eq!(Parts::of(&all, 3, apart(&[0, 1, 1, 1, 1])), Some(Parts::OneSide));
    assert_eq!(Parts::of(&all, 3, apart(&[0, 0, 1, 1, 2])), Some(Parts::NoSide));
    // Whoever is down is on no side: it takes the quorum along.
    assert_eq!(Parts::of(&[0, 1, 3, 4], 3, apart(&[0, 0, 0, 1, 1])), Some(Parts::NoSide));
    assert_eq!(Parts::of(&[0, 1, 2], 3, apart(&[0, 0, 0, 1, 1])), None);
    // Too few are up with or without the cut.
    assert_eq!(Parts::of(&[0, 3], 3, apart(&[0, 0, 0, 1, 1])), None);
}

#[test]
fn whoever_is_not_heard_has_no_quorum() {
    let all = [0, 1, 2, 3, 4];
    // The first is heard by nobody and hears all.
    assert_eq!(Parts::of(&all, 3, |from, to| from == 0 && to != 0), Some(Parts::OneSide));
    // All in a ring: each hears and is heard by two, and is the third itself.
    assert_eq!(Parts::of(&all, 3, |from, to| matches!((from + 5 - to) % 5, 2 | 3)), None);
    assert_eq!(Parts::of(&all, 3, |from, to| from < to), Some(Parts::NoSide));
}

#[test]
fn a_message_comes_twice_or_after_a_later_one() {
    let mut faults = Faults::default();
    let first = faults.sends();
    let second = faults.sends();
    faults.doubles();
    let third = faults.sends();
    assert_eq!(faults.arrives(0, 1, second), None);
    assert_eq!(faults.arrives(0, 1, first), Some("messages that came after a later one"));
    assert_eq!(faults.arrives(0, 2, third), None);
    // A double is none before the other came, and is no late message.
    assert_eq!(faults.arrives(0, 1, second), Some("messages that came twice"));
}
