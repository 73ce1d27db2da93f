//! What makes two requests equal.
//!
//! Owns the key and what goes into it. How a body becomes canonical is the dialect's business.

use selvedge_base::ModelDigest;
use selvedge_base::plant::{self, Plant};
use selvedge_proto::policy::AccountPath;
use selvedge_proto::wire::Label;

use crate::journey::Target;
use crate::upstream::ProviderSpec;

/// The version of the key: a change of what goes in, or of how it is written, is another one.
const VERSION: u8 = 3;
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
    /// How far the data may travel, if the caller said.
    pub label: Option<Label>,
    /// Who would be asked first.
    pub target: &'a Target,
    /// What tells that target from another one of its name, at another node or another time.
    pub place: Place<'a>,
    /// Whether a budget counts it, which may shorten an answer.
    pub limited: bool,
    /// Whether the caller showed a key: without one nothing that costs money is asked.
    pub keyed: bool,
    /// The body in its canonical form, the model's name and whether it streams included.
    pub request: &'a [u8],
}

/// What stands behind a target's name.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// Nobody knows.
    Unknown,
    /// A model's file.
    File(ModelDigest),
    /// A provider, which every node may have another one of under one name.
    At(&'a ProviderSpec),
}

impl Place<'_> {
    fn write(self, target: &Target, hasher: &mut blake3::Hasher) {
        match self {
            Self::Unknown => {
                hasher.update(&[0]);
            }
            Self::File(digest) => {
                hasher.update(&[1]).update(&digest.0);
            }
            Self::At(spec) => {
                let base = &spec.base;
                hasher.update(&[2, u8::from(base.is_https())]).update(&base.port().to_be_bytes());
                let named = match target {
                    Target::Provider { model, .. } => spec.model(model),
                    Target::Mesh { .. } => None,
                };
                let (upstream, deployment) = named
                    .map_or(("", ""), |named| (named.upstream.as_str(), named.deployment.as_str()));
                let (region, version) = (spec.region.as_str(), spec.api_version.as_str());
                let of = [spec.kind.as_str(), base.host(), base.path(), region, version];
                of.into_iter().chain([upstream, deployment]).for_each(|text| put(hasher, text));
            }
        }
    }
}

/// Every text with its length, so that none can run into the next.
fn put(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
}

impl Key {
    /// The key of a request: every part with its length, so that none can run into the next.
    pub fn of(parts: &Parts<'_>) -> Self {
        let Parts { tenant, account, dialect, label, target, place, limited, keyed, request } =
            *parts;
        let (tenant, account) = match plant::is_on(Plant::CacheKeyForgetsAccount) {
            true => ("", ""),
            false => (tenant, account.as_str()),
        };
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&[VERSION, u8::from(limited), u8::from(keyed)]);
        // A model of the mesh may be called like a provider's.
        let named = match target {
            Target::Mesh { .. } => format!("mesh:{target}"),
            Target::Provider { .. } => format!("provider:{target}"),
        };
        place.write(target, &mut hasher);
        for part in [tenant, account, dialect, said(label), &named] {
            put(&mut hasher, part);
        }
        hasher.update(request);
        Self(*hasher.finalize().as_bytes())
    }
}

/// A label as the key has it; empty when nothing was said.
const fn said(label: Option<Label>) -> &'static str {
    match label {
        None => "",
        Some(Label::Node) => "node",
        Some(Label::Site) => "site",
        Some(Label::Mesh) => "mesh",
        Some(Label::Anywhere) => "anywhere",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::upstream::provider::ModelRef;
    use crate::upstream::{ProviderKind, RawProvider};

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let (acme, other): (AccountPath, AccountPath) =
            ("acme".parse().unwrap(), "acme/line3".parse().unwrap());
        let provided = |provider: &str, model: &str| Target::Provider {
            provider: provider.to_owned(),
            model: model.to_owned(),
        };
        let (large, small) = (provided("lab", "large"), provided("lab", "small"));
        let (in_mesh, braced) =
            (Target::Mesh { model: "lab/large".to_owned() }, provided("lab", "large{"));
        let spec = |base_url: &str, upstream: &str| {
            let raw = RawProvider {
                base_url: base_url.to_owned(),
                ..RawProvider::named("lab", ProviderKind::Ollama)
            };
            let mut spec = raw.checked().unwrap();
            let named = ModelRef { upstream: upstream.to_owned(), deployment: String::new() };
            spec.models.insert("large".to_owned(), named);
            spec
        };
        let lab = spec("https://lab.example", "large-2");
        let moved = spec("https://lab.example:8443", "large-2");
        let renamed = spec("https://lab.example", "large-3");
        let parts = Parts {
            tenant: "acme",
            account: &acme,
            dialect: "openai.chat",
            label: Some(Label::Mesh),
            target: &large,
            place: Place::At(&lab),
            limited: false,
            keyed: true,
            request: b"{}",
        };
        let all = [
            parts,
            Parts { tenant: "acm", ..parts },
            Parts { account: &other, ..parts },
            Parts { dialect: "anthropic", ..parts },
            Parts { label: None, ..parts },
            Parts { label: Some(Label::Site), ..parts },
            Parts { target: &small, ..parts },
            Parts { place: Place::At(&moved), ..parts },
            Parts { place: Place::At(&renamed), ..parts },
            Parts { place: Place::File(ModelDigest([1; 32])), ..parts },
            Parts { place: Place::File(ModelDigest([2; 32])), ..parts },
            Parts { place: Place::Unknown, ..parts },
            Parts { target: &in_mesh, ..parts },
            Parts { limited: true, ..parts },
            Parts { keyed: false, ..parts },
            Parts { request: b"[]", ..parts },
            Parts { dialect: "openai.chatmesh", label: None, ..parts },
            Parts { target: &braced, request: b"}", ..parts },
        ];
        let keys: BTreeSet<Key> = all.iter().map(Key::of).collect();
        assert_eq!(keys.len(), all.len());
        assert_eq!(Key::of(&parts), Key::of(&parts));
        for pair in [Label::Node, Label::Site, Label::Mesh, Label::Anywhere].windows(2) {
            assert_ne!(said(Some(pair[0])), said(Some(pair[1])));
        }
    }
}
