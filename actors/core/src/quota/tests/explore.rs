//! Every schedule of two nodes up to a depth: six actions each, no chance involved.

use std::collections::BTreeSet;

use super::world::World;

/// Six actions at each of two nodes.
const ACTIONS: usize = 12;
/// Moves from the start. Deeper costs minutes and found nothing more while this was written.
const DEPTH: usize = 6;

/// One action; false when it changes nothing.
fn act(world: &mut World, action: usize) -> bool {
    let at = action / 6;
    match action % 6 {
        // More than a half, so that the second one needs rights of the other node.
        0 => {
            if world.nodes[at].asked.len() + world.nodes[at].active.len() >= 2 {
                return false;
            }
            let _id = world.ask(at, 3);
        }
        1 if world.nodes[at].active.is_empty() => return false,
        1 => world.settle(at, 0, 400),
        2 => return world.persist(at),
        3 => {
            let Some(which) = world.network.iter().position(|(_, to, _)| *to == at) else {
                return false;
            };
            world.deliver(which, false);
        }
        4 => world.crash(at, false),
        _ => world.crash(at, true),
    }
    true
}

/// What tells two worlds apart.
fn fingerprint(world: &World) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for node in &world.nodes {
        let seen = (node.quota.audit(), &node.writing, &node.disk, &node.active, &node.asked);
        hasher.update(format!("{seen:?}").as_bytes());
        hasher.update(format!("{:?}", node.quota).as_bytes());
    }
    hasher.update(format!("{:?}", world.network).as_bytes());
    *hasher.finalize().as_bytes()
}

#[test]
fn no_schedule_of_two_nodes_breaks_anything() {
    let mut start = World::tokens(2, 8);
    // The nodes have met before the exploration begins.
    start.settle_down();
    let mut seen = BTreeSet::from([fingerprint(&start)]);
    let mut frontier = vec![start];
    let mut visited = 0usize;
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for world in frontier {
            for action in 0..ACTIONS {
                let mut world = world.clone();
                if act(&mut world, action) {
                    world.check();
                    visited += 1;
                    if seen.insert(fingerprint(&world)) {
                        next.push(world);
                    }
                }
            }
        }
        frontier = next;
    }
    // A change that makes the exploration trivial must not pass unnoticed.
    assert!(visited > 1_000, "{visited} states");
}
