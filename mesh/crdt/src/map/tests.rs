#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::row::Signature;
use proptest::prelude::*;

const ANYONE: fn(&Row) -> bool = |_| true;

fn row(writer: u8, incarnation: u64, seq: u64, value: &[u8]) -> Row {
    let stamp = Stamp { incarnation, seq };
    let mut row = Row::draft(NodeId([writer; 32]), stamp, &()).unwrap();
    row.value = value.to_vec();
    // A stand-in for a signature: any function of the signed bytes will do here.
    let hash = *blake3::hash(&row.canonical_bytes()).as_bytes();
    row.signature = Signature(hash, hash);
    row
}

fn map_of(rows: &[Row]) -> RowMap {
    let mut map = RowMap::new(16);
    for row in rows {
        let _merged = map.merge(row.clone(), ANYONE);
    }
    map
}

/// The specification: per writer the greatest of (stamp, value, signature).
fn model_of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> BTreeMap<NodeId, Row> {
    let mut model: BTreeMap<NodeId, Row> = BTreeMap::new();
    let order = |row: &Row| (row.stamp, row.value.clone(), row.signature);
    for row in rows {
        if model.get(&row.writer).is_none_or(|held| order(held) < order(row)) {
            model.insert(row.writer, row.clone());
        }
    }
    model
}

fn content(map: &RowMap) -> BTreeMap<NodeId, Row> {
    map.iter().map(|row| (row.writer, row.clone())).collect()
}

/// One exchange in both directions with a budget; the cursors are kept by the caller.
fn exchange(a: &mut RowMap, b: &mut RowMap, cursors: &mut [Option<NodeId>; 2], budget: usize) {
    let to_b = a.delta(&b.digest(), cursors[0], budget);
    let to_a = b.delta(&a.digest(), cursors[1], budget);
    *cursors = [to_b.next, to_a.next];
    for row in to_b.rows {
        let _merged = b.merge(row, ANYONE);
    }
    for row in to_a.rows {
        let _merged = a.merge(row, ANYONE);
    }
}

fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let one = (0u8..5, 0u64..3, 0u64..3, proptest::collection::vec(any::<u8>(), 0..2))
        .prop_map(|(writer, incarnation, seq, value)| row(writer, incarnation, seq, &value));
    proptest::collection::vec(one, 0..24)
}

proptest! {
    #[test]
    fn merging_equals_the_specification_in_any_order_and_number(
        rows in any_rows(),
        order in any::<[u8; 24]>(),
    ) {
        let map = map_of(&rows);
        prop_assert_eq!(content(&map), model_of(&rows));
        // Commutative: any order. Idempotent: everything twice.
        let mut shuffled: Vec<(u8, Row)> =
            rows.iter().enumerate().map(|(at, row)| (order[at], row.clone())).collect();
        shuffled.sort_by_key(|(key, _)| *key);
        let mut twice: Vec<Row> = shuffled.into_iter().map(|(_, row)| row).collect();
        twice.extend(rows.clone());
        let again = map_of(&twice);
        prop_assert_eq!(content(&again), content(&map));
        prop_assert_eq!(again.digest(), map.digest());
    }

    #[test]
    fn merging_is_associative(a in any_rows(), b in any_rows(), c in any_rows()) {
        let joined = |one: &RowMap, other: &RowMap| {
            let mut map = one.clone();
            for row in other.iter() {
                let _merged = map.merge(row.clone(), ANYONE);
            }
            map
        };
        let (a, b, c) = (map_of(&a), map_of(&b), map_of(&c));
        let left = joined(&joined(&a, &b), &c);
        let right = joined(&a, &joined(&b, &c));
        prop_assert_eq!(content(&left), content(&right));
    }

    #[test]
    fn equal_digests_mean_equal_content(a in any_rows(), b in any_rows()) {
        let (a, b) = (map_of(&a), map_of(&b));
        prop_assert_eq!(a.digest() == b.digest(), content(&a) == content(&b));
    }

    #[test]
    fn exchanges_under_any_budget_end_in_agreement(
        a in any_rows(),
        b in any_rows(),
        budget in 0usize..600,
    ) {
        let all: Vec<Row> = a.iter().chain(&b).cloned().collect();
        let (mut a, mut b) = (map_of(&a), map_of(&b));
        let mut cursors = [None; 2];
        // Each exchange moves at least one row each way, and there are five writers.
        for _ in 0..5 {
            exchange(&mut a, &mut b, &mut cursors, budget);
        }
        prop_assert_eq!(content(&a), model_of(&all));
        prop_assert_eq!(content(&a), content(&b));
        prop_assert_eq!(a.delta(&b.digest(), None, usize::MAX).rows, vec![]);
    }

    #[test]
    fn a_delta_keeps_its_budget(rows in any_rows(), budget in 0usize..2_000) {
        let delta = map_of(&rows).delta(&Digest::default(), None, budget);
        let size: usize = delta.rows.iter().map(Row::wire_bytes).sum();
        prop_assert!(size <= budget || delta.rows.len() == 1);
    }
}

