//! One thing at a time: what a node does in situations that have a name.

use selvedge_base::Wall;
use selvedge_proto::policy::{BudgetSpec, Unit};

use super::super::*;
use super::world::{World, holder, node_id, spec};

#[test]
fn a_grant_waits_for_the_mark_and_the_next_one_does_not() {
    let mut world = World::tokens(1, 64_000);
    world.ask(0, 100);
    assert_eq!(world.nodes[0].served, 0, "nothing is granted before it is durable");
    assert!(world.persist(0));
    assert_eq!(world.nodes[0].served, 100);
    world.ask(0, 10);
    assert_eq!(world.nodes[0].served, 110, "a block is ahead");
}

#[test]
fn what_is_missing_comes_from_a_peer_within_the_hold() {
    let mut world = World::tokens(2, 1_000);
    world.settle_down();
    world.ask(0, 800);
    assert_eq!((world.nodes[0].served, world.nodes[0].refused), (0, 0), "held");
    world.settle_down();
    assert_eq!(world.nodes[0].served, 800);
    world.check();
}

#[test]
fn without_an_answer_a_held_request_is_refused_in_time() {
    let mut world = World::tokens(2, 1_000);
    world.settle_down();
    world.ask(0, 800);
    world.network.clear();
    world.pass(29);
    assert_eq!(world.nodes[0].refused, 0);
    world.pass(1);
    assert_eq!(world.nodes[0].refused, 800);
    let refusal = world.refusals.pop().expect("refused");
    assert_eq!((refusal.why, refusal.needed, refusal.left), (Why::Exhausted, 800, 500));
    assert!(refusal.retry_after.is_some_and(|wait| wait <= Micros::secs(3_600)));
    let told = refusal.to_refusal();
    assert_eq!(told.code, selvedge_base::Code::QuotaExhausted);
    assert!(told.message.contains("'main' of 'acme' (1000 tokens"), "{}", told.message);
}

#[test]
fn retry_after_is_never_later_than_the_window() {
    let mut world = World::tokens(1, 1_000);
    world.ask(0, 1_000);
    world.settle_down();
    world.settle(0, 0, 1_000);
    world.pass(3_600_000 - 5_000);
    world.ask(0, 10);
    let refusal = world.refusals.pop().expect("refused");
    assert_eq!(refusal.retry_after, Some(Micros::secs(5)));
    world.ask(0, 2_000);
    let refusal = world.refusals.pop().expect("refused");
    assert_eq!((refusal.why, refusal.retry_after), (Why::TooLarge, None));
}

#[test]
fn a_new_window_has_new_rights_and_a_clock_set_back_has_not() {
    let mut world = World::tokens(1, 1_000);
    world.ask(0, 1_000);
    world.settle_down();
    world.settle(0, 0, 1_000);
    world.pass(3_600_000);
    world.settle_down();
    world.ask(0, 900);
    world.settle_down();
    assert_eq!(world.nodes[0].served, 1_900);
    world.now.wall = Wall(world.now.wall.0 - 3_600_000);
    world.ask(0, 900);
    world.settle_down();
    assert_eq!(world.nodes[0].served, 1_900, "the newest window stays the current one");
    world.crash(0, true);
    world.ask(0, 100);
    world.settle_down();
    assert_eq!(world.nodes[0].served, 1_900, "nor does a restart forget it");
}

#[test]
fn windows_are_dropped_and_stay_shut() {
    let mut world = World::tokens(1, 1_000);
    for _ in 0..4 {
        world.ask(0, 500);
        world.settle_down();
        world.settle(0, 0, 1_000);
        world.pass(3_600_000);
        world.quiet(2);
    }
    assert!(world.nodes[0].quota.audit().len() <= 2);
    let ledgers: BTreeSet<u64> = world.own_rows(0).map(|row| row.key.window).collect();
    assert!(ledgers.len() <= 2, "{ledgers:?}");
    let before = world.nodes[0].served;
    world.now.wall = Wall(world.now.wall.0 - 4 * 3_600_000);
    world.crash(0, true);
    world.ask(0, 500);
    world.settle_down();
    world.check_ledgers();
    let row = world.own_rows(0).map(|row| row.key.window).min().expect("rows");
    assert!(row >= *ledgers.first().expect("ledgers"), "an old window was opened again");
    assert!(world.nodes[0].served >= before);
}

#[test]
fn a_lost_request_settles_at_its_full_size_once() {
    let mut world = World::tokens(1, 1_000);
    let id = world.ask(0, 300);
    world.settle_down();
    world.pass(600_000);
    assert!(world.events.iter().any(|(_, event)| *event == QuotaEvent::LeaseEnded { amount: 300 }));
    let audit = world.nodes[0].quota.audit();
    assert_eq!((audit[0].spent, audit[0].reserved), (300, 0));
    world.step(0, QuotaInput::Settled { id, actual: Charge::default() });
    assert_eq!(world.nodes[0].quota.audit()[0].spent, 300);
}

