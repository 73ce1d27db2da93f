//! How an attempt at a provider ended, and whose fault that was.
//!
//! Owns the classification. What follows from it is decided by the breaker, the keys and the retry
//! policy, each for itself.

use selvedge_base::{Blame, Code, Micros, Refusal, Retry, Stage};

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A whole answer came.
    Answered,
    /// The provider refused the request itself: 4xx but for those named below.
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// Too many requests or tokens for this key: 429.
    Limited {
        /// How long the provider asks to wait.
        retry_after: Option<Micros>,
    },
    /// The key is not valid, not allowed or not paid for: 401, 402, 403.
    KeyRejected {
        /// HTTP status.
        status: u16,
    },
    /// The provider failed: 5xx and 408.
    Failed {
        /// HTTP status.
        status: u16,
        /// How long the provider asks to wait.
        retry_after: Option<Micros>,
    },
    /// No connection: name, route, TLS, proxy.
    Unreachable,
    /// A connection, but not one byte of an answer in time.
    Silent,
    /// The answer began and then paused for too long.
    Stalled,
    /// The connection closed before the answer was whole.
    Cut,
    /// What came is not an answer: not HTTP, of a wrong type, over the limits, a redirect.
    Malformed,
    /// The answer was still coming when the longest time for any answer was over.
    Overran,
    /// The request's own deadline passed: the caller had given too little time, or others took it.
    Expired,
    /// The caller went away.
    Left,
    /// This node could not make the request: no key opens, a body of a shape that has none.
    Unsent,
}

/// Whose fault an ending was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody's, or nothing is known.
    Nobody,
    /// The caller's: the request will be refused again.
    Client,
    /// The key's: another key, or the same one later, may do.
    Key,
    /// The provider's.
    Provider,
}

impl Ending {
    /// The ending of an answer with this status (RFC 9110, and 529 as Anthropic uses it).
    pub const fn of_status(status: u16, retry_after: Option<Micros>) -> Self {
        match status {
            200..=299 => Self::Answered,
            401..=403 => Self::KeyRejected { status },
            429 => Self::Limited { retry_after },
            408 | 500..=599 => Self::Failed { status, retry_after },
            400..=499 => Self::Refused { status },
            // A 1xx is no answer, and redirects are not followed.
            _ => Self::Malformed,
        }
    }

    /// Whose fault it was.
    pub const fn fault(self) -> Fault {
        match self {
            Self::Answered | Self::Expired | Self::Left | Self::Unsent => Fault::Nobody,
            Self::Refused { .. } => Fault::Client,
            Self::Limited { .. } | Self::KeyRejected { .. } => Fault::Key,
            Self::Failed { .. }
            | Self::Unreachable
            | Self::Silent
            | Self::Stalled
            | Self::Cut
            | Self::Malformed
            | Self::Overran => Fault::Provider,
        }
    }

    /// Whether the provider has shown that it is there and answers.
    pub const fn shows_life(self) -> bool {
        matches!(
            self,
            Self::Answered | Self::Refused { .. } | Self::Limited { .. } | Self::KeyRejected { .. }
        )
    }

    /// How long the provider asks to wait, if it does.
    pub const fn retry_after(self) -> Option<Micros> {
        match self {
            Self::Limited { retry_after } | Self::Failed { retry_after, .. } => retry_after,
            Self::Answered
            | Self::Refused { .. }
            | Self::KeyRejected { .. }
            | Self::Unreachable
            | Self::Silent
            | Self::Stalled
            | Self::Cut
            | Self::Malformed
            | Self::Overran
            | Self::Expired
            | Self::Left
            | Self::Unsent => None,
        }
    }

