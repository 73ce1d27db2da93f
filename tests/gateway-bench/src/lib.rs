//! What a gateway costs: a mock upstream, a load generator and gateways side by side.
//!
//! Owns the parts of `cargo xtask bench gateway` and `cargo xtask bench instructions`. Depends on
//! no crate of the product, so that it builds in a minute and measures the shipped binary from the
//! outside like every other gateway.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what these programs are for"
)]

pub mod answers;
pub mod clock;
pub mod floor;
pub mod instructions;
pub mod load;
pub mod mock;
pub mod peers;
pub mod process;
pub mod run;
pub mod scenario;
pub mod wire;
