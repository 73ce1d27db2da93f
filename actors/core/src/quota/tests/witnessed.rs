//! Reclaimable budgets: what a quorum has not seen is not spent, and what a node that is gone has
//! left is spent by others, never twice.

use proptest::prelude::*;
use selvedge_crdt::escrow::{Ballot, EscrowRow, Seal as _, SignedRow};
use selvedge_proto::policy::{BudgetSpec, Unit};

use super::super::*;
use super::world::{Stamps, World, holder, node_id, spec};

fn witnessed(limit: u64) -> BudgetSpec {
    BudgetSpec { reclaimable: true, ..spec(Unit::Tokens, limit) }
}

fn world(count: usize, limit: u64) -> World {
    let mut world = World::new(count, &[("acme", witnessed(limit))], QuotaOptions::default());
    world.quiet(2);
    world
}

/// Rows of a node that a quorum of disks has accepted at some time, in their order: in one turn a
/// later row has all that an earlier one has.
fn chosen(world: &World, of: usize) -> Vec<&EscrowRow> {
    let rows = || world.accepted.iter().filter(|(_, one)| one.row.holder == holder(of));
    let is_chosen = |row: &EscrowRow| {
        let same = |one: &EscrowRow| one.ballot == row.ballot && one.seq >= row.seq;
        let by: BTreeSet<usize> =
            rows().filter(|(_, one)| same(&one.row)).map(|(at, _)| *at).collect();
        2 * by.len() > world.nodes.len()
    };
    let mut all: Vec<&EscrowRow> =
        rows().map(|(_, one)| &one.row).filter(|row| is_chosen(row)).collect();
    all.sort_by_key(|row| row.turn());
    all.dedup();
    all
}

/// What must hold at every moment, seen from outside.
fn check(world: &World) {
    let limit = world.paper.budgets[0].limit;
    let count = world.nodes.len();
    let last: Vec<Option<&EscrowRow>> = (0..count)
        .map(|of| {
            let rows = chosen(world, of);
            for pair in rows.windows(2) {
                assert!(pair[1].succeeds(pair[0]), "taken back: {pair:#?}");
                assert!(pair[0].seq < pair[1].seq, "{pair:#?}");
            }
            rows.last().copied()
        })
        .collect();
    let marks: u64 = last.iter().flatten().map(|row| row.hw).sum();
    assert!(marks <= limit, "marks of {marks} in a budget of {limit}");
    for (of, row) in last.iter().enumerate() {
        let granted = world.paper.budgets[0].limit / count as u64 + 1;
        let got: u64 = last.iter().flatten().filter_map(|row| row.out.get(&holder(of))).sum();
        let used = row.map_or(0, |row| row.hw + row.given() as u64);
        assert!(granted + got >= used, "{granted} and {got} for {used}");
        let node = &world.nodes[of];
        let running: u64 = node.active.iter().map(|(_, cost)| cost).sum();
        let mark = row.map_or(0, |row| row.hw);
        assert!(node.used + running <= mark, "{} + {running} over {mark}", node.used);
    }
}

/// A node is gone, for all the others and for the clock.
fn cut_off(world: &mut World, at: usize) {
    world.down = Some(at);
    for peer in (0..world.nodes.len()).filter(|peer| *peer != at) {
        world.step(peer, QuotaInput::PeerDown { node: node_id(at) });
        world.step(at, QuotaInput::PeerDown { node: node_id(peer) });
    }
}

fn come_back(world: &mut World, at: usize) {
    world.down = None;
    for peer in (0..world.nodes.len()).filter(|peer| *peer != at) {
        world.step(peer, QuotaInput::PeerUp { node: node_id(at) });
        world.step(at, QuotaInput::PeerUp { node: node_id(peer) });
    }
}

/// Lets time pass without whoever is down: what is for it, or from it, is lost.
fn pass_without(world: &mut World, seconds: u64) {
    let down = world.down.unwrap();
    for _ in 0..seconds * 10 {
        for _ in 0..200 {
            world.network.retain(|(from, to, _)| *from != down && *to != down);
            let up = (0..world.nodes.len()).filter(|at| *at != down);
            let wrote = up.filter(|at| world.persist(*at)).count();
            if world.network.is_empty() && wrote == 0 {
                break;
            }
            world.deliver(0, false);
        }
        world.pass(100);
        check(world);
    }
}

/// Asks until the node is refused; what it was granted.
fn drain(world: &mut World, at: usize, cost: u64) -> u64 {
    let before = world.nodes[at].served;
    for _ in 0..400 {
        let served = world.nodes[at].served;
        world.ask(at, cost);
        world.settle_down();
        world.settle(at, 0, 1_000);
        check(world);
        if world.nodes[at].served == served {
            world.pass(50);
            world.settle_down();
        }
    }
    world.nodes[at].served - before
}

