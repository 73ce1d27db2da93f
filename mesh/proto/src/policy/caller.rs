//! Who a secret belongs to, and what it may be used for.

use selvedge_base::Wall;
use selvedge_base::plant::{self, Plant};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::terms::matches;
use super::{AccountPath, KEY_PREFIX, KeyGrant, KeyId, PolicyBook};
use crate::records::CLOCK_SKEW;

/// The owner of a good secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its key.
    pub key: KeyId,
    /// Whose requests it makes.
    pub account: AccountPath,
    /// Models it may use; none listed means all.
    pub models: Vec<String>,
    /// Routes it may use; none listed means all.
    pub routes: Vec<String>,
}

/// Why a secret opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyProblem {
    /// No such key.
    #[error("this key is not known to the mesh")]
    Unknown,
    /// It was revoked.
    #[error("key {0} was revoked")]
    Revoked(KeyId),
    /// It is over.
    #[error("key {id} expired {ago_s} s ago; ask for a new one")]
    Expired {
        /// Which.
        id: KeyId,
        /// Seconds since.
        ago_s: u64,
    },
    /// It is not valid yet, or this node's clock is wrong.
    #[error("key {id} begins {ahead_s} s in the future; check this node's clock")]
    NotYet {
        /// Which.
        id: KeyId,
        /// Seconds ahead.
        ahead_s: u64,
    },
    /// Its account is suspended.
    #[error("account '{0}' is suspended")]
    Suspended(AccountPath),
}

impl Caller {
    /// Whether the key may use a model.
    pub fn may_use(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| matches(pattern, model))
    }

    /// Whether the key may use a route.
    pub fn may_call(&self, route: &str) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|allowed| allowed == route)
    }
}

impl PolicyBook {
    /// Whose a secret is. The key is found by its id, which is no secret; the whole hash is then
    /// compared in constant time.
    ///
    /// # Errors
    /// [`KeyProblem`].
    pub fn verify(&self, secret: &str, wall: Wall) -> Result<Caller, KeyProblem> {
        if !secret.starts_with(KEY_PREFIX) {
            return Err(KeyProblem::Unknown);
        }
        let hash = KeyGrant::hash_by(&self.pepper, secret);
        let id = KeyGrant::id_of(&hash);
        let held = self.keys.get(&id).map(|notice| &notice.signed.body);
        let known = held.map_or([0; 32], |grant| grant.hash);
        let same = bool::from(known.ct_eq(&hash));
        let Some(grant) = held.filter(|_| same) else {
            // Whoever knows a secret of this id knows the secret: 64 bits of its hash fit.
            let revoked = self.cuts.keys.contains_key(&id);
            return Err(if revoked { KeyProblem::Revoked(id) } else { KeyProblem::Unknown });
        };
        let over = |end: &Wall| wall > *end && !plant::is_on(Plant::ExpiredKeyOpens);
        if let Some(end) = grant.not_after.filter(over) {
            return Err(KeyProblem::Expired { id, ago_s: wall.since(end).0 / 1_000_000 });
        }
        if grant.issued > wall.plus(CLOCK_SKEW) {
            let ahead_s = grant.issued.since(wall).0 / 1_000_000;
            return Err(KeyProblem::NotYet { id, ahead_s });
        }
        if let Some(account) = self.suspended(&grant.account) {
            return Err(KeyProblem::Suspended(account));
        }
        let (models, routes) = (grant.models.clone(), grant.routes.clone());
        Ok(Caller { key: id, account: grant.account.clone(), models, routes })
    }

    /// Why a caller that was let in with a key, or without one, may not go on, if it may not. That
    /// a key expires ends nothing that it began.
    pub fn bars(&self, account: &AccountPath, key: Option<&KeyId>) -> Option<KeyProblem> {
        if plant::is_on(Plant::BarsForgotten) {
            return None;
        }
        // Expired keys are kept for a while: one that is gone was revoked.
        match key.filter(|key| !self.keys.contains_key(*key)) {
            Some(key) => Some(KeyProblem::Revoked(*key)),
            None => self.suspended(account).map(KeyProblem::Suspended),
        }
    }

    /// The keys, in the order of their ids; revoked ones are not among them.
    pub fn keys(&self) -> impl Iterator<Item = &KeyGrant> {
        self.keys.values().map(|notice| &notice.signed.body)
    }

    /// A key by its id.
    pub fn key(&self, id: &KeyId) -> Option<&KeyGrant> {
        self.keys.get(id).map(|notice| &notice.signed.body)
    }
}
