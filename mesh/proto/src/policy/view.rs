//! What a tenant's epochs and cuts grant together: worked out once per change, looked up often.
//!
//! Owns every answer about one budget: whether it counts, in which ledger, and who is granted what.
//! The rule behind it is in `force`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_base::{NodeId, Wall};
use selvedge_crdt::escrow::{BudgetId, Holder, LedgerKey};

use super::chain::{Chain, Held};
use super::force::{Below, LINGER, Ledgers, Reign, Standing, Stop, Verdict, govern, lingering};
use super::share::{Split, vested, vests_next};
use super::{BudgetSpec, CutNotice, CutOrder, Epoch, Hardness, Level};
use crate::records::CLOCK_SKEW;

/// A budget as requests meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its identity, which its ledgers are named after.
    pub id: BudgetId,
    /// What it hangs under.
    pub level: Level,
    /// What the newest epoch says of it; hard for as long as any epoch that may govern says so.
    pub spec: BudgetSpec,
    /// The limit after cuts.
    pub limit: u64,
}

/// Cuts of one budget that none of the others makes superfluous.
pub(super) type Cuts<'a> = &'a dyn Fn(&Level, &str) -> Vec<Arc<CutNotice>>;

/// One budget over all epochs that are kept.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) budget: Arc<Budget>,
    reigns: Arc<[Reign]>,
    /// What epochs say of it, oldest first; at least one.
    versions: Vec<Version>,
    /// When its first window began.
    began: Wall,
}

#[derive(Clone, Debug)]
struct Version {
    /// Of the epoch in `reigns`.
    place: usize,
    spec: BudgetSpec,
    held: Arc<Held>,
    /// By the epoch alone.
    own: Split,
    /// After cuts.
    cut: Split,
    /// Whether this node holds rights by it.
    mine: bool,
}

impl Version {
    fn share(&self, split: &Split, holder: &Holder, window: u64) -> u64 {
        split.of(&self.held.body().members, holder, window)
    }
}

/// Every budget of a tenant.
pub(super) fn entries(chain: &Chain, me: &NodeId, cuts: Cuts<'_>) -> Vec<Entry> {
    let reigns: Arc<[Reign]> = chain.reigns(me).into();
    let mut found: BTreeMap<BudgetId, (Level, Vec<Version>)> = BTreeMap::new();
    for (place, slot) in chain.slots.values().enumerate() {
        let body = slot.body();
        for (level, spec) in body.budgets() {
            let limit = cut_limit(spec, &cuts(level, &spec.name));
            let version = Version {
                place,
                spec: spec.clone(),
                held: slot.held.clone(),
                own: Split::new(spec.limit, &body.members),
                cut: Split::new(limit, &body.members),
                mine: slot.both().any(|held| held.body().has_node(me)),
            };
            let id = Epoch::budget_id(&body.mesh, level, spec);
            found.entry(id).or_insert_with(|| (level.clone(), Vec::new())).1.push(version);
        }
    }
    let entry = |(id, (level, versions))| Entry::new(id, level, versions, reigns.clone());
    found.into_iter().filter_map(entry).collect()
}

/// The limit after cuts that were made since it was chosen.
fn cut_limit(spec: &BudgetSpec, cuts: &[Arc<CutNotice>]) -> u64 {
    let counts = |notice: &&Arc<CutNotice>| notice.signed.body.at > spec.set;
    let lowered = cuts.iter().filter(counts).filter_map(|notice| match &notice.signed.body.order {
        CutOrder::Budget { limit, .. } => Some(*limit),
        CutOrder::Key(_) | CutOrder::KeyUntil { .. } | CutOrder::Account(_) => None,
    });
    lowered.fold(spec.limit, u64::min)
}

impl Entry {
    fn new(
        id: BudgetId,
        level: Level,
        versions: Vec<Version>,
        reigns: Arc<[Reign]>,
    ) -> Option<Self> {
        let newest = versions.last()?;
        let mut spec = newest.spec.clone();
        if versions.iter().any(|version| version.spec.hardness == Hardness::Hard) {
            spec.hardness = Hardness::Hard;
        }
        let birth = reigns.iter().find(|reign| reign.number == spec.born);
        let began = birth.map_or(Wall(0), |reign| {
            if spec.unit.is_windowed() { spec.period.start_at(reign.from) } else { reign.from }
        });
        let limit = newest.cut.limit;
        let budget = Arc::new(Budget { id, level, spec, limit });
        Some(Self { budget, reigns, versions, began })
    }

