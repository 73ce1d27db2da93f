#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use selvedge_base::NodeId;

use super::*;
use crate::escrow::{BudgetId, LedgerKey, RowMerged, SignedRow};
use crate::row::Signature;

const KEY: LedgerKey = LedgerKey { budget: BudgetId([7; 16]), window: 3 };
/// Holders in a test; the last one is this node.
const HOLDERS: u8 = 6;

fn holder(at: u8) -> Holder {
    Holder { node: NodeId([at; 32]), incarnation: 1 }
}

fn me() -> EscrowRow {
    EscrowRow::new(KEY, holder(HOLDERS - 1))
}

fn row(at: u8, seq: u64, hw: u64, out: &[(u8, u64)]) -> EscrowRow {
    let mut row = EscrowRow::new(KEY, holder(at));
    (row.seq, row.hw) = (seq, hw);
    row.out = out.iter().filter(|(to, _)| *to != at).map(|(to, x)| (holder(*to), *x)).collect();
    row
}

/// A ledger with its cover.
struct Books {
    ledger: Ledger,
    backing: Backing,
    own: EscrowRow,
}

impl Books {
    fn new() -> Self {
        Self { ledger: Ledger::new(KEY), backing: Backing::default(), own: me() }
    }

    fn take(&mut self, row: EscrowRow) {
        let holder = row.holder;
        let older = self.ledger.get(&holder).map(|signed| signed.row.clone());
        let hash = *blake3::hash(&row.canonical_bytes()).as_bytes();
        let signed = SignedRow { row, signature: Signature(hash, hash) };
        match self.ledger.merge(signed, |_| true) {
            RowMerged::Newer | RowMerged::Conflict(_) => {
                self.backing.changed(older.as_ref(), holder);
            }
            RowMerged::Known | RowMerged::Refused(_) => {}
        }
    }

    fn covered(&mut self, allowed: impl Fn(&Holder) -> u64) -> Vec<u8> {
        self.backing.settle(&self.ledger, &self.own, allowed);
        (0..HOLDERS).filter(|at| self.backing.covers(&holder(*at))).collect()
    }

    /// The specification: throw out a row that does not balance, until all that are left do.
    fn model(&self, allowed: impl Fn(&Holder) -> u64) -> Vec<u8> {
        let row = |at: &u8| self.ledger.get(&holder(*at)).map(|signed| &signed.row);
        let mut left: Vec<u8> = (0..HOLDERS)
            .filter(|at| row(at).is_some() && !self.ledger.is_quarantined(&holder(*at)))
            .collect();
        loop {
            let gifts = |to: &u8| -> u128 {
                let rows = left.iter().filter_map(row).chain([&self.own]);
                let gift = |row: &EscrowRow| row.out.get(&holder(*to)).copied().unwrap_or(0);
                rows.map(gift).map(u128::from).sum()
            };
            let fails = |at: &&u8| {
                let row = row(at).unwrap();
                row.given() + u128::from(row.hw) > u128::from(allowed(&holder(**at))) + gifts(at)
            };
            let Some(out) = left.iter().find(fails).copied() else { return left };
            left.retain(|at| *at != out);
        }
    }
}

/// The first two holders were granted ten each.
fn ten_each(holder: &Holder) -> u64 {
    if holder.node.0[0] < 2 { 10 } else { 0 }
}

#[test]
fn a_stranger_makes_no_rights_through_a_member() {
    let mut books = Books::new();
    // Nobody granted holder 4 anything; 1 counts on what it "gave".
    books.take(row(4, 1, 0, &[(1, 1_000)]));
    books.take(row(1, 1, 0, &[(5, 500)]));
    assert_eq!(books.covered(ten_each), []);
    // Two that vouch for each other fare no better.
    books.take(row(4, 2, 0, &[(1, 1_000)]));
    books.take(row(1, 2, 0, &[(4, 1_000), (5, 500)]));
    assert_eq!(books.covered(ten_each), []);
}

#[test]
fn rights_that_went_to_and_fro_are_covered() {
    let mut books = Books::new();
    // 0 gave 10, 1 gave 20 back, 0 gave 10 again: each counts on the other's row.
    books.take(row(0, 2, 0, &[(1, 20)]));
    assert_eq!(books.covered(ten_each), [], "the row it counts on is not here yet");
    books.take(row(1, 1, 0, &[(0, 20)]));
    assert_eq!(books.covered(ten_each), [0, 1]);
    // From hand to hand, in the wrong order.
    books.take(row(3, 1, 0, &[(5, 8)]));
    books.take(row(2, 1, 1, &[(3, 8)]));
    assert_eq!(books.covered(ten_each), [0, 1]);
    books.take(row(1, 2, 0, &[(0, 20), (2, 10)]));
    assert_eq!(books.covered(ten_each), [0, 1, 2, 3]);
    // One of them lies now: whoever counts on it is not covered either.
    books.take(row(2, 2, 5, &[(3, 8)]));
    assert_eq!(books.covered(ten_each), [0, 1]);
}

#[test]
fn a_row_with_a_twin_covers_nobody() {
    let mut books = Books::new();
    books.take(row(0, 1, 0, &[(2, 10)]));
    books.take(row(2, 1, 0, &[(3, 10)]));
    assert_eq!(books.covered(ten_each), [0, 2]);
    books.take(row(0, 1, 0, &[(3, 10)]));
    assert_eq!(books.covered(ten_each), []);
}

#[test]
fn grants_that_change_are_looked_at_again() {
    let mut books = Books::new();
    books.take(row(0, 1, 0, &[(2, 10)]));
    books.take(row(2, 1, 10, &[]));
    assert_eq!(books.covered(|_| 0), []);
    books.backing.doubt_all();
    assert_eq!(books.covered(ten_each), [0, 2]);
    books.backing.doubt_all();
    assert_eq!(books.covered(|_| 0), []);
}

proptest! {
    #[test]
    fn the_set_is_that_of_the_specification(
        rows in proptest::collection::vec(
            (0..HOLDERS - 1, 1u64..5, 0u64..6,
             proptest::collection::vec((0..HOLDERS, 0u64..12), 0..4)),
            1..24,
        ),
        grants in proptest::array::uniform6(0u64..12),
        batch in 1usize..4,
        own in 0u64..8,
    ) {
        let allowed = |holder: &Holder| grants[usize::from(holder.node.0[0])];
        let mut books = Books::new();
        books.own.out.insert(holder(0), own);
        for some in rows.chunks(batch) {
            for (at, seq, hw, out) in some {
                books.take(row(*at, *seq, *hw, out));
            }
            prop_assert_eq!(books.covered(allowed), books.model(allowed));
            // What this node may count was granted to somebody, or given by itself.
            let mine = holder(HOLDERS - 1);
            let counted: u128 = (0..HOLDERS - 1)
                .filter(|at| books.backing.covers(&holder(*at)))
                .filter_map(|at| books.ledger.get(&holder(at)))
                .map(|signed| u128::from(signed.row.out.get(&mine).copied().unwrap_or(0)))
                .sum();
            let granted: u64 = grants[..5].iter().sum::<u64>() + own;
            prop_assert!(counted <= u128::from(granted), "{} of {}", counted, granted);
        }
        books.backing.doubt_all();
        let half = |holder: &Holder| allowed(holder) / 2;
        prop_assert_eq!(books.covered(half), books.model(half));
    }
}
