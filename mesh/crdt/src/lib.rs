//! Replicated state: single-writer rows and how two nodes bring each other up to date.
//!
//! A row has one writer, its node; a newer row of the same writer replaces the older one. Merging
//! is idempotent, commutative and associative (proven as property tests against a model), so it
//! does not matter who tells whom, how often or in which order. Values are opaque bytes: a node
//! passes on rows that it cannot read, which lets two versions live in one mesh.
//! Owns neither signatures (a closure is handed in) nor transport.

#![warn(missing_docs)]

pub mod escrow;
mod map;
mod row;

pub use map::{Delta, Digest, DigestEntry, MAX_EVIDENCE, Merged, RowMap};
pub use row::{Equivocation, MAX_VALUE_BYTES, Row, RowError, Signature, Stamp};