#[test]
fn a_request_whose_lease_ends_while_it_waits_for_the_disk_took_nothing() {
    let mut world = World::tokens(1, 1_000);
    world.ask(0, 300);
    assert!(world.nodes[0].active.is_empty(), "the disk has not answered");
    world.pass(600_000);
    assert_eq!(world.refusals.pop().map(|refusal| refusal.why), Some(Why::Overloaded));
    world.settle_down();
    let audit = world.nodes[0].quota.audit();
    assert_eq!((audit[0].spent, audit[0].reserved), (0, 0));
    assert!(world.nodes[0].active.is_empty());
}

#[test]
fn an_overrun_is_paid_here_then_by_the_next_window() {
    let mut world = World::tokens(1, 1_000);
    let id = world.ask(0, 900);
    world.settle_down();
    world.nodes[0].active.clear();
    let actual = Charge { tokens: 1_300, requests: 1, ..Charge::default() };
    world.step(0, QuotaInput::Settled { id, actual });
    world.settle_down();
    let status = &world.nodes[0].quota.status(world.now)[0];
    assert_eq!((status.spent, status.debt, status.available), (1_000, 300, 0));
    world.crash(0, true);
    world.pass(3_600_000);
    world.ask(0, 1);
    world.settle_down();
    let status = &world.nodes[0].quota.status(world.now)[0];
    assert_eq!((status.debt, status.available), (0, 699), "{status:?}");
}

#[test]
fn a_store_that_went_back_loses_its_rights_and_nothing_else() {
    let mut world = World::tokens(2, 1_000);
    world.ask(0, 100);
    world.settle_down();
    let old = world.nodes[0].disk.clone();
    world.ask(0, 300);
    world.settle_down();
    world.quiet(5);
    // Both requests ran; then the disk goes back to the first.
    world.nodes[0].disk = old;
    world.crash(0, false);
    world.settle_down();
    let now = world.nodes[0].quota.holder();
    assert!(now.incarnation > 1, "the incarnation ended");
    let told = |event: &QuotaEvent| matches!(event, QuotaEvent::RolledBack { .. });
    assert!(world.events.iter().any(|(at, event)| *at == 0 && told(event)));
    assert_eq!(world.nodes[0].quota.status(world.now)[0].rights, 0);
    // Rights may be given to the new one.
    world.ask(0, 50);
    world.settle_down();
    assert!(world.nodes[0].active.iter().any(|(_, cost)| *cost == 50), "{:?}", world.refusals);
}

#[test]
fn with_the_guard_nothing_is_spent_before_a_peer_has_confirmed() {
    let options = QuotaOptions { rollback_guard: true, ..QuotaOptions::default() };
    let mut world = World::new(2, &[("acme", spec(Unit::Tokens, 1_000))], options);
    world.ask(0, 10);
    assert_eq!(world.refusals.pop().map(|refusal| refusal.why), Some(Why::Unconfirmed));
    world.settle_down();
    world.ask(0, 10);
    world.settle_down();
    assert_eq!(world.nodes[0].served, 10);
}

#[test]
fn a_fresh_store_is_a_new_holder() {
    let mut world = World::tokens(2, 1_000);
    world.nodes[0].disk = QuotaStored::default();
    world.crash(0, false);
    assert_ne!(world.nodes[0].quota.holder(), holder(0));
    world.settle_down();
    world.ask(0, 1);
    world.network.clear();
    world.pass(50);
    assert_eq!(world.nodes[0].refused, 1, "a lost disk has no rights");
}

#[test]
fn a_disk_that_fails_refuses_and_recovers() {
    let mut world = World::tokens(1, 1_000);
    world.ask(0, 10);
    world.fail_write(0, false);
    assert_eq!(world.refusals.pop().map(|refusal| refusal.why), Some(Why::Storage));
    world.ask(0, 10);
    assert_eq!(world.refusals.pop().map(|refusal| refusal.why), Some(Why::Storage));
    world.pass(1_000);
    world.settle_down();
    world.ask(0, 10);
    world.settle_down();
    assert_eq!(world.nodes[0].served, 10);
    assert_eq!(world.nodes[0].quota.audit()[0].reserved, 10);
}

