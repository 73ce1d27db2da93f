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
docs/federated.md has every field. A job is signed by a steward for the whole mesh; nodes whose
configuration has the data train, all others follow, and the anchors may be any of them.";

#[derive(Debug, Subcommand)]
#[command(after_help = FED_EXAMPLES)]
pub(crate) enum Fed {
    /// Check a job file, this node's data for it, and that the mesh has nodes for its anchors
    Check {
        /// A file in TOML
        file: PathBuf,
    },
    /// Start the job of a file at all nodes of the mesh
    Submit {
        /// A file in TOML
        file: PathBuf,
        /// Stay, and show the rounds until the job is done
        #[arg(long)]
        watch: bool,
    },
    /// Show the jobs of the mesh, or one of them, as this node sees them
    Status {
        /// The job
        job: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the rounds of a job until it is done
    Watch {
        /// The job
        job: String,
    },
    /// Take a job away from all nodes, with its model; what was spent of privacy stays spent
    Cancel {
        /// The job
        job: String,
    },
}