#[test]
fn a_request_waits_for_a_quorum_and_for_no_more() {
    let mut world = world(3, 3_000);
    world.ask(0, 100);
    world.persist(0);
    assert!(world.nodes[0].active.is_empty(), "this node's own disk is no quorum");
    let to_first = world.network.iter().position(|(from, to, said)| {
        *from == 0 && *to == 1 && matches!(said, QuotaMessage::Witness(_))
    });
    world.deliver(to_first.unwrap(), false);
    world.persist(1);
    let vote = world.network.iter().position(|(from, to, _)| *from == 1 && *to == 0);
    world.deliver(vote.unwrap(), false);
    assert_eq!(world.nodes[0].active.len(), 1, "two of three are");
    // The next ones find a block that is witnessed already.
    world.settle_down();
    world.settle(0, 0, 500);
    world.ask(0, 10);
    assert_eq!(world.nodes[0].active.len(), 1);
    check(&world);
}

#[test]
fn without_a_quorum_only_what_was_witnessed_is_spent() {
    let mut world = world(3, 3_000);
    world.ask(0, 10);
    world.quiet(1);
    world.settle(0, 0, 1_000);
    let rest: u64 = world.nodes[0].quota.audit().iter().map(|audit| audit.hw - audit.spent).sum();
    assert!(rest > 0, "a block is witnessed ahead");
    cut_off(&mut world, 0);
    world.ask(0, rest);
    assert_eq!(world.nodes[0].active.len(), 1);
    world.ask(0, 10);
    world.pass(31);
    world.step(0, QuotaInput::Ticked);
    assert_eq!(world.nodes[0].active.len(), 1, "nobody witnesses more");
    let refusal = world.refusals.pop().unwrap();
    assert_eq!(refusal.why, Why::Unwitnessed { reached: 1, needed: 2 }, "{refusal:?}");
    let told = refusal.to_refusal().message;
    assert!(told.contains("1 of its witnesses are in reach, where 2 must be"), "{told}");
    check(&world);
}

#[test]
fn what_a_gone_node_has_left_is_spent_by_others_and_it_comes_back_to_the_rest() {
    let limit = 3_000;
    let mut world = world(3, limit);
    world.ask(0, 100);
    world.quiet(1);
    world.settle(0, 0, 1_000);
    cut_off(&mut world, 0);
    let mark = chosen(&world, 0).last().unwrap().hw;
    // Both others together use up their own parts, and then what the first had left.
    for _ in 0..12 {
        for at in [1, 2] {
            world.ask(at, 90);
            world.settle(at, 0, 1_000);
        }
        pass_without(&mut world, 1);
        for at in [1, 2] {
            world.settle(at, 0, 1_000);
            world.settle(at, 0, 1_000);
        }
    }
    for _ in 0..80 {
        world.ask(1, 90);
        pass_without(&mut world, 1);
        world.settle(1, 0, 1_000);
        world.settle(1, 0, 1_000);
    }
    let reclaimed = world.events.iter().any(|(at, event)| {
        *at != 0 && matches!(event, QuotaEvent::Reclaimed { from, .. } if *from == holder(0))
    });
    assert!(reclaimed);
    let served: u64 = world.nodes.iter().map(|node| node.served).sum();
    assert!(served > limit * 9 / 10 - mark, "{served} served of {limit}");
    come_back(&mut world, 0);
    world.quiet(6);
    check(&world);
    let row = chosen(&world, 0).last().copied().unwrap();
    assert!(row.ballot.is_some_and(|ballot| ballot.by == holder(0)), "it writes its row again");
    assert!(row.hw >= mark && row.given() > 0);
    world.ask(0, mark + 500);
    world.quiet(1);
    assert!(world.nodes[0].active.is_empty(), "what was taken over is not spent again");
    let rights: u64 = world
        .nodes
        .iter()
        .flat_map(|node| node.quota.audit())
        .map(|audit| audit.granted + audit.counted - audit.given)
        .sum();
    assert_eq!(rights, limit, "rights are conserved");
}

#[test]
fn what_a_node_left_that_lost_its_disk_is_spent_by_others_while_it_is_back() {
    // The name of a new store is drawn: it may be greater than the old one, or smaller.
    [2, 0].into_iter().for_each(back_without_its_disk);
}

