//! The generated pages are current, and what they are made from is read correctly.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

#[test]
fn the_generated_pages_are_current() {
    assert_eq!(check().unwrap(), Vec::<String>::new());
}

#[test]
fn subcommands_are_read_from_help() {
    let help = "Usage: x\n\nCommands:\n  up    Start\n          and stay\n  mesh  Mesh\n\
                \x20 help  Help\n\n\
                Options:\n  -h, --help\n";
    assert_eq!(subcommands(help), ["up", "mesh"]);
    assert!(subcommands("Usage: x\n\nOptions:\n  -h\n").is_empty());
}

#[test]
fn help_loses_only_loose_white_space() {
    assert_eq!(plain("a  \n\n  b \n\n"), "a\n\n  b");
}
