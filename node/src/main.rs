//! The `selvedge` program.
//!
//! Owns nothing but the way from a command line to the module that carries it out, and the exit
//! codes: 0 done, 1 failed, 2 wrong usage. What can be typed is in `cli.rs`.

mod brood;
mod cli;
mod config;
mod home;
mod pull;
mod scratch;
mod ui;

fn main() {}
