#![allow(clippy::unwrap_used, clippy::expect_used)]

use crdts::{CmRDT, CvRDT, GCounter, VClock};
use proptest::prelude::*;

use super::*;
use crate::escrow::{Ballot, BudgetId};
use crate::row::Signature;

const KEY: LedgerKey = LedgerKey { budget: BudgetId([7; 16]), window: 3 };

fn holder(at: u8) -> Holder {
    Holder { node: NodeId([at; 32]), incarnation: 1 }
}

fn signed(row: EscrowRow) -> SignedRow {
    let hash = *blake3::hash(&row.canonical_bytes()).as_bytes();
    SignedRow { row, signature: Signature(hash, hash) }
}

/// The row a holder writes as its `seq`-th: everything in it grows with `seq`.
fn honest(at: u8, seq: u64) -> SignedRow {
    let mut row = EscrowRow::new(KEY, holder(at));
    row.seq = seq;
    row.hw = seq * 10;
    row.out.insert(holder((at + 1) % 4), seq * 3);
    row.sealed = seq >= 9;
    if row.sealed {
        (row.hw, row.out) = (90, [(holder((at + 1) % 4), 27)].into());
    }
    signed(row)
}

/// Any row, honest or not.
fn any_row() -> impl Strategy<Value = SignedRow> {
    let ballot = proptest::option::weighted(0.2, 0u64..2);
    (0u8..4, 0u64..4, 0u64..3, 0u8..4, 0u64..3, any::<bool>(), ballot).prop_map(
        |(at, seq, hw, to, amount, sealed, round)| {
            let mut row = EscrowRow::new(KEY, holder(at));
            (row.seq, row.hw, row.sealed) = (seq, hw, sealed);
            row.ballot = round.map(|round| Ballot { round, by: holder(to) });
            if to != at {
                row.out.insert(holder(to), amount);
            }
            signed(row)
        },
    )
}

fn rows() -> impl Strategy<Value = Vec<SignedRow>> {
    proptest::collection::vec(any_row(), 0..16)
}

fn ledger_of<'a>(rows: impl IntoIterator<Item = &'a SignedRow>) -> Ledger {
    let mut ledger = Ledger::new(KEY);
    for row in rows {
        let _merged = ledger.merge(row.clone(), |_| true);
    }
    ledger
}

fn content(ledger: &Ledger) -> Vec<SignedRow> {
    ledger.rows().cloned().collect()
}

/// The specification: per holder the greatest of `(seq, bytes)`.
fn model_of<'a>(rows: impl IntoIterator<Item = &'a SignedRow>) -> Vec<SignedRow> {
    let mut model: BTreeMap<Holder, SignedRow> = BTreeMap::new();
    let order = |signed: &SignedRow| (signed.row.seq, signed.row.canonical_bytes());
    for row in rows {
        if model.get(&row.row.holder).is_none_or(|held| order(held) < order(row)) {
            model.insert(row.row.holder, row.clone());
        }
    }
    model.into_values().collect()
}