fn back_without_its_disk(incarnation: u64) {
    let limit = 3_000;
    let mut world = world(3, limit);
    world.ask(0, 100);
    world.quiet(1);
    world.settle(0, 0, 1_000);
    let mark = chosen(&world, 0).last().unwrap().hw;
    // It starts with nothing, as another holder: no witness, and no right under this epoch.
    let header = QuotaHeader { incarnation, ..QuotaHeader::default() };
    world.nodes[0].disk = QuotaStored { header: Some(header), ..QuotaStored::default() };
    world.crash(0, false);
    world.quiet(2);
    assert_eq!(world.nodes[0].quota.holder().incarnation, incarnation);
    for _ in 0..80 {
        world.ask(1, 90);
        world.quiet(1);
        while !world.nodes[1].active.is_empty() {
            world.settle(1, 0, 1_000);
        }
    }
    let reclaimed = world.events.iter().any(|(at, event)| {
        *at == 1 && matches!(event, QuotaEvent::Reclaimed { from, .. } if *from == holder(0))
    });
    assert!(reclaimed, "{:?}", world.refusals.last());
    let served = world.nodes[1].served;
    assert!(served > limit * 9 / 10 - mark && served + mark <= limit, "{served} of {limit}");
}

/// A row that somebody made up, sent to the first node.
fn forge(world: &mut World, of: Holder, ballot: Option<Ballot>, gift: (Holder, u64)) {
    let key = world.nodes[0].quota.audit()[0].key;
    let mut row = EscrowRow::new(key, of);
    (row.seq, row.ballot, row.out) = (50, ballot, BTreeMap::from([gift]));
    let signature = Stamps(row.signer()).sign(&row.canonical_bytes());
    let from = row.signer();
    let message = QuotaMessage::Rows(vec![SignedRow { row, signature }]);
    world.step(0, QuotaInput::Received { from, message });
    world.settle_down();
}

#[test]
fn what_nothing_covers_is_not_taken_over() {
    let mut world = world(5, 1_500);
    // The one that made it up is found out by its own signature, and votes no more.
    forge(&mut world, holder(4), None, (holder(3), 10_000));
    cut_off(&mut world, 3);
    for _ in 0..40 {
        world.ask(0, 60);
        pass_without(&mut world, 1);
        while !world.nodes[0].active.is_empty() {
            world.settle(0, 0, 1_000);
        }
    }
    let reclaimed = world.events.iter().find_map(|(_, event)| {
        if let QuotaEvent::Reclaimed { amount, .. } = event { Some(*amount) } else { None }
    });
    assert_eq!(reclaimed, Some(300), "its own part and no more");
    assert!(world.nodes[0].served > 1_000, "{}", world.nodes[0].served);
}

#[test]
fn rows_of_others_are_taken_from_voters_only() {
    let mut world = world(3, 900);
    let rights = |world: &World| world.nodes[0].quota.status(world.now)[0].rights;
    let stranger = Ballot { round: 1, by: Holder { node: NodeId([77; 32]), incarnation: 1 } };
    let before = rights(&world);
    forge(&mut world, holder(2), Some(stranger), (holder(0), 100));
    assert_eq!(rights(&world), before);
    // Nor in a ledger without witnesses.
    let mut plain = World::tokens(3, 900);
    plain.settle_down();
    let member = Ballot { round: 1, by: holder(1) };
    forge(&mut plain, holder(2), Some(member), (holder(0), 100));
    assert_eq!(rights(&plain), 300);
    forge(&mut world, holder(2), Some(member), (holder(0), 100));
    assert_eq!(rights(&world), before + 100, "one of a voter counts, as any member's does");
}

#[test]
fn older_builds_are_told_nothing_of_witnesses() {
    let mut world = world(3, 900);
    world.ask(0, 100);
    world.quiet(1);
    let plain = world.accepted[0].1.clone();
    let mut taken = plain.clone();
    taken.row.ballot = Some(Ballot { round: 1, by: holder(1) });
    let said = QuotaMessage::Witness(Box::new(WitnessMessage::Propose(plain.clone())));
    assert_eq!(said.clone().spoken_at(2), None);
    assert_eq!(said.clone().spoken_at(3), Some(said));
    let rows = QuotaMessage::Rows(vec![taken.clone(), plain.clone()]);
    assert_eq!(rows.spoken_at(2), Some(QuotaMessage::Rows(vec![plain])));
    assert_eq!(QuotaMessage::Rows(vec![taken.clone()]).spoken_at(2), None);
    let none = QuotaMessage::Recalled { holder: holder(0), rows: Vec::new() };
    let recalled = QuotaMessage::Recalled { holder: holder(0), rows: vec![taken] };
    assert_eq!(recalled.spoken_at(2), Some(none));
}

