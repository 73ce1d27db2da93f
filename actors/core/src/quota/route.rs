//! From a caller to the purses its requests draw from.

use std::sync::Arc;

use selvedge_base::Now;
use selvedge_proto::policy::{AccountPath, Budget, KeyId};

use super::charge::{Charge, CostClass};
use super::reserve::{MAX_SHARES, Share};
use super::{MAX_BUDGETS, Quota, QuotaEffect};

/// Callers whose purses are remembered; more are looked up in the policy again.
const MAX_ROUTES: usize = 4_096;

impl Quota {
    /// What a charge takes of every budget of its caller; false when there is no room for another
    /// budget or share.
    pub(super) fn shares_of(
        &mut self,
        now: Now,
        account: &AccountPath,
        key: Option<KeyId>,
        charge: &Charge,
        shares: &mut Vec<Share>,
        effects: &mut Vec<QuotaEffect>,
    ) -> bool {
        let known = self.routes.get(account).and_then(|keys| keys.get(&key)).cloned();
        let Some(places) = known.or_else(|| self.route(now, account, key, effects)) else {
            return false;
        };
        shares.clear();
        for place in places.iter() {
            let spec = &self.purses[*place].budget.spec;
            let cloud = charge.class == CostClass::Cloud;
            let amount = charge.cost(spec.unit);
            if amount > 0 && spec.scope.counts(&charge.model, cloud) {
                shares.push(Share { place: *place, window: 0, amount });
            }
        }
        shares.len() <= MAX_SHARES
    }

    /// Finds the purses of a caller in the policy.
    fn route(
        &mut self,
        now: Now,
        account: &AccountPath,
        key: Option<KeyId>,
        effects: &mut Vec<QuotaEffect>,
    ) -> Option<Arc<[usize]>> {
        let budgets = self.book.budgets_of(account, key.as_ref());
        let places: Option<Vec<usize>> =
            budgets.iter().map(|budget| self.place_of(budget.clone(), now, effects)).collect();
        let places: Arc<[usize]> = places?.into();
        if self.routes.len() >= MAX_ROUTES {
            self.routes.clear();
        }
        let keys = self.routes.entry(account.clone()).or_default();
        if keys.len() >= MAX_ROUTES {
            keys.clear();
        }
        keys.insert(key, places.clone());
        Some(places)
    }

    /// The purse of a budget, made if there is room.
    pub(super) fn place_of(
        &mut self,
        budget: Arc<Budget>,
        now: Now,
        effects: &mut Vec<QuotaEffect>,
    ) -> Option<usize> {
        if let Some(place) = self.places.get(&budget.id) {
            return Some(*place);
        }
        let id = budget.id;
        let place = if self.purses.len() < MAX_BUDGETS {
            self.purses.len()
        } else {
            self.purses.iter().position(|purse| self.is_forgotten(purse))?
        };
        let mut purse = self.wake(budget);
        if let Some(before) = self.purses.get_mut(place) {
            std::mem::swap(before, &mut purse);
            self.put_to_rest(purse);
        } else {
            self.purses.push(purse);
        }
        self.places.insert(id, place);
        self.refresh(place, now, effects);
        Some(place)
    }
}
