#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use selvedge_base::NodeId;
use selvedge_base::codec;

use super::*;
use crate::escrow::{Ballot, BudgetId, Holder, LedgerKey};

const LIMIT: usize = 1 << 20;

/// The row as builds before witnessed ledgers knew it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Before {
    key: LedgerKey,
    holder: Holder,
    seq: u64,
    hw: u64,
    out: BTreeMap<Holder, u64>,
    sealed: bool,
    demand: u64,
    basis: BTreeMap<Holder, u64>,
}

fn holder(at: u8) -> Holder {
    Holder { node: NodeId([at; 32]), incarnation: u64::from(at) }
}

fn any_map() -> impl Strategy<Value = BTreeMap<Holder, u64>> {
    proptest::collection::btree_map(any::<u8>().prop_map(holder), any::<u64>(), 0..5)
}

prop_compose! {
    fn any_row()(
        window in any::<u64>(),
        (seq, hw, demand) in any::<(u64, u64, u64)>(),
        (out, basis) in (any_map(), any_map()),
        sealed in any::<bool>(),
        round in proptest::option::of(any::<u64>()),
    ) -> EscrowRow {
        let mut row = EscrowRow::new(LedgerKey { budget: BudgetId([3; 16]), window }, holder(1));
        (row.seq, row.hw, row.demand, row.sealed) = (seq, hw, demand, sealed);
        (row.out, row.basis) = (out, basis);
        row.ballot = round.map(|round| Ballot { round, by: holder(2) });
        row
    }
}

fn before(row: &EscrowRow) -> Before {
    let EscrowRow { key, holder, seq, hw, sealed, demand, .. } = *row;
    let (out, basis) = (row.out.clone(), row.basis.clone());
    Before { key, holder, seq, hw, out, sealed, demand, basis }
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_older_builds_read_their_own(row in any_row()) {
        let frame = codec::encode(&(&row, 7u8), LIMIT).unwrap();
        let bytes = &frame[codec::LENGTH_BYTES..];
        let read: (EscrowRow, u8) = codec::decode_body(bytes).unwrap();
        prop_assert_eq!(&read, &(row.clone(), 7));
        let theirs = codec::decode_body::<(Before, u8)>(bytes);
        if row.ballot.is_some() {
            prop_assert!(theirs.is_err(), "an older build would take it for the holder's own");
            return Ok(());
        }
        prop_assert_eq!(theirs.unwrap(), (before(&row), 7));
        prop_assert_eq!(codec::encode(&(before(&row), 7u8), LIMIT).unwrap(), frame);
    }
}

#[test]
fn unknown_flags_are_refused() {
    let mut row = EscrowRow::new(LedgerKey { budget: BudgetId([3; 16]), window: 1 }, holder(1));
    row.sealed = true;
    let frame = codec::encode(&row, LIMIT).unwrap();
    let bytes = &frame[codec::LENGTH_BYTES..];
    let read = |bytes: &[u8]| codec::decode_body::<EscrowRow>(bytes).map(|row| row.sealed);
    assert_eq!(read(bytes), Ok(true));
    let at = bytes.len() - 3;
    assert_eq!(bytes[at], 1, "the flags stand before demand and an empty basis");
    let mut other = bytes.to_vec();
    other[at] = 4;
    assert!(read(&other).is_err());
}
