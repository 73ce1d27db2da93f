//! From a seed to a plan.

use selvedge_base::{Dice, Micros};
use selvedge_core::routes::{PolicyConfig, StickyBy};
use selvedge_core::upstream::ProviderKind;
use selvedge_proto::wire::Label;

use super::{
    BudgetPlan, BudgetUnit, CALM_END, CALM_START, CachePlan, ClientPlan, CloudPlan, EnginePlan,
    Fault, FaultKind, NetworkPlan, Options, PerPeriod, Plan, ProviderFault, ProviderPlan,
    Rerouting, TenantPlan, Workload,
};

/// Faults begin within this span after the calm start.
const FAULT_SPAN: Micros = Micros::secs(20);
/// The longest fault: well beyond every detection time.
const LONGEST_FAULT: Micros = Micros::secs(9);
/// Faults in a seeded plan: enough to overlap now and then.
const MAX_FAULTS: u64 = 8;
/// Nodes in a seeded plan; small meshes have the most interesting partitions.
const NODES: std::ops::RangeInclusive<u64> = 2..=7;
/// When the first full minute begins in a run, on a clock that is right.
const FIRST_MINUTE: Micros = Micros::secs(25);
/// Families of faults, each on in about half of the seeds.
const FAMILIES: u64 = 8;
/// Seeds with something outside of the mesh: enough to find what is wrong there, few enough that
/// the rest stays what it was.
const CLOUDY_PERMILLE: u64 = 350;
/// What goes wrong outside in such a seed, at most.
const MOST_CLOUD_FAULTS: u64 = 5;
/// Of those, seeds in which nodes keep answers.
const CACHED_PERMILLE: u64 = 500;
/// Purges in such a seed, at most.
const MOST_PURGES: u64 = 3;
/// How often stewards change the route in such a seed, at most: enough for both sides of a cut.
const MOST_REROUTES: u64 = 3;
/// Their route, and the tenant that pays.
const ROUTE: &str = "chat";
const PAYING: &str = "p";

impl Plan {
    /// The plan of a seed.
    pub fn seeded(seed: u64) -> Self {
        let seed = seed & (i64::MAX as u64);
        let mut topology = Dice::keyed(seed, "plan/topology");
        let count = NODES.end() - NODES.start() + 1;
        let nodes = (NODES.start() + topology.below(count)) as usize;
        let wanted = topology.below(MAX_FAULTS + 1);
        let on: Vec<u64> = (0..FAMILIES).filter(|_| topology.chance(500)).collect();
        let mut faults = Fault::drawn(seed, nodes, if on.is_empty() { 0 } else { wanted }, &on);
        let mut outside = Dice::keyed(seed, "plan/cloud");
        let cloud = match outside.chance(CLOUDY_PERMILLE) {
            true => CloudPlan::seeded(&mut outside),
            false => CloudPlan::default(),
        };
        let wrong = if cloud.is_none() { 0 } else { outside.below(MOST_CLOUD_FAULTS + 1) };
        for index in 0..wrong {
            let mut dice = Dice::keyed(seed, &format!("plan/cloud/fault/{index}"));
            faults.push(Fault::outside(&mut dice, nodes, cloud.providers.len()));
        }
        let mut keeping = Dice::keyed(seed, "plan/cache");
        let cached = !cloud.is_none() && keeping.chance(CACHED_PERMILLE);
        let cache = cached.then(|| CachePlan::seeded(&mut keeping));
        let purges = if cached { keeping.below(MOST_PURGES + 1) } else { 0 };
        for index in 0..purges {
            let mut dice = Dice::keyed(seed, &format!("plan/cache/purge/{index}"));
            faults.push(Fault::purge(&mut dice, nodes));
        }
        faults.extend(Fault::reroutings(seed, nodes, &cloud));
        let ends = faults.iter().map(|fault| fault.until).max().unwrap_or(CALM_START);
        let busy_until = ends.max(CALM_START.plus(FAULT_SPAN));
        let mut work = Dice::keyed(seed, "plan/work");
        let mut workload = Workload::seeded(&mut work, nodes, busy_until);
        if !cloud.is_none() {
            workload.ask_outside(&mut outside, &cloud, busy_until);
        }
        if cached {
            workload.ask_again(&mut keeping);
        }
        workload.witness(&mut Dice::keyed(seed, "plan/witness"));
        let quiet_at = if workload.clients.is_empty() { ends } else { busy_until };
        let mut options = Options::seeded(&mut Dice::keyed(seed, "plan/options"), nodes, &faults);
        options.cache = cache;
        let mut engines = Dice::keyed(seed, "plan/engine");
        let engine = EnginePlan {
            every: if engines.chance(250) { 2 } else { 1 },
            pages: if engines.chance(250) { 8 } else { 256 },
            max_queue: if engines.chance(250) { 2 } else { 64 },
            step: match workload.clients.iter().any(|client| client.unlimited) {
                true => Micros::millis(4),
                false => EnginePlan::default().step,
            },
            small: workload.tenants.iter().any(TenantPlan::downgrades),
            ..EnginePlan::default()
        };
        Self {
            quiet_at,
            span: quiet_at.plus(CALM_END),
            options,
            network: NetworkPlan::seeded(&mut Dice::keyed(seed, "plan/network")),
            engine,
            workload,
            cloud,
            faults,
            ..Self::calm(seed, nodes)
        }
    }
}

