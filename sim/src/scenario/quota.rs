//! Stories of budgets.

use selvedge_base::Micros;

use super::{Scenario, acme, all, everywhere, half, happened, s, use_of, within};
use crate::marks::Mark;
use crate::plan::{BudgetUnit, ClientPlan, FaultKind, PerPeriod, Plan, TenantPlan};

pub(super) const TWO_WAY_PARTITION: Scenario = Scenario {
    name: "partition",
    incident: "a switch dies between two halls and both go on spending",
    nodes: 5,
    nodes_least: 4,
    build: |nodes, seed| {
        let plan = acme(nodes, seed, 20_000, 900, 45);
        plan.with(FaultKind::Halves { left: half(nodes) }, s(12), s(20))
    },
    expect: |_, outcome| {
        let served = outcome.requests.finished_while_cut > 0;
        all(&[
            within(outcome),
            everywhere(outcome),
            (served, "both sides serve while cut"),
            (use_of(outcome) >= 900, "nine tenths of the budget are used"),
        ])
    },
};

pub(super) const ONE_WAY_PARTITION: Scenario = Scenario {
    name: "one-way-partition",
    incident: "a firewall rule drops one direction only",
    nodes: 5,
    nodes_least: 4,
    build: |nodes, seed| {
        let plan = acme(nodes, seed, 20_000, 900, 45);
        plan.with(FaultKind::OneWayHalves { left: half(nodes) }, s(12), s(20))
    },
    expect: |_, outcome| all(&[within(outcome), everywhere(outcome)]),
};

pub(super) const DONOR_CRASHES: Scenario = Scenario {
    name: "donor-crashes",
    incident: "power fails after a gift was stored and before anybody heard of it",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        // All demand is at the last node; every donor in turn stands still with a gift in its
        // disk's queue, and dies before it goes on.
        let last = nodes - 1;
        let mut plan = Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(30_000, PerPeriod::Hour))
            .client(ClientPlan::steady("acme", 900, s(3), s(40)).at(&[last]));
        for donor in 0..last {
            let slow = FaultKind::DiskSlow { node: donor, by: Micros::millis(2_500) };
            plan = plan.with(slow, s(2), s(38));
            for round in 0..6 {
                let at = Micros::millis(5_000 + 5_500 * round + 1_700 * donor as u64);
                let crash = FaultKind::Crash { node: donor, reset: false };
                plan = plan.with(FaultKind::Pause { node: donor }, at, Micros::millis(2_600));
                plan = plan.with(crash, at.plus(Micros::millis(2_500)), Micros::millis(300));
            }
        }
        plan
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::CrashBetweenStoreAndSend)]),
};

pub(super) const DEMAND_MOVES: Scenario = Scenario {
    name: "demand-moves",
    incident: "the night shift works in another plant",
    nodes: 6,
    nodes_least: 3,
    build: |nodes, seed| {
        Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(40_000, PerPeriod::Hour))
            .client(ClientPlan::steady("acme", 600, s(3), s(30)).at(&[0]))
            .client(ClientPlan::steady("acme", 900, s(30), s(80)).at(&[nodes - 1]))
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::RightsGiven),
            (use_of(outcome) >= 900, "rights follow demand: nine tenths are used"),
        ])
    },
};

pub(super) const CLOCK_STEPS: Scenario = Scenario {
    name: "clock-steps",
    incident: "a time server is wrong by an hour, and is put right",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let mut plan = Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(4_000, PerPeriod::Minute))
            .client(ClientPlan::steady("acme", 600, s(3), s(90)));
        for (node, by) in [(0, 3_600_000), (1, -3_600_000), (2, 45_000)] {
            plan = plan.with(FaultKind::ClockOff { node, by }, s(10 + 5 * node as u64), s(20));
        }
        plan
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::WindowTurned)]),
};

pub(super) const BOOT_IN_1970: Scenario = Scenario {
    name: "boot-in-1970",
    incident: "a box without a clock battery starts before it can ask for the time",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        acme(nodes, seed, 20_000, 600, 40).with(FaultKind::Boot1970 { node: 1 }, s(10), s(2))
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::ClockBefore2000)]),
};

