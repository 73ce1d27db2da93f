#![allow(clippy::unwrap_used, clippy::expect_used)]

mod explore;
mod forged;
mod levels;
mod permits;
mod properties;
mod share;
mod single;
mod witnessed;
mod world;
