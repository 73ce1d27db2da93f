//! Stories of providers: what is outside of the mesh fails, and what is inside goes on.

use selvedge_core::routes::PolicyConfig;
use selvedge_core::upstream::ProviderKind;
use selvedge_proto::wire::Label;

use super::{Scenario, all, half, happened, s};
use crate::marks::Mark;
use crate::plan::{
    BudgetUnit, ClientPlan, FaultKind, PerPeriod, Plan, ProviderFault, ProviderPlan, Rerouting,
    TenantPlan,
};

/// The providers' models, as the catalogue calls them.
const CUMULUS: &str = "cumulus/gpt-5.6-luna";
const NIMBUS: &str = "nimbus/claude-fable-5";

/// Two providers; a tenant with this much money an hour, in millionths of a dollar.
fn with_money(nodes: usize, seed: u64, money: u64) -> Plan {
    let budget = BudgetUnit::MicroDollars;
    Plan::calm(seed, nodes)
        .provider(ProviderPlan::new("cumulus", ProviderKind::OpenAi, "gpt-5.6-luna"))
        .provider(ProviderPlan::new("nimbus", ProviderKind::Anthropic, "claude-fable-5"))
        .tenant(TenantPlan::new("acme").budget(budget, money, PerPeriod::Hour))
}

fn asking(name: &str, per_minute: u64, until: u64) -> ClientPlan {
    ClientPlan::steady("acme", per_minute, s(3), s(until)).asking(name)
}

const fn wrong(provider: usize, how: ProviderFault, by: u64) -> FaultKind {
    FaultKind::Provider { provider, how, by }
}

pub(super) const INTERNET_CUT: Scenario = Scenario {
    name: "internet-cut",
    incident: "an excavator cuts the fibre: the internet is gone, local models go on",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let cut = FaultKind::InternetCut { left: (0..nodes).collect() };
        with_money(nodes, seed, 50_000_000)
            .route("chat", PolicyConfig::Fallback, &[CUMULUS, "loom"])
            .client(asking("chat", 200, 60))
            .client(ClientPlan::steady("acme", 100, s(3), s(60)))
            .with(cut, s(15), s(20))
    },
    expect: |_, outcome| {
        all(&[
            happened(outcome, Mark::ProviderAnswered),
            happened(outcome, Mark::AnsweredInTheMesh),
            happened(outcome, Mark::ProviderLeftAlone),
            happened(outcome, Mark::ProviderBack),
            (outcome.requests.failed <= 2, "nobody notices but those who were in mid-answer"),
        ])
    },
};

pub(super) const OVERBILLED: Scenario = Scenario {
    name: "overbilled",
    incident: "a provider bills more than it said: tokens that nobody sees",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        with_money(nodes, seed, 400_000).client(asking(CUMULUS, 300, 60)).with(
            wrong(0, ProviderFault::Overbills, 100),
            s(10),
            s(15),
        )
    },
    expect: |_, outcome| {
        let spent: u64 = outcome.budgets.iter().map(|budget| budget.spent).sum();
        all(&[
            happened(outcome, Mark::Overbilled),
            happened(outcome, Mark::MoneyUsedUp),
            (spent >= 300_000, "what was billed is what was spent"),
        ])
    },
};

pub(super) const HANGING: Scenario = Scenario {
    name: "provider-hangs",
    incident: "a provider takes requests and says nothing; another one answers",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut plan = with_money(nodes, seed, 50_000_000)
            .route("chat", PolicyConfig::Fallback, &[CUMULUS, NIMBUS])
            .client(asking("chat", 200, 60))
            .with(wrong(0, ProviderFault::Hangs, 0), s(12), s(25));
        plan.cloud.providers[0].hasty = true;
        plan
    },
    expect: |_, outcome| {
        all(&[
            happened(outcome, Mark::AskedElsewhere),
            happened(outcome, Mark::ProviderLeftAlone),
            happened(outcome, Mark::ProviderBack),
            (outcome.requests.failed == 0, "everybody is answered"),
        ])
    },
};

