//! The quota machine alone: CPU time of a reservation with its settlement.
//!
//! Owns a policy made up on the spot and a disk that answers at once, so that what is measured is
//! the machine: the budgets of the caller, the reservation, the durable mark where one is due, the
//! settlement. Every write is counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use selvedge_base::{Dice, Machine, Micros, Mono, NodeId, Now, RequestId, Wall};
use selvedge_core::quota::{
    Charge, CostClass, Grants, Quota, QuotaEffect, QuotaInput, QuotaOptions, QuotaStored, Verdict,
};
use selvedge_crdt::escrow::{BudgetId, Holder, LedgerKey};
use selvedge_proto::policy::{
    AccountPath, Budget, BudgetSpec, Hardness, KeyId, Ledgers, Level, OnExhausted, Period, Scope,
    Standing, Unit,
};
use selvedge_tests::report::Report;
use selvedge_tests::time::cpu_time;
use selvedge_tests::unsigned::Unsigned;

/// Requests of one measurement, and measurements; the median counts.
const REQUESTS: u64 = 200_000;
const ROUNDS: usize = 5;
/// Between two requests: ten thousand a second.
const EVERY: Micros = Micros(100);
/// What a request takes at most, and takes.
const WORST: u64 = 612;
const ACTUAL: u64 = 340;
/// A day of a mid-size tenant: far more than is asked for here, so that blocks are a real part.
const LIMIT: u64 = 1_000_000_000;
/// Wall time of the measurement: any day will do.
const DAY: Wall = Wall(1_800_000_000_000);

/// A reservation with its settlement takes at most this much of a processor, disks aside.
const TARGET_US: f64 = 2.0;

/// Measures and notes everything.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    for (name, account, target) in [
        ("one_budget", "acme", Some(TARGET_US)),
        ("two_levels", "acme/line3", Some(TARGET_US)),
        ("three_levels", "acme/line3/chat", Some(TARGET_US)),
    ] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(round(&account.parse()?)?);
        }
        rounds.sort_by(|left, right| left.0.total_cmp(&right.0));
        let (us, writes) = rounds[ROUNDS / 2];
        report.note(&format!("{name}_reserve_settle_cpu_us"), us, target);
        report.note(&format!("{name}_writes_per_1000"), writes, None);
    }
    Ok(())
}

/// Microseconds a request, and writes per thousand requests.
fn round(account: &AccountPath) -> Result<(f64, f64)> {
    let me = NodeId([1; 32]);
    let mut now = Now { mono: Mono(1), wall: DAY };
    let options = QuotaOptions::default();
    let dice = Dice::keyed(1, "bench");
    let stored = QuotaStored::default();
    let mut quota = Quota::new(me, stored, Arc::new(Unsigned), dice, options, now);
    let mut shell = Shell::default();
    let book = Arc::new(Policy::of(account, quota.holder()));
    shell.step(&mut quota, now, QuotaInput::PolicyChanged { book });
    let charge = |tokens| Charge {
        tokens,
        requests: 1,
        class: CostClass::Local,
        model: "tiny".to_owned(),
        ..Charge::default()
    };
    let begun = cpu_time();
    for number in 0..REQUESTS {
        now.mono = now.mono.plus(EVERY);
        now.wall = Wall(DAY.0 + now.mono.0 / 1_000);
        if quota.wake_at().is_some_and(|at| at <= now.mono) {
            shell.step(&mut quota, now, QuotaInput::Ticked);
        }
        let id = RequestId(u128::from(number));
        let (account, lease) = (account.clone(), Micros::secs(60));
        let asked = QuotaInput::Asked { id, account, key: None, worst: charge(WORST), lease };
        shell.step(&mut quota, now, asked);
        shell.step(&mut quota, now, QuotaInput::Settled { id, actual: charge(ACTUAL) });
    }
    let used = cpu_time().saturating_sub(begun);
    ensure!(shell.granted == REQUESTS, "{} of {REQUESTS} were granted", shell.granted);
    let spent: u64 = quota.status(now).iter().map(|status| status.spent).min().unwrap_or(0);
    ensure!(spent == REQUESTS * ACTUAL, "{spent} were spent");
    let each = used.as_secs_f64() * 1e6 / REQUESTS as f64;
    Ok((each, shell.writes as f64 * 1e3 / REQUESTS as f64))
}

