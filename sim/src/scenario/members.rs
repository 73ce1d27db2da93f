//! Stories of who belongs and who may call.

use selvedge_base::Micros;

use super::{Scenario, acme, all, everywhere, happened, s, within};
use crate::marks::Mark;
use crate::plan::{ClientPlan, FaultKind, PerPeriod, Plan, TenantPlan};

pub(super) const JOINS_WHILE_CUT: Scenario = Scenario {
    name: "joins-while-cut",
    incident: "a machine is set up while the cable of its rack is loose",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let node = nodes - 1;
        acme(nodes, seed, 40_000, 600, 45)
            .with(FaultKind::Join { node }, s(8), s(1))
            .with(FaultKind::Isolate { node }, s(8), s(11))
            .with(FaultKind::Crash { node: 0, reset: false }, s(20), s(1))
    },
    expect: |_, outcome| {
        all(&[within(outcome), everywhere(outcome), happened(outcome, Mark::Joined)])
    },
};

pub(super) const GUESSED_CODE: Scenario = Scenario {
    name: "guessed-code",
    incident: "somebody photographs half of a join code and tries the rest",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        acme(nodes, seed, 20_000, 300, 25).with(FaultKind::GuessCode { node: 1 }, s(12), s(1))
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::CodeVoided)]),
};

pub(super) const LEASE_LAPSES: Scenario = Scenario {
    name: "lease-lapses",
    incident: "a laptop lies in a drawer until its membership is over, and is switched on again",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 40_000, 600, 40);
        plan.options.lease = Some(s(12));
        let node = nodes - 1;
        plan.faults.push(crate::plan::Fault {
            at: Micros::millis(1),
            until: s(25),
            kind: FaultKind::Crash { node, reset: false },
        });
        plan
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::LeaseRenewed),
            happened(outcome, Mark::LapsedRefused),
        ])
    },
};

pub(super) const LEAVES: Scenario = Scenario {
    name: "leaves-in-order",
    incident: "a machine is sold; its share of the budgets must not go with it",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        acme(nodes, seed, 20_000, 900, 45).with(FaultKind::Leave { node: 1 }, s(10), s(1))
    },
    expect: |_, outcome| {
        let spent = super::use_of(outcome);
        all(&[
            within(outcome),
            happened(outcome, Mark::LeftInOrder),
            (spent >= 900, "nine tenths of the budget are used without it"),
        ])
    },
};

pub(super) const KEY_REVOKED: Scenario = Scenario {
    name: "key-revoked",
    incident: "a key turns up in a public repository and is revoked while it is in use",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 200_000, 600, 35);
        plan.workload.clients[0].answer = (60, 120);
        plan.with(FaultKind::RevokeKey { tenant: 0, node: 0 }, s(15), s(1))
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::KeyRevoked),
            happened(outcome, Mark::CallerBarred),
            happened(outcome, Mark::KeyRefused),
        ])
    },
};

pub(super) const KEY_EXPIRES: Scenario = Scenario {
    name: "key-expires",
    incident: "a trial is over, and another customer's key was made for another model",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 100_000, 300, 35);
        plan.workload.clients[0].key_lasts = Some(s(15));
        let mut other = ClientPlan::steady("acme", 120, s(3), s(35));
        other.key_models = vec!["heddle".to_owned()];
        plan.client(other)
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::KeyExpired),
            happened(outcome, Mark::KeyOutOfScope),
        ])
    },
};

pub(super) const DOWNGRADE: Scenario = Scenario {
    name: "downgrade",
    incident: "the budget for the large model is used up by noon, and work goes on with the small",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut tenant = TenantPlan::new("acme").tokens(4_000, PerPeriod::Hour);
        tenant.budgets[0].models = vec!["loom".to_owned()];
        tenant.budgets[0].downgrade = Some("heddle".to_owned());
        let mut plan = Plan::calm(seed, nodes)
            .tenant(tenant)
            .client(ClientPlan::steady("acme", 600, s(3), s(35)))
            .with(FaultKind::Crash { node: 1, reset: false }, s(15), s(5));
        plan.engine.small = true;
        plan
    },
    expect: |_, outcome| {
        let refused = outcome.requests.refused == 0;
        all(&[
            within(outcome),
            everywhere(outcome),
            happened(outcome, Mark::Downgraded),
            (refused, "nobody is refused"),
        ])
    },
};

pub(super) const POWER_LOST: Scenario = Scenario {
    name: "power-lost",
    incident: "a battery is empty: a node that was ahead of its time starts again with the right \
               one, and is asked to follow new budgets from now on",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        // Twenty seconds ahead it spends from the minute that for the others begins at 25 s.
        Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(6_000, PerPeriod::Minute))
            .client(ClientPlan::steady("acme", 900, s(3), s(60)).at(&[1]))
            .with(FaultKind::PowerLost { node: 1, ahead: 20_000 }, s(6), s(3))
            .with(FaultKind::Relimit { tenant: 0, permille: 100 }, Micros::millis(9_500), s(1))
    },
    expect: |_, outcome| {
        let spent: u64 = outcome.budgets.iter().map(|budget| budget.spent).sum();
        all(&[(spent > 0, "budgets are spent from"), happened(outcome, Mark::PolicyAdopted)])
    },
};