    fn spec(&self) -> &BudgetSpec {
        &self.budget.spec
    }

    fn version(&self, place: usize) -> Option<&Version> {
        let found = self.versions.binary_search_by_key(&place, |version| version.place).ok()?;
        Some(&self.versions[found])
    }

    fn ledger(&self, window: u64) -> LedgerKey {
        LedgerKey { budget: self.budget.id, window }
    }

    /// When the window begins that governs a ledger; permits and rates are governed by the moment.
    fn start(&self, window: u64, wall: Wall) -> Wall {
        if self.spec().unit.is_windowed() { self.spec().period.start(window) } else { wall }
    }

    fn govern(&self, start: Wall, mut visit: impl FnMut(usize, Option<&Version>)) -> Verdict {
        govern(&self.reigns, start, self.spec().born, self.began, |place| {
            visit(place, self.version(place));
        })
    }

    /// Whether this node's clock is before everything that is known.
    fn is_before_all(&self, wall: Wall) -> bool {
        self.reigns.iter().all(|reign| wall.plus(CLOCK_SKEW) < reign.issued.min(reign.from))
    }

    /// Whether it counts at `wall`, and where.
    pub(super) fn standing(&self, wall: Wall) -> Standing {
        if self.is_before_all(wall) {
            return Standing::Stopped(Stop::Clock);
        }
        let window = self.spec().period.window(wall);
        let mut said = Vec::new();
        let verdict = self.govern(self.start(window, wall), |place, version| {
            said.extend(version.map(|_| place));
        });
        if let Some(number) = verdict.forked {
            return Standing::Stopped(Stop::Forked { number });
        }
        if said.is_empty() && !verdict.missing {
            return match verdict.lapsed {
                Some(since) => Standing::Stopped(Stop::Lapsed { since }),
                None => Standing::Free,
            };
        }
        if self.spec().unit.is_windowed() {
            return Standing::Open(Ledgers::one(self.ledger(window)));
        }
        self.gates(said, wall)
    }

    /// The ledgers in which a permit needs a right; `governing` are the places that may govern.
    fn gates(&self, mut governing: Vec<usize>, wall: Wall) -> Standing {
        let unsettled = Standing::Stopped(Stop::Unsettled);
        let Some(newest) = governing.first().and_then(|place| self.version(*place)) else {
            return unsettled;
        };
        governing.extend(lingering(&self.reigns, wall));
        let versions = || governing.iter().filter_map(|place| self.version(*place));
        // What is missing below may have counted in other ledgers: in those before this one's,
        // until the epoch that began this one was in force.
        let rests = |version: &Version| {
            let reign = &self.reigns[version.place];
            let began = version.spec.ledger == reign.number;
            let settled = if began { reign.hi } else { reign.prev_hi };
            let aged = version.spec.born < reign.number && reign.below != Below::Nothing;
            aged && wall < settled.plus(LINGER)
        };
        if versions().any(rests) {
            return unsettled;
        }
        let mut gates = Ledgers::one(self.ledger(newest.spec.ledger));
        gates.guest = !newest.mine;
        if versions().all(|version| gates.add(self.ledger(version.spec.ledger))) {
            Standing::Open(gates)
        } else {
            unsettled
        }
    }

    /// What `holder` was granted, as vested at `wall`.
    pub(super) fn grant(&self, key: &LedgerKey, holder: &Holder, wall: Wall) -> u64 {
        if self.is_before_all(wall) {
            return 0;
        }
        let windowed = self.spec().unit.is_windowed();
        let mut least = None;
        let verdict = self.govern(self.start(key.window, wall), |_, version| {
            let Some(version) = version.filter(|_| windowed) else { return };
            let share = version.share(&version.cut, holder, key.window);
            let share = vested(share, &version.spec, key.window, wall);
            least = Some(least.map_or(share, |least: u64| least.min(share)));
        });
        if verdict.forked.is_some() || verdict.lapsed.is_some() {
            return 0;
        }
        if !windowed {
            let of_ledger = |version: &&Version| version.spec.ledger == key.window;
            let versions = self.versions.iter().filter(of_ledger);
            let share = |version: &Version| version.share(&version.cut, holder, key.window);
            return versions.map(share).min().unwrap_or(0);
        }
        if verdict.missing {
            return 0;
        }
        // Without an epoch that limits the window nobody counts in it.
        least.unwrap_or(0)
    }

