//! Stories of models that share a memory too small for all, and of machines that run low or hot.

use selvedge_base::{Dice, Micros};

use super::{Scenario, acme, all, everywhere, happened, s, within};
use crate::marks::Mark;
use crate::plan::{ClientPlan, FaultKind, MemoryPlan, ModelPlan, Plan};
use crate::world::lasts_after;

/// Models of these weights that take so long to load, in a memory of a hundred.
fn sharing(plan: Plan, weights: &[u64], load: Micros) -> Plan {
    let model = |weights: &u64| ModelPlan { weights: *weights, load, kept: false };
    let models = weights.iter().map(model).collect();
    let frees = Micros::millis(200);
    Plan { memory: MemoryPlan { budget: 100, page: 1, frees, failing_permille: 0, models }, ..plan }
}

/// The same plan, with time for the observer to ask for each model when all is quiet.
fn asked_at_the_end(mut plan: Plan) -> Plan {
    plan.span = plan.span.max(plan.quiet_at.plus(lasts_after(plan.memory.models.len())));
    plan
}

/// Clients without a budget that ask for some models and wait for long.
fn asking(models: &[usize], per_minute: u64, from: u64, until: u64) -> ClientPlan {
    let client = ClientPlan::steady("acme", per_minute, s(from), s(until)).of(models);
    ClientPlan { deadline: s(45), ..client }
}

pub(super) const LOW_BATTERY: Scenario = Scenario {
    name: "low-battery",
    incident: "laptops and a box in the sun answer until their batteries are low or they throttle",
    nodes: 4,
    nodes_least: 3,
    build: |nodes, seed| {
        let mut plan = acme(nodes, seed, 400_000, 600, 75)
            .with(FaultKind::LowBattery { node: 0, percent: 12 }, s(12), s(30))
            .with(FaultKind::Hot { node: 1, decidegrees: 960 }, s(20), s(20));
        // At last they all do, and somebody must answer.
        for node in 0..nodes {
            let low = FaultKind::LowBattery { node, percent: 5 };
            plan = plan.with(low, s(52), s(18));
        }
        plan
    },
    expect: |_, outcome| {
        all(&[
            within(outcome),
            everywhere(outcome),
            happened(outcome, Mark::StrainedSpared),
            happened(outcome, Mark::StrainedAsked),
            (outcome.requests.failed == 0, "nobody is refused for want of power"),
        ])
    },
};

pub(super) const MODELS_IN_TURN: Scenario = Scenario {
    name: "models-in-turn",
    incident: "a site asks for more models than any of its machines can hold at once",
    nodes: 3,
    nodes_least: 2,
    build: |nodes, seed| {
        // Some of the requests may not leave their node, so that a model comes to several.
        let all = &[0, 1, 2, 3, 4, 5];
        let stays = ClientPlan { home_permille: 300, ..asking(all, 60, 3, 100) };
        let weights = [40, 40, 30, 60, 45, 50];
        let mut plan = sharing(Plan::calm(seed, nodes), &weights, Micros::millis(500))
            .client(stays)
            .client(asking(&[0, 3], 20, 10, 60).at(&[0]))
            .with(FaultKind::Crash { node: 1, reset: false }, s(50), s(3));
        plan.memory.failing_permille = 50;
        asked_at_the_end(plan)
    },
    expect: |_, outcome| {
        let failed = outcome.requests.failed * 4 <= outcome.requests.finished;
        all(&[
            happened(outcome, Mark::ModelLoaded),
            happened(outcome, Mark::ModelWentCopied),
            happened(outcome, Mark::ModelWentOldest),
            happened(outcome, Mark::ModelLoadFailed),
            (failed, "most are answered"),
        ])
    },
};

