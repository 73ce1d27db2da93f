//! Whatever an adversary does to messages, disks and processes, nothing is overspent.

use proptest::prelude::*;

use super::world::World;

/// One move of the adversary. Numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Move {
    Ask { at: usize, cost: u64 },
    Extend { at: usize, which: usize, more: u64 },
    Settle { at: usize, which: usize, permille: u64 },
    Persist { at: usize },
    FailWrite { at: usize, happened: bool },
    Deliver { which: usize },
    Repeat { which: usize },
    Lose { which: usize },
    Crash { at: usize, wrote: bool },
    Pass { ms: u64 },
}

fn any_move() -> impl Strategy<Value = Move> {
    let at = 0usize..6;
    let which = 0usize..1_000;
    prop_oneof![
        6 => (at.clone(), 1u64..400).prop_map(|(at, cost)| Move::Ask { at, cost }),
        1 => (at.clone(), 0usize..3, 1u64..200)
            .prop_map(|(at, which, more)| Move::Extend { at, which, more }),
        4 => (at.clone(), which.clone(), 0u64..1_000)
            .prop_map(|(at, which, permille)| Move::Settle { at, which, permille }),
        8 => at.clone().prop_map(|at| Move::Persist { at }),
        1 => (at.clone(), any::<bool>())
            .prop_map(|(at, happened)| Move::FailWrite { at, happened }),
        8 => which.clone().prop_map(|which| Move::Deliver { which }),
        1 => which.clone().prop_map(|which| Move::Repeat { which }),
        2 => which.prop_map(|which| Move::Lose { which }),
        1 => (at, any::<bool>()).prop_map(|(at, wrote)| Move::Crash { at, wrote }),
        3 => (1u64..1_500).prop_map(|ms| Move::Pass { ms }),
    ]
}

fn play(world: &mut World, action: Move) {
    let count = world.nodes.len();
    match action {
        Move::Ask { at, cost } => drop(world.ask(at % count, cost)),
        Move::Extend { at, which, more } => world.extend(at % count, which, more),
        Move::Settle { at, which, permille } => world.settle(at % count, which, permille),
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
        Move::Pass { ms } => world.pass(ms),
    }
}

/// Everything ends: requests settle, messages arrive, disks write.
fn end(world: &mut World) {
    world.quiet(2);
    for at in 0..world.nodes.len() {
        while !world.nodes[at].active.is_empty() {
            world.settle(at, 0, 500);
        }
    }
    world.quiet(25);
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_overspends_or_loses_rights(
        count in 2usize..=6,
        limit in prop_oneof![Just(7u64), Just(1_000), Just(5_000)],
        moves in proptest::collection::vec(any_move(), 1..160),
    ) {
        let mut world = World::tokens(count, limit);
        for action in moves {
            play(&mut world, action);
            world.check();
        }
        end(&mut world);
        world.check_quiet(limit);
    }

    #[test]
    fn a_crash_around_every_write_costs_at_most_a_block(
        costs in proptest::collection::vec((0usize..3, 1u64..120), 1..40),
        crash_at in 0usize..40,
        wrote in any::<bool>(),
    ) {
        let limit = 6_400;
        let mut world = World::tokens(3, limit);
        let mut writes = 0;
        for (at, cost) in costs {
            world.ask(at, cost);
            while world.nodes[at].writing.is_some() {
                writes += 1;
                if writes != crash_at {
                    world.persist(at);
                } else {
                    let asked: u64 = world.nodes[at].asked.values().sum();
                    world.crash(at, wrote);
                    world.check();
                    let lost = world.nodes[at].expected_spent - world.nodes[at].used;
                    prop_assert!(lost <= limit / 64 + asked, "a crash lost {}", lost);
                    world.persist(at);
                }
            }
            world.settle(at, 0, 1_000);
            world.check();
        }
        end(&mut world);
        world.check_quiet(limit);
    }
}
