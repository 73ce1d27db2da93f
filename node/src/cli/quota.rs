//! The command line of tenants, keys and budgets.
//!
//! Owns what can be typed and the help texts. The grammar of amounts is `amount.rs`'s; names and
//! limits of tenants are checked by the node that carries the order out.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::amount::Amount;

const TENANT_EXAMPLES: &str = "\
Examples:
  selvedge tenant create acme --title \"Acme Ltd\"
  selvedge tenant create acme/line3          a team of it
  selvedge tenant create acme/line3/chat     an app of the team
  selvedge tenant show acme                  its accounts, budgets and keys
  selvedge tenant suspend acme/line3         nothing under it is served any more

An account is a path of up to three names: tenant, team, app. What it spends counts against its own
budgets and against those of the accounts above it. Callers on the node's own machine that send no
key are the account `local`. Needs the node of this home running (`selvedge up`), as a steward of
the mesh.";

const SUSPEND_NOTE: &str = "\
Any steward may suspend, also while cut off from the others. `selvedge tenant create` of the same
account lifts it again, on the node that has the mesh's root key.";

#[derive(Debug, Subcommand)]
#[command(after_help = TENANT_EXAMPLES)]
pub(crate) enum Tenant {
    /// Make an account known: a tenant, a team of one, or an app of a team
    Create {
        /// The account: acme, acme/line3 or acme/line3/chat
        path: String,
        /// What people call it
        #[arg(long, default_value = "")]
        title: String,
    },
    /// List the accounts
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show an account, what it may spend and which keys it has
    Show {
        /// The account: acme, acme/line3 or acme/line3/chat
        path: String,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse everything an account asks, and the accounts under it
    #[command(after_help = SUSPEND_NOTE)]
    Suspend {
        /// The account: acme, acme/line3 or acme/line3/chat
        path: String,
    },
}

const KEY_EXAMPLES: &str = "\
Examples:
  selvedge key create laptop                        for this node only
  selvedge key create chat-app --account acme/line3
  selvedge key create trial --account acme --expires 30d --models 'smollm2-*' --routes chat
  selvedge key list
  selvedge key revoke 4f1c22d07b9e

A key with an account is good at every node of the mesh, and so is its revocation. It is shown
once, when it is made: only a digest of it is kept. Needs the node of this home running (`selvedge
up`); keys with an account need it to be a steward of the mesh.";

#[derive(Debug, Subcommand)]
#[command(after_help = KEY_EXAMPLES)]
pub(crate) enum Key {
    /// Make a key and print it, once
    Create(KeyCreate),
    /// List the keys
    List {
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse a key from now on, at every node
    Revoke {
        /// The key's id, as `selvedge key list` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeyCreate {
    /// Who or what it is for
    pub(crate) name: String,
    /// The account it spends for [default: local, and the key is good at this node only]
    #[arg(long, value_name = "PATH")]
    pub(crate) account: Option<String>,
    /// When it ends by itself: 12h, 30d, 1y [default: never]
    #[arg(long, value_name = "SPAN", value_parser = parse_expiry, requires = "account")]
    pub(crate) expires: Option<Duration>,
    /// Only these models, by name or by its beginning and `*` [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "account")]
    pub(crate) models: Vec<String>,
    /// Only these endpoints: chat, completions, embeddings, audio, messages, responses, ollama,
    /// inference, models [default: all]
    #[arg(long, value_name = "ROUTES", value_delimiter = ',', requires = "account")]
    pub(crate) routes: Vec<String>,
}

const BUDGET_EXAMPLES: &str = "\
Examples:
  selvedge budget set acme \"20000 tokens/hour\"
  selvedge budget set acme/line3 \"60 requests/minute\" --name line3-calls
  selvedge budget set acme \"4 concurrent\"
  selvedge budget show acme
  selvedge budget lower acme tokens-hour 10000     at once, at every node
  selvedge budget remove acme tokens-hour

A budget is hard: all nodes together never spend more, whoever is cut off from whom. `set` needs
the mesh's root key on this node and counts from the next window on, `lower` needs a steward and
counts at once.";

#[derive(Debug, Subcommand)]
#[command(after_help = BUDGET_EXAMPLES)]
pub(crate) enum Budget {
    /// Give an account a budget, or change one
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<BudgetSet>),
    /// Lower a budget's limit at once; only `set` raises it again
    Lower {
        /// The account: acme, acme/line3 or acme/line3/chat
        path: String,
        /// The budget's name, as `selvedge budget show` shows it
        name: String,
        /// The new limit, in the budget's own unit: 10000, 2.50 usd; 0 stops all spending
        limit: String,
    },
    /// Take a budget away
    Remove {
        /// The account: acme, acme/line3 or acme/line3/chat
        path: String,
        /// The budget's name, as `selvedge budget show` shows it
        name: String,
    },
    /// Show limits, what is spent and left, and which node holds how much
    Show {
        /// Only this account and those under it [default: all]
        path: Option<String>,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
    /// Prolong the validity of all budgets now (the node with the root key does it by itself)
    Renew,
}

const SET_EXAMPLES: &str = "\
Amounts:
  20000 tokens/hour       tokens of prompts and answers; 20k and 20_000 mean the same
  60 requests/minute      requests in each minute
  2.50 usd/day            money, for models that cost some
  4 concurrent            requests at the same time
  10 requests/second      requests, evenly spaced
Windows are minute, hour, day and month, and begin with those of UTC.

Examples:
  selvedge budget set acme \"20000 tokens/hour\" --on-exhausted downgrade=small
  selvedge budget set acme \"5 usd/day\" --on-exhausted local-only
  selvedge budget set acme \"1M tokens/day\" --sub-windows 24
  selvedge budget set acme \"20000 tokens/hour\" --weight hall=3 --weight yard=1
  selvedge budget set acme \"20000 tokens/hour\" --elastic 500
  selvedge budget set acme \"5M tokens/month\" --reclaimable

Every node begins a window with a share of the limit, and shares move to where the demand is. A
change of an amount counts from the next window on; a new budget counts at once.";

#[derive(Debug, Args)]
pub(crate) struct BudgetSet {
    /// The account: acme, acme/line3 or acme/line3/chat
    pub(crate) path: String,
    /// How much in which time, such as "20000 tokens/hour"
    #[arg(value_parser = parse_amount)]
    pub(crate) amount: Amount,
    /// What the budget is called [default: its unit and window, such as tokens-hour]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Let each node that runs out go over by this much, once per window: no longer a hard cap
    #[arg(long, value_name = "BLOCK")]
    pub(crate) elastic: Option<String>,
    /// What happens when nothing is left: refuse, local-only or downgrade=MODEL [default: refuse]
    #[arg(long, value_name = "WHAT", value_parser = parse_exhausted)]
    pub(crate) on_exhausted: Option<String>,
    /// Which calls count: all, cloud, local or model=NAME (NAME* for all that begin so); may be
    /// repeated for models [default: all]
    #[arg(long, value_name = "WHICH", value_parser = parse_scope)]
    pub(crate) scope: Vec<String>,
    /// Let the limit become available in this many equal steps over the window
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_440))]
    pub(crate) sub_windows: u32,
    /// Let the other nodes take over what a node that is gone has left, within the window: nothing
    /// is spent before a majority of the nodes has witnessed it
    #[arg(long, conflicts_with = "elastic")]
    pub(crate) reclaimable: bool,
    /// A node's part of the limit, relative to the others' [default: 1 each]; may be repeated
    #[arg(long, value_name = "NODE=N", value_parser = parse_weight)]
    pub(crate) weight: Vec<(String, u32)>,
}

