//! The join code and its one line of text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use selvedge_base::{MeshId, NodeId};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroize;

use super::MAX_CODE_ADDRS;
use crate::{base32, records};

/// What stands before a code's base32, with the version of what follows.
const PREFIX: &str = "sv1-";
/// Bytes of the checksum: one wrong letter in 16 million passes, and then the proof fails anyway.
const CHECKSUM_BYTES: usize = 3;
/// The longest text worth reading: the largest code is about 220 letters, people add blanks.
const MAX_TEXT_BYTES: usize = 512;

/// What a person carries from a member to a machine that shall join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinCode {
    /// Which code of its issuer.
    pub id: u32,
    /// Of the mesh: the joiner accepts no other.
    pub fingerprint: [u8; 16],
    /// Known to whoever holds the code; 64 bits, though five attempts would make far fewer do.
    pub secret: [u8; 8],
    /// The first bytes of the issuer's key: tells its announcement on the LAN from others, and
    /// a wrong node is noticed before the exchange. The proof is what authenticates.
    pub issuer: [u8; 8],
    /// Where the issuer listens, at most [`MAX_CODE_ADDRS`].
    pub addrs: Vec<SocketAddr>,
}

/// Why a text is no join code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseCodeError {
    /// It does not begin like one.
    #[error("a join code begins with {PREFIX}")]
    Prefix,
    /// It is damaged.
    #[error("the join code is damaged; copy it again, whole")]
    Damaged,
}

impl JoinCode {
    /// Whether `node` may be the one that issued this code.
    pub fn names(&self, node: &NodeId) -> bool {
        node.0.starts_with(&self.issuer)
    }

    /// Whether the code is for `mesh`.
    pub fn is_for(&self, mesh: &MeshId) -> bool {
        records::fingerprint(mesh) == self.fingerprint
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fingerprint);
        bytes.extend(self.secret);
        bytes.extend(self.issuer);
        for addr in self.addrs.iter().take(MAX_CODE_ADDRS) {
            match addr.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend(ip.octets());
                }
            }
            bytes.extend(addr.port().to_be_bytes());
        }
        let checksum = checksum(&bytes);
        bytes.extend(checksum);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        if checksum(body) != *sum {
            return None;
        }
        let mut rest = body;
        let id = u32::from_be_bytes(take(&mut rest)?);
        let fingerprint = take(&mut rest)?;
        let secret = take(&mut rest)?;
        let issuer = take(&mut rest)?;
        let mut addrs = Vec::new();
        while let Some((family, after)) = rest.split_first() {
            rest = after;
            let ip: IpAddr = match family {
                4 => Ipv4Addr::from(take::<4>(&mut rest)?).into(),
                6 => Ipv6Addr::from(take::<16>(&mut rest)?).into(),
                _ => return None,
            };
            addrs.push(SocketAddr::new(ip, u16::from_be_bytes(take(&mut rest)?)));
        }
        (addrs.len() <= MAX_CODE_ADDRS).then_some(Self { id, fingerprint, secret, issuer, addrs })
    }
}

impl Drop for JoinCode {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Display for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", base32::encode(&self.to_bytes()))
    }
}

impl fmt::Debug for JoinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinCode")
            .field("id", &self.id)
            .field("addrs", &self.addrs)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinCode {
    type Err = ParseCodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.len() > MAX_TEXT_BYTES {
            return Err(ParseCodeError::Damaged);
        }
        let lower = text.to_ascii_lowercase();
        let letters = lower.strip_prefix(PREFIX).ok_or(ParseCodeError::Prefix)?;
        let bytes = base32::decode(letters).ok_or(ParseCodeError::Damaged)?;
        Self::from_bytes(&bytes).ok_or(ParseCodeError::Damaged)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 join code checksum");
    hasher.update(bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    sum
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}
