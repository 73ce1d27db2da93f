//! Base addresses of providers.
//!
//! Owns a parser that takes what a base address needs and refuses the rest by name: no user names
//! or passwords (they would end up in logs), no query, no fragment, no spaces or control characters
//! (they could break out of a request line).

use std::fmt;

/// Bytes of an address. The longest of real providers have a hundred.
const MAX_BYTES: usize = 512;

/// Where a provider is: `https://host:port/path` without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaseUrl {
    https: bool,
    host: String,
    port: u16,
    path: String,
}

impl BaseUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_BYTES {
            return Err("at most 512 bytes");
        }
        let (https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("an address that begins with https:// or http://"),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err("an address without user name and password: keys belong to the vault");
        }
        let path = path.trim_end_matches('/');
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
        if !path.bytes().all(plain) {
            return Err("a path of plain characters, without ? and #");
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            Some(port) => {
                port.parse().ok().filter(|port| *port > 0).ok_or("a port of 1 to 65535")?
            }
            None if https => 443,
            None => 80,
        };
        Ok(Self { https, host: host.to_ascii_lowercase(), port, path: path.to_owned() })
    }

    /// Whether it is spoken to over TLS.
    pub const fn is_https(&self) -> bool {
        self.https
    }

    /// Name or address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path that stands before every path of a request; empty or beginning with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the `Host` header says: the port only when it is not the scheme's own.
    pub fn authority(&self) -> String {
        let own = if self.https { 443 } else { 80 };
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == own { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("an IPv6 address in [ ]")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "an IPv6 address in [ ]")?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("nothing but a port after ]"),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || host.starts_with(['.', '-']) || !host.bytes().all(plain) {
        return Err("a host name of letters, digits, dots and dashes");
    }
    Ok((host, port))
}