#[test]
fn no_row_starves_while_others_keep_changing() {
    // Every row changes before each exchange, and the budget carries one row only.
    let mut source = map_of(&[]);
    let mut sink = RowMap::new(16);
    let mut cursors = [None; 2];
    let mut longest_wait = [0u64; 8];
    for round in 1..=64u64 {
        for writer in 0..8 {
            let _merged = source.merge(row(writer, 1, round, &[round as u8]), ANYONE);
        }
        exchange(&mut source, &mut sink, &mut cursors, 1);
        for writer in 0..8u8 {
            let known = sink.get(&NodeId([writer; 32])).map_or(0, |row| row.stamp.seq);
            let wait = &mut longest_wait[usize::from(writer)];
            *wait = (*wait).max(round - known);
        }
    }
    assert!(longest_wait.iter().all(|rounds| *rounds <= 8), "{longest_wait:?}");
}

#[test]
fn a_lost_delta_is_sent_again() {
    let source = map_of(&[row(1, 1, 1, b"a"), row(2, 1, 1, b"b")]);
    let lost = source.delta(&Digest::default(), None, 1);
    // The cursor of a delta that was not sent is not kept.
    let again = source.delta(&Digest::default(), None, 1);
    assert_eq!(lost, again);
    let next = source.delta(&Digest::default(), again.next, 1);
    assert_ne!(next.rows, again.rows);
}

#[test]
fn two_values_under_one_stamp_are_evidence_wherever_they_meet() {
    let (one, other) = (row(1, 1, 1, b"one"), row(1, 1, 1, b"other"));
    let (mut a, mut b) = (map_of(&[one]), map_of(&[other]));
    exchange(&mut a, &mut b, &mut [None; 2], 10_000);
    assert_eq!(content(&a), content(&b));
    assert!(a.evidence().count() == 1 && b.evidence().count() == 1);
    let evidence = a.evidence().next().unwrap();
    assert_eq!(evidence.kept.stamp, evidence.other.stamp);
    assert_ne!(evidence.kept.value, evidence.other.value);
}

#[test]
fn the_same_value_signed_twice_is_no_evidence() {
    let first = row(1, 1, 1, b"x");
    let mut second = first.clone();
    second.signature = Signature([0xff; 32], [0xff; 32]);
    let map = map_of(&[first, second.clone()]);
    assert_eq!(map.evidence().count(), 0);
    assert_eq!(map.get(&NodeId([1; 32])), Some(&second));
}

#[test]
fn evidence_writers_and_values_are_bounded() {
    let mut map = RowMap::new(2);
    for seq in 0..200u64 {
        let _newer = map.merge(row(1, 1, seq, b"a"), ANYONE);
        let _conflict = map.merge(row(1, 1, seq, b"b"), ANYONE);
    }
    assert_eq!(map.evidence().count(), MAX_EVIDENCE);
    assert_eq!(map.merge(row(2, 1, 1, b""), ANYONE), Merged::Newer);
    assert_eq!(map.merge(row(3, 1, 1, b""), ANYONE), Merged::Refused(RowError::Full(2)));
    assert_eq!(map.merge(row(2, 1, 2, b""), ANYONE), Merged::Newer, "known writers still write");
    let large = row(1, 9, 9, &vec![0; MAX_VALUE_BYTES + 1]);
    assert!(matches!(map.merge(large, ANYONE), Merged::Refused(RowError::TooLarge { .. })));
    assert!(map.forget(&NodeId([1; 32])).is_some());
    assert_eq!(map.len(), 1);
}

#[test]
fn a_later_incarnation_beats_any_sequence() {
    let map = map_of(&[row(1, 2, 0, b"new"), row(1, 1, 999, b"old")]);
    assert_eq!(map.get(&NodeId([1; 32])).unwrap().value, b"new");
}

#[test]
fn signatures_are_asked_for_only_when_a_row_would_change_something() {
    let mut map = map_of(&[row(1, 1, 5, b"x")]);
    let old = map.merge(row(1, 1, 4, b"y"), |_| panic!("an old row needs no check"));
    assert_eq!(old, Merged::Known);
    let forged = map.merge(row(1, 1, 6, b"z"), |_| false);
    assert_eq!(forged, Merged::Refused(RowError::Signature(NodeId([1; 32]))));
    assert_eq!(map.get(&NodeId([1; 32])).unwrap().stamp.seq, 5);
}

#[test]
fn values_round_trip_and_their_size_is_bounded() {
    let stamp = Stamp { incarnation: 1, seq: 1 };
    let row = Row::draft(NodeId([1; 32]), stamp, &("load", 7u32)).unwrap();
    assert_eq!(row.value::<(String, u32)>(), Ok(("load".to_owned(), 7)));
    assert!(matches!(row.value::<Vec<String>>(), Err(RowError::Value(_))));
    let large = vec![1u8; MAX_VALUE_BYTES];
    let refused = Row::draft(NodeId([1; 32]), stamp, &large);
    assert!(matches!(refused, Err(RowError::TooLarge { .. })));
}
