//! The proxy of a network that lets nothing out directly.
//!
//! Owns its address and which hosts are reached without it. Only `CONNECT` for https targets: the
//! proxy sees a host name and bytes of TLS, never a key.

use selvedge_core::upstream::provider::BaseUrl;

use crate::error::SetupError;

/// Hosts in a `NO_PROXY` list that are looked at: real ones have a dozen.
const MAX_EXCEPTIONS: usize = 256;

/// An HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    exceptions: Vec<String>,
}

impl Proxy {
    /// Reads `http://HOST:PORT`, and a list of hosts as `NO_PROXY` has it.
    ///
    /// # Errors
    /// [`SetupError::Proxy`], which says what is allowed and repeats nothing: such an address may
    /// hold a password.
    pub fn parse(address: &str, exceptions: &str) -> Result<Self, SetupError> {
        let whole =
            if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let base = BaseUrl::parse(&whole).map_err(SetupError::Proxy)?;
        if base.is_https() {
            return Err(SetupError::Proxy("http://HOST:PORT, not https"));
        }
        let exceptions = exceptions.split(',').map(|name| name.trim().trim_start_matches("*."));
        let exceptions = exceptions.map(|name| name.trim_start_matches('.').to_ascii_lowercase());
        let exceptions = exceptions.filter(|name| !name.is_empty()).take(MAX_EXCEPTIONS).collect();
        Ok(Self { host: base.host().to_owned(), port: base.port(), exceptions })
    }

    /// The proxy that the environment names by `HTTPS_PROXY` and `NO_PROXY`, which `read` looks up.
    ///
    /// # Errors
    /// As [`Proxy::parse`].
    pub fn of_environment(
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SetupError> {
        let either = |upper: &str, lower: &str| {
            read(upper).or_else(|| read(lower)).filter(|value| !value.is_empty())
        };
        let Some(address) = either("HTTPS_PROXY", "https_proxy") else { return Ok(None) };
        let exceptions = either("NO_PROXY", "no_proxy").unwrap_or_default();
        Self::parse(&address, &exceptions).map(Some)
    }

    /// Whether `host` is reached through it.
    pub(crate) fn serves(&self, host: &str) -> bool {
        !self.exceptions.iter().any(|name| {
            let below = host.strip_suffix(name.as_str()).is_some_and(|left| left.ends_with('.'));
            name == "*" || name == host || below
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read() {
        let read = |name: &str| match name {
            "https_proxy" => Some("http://proxy.corp:3128".to_owned()),
            "NO_PROXY" => Some("localhost, .corp,*.lan".to_owned()),
            _ => None,
        };
        let proxy = Proxy::of_environment(read).unwrap().unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("proxy.corp", 3128));
        assert!(proxy.serves("api.example.com"));
        assert!(proxy.serves("notcorp"));
        for host in ["localhost", "a.corp", "corp", "x.y.lan"] {
            assert!(!proxy.serves(host), "{host}");
        }
        assert_eq!(Proxy::of_environment(|_| None), Ok(None));
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = Proxy::parse("http://me:hunter2@proxy:1", "").expect_err("a password");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(Proxy::parse("https://proxy:1", "").is_err());
    }
}
