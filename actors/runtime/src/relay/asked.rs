//! What a chat asks, as its bytes, and understood where that is needed.
//!
//! Owns when a body is read whole: a body that passes untranslated to a provider of the same
//! dialect never is. What its fields mean is the dialect's.

use std::sync::OnceLock;

use bytes::Bytes;
use selvedge_base::Refusal;
use selvedge_dialect::chat::ChatRequest;
use selvedge_dialect::tap::{self, Kind, Seen};

/// Reads a body whole.
pub(super) type Parse = fn(&[u8]) -> Result<ChatRequest, Refusal>;

/// What a chat asks.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Understood, once anybody wanted it.
    whole: OnceLock<Box<ChatRequest>>,
    bytes: Option<Box<Passable>>,
}

/// A body that may pass as it came.
#[derive(Clone, Debug)]
pub(crate) struct Passable {
    pub(crate) body: Bytes,
    pub(crate) kind: Kind,
    pub(crate) seen: Seen,
    parse: Parse,
}

impl Asked {
    /// A request that is understood already.
    pub fn understood(request: ChatRequest) -> Self {
        Self { whole: OnceLock::from(Box::new(request)), bytes: None }
    }

    /// A body in a dialect; `kind` where such bodies can pass as they came.
    ///
    /// # Errors
    /// What is wrong with it, as far as it is read.
    pub fn read(body: Bytes, kind: Option<Kind>, parse: Parse) -> Result<Self, Refusal> {
        match kind {
            Some(kind) => Self::seen(tap::look(&body)?, body, kind, parse),
            None => parse(&body).map(Self::understood),
        }
    }

    /// A body of which the tap has seen this.
    ///
    /// # Errors
    /// What is wrong with it, as far as it is read.
    pub fn seen(seen: Seen, body: Bytes, kind: Kind, parse: Parse) -> Result<Self, Refusal> {
        if !seen.is_plain {
            return parse(&body).map(Self::understood);
        }
        let bytes = Box::new(Passable { body, kind, seen, parse });
        Ok(Self { whole: OnceLock::new(), bytes: Some(bytes) })
    }

    /// The model it names.
    pub fn model(&self) -> &str {
        self.of(|seen| seen.model.as_str(), |request| request.model.as_str())
    }

    /// Whether the answer is to come in pieces.
    pub fn stream(&self) -> bool {
        self.of(|seen| seen.stream, |request| request.stream)
    }

    /// Whether the client wants to be told at the end of a stream what it took.
    pub fn include_usage(&self) -> bool {
        self.of(|seen| seen.asks_usage, |request| request.include_usage)
    }

    /// Whether it is a bare text to be gone on with, which is always understood.
    pub(crate) fn is_raw(&self) -> bool {
        self.whole.get().is_some_and(|request| request.raw)
    }

    /// All of it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn request(&self) -> Result<&ChatRequest, Refusal> {
        if let Some(request) = self.whole.get() {
            return Ok(request);
        }
        let request = match &self.bytes {
            Some(bytes) => (bytes.parse)(&bytes.body)?,
            None => return Err(super::nowhere()),
        };
        Ok(self.whole.get_or_init(|| Box::new(request)))
    }

    /// The body, where it can pass as it came.
    pub(crate) fn passable(&self) -> Option<&Passable> {
        self.bytes.as_deref()
    }

    fn of<'a, T: Default>(
        &'a self,
        seen: impl FnOnce(&'a Seen) -> T,
        whole: impl FnOnce(&'a ChatRequest) -> T,
    ) -> T {
        match (&self.bytes, self.whole.get()) {
            (Some(bytes), _) => seen(&bytes.seen),
            (None, Some(request)) => whole(request),
            // One of the two is always there.
            (None, None) => T::default(),
        }
    }
}

impl From<ChatRequest> for Asked {
    fn from(request: ChatRequest) -> Self {
        Self::understood(request)
    }
}
