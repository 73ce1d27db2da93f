//! Permits: how many run at once when a limit shrinks under them, and who goes on.

use selvedge_proto::policy::{BudgetSpec, PERMIT_LEASE, Period, Unit};

use super::super::*;
use super::world::{Paper, World, holder, node_id, spec};

fn world(nodes: usize, limit: u64) -> World {
    let mut world =
        World::new(nodes, &[("acme", spec(Unit::Concurrent, limit))], QuotaOptions::default());
    world.settle_down();
    world
}

/// A request that may run for an hour.
fn start(world: &mut World, at: usize, id: u128) {
    let (account, lease) = ("acme".parse().expect("a path"), MAX_LEASE);
    let worst = Charge { requests: 1, ..Charge::default() };
    let id = RequestId(id);
    world.nodes[at].asked.insert(id, 0);
    world.step(at, QuotaInput::Asked { id, account, key: None, worst, lease });
    world.settle_down();
}

fn running(world: &World) -> Vec<usize> {
    world.nodes.iter().map(|node| node.active.len()).collect()
}

/// A little more than permits last, with everything arriving.
fn a_lease(world: &mut World) {
    for _ in 0..=PERMIT_LEASE.0 / 10_000_000 {
        world.pass(10_000);
        world.settle_down();
    }
}

#[test]
fn a_lowered_limit_ends_one_of_two_that_run() {
    let mut world = world(1, 2);
    start(&mut world, 0, 1);
    world.pass(10);
    start(&mut world, 0, 2);
    assert_eq!(running(&world), [2]);
    world.lower(1);
    world.quiet(2);
    assert_eq!(running(&world), [2], "what was given out is not taken back within its lease");
    a_lease(&mut world);
    assert_eq!(running(&world), [1]);
    assert_eq!(world.nodes[0].active[0].0, RequestId(2), "the other one goes on");
    let refusal = world.refusals.pop().expect("it was told");
    assert_eq!(refusal.why, Why::Exhausted, "{refusal:?}");
    assert!(refusal.to_refusal().message.contains("1 concurrent"), "{refusal:?}");
    a_lease(&mut world);
    assert_eq!(running(&world), [1], "and for as long as it likes");
    start(&mut world, 0, 3);
    assert_eq!(running(&world), [1]);
}

#[test]
fn a_lowered_limit_ends_one_of_two_on_two_nodes() {
    let mut world = world(2, 2);
    start(&mut world, 0, 1);
    start(&mut world, 1, 2);
    assert_eq!(running(&world), [1, 1]);
    world.lower(1);
    a_lease(&mut world);
    assert_eq!(running(&world).iter().sum::<usize>(), 1, "{:?}", running(&world));
    assert_eq!(world.refusals.len(), 1);
}

#[test]
fn permits_that_were_passed_on_do_not_outlive_the_limit() {
    let mut world = world(3, 6);
    // All of them go to one node, by way of another.
    for (at, ids) in [(1, 1..=6u128), (2, 7..=12)] {
        for id in ids {
            start(&mut world, at, id);
            world.pass(300);
            world.settle_down();
        }
        assert_eq!(running(&world)[at], 6, "{:?}", running(&world));
        if at == 1 {
            (0..6).for_each(|_| world.settle(1, 0, 0));
            world.pass(20_000);
            world.settle_down();
        }
    }
    world.lower(3);
    a_lease(&mut world);
    world.quiet(20);
    assert_eq!(running(&world), [0, 0, 3]);
    a_lease(&mut world);
    assert_eq!(running(&world), [0, 0, 3]);
    let free: u64 = world
        .nodes
        .iter()
        .flat_map(|node| node.quota.status(world.now))
        .map(|status| status.available)
        .sum();
    assert_eq!(free, 0);
    for at in 0..2 {
        start(&mut world, at, 20 + at as u128);
    }
    assert_eq!(running(&world), [0, 0, 3]);
}

