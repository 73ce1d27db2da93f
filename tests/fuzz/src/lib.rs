//! Fuzzing of every parser that bytes from outside reach.
//!
//! Owns the registry of targets ([`TARGETS`]), a mutator whose inputs follow from a seed
//! ([`mutate`]), the stored corpus ([`corpus`]) and the guard around one input ([`guard`]). The
//! tests replay the corpus and some of its mutations; the program goes on for as long as it is
//! told. Owns no parser: a target calls what the product calls.

pub mod corpus;
pub mod guard;
pub mod mutate;
pub mod targets;

pub use targets::{TARGETS, Target};