    /// The refusal a caller gets when this was the last attempt. `provider` is its name; `said` is
    /// what it said, already cleaned of secrets, or empty.
    pub fn refusal(self, provider: &str, said: &str) -> Refusal {
        let (blame, retry, code, what) = self.words();
        let what = match self {
            Self::Refused { status }
            | Self::KeyRejected { status }
            | Self::Failed { status, .. } => format!("{what} (status {status})"),
            Self::Answered
            | Self::Limited { .. }
            | Self::Unreachable
            | Self::Silent
            | Self::Stalled
            | Self::Cut
            | Self::Malformed
            | Self::Overran
            | Self::Expired
            | Self::Left
            | Self::Unsent => what.to_owned(),
        };
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let message = format!("provider '{provider}' {what}{said}");
        Refusal::new(Stage::Execute, blame, retry, code, message)
    }

    fn words(self) -> (Blame, Retry, Code, &'static str) {
        let soon = |wait: Option<Micros>| Retry::After(wait.unwrap_or(Micros::secs(1)));
        let (theirs, elsewhere) = (Blame::Provider, Retry::Elsewhere);
        let away = Code::ModelUnavailable;
        match self {
            Self::Refused { status: 404 } => {
                (Blame::Client, Retry::Never, Code::ModelNotFound, "does not know the model")
            }
            Self::Refused { status: 413 } => {
                (Blame::Client, Retry::Never, Code::TooLarge, "finds the request too large")
            }
            Self::Refused { .. } => {
                (Blame::Client, Retry::Never, Code::InvalidRequest, "refused the request")
            }
            Self::Limited { retry_after } => {
                (theirs, soon(retry_after), Code::Overloaded, "has no capacity left for our key")
            }
            // The caller's own key is fine, so this must not look like its 401.
            Self::KeyRejected { .. } => (Blame::Us, elsewhere, away, "rejects our key"),
            Self::Failed { retry_after: Some(wait), .. } => {
                (theirs, soon(Some(wait)), away, "failed")
            }
            Self::Failed { .. } => (theirs, elsewhere, away, "failed"),
            Self::Unreachable => (theirs, elsewhere, away, "cannot be reached"),
            Self::Silent => (theirs, elsewhere, Code::Timeout, "did not begin to answer in time"),
            Self::Stalled => {
                (theirs, elsewhere, Code::Timeout, "stopped in the middle of its answer")
            }
            Self::Cut => (theirs, elsewhere, Code::PeerLost, "closed the connection in its answer"),
            Self::Malformed => (theirs, elsewhere, away, "answered with something unreadable"),
            Self::Overran => (theirs, elsewhere, Code::Timeout, "took too long for its answer"),
            Self::Expired => {
                (Blame::Client, soon(None), Code::Timeout, "had not answered at the deadline")
            }
            Self::Left => (Blame::Client, Retry::Never, Code::Cancelled, "was left by the caller"),
            Self::Unsent => (Blame::Us, elsewhere, away, "could not be asked"),
            // Only a fault in our own code asks for the refusal of an answer.
            Self::Answered => (Blame::Us, Retry::Never, Code::Internal, "answered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_one_to_blame() {
        let fault = |status| Ending::of_status(status, None).fault();
        assert_eq!(fault(200), Fault::Nobody);
        for status in [400, 404, 405, 409, 413, 415, 422] {
            assert_eq!(fault(status), Fault::Client, "{status}");
        }
        for status in [401, 402, 403, 429] {
            assert_eq!(fault(status), Fault::Key, "{status}");
        }
        for status in [100, 301, 307, 408, 500, 502, 503, 504, 529, 599, 600, 999] {
            assert_eq!(fault(status), Fault::Provider, "{status}");
        }
    }

    #[test]
    fn a_rejected_key_of_ours_does_not_look_like_the_callers() {
        let refusal = Ending::KeyRejected { status: 401 }.refusal("acme", "");
        assert_eq!(refusal.code, Code::ModelUnavailable);
        assert_eq!(refusal.blame, Blame::Us);
        assert_eq!(refusal.message, "provider 'acme' rejects our key (status 401)");
    }

    #[test]
    fn a_wait_asked_for_is_passed_on() {
        let wait = Micros::secs(7);
        let refusal = Ending::of_status(429, Some(wait)).refusal("acme", "slow down");
        assert_eq!(refusal.retry, Retry::After(wait));
        assert!(refusal.message.ends_with(": slow down"), "{refusal}");
    }
}