/// Carries out what the machine orders: writes are durable at once, answers are counted.
#[derive(Default)]
struct Shell {
    effects: Vec<QuotaEffect>,
    spare: Vec<QuotaEffect>,
    granted: u64,
    writes: u64,
}

impl Shell {
    fn step(&mut self, quota: &mut Quota, now: Now, input: QuotaInput) {
        quota.step(now, input, &mut self.effects);
        while !self.effects.is_empty() {
            std::mem::swap(&mut self.effects, &mut self.spare);
            for effect in self.spare.drain(..) {
                match effect {
                    QuotaEffect::Persist { ticket, .. } => {
                        self.writes += 1;
                        quota.step(now, QuotaInput::Persisted { ticket }, &mut self.effects);
                    }
                    QuotaEffect::Answer { verdict: Verdict::Granted { .. }, .. } => {
                        self.granted += 1;
                    }
                    QuotaEffect::Answer { .. }
                    | QuotaEffect::Send { .. }
                    | QuotaEffect::Report(_) => {}
                }
            }
        }
    }
}

/// One budget at every level of an account, all granted to one holder.
#[derive(Debug)]
struct Policy {
    budgets: Arc<[Arc<Budget>]>,
    holder: Holder,
}

impl Policy {
    fn of(account: &AccountPath, holder: Holder) -> Self {
        let levels = account.as_str().split('/').count();
        let budgets = (1..=levels).filter_map(|level| {
            let path: Vec<&str> = account.as_str().split('/').take(level).collect();
            let account = path.join("/").parse().ok()?;
            let spec = BudgetSpec {
                name: "tokens-day".to_owned(),
                unit: Unit::Tokens,
                period: Period::Day,
                limit: LIMIT,
                hardness: Hardness::Hard,
                on_exhausted: OnExhausted::Refuse,
                scope: Scope::All,
                sub_windows: 1,
                reclaimable: false,
                born: 1,
                ledger: 1,
                set: DAY,
            };
            let level_of = Level { account, key: None };
            let id = BudgetId([level as u8; 16]);
            Some(Arc::new(Budget { id, level: level_of, spec, limit: LIMIT }))
        });
        Self { budgets: budgets.collect(), holder }
    }
}

impl Grants for Policy {
    fn budgets_of(&self, _: &AccountPath, _: Option<&KeyId>) -> Arc<[Arc<Budget>]> {
        Arc::clone(&self.budgets)
    }

    fn budgets(&self) -> Vec<Arc<Budget>> {
        self.budgets.to_vec()
    }

    fn budget(&self, id: &BudgetId) -> Option<Arc<Budget>> {
        self.budgets.iter().find(|budget| budget.id == *id).cloned()
    }

    fn standing(&self, budget: &BudgetId, wall: Wall) -> Standing {
        let first = LedgerKey { budget: *budget, window: Period::Day.window(wall) };
        Standing::Open(Ledgers { first, also: [None; _], guest: false })
    }

    fn grant(&self, _: &LedgerKey, holder: &Holder, _: Wall) -> u64 {
        if *holder == self.holder { LIMIT } else { 0 }
    }

    fn ceiling(&self, key: &LedgerKey, holder: &Holder) -> Option<u64> {
        Some(self.grant(key, holder, DAY))
    }

    fn members(&self, _: &LedgerKey, _: Wall) -> BTreeSet<Holder> {
        BTreeSet::from([self.holder])
    }

    fn changes_at(&self, _: &BudgetId, wall: Wall) -> Wall {
        Period::Day.end(Period::Day.window(wall))
    }

    fn resets_at(&self, key: &LedgerKey) -> Option<Wall> {
        Some(Period::Day.end(key.window))
    }
}
