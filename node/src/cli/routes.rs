//! The command line of routes.

use std::path::PathBuf;

use clap::Subcommand;

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

A request for the model `chat` is then answered by the first target that can, and by the next one
when that fails before its first word. docs/routing.md has every policy. Routes belong to the node
they were set at.";

#[derive(Debug, Subcommand)]
#[command(after_help = ROUTES_EXAMPLES)]
pub(crate) enum Routes {
    /// Put the routes of a file in force, in place of all before
    Set {
        /// A file in TOML
        file: PathBuf,
    },
    /// Print the routes in force
    Show,
    /// Put the routes before the present ones in force again
    Rollback,
}
