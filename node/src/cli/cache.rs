//! The command line of the cache of answers.

use clap::{Args, Subcommand};

const CACHE_EXAMPLES: &str = "\
Examples:
  selvedge cache show
  selvedge cache purge                       all answers
  selvedge cache purge --account acme        those of acme and of what lies below it
  selvedge cache purge --model gpt-4o-mini   those of one model, as it was asked for

The cache is off unless the section [cache] of the configuration switches it on. A purge holds in
the whole mesh, wherever it is ordered: a node that is cut off or off heeds it once it is back.";

#[derive(Debug, Subcommand)]
#[command(after_help = CACHE_EXAMPLES)]
pub(crate) enum Cache {
    /// Show how much is kept and how often it helped
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove answers from all nodes of the mesh; those under way will not be kept
    Purge(CachePurge),
}

#[derive(Debug, Args)]
pub(crate) struct CachePurge {
    /// Only those of this account and of what lies below it
    #[arg(long)]
    pub(crate) account: Option<String>,
    /// Only those of this model, by the name it was asked for
    #[arg(long)]
    pub(crate) model: Option<String>,
}
