#![allow(clippy::unwrap_used, clippy::expect_used)]

use ed25519_dalek::SigningKey;
use selvedge_base::MeshId;
use selvedge_crdt::Stamp;

use super::*;
use crate::records::{STEWARD_LEASE, Signer, grant_membership, grant_steward, revoke};
use crate::seal::sign_row;

const START: Wall = Wall(1_800_000_000_000);

struct Node {
    rows: RowMap,
    roster: Roster,
    cursor: Option<NodeId>,
}

fn key(name: u8) -> SigningKey {
    SigningKey::from_bytes(&[name; 32])
}

fn id(name: u8) -> NodeId {
    NodeId(key(name).public())
}

fn mesh() -> MeshId {
    MeshId(key(1).public())
}

fn node(name: u8) -> Node {
    Node { rows: RowMap::new(MAX_ROWS), roster: Roster::new(mesh(), id(name)), cursor: None }
}

impl Node {
    fn write(&mut self, name: u8, seq: u64) {
        let stamp = Stamp { incarnation: 1, seq };
        let row = sign_row(&key(name), stamp, &seq).unwrap();
        assert_eq!(self.rows.merge(row, verify_row), Merged::Newer);
    }

    fn answer(&mut self, theirs: &SyncDigest, reply: bool) -> SyncDelta {
        let (answer, next) = delta(&self.rows, &self.roster, theirs, self.cursor, reply);
        self.cursor = next;
        answer
    }

    fn take(&mut self, delta: SyncDelta) -> Taken {
        apply(&mut self.rows, &mut self.roster, delta, START)
    }
}

/// The three frames of one exchange; what the opener and the other side took.
fn exchange(opener: &mut Node, other: &mut Node) -> (Taken, Taken) {
    let second = other.answer(&digest(&opener.rows, &opener.roster), true);
    let theirs = second.digest.clone().unwrap();
    let by_opener = opener.take(second);
    let third = opener.answer(&theirs, false);
    assert_eq!(third.digest, None, "the third frame asks for nothing");
    (by_opener, other.take(third))
}

#[test]
fn one_exchange_brings_both_sides_up_to_date() {
    let (mut one, mut two) = (node(2), node(3));
    one.write(2, 1);
    two.write(3, 5);
    let (by_one, by_two) = exchange(&mut one, &mut two);
    assert_eq!((by_one.rows, by_two.rows), (vec![id(3)], vec![id(2)]));
    assert_eq!(one.rows.digest(), two.rows.digest());
    assert_eq!(one.rows.get(&id(3)).unwrap().value::<u64>(), Ok(5));
    let (by_one, by_two) = exchange(&mut one, &mut two);
    assert_eq!((by_one, by_two), (Taken::default(), Taken::default()));
}

#[test]
fn a_revocation_travels_with_it_and_keeps_the_row_out() {
    let (mut one, mut two) = (node(2), node(3));
    let steward = grant_steward(&key(1), mesh(), 0, id(2), START, STEWARD_LEASE);
    one.write(4, 1);
    two.write(4, 1);
    let notice = revoke(&key(2), Some(steward), mesh(), id(4), START);
    one.roster.apply_revocation(notice, START).unwrap();
    one.rows.forget(&id(4));
    let (by_one, by_two) = exchange(&mut one, &mut two);
    assert_eq!(by_two.known.revoked, [id(4)]);
    assert_eq!(by_one.rows, [], "the other side still had the row");
    assert!(one.rows.is_empty() && two.rows.is_empty());
    assert_eq!(exchange(&mut one, &mut two).1, Taken::default());
}

#[test]
fn forged_rows_are_refused_and_named() {
    let mut one = node(2);
    let mut row = sign_row(&key(4), Stamp { incarnation: 1, seq: 1 }, &1u64).unwrap();
    row.stamp.seq = 2;
    let taken = one.take(SyncDelta { rows: vec![row], ..SyncDelta::default() });
    assert_eq!((taken.suspicious, taken.rows), (vec![id(4)], vec![]));
    assert!(one.rows.is_empty());
}

fn rows(rows: Vec<Row>) -> SyncDelta {
    SyncDelta { rows, ..SyncDelta::default() }
}

#[test]
fn a_delta_is_taken_up_to_a_limit() {
    let stamp = Stamp { incarnation: 1, seq: 1 };
    let small = sign_row(&key(4), stamp, &1u64).unwrap();
    let last = sign_row(&key(5), stamp, &1u64).unwrap();
    let with_last = |row: &Row, count: usize| {
        let mut all = vec![row.clone(); count];
        all.push(last.clone());
        rows(all)
    };
    let mut one = node(2);
    assert_eq!(one.take(with_last(&small, MAX_DELTA_ROWS)).rows, [id(4)]);
    assert_eq!(one.take(with_last(&small, MAX_DELTA_ROWS - 1)).rows, [id(5)]);

    let large = sign_row(&key(6), stamp, &vec![0u8; 4_000]).unwrap();
    let fitting = TOLERANCE * ROW_BUDGET_BYTES / large.wire_bytes();
    let mut one = node(2);
    assert_eq!(one.take(with_last(&large, fitting + 1)).rows, [id(6)]);
    assert_eq!(one.take(with_last(&large, fitting - 1)).rows, [id(5)]);
}

#[test]
fn records_are_taken_up_to_a_limit() {
    let mut one = node(2);
    let steward = |n: u8| grant_steward(&key(1), mesh(), 0, id(n), START, STEWARD_LEASE);
    let mut delta = SyncDelta::default();
    delta.roster.stewards = vec![steward(4); TOLERANCE * RECORD_BUDGET];
    delta.roster.stewards.push(steward(5));
    let notice = |n: u8| revoke(&key(1), None, mesh(), id(n), START);
    delta.roster.revocations = vec![notice(6); TOLERANCE * RECORD_BUDGET];
    delta.roster.revocations.push(notice(7));
    assert_eq!(one.take(delta).known.revoked, [id(6)]);
    let known: Vec<_> = one.roster.stewards(START).map(|steward| steward.body.node).collect();
    assert_eq!(known, [id(4)]);
}

#[test]
fn invented_writers_do_not_keep_members_out() {
    let mut one = node(2);
    for n in 0..MAX_ROWS as u64 {
        let mut writer = [9; 32];
        writer[..8].copy_from_slice(&n.to_be_bytes());
        let stamp = Stamp { incarnation: 1, seq: 1 };
        let mut row = sign_row(&key(4), stamp, &1u64).unwrap();
        row.writer = NodeId(writer);
        assert_eq!(one.rows.merge(row, |_| true), Merged::Newer);
    }
    let stamp = Stamp { incarnation: 1, seq: 1 };
    let row = sign_row(&key(4), stamp, &1u64).unwrap();
    assert_eq!(one.take(rows(vec![row.clone()])).rows, [], "a stranger among strangers");
    let steward = grant_steward(&key(1), mesh(), 0, id(3), START, STEWARD_LEASE);
    let lease = crate::records::DEFAULT_LEASE;
    let credential = grant_membership(&key(3), &steward, &[], id(4), "attic", START, lease);
    one.roster.learn(&credential.unwrap());
    assert_eq!(one.take(rows(vec![row])).rows, [id(4)]);
    assert_eq!(one.rows.len(), MAX_ROWS);
}
