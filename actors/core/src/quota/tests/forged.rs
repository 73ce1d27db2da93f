//! Rows that somebody made up: signed well, and worth nothing.

use selvedge_crdt::escrow::{BudgetId, EscrowRow, LedgerKey, RowRefused, Seal as _, SignedRow};
use selvedge_proto::policy::Period;

use super::super::*;
use super::world::{START, Stamps, World, holder, node_id};

const STRANGER: Holder = Holder { node: NodeId([77; 32]), incarnation: 3 };

fn row(of: Holder, seq: u64, gifts: &[(Holder, u64)], basis: &[(Holder, u64)]) -> SignedRow {
    let key = LedgerKey { budget: BudgetId([1; 16]), window: Period::Hour.window(START) };
    let mut row = EscrowRow::new(key, of);
    row.seq = seq;
    row.out = gifts.iter().copied().collect();
    row.basis = basis.iter().copied().collect();
    let signature = Stamps(of.node).sign(&row.canonical_bytes());
    SignedRow { row, signature }
}

fn send(world: &mut World, from: usize, rows: Vec<SignedRow>) {
    let message = QuotaMessage::Rows(rows);
    world.step(0, QuotaInput::Received { from: node_id(from), message });
    world.persist(0);
    world.persist(0);
}

fn rights(world: &World) -> u64 {
    world.nodes[0].quota.status(world.now)[0].rights
}

fn world() -> World {
    let mut world = World::tokens(3, 900);
    world.settle_down();
    assert_eq!(rights(&world), 300);
    world
}

#[test]
fn a_member_makes_no_rights_with_a_key_of_its_own_making() {
    let mut world = world();
    let source = row(STRANGER, 1, &[(holder(1), 10_000)], &[]);
    let minted = row(holder(1), 1, &[(holder(0), 5_000)], &[(STRANGER, 1)]);
    send(&mut world, 1, vec![source.clone(), minted.clone()]);
    assert_eq!(rights(&world), 300);
    let refused = |(at, event): &(usize, QuotaEvent)| {
        let why = RowRefused::Stranger(STRANGER.node);
        *at == 0 && *event == QuotaEvent::RowRefused { from: node_id(1), why }
    };
    assert!(world.events.iter().any(refused), "{:?}", world.events);
    let kept = |world: &World| world.nodes[0].quota.status(world.now)[0].holders.len();
    assert_eq!(kept(&world), 3, "what a stranger signs is not kept");
    // Nor with that of a member who was granted nothing.
    let mut nodes: Vec<NodeId> = (0..3).map(node_id).collect();
    nodes.push(STRANGER.node);
    world.step(0, QuotaInput::Introduced { nodes });
    send(&mut world, 1, vec![source, minted]);
    assert_eq!((rights(&world), kept(&world)), (300, 4));
    // Nor two of them for each other.
    let circle =
        |of, other| row(of, 2, &[(other, 9_000), (holder(0), 4_000)], &[(other, 2), (STRANGER, 2)]);
    send(&mut world, 1, vec![circle(STRANGER, holder(1)), circle(holder(1), STRANGER)]);
    assert_eq!(rights(&world), 300);
}

#[test]
fn a_gift_waits_for_the_rows_that_cover_it() {
    let mut world = world();
    // 2 gave to 1, which gave it on, and 0 has not heard of the first gift.
    send(&mut world, 1, vec![row(holder(1), 1, &[(holder(0), 350)], &[(holder(2), 5)])]);
    assert_eq!(rights(&world), 300);
    let asked = |(from, to, message): &(usize, usize, QuotaMessage)| {
        (*from, *to) == (0, 1) && matches!(message, QuotaMessage::Digest(_))
    };
    assert_eq!(world.network.iter().filter(|sent| asked(sent)).count(), 1, "it asks its donor");
    send(&mut world, 2, vec![row(holder(2), 5, &[(holder(1), 100)], &[])]);
    assert_eq!(rights(&world), 650, "now it counts");
    // Whoever gives two different things under one number gives nothing from then on.
    send(&mut world, 2, vec![row(holder(2), 5, &[(holder(1), 90)], &[])]);
    send(&mut world, 1, vec![row(holder(1), 2, &[(holder(0), 400)], &[(holder(2), 5)])]);
    assert_eq!(rights(&world), 650, "not what rests on it either");
}