impl CloudPlan {
    /// One or two providers, and a route over them and the mesh's model.
    fn seeded(dice: &mut Dice) -> Self {
        let mut cloud = Self::default();
        let all = [
            ("cumulus", ProviderKind::OpenAi, "gpt-5.6-luna"),
            ("nimbus", ProviderKind::Anthropic, "claude-fable-5"),
        ];
        for (name, kind, model) in all.into_iter().take(1 + dice.below(2) as usize) {
            let mut provider = ProviderPlan::new(name, kind, model);
            provider.hasty = true;
            provider.keys = 1 + dice.below(2) as usize;
            provider.concurrent = if dice.chance(250) { 2 } else { 0 };
            provider.latency = Micros::millis(5 + dice.below(120));
            cloud.providers.push(provider);
        }
        let paid = cloud.providers.iter().map(|one| format!("{}/{}", one.name, one.model));
        let mut targets: Vec<String> = paid.collect();
        // Money that is too little for the dear one may do for the other.
        if dice.chance(500) {
            targets.reverse();
        }
        if dice.chance(600) {
            let at = dice.below(targets.len() as u64 + 1) as usize;
            targets.insert(at, "loom".to_owned());
        }
        let policy = match dice.below(6) {
            0 => PolicyConfig::Weighted { by: StickyBy::Request },
            1 => PolicyConfig::SmallFirst { min_confidence: None },
            2 => PolicyConfig::Fastest,
            _ => PolicyConfig::Fallback,
        };
        let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
        cloud.routes.push(super::cloud::route(ROUTE, policy, &targets));
        cloud
    }
}

impl Options {
    fn seeded(dice: &mut Dice, nodes: usize, faults: &[Fault]) -> Self {
        let upgraded = faults.iter().filter_map(|fault| match fault.kind {
            FaultKind::Upgrade { node } => Some(node),
            _ => None,
        });
        let newcomer = dice.chance(200).then(|| dice.below(nodes as u64) as usize);
        Self {
            hold: if dice.chance(300) { Micros::ZERO } else { Micros::millis(30) },
            rollback_guard: dice.chance(300),
            fsync: Micros(500 + dice.below(8_000)),
            old_version: upgraded.collect(),
            newcomers: newcomer.into_iter().collect(),
            sites: 1 + dice.below(2) as usize,
            per_peer: if dice.chance(300) { 2 } else { 64 },
            lease: dice.chance(200).then(|| Micros::secs(10 + dice.below(40))),
            cache: None,
        }
    }
}

impl CachePlan {
    /// Room for all or for little, for shorter than a run.
    fn seeded(dice: &mut Dice) -> Self {
        Self {
            entries: [2, 8, 256, 256][dice.below(4) as usize],
            bytes: if dice.chance(250) { 4 << 10 } else { 1 << 20 },
            entry_bytes: if dice.chance(250) { 1 << 10 } else { 1 << 16 },
            ttl: Micros::secs(1 + dice.below(12)),
            sampled: dice.chance(200),
        }
    }
}