    /// The most `holder` may have been granted by anything known here, cuts and vesting aside.
    /// None when the ledger may be governed by an epoch that is not known here.
    pub(super) fn ceiling(&self, key: &LedgerKey, holder: &Holder) -> Option<u64> {
        let share = |version: &Version| version.share(&version.own, holder, key.window);
        if !self.spec().unit.is_windowed() {
            let of_ledger = |version: &&Version| version.spec.ledger == key.window;
            return self.versions.iter().filter(of_ledger).map(share).max();
        }
        let start = self.spec().period.start(key.window);
        let mut most = None;
        let verdict = self.govern(start, |_, version| most = most.max(version.map(share)));
        if verdict.missing || verdict.forked.is_some() { None } else { most }
    }

    /// Everybody who is granted part of a ledger by an epoch that may govern it.
    pub(super) fn members(&self, key: &LedgerKey, wall: Wall) -> BTreeSet<Holder> {
        let mut all = BTreeSet::new();
        self.versions_of(key, wall, |version| {
            all.extend(version.held.body().members.iter().map(|(holder, _)| *holder));
        });
        all
    }

    /// Whether `holder` is one of them.
    pub(super) fn is_member(&self, key: &LedgerKey, holder: &Holder, wall: Wall) -> bool {
        let mut found = false;
        self.versions_of(key, wall, |version| found |= version.held.body().has_member(holder));
        found
    }

    /// Visits what the epochs that may govern a ledger say of it.
    fn versions_of(&self, key: &LedgerKey, wall: Wall, mut visit: impl FnMut(&Version)) {
        if self.spec().unit.is_windowed() {
            let start = self.start(key.window, wall);
            self.govern(start, |_, version| version.into_iter().for_each(&mut visit));
        } else {
            let of_ledger = |version: &&Version| version.spec.ledger == key.window;
            self.versions.iter().filter(of_ledger).for_each(visit);
        }
    }

    /// Who must agree, group by group, before a mark of a reclaimable budget counts: the members of
    /// every epoch that may govern the ledger. Nobody where that is not certain, or nothing counts.
    ///
    /// Whichever epoch does govern is among them for everybody who may use anything (`force`), so
    /// any two majorities of all groups have a node in common.
    pub(super) fn voters(&self, key: &LedgerKey, wall: Wall) -> Vec<Vec<Holder>> {
        if !self.spec().reclaimable || self.is_before_all(wall) {
            return Vec::new();
        }
        let mut groups = Vec::new();
        let verdict = self.govern(self.start(key.window, wall), |_, version| {
            let members = version.into_iter().flat_map(|version| &version.held.body().members);
            groups.push(members.map(|(holder, _)| *holder).collect::<Vec<Holder>>());
        });
        if verdict.missing || verdict.forked.is_some() || verdict.lapsed.is_some() {
            return Vec::new();
        }
        groups.retain(|group| !group.is_empty());
        groups
    }

    /// The next moment at which an answer about it may change although no record does.
    pub(super) fn changes_at(&self, wall: Wall) -> Wall {
        let clock = self.reigns.iter().map(|reign| reign.issued.min(reign.from).minus(CLOCK_SKEW));
        let first = clock.min().filter(|clock| *clock > wall).unwrap_or(Wall(u64::MAX));
        if self.spec().unit.is_windowed() {
            let window = self.spec().period.window(wall);
            let vests = |version: &Version| vests_next(&version.spec, window, wall);
            let next = self.versions.iter().map(vests).min();
            return next.unwrap_or(Wall(u64::MAX)).min(self.spec().period.end(window)).min(first);
        }
        let edges = self.reigns.iter().flat_map(|reign| {
            let (hi, prev) = (reign.hi, reign.prev_hi);
            [reign.from, reign.lo, hi, reign.until, hi.plus(LINGER), prev.plus(LINGER)]
        });
        edges.filter(|edge| *edge > wall).min().unwrap_or(Wall(u64::MAX)).min(first)
    }

    /// Whether the newest epoch has it no more and its last window is over.
    pub(super) fn is_over(&self, wall: Wall) -> bool {
        let removed = self.versions.last().is_none_or(|last| last.place + 1 < self.reigns.len());
        removed && self.standing(wall) == Standing::Free
    }
}
