//! What can be set about the HTTP surface, with defaults that work.
//!
//! Owns values and their reasons. Reading them from files and flags belongs to the configuration.

use std::fmt;
use std::time::Duration;

use selvedge_base::Micros;
use subtle::ConstantTimeEq;

/// Settings of the surface.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Names (without port) accepted in `Host` on a loopback address, besides `localhost` and
    /// loopback addresses.
    pub(crate) hosts: Vec<String>,
    /// Opens the admin API; without one it refuses everybody.
    pub(crate) admin_token: Option<AdminToken>,
    /// Bytes of a request body. The longest chats of today's models are about 1 MiB of text;
    /// 8 MiB leaves room for JSON escapes and multi-byte scripts.
    pub(crate) body_limit: usize,
    /// Time to send the head of a request, and for a connection to stay idle between requests.
    /// A person on a bad line needs one or two seconds; longer waits only help slow attacks.
    pub(crate) header_timeout: Duration,
    /// Time to send a whole body: 8 MiB at 2.3 Mbit/s.
    pub(crate) body_timeout: Duration,
    /// Time a client may leave a response unread before it is cut off.
    pub(crate) stall_timeout: Duration,
    /// Connections at a time: each holds a few KiB when idle. A client has one for each request it
    /// waits for and some that rest.
    pub(crate) connections: usize,
    /// Threads that serve connections; none: the threads of the runtime do. As many as there are
    /// cores, so that no thread of these waits for another.
    pub(crate) workers: usize,
    /// Silence on a stream after which a comment line keeps proxies from closing it; common proxy
    /// limits are 30 s and 60 s.
    pub(crate) keep_alive: Duration,
    /// Time an answer may take when the client does not say: ten minutes, as the official clients
    /// wait.
    pub(crate) deadline: Micros,
    /// Time running answers get to finish when the node stops; the process ends within 2 s.
    pub(crate) grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            admin_token: None,
            body_limit: 8 << 20,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            connections: 768,
            workers: 0,
            keep_alive: Duration::from_secs(15),
            deadline: Micros::secs(600),
            grace: Duration::from_millis(1_200),
        }
    }
}

/// The secret of the admin API. Never printed.
#[derive(Clone)]
pub(crate) struct AdminToken(blake3::Hash);

impl AdminToken {
    /// A token from its text; only its digest is kept.
    pub(crate) fn new(secret: &str) -> Self {
        Self(blake3::hash(secret.as_bytes()))
    }

    /// Whether `given` is the token, in a time that does not depend on where they differ.
    pub(super) fn opens(&self, given: &str) -> bool {
        let given = blake3::hash(given.as_bytes());
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens_and_nothing_shows_it() {
        let token = AdminToken::new("orchard");
        assert!(token.opens("orchard"));
        for wrong in ["", "orchar", "orchardd", "Orchard"] {
            assert!(!token.opens(wrong), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "AdminToken(***)");
    }
}
