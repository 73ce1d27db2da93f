#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use selvedge_base::{Dice, Machine, Mono, Now, Wall};

use super::*;

/// Time of one step of the little world below.
const STEP: Micros = Micros::millis(5);

/// A few detectors, a perfect clock, and a network whose every direction can be cut.
struct World {
    now: Mono,
    nodes: Vec<Node>,
    /// Directions in which datagrams are lost.
    cut: BTreeSet<(usize, usize)>,
    in_flight: Vec<(usize, usize, SwimMessage)>,
}

struct Node {
    swim: Swim,
    /// Takes no step: stopped, crashed or not scheduled.
    still: bool,
    /// What its engine does; told to its detector with every tick, as in production.
    engine: Pulse,
    declared: Vec<(Mono, NodeId, PeerState, Why)>,
    redials: Vec<(Mono, NodeId)>,
}

fn id(index: usize) -> NodeId {
    NodeId([index as u8 + 1; 32])
}

impl World {
    /// A mesh in which everybody is linked with everybody.
    fn new(count: usize) -> Self {
        let node = |index| Node {
            swim: Swim::new(id(index), 1, Dice::keyed(index as u64, "swim tests")),
            still: false,
            engine: Pulse::default(),
            declared: Vec::new(),
            redials: Vec::new(),
        };
        let nodes = (0..count).map(node).collect();
        let start = Mono(1_000_000);
        let mut world = Self { now: start, nodes, cut: BTreeSet::new(), in_flight: Vec::new() };
        for a in 0..count {
            for b in 0..count {
                if a != b {
                    world.give(a, SwimInput::LinkUp { node: id(b), incarnation: 1 });
                }
            }
        }
        world.run(Micros::secs(2));
        world
    }

    fn give(&mut self, to: usize, input: SwimInput) {
        let mut effects = Vec::new();
        let now = Now { mono: self.now, wall: Wall(0) };
        let node = &mut self.nodes[to];
        node.swim.step(now, input, &mut effects);
        for effect in effects {
            match effect {
                SwimEffect::Send { to: peer, message } => {
                    let peer = usize::from(peer.0[0]) - 1;
                    if !self.cut.contains(&(to, peer)) {
                        self.in_flight.push((to, peer, message));
                    }
                }
                SwimEffect::Declare { node: peer, state, why } => {
                    node.declared.push((self.now, peer, state, why));
                }
                SwimEffect::Redial { node: peer } => node.redials.push((self.now, peer)),
                SwimEffect::StoreIncarnation { .. } => {}
            }
        }
    }

    fn run(&mut self, span: Micros) {
        let end = self.now.plus(span);
        while self.now < end {
            self.now = self.now.plus(STEP);
            for (from, to, message) in std::mem::take(&mut self.in_flight) {
                if !self.nodes[to].still && to < self.nodes.len() {
                    self.give(to, SwimInput::Received { from: id(from), message });
                }
            }
            for index in 0..self.nodes.len() {
                let due = self.nodes[index].swim.wake_at().is_some_and(|at| at <= self.now);
                if due && !self.nodes[index].still {
                    self.give(index, SwimInput::Ticked);
                    let load = self.nodes[index].engine;
                    self.give(index, SwimInput::SelfReported { load });
                    assert!(self.nodes[index].swim.looks_at_all_it_must(self.now));
                }
            }
        }
    }

    fn report(&mut self, index: usize, pulse: Pulse) {
        self.nodes[index].engine = pulse;
        self.give(index, SwimInput::SelfReported { load: pulse });
    }

    fn state(&self, of: usize, as_seen_by: usize) -> PeerState {
        self.nodes[as_seen_by].swim.peer(&id(of)).unwrap().state
    }

    /// How long after `since` node `by` declared `of` to be in `state`.
    fn declared_after(
        &self,
        by: usize,
        of: usize,
        state: PeerState,
        since: Mono,
    ) -> Option<Micros> {
        let declared = self.nodes[by].declared.iter();
        let mut found = declared
            .filter(|(at, node, what, _)| *at >= since && *node == id(of) && *what == state);
        found.next().map(|(at, ..)| at.since(since))
    }

    fn lose_link(&mut self, a: usize, b: usize) {
        self.give(a, SwimInput::LinkLost { node: id(b) });
        self.give(b, SwimInput::LinkLost { node: id(a) });
        self.cut.extend([(a, b), (b, a)]);
    }

