//! What a reservation and its settlement cost in processor time: the machine alone, with writes
//! that are durable at once and a signature that costs nothing.
//!
//! `cargo run --release -p selvedge-core --example quota_bench` prints nanoseconds per reservation
//! and settlement, for one and four levels, few and many budgets and holders.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use selvedge_base::{Dice, Machine, Micros, Mono, NodeId, Now, RequestId, Wall};
use selvedge_core::quota::{
    Charge, Grants, Quota, QuotaEffect, QuotaInput, QuotaMessage, QuotaOptions, QuotaStored,
    Verdict,
};
use selvedge_crdt::Signature;
use selvedge_crdt::escrow::{BudgetId, EscrowRow, Holder, LedgerKey, Seal, SignedRow};
use selvedge_proto::policy::{
    AccountPath, Budget, BudgetSpec, Hardness, KeyId, Ledgers, Level, OnExhausted, Period, Scope,
    Standing, Unit,
};

const ROUNDS: u64 = 200_000;

/// Every budget belongs to `holders` equal holders.
#[derive(Debug)]
struct Equal {
    budgets: Vec<Arc<Budget>>,
    places: BTreeMap<BudgetId, usize>,
    by_account: BTreeMap<AccountPath, Arc<[Arc<Budget>]>>,
    holders: BTreeSet<Holder>,
}

impl Equal {
    fn new(levels: usize, count: usize, holders: u64) -> Self {
        let mut budgets = Vec::new();
        let mut by_account = BTreeMap::new();
        let names = ["", "/line", "/line/chat"];
        for tenant in 0..count.div_ceil(levels) {
            let mut own: Vec<Arc<Budget>> = Vec::new();
            for level in 0..levels {
                let path = format!("t{tenant}{}", names[level.min(2)]);
                let spec = BudgetSpec {
                    name: format!("b{level}"),
                    unit: Unit::Tokens,
                    period: Period::Month,
                    limit: 1 << 50,
                    hardness: Hardness::Hard,
                    on_exhausted: OnExhausted::Refuse,
                    scope: Scope::All,
                    sub_windows: 1,
                    reclaimable: false,
                    born: 1,
                    ledger: 1,
                    set: Wall(0),
                };
                let mut id = [0; 16];
                id[..8].copy_from_slice(&(budgets.len() as u64).to_be_bytes());
                let budget = Arc::new(Budget {
                    id: BudgetId(id),
                    level: Level::of(path.parse().unwrap()),
                    limit: spec.limit,
                    spec,
                });
                budgets.push(budget.clone());
                own.push(budget);
            }
            let path: AccountPath = format!("t{tenant}/line/chat").parse().unwrap();
            by_account.insert(path, Arc::from(own));
        }
        let places = budgets.iter().enumerate().map(|(at, budget)| (budget.id, at)).collect();
        Self { budgets, places, by_account, holders: (0..holders).map(holder).collect() }
    }
}

impl Grants for Equal {
    fn budgets_of(&self, account: &AccountPath, _: Option<&KeyId>) -> Arc<[Arc<Budget>]> {
        self.by_account.get(account).cloned().unwrap_or_else(|| Arc::from([]))
    }

    fn budgets(&self) -> Vec<Arc<Budget>> {
        self.budgets.clone()
    }

    fn budget(&self, id: &BudgetId) -> Option<Arc<Budget>> {
        self.places.get(id).map(|at| self.budgets[*at].clone())
    }

    fn standing(&self, id: &BudgetId, wall: Wall) -> Standing {
        let first = LedgerKey { budget: *id, window: Period::Month.window(wall) };
        Standing::Open(Ledgers { first, also: [None; 2], guest: false })
    }

    fn grant(&self, _: &LedgerKey, holder: &Holder, _: Wall) -> u64 {
        let granted = (1 << 50) / self.holders.len() as u64;
        if self.holders.contains(holder) { granted } else { 0 }
    }

    fn ceiling(&self, key: &LedgerKey, holder: &Holder) -> Option<u64> {
        Some(self.grant(key, holder, Wall(0)))
    }

    fn members(&self, _: &LedgerKey, _: Wall) -> BTreeSet<Holder> {
        self.holders.clone()
    }

    fn changes_at(&self, _: &BudgetId, wall: Wall) -> Wall {
        Period::Month.end(Period::Month.window(wall))
    }

