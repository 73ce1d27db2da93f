//! The generated pages are current, and what they are made from is read correctly.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;

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

#[test]
fn keys_and_tables_come_from_the_schema() {
    let schema = json!({
        "properties": {
            "name": { "type": ["string", "null"], "description": "How it\nis called." },
            "api": { "$ref": "#/$defs/Api" },
        },
        "$defs": { "Api": {
            "description": "The surface.",
            "properties": { "peers": { "type": "array", "items": { "type": "string" } } },
        }},
    });
    let page = config_page("name = \"x\"\n", &schema);
    assert!(page.contains("| `name` | string or null | How it is called. |"), "{page}");
    assert!(page.contains("## `[api]`\n\nThe surface.\n\n"), "{page}");
    assert!(page.contains("| `peers` | list of string |  |"), "{page}");
}
