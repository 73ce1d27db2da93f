//! A book in parts, for the disk: one for every tenant's epochs and one for every other record, so
//! that no part grows with the mesh and a change writes what changed.

use std::collections::BTreeMap;

use selvedge_base::MeshId;
use selvedge_crdt::Signature;
use serde::{Deserialize, Serialize};

use super::chain::ChainSnapshot;
use super::{
    AccountGrant, AccountPath, CutNotice, GrantNotice, KeyNotice, PolicyBook, PolicySnapshot,
};

/// One part of what a book holds; stored under a version byte and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPart(Part);

/// New kinds come last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Part {
    Chain(AccountPath, ChainSnapshot),
    Account(GrantNotice<AccountGrant>),
    Key(KeyNotice),
    Cut(CutNotice),
}

impl PolicyBook {
    /// What to store, by names of at most 200 bytes.
    pub fn parts(&self) -> BTreeMap<String, PolicyPart> {
        let chains = self.chains.iter().map(|(path, chain)| {
            (format!("epochs {path}"), Part::Chain(path.clone(), chain.snapshot()))
        });
        let accounts = self.accounts.iter().map(|(path, notice)| {
            (format!("account {path}"), Part::Account(GrantNotice::clone(notice)))
        });
        let keys = self
            .keys
            .iter()
            .map(|(id, notice)| (format!("key {id}"), Part::Key(GrantNotice::clone(notice))));
        // There may be several of one budget.
        let cuts = self.cuts.iter().map(|notice| {
            let name = format!("cut {}", short(&notice.signed.signature));
            (name, Part::Cut(GrantNotice::clone(notice)))
        });
        let parts = chains.chain(accounts).chain(keys).chain(cuts);
        parts.map(|(name, part)| (name, PolicyPart(part))).collect()
    }
}

impl PolicySnapshot {
    /// The parts together, as a build before them stored all of it.
    pub fn of_parts(mesh: MeshId, parts: impl IntoIterator<Item = PolicyPart>) -> Self {
        let mut whole = PolicyBook::new(mesh, selvedge_base::NodeId([0; 32])).snapshot();
        for PolicyPart(part) in parts {
            match part {
                Part::Chain(path, chain) => whole.chains.push((path, chain)),
                Part::Account(notice) => whole.accounts.push(notice),
                Part::Key(notice) => whole.keys.push(notice),
                Part::Cut(notice) => whole.cuts.push(notice),
            }
        }
        whole
    }
}

/// As good as a number of its own: half of a signature, in hexadecimal.
fn short(signature: &Signature) -> String {
    signature.0[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