impl Workload {
    /// In three of four seeds somebody asks for something, mostly within budgets.
    fn seeded(dice: &mut Dice, nodes: usize, until: Micros) -> Self {
        let mut workload = Self::default();
        if dice.chance(800) {
            for tenant in 0..1 + dice.below(2) {
                workload.tenants.push(TenantPlan::seeded(dice, &format!("t{tenant}")));
                if dice.chance(300) {
                    let team = TenantPlan::seeded(dice, &format!("t{tenant}/team"));
                    workload.tenants.push(team);
                }
            }
        }
        for group in 0..dice.below(4) {
            let rate = 60 + dice.below(300);
            let team = if dice.chance(400) { "/team" } else { "" };
            let account = format!("t{}{team}", group % 2);
            let mut client = ClientPlan::steady(&account, rate, Micros::secs(2), until);
            client.deadline = Micros::secs(4 + dice.below(9));
            client.leave_permille = if dice.chance(300) { 100 } else { 0 };
            client.home_permille = if dice.chance(300) { 200 } else { 0 };
            client.dense_permille = if dice.chance(300) { 200 } else { 0 };
            client.unlimited = dice.chance(150);
            client.key_lasts = dice.chance(150).then(|| Micros::secs(5 + dice.below(25)));
            client.key_models = match dice.below(12) {
                0 => vec!["heddle".to_owned()],
                1 | 2 => vec!["lo*".to_owned()],
                _ => Vec::new(),
            };
            if client.unlimited {
                // Longer than what is reserved at once.
                client.per_minute = 30;
                client.answer = if dice.chance(500) { (970, 1_070) } else { (600, 1_500) };
                client.deadline = Micros::secs(15);
            }
            if dice.chance(400) {
                client.nodes = vec![dice.below(nodes as u64) as usize];
            }
            if dice.chance(200) {
                // Demand that moves elsewhere at half time.
                let half = Micros((client.from.0 + client.until.0) / 2);
                let mut other = client.clone();
                client.until = half;
                other.from = half;
                client.nodes = vec![dice.below(nodes as u64) as usize];
                other.nodes = vec![dice.below(nodes as u64) as usize];
                workload.clients.push(other);
            }
            workload.clients.push(client);
        }
        workload
    }
}

impl Workload {
    /// A tenant with money, mostly, and clients that ask for what only providers have, or for the
    /// route.
    fn ask_outside(&mut self, dice: &mut Dice, cloud: &CloudPlan, until: Micros) {
        if dice.chance(850) {
            let per = if dice.chance(500) { PerPeriod::Minute } else { PerPeriod::Hour };
            let limit = 20_000 << dice.below(8);
            let mut tenant = TenantPlan::new(PAYING);
            if dice.chance(300) {
                tenant = tenant.budget(BudgetUnit::Requests, 10 + dice.below(200), per);
            }
            tenant = tenant.budget(BudgetUnit::MicroDollars, limit, per);
            if let Some(budget) = tenant.budgets.last_mut() {
                match dice.below(5) {
                    0 => budget.downgrade = Some("heddle".to_owned()),
                    1 | 2 => budget.local_only = true,
                    _ => {}
                }
            }
            self.tenants.push(tenant);
        }
        for _ in 0..1 + dice.below(2) {
            let rate = 60 + dice.below(240);
            let mut client = ClientPlan::steady(PAYING, rate, Micros::secs(2), until);
            client.deadline = Micros::secs(4 + dice.below(9));
            client.leave_permille = if dice.chance(300) { 100 } else { 0 };
            client.home_permille = if dice.chance(200) { 200 } else { 0 };
            client.tools_permille = if dice.chance(200) { 300 } else { 0 };
            let provider = &cloud.providers[dice.below(cloud.providers.len() as u64) as usize];
            client.asks = Some(match dice.below(6) {
                0 => format!("{}/{}", provider.name, provider.model),
                1 => provider.model.clone(),
                2 => "loom".to_owned(),
                _ => ROUTE.to_owned(),
            });
            client.label = match dice.below(10) {
                0 => Some(Label::Mesh),
                1 => Some(Label::Site),
                2..=4 => Some(Label::Anywhere),
                _ => None,
            };
            self.clients.push(client);
        }
    }