pub(super) const NEVER_IDLE: Scenario = Scenario {
    name: "never-idle",
    incident: "one model is asked for without a pause, and whoever wants another hears why not",
    nodes: 2,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut busy = asking(&[0], 200 * nodes as u64, 8, 80);
        busy.answer = (100, 200);
        let mut plan = sharing(Plan::calm(seed, nodes), &[60, 50, 10, 75], Micros::millis(800))
            .client(busy)
            .client(ClientPlan { deadline: s(70), ..asking(&[1], 20, 15, 45) })
            .client(asking(&[3], 10, 15, 60));
        plan.memory.models[2].kept = true;
        asked_at_the_end(plan)
    },
    expect: |_, outcome| {
        all(&[
            happened(outcome, Mark::ModelTurnedAway),
            happened(outcome, Mark::ModelKeptOut),
            (outcome.requests.finished > 0, "those who ask for the busy one are answered"),
        ])
    },
};

pub(super) const MANY_MODELS: Scenario = Scenario {
    name: "many-models",
    incident: "models, machines, clients and what breaks are drawn from the seed",
    nodes: 4,
    nodes_least: 2,
    build: |nodes, seed| {
        let mut dice = Dice::keyed(seed, "scenario/many-models");
        let mut plan = Plan { memory: drawn(&mut dice), ..Plan::calm(seed, nodes) };
        let count = plan.memory.models.len();
        for _ in 0..2 + dice.below(3) {
            plan = plan.client(clients(&mut dice, nodes, count));
        }
        for index in 0..dice.below(7) {
            let mut dice = Dice::keyed(seed, &format!("scenario/many-models/fault/{index}"));
            let at = s(5).plus(Micros(dice.below(s(45).0)));
            let lasts = Micros::millis(200).plus(Micros(dice.below(s(15).0)));
            plan = plan.with(wrong(&mut dice, nodes), at, lasts);
        }
        asked_at_the_end(plan)
    },
    expect: |_, outcome| all(&[(outcome.requests.finished > 0, "somebody is answered")]),
};

/// Three to six models, of which a memory holds one to all.
fn drawn(dice: &mut Dice) -> MemoryPlan {
    let models = (0..3 + dice.below(4)).map(|_| ModelPlan {
        weights: 10 + dice.below(60),
        load: Micros::millis(100 + dice.below(1_900)),
        kept: dice.chance(100),
    });
    let models = models.collect();
    MemoryPlan {
        budget: 80 + dice.below(80),
        page: 1,
        frees: Micros::millis(dice.below(400)),
        failing_permille: if dice.chance(300) { 150 } else { 0 },
        models,
    }
}

fn clients(dice: &mut Dice, nodes: usize, models: usize) -> ClientPlan {
    let wanted = (0..models).filter(|_| dice.chance(600)).collect::<Vec<_>>();
    let wanted = if wanted.is_empty() { vec![dice.below(models as u64) as usize] } else { wanted };
    let from = 2 + dice.below(20);
    let mut client = asking(&wanted, 4 + dice.below(60), from, from + 20 + dice.below(30));
    client.deadline = s(5 + dice.below(60));
    client.leave_permille = if dice.chance(300) { 150 } else { 0 };
    client.home_permille = if dice.chance(200) { 200 } else { 0 };
    if dice.chance(300) {
        // Never idle for long.
        (client.per_minute, client.answer) = (200, (100, 300));
    }
    if dice.chance(400) {
        client.nodes = vec![dice.below(nodes as u64) as usize];
    }
    client
}

fn wrong(dice: &mut Dice, nodes: usize) -> FaultKind {
    let node = dice.below(nodes as u64) as usize;
    match dice.below(14) {
        0 | 1 => FaultKind::Crash { node, reset: dice.chance(500) },
        2 => FaultKind::Pause { node },
        3 => FaultKind::Freeze { node },
        4 => FaultKind::OutOfMemory { node },
        5 => FaultKind::LoadFailure { node },
        6 => FaultKind::Throttle { node, times: 2 + dice.below(10) },
        7 => FaultKind::Isolate { node },
        8 => FaultKind::Halves { left: vec![node] },
        9 => FaultKind::Slow { node, by: Micros::millis(20 + dice.below(200)) },
        10 | 11 => FaultKind::LowBattery { node, percent: dice.below(20) as u8 },
        _ => FaultKind::Hot { node, decidegrees: 930 + dice.below(100) as i16 },
    }
}