#[test]
fn a_retiring_node_leaves_nothing_behind() {
    let mut world = World::tokens(2, 1_000);
    world.ask(0, 100);
    world.settle_down();
    world.step(0, QuotaInput::Drained);
    world.ask(0, 1);
    assert_eq!(world.refusals.pop().map(|refusal| refusal.why), Some(Why::Retiring));
    world.settle(0, 0, 1_000);
    world.quiet(3);
    assert!(world.nodes[0].quota.is_retired());
    let row = world.own_rows(0).next().expect("a row");
    assert!(row.sealed);
    let other = &world.nodes[1].quota.status(world.now)[0];
    assert!(other.available >= 890, "{other:?}");
    world.check();
    world.crash(0, true);
    assert_ne!(world.nodes[0].quota.holder(), holder(0), "a retired holder never comes back");
}

#[test]
fn permits_come_back_and_never_exceed_the_limit() {
    let permits = [("acme", spec(Unit::Concurrent, 4))];
    let mut world = World::new(2, &permits, QuotaOptions::default());
    world.settle_down();
    for _ in 0..6 {
        world.ask(0, 0);
        world.settle_down();
        world.pass(250);
    }
    let running = |world: &World| -> usize { world.nodes.iter().map(|n| n.active.len()).sum() };
    assert!((2..=4).contains(&running(&world)), "{}", running(&world));
    world.ask(1, 0);
    world.settle_down();
    assert!(running(&world) <= 4);
    world.settle(0, 0, 0);
    world.ask(0, 0);
    world.settle_down();
    assert!((3..=4).contains(&running(&world)), "{}", running(&world));
}

#[test]
fn the_only_permit_goes_where_it_is_wanted_next() {
    let one = [("acme", spec(Unit::Concurrent, 1))];
    let mut world = World::new(2, &one, QuotaOptions::default());
    world.settle_down();
    let running = |world: &World, at: usize| world.nodes[at].active.len();
    // Whoever holds it uses it for a moment; a second later the other node wants it.
    for at in [0, 1, 0, 1] {
        world.ask(at, 0);
        world.settle_down();
        assert_eq!((running(&world, at), running(&world, 1 - at)), (1, 0), "at node {at}");
        world.settle(at, 0, 0);
        world.settle_down();
        world.pass(1_000);
        world.settle_down();
    }
}

#[test]
fn a_permit_that_nobody_wanted_for_a_second_is_not_kept_for_a_crowd_that_left() {
    let one = [("acme", spec(Unit::Concurrent, 1))];
    let mut world = World::new(2, &one, QuotaOptions::default());
    world.settle_down();
    // Fifty at once, all but one of them refused.
    (0..50).for_each(|_| {
        let _id = world.ask(0, 0);
    });
    world.settle_down();
    world.pass(100);
    world.settle_down();
    assert_eq!(world.nodes[0].active.len(), 1);
    world.settle(0, 0, 0);
    world.pass(1_000);
    world.settle_down();
    world.ask(1, 0);
    world.settle_down();
    assert_eq!(world.nodes[1].active.len(), 1, "{:?}", world.refusals.last());
}

#[test]
fn a_rate_is_the_whole_meshs() {
    let rate = [(
        "acme",
        selvedge_proto::policy::BudgetSpec {
            period: selvedge_proto::policy::Period::Second,
            ..spec(Unit::Rate, 20)
        },
    )];
    let mut world = World::new(2, &rate, QuotaOptions::default());
    world.quiet(1);
    let mut granted = 0;
    for _ in 0..1_000 {
        for at in 0..2 {
            world.ask(at, 0);
            granted += world.nodes[at].active.len();
            world.nodes[at].active.clear();
        }
        world.settle_down();
        granted += world.nodes.iter_mut().map(|n| n.active.drain(..).count()).sum::<usize>();
        world.pass(10);
    }
    assert!((170..=204).contains(&granted), "{granted} in ten seconds at 20 per second");
}

/// A budget of so many requests a minute.
fn a_minute(limit: u64) -> World {
    let minute = selvedge_proto::policy::Period::Minute;
    let rate = [("acme", BudgetSpec { period: minute, ..spec(Unit::Rate, limit) })];
    let mut world = World::new(1, &rate, QuotaOptions::default());
    world.settle_down();
    world
}

#[test]
fn a_limiter_is_full_at_first_and_not_once_more_by_starting_again() {
    let mut world = a_minute(10);
    let mut passed = 0;
    for _ in 0..10 {
        world.ask(0, 0);
        world.settle_down();
        passed += world.nodes[0].active.len();
        world.crash(0, true);
        world.pass(100);
    }
    assert_eq!(passed, 1, "in a second at ten a minute");
    // What may have passed is told by the disk, some seconds ahead.
    let mut waited = 0;
    while world.nodes[0].active.is_empty() {
        world.pass(500);
        world.ask(0, 0);
        world.settle_down();
        waited += 500;
    }
    assert!((5_000..=7_000).contains(&waited), "{waited} ms after it started");
    world.pass(60_000);
    world.crash(0, true);
    world.ask(0, 0);
    world.settle_down();
    assert_eq!(world.nodes[0].active.len(), 1, "it stood idle for a minute");
}