    /// Who asks by name asks again what was asked before, and others of the same tenant and of
    /// another one ask it too.
    fn ask_again(&mut self, dice: &mut Dice) {
        let mut others = Vec::new();
        for client in self.clients.iter_mut().filter(|client| client.asks.is_some()) {
            client.questions = 1 << dice.below(6);
            client.wishes_permille = if dice.chance(500) { 150 } else { 0 };
            for (account, permille) in [("p/team", 400), ("q", 300)] {
                if dice.chance(permille) {
                    let account = account.to_owned();
                    others.push(ClientPlan { account, per_minute: 60, ..client.clone() });
                }
            }
        }
        self.clients.extend(others);
    }

    /// In a third of the seeds all budgets that can be are reclaimable.
    fn witness(&mut self, dice: &mut Dice) {
        if !dice.chance(330) {
            return;
        }
        for budget in self.tenants.iter_mut().flat_map(|tenant| &mut tenant.budgets) {
            let windowed = matches!(budget.unit, BudgetUnit::Tokens | BudgetUnit::Requests);
            budget.reclaimable = windowed && budget.elastic.is_none();
        }
    }
}

impl TenantPlan {
    fn downgrades(&self) -> bool {
        self.budgets.iter().any(|budget| budget.downgrade.is_some())
    }

    fn seeded(dice: &mut Dice, path: &str) -> Self {
        let mut tenant = Self::new(path);
        for _ in 0..1 + dice.below(2) {
            let (unit, limit) = match dice.below(8) {
                0 => (BudgetUnit::Requests, 5 + dice.below(200)),
                1 => (BudgetUnit::Concurrent, 1 + dice.below(12)),
                2 => (BudgetUnit::Rate, 20 + dice.below(400)),
                _ => (BudgetUnit::Tokens, 300 + dice.below(30_000)),
            };
            let per = if dice.chance(500) { PerPeriod::Minute } else { PerPeriod::Hour };
            let name = format!("b{}", tenant.budgets.len());
            let elastic = dice.chance(150).then(|| 1 + dice.below(500));
            let windowed = matches!(unit, BudgetUnit::Tokens | BudgetUnit::Requests);
            let sub_windows = if windowed && dice.chance(200) { 4 } else { 1 };
            let elastic = elastic.filter(|_| windowed);
            let lesser = dice.chance(200);
            let local_only = false;
            let models = if lesser { vec!["lo*".to_owned()] } else { Vec::new() };
            let downgrade = lesser.then(|| "heddle".to_owned());
            let reclaimable = false;
            tenant.budgets.push(BudgetPlan {
                name,
                unit,
                per,
                limit,
                elastic,
                sub_windows,
                models,
                downgrade,
                local_only,
                reclaimable,
            });
        }
        tenant
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
    /// So many faults of these families.
    fn drawn(seed: u64, nodes: usize, wanted: u64, on: &[u64]) -> Vec<Self> {
        let mut faults = Vec::new();
        for index in 0..wanted {
            let mut dice = Dice::keyed(seed, &format!("plan/fault/{index}"));
            let family = on[dice.below(on.len() as u64) as usize];
            let mut fault = Self::seeded(&mut dice, family, nodes);
            // An operator changes budgets just then: the node must know how far it had come.
            if let FaultKind::PowerLost { ahead, .. } = &mut fault.kind {
                // Soon enough that what all promise then begins before the next minute does.
                fault.at = CALM_START.plus(Micros::millis(dice.below(4_000)));
                fault.until = fault.at.plus(Micros::millis(1_000 + dice.below(2_000)));
                let to_the_minute = FIRST_MINUTE.0.saturating_sub(fault.at.0) / 1_000;
                *ahead = (to_the_minute + dice.below(4_000)) as i64;
                let at = fault.until.plus(Micros::millis(200 + dice.below(1_000)));
                let kind = FaultKind::Relimit { tenant: 0, permille: 100 + dice.below(600) };
                faults.push(Self { at, until: at, kind });
            }
            faults.push(fault);
        }
        faults
    }

    fn seeded(dice: &mut Dice, family: u64, nodes: usize) -> Self {
        let at = CALM_START.plus(Micros(dice.below(FAULT_SPAN.0)));
        let shortest = Micros::millis(200);
        let until = at.plus(shortest).plus(Micros(dice.below(LONGEST_FAULT.0 - shortest.0)));
        let kind = match family {
            0 => FaultKind::link(dice, nodes),
            1 => FaultKind::partition(dice, nodes),
            2 => FaultKind::process(dice, nodes),
            3 => FaultKind::engine(dice, nodes),
            4 => FaultKind::disk(dice, nodes),
            5 => FaultKind::clock(dice, nodes),
            6 => FaultKind::operator(dice, nodes),
            _ => FaultKind::adversary(dice, nodes),
        };
        Self { at, until, kind }
    }
}

impl Fault {
    /// An operator purges a node's cache: all of it, an account's answers or a name's.
    fn purge(dice: &mut Dice, nodes: usize) -> Self {
        let at = CALM_START.plus(Micros(dice.below(FAULT_SPAN.0)));
        let node = any(dice, nodes);
        let account = match dice.below(4) {
            0 => Some(PAYING.to_owned()),
            1 => Some(format!("{PAYING}/team")),
            _ => None,
        };
        let model = dice.chance(250).then(|| ROUTE.to_owned());
        Self { at, until: at, kind: FaultKind::Purge { node, account, model } }
    }

