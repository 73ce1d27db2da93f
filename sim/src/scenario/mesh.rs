//! Stories of membership and of builds.

use selvedge_base::Micros;

use super::{Scenario, acme, all, everywhere, half, happened, s, within};
use crate::marks::Mark;
use crate::plan::{FaultKind, NetworkPlan, Plan};

pub(super) const CRASH_ON_A_LAN: Scenario = Scenario {
    name: "crash-on-a-lan",
    incident: "a process is killed by the kernel",
    nodes: 5,
    nodes_least: 2,
    build: |nodes, seed| {
        let crash = FaultKind::Crash { node: 1, reset: false };
        Plan::calm(seed, nodes).with(crash, s(14), s(6))
    },
    expect: |plan, outcome| {
        let observers = if plan.nodes <= 64 { plan.nodes - 1 } else { 1 };
        let noticed = outcome.detections.silent.len() + outcome.detections.reset.len();
        all(&[(noticed >= observers, "everybody notices")])
    },
};

pub(super) const ROLLING_UPGRADE: Scenario = Scenario {
    name: "rolling-upgrade",
    incident: "a fleet is upgraded one by one while it serves",
    nodes: 5,
    nodes_least: 3,
    build: |nodes, seed| {
        // Node 0 has the new build already; there the operator signs the first budgets.
        let mut plan = acme(nodes, seed, 60_000, 600, 20 + 4 * nodes as u64);
        plan.options.old_version = (1..nodes).collect();
        plan.engine.every = 2;
        for node in 1..nodes {
            let at = s(6 + 4 * node as u64);
            plan = plan.with(FaultKind::Upgrade { node }, at, Micros::millis(1_500));
        }
        plan
    },
    expect: |_, outcome| {
        all(&[within(outcome), happened(outcome, Mark::OldVersionServed), everywhere(outcome)])
    },
};

pub(super) const FLAPPING_LINK: Scenario = Scenario {
    name: "flapping-link",
    incident: "a loose cable: the link comes and goes every second",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let flap = FaultKind::Flapping { from: 0, to: 1, every: Micros::millis(900) };
        acme(nodes, seed, 60_000, 600, 45).with(flap, s(10), s(25))
    },
    expect: |_, outcome| all(&[within(outcome), everywhere(outcome)]),
};

pub(super) const REVOKED_RETURNS: Scenario = Scenario {
    name: "revoked-returns",
    incident: "a stolen laptop is put out of the mesh and dials in again",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        acme(nodes, seed, 40_000, 600, 40)
            .with(FaultKind::RevokeNode { node: 2, by: 0 }, s(12), s(1))
            .with(FaultKind::Crash { node: 2, reset: false }, s(18), s(4))
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::NodeRevoked),
            happened(outcome, Mark::RevokedRefused),
        ])
    },
};

pub(super) const STOPPED_PROCESS: Scenario = Scenario {
    name: "stopped-process",
    incident: "a laptop sleeps for nine seconds and wakes up in mid-answer",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        acme(nodes, seed, 60_000, 600, 45).with(FaultKind::Pause { node: 1 }, s(15), s(9))
    },
    expect: |_, outcome| all(&[within(outcome), everywhere(outcome)]),
};

pub(super) const BRIDGE: Scenario = Scenario {
    name: "bridge",
    incident: "two sites reach each other only over a third",
    nodes: 5,
    nodes_least: 3,
    build: |nodes, seed| {
        let node = nodes - 1;
        let left: Vec<usize> = half(nodes).into_iter().filter(|one| *one != node).collect();
        acme(nodes, seed, 60_000, 600, 45).with(FaultKind::Bridge { left, node }, s(12), s(20))
    },
    expect: |_, outcome| all(&[within(outcome), everywhere(outcome)]),
};

pub(super) const BY_SATELLITE: Scenario = Scenario {
    name: "by-satellite",
    incident: "every link takes a third of a second and loses a packet in fifty",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 40_000, 600, 40);
        plan.network = NetworkPlan {
            latency_min: Micros::millis(280),
            latency_max: Micros::millis(340),
            loss_permille: 20,
            ..NetworkPlan::default()
        };
        plan
    },
    expect: |_, outcome| all(&[within(outcome), everywhere(outcome)]),
};

pub(super) const REPLAY: Scenario = Scenario {
    name: "replay",
    incident: "a broken proxy sends everything twice, a minute late",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 20_000, 900, 40);
        for round in 0..8 {
            plan = plan.with(FaultKind::Replay { node: 1 }, s(8 + 3 * round), s(1));
        }
        plan
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::ReplayIgnored)]),
};

pub(super) const EQUIVOCATION: Scenario = Scenario {
    name: "equivocation",
    incident: "a node cloned from an image signs two truths under one number",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        acme(nodes, seed, 20_000, 600, 35).with(FaultKind::Equivocate { node: 1 }, s(15), s(1))
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::EquivocationSeen)]),
};
