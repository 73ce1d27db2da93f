//! The command line of federated rounds.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const FED_EXAMPLES: &str = "\
Example of a file:
  name = \"digits\"
  data = \"digits\"            # a [[data]] table of the nodes' own configurations
  rounds = 30
  anchors = 5
  min_clients = 3            # nodes with data that a round needs; 8 unless said
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

const STATUS_EXAMPLES: &str = "\
Examples:
  selvedge fed status               all jobs, a line each
  selvedge fed status digits        one in full: anchors, who contributed, what happened
  selvedge fed status digits --json";

const WATCH_EXAMPLES: &str = "\
Examples:
  selvedge fed watch digits
  selvedge fed watch digits --picture curve.svg";

const CANCEL_EXAMPLES: &str = "\
Example:
  selvedge fed cancel digits

Only a steward's node may: `selvedge mesh members` lists them.";

const MODEL_EXAMPLES: &str = "\
Examples:
  selvedge fed model export digits digits.safetensors
  selvedge fed verify digits.safetensors";

#[derive(Debug, Subcommand)]
#[command(after_help = FED_EXAMPLES)]
pub(crate) enum Fed {
    /// Check a job file, that members' data fit it, and that the mesh has nodes for its anchors
    ///
    /// Each member looks at its own data as before it trains, and says whether they fit, a reason
    /// of a fixed list and how many examples it has: nothing of the data. It has ten seconds.
    /// Without a node that runs here only this node's own data are looked at. Exits with 1 where
    /// too few nodes fit, too few anchors are reached, or this node's own data do not fit.
    Check {
        /// A file in TOML
        file: PathBuf,
        /// Print what the members say as JSON; needs a node that runs
        #[arg(long)]
        json: bool,
    },
    /// Start the job of a file at all nodes of the mesh
    ///
    /// Asks the members as `fed check` does, and refuses a job of which no round could end: rounds
    /// need as many nodes with data that fit as the job's floor (min_clients, for each group).
    Submit {
        /// A file in TOML
        file: PathBuf,
        /// Stay, and show the rounds until the job is done
        #[arg(long)]
        watch: bool,
        /// Start it also where too few nodes fit: nodes that are off now, or get their data later,
        /// take part once they are there. This node's own data have to fit all the same, or it has
        /// none
        #[arg(long)]
        anyway: bool,
    },
    /// Show the jobs of the mesh, or one of them, as this node sees them
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// The job
        job: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the rounds of a job until it is done
    #[command(after_help = WATCH_EXAMPLES)]
    Watch {
        /// The job
        job: String,
        /// Draw the accuracy of the rounds, or the loss of a tuned model, into this file, as SVG
        #[arg(long, value_name = "FILE")]
        picture: Option<PathBuf>,
    },
    /// Replace the anchors of a job that this node cannot reach by members that it can
    ///
    /// Rounds need some of their anchors: 3 of 5, 6 of 9, 11 of 16, and of a plain job 3, 5 or 9.
    /// Do this while so many are there: the anchors that are left hand the job on with the next
    /// round that they end. Asked again before that, the new wish is proposed from then on; what
    /// was proposed already may still be closed. A steward's node signs it.
    Anchors {
        /// The job
        job: String,
    },
    /// Take a job away from all nodes, with its model; what was spent of privacy stays spent
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel {
        /// The job
        job: String,
    },
    /// What came out of a job
    #[command(subcommand)]
    Model(FedModel),
    /// Prove by its chain that a model is what the rounds of its job made
    Verify(FedVerify),
}

#[derive(Debug, Subcommand)]
#[command(after_help = MODEL_EXAMPLES)]
pub(crate) enum FedModel {
    /// Write the model of a job's last round as safetensors, and beside it the chain that proves it
    #[command(after_help = MODEL_EXAMPLES)]
    Export {
        /// The job
        job: String,
        /// The file of the model; its chain gets the same name with the extension .chain
        file: PathBuf,
        /// This node's own model instead, which epidemic mode made while no round ended; it has no
        /// chain
        #[arg(long)]
        personal: bool,
    },
}

const VERIFY_NOTES: &str = "\
Examples:
  selvedge fed verify digits.safetensors
  selvedge fed verify digits.safetensors --chain old/digits.chain --json

Needs no node and no key. The job's first weights are drawn again and every round is folded again
with all signatures of its anchors; the end must be the model, bit for bit. Exits with 1 and says
the first thing that is wrong, with its round, otherwise.

Not proven:
  - that the job is the one you mean: compare its digest with one that you trust. What the job is
    called and where it was submitted are not in the digest.
  - who holds the keys of the anchors: they are those that the job names, later ones those that the
    anchors before them named.
  - that anchors did not lie together: they are trusted to stop rather than to sign two sets in one
    turn or wrong parts of a sum.
  - that the clients trained on the examples that they say.
  - that the job had no later model: a chain may end early, and then says so.";

#[derive(Debug, Args)]
#[command(after_help = VERIFY_NOTES)]
pub(crate) struct FedVerify {
    /// The model file
    pub(crate) model: PathBuf,
    /// The chain of its rounds [default: MODEL with .chain in place of its extension]
    #[arg(long, value_name = "FILE")]
    pub(crate) chain: Option<PathBuf>,
    /// List every contribution too: whose it is, its number, and in which round it counts or
    /// expired
    #[arg(long)]
    pub(crate) contributions: bool,
    /// Print what is proven as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