fn parse_amount(text: &str) -> Result<Amount, String> {
    text.parse()
}

fn parse_exhausted(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        None if matches!(text, "refuse" | "local-only") => Ok(text.to_owned()),
        Some(("downgrade", model)) if !model.is_empty() => Ok(text.to_owned()),
        _ => Err("write refuse, local-only or downgrade=MODEL".to_owned()),
    }
}

fn parse_scope(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        None if matches!(text, "all" | "cloud" | "local") => Ok(text.to_owned()),
        Some(("model", name)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("write all, cloud, local or model=NAME".to_owned()),
    }
}

fn parse_weight(text: &str) -> Result<(String, u32), String> {
    let (node, weight) = text.rsplit_once('=').unwrap_or((text, ""));
    match weight.parse::<u32>() {
        Ok(weight @ 1..=1_000_000) if !node.is_empty() => Ok((node.to_owned(), weight)),
        _ => Err("write NODE=N, such as hall=3; N is 1 to 1000000".to_owned()),
    }
}

/// `12h`, `30d`, `8w`, `1y`: at least a minute, at most ten years.
fn parse_expiry(text: &str) -> Result<Duration, String> {
    // Without leap seconds, as clocks count.
    const DAY_S: u64 = 86_400;
    let units = [('m', 60), ('h', 3_600), ('d', DAY_S), ('w', 7 * DAY_S), ('y', 365 * DAY_S)];
    let found = units.iter().find_map(|(unit, seconds)| {
        text.strip_suffix(*unit)?.parse::<u64>().ok()?.checked_mul(*seconds)
    });
    match found {
        Some(seconds) if (60..=10 * 365 * DAY_S).contains(&seconds) => {
            Ok(Duration::from_secs(seconds))
        }
        _ => Err("write a span from 1m to 10y, such as 12h, 30d or 1y".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_bounded() {
        assert_eq!(parse_expiry("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_expiry("1y"), Ok(Duration::from_secs(365 * 86_400)));
        for wrong in ["", "30", "0d", "11y", "d", "-1d", "1é", "99999999999999999999y"] {
            assert!(parse_expiry(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_of_a_budget_say_what_to_write() {
        assert!(parse_exhausted("downgrade=small").is_ok());
        assert!(parse_exhausted("downgrade=").unwrap_err().contains("downgrade=MODEL"));
        assert!(parse_exhausted("stop").is_err());
        assert!(parse_scope("model=gpt*").is_ok());
        assert!(parse_scope("models").is_err());
        assert_eq!(parse_weight("a=b=3"), Ok(("a=b".to_owned(), 3)));
        for wrong in ["hall", "=3", "hall=", "hall=0", "hall=-1", "hall=x"] {
            assert!(parse_weight(wrong).is_err(), "{wrong}");
        }
    }
}
