//! The command line of routes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const ROUTES_EXAMPLES: &str = "\
Example of a file:
  [[route]]
  name = \"chat\"
  policy = \"fallback\"
  [[route.target]]
  provider = \"openai\"
  model = \"gpt-4o-mini\"
  [[route.target]]
  mesh = \"smollm2-135m-instruct\"

  [aliases]
  \"gpt-4o\" = \"chat\"

A request for the model `chat` is then answered by the first target that can, and by the next one
when that fails before its first word. docs/routing.md has every policy.

What is set reaches every node of the mesh as signed records, entry by entry, with its history; it
takes a steward or the node with the root key. With --here a file counts at this node alone, in
place of its own file before, and comes before what the mesh says under the same name.";

#[derive(Debug, Subcommand)]
#[command(after_help = ROUTES_EXAMPLES)]
pub(crate) enum Routes {
    /// Put the routes, aliases and models of a file in force in the whole mesh; others stay
    Set {
        /// A file in TOML
        file: PathBuf,
        /// At this node alone, in place of all its own before
        #[arg(long)]
        here: bool,
    },
    /// List the entries of the mesh, and why one is not used here
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print an entry of the mesh, or all of them, as a file that could be set
    Show {
        /// The name that clients ask for, or KIND/ID with --model [default: all]
        name: Option<String>,
        /// The entry of the catalogue for a model
        #[arg(long, requires = "name")]
        model: bool,
        /// This node's own routes
        #[arg(long, conflicts_with_all = ["name", "model"])]
        here: bool,
    },
    /// Show what trying small models first came to at this node, by route
    Savings {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the versions of an entry, the one in force first
    History {
        #[command(flatten)]
        entry: Entry,
        /// Print as JSON, with what each version says
        #[arg(long)]
        json: bool,
    },
    /// Put what an older version of an entry said in force again, as its next version
    #[command(after_help = ROLLBACK_EXAMPLES)]
    Rollback {
        /// The name that clients ask for, or KIND/ID with --model
        #[arg(required_unless_present = "here")]
        name: Option<String>,
        /// The entry of the catalogue for a model
        #[arg(long, requires = "name")]
        model: bool,
        /// The version, as the history says it [default: the one before]
        #[arg(long, value_name = "VERSION", requires = "name")]
        to: Option<String>,
        /// This node's own routes, all of them
        #[arg(long, conflicts_with_all = ["name", "model", "to"])]
        here: bool,
    },
    /// Remove an entry from the whole mesh; its history stays for 90 days
    Remove {
        #[command(flatten)]
        entry: Entry,
    },
}

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  selvedge routes rollback chat                 the version before
  selvedge routes rollback chat --to 3          what version 3 said
  selvedge routes rollback --model openai/gpt-5
  selvedge routes rollback --here               this node's own file before";

/// An entry of the mesh.
#[derive(Debug, Args)]
pub(crate) struct Entry {
    /// The name that clients ask for, or KIND/ID with --model
    pub(crate) name: String,
    /// The entry of the catalogue for a model
    #[arg(long)]
    pub(crate) model: bool,
}
