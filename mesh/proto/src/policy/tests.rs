#![allow(clippy::unwrap_used, clippy::expect_used)]

mod epochs;
mod forget;
mod keys;
mod never_twice;
mod spread;

use ed25519_dalek::SigningKey;
use selvedge_base::{MeshId, NodeId, Wall};
use selvedge_crdt::escrow::{BudgetId, Holder};

use super::*;
use crate::records::{
    CLOCK_SKEW, Roster, STEWARD_LEASE, Signed, Signer, Steward, grant_steward, rotate_root,
};

/// 2026-11-22T21:50:34Z.
pub(super) const START: Wall = Wall(1_795_384_234_000);
pub(super) const MINUTE: Micros = Micros::secs(60);
pub(super) const HOUR: Micros = Micros::secs(3_600);
pub(super) const DAY: Micros = Micros::secs(24 * 3_600);

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

fn terms(name: &str, unit: Unit, limit: u64) -> BudgetTerms {
    BudgetTerms::from(&spec(name, unit, limit))
}

fn key(name: u8) -> SigningKey {
    SigningKey::from_bytes(&[name; 32])
}

fn node(key: &SigningKey) -> NodeId {
    NodeId(key.public())
}

fn path(text: &str) -> AccountPath {
    text.parse().unwrap()
}

fn level(text: &str) -> Level {
    text.parse().unwrap()
}

/// A mesh with its root key, a steward and some nodes that hold rights.
struct Site {
    mesh: MeshId,
    root: SigningKey,
    steward_key: SigningKey,
    steward: Signed<Steward>,
    nodes: Vec<SigningKey>,
}

fn site(nodes: u8) -> Site {
    let (root, steward_key) = (key(1), key(2));
    let mesh = MeshId(root.public());
    let steward = grant_steward(&root, mesh, 0, node(&steward_key), START, STEWARD_LEASE);
    Site { mesh, root, steward_key, steward, nodes: (10..10 + nodes).map(key).collect() }
}

impl Site {
    fn holder(&self, at: usize) -> Holder {
        Holder { node: node(&self.nodes[at]), incarnation: 1 }
    }

    /// Everybody with the same weight.
    fn members(&self) -> Vec<(Holder, u32)> {
        let mut all: Vec<_> = (0..self.nodes.len()).map(|at| (self.holder(at), 1)).collect();
        all.sort();
        all
    }

    fn roster(&self, at: usize) -> Roster {
        Roster::new(self.mesh, node(&self.nodes[at]))
    }

    fn book(&self, at: usize) -> PolicyBook {
        PolicyBook::new(self.mesh, node(&self.nodes[at]))
    }

    /// The first epoch of `acme`, with these budgets.
    fn draft(&self, wall: Wall, budgets: &[(&str, BudgetTerms)]) -> EpochDraft {
        let mut draft = EpochDraft::first(path("acme"), self.members(), wall);
        for (at, terms) in budgets {
            draft.set(level(at), terms.clone());
        }
        draft
    }
}

fn only(book: &PolicyBook, name: &str) -> BudgetId {
    let mut named = book.budgets().filter(|budget| budget.spec.name == name);
    let id = named.next().unwrap().id;
    assert!(named.next().is_none(), "two budgets are named {name}");
    id
}

/// Everything `from` has reaches `to`.
fn tell_all(from: &PolicyBook, to: &mut PolicyBook, roster: &Roster, wall: Wall) -> Changed {
    let mut all = Changed::default();
    for turn in 0..64 {
        let delta = from.delta(&to.digest(turn), POLICY_BUDGET_BYTES);
        if delta == PolicyDelta::default() {
            break;
        }
        let changed = to.apply(delta, roster, wall);
        all.policy |= changed.policy;
        all.keys_revoked.extend(changed.keys_revoked);
        all.epochs.extend(changed.epochs);
        all.refused.extend(changed.refused);
    }
    all
}
