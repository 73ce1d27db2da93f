//! What makes two requests equal.
//!
//! Owns the key and what goes into it. How a body becomes canonical is the dialect's business.

use selvedge_proto::policy::AccountPath;

/// The version of the key: a change of what goes in, or of how it is written, is another one.
const VERSION: u8 = 1;
/// Keeps these digests apart from all others of the program (BLAKE3, key derivation mode).
const CONTEXT: &str = "selvedge 2026-11 exact cache of answers, key";

/// The name of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

/// All that an answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The name the request runs under.
    pub tenant: &'a str,
    /// Whose budgets it counts against.
    pub account: &'a AccountPath,
    /// How the client speaks, as `openai.chat`.
    pub dialect: &'a str,
    /// How far the data may travel; empty: not said.
    pub label: &'a str,
    /// Who would be asked first, as the record names it.
    pub target: &'a str,
    /// Whether a budget counts it, which may shorten an answer.
    pub limited: bool,
    /// Whether the caller showed a key: without one nothing that costs money is asked.
    pub keyed: bool,
    /// The body in its canonical form, the model's name and whether it streams included.
    pub request: &'a [u8],
}

impl Key {
    /// The key of a request: every part with its length, so that none can run into the next.
    pub fn of(parts: &Parts<'_>) -> Self {
        let Parts { tenant, account, dialect, label, target, limited, keyed, request } = *parts;
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&[VERSION, u8::from(limited), u8::from(keyed)]);
        for part in [tenant, account.as_str(), dialect, label, target] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(request);
        Self(*hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let (acme, other): (AccountPath, AccountPath) =
            ("acme".parse().unwrap(), "acme/line3".parse().unwrap());
        let parts = Parts {
            tenant: "acme",
            account: &acme,
            dialect: "openai.chat",
            label: "mesh",
            target: "lab/large",
            limited: false,
            keyed: true,
            request: b"{}",
        };
        let all = [
            parts,
            Parts { tenant: "acm", ..parts },
            Parts { account: &other, ..parts },
            Parts { dialect: "anthropic", ..parts },
            Parts { label: "", ..parts },
            Parts { target: "lab/small", ..parts },
            Parts { limited: true, ..parts },
            Parts { keyed: false, ..parts },
            Parts { request: b"[]", ..parts },
            Parts { label: "meshl", target: "ab/large", ..parts },
            Parts { target: "lab/large{", request: b"}", ..parts },
        ];
        let keys: BTreeSet<Key> = all.iter().map(Key::of).collect();
        assert_eq!(keys.len(), all.len());
        assert_eq!(Key::of(&parts), Key::of(&parts));
    }
}