proptest! {
    #[test]
    fn merging_is_the_join_of_its_specification(a in rows(), b in rows(), c in rows()) {
        let all = || a.iter().chain(&b).chain(&c);
        let whole = content(&ledger_of(all()));
        prop_assert_eq!(&whole, &model_of(all()));
        // Commutative and idempotent.
        prop_assert_eq!(&whole, &content(&ledger_of(c.iter().chain(&b).chain(&a).chain(&b))));
        // Associative: what two ledgers hold together is what came to either.
        let (left, right) = (content(&ledger_of(a.iter().chain(&b))), content(&ledger_of(&c)));
        prop_assert_eq!(&whole, &content(&ledger_of(left.iter().chain(&right))));
    }

    #[test]
    fn inflow_is_the_sum_of_all_gifts_of_the_honest(rows in rows()) {
        let ledger = ledger_of(&rows);
        let nobody = EscrowRow::new(KEY, holder(99));
        for at in 0..4 {
            let of = |signed: &SignedRow| {
                u128::from(*signed.row.out.get(&holder(at)).unwrap_or(&0))
            };
            let honest = ledger.rows().filter(|row| !ledger.is_quarantined(&row.row.holder));
            prop_assert_eq!(ledger.inflow(&holder(at), &nobody), honest.map(of).sum::<u128>());
        }
    }

    /// What is known of whom is a version vector, what was spent is a grow-only counter: both of
    /// the reference library agree, whatever the order and however often rows arrive.
    #[test]
    fn versions_and_marks_agree_with_the_reference(
        seen in proptest::collection::vec((0u8..4, 1u64..9), 0..24),
        split in 0usize..24,
    ) {
        let ledger = ledger_of(&seen.iter().map(|(at, seq)| honest(*at, *seq)).collect::<Vec<_>>());
        let of = |part: &[(u8, u64)]| {
            let (mut clock, mut marks) = (VClock::new(), GCounter::new());
            for (at, seq) in part {
                clock.apply(crdts::Dot::new(*at, *seq));
                let known = marks.inner_get(*at);
                if *seq * 10 > known {
                    marks.apply(marks.inc_many(*at, *seq * 10 - known));
                }
            }
            (clock, marks)
        };
        let split = split.min(seen.len());
        let (mut clock, mut marks) = of(&seen[..split]);
        let (other_clock, other_marks) = of(&seen[split..]);
        clock.merge(other_clock);
        marks.merge(other_marks);
        for at in 0..4 {
            let seq = ledger.get(&holder(at)).map_or(0, |row| row.row.seq);
            prop_assert_eq!(seq, clock.get(&at));
        }
        let hw: u64 = ledger.rows().map(|row| row.row.hw).sum();
        prop_assert_eq!(marks.read(), hw.into());
    }

    #[test]
    fn a_stale_view_only_under_estimates(
        seqs in proptest::collection::vec(1u64..9, 4),
        lag in proptest::collection::vec(0u64..9, 4),
    ) {
        let newest = |at: u8| honest(at, seqs[usize::from(at)]);
        let fresh = ledger_of(&(0..4).map(newest).collect::<Vec<_>>());
        let stale = ledger_of(
            &(0..4)
                .map(|at| honest(at, seqs[usize::from(at)].saturating_sub(lag[usize::from(at)])))
                .collect::<Vec<_>>(),
        );
        let nobody = EscrowRow::new(KEY, holder(99));
        for at in 0..4 {
            let old = stale.inflow(&holder(at), &nobody);
            prop_assert!(old <= fresh.inflow(&holder(at), &nobody));
        }
    }

    #[test]
    fn every_field_is_signed(a in any_row(), b in any_row()) {
        let same = a.row.canonical_bytes() == b.row.canonical_bytes();
        prop_assert_eq!(same, a.row == b.row);
    }
}

/// The part of a reference counter that belongs to one actor.
trait InnerGet {
    fn inner_get(&self, at: u8) -> u64;
}

impl InnerGet for GCounter<u8> {
    fn inner_get(&self, at: u8) -> u64 {
        let next = self.inc(at);
        next.counter - 1
    }
}

#[test]
fn two_rows_under_one_number_are_evidence_and_end_the_holders_gifts() {
    let (mut a, mut b) = (honest(1, 5).row, honest(1, 5).row);
    a.out.insert(holder(2), 40);
    b.hw += 1;
    let nobody = EscrowRow::new(KEY, holder(99));
    for (first, second) in [(a.clone(), b.clone()), (b, a)] {
        let mut ledger = ledger_of(&[signed(first)]);
        let merged = ledger.merge(signed(second.clone()), |_| true);
        let RowMerged::Conflict(misdeed) = merged else { panic!("{merged:?}") };
        assert!(matches!(*misdeed, Misdeed::Equivocated { .. }));
        assert_eq!(misdeed.holder(), holder(1));
        assert!(ledger.is_quarantined(&holder(1)));
        assert_eq!(ledger.inflow(&holder(2), &nobody), 0);
        assert_eq!(ledger.gifts_to(&holder(2)).count(), 0);
    }
}