#[test]
fn nonsense_from_peers_changes_nothing() {
    let mut world = World::tokens(2, 1_000);
    world.settle_down();
    let key = selvedge_crdt::escrow::LedgerKey {
        budget: selvedge_crdt::escrow::BudgetId([9; 16]),
        window: u64::MAX,
    };
    let stranger = Holder { node: NodeId([77; 32]), incarnation: 3 };
    let ask = Ask { key, holder: stranger, amount: u64::MAX, least: 0, urgent: true };
    let mut row = selvedge_crdt::escrow::EscrowRow::new(key, stranger);
    row.hw = u64::MAX;
    row.out.insert(holder(0), u64::MAX);
    let signature = selvedge_crdt::Signature([0; 32], [0; 32]);
    let rows = vec![selvedge_crdt::escrow::SignedRow { row, signature }];
    let digest = QuotaDigest { holder: stranger, heads: vec![(key, vec![(stranger, u64::MAX)])] };
    for message in [
        QuotaMessage::Ask(ask),
        QuotaMessage::Rows(rows.clone()),
        QuotaMessage::Digest(digest),
        QuotaMessage::Declined { key },
        QuotaMessage::Recall { holder: stranger, heads: vec![(key, u64::MAX)] },
        QuotaMessage::Recalled { holder: holder(0), rows },
    ] {
        world.step(0, QuotaInput::Received { from: node_id(1), message });
    }
    for ticket in [0, 1, 7, u64::MAX] {
        world.step(0, QuotaInput::Persisted { ticket });
        world.step(0, QuotaInput::PersistFailed { ticket, why: String::new() });
    }
    world.network.clear();
    world.ask(0, 400);
    world.settle_down();
    assert_eq!(world.nodes[0].served, 400);
    world.check();
}

#[test]
fn a_permit_is_taken_anew_while_its_request_runs() {
    let mut world = World::new(1, &[("acme", spec(Unit::Concurrent, 1))], QuotaOptions::default());
    let asked = |id: u128| QuotaInput::Asked {
        id: RequestId(id),
        account: "acme".parse().expect("a path"),
        key: None,
        worst: Charge { requests: 1, ..Charge::default() },
        lease: Micros::secs(3_600),
    };
    world.nodes[0].asked.extend([(RequestId(900), 0), (RequestId(901), 0), (RequestId(902), 0)]);
    world.step(0, asked(900));
    world.settle_down();
    world.pass(20 * 60_000);
    assert_eq!(world.nodes[0].quota.audit()[0].spent, 1, "it still holds its permit");
    world.step(0, asked(901));
    assert_eq!(world.refusals.pop().map(|refusal| refusal.why), Some(Why::Exhausted));
    world.pass(41 * 60_000);
    assert_eq!(world.nodes[0].quota.audit()[0].spent, 0, "the lease is over");
    world.step(0, asked(902));
    world.settle_down();
    assert_eq!(world.nodes[0].quota.audit()[0].spent, 1);
}

#[test]
fn a_node_that_stays_after_all_serves_again() {
    // Before anything was given away: as if nothing had been.
    let mut world = World::tokens(2, 1_000);
    world.ask(0, 100);
    world.settle_down();
    world.step(0, QuotaInput::Drained);
    world.ask(0, 1);
    assert_eq!(world.refusals.pop().map(|refusal| refusal.why), Some(Why::Retiring));
    world.step(0, QuotaInput::Stayed);
    world.ask(0, 300);
    world.settle_down();
    assert_eq!((world.nodes[0].served, world.nodes[0].quota.holder()), (400, holder(0)));
    (0..2).for_each(|_| world.settle(0, 0, 1_000));
    // After everything was: by what its peer gives it.
    world.step(0, QuotaInput::Drained);
    world.quiet(3);
    assert!(world.nodes[0].quota.is_retired());
    world.step(0, QuotaInput::Stayed);
    assert!(!world.nodes[0].quota.is_retired());
    world.quiet(3);
    let before = world.nodes[0].served;
    world.ask(0, 200);
    world.settle_down();
    assert_eq!(world.nodes[0].served, before + 200, "{:?}", world.refusals);
    world.check_ledgers();
    // And it can leave once more.
    world.settle(0, 0, 1_000);
    world.step(0, QuotaInput::Drained);
    world.quiet(3);
    assert!(world.nodes[0].quota.is_retired());
}
