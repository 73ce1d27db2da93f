//! From a seed to a plan.

use selvedge_base::{Dice, Micros};

use super::{
    CALM_END, CALM_START, ClientPlan, Fault, FaultKind, NetworkPlan, PerPeriod, Plan, TenantPlan,
    Workload,
};

/// Faults begin within this span after the calm start.
const FAULT_SPAN: Micros = Micros::secs(20);
/// The longest fault: well beyond every detection time.
const LONGEST_FAULT: Micros = Micros::secs(9);
/// Faults in a seeded plan: enough to overlap now and then.
const MAX_FAULTS: u64 = 6;
/// Nodes in a seeded plan; small meshes have the most interesting partitions.
const NODES: std::ops::RangeInclusive<u64> = 2..=7;

impl Plan {
    /// The plan of a seed.
    pub fn seeded(seed: u64) -> Self {
        let seed = seed & (i64::MAX as u64);
        let mut topology = Dice::keyed(seed, "plan/topology");
        let count = NODES.end() - NODES.start() + 1;
        let nodes = (NODES.start() + topology.below(count)) as usize;
        let wanted = topology.below(MAX_FAULTS + 1);
        let faults: Vec<Fault> = (0..wanted)
            .map(|index| {
                Fault::seeded(&mut Dice::keyed(seed, &format!("plan/fault/{index}")), nodes)
            })
            .collect();
        let quiet_at = faults.iter().map(|fault| fault.until).max().unwrap_or(CALM_START);
        let mut work = Dice::keyed(seed, "plan/work");
        let busy_until = quiet_at.max(CALM_START.plus(FAULT_SPAN));
        let workload = Workload::seeded(&mut work, nodes, busy_until);
        let quiet_at = if workload.clients.is_empty() { quiet_at } else { busy_until };
        Self {
            quiet_at,
            span: quiet_at.plus(CALM_END),
            workload,
            network: NetworkPlan::seeded(&mut Dice::keyed(seed, "plan/network")),
            faults,
            ..Self::calm(seed, nodes)
        }
    }
}

impl Workload {
    /// In three of four seeds somebody asks for something.
    fn seeded(dice: &mut Dice, nodes: usize, until: Micros) -> Self {
        let mut workload = Self::default();
        if dice.chance(750) {
            for tenant in 0..1 + dice.below(2) {
                let plan = TenantPlan::new(&format!("t{tenant}"));
                let limit = 500 + dice.below(30_000);
                let per = if dice.chance(500) { PerPeriod::Minute } else { PerPeriod::Hour };
                workload.tenants.push(plan.tokens(limit, per));
            }
        }
        for group in 0..dice.below(4) {
            let rate = 60 + dice.below(300);
            let account = format!("t{}", group % 2);
            let mut client = ClientPlan::steady(&account, rate, Micros::secs(2), until);
            client.deadline = Micros::secs(4 + dice.below(9));
            client.leave_permille = if dice.chance(300) { 100 } else { 0 };
            client.home_permille = if dice.chance(300) { 200 } else { 0 };
            client.dense_permille = if dice.chance(300) { 200 } else { 0 };
            if dice.chance(400) {
                client.nodes = vec![dice.below(nodes as u64) as usize];
            }
            workload.clients.push(client);
        }
        workload
    }
}

impl NetworkPlan {
    /// A rung of the latency ladder (LAN, campus, continent, satellite), and each imperfection in
    /// about half of the seeds.
    fn seeded(dice: &mut Dice) -> Self {
        let (latency_min, latency_max) = match dice.below(5) {
            0 | 1 => (Micros(100), Micros::millis(2)),
            2 => (Micros::millis(2), Micros::millis(15)),
            3 => (Micros::millis(20), Micros::millis(60)),
            _ => (Micros::millis(250), Micros::millis(350)),
        };
        let mut in_half = |most: u64| if dice.chance(500) { dice.below(most + 1) } else { 0 };
        Self {
            latency_min,
            latency_max,
            loss_permille: in_half(50),
            duplicate_permille: in_half(30),
            reorder_permille: in_half(50),
            reorder_by: Micros::millis(40),
        }
    }
}

impl Fault {
    fn seeded(dice: &mut Dice, nodes: usize) -> Self {
        let at = CALM_START.plus(Micros(dice.below(FAULT_SPAN.0)));
        let shortest = Micros::millis(200);
        let until = at.plus(shortest).plus(Micros(dice.below(LONGEST_FAULT.0 - shortest.0)));
        let node = dice.below(nodes as u64) as usize;
        let other = (node + 1 + dice.below(nodes as u64 - 1) as usize) % nodes;
        let kind = match dice.below(7) {
            0 => FaultKind::Crash { node, reset: false },
            1 => FaultKind::Crash { node, reset: true },
            2 => FaultKind::Pause { node },
            3 => FaultKind::Freeze { node },
            4 => FaultKind::OneWay { from: node, to: other },
            5 => FaultKind::Isolate { node },
            _ => {
                let bits = 1 + dice.below((1 << nodes) - 2);
                FaultKind::Halves { left: (0..nodes).filter(|at| bits >> at & 1 == 1).collect() }
            }
        };
        Self { at, until, kind }
    }
}
