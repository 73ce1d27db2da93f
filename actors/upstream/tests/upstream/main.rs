//! The client against servers of each provider's shape, on real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod answers;
mod dialect;
mod faults;
mod limits;
mod passing;
mod post;
mod secrets;
mod server;
mod shape;
mod times;
mod tls;
mod wire;
mod world;
