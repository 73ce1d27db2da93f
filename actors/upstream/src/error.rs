//! How asking a provider failed.
//!
//! Owns the error's shape and the reading of hyper's errors. Messages are made here from fixed
//! words: no address, header or body of ours is ever part of one.

use std::error::Error as _;
use std::io;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderName;
use selvedge_base::{Mono, Refusal};
use selvedge_core::upstream::{Denied, Ending};
use thiserror::Error;

/// One request to a provider that brought no whole answer.
#[derive(Debug, Error)]
pub enum Failed {
    /// It was not let through: nothing was sent.
    #[error("provider '{provider}' was not asked: {denied:?}")]
    Denied {
        /// Its name.
        provider: String,
        /// Why.
        denied: Denied,
        /// When.
        now: Mono,
    },
    /// It was sent, and this is how the last attempt ended.
    #[error("provider '{provider}': {why}")]
    Attempt {
        /// Its name.
        provider: String,
        /// How it ended.
        ending: Ending,
        /// Why, in words of ours.
        why: String,
        /// What the provider said about it, without our secrets.
        said: Option<Box<Said>>,
        /// Attempts made.
        attempts: u32,
    },
}

/// An answer that says no.
#[derive(Clone, Debug)]
pub struct Said {
    /// HTTP status.
    pub status: u16,
    /// Its media type, as sent.
    pub media_type: String,
    /// The provider's own name for the request, for its support.
    pub request_id: String,
    /// The beginning of the body, for the dialect to read.
    pub body: Bytes,
}

impl Failed {
    /// How the last attempt ended; none when nothing was sent.
    pub const fn ending(&self) -> Option<Ending> {
        match self {
            Self::Denied { .. } => None,
            Self::Attempt { ending, .. } => Some(*ending),
        }
    }

    /// What the provider said, if it said anything.
    pub fn said(&self) -> Option<&Said> {
        match self {
            Self::Denied { .. } => None,
            Self::Attempt { said, .. } => said.as_deref(),
        }
    }

    /// The refusal a caller gets.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Denied { provider, denied, now } => denied.refusal(provider, *now),
            Self::Attempt { provider, ending, why, .. } => ending.refusal(provider, why),
        }
    }
}

/// What is wrong with how a provider is set up on this node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetupError {
    /// The file of further authorities cannot be used.
    #[error("cannot use the authorities in {path}: {reason}; give a PEM file with certificates")]
    ExtraCa {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The provider's host is not a name TLS can check.
    #[error("'{0}' is not a name that a certificate can have")]
    ServerName(String),
    /// The proxy's address.
    #[error("the proxy's address is not used: allowed is {0}")]
    Proxy(&'static str),
    /// The TLS library refuses its settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A credential of a shape that its provider has not.
    #[error("the key '{name}' is not used: {reason}")]
    Credential {
        /// Its name in the vault.
        name: String,
        /// What is wrong; nothing of the key.
        reason: &'static str,
    },
}

/// How one attempt ended, in the words of this crate.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) ending: Ending,
    pub(crate) why: String,
    pub(crate) said: Option<Box<Said>>,
}

impl Lost {
    pub(crate) fn new(ending: Ending, why: impl Into<String>) -> Self {
        Self { ending, why: why.into(), said: None }
    }

    /// What hyper says about an exchange. Its own texts are fixed words; those of its sources are
    /// the system's or rustls'.
    pub(crate) fn exchange(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            return Self::new(Ending::Malformed, "its headers are over the limit");
        }
        if error.is_parse() {
            return Self::new(Ending::Malformed, "it does not speak HTTP/1.1 as it should");
        }
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let kind = source.map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                Self::new(Ending::Malformed, "its answer is not framed as it should be")
            }
            _ => Self::new(Ending::Cut, "it closed the connection before its answer was whole"),
        }
    }

    /// The ending that a watch found.
    pub(crate) fn late(ending: Ending) -> Self {
        Self::new(
            ending,
            match ending {
                Ending::Unreachable => "no connection in time",
                Ending::Silent => "it did not begin to answer in time",
                Ending::Stalled => "it paused for too long in its answer",
                Ending::Overran => "its answer took longer than any may",
                Ending::Expired => "the request's deadline passed",
                Ending::Answered
                | Ending::Refused { .. }
                | Ending::Limited { .. }
                | Ending::KeyRejected { .. }
                | Ending::Failed { .. }
                | Ending::Cut
                | Ending::Malformed
                | Ending::Left
                | Ending::Unsent => "it ended",
            },
        )
    }
}

/// A header as text, bounded and without what could break a line of a log.
pub(crate) fn header_text(headers: &HeaderMap, name: &HeaderName) -> String {
    /// Media types and request ids have a few dozen characters.
    const MOST: usize = 128;
    let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if value.len() <= MOST && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return value.to_owned();
    }
    value.chars().filter(|c| !c.is_control()).take(MOST).collect()
}
