//! Stories of requests.

use selvedge_base::Micros;

use super::{Scenario, acme, all, happened, s, within};
use crate::marks::Mark;
use crate::plan::{ClientPlan, FaultKind, PerPeriod, Plan, TenantPlan};

/// Clients at a node without the model; every other node has it.
fn through_a_gateway(nodes: usize, seed: u64, until: u64) -> Plan {
    let mut plan = Plan::calm(seed, nodes)
        .tenant(TenantPlan::new("acme").tokens(200_000, PerPeriod::Hour))
        .client(ClientPlan::steady("acme", 400, s(8), s(until)).at(&[1]));
    plan.engine.every = 2;
    plan
}

pub(super) const FROZEN_PEER: Scenario = Scenario {
    name: "frozen-peer",
    incident: "a driver hangs: the node answers pings and computes nothing",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        through_a_gateway(nodes, seed, 35).with(FaultKind::Freeze { node: 0 }, s(15), s(12))
    },
    expect: |_, outcome| {
        let quick = outcome.detections.frozen.iter().all(|took| *took <= s(2));
        all(&[
            within(outcome),
            happened(outcome, Mark::AnswerResumed),
            (quick, "a freeze is seen within two seconds"),
            (outcome.requests.failed == 0, "no answer is lost"),
        ])
    },
};

pub(super) const SERVER_DIES: Scenario = Scenario {
    name: "server-dies",
    incident: "the node that answers loses power in mid-sentence",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let crash = FaultKind::Crash { node: 0, reset: false };
        through_a_gateway(nodes, seed, 35).with(crash, s(15), s(6))
    },
    expect: |_, outcome| {
        let quick = outcome.requests.longest_gap.is_none_or(|gap| gap <= s(2));
        all(&[
            within(outcome),
            happened(outcome, Mark::AnswerResumed),
            (quick, "another node goes on within two seconds"),
            (outcome.requests.failed == 0, "no answer is lost"),
        ])
    },
};

pub(super) const INGEST_DIES: Scenario = Scenario {
    name: "ingest-dies",
    incident: "the gateway dies with a hundred streams open",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let crash = FaultKind::Crash { node: 1, reset: false };
        through_a_gateway(nodes, seed, 35).with(crash, s(15), s(4))
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::IngestDied),
            happened(outcome, Mark::CrashWithReservation),
        ])
    },
};

pub(super) const SLOW_PEER: Scenario = Scenario {
    name: "slow-peer",
    incident: "a machine overheats and computes at a tenth of its speed",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        let slow = FaultKind::Throttle { node: 0, times: 20 };
        acme(nodes, seed, 200_000, 600, 40).with(slow, s(10), s(20))
    },
    expect: |_, outcome| {
        let frozen = outcome.marks.count(Mark::ServerFroze);
        all(&[within(outcome), (frozen == 0, "a slow node is not frozen")])
    },
};

pub(super) const OUT_OF_MEMORY: Scenario = Scenario {
    name: "out-of-memory",
    incident: "another program takes the memory that keys and values need",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 200_000, 900, 40);
        plan.engine.pages = 24;
        for node in 0..nodes {
            plan = plan.with(FaultKind::ShortOfMemory { node }, s(10 + node as u64), s(15));
        }
        plan
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::SequencePaused)]),
};

pub(super) const LONG_ANSWERS: Scenario = Scenario {
    name: "long-answers",
    incident: "clients set no limit and let the model ramble until the budget ends",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut client = ClientPlan::steady("acme", 60, s(3), s(40));
        client.unlimited = true;
        client.answer = (900, 1_800);
        client.deadline = s(60);
        let mut plan = Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(24_000, PerPeriod::Hour))
            .client(client)
            .quiet_from(s(100));
        plan.engine.step = Micros::millis(5);
        plan
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::ReservationExtended)]),
};

pub(super) const FALSE_ADVERT: Scenario = Scenario {
    name: "false-advert",
    incident: "a misconfigured node claims to be the fastest of all",
    nodes: 5,
    nodes_least: 3,
    build: |nodes, seed| {
        acme(nodes, seed, 400_000, 900, 45).with(FaultKind::FalseAdvert { node: 2 }, s(8), s(25))
    },
    expect: |_, outcome| {
        let failed = outcome.requests.failed * 20 <= outcome.requests.finished;
        all(&[within(outcome), (failed, "few requests fail for believing it")])
    },
};

pub(super) const CALLERS_LEAVE: Scenario = Scenario {
    name: "callers-leave",
    incident: "a flaky client times out and retries, leaving streams behind",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut client = ClientPlan::steady("acme", 900, s(3), s(40));
        client.leave_permille = 600;
        Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(40_000, PerPeriod::Hour))
            .client(client)
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::CallerLeft)]),
};