pub(super) const LOST_LAST_WRITE: Scenario = Scenario {
    name: "lost-last-write",
    incident: "a disk confirms writes and loses them with the power",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 20_000, 900, 40);
        plan.options.rollback_guard = true;
        let lost = FaultKind::LostWrites { node: 1, back: s(8) };
        plan.with(lost, s(15), s(2))
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::RolledBack),
            happened(outcome, Mark::RollbackDetected),
        ])
    },
};

pub(super) const OLD_BACKUP: Scenario = Scenario {
    name: "old-backup",
    incident: "somebody restores a node from last week's image",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 20_000, 900, 45);
        plan.options.rollback_guard = true;
        plan.with(FaultKind::Backup { node: 2 }, s(8), s(12))
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::RolledBack),
            happened(outcome, Mark::RollbackDetected),
        ])
    },
};

pub(super) const DISK_FULL: Scenario = Scenario {
    name: "disk-full",
    incident: "logs fill the disk of one node",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        acme(nodes, seed, 60_000, 900, 45).with(FaultKind::DiskFull { node: 1 }, s(10), s(15))
    },
    expect: |_, outcome| {
        all(&[within(outcome), happened(outcome, Mark::WriteFailed), everywhere(outcome)])
    },
};

pub(super) const SMALL_CAP: Scenario = Scenario {
    name: "small-cap",
    incident: "a free plan of three requests a minute on a mesh of five",
    nodes: 5,
    nodes_least: 4,
    build: |nodes, seed| {
        let tenant = TenantPlan::new("tiny").budget(BudgetUnit::Requests, 3, PerPeriod::Minute);
        Plan::calm(seed, nodes).tenant(tenant).client(ClientPlan::steady("tiny", 120, s(3), s(320)))
    },
    expect: |_, outcome| {
        let windows = outcome.budgets.iter().filter(|window| window.spent > 0).count();
        all(&[
            within(outcome),
            (windows >= 4, "every window serves somebody"),
            (use_of(outcome) >= 500, "at least half of a tiny cap is used"),
        ])
    },
};

pub(super) const NEWCOMER: Scenario = Scenario {
    name: "newcomer",
    incident: "a node is added in the middle of the month",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let mut plan = Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(30_000, PerPeriod::Month))
            .client(ClientPlan::steady("acme", 300, s(3), s(40)).at(&[nodes - 1]));
        plan.options.newcomers = vec![nodes - 1];
        plan
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::RightsGiven),
            (outcome.requests.finished > 50, "who was granted nothing serves on gifts"),
        ])
    },
};

pub(super) const NEWCOMER_AT_LIMITS: Scenario = Scenario {
    name: "newcomer-at-limits",
    incident: "a node that was added yesterday takes a batch job and a busy page, and is cut off",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let new = nodes - 1;
        let batch = TenantPlan::new("batch").budget(BudgetUnit::Concurrent, 4, PerPeriod::Minute);
        let page = TenantPlan::new("page").budget(BudgetUnit::Rate, 600, PerPeriod::Minute);
        let mut plan = Plan::calm(seed, nodes)
            .tenant(batch)
            .tenant(page)
            .client(ClientPlan::steady("batch", 600, s(3), s(60)).at(&[new]))
            .client(ClientPlan::steady("batch", 60, s(3), s(60)))
            .client(ClientPlan::steady("page", 300, s(3), s(60)).at(&[new]))
            .client(ClientPlan::steady("page", 60, s(3), s(60)))
            .with(FaultKind::Isolate { node: new }, s(25), s(15));
        plan.options.newcomers = vec![new];
        plan
    },
    expect: |_, outcome| {
        let (passed, stopped) = (Mark::NewcomerPassed, Mark::NewcomerStopped);
        all(&[
            (outcome.marks.count(passed) > 300, "who was granted nothing serves under both limits"),
            (outcome.marks.count(stopped) > 50, "and stops while nobody vouches for it"),
        ])
    },
};

pub(super) const STRANDED: Scenario = Scenario {
    name: "stranded-rights",
    incident: "a truck with a node in it drives out of reach for good",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        acme(nodes, seed, 20_000, 900, 60).with(FaultKind::Death { node: 0 }, s(15), s(1))
    },
    expect: |_, outcome| {
        let spent: u64 = outcome.budgets.iter().map(|budget| budget.spent).sum();
        all(&[within(outcome), (spent < 20_000, "what the dead one held is not spent again")])
    },
};

