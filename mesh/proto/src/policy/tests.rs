#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use selvedge_base::Wall;

pub(super) const START: Wall = Wall(1_795_384_234_000);

/// A plain hard budget by the hour.
pub(super) fn spec(name: &str, unit: Unit, limit: u64) -> BudgetSpec {
    BudgetSpec {
        name: name.to_owned(),
        unit,
        period: Period::Hour,
        limit,
        hardness: Hardness::Hard,
        on_exhausted: OnExhausted::Refuse,
        scope: Scope::All,
        sub_windows: 1,
        reclaimable: false,
        born: 1,
        ledger: 1,
        set: START,
    }
}
