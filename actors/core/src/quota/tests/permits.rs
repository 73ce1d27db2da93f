//! Permits: how many run at once when a limit shrinks under them, and who goes on.

use selvedge_proto::policy::{PERMIT_LEASE, Unit};

use super::super::*;
use super::world::{World, spec};

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