pub(super) const RAISED_WHILE_CUT: Scenario = Scenario {
    name: "raised-while-cut",
    incident: "the operator raises a limit that half of the mesh cannot hear of",
    nodes: 5,
    nodes_least: 4,
    build: |nodes, seed| {
        let raise = FaultKind::Relimit { tenant: 0, permille: 2_000 };
        Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(5_000, PerPeriod::Minute))
            .client(ClientPlan::steady("acme", 900, s(3), s(150)))
            .with(FaultKind::Halves { left: half(nodes) }, s(10), s(40))
            .with(raise, s(15), s(1))
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::PolicyAdopted)]),
};

pub(super) const LOWERED_WHILE_CUT: Scenario = Scenario {
    name: "lowered-while-cut",
    incident: "a limit is lowered during an outage and counts at once where it is heard",
    nodes: 5,
    nodes_least: 4,
    build: |nodes, seed| {
        let lower = FaultKind::Lower { tenant: 0, node: nodes - 1, permille: 300 };
        acme(nodes, seed, 20_000, 900, 50)
            .with(FaultKind::Halves { left: half(nodes) }, s(10), s(20))
            .with(lower, s(12), s(1))
    },
    expect: |_, outcome| all(&[within(outcome), happened(outcome, Mark::LimitLowered)]),
};

pub(super) const TEAM_AND_TENANT: Scenario = Scenario {
    name: "team-and-tenant",
    incident: "one team must not eat what the whole company has",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(30_000, PerPeriod::Hour))
            .tenant(TenantPlan::new("acme/line3").tokens(5_000, PerPeriod::Hour))
            .client(ClientPlan::steady("acme/line3", 600, s(3), s(40)))
            .client(ClientPlan::steady("acme", 300, s(3), s(40)))
    },
    expect: |_, outcome| {
        let team = outcome.budgets.iter().find(|one| one.account == "acme/line3");
        let kept = team.is_some_and(|one| one.spent <= 5_000 && one.refused > 0);
        all(&[within(outcome), (kept, "the team ends at its own limit")])
    },
};

pub(super) const CONCURRENCY: Scenario = Scenario {
    name: "concurrency",
    incident: "a batch job may run a few requests at a time, wherever they start",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        let tenant = TenantPlan::new("batch").budget(BudgetUnit::Concurrent, 8, PerPeriod::Minute);
        Plan::calm(seed, nodes)
            .tenant(tenant)
            .client(ClientPlan::steady("batch", 1_200, s(3), s(40)))
            .with(FaultKind::Crash { node: 1, reset: false }, s(15), s(4))
    },
    expect: |_, outcome| all(&[(outcome.requests.finished > 100, "permits come back")]),
};

pub(super) const CRASH_STORM: Scenario = Scenario {
    name: "crash-storm",
    incident: "a bad update crashes every node a few times",
    nodes: 5,
    nodes_least: 3,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 40_000, 900, 60);
        for round in 0..12 {
            let crash = FaultKind::TornCrash { node: round as usize % nodes };
            plan = plan.with(crash, Micros::millis(8_000 + 3_700 * round), Micros::millis(1_500));
        }
        plan
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            happened(outcome, Mark::CrashWithReservation),
            (use_of(outcome) >= 500, "half of the budget survives twelve crashes"),
        ])
    },
};

pub(super) const RECLAIMED: Scenario = Scenario {
    name: "reclaimed-rights",
    incident: "the node that holds most of what is left of a month's budget loses its power supply",
    nodes: 3,
    nodes_least: 3,
    build: |nodes, seed| {
        // The first node goes with its whole part. The others use up theirs, take over what it had
        // left and go on; when it is back it lives on what they give.
        let others: Vec<usize> = (1..nodes).collect();
        let crash = FaultKind::Crash { node: 0, reset: false };
        Plan::calm(seed, nodes)
            .tenant(TenantPlan::new("acme").tokens(42_000, PerPeriod::Month).reclaimable())
            .client(ClientPlan::steady("acme", 900, s(3), s(32)).at(&others))
            .client(ClientPlan::steady("acme", 120, s(40), s(55)).at(&[0]))
            .with(crash, s(8), s(28))
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            everywhere(outcome),
            happened(outcome, Mark::RightsReclaimed),
            happened(outcome, Mark::RowTakenOver),
            happened(outcome, Mark::RowRegained),
            (use_of(outcome) >= 750, "more is used than the two thirds of those who were there"),
        ])
    },
};