    /// What goes wrong outside of the mesh.
    fn outside(dice: &mut Dice, nodes: usize, providers: usize) -> Self {
        let at = CALM_START.plus(Micros(dice.below(FAULT_SPAN.0)));
        let shortest = Micros::secs(1);
        let until = at.plus(shortest).plus(Micros(dice.below(LONGEST_FAULT.0 - shortest.0)));
        if dice.chance(250) {
            let left = if dice.chance(400) { (0..nodes).collect() } else { some(dice, nodes) };
            return Self { at, until, kind: FaultKind::InternetCut { left } };
        }
        let all = ProviderFault::ALL;
        let how = all[dice.below(all.len() as u64) as usize];
        let by = match how {
            ProviderFault::Limits => 500 + dice.below(4) * 700,
            ProviderFault::Drips => 300 + dice.below(3_000),
            ProviderFault::Overbills => 2 + dice.below(200),
            ProviderFault::Fails | ProviderFault::Hangs | ProviderFault::Cuts => 0,
        };
        let provider = any(dice, providers);
        Self { at, until, kind: FaultKind::Provider { provider, how, by } }
    }

    /// What stewards do to the route where there is one.
    fn reroutings(seed: u64, nodes: usize, cloud: &CloudPlan) -> Vec<Self> {
        let mut dice = Dice::keyed(seed, "plan/cloud/routes");
        let changes = if cloud.is_none() { 0 } else { dice.below(MOST_REROUTES + 1) };
        (0..changes).map(|_| Self::rerouting(&mut dice, nodes)).collect()
    }

    /// A steward changes the route somewhere. It is never removed: clients ask for it.
    fn rerouting(dice: &mut Dice, nodes: usize) -> Self {
        let at = CALM_START.plus(Micros(dice.below(FAULT_SPAN.0)));
        let node = any(dice, nodes);
        let how = if dice.chance(300) { Rerouting::Back } else { Rerouting::Turned };
        Self { at, until: at, kind: FaultKind::Reroute { node, how } }
    }
}

fn any(dice: &mut Dice, nodes: usize) -> usize {
    dice.below(nodes as u64) as usize
}

fn two(dice: &mut Dice, nodes: usize) -> (usize, usize) {
    let one = any(dice, nodes);
    (one, (one + 1 + dice.below(nodes as u64 - 1) as usize) % nodes)
}

/// Some of the nodes, never none nor all.
fn some(dice: &mut Dice, nodes: usize) -> Vec<usize> {
    let bits = 1 + dice.below((1 << nodes) - 2);
    (0..nodes).filter(|at| bits >> at & 1 == 1).collect()
}

impl FaultKind {
    fn link(dice: &mut Dice, nodes: usize) -> Self {
        let node = any(dice, nodes);
        match dice.below(4) {
            3 => Self::Narrow { node, each: Micros(200 + dice.below(8_000)) },
            0 => Self::Slow { node, by: Micros::millis(20 + dice.below(400)) },
            1 => Self::Lossy { node, permille: 100 + dice.below(500) },
            _ => {
                let (from, to) = two(dice, nodes);
                Self::Flapping { from, to, every: Micros::millis(100 + dice.below(2_000)) }
            }
        }
    }

