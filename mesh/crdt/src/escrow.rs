//! The algebra of one ledger: who may still spend how much of one budget in one window.
//!
//! An escrow (O'Neil 1986; bounded counters, Balegas et al. 2015) splits a budget into rights.
//! Every holder writes one row and only its own: how high its spending may already have risen
//! (`hw`, durable before it is used) and which rights it ever gave to whom (`out`). Both only grow,
//! so a stale view of the others under-estimates what one was given and never over-estimates it:
//!
//! ```text
//! rights(n)    = granted(n) + Σ_m out_m[n] − Σ out_n
//! may spend(n) = rights(n) − spent − reserved        (known to n alone)
//! may give(n)  = rights(n) − hw                      (never the actual spend: a crash forgets it)
//! ```
//!
//! In a witnessed ledger a row counts only once a quorum holds it; see `witness`.
//!
//! Owns rows, their signed bytes, the merge and the proof that a row is covered. Owns neither the
//! grants (a signed policy says them), nor when to spend or to give, nor what is durable.

mod backing;
mod ledger;
mod row;
mod shape;
mod witness;

pub use backing::Backing;
pub use ledger::{Ledger, MAX_HOLDERS, MAX_STORES, Misdeed, RowMerged, RowRefused, Standing};
pub use row::{
    Ballot, BudgetId, EscrowRow, Holder, LedgerKey, MAX_BASIS, MAX_OUT, Seal, SignedRow,
};
pub use witness::{Accepted, Register, Voters, Writer};
