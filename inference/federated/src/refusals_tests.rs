//! Counts are complete as far as they go, lines are few, and neither grows without a bound.

use proptest::prelude::*;

use super::*;

const REASONS: [&str; 3] = ["digest", "sender", "update"];

fn node(index: u16) -> NodeId {
    let mut id = [7; 32];
    id[..2].copy_from_slice(&index.to_be_bytes());
    NodeId(id)
}

const fn at(span: Micros) -> Mono {
    Mono(span.0)
}

#[test]
fn the_first_is_said_at_once_and_the_others_with_their_number() {
    let mut all = Refusals::default();
    let liar = node(1);
    assert_eq!(all.note(Mono(5), liar, "digest", 1), Some(1));
    // Another reason and another node are news.
    assert_eq!(all.note(Mono(6), liar, "update", 2), Some(2));
    assert_eq!(all.note(Mono(7), node(2), "digest", 1), Some(1));
    for later in 8..40 {
        assert_eq!(all.note(Mono(later), liar, "digest", 1), None);
    }
    assert_eq!(all.note(Mono(4 + SAY_EVERY.0), liar, "digest", 1), None, "a moment too early");
    assert_eq!(all.note(Mono(5 + SAY_EVERY.0), liar, "digest", 1), Some(34));
    assert_eq!(all.note(Mono(6 + SAY_EVERY.0), liar, "digest", 1), None);
    let counts = all.counts();
    assert_eq!(counts[&liar], BTreeMap::from([("digest", 36), ("update", 2)]));
    assert_eq!(counts[&node(2)], BTreeMap::from([("digest", 1)]));
}

#[test]
fn what_is_only_counted_is_said_by_nobody() {
    let mut all = Refusals::default();
    all.count(node(1), "digest", 3);
    assert_eq!(all.counts()[&node(1)], BTreeMap::from([("digest", 3)]));
    assert_eq!(all.note(Mono(0), node(1), "digest", 1), Some(1), "the others were told of");
}

#[test]
fn many_nodes_make_no_more_lines_than_a_person_reads() {
    let mut all = Refusals::default();
    let said = |all: &mut Refusals, from: Micros| {
        let nodes = (0..MAX_NODES as u16).map(node);
        nodes.filter(|one| all.note(at(from), *one, "x", 1).is_some()).count()
    };
    assert_eq!(said(&mut all, Micros(9)), MAX_SAID as usize);
    assert_eq!(said(&mut all, Micros(10)), 0);
    // Who had no line has one later, with all that it was refused.
    let late = node(MAX_NODES as u16 - 1);
    assert_eq!(all.note(at(Micros(9 + SAY_EVERY.0)), late, "x", 1), Some(3));
}

#[test]
fn who_was_refused_longest_ago_makes_room() {
    let mut all = Refusals::default();
    for one in 0..MAX_NODES as u16 {
        all.count(node(one), "x", 1);
    }
    all.count(node(0), "x", 1);
    all.count(node(9_999), "x", 1);
    let counts = all.counts();
    assert_eq!(counts.len(), MAX_NODES);
    assert!(counts.contains_key(&node(0)) && counts.contains_key(&node(9_999)));
    assert!(!counts.contains_key(&node(1)), "it was the one");
}

#[test]
fn what_was_written_down_goes_on_and_what_nobody_knows_is_left() {
    let stored = [
        (node(1), "digest".to_owned(), 3),
        (node(1), "of a later build".to_owned(), 9),
        (node(2), "update".to_owned(), 1),
    ];
    let mut all = Refusals::restored(stored, &REASONS);
    assert_eq!(all.note(Mono(1), node(1), "digest", 1), Some(1));
    let counts = all.counts();
    assert_eq!(counts[&node(1)], BTreeMap::from([("digest", 4)]));
    assert_eq!(counts[&node(2)], BTreeMap::from([("update", 1)]));
    let many = (0..2_000).map(|one| (node(one), "digest".to_owned(), 1));
    assert_eq!(Refusals::restored(many, &REASONS).counts().len(), MAX_NODES);
}

proptest! {
    /// Whatever comes when: the counts are those of all that came while there was room, lines
    /// about one node and reason are apart, and what they say adds up to what was counted.
    #[test]
    fn lines_add_up(
        notes in proptest::collection::vec((0..4u16, 0..3usize, 0..120u64, 1..4u64), 0..200),
    ) {
        let mut all = Refusals::default();
        let mut now = Mono(0);
        let mut told: BTreeMap<(u16, usize), (Mono, u64)> = BTreeMap::new();
        let mut came: BTreeMap<(u16, usize), u64> = BTreeMap::new();
        for (who, why, later, times) in notes {
            now = now.plus(Micros::secs(later));
            *came.entry((who, why)).or_default() += times;
            if let Some(said) = all.note(now, node(who), REASONS[why], times) {
                let before = told.get(&(who, why)).copied();
                prop_assert!(before.is_none_or(|(when, _)| now.since(when) >= SAY_EVERY));
                let sum = before.map_or(0, |(_, sum)| sum) + said;
                prop_assert_eq!(sum, came[&(who, why)], "nothing is left unsaid by a line");
                told.insert((who, why), (now, sum));
            }
        }
        let counts = all.counts();
        for ((who, why), times) in came {
            prop_assert_eq!(counts[&node(who)][REASONS[why]], times);
        }
    }
}
