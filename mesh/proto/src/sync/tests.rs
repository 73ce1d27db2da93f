#![allow(clippy::unwrap_used, clippy::expect_used)]

use ed25519_dalek::SigningKey;
use selvedge_base::MeshId;
use selvedge_crdt::Stamp;

use super::*;
use crate::records::{STEWARD_LEASE, Signer, grant_steward, revoke};
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