#[test]
fn who_is_refused_at_once_finds_the_permit_when_it_comes_back() {
    let options = QuotaOptions { hold: Micros::ZERO, ..QuotaOptions::default() };
    let mut world = World::new(2, &[("acme", spec(Unit::Concurrent, 1))], options);
    world.settle_down();
    // Whoever holds the one permit used it a moment ago, and may want it again.
    let has = |world: &World, at: usize| world.nodes[at].quota.status(world.now)[0].rights > 0;
    world.quiet(1);
    let at = usize::from(!has(&world, 0));
    start(&mut world, at, 1);
    world.settle(at, 0, 0);
    start(&mut world, 1 - at, 2);
    assert_eq!(running(&world), [0, 0], "refused, since nobody waits for peers");
    world.pass(1_000);
    world.settle_down();
    start(&mut world, 1 - at, 3);
    assert_eq!(running(&world)[1 - at], 1, "{:?}", world.refusals);
}

/// Two holders and a node that came later.
fn with_a_newcomer(spec: BudgetSpec) -> World {
    let mut world = World::new(3, &[("acme", spec)], QuotaOptions::default());
    for at in 0..3 {
        let mut paper = Paper::clone(&world.paper);
        paper.members.truncate(2);
        paper.guest = at == 2;
        world.step(at, QuotaInput::PolicyChanged { book: Arc::new(paper) });
    }
    world.quiet(3);
    world
}

#[test]
fn a_newcomer_gets_permits_at_once_and_uses_them_while_holders_vouch() {
    let mut world = with_a_newcomer(spec(Unit::Concurrent, 4));
    for id in 1..=3 {
        start(&mut world, 2, id);
        world.quiet(1);
    }
    assert_eq!(running(&world), [0, 0, 3], "{:?}", world.refusals);
    for (at, id) in [(0, 10), (1, 11), (0, 12), (1, 13)] {
        start(&mut world, at, id);
        world.quiet(1);
    }
    assert_eq!(running(&world).iter().sum::<usize>(), 4, "{:?}", running(&world));
    // It is cut off, with what it has: for a few seconds it goes on, then only what runs does.
    world.settle(2, 0, 0);
    let alone = |world: &mut World, ms| {
        for _ in 0..ms / 100 {
            world.network.clear();
            world.pass(100);
            while world.persist(2) {}
        }
        world.network.clear();
    };
    start(&mut world, 2, 20);
    assert_eq!(running(&world)[2], 3);
    world.settle(2, 0, 0);
    alone(&mut world, 6_000);
    start(&mut world, 2, 21);
    assert_eq!(running(&world)[2], 2, "nobody vouched for longer than five seconds");
    let refusal = world.refusals.pop().expect("it was told");
    assert_eq!(refusal.why, Why::Unvouched, "{refusal:?}");
    alone(&mut world, PERMIT_LEASE.as_millis() + 1_000);
    assert_eq!(running(&world)[2], 0, "and no permit is taken anew");
}

#[test]
fn who_vouched_gives_its_word_for_later() {
    let mut world = with_a_newcomer(spec(Unit::Concurrent, 4));
    let vouched = |world: &World| {
        world.network.iter().find_map(|(from, _, message)| {
            let QuotaMessage::Vouched { lasts, .. } = message else { return None };
            Some((*from, world.now.wall.plus(*lasts)))
        })
    };
    world.pass(1_000);
    while vouched(&world).is_none() {
        assert!(!world.network.is_empty(), "nobody vouches");
        world.deliver(0, false);
    }
    let (by, until) = vouched(&world).expect("as seen");
    assert!(until > world.now.wall && world.nodes[by].quota.latest() >= until);
    world.crash(by, false);
    assert!(world.nodes[by].quota.latest() >= until, "nor does a crash make it forget");
}

#[test]
fn a_gift_of_rate_brings_no_burst_along() {
    let rate = BudgetSpec { period: Period::Second, ..spec(Unit::Rate, 100) };
    let mut world = World::new(2, &[("acme", rate)], QuotaOptions::default());
    world.quiet(1);
    let key = world.nodes[1].quota.audit()[0].key;
    let ask = Ask { key, holder: holder(1), amount: 45, least: 0, urgent: true };
    world.step(0, QuotaInput::Received { from: node_id(1), message: QuotaMessage::Ask(ask) });
    world.settle_down();
    assert_eq!(world.nodes[1].quota.status(world.now)[0].rights, 95, "it was given");
    for at in [0, 1] {
        for _ in 0..40 {
            world.ask(at, 0);
        }
    }
    world.settle_down();
    let admitted: usize = running(&world).iter().sum();
    // A tenth of a second of 50 at one node, and of what is left at the other.
    assert!((5..=6).contains(&admitted), "{admitted} at once");
}
