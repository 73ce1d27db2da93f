//! The command line of federated rounds.

use std::path::PathBuf;

use clap::Subcommand;

const FED_EXAMPLES: &str = "\
Example of a file:
  name = \"digits\"
  data = \"digits\"            # a [[data]] table of the nodes' own configurations
  rounds = 30
  anchors = 5
  [model]
  shape = { image = { channels = 1, height = 28, width = 28 } }
  classes = 10
  hidden = [{ dense = 100 }]
  [training]
  epochs = 2
  batch = 32
  learning_rate = 0.05

Updates are added up so that nobody sees one alone unless the file says [mode] kind = \"plain\".
docs/federated.md has every field. Jobs can be checked and not yet run.";

#[derive(Debug, Subcommand)]
#[command(after_help = FED_EXAMPLES)]
pub(crate) enum Fed {
    /// Check a job file, this node's data for it, and that the mesh has nodes for its anchors
    Check {
        /// A file in TOML
        file: PathBuf,
    },
}
