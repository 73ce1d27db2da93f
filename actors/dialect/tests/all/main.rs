//! What holds for every dialect: bytes may be split anywhere, hostile bytes harm nothing, and a
//! request is either refused by name or asks the target what the client asked.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod corpus;
mod parsers;
mod requests;
mod strategies;