    fn resets_at(&self, key: &LedgerKey) -> Option<Wall> {
        Some(Period::Month.end(key.window))
    }
}

fn holder(at: u64) -> Holder {
    let mut node = [0; 32];
    node[..8].copy_from_slice(&at.to_be_bytes());
    Holder { node: NodeId(node), incarnation: 0 }
}

struct Free;

impl Seal for Free {
    fn sign(&self, _: &[u8]) -> Signature {
        Signature([0; 32], [0; 32])
    }

    fn is_signed(&self, _: &NodeId, _: &[u8], _: &Signature) -> bool {
        true
    }
}

struct Bench {
    quota: Quota,
    now: Now,
    effects: Vec<QuotaEffect>,
    writes: u64,
    granted: u64,
}

impl Bench {
    fn new(book: Equal, me: Holder) -> Self {
        let now = Now { mono: Mono(1), wall: Wall(1_795_384_800_000) };
        let dice = Dice::keyed(1, "bench");
        let stored = QuotaStored {
            header: Some(selvedge_core::quota::QuotaHeader::default()),
            ..QuotaStored::default()
        };
        let quota = Quota::new(me.node, stored, Arc::new(Free), dice, QuotaOptions::default(), now);
        let mut bench = Self { quota, now, effects: Vec::new(), writes: 0, granted: 0 };
        bench.step(QuotaInput::PolicyChanged { book: Arc::new(book) });
        bench
    }

    /// Takes a step, and makes every write durable at once.
    fn step(&mut self, input: QuotaInput) {
        self.quota.step(self.now, input, &mut self.effects);
        while let Some(effect) = self.effects.pop() {
            match effect {
                QuotaEffect::Persist { ticket, .. } => {
                    self.writes += 1;
                    let done = QuotaInput::Persisted { ticket };
                    self.quota.step(self.now, done, &mut self.effects);
                }
                QuotaEffect::Answer { verdict: Verdict::Granted { .. }, .. } => self.granted += 1,
                QuotaEffect::Answer { .. } | QuotaEffect::Send { .. } | QuotaEffect::Report(_) => {}
            }
        }
    }
}

fn measure(levels: usize, budgets: usize, holders: u64) {
    let book = Equal::new(levels, budgets, holders);
    let ids: Vec<BudgetId> = book.budgets.iter().map(|budget| budget.id).collect();
    let accounts: Vec<AccountPath> = book.by_account.keys().cloned().collect();
    let mut bench = Bench::new(book, holder(0));
    // Every other holder has written a row in every ledger.
    for id in &ids {
        let key = LedgerKey { budget: *id, window: Period::Month.window(bench.now.wall) };
        for other in 1..holders {
            let mut row = EscrowRow::new(key, holder(other));
            (row.seq, row.hw) = (1, 1_000);
            let signed = SignedRow { row, signature: Signature([0; 32], [0; 32]) };
            let message = QuotaMessage::Rows(vec![signed]);
            bench.step(QuotaInput::Received { from: holder(other).node, message });
        }
    }
    bench.writes = 0;
    let started = Instant::now();
    for round in 0..ROUNDS {
        let id = RequestId(round.into());
        let worst = Charge { tokens: 500, requests: 1, ..Charge::default() };
        let account = accounts[round as usize % accounts.len()].clone();
        let lease = Micros::secs(60);
        bench.step(QuotaInput::Asked { id, account, key: None, worst, lease });
        let actual = Charge { tokens: 200, requests: 1, ..Charge::default() };
        bench.step(QuotaInput::Settled { id, actual });
        bench.now.mono.0 += 1_000;
        bench.now.wall.0 += 1;
        if bench.quota.wake_at().is_some_and(|at| at <= bench.now.mono) {
            bench.step(QuotaInput::Ticked);
        }
    }
    let ns = started.elapsed().as_nanos() as u64 / ROUNDS;
    assert_eq!(bench.granted, ROUNDS);
    println!(
        "{levels} levels, {budgets:>5} budgets, {holders:>3} holders: {ns:>6} ns, a write every \
         {} reservations",
        ROUNDS / bench.writes.max(1)
    );
}

fn main() {
    for (levels, budgets, holders) in [
        (1, 10, 5),
        (4, 12, 5),
        (1, 1_000, 5),
        (4, 1_000, 5),
        (1, 10, 200),
        (4, 12, 200),
        (4, 400, 200),
    ] {
        measure(levels, budgets, holders);
    }
}