    fn partition(dice: &mut Dice, nodes: usize) -> Self {
        let (from, to) = two(dice, nodes);
        match dice.below(5) {
            0 => Self::OneWay { from, to },
            1 => Self::Isolate { node: from },
            2 => Self::OneWayHalves { left: some(dice, nodes) },
            3 if nodes > 2 => {
                let mut left = some(dice, nodes);
                left.retain(|node| *node != from);
                Self::Bridge { left, node: from }
            }
            _ => Self::Halves { left: some(dice, nodes) },
        }
    }

    fn process(dice: &mut Dice, nodes: usize) -> Self {
        let node = any(dice, nodes);
        match dice.below(12) {
            0..=2 => Self::Crash { node, reset: false },
            3 | 4 => Self::Crash { node, reset: true },
            5 | 6 => Self::TornCrash { node },
            7 => Self::Wipe { node },
            8 => Self::Death { node },
            _ => Self::Pause { node },
        }
    }

    fn engine(dice: &mut Dice, nodes: usize) -> Self {
        let node = any(dice, nodes);
        match dice.below(7) {
            6 => Self::OutOfMemory { node },
            0..=2 => Self::Freeze { node },
            3 => Self::Throttle { node, times: 2 + dice.below(19) },
            4 => Self::ShortOfMemory { node },
            _ => Self::LoadFailure { node },
        }
    }

    fn disk(dice: &mut Dice, nodes: usize) -> Self {
        let node = any(dice, nodes);
        match dice.below(6) {
            5 => Self::DiskRot { node },
            0 => Self::DiskSlow { node, by: Micros::millis(5 + dice.below(1_000)) },
            1 => Self::DiskFull { node },
            2 => Self::DiskErrors { node, permille: 50 + dice.below(500) },
            3 => Self::LostWrites { node, back: Micros::millis(1 + dice.below(3_000)) },
            _ => Self::Backup { node },
        }
    }

    fn clock(dice: &mut Dice, nodes: usize) -> Self {
        let node = any(dice, nodes);
        let sign = if dice.chance(500) { 1 } else { -1 };
        match dice.below(5) {
            3 => Self::BootBack { node, by: 1_000 + dice.below(40_000) as i64 },
            4 => Self::PowerLost { node, ahead: 1 },
            0 => {
                let by = match dice.below(3) {
                    0 => 1_000,
                    1 => 60_000,
                    _ => 3_600_000,
                };
                Self::ClockOff { node, by: sign * (1 + dice.below(by) as i64) }
            }
            1 => Self::ClockDrift { node, ppm: sign * (1 + dice.below(200_000) as i64) },
            _ => Self::Boot1970 { node },
        }
    }

    fn operator(dice: &mut Dice, nodes: usize) -> Self {
        let (node, by) = two(dice, nodes);
        let tenant = dice.below(2) as usize;
        match dice.below(10) {
            6 => Self::Join { node: node.max(1) },
            7 => Self::GuessCode { node },
            8 => Self::Leave { node },
            0 | 1 => Self::Relimit { tenant, permille: 200 + dice.below(2_000) },
            2 => Self::Lower { tenant, node, permille: dice.below(900) },
            3 => Self::RevokeKey { tenant, node },
            9 => Self::Suspend { tenant, node },
            4 => Self::RevokeNode { node, by },
            _ => Self::Upgrade { node },
        }
    }

    fn adversary(dice: &mut Dice, nodes: usize) -> Self {
        let node = any(dice, nodes);
        match dice.below(5) {
            3 => Self::Garble { node },
            4 => Self::Forge { node },
            0 => Self::Replay { node },
            1 => Self::Equivocate { node },
            _ => Self::FalseAdvert { node },
        }
    }
}