#[test]
fn a_row_that_takes_back_is_evidence() {
    for spoil in [
        |row: &mut EscrowRow| row.hw = 0,
        |row: &mut EscrowRow| row.out.clear(),
        |row: &mut EscrowRow| row.out.values_mut().for_each(|amount| *amount -= 1),
    ] {
        let mut ledger = ledger_of(&[honest(1, 5)]);
        let mut row = honest(1, 6).row;
        row.out = honest(1, 5).row.out;
        spoil(&mut row);
        let merged = ledger.merge(signed(row), |_| true);
        assert!(matches!(merged, RowMerged::Conflict(_)), "{merged:?}");
        assert!(ledger.is_quarantined(&holder(1)));
    }
    let mut ledger = ledger_of(&[honest(1, 9)]);
    let mut row = honest(1, 9).row;
    (row.seq, row.sealed) = (10, false);
    assert!(matches!(ledger.merge(signed(row), |_| true), RowMerged::Conflict(_)));
}

#[test]
fn strangers_and_the_unsigned_are_refused() {
    let mut ledger = Ledger::new(KEY);
    let refused = |merged| matches!(merged, RowMerged::Refused(_));
    assert!(refused(ledger.merge(honest(1, 1), |_| false)));
    let mut elsewhere = honest(1, 1).row;
    elsewhere.key.window += 1;
    assert!(refused(ledger.merge(signed(elsewhere), |_| true)));
    let mut selfish = honest(1, 1).row;
    selfish.out.insert(holder(1), 5);
    assert!(refused(ledger.merge(signed(selfish), |_| true)));
    let mut crowded = honest(1, 1).row;
    crowded.out = (0..=crate::escrow::MAX_OUT as u64)
        .map(|incarnation| (Holder { incarnation, ..holder(2) }, 1))
        .collect();
    assert!(refused(ledger.merge(signed(crowded), |_| true)));
    assert!(ledger.is_empty());
    let mut names = (0..=MAX_STORES as u64)
        .map(|incarnation| signed(EscrowRow::new(KEY, Holder { incarnation, ..holder(1) })));
    let last = names.next_back().unwrap();
    let mut named = ledger_of(&names.collect::<Vec<_>>());
    assert!(refused(named.merge(last, |_| true)), "one node's names do not fill a ledger");
    for at in 0..MAX_HOLDERS {
        let incarnation = (at % MAX_STORES) as u64;
        let row =
            EscrowRow::new(KEY, Holder { incarnation, ..holder((3 + at / MAX_STORES) as u8) });
        assert_eq!(ledger.merge(signed(row), |_| true), RowMerged::Newer);
    }
    assert!(refused(ledger.merge(honest(1, 1), |_| true)));
    let full = ledger.len();
    assert_eq!(full, MAX_HOLDERS);
}

#[test]
fn a_row_is_covered_by_its_grant_and_the_rows_it_names() {
    let nobody = EscrowRow::new(KEY, holder(99));
    let donor = honest(1, 5);
    let mut row = EscrowRow::new(KEY, holder(2));
    (row.seq, row.hw) = (1, 110);
    row.basis.insert(holder(1), 5);
    let empty = Ledger::new(KEY);
    assert_eq!(empty.standing(&row, 100, &nobody), Standing::Unknown);
    assert_eq!(empty.standing(&row, 110, &nobody), Standing::Covered, "the grant is enough");
    let ledger = ledger_of(std::slice::from_ref(&donor));
    assert_eq!(ledger.standing(&row, 100, &nobody), Standing::Covered, "15 were given");
    row.hw = 116;
    assert_eq!(ledger.standing(&row, 100, &nobody), Standing::Overdrawn);
    row.hw = 115;
    assert_eq!(empty.standing(&row, 100, &donor.row), Standing::Covered, "by this node's own");
    row.out.insert(holder(3), 1);
    assert_eq!(ledger.standing(&row, 100, &nobody), Standing::Overdrawn, "gifts count too");
}

#[test]
fn the_largest_amounts_do_not_overflow() {
    let mut rows = Vec::new();
    for at in 1..4 {
        let mut row = EscrowRow::new(KEY, holder(at));
        (row.seq, row.hw) = (u64::MAX, u64::MAX);
        row.out.insert(holder(0), u64::MAX);
        rows.push(signed(row));
    }
    let ledger = ledger_of(&rows);
    let nobody = EscrowRow::new(KEY, holder(99));
    assert_eq!(ledger.rights(&holder(0), u64::MAX, &nobody), u64::MAX);
    assert_eq!(ledger.may_give(&holder(1), u64::MAX, &nobody), 0);
}
