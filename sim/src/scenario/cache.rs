//! Stories of answers that are kept: asked once, given many times, and gone when they must be.

use selvedge_core::routes::PolicyConfig;
use selvedge_core::upstream::ProviderKind;
use selvedge_proto::wire::Label;

use super::{Scenario, all, happened, s};
use crate::marks::Mark;
use crate::plan::{
    BudgetUnit, CachePlan, ClientPlan, FaultKind, PerPeriod, Plan, ProviderFault, ProviderPlan,
    TenantPlan,
};

/// The provider's model, as the catalogue calls it.
const CUMULUS: &str = "cumulus/gpt-5.6-luna";

/// A provider, a tenant with money, and a cache at every node.
fn keeping(nodes: usize, seed: u64, cache: CachePlan) -> Plan {
    Plan::calm(seed, nodes)
        .provider(ProviderPlan::new("cumulus", ProviderKind::OpenAi, "gpt-5.6-luna"))
        .tenant(TenantPlan::new("acme").budget(
            BudgetUnit::MicroDollars,
            50_000_000,
            PerPeriod::Hour,
        ))
        .cached(cache)
}

fn asking(account: &str, per_minute: u64, until: u64) -> ClientPlan {
    ClientPlan::steady(account, per_minute, s(3), s(until)).asking(CUMULUS)
}

const fn wrong(how: ProviderFault) -> FaultKind {
    FaultKind::Provider { provider: 0, how, by: 0 }
}

pub(super) const SAME_QUESTION: Scenario = Scenario {
    name: "same-question",
    incident: "a link is shared, and a whole company asks the same few things at once",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        keeping(nodes, seed, CachePlan::default())
            .client(asking("acme", 600, 40).repeating(4))
            .client(asking("acme/line3", 120, 40).repeating(4))
    },
    expect: |_, outcome| {
        let (given, finished) = (outcome.requests.given_again, outcome.requests.finished);
        all(&[
            happened(outcome, Mark::CacheHit),
            happened(outcome, Mark::CacheShared),
            happened(outcome, Mark::CacheExpired),
            (outcome.requests.failed == 0, "everybody is answered"),
            (given * 10 > finished * 7, "most answers are not asked for"),
        ])
    },
};

pub(super) const PURGED: Scenario = Scenario {
    name: "answers-purged",
    incident: "an operator purges a wrong answer that is given to all, while nodes break",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let purge = |node, account: Option<&str>| FaultKind::Purge {
            node,
            account: account.map(str::to_owned),
            model: None,
        };
        let mut plan = keeping(nodes, seed, CachePlan { ttl: s(3), ..CachePlan::default() })
            .route("chat", PolicyConfig::Fallback, &[CUMULUS, "loom"])
            .client(asking("acme", 900, 50).asking("chat").repeating(3))
            .with(wrong(ProviderFault::Cuts), s(15), s(8))
            .with(wrong(ProviderFault::Fails), s(26), s(6))
            .with(FaultKind::Crash { node: 1, reset: false }, s(12), s(2));
        for second in 8..44 {
            plan = plan.with(purge(second as usize % nodes, Some("acme")), s(second), s(0));
        }
        plan.workload.clients[0].leave_permille = 250;
        plan.cloud.providers[0].hasty = true;
        plan
    },
    expect: |_, outcome| {
        all(&[
            happened(outcome, Mark::CacheHit),
            happened(outcome, Mark::CachePurged),
            happened(outcome, Mark::CachePurgedUnderWay),
            happened(outcome, Mark::CacheTakenOver),
            happened(outcome, Mark::CacheUnfaithful),
            happened(outcome, Mark::CacheLost),
        ])
    },
};

pub(super) const SHARED: Scenario = Scenario {
    name: "answers-shared",
    incident: "two offices share answers, are cut off now and then, and purge what is wrong",
    nodes: 5,
    nodes_least: 3,
    build: |nodes, seed| {
        let purge = |node| FaultKind::Purge { node, account: None, model: None };
        let mut plan = keeping(nodes, seed, CachePlan { ttl: s(8), ..CachePlan::default() })
            .client(asking("acme", 900, 60).repeating(5))
            .client(asking("acme", 300, 60).asking("loom").labelled(Label::Site).repeating(3))
            .client(asking("acme", 300, 60).asking("loom").labelled(Label::Node).repeating(3))
            .with(FaultKind::Halves { left: vec![0] }, s(14), s(8))
            .with(FaultKind::Isolate { node: 1 }, s(30), s(9))
            .with(FaultKind::Crash { node: 2, reset: false }, s(42), s(3));
        plan.options.sites = 2;
        for second in [10, 16, 17, 25, 31, 34, 36, 43, 50, 52] {
            plan = plan.with(purge(second as usize % nodes), s(second), s(0));
        }
        plan
    },
    expect: |_, outcome| {
        all(&[
            happened(outcome, Mark::CacheFetched),
            happened(outcome, Mark::PurgeHeard),
            happened(outcome, Mark::CacheHit),
            happened(outcome, Mark::CachePurged),
        ])
    },
};