#[test]
fn a_node_that_starts_again_spends_once_witnesses_have_confirmed_its_row() {
    let mut world = world(3, 3_000);
    world.ask(0, 100);
    world.quiet(1);
    world.crash(0, true);
    world.ask(0, 10);
    assert!(world.nodes[0].active.is_empty());
    world.settle_down();
    assert_eq!(world.nodes[0].active.len(), 1);
    check(&world);
}

#[test]
fn all_of_a_witnessed_budget_can_be_used_where_it_is_wanted() {
    let mut world = world(4, 4_000);
    let served = drain(&mut world, 2, 60);
    assert!(served > 3_900, "{served}");
    check(&world);
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Ask { at: usize, cost: u64 },
    Settle { at: usize, permille: u64 },
    Persist { at: usize },
    FailWrite { at: usize, happened: bool },
    Deliver { which: usize },
    Repeat { which: usize },
    Lose { which: usize },
    Crash { at: usize, wrote: bool },
    Lost { at: usize, peer: usize },
    Met { at: usize, peer: usize },
    Gone { at: usize },
    Pass { ms: u64 },
}

fn any_move() -> impl Strategy<Value = Move> {
    let at = 0usize..5;
    let which = 0usize..1_000;
    prop_oneof![
        6 => (at.clone(), 1u64..300).prop_map(|(at, cost)| Move::Ask { at, cost }),
        4 => (at.clone(), 0u64..1_000).prop_map(|(at, permille)| Move::Settle { at, permille }),
        8 => at.clone().prop_map(|at| Move::Persist { at }),
        1 => (at.clone(), any::<bool>())
            .prop_map(|(at, happened)| Move::FailWrite { at, happened }),
        12 => which.clone().prop_map(|which| Move::Deliver { which }),
        1 => which.clone().prop_map(|which| Move::Repeat { which }),
        2 => which.prop_map(|which| Move::Lose { which }),
        1 => (at.clone(), any::<bool>()).prop_map(|(at, wrote)| Move::Crash { at, wrote }),
        2 => (at.clone(), at.clone()).prop_map(|(at, peer)| Move::Lost { at, peer }),
        1 => (at.clone(), at.clone()).prop_map(|(at, peer)| Move::Met { at, peer }),
        2 => at.prop_map(|at| Move::Gone { at }),
        3 => (1u64..3_000).prop_map(|ms| Move::Pass { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_overspends_or_takes_back(
        count in 1usize..=5,
        limit in prop_oneof![Just(7u64), Just(1_000), Just(5_000)],
        moves in proptest::collection::vec(any_move(), 1..220),
    ) {
        let mut world = world(count, limit);
        for action in moves {
            match action {
                Move::Ask { at, cost } => drop(world.ask(at % count, cost)),
                Move::Settle { at, permille } => world.settle(at % count, 0, permille),
                Move::Persist { at } => drop(world.persist(at % count)),
                Move::FailWrite { at, happened } => world.fail_write(at % count, happened),
                Move::Deliver { which } => world.deliver(which, false),
                Move::Repeat { which } => world.deliver(which, true),
                Move::Lose { which } if !world.network.is_empty() => {
                    let which = which % world.network.len();
                    world.network.remove(which);
                }
                Move::Lose { .. } => {}
                Move::Crash { at, wrote } => world.crash(at % count, wrote),
                Move::Lost { at, peer } => {
                    let node = node_id(peer % count);
                    world.step(at % count, QuotaInput::PeerDown { node });
                }
                Move::Met { at, peer } => {
                    let node = node_id(peer % count);
                    world.step(at % count, QuotaInput::PeerUp { node });
                }
                Move::Gone { at } => {
                    let node = node_id(at % count);
                    for peer in (0..count).filter(|peer| *peer != at % count) {
                        world.step(peer, QuotaInput::PeerDown { node });
                    }
                    // Long enough to be missed, and everybody left is short.
                    (0..count).for_each(|peer| {
                        let _id = world.ask(peer, limit / 3);
                    });
                    world.pass(5_100);
                    world.pass(1_000);
                }
                Move::Pass { ms } => world.pass(ms),
            }
            check(&world);
        }
        for at in 0..count {
            for peer in 0..count {
                world.step(at, QuotaInput::PeerUp { node: node_id(peer) });
            }
        }
        world.quiet(8);
        for at in 0..count {
            while !world.nodes[at].active.is_empty() {
                world.settle(at, 0, 500);
            }
        }
        world.quiet(12);
        check(&world);
        let audits: Vec<_> = world.nodes.iter().flat_map(|node| node.quota.audit()).collect();
        let rights: u64 =
            audits.iter().map(|audit| audit.granted + audit.counted - audit.given).sum();
        prop_assert_eq!(rights, limit, "rights were lost or made: {:?}", audits);
    }
}