    /// Cuts everything to and from a node.
    fn isolate(&mut self, index: usize) {
        for other in 0..self.nodes.len() {
            self.cut.extend([(index, other), (other, index)]);
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
    }

    fn anything_declared_since(&self, since: Mono) -> Vec<(Mono, NodeId, PeerState, Why)> {
        let all = self.nodes.iter().flat_map(|node| &node.declared);
        all.filter(|(at, ..)| *at >= since).copied().collect()
    }
}

const WORKING: Pulse =
    Pulse { progress: 5, computing: true, loading: false, running: 1, queued: 0 };

#[test]
fn a_calm_mesh_is_alive_and_measured() {
    let mut world = World::new(4);
    let since = world.now;
    world.run(Micros::secs(30));
    assert_eq!(world.anything_declared_since(since), []);
    for peer in world.nodes[0].swim.states() {
        assert_eq!(peer.state, PeerState::Alive);
        assert!((STEP.0..4 * STEP.0).contains(&peer.rtt.unwrap().0), "{peer:?}");
    }
}

#[test]
fn a_silent_peer_is_dead_within_three_seconds() {
    for count in [2, 3, 8] {
        let mut world = World::new(count);
        let since = world.now;
        world.nodes[1].still = true;
        world.run(Micros::secs(3));
        for by in (0..count).filter(|by| *by != 1) {
            let after = world.declared_after(by, 1, PeerState::Dead, since).unwrap();
            assert!(after <= Micros::secs(3), "{count} nodes: {after:?}");
            assert!(world.declared_after(by, 1, PeerState::Suspect, since).unwrap() < after);
        }
    }
}

#[test]
fn a_peer_whose_connection_was_reset_is_dead_within_a_second() {
    for count in [2, 3, 8] {
        let mut world = World::new(count);
        let since = world.now;
        world.nodes[1].still = true;
        for by in (0..count).filter(|by| *by != 1) {
            world.give(by, SwimInput::LinkLost { node: id(1) });
            assert_eq!(world.state(1, by), PeerState::Suspect, "no new work from now on");
        }
        world.run(Micros::secs(1));
        for by in (0..count).filter(|by| *by != 1) {
            let after = world.declared_after(by, 1, PeerState::Dead, since).unwrap();
            assert!(after <= Micros::secs(1), "{after:?}");
            assert!(world.nodes[by].redials.iter().any(|(_, node)| *node == id(1)));
        }
    }
}

#[test]
fn a_peer_whose_process_ended_is_dead_at_once_and_its_next_start_is_alive() {
    let mut world = World::new(3);
    world.nodes[1].still = true;
    world.give(0, SwimInput::PeerEnded { node: id(1) });
    assert_eq!(world.state(1, 0), PeerState::Dead);
    let seen = world.nodes[0].swim.peer(&id(1)).unwrap();
    assert_eq!((seen.why, seen.linked), (Why::Ended, false));
    world.run(Micros::secs(1));
    assert_eq!(world.state(1, 0), PeerState::Dead, "old words do not wake it");
    world.give(0, SwimInput::LinkUp { node: id(1), incarnation: 2 });
    assert_eq!(world.state(1, 0), PeerState::Alive);
}

#[test]
fn a_connection_that_comes_back_in_time_saves_the_peer() {
    let mut world = World::new(3);
    let since = world.now;
    world.lose_link(0, 1);
    world.run(Micros::millis(500));
    world.heal();
    world.give(0, SwimInput::LinkUp { node: id(1), incarnation: 1 });
    world.give(1, SwimInput::LinkUp { node: id(0), incarnation: 1 });
    world.run(Micros::secs(5));
    assert_eq!(world.state(1, 0), PeerState::Alive);
    assert_eq!(world.declared_after(0, 1, PeerState::Dead, since), None);
}

#[test]
fn a_peer_that_others_reach_is_suspect_but_not_dead() {
    let mut world = World::new(3);
    let since = world.now;
    world.lose_link(0, 1);
    world.run(Micros::secs(20));
    let view = world.nodes[0].swim.peer(&id(1)).unwrap();
    assert_eq!((view.state, view.why), (PeerState::Suspect, Why::OnlyThroughOthers));
    for by in 0..3 {
        for of in (0..3).filter(|of| *of != by) {
            assert_eq!(world.declared_after(by, of, PeerState::Dead, since), None);
        }
    }
}

#[test]
fn a_one_way_cut_kills_nobody_that_others_reach() {
    let mut world = World::new(4);
    let since = world.now;
    world.cut.insert((1, 0));
    world.run(Micros::secs(20));
    let dead: Vec<_> = world
        .anything_declared_since(since)
        .into_iter()
        .filter(|(_, _, state, _)| *state == PeerState::Dead)
        .collect();
    assert_eq!(dead, []);
    assert_eq!(world.state(1, 0), PeerState::Suspect);
    assert_eq!(world.state(1, 2), PeerState::Alive);
}

#[test]
fn a_frozen_peer_is_noticed_within_two_seconds_and_returns_with_progress() {
    let mut world = World::new(3);
    let mut pulse = WORKING;
    for _ in 0..40 {
        pulse.progress += 1;
        world.report(1, pulse);
        world.run(Micros::millis(100));
    }
    assert_eq!(world.state(1, 0), PeerState::Alive);
    let since = world.now;
    world.run(Micros::secs(2));
    for by in [0, 2] {
        let after = world.declared_after(by, 1, PeerState::Frozen, since).unwrap();
        assert!(after <= Micros::secs(2), "{after:?}");
    }
    pulse.progress += 1;
    world.report(1, pulse);
    world.run(Micros::millis(500));
    assert_eq!(world.state(1, 0), PeerState::Alive);
}

#[test]
fn all_of_a_large_mesh_know_of_a_freeze_within_two_seconds_and_of_its_end_at_once() {
    for count in [24, 60, 200] {
        let mut world = World::new(count);
        // Not everybody has seen a pulse of its work when it freezes.
        world.report(1, WORKING);
        let froze = world.now;
        world.run(Micros::secs(2));
        for by in (0..count).filter(|by| *by != 1) {
            let after = world.declared_after(by, 1, PeerState::Frozen, froze);
            assert!(after.is_some_and(|after| after <= Micros::secs(2)), "{count}: {after:?}");
        }
        world.run(Micros::secs(3));
        let thawed = world.now;
        world.report(1, Pulse { progress: 6, ..WORKING });
        world.run(Micros::millis(500));
        for by in (0..count).filter(|by| *by != 1) {
            let seen = world.nodes[by].swim.peer(&id(1));
            assert_eq!(world.state(1, by), PeerState::Alive, "{by} of {count}: {seen:?}");
        }
        // From here on it works, and old words about it change nothing.
        for progress in 7..30 {
            world.report(1, Pulse { progress, ..WORKING });
            world.run(Micros::millis(200));
        }
        let again = (0..count).filter_map(|by| {
            world.declared_after(by, 1, PeerState::Frozen, thawed.plus(Micros::millis(500)))
        });
        assert_eq!(again.count(), 0, "{count}");
    }
}

#[test]
fn a_freeze_is_told_without_the_probes() {
    let mut world = World::new(60);
    world.report(1, WORKING);
    let froze = world.now;
    world.run(Micros::secs(2));
    let first = world.declared_after(0, 1, PeerState::Frozen, froze);
    let all: Vec<Micros> =
        (0..60).filter_map(|by| world.declared_after(by, 1, PeerState::Frozen, froze)).collect();
    let early = all.iter().filter(|after| **after <= FROZEN_AFTER.plus(PROBE_PERIOD)).count();
    assert!(early >= 50, "{early} of 59; the first node's own: {first:?}");
}

#[test]
fn a_false_word_of_a_freeze_is_refuted() {
    let mut world = World::new(40);
    let gossip = vec![Rumour { node: id(1), incarnation: 1, state: PeerState::Frozen }];
    let beat = Beat { seq: 9, incarnation: 1, gossip, ..Beat::default() };
    world.give(0, SwimInput::Received { from: id(3), message: SwimMessage::Ping(beat) });
    assert_eq!(world.state(1, 0), PeerState::Frozen, "news are believed until they are refuted");
    world.run(Micros::secs(2));
    assert!(world.nodes[1].swim.incarnation() > 1, "it was told and refuted");
    for by in (0..40).filter(|by| *by != 1) {
        assert_eq!(world.state(1, by), PeerState::Alive);
    }
}

#[test]
fn a_frozen_node_that_is_suspected_stays_frozen_for_all() {
    let mut world = World::new(30);
    world.report(1, WORKING);
    world.run(Micros::secs(3));
    let gossip = vec![Rumour { node: id(1), incarnation: 1, state: PeerState::Suspect }];
    let beat = Beat { seq: 9, incarnation: 1, gossip, ..Beat::default() };
    world.give(1, SwimInput::Received { from: id(2), message: SwimMessage::Ping(beat) });
    assert!(world.nodes[1].swim.incarnation() > 1);
    let since = world.now;
    world.run(Micros::secs(5));
    for by in (0..30).filter(|by| *by != 1) {
        assert_eq!(world.state(1, by), PeerState::Frozen);
        assert_eq!(world.declared_after(by, 1, PeerState::Alive, since), None);
    }
}

#[test]
fn a_frozen_node_that_starts_again_is_alive() {
    let mut world = World::new(30);
    world.report(1, WORKING);
    world.run(Micros::secs(3));
    let incarnation = world.nodes[1].swim.incarnation() + 1;
    world.nodes[1].swim = Swim::new(id(1), incarnation, Dice::keyed(77, "swim tests"));
    world.nodes[1].engine = Pulse::default();
    for other in (0..30).filter(|other| *other != 1) {
        let known = world.nodes[other].swim.incarnation();
        world.give(other, SwimInput::LinkUp { node: id(1), incarnation });
        world.give(1, SwimInput::LinkUp { node: id(other), incarnation: known });
        assert_eq!(world.state(1, other), PeerState::Alive);
    }
    world.run(STEP);
    let since = world.now.plus(STEP);
    world.run(Micros::secs(10));
    assert_eq!(world.anything_declared_since(since), [], "old words do not freeze it");
}

#[test]
fn a_node_that_stood_still_itself_does_not_take_its_engine_for_frozen() {
    let mut world = World::new(3);
    world.report(1, WORKING);
    world.run(Micros::millis(500));
    world.nodes[1].still = true;
    world.run(Micros::secs(4));
    let since = world.now;
    world.nodes[1].still = false;
    for progress in 6..36 {
        world.nodes[1].engine = Pulse { progress, ..WORKING };
        world.run(Micros::millis(100));
    }
    let frozen = world.anything_declared_since(since).into_iter();
    assert_eq!(frozen.filter(|(.., state, _)| *state == PeerState::Frozen).count(), 0);
}

#[test]
fn a_refutation_does_not_thaw_a_frozen_peer() {
    let mut world = World::new(3);
    world.report(1, WORKING);
    world.run(Micros::secs(3));
    assert_eq!(world.state(1, 0), PeerState::Frozen);
    let since = world.now;
    let gossip = vec![Rumour { node: id(1), incarnation: 1, state: PeerState::Suspect }];
    let beat = Beat { seq: 9, incarnation: 1, gossip, ..Beat::default() };
    world.give(1, SwimInput::Received { from: id(2), message: SwimMessage::Ping(beat) });
    world.run(Micros::secs(2));
    assert!(world.nodes[1].swim.incarnation() > 1);
    assert_eq!(world.declared_after(0, 1, PeerState::Alive, since), None);
}

#[test]
fn slow_loading_and_queued_peers_are_not_frozen() {
    let mut world = World::new(4);
    let since = world.now;
    let mut slow = WORKING;
    let loading = Pulse { loading: true, ..WORKING };
    let queued = Pulse { computing: false, queued: 9, ..WORKING };
    for _ in 0..20 {
        slow.progress += 1;
        world.report(1, slow);
        world.report(2, loading);
        world.report(3, queued);
        // A layer a second: a huge model on a small machine.
        world.run(Micros::secs(1));
    }
    assert_eq!(world.anything_declared_since(since), []);
}

#[test]
fn pulses_on_a_requests_stream_count_too() {
    let mut world = World::new(2);
    let since = world.now;
    // Datagrams are lost both ways, the stream still carries signs of life.
    world.cut.extend([(0, 1), (1, 0)]);
    for _ in 0..30 {
        world.give(0, SwimInput::PulseSeen { node: id(1), pulse: WORKING });
        world.run(Micros::millis(150));
    }
    assert_eq!(world.state(1, 0), PeerState::Frozen);
    assert_eq!(world.declared_after(0, 1, PeerState::Dead, since), None);
}

#[test]
fn a_restarted_peer_is_alive_under_its_higher_incarnation() {
    let mut world = World::new(3);
    world.nodes[1].still = true;
    world.run(Micros::secs(4));
    assert_eq!(world.state(1, 0), PeerState::Dead);
    world.nodes[1].swim = Swim::new(id(1), 2, Dice::keyed(77, "swim tests"));
    world.nodes[1].still = false;
    for other in [0, 2] {
        world.give(other, SwimInput::LinkUp { node: id(1), incarnation: 2 });
        world.give(1, SwimInput::LinkUp { node: id(other), incarnation: 1 });
    }
    assert_eq!(world.state(1, 0), PeerState::Alive);
    let (.., why) = *world.nodes[0].declared.last().unwrap();
    assert_eq!(why, Why::Returned);
    world.run(STEP);
    let since = world.now.plus(STEP);
    world.run(Micros::secs(10));
    assert_eq!(world.anything_declared_since(since), [], "old rumours do not bring it down");
}

#[test]
fn a_cut_off_node_refutes_its_death_when_it_is_back() {
    let mut world = World::new(4);
    world.isolate(1);
    world.run(Micros::secs(5));
    assert_eq!(world.state(1, 0), PeerState::Dead);
    assert_eq!(world.state(0, 1), PeerState::Dead);
    world.heal();
    world.run(Micros::secs(2));
    for by in [0, 2, 3] {
        assert_eq!(world.state(1, by), PeerState::Alive);
        assert_eq!(world.state(by, 1), PeerState::Alive);
    }
    assert!(world.nodes[1].swim.incarnation() > 1);
}

#[test]
fn a_false_rumour_does_not_move_those_who_hear_the_peer() {
    let mut world = World::new(4);
    let since = world.now;
    let gossip = vec![Rumour { node: id(1), incarnation: 1, state: PeerState::Dead }];
    let beat = Beat { seq: 9, incarnation: 1, gossip, ..Beat::default() };
    let message = SwimMessage::Ping(beat);
    world.give(0, SwimInput::Received { from: id(3), message });
    world.run(Micros::secs(2));
    assert_eq!(world.declared_after(0, 1, PeerState::Dead, since), None);
    assert!(world.nodes[1].swim.incarnation() > 1, "it was told and refuted");
}

#[test]
fn an_absurd_incarnation_locks_nobody_out() {
    let mut world = World::new(3);
    let lie = |node, incarnation, state| {
        let gossip = vec![Rumour { node, incarnation, state }];
        SwimMessage::Ping(Beat { seq: 9, incarnation: 1, gossip, ..Beat::default() })
    };
    for state in [PeerState::Alive, PeerState::Suspect, PeerState::Dead] {
        for incarnation in [2, 60, u64::MAX] {
            let message = lie(id(1), incarnation, state);
            world.give(0, SwimInput::Received { from: id(2), message });
            let message = lie(id(0), incarnation, state);
            world.give(0, SwimInput::Received { from: id(2), message });
        }
    }
    world.run(Micros::secs(5));
    assert_eq!(world.state(1, 0), PeerState::Alive);
    assert_eq!(world.state(0, 1), PeerState::Alive);
}

#[test]
fn a_node_that_stood_still_blames_nobody() {
    let mut world = World::new(4);
    world.nodes[0].still = true;
    world.run(Micros::secs(20));
    assert_eq!(world.state(0, 1), PeerState::Dead);
    let since = world.now;
    world.nodes[0].still = false;
    world.run(Micros::secs(5));
    let declared = &world.nodes[0].declared;
    assert!(declared.iter().all(|(at, ..)| *at < since), "{declared:?}");
    assert_eq!(world.state(0, 1), PeerState::Alive, "and the others take it back");
}

#[test]
fn the_peer_table_is_bounded_and_strangers_are_ignored() {
    let mut world = World::new(2);
    let message = SwimMessage::Ping(Beat::default());
    world.give(0, SwimInput::Received { from: NodeId([200; 32]), message });
    assert!(world.nodes[0].swim.peer(&NodeId([200; 32])).is_none());
    for index in 0..2 * MAX_PEERS as u64 {
        let mut name = [250; 32];
        name[..8].copy_from_slice(&index.to_be_bytes());
        world.give(0, SwimInput::PeerIntroduced { node: NodeId(name) });
    }
    assert_eq!(world.nodes[0].swim.states().count(), MAX_PEERS);
    assert_eq!(world.state(1, 0), PeerState::Alive);
    world.give(0, SwimInput::PeerForgotten { node: id(1) });
    assert!(world.nodes[0].swim.peer(&id(1)).is_none());
}

#[test]
fn a_large_mesh_probes_a_few_peers_at_a_time_and_still_finds_the_dead() {
    let mut world = World::new(40);
    let since = world.now;
    world.nodes[1].still = true;
    let mut effects = Vec::new();
    let now = Now { mono: world.now.plus(PROBE_PERIOD), wall: Wall(0) };
    let mut probe = world.nodes[0].swim.clone();
    probe.step(now, SwimInput::Ticked, &mut effects);
    probe.step(Now { mono: now.mono.plus(PROBE_PERIOD), ..now }, SwimInput::Ticked, &mut effects);
    let pings = effects.iter().filter(|effect| matches!(effect, SwimEffect::Send { .. })).count();
    assert!((8..=16).contains(&pings), "{pings}");
    world.run(Micros::secs(4));
    for by in (0..40).filter(|by| *by != 1) {
        let after = world.declared_after(by, 1, PeerState::Dead, since).unwrap();
        assert!(after <= Micros::secs(4), "{after:?}");
    }
    let wrong = world.anything_declared_since(since).into_iter();
    assert_eq!(wrong.filter(|(_, node, ..)| *node != id(1)).count(), 0);
}

#[test]
fn lost_peers_are_dialled_ever_more_rarely_but_for_ever() {
    let mut world = World::new(2);
    world.nodes[1].still = true;
    world.give(0, SwimInput::LinkLost { node: id(1) });
    world.run(Micros::secs(120));
    let redials = &world.nodes[0].redials;
    let gaps: Vec<Micros> = redials.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    assert!(gaps[0] < Micros::secs(2), "{gaps:?}");
    let longest = REDIAL_AT_MOST.plus(PROBE_PERIOD.times(2));
    assert!(gaps.iter().all(|gap| *gap <= longest), "{gaps:?}");
    assert!((14..25).contains(&redials.len()), "{}", redials.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_said_in_any_order_is_answered_within_bounds(
        script in proptest::collection::vec((0u8..7, 1u8..6, any::<u64>(), 0u8..4), 1..60),
    ) {
        let mut swim = Swim::new(id(0), 1, Dice::keyed(0, "swim tests"));
        let mut now = Mono(0);
        for (what, about, number, state) in script {
            let node = NodeId([about; 32]);
            let state = [PeerState::Alive, PeerState::Suspect, PeerState::Frozen, PeerState::Dead]
                [usize::from(state)];
            let of = id(usize::from(about) % 3);
            let gossip = vec![Rumour { node: of, incarnation: number, state }; 40];
            let beat = Beat { seq: number, incarnation: number % 5, pulse: WORKING, gossip };
            let input = match what {
                0 => SwimInput::LinkUp { node, incarnation: number },
                1 => SwimInput::LinkLost { node },
                2 => SwimInput::Received { from: node, message: SwimMessage::Ping(beat) },
                3 => SwimInput::Received { from: node, message: SwimMessage::Ack(beat) },
                4 => {
                    let message = SwimMessage::PingReq { target: id(2), beat };
                    SwimInput::Received { from: node, message }
                }
                5 => SwimInput::PeerForgotten { node },
                _ => SwimInput::Ticked,
            };
            now = now.plus(Micros(number % 3_000_000));
            let mut effects = Vec::new();
            swim.step(Now { mono: now, wall: Wall(0) }, input, &mut effects);
            prop_assert!(effects.len() <= 128, "{}", effects.len());
            for effect in effects {
                if let SwimEffect::Send { message, .. } = effect {
                    let limit = MAX_MESSAGE_BYTES;
                    prop_assert!(selvedge_base::codec::encode_datagram(&message, limit).is_ok());
                }
            }
        }
    }
}
