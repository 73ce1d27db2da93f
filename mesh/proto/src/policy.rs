//! Who has which budget and which key, as signed records that every node keeps.
//!
//! The operator's root key signs epochs, one chain per tenant: who holds rights, with which
//! weights, and which budgets hang where. Every holder signs that it adopted an epoch, so that a
//! new one can take effect early without two sides ever granting the same right twice (the rule
//! and its argument are in `force`). Stewards and the root sign keys, accounts and cuts; a cut
//! only ever tightens, so it counts at once and needs nobody's agreement.
//! Owns the records, their signed bytes, their checks, what they grant and how they spread. Holds
//! no private key, knows no spending, and decides about no request.

mod account;
mod book;
mod calendar;
mod caller;
mod chain;
mod epoch;
mod exchange;
mod force;
mod grants;
mod issue;
mod parts;
mod share;
mod take;
mod terms;
mod view;

use selvedge_base::Micros;
use selvedge_crdt::escrow;
use thiserror::Error;

use crate::records::{DEFAULT_LEASE, MAX_LEASE, RecordError};

pub use account::{
    AccountPath, KeyId, LOCAL_ACCOUNT, Level, MAX_SEGMENT_BYTES, MAX_SEGMENTS, is_word,
};
pub use book::{EpochStatus, PolicyBook};
pub use calendar::Period;
pub use caller::{Caller, KeyProblem};
pub use epoch::{Adopted, Epoch};
pub use exchange::{
    Changed, POLICY_BUDGET_BYTES, PolicyDelta, PolicyDigest, PolicyMessage, PolicySnapshot,
};
pub use force::{Ledgers, MAX_GATES, Standing, Stop};
pub use grants::{
    AccountGrant, Cut, CutNotice, CutOrder, GrantNotice, KEY_PREFIX, KeyGrant, KeyNotice, NewKey,
};
pub use issue::{
    BudgetTerms, EpochDraft, KeyDraft, Previous, sign_account, sign_cut, sign_epoch, sign_key,
};
pub use parts::PolicyPart;
pub use terms::{
    BudgetSpec, Hardness, MAX_MODEL_BYTES, MAX_SCOPE_MODELS, MAX_SUB_WINDOWS, OnExhausted, Scope,
    Unit,
};
pub use view::Budget;

/// Tenants of one mesh: departments and customers of a site, not users of a service.
pub const MAX_TENANTS: usize = 256;
/// Accounts one epoch may give budgets to, keys with budgets of their own among them.
pub const MAX_LEVELS: usize = 64;
/// Budgets of one account: tokens, requests and money by the minute, day and month are nine, and
/// nobody has wanted all of them.
pub const MAX_BUDGETS: usize = 8;
/// Holders of one epoch: as many as one ledger keeps rows of.
pub const MAX_MEMBERS: usize = escrow::MAX_HOLDERS;
/// Keys of one mesh; more belong into a system that has users.
pub const MAX_KEYS: usize = 4_096;
/// Accounts known by name: every tenant with some teams and apps.
pub const MAX_ACCOUNTS: usize = 2_048;
/// Cuts in force; as many as there may be keys to revoke.
pub const MAX_CUTS: usize = 4_096;
/// Epochs of one tenant kept at once. Those that govern a running minute, hour, day or month are
/// at most eight with the windows just before; the rest is room for an operator who tries things.
pub const MAX_EPOCHS: usize = 32;
/// The largest epoch in signed bytes. The worst within the other bounds is far larger, but 512
/// budgets with plain scopes take 64 KiB; and a frame of an exchange carries one whole.
pub const MAX_EPOCH_BYTES: usize = 128 << 10;
/// How long an epoch lasts unless the operator says otherwise: as long as a membership.
pub const DEFAULT_VALIDITY: Micros = DEFAULT_LEASE;
/// The longest an epoch may last: as long as any membership may.
pub const MAX_VALIDITY: Micros = MAX_LEASE;
/// How far in the future a holder's promise begins: long enough to store it and to hand it to the
/// machine that spends, on a disk that takes seconds to write.
pub const ADOPTION_MARGIN: Micros = Micros::secs(10);
/// The longest a permit is held: a request that streams for longer takes a new one. After the
/// grants of permits change, those given out before are counted for this long.
pub const PERMIT_LEASE: Micros = Micros::secs(15 * 60);

/// What is wrong with a policy record, or with the wish to sign one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Not a path of an account.
    #[error(
        "'{0}' is no account: write tenant, tenant/team or tenant/team/app of a-z, 0-9, '.', '_' \
         and '-', at most 48 characters each"
    )]
    Path(String),
    /// Not a key's id.
    #[error("'{0}' is no key's id: expected 16 hexadecimal digits")]
    KeyId(String),
    /// A budget is unusable.
    #[error("budget '{budget}': {why}")]
    Terms {
        /// Its name.
        budget: String,
        /// What is wrong and what to write instead.
        why: &'static str,
    },
    /// An epoch is unusable.
    #[error("epoch {number} of '{tenant}': {why}")]
    Epoch {
        /// The tenant.
        tenant: String,
        /// Its number.
        number: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The epoch before is not in force everywhere yet.
    #[error(
        "epoch {number} of '{tenant}' still waits for {waiting}: bring these nodes up, or wait \
         until it counts without them in {in_s} s; lowering a limit works at once"
    )]
    Pending {
        /// The tenant.
        tenant: String,
        /// The epoch that is not in force.
        number: u64,
        /// Short names of nodes that have not adopted it.
        waiting: String,
        /// Seconds until it counts all the same.
        in_s: u64,
    },
    /// A key or an account grant is unusable.
    #[error("{0}")]
    Grant(&'static str),
    /// A cut would loosen or name nothing.
    #[error("{0}")]
    Cut(&'static str),
    /// The signature or its signer's right.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A bounded collection is full.
    #[error("no room for another {what}: {limit} are held")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many are held.
        limit: usize,
    },
    /// The record names another that is not known here yet.
    #[error("the {0} record names an epoch that is not known here")]
    Unknown(&'static str),
}

#[cfg(test)]
mod tests;