pub(super) const CUT_STREAM: Scenario = Scenario {
    name: "cut-stream",
    incident: "a provider's load balancer restarts: a cut stream is paid for once, for what came",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        with_money(nodes, seed, 50_000_000)
            .route("chat", PolicyConfig::Fallback, &[NIMBUS, CUMULUS])
            .client(asking("chat", 240, 50))
            .with(wrong(1, ProviderFault::Cuts, 0), s(10), s(20))
    },
    expect: |_, outcome| {
        all(&[
            happened(outcome, Mark::ProviderCutOff),
            happened(outcome, Mark::ProviderAnswered),
            (
                outcome.requests.failed > 0,
                "who has part of an answer is told that there is no more",
            ),
        ])
    },
};

pub(super) const CUT_STREAM_GOES_ON: Scenario = Scenario {
    name: "cut-stream-goes-on",
    incident: "a provider cuts its streams, and the next one goes on after what came",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut plan = with_money(nodes, seed, 50_000_000)
            .route("chat", PolicyConfig::Fallback, &[NIMBUS, CUMULUS])
            .client(asking("chat", 240, 50))
            .with(wrong(1, ProviderFault::Cuts, 0), s(10), s(20));
        plan.cloud.providers[0].continues = true;
        plan
    },
    expect: |_, outcome| {
        all(&[
            happened(outcome, Mark::ProviderCutOff),
            happened(outcome, Mark::ProviderAnswered),
            (outcome.requests.failed == 0, "everybody has a whole answer"),
        ])
    },
};

pub(super) const OUT_OF_MONEY: Scenario = Scenario {
    name: "out-of-money",
    incident: "the month's money is gone on the tenth: models of the mesh go on for nothing",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut plan = with_money(nodes, seed, 20_000)
            .route("chat", PolicyConfig::Fallback, &[CUMULUS, "loom"])
            .client(asking("chat", 300, 60));
        plan.workload.tenants[0].budgets[0].local_only = true;
        plan
    },
    expect: |_, outcome| {
        let over: u64 = outcome.budgets.iter().map(|budget| budget.overspend).sum();
        all(&[
            happened(outcome, Mark::ProviderAnswered),
            happened(outcome, Mark::LocalOnlyAnswered),
            (over == 0, "no cent more is spent"),
            (outcome.requests.failed == 0, "everybody is answered"),
        ])
    },
};

pub(super) const RATE_LIMITED: Scenario = Scenario {
    name: "rate-limited",
    incident: "a provider's limit is reached by another user of the same account",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut plan = with_money(nodes, seed, 50_000_000)
            .route("chat", PolicyConfig::Fallback, &[CUMULUS, NIMBUS])
            .client(asking("chat", 200, 50))
            .client(asking(CUMULUS, 60, 50).labelled(Label::Mesh))
            .with(wrong(0, ProviderFault::Limits, 2_000), s(10), s(12));
        plan.cloud.providers[0].keys = 2;
        plan
    },
    expect: |_, outcome| {
        all(&[
            happened(outcome, Mark::OtherKeyUsed),
            happened(outcome, Mark::AskedElsewhere),
            happened(outcome, Mark::LabelStayed),
        ])
    },
};

pub(super) const REROUTED_WHILE_CUT: Scenario = Scenario {
    name: "rerouted-while-cut",
    incident: "two operators change one route on both sides of a cut, and one takes it back",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        let change = |node, how| FaultKind::Reroute { node, how };
        let (first, last) = (0, nodes - 1);
        with_money(nodes, seed, 50_000_000)
            .route("chat", PolicyConfig::Fallback, &[NIMBUS, CUMULUS])
            .client(asking("chat", 240, 50))
            .with(FaultKind::Halves { left: half(nodes) }, s(10), s(12))
            .with(change(first, Rerouting::Turned), s(12), s(0))
            .with(change(last, Rerouting::Turned), s(13), s(0))
            .with(change(last, Rerouting::Back), s(14), s(0))
            .with(change(last, Rerouting::Removed), s(30), s(0))
            .with(change(first, Rerouting::Back), s(33), s(0))
    },
    expect: |_, outcome| {
        all(&[
            happened(outcome, Mark::ProviderAnswered),
            (outcome.counters.faults.get("reroute") == Some(&5), "the route was changed"),
            (outcome.requests.finished > 0, "callers are answered"),
        ])
    },
};
