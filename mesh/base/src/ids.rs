//! Names: of nodes, meshes, models and requests.
//!
//! Owns their bytes, text forms and parsing. A node's name is its Ed25519 public key, written as
//! the libp2p PeerId of that key (libp2p peer-ids spec: identity multihash of the protobuf key,
//! base58btc). Holds no private key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What stands before the 32 key bytes in an Ed25519 PeerId: identity multihash (0x00), 36 bytes
/// (0x24), then protobuf fields key type = Ed25519 (08 01) and key data of 32 bytes (12 20).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// A text that is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseIdError {
    /// Not a PeerId of an Ed25519 key.
    #[error("'{0}' is not a node's name: expected a PeerId that begins with 12D3KooW")]
    NodeId(String),
    /// Not a hexadecimal digest.
    #[error("'{0}' is not a digest: expected 64 hexadecimal digits")]
    Digest(String),
    /// Not a request id.
    #[error("'{0}' is not a request id: expected req_ and 32 hexadecimal digits")]
    RequestId(String),
}

/// A node: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

/// A mesh: the Ed25519 public key its first root key had. Rotation changes the root key, not this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MeshId(pub [u8; 32]);

/// A model file: the BLAKE3 digest of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelDigest(pub [u8; 32]);

/// One request, unique across the mesh.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u128);

impl NodeId {
    /// The bytes of the libp2p PeerId.
    pub fn peer_id_bytes(&self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// The node of a libp2p PeerId; `None` when the PeerId is not of an Ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.strip_prefix(&PEER_ID_PREFIX)?.try_into().ok()?))
    }

    /// The last eight characters of the PeerId, enough to tell nodes apart on a screen.
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len().saturating_sub(8)..].to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.peer_id_bytes()).into_string())
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseIdError::NodeId(text.chars().take(80).collect());
        // A PeerId is 52 characters; base58 decoding is quadratic, so long texts stop here.
        if text.len() > 64 {
            return Err(refused());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| refused())?;
        Self::from_peer_id_bytes(&bytes).ok_or_else(refused)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_digest(text: &str) -> Result<[u8; 32], ParseIdError> {
    let refused = || ParseIdError::Digest(text.chars().take(80).collect());
    if text.len() != 64 || !text.is_ascii() {
        return Err(refused());
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| refused())?;
    }
    Ok(bytes)
}

macro_rules! digest_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse_digest(text).map(Self)
            }
        }

        impl $name {
            /// The first eight hexadecimal digits, enough to tell things apart on a screen.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }
    };
}

digest_text!(MeshId);
digest_text!(ModelDigest);

impl RequestId {
    /// Its text form, which is ASCII. Each request is named twice or more: by hand this takes a
    /// tenth of what a format does.
    pub fn text(&self) -> [u8; 36] {
        let mut text = *b"req_00000000000000000000000000000000";
        for (pair, byte) in text[4..].chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair.copy_from_slice(&HEX[usize::from(byte)]);
        }
        text
    }
}

/// The two digits of each byte.
static HEX: [[u8; 2]; 256] = {
    let (digits, mut pairs) = (b"0123456789abcdef", [[0; 2]; 256]);
    let mut at = 0;
    while at < pairs.len() {
        pairs[at] = [digits[at >> 4], digits[at & 15]];
        at += 1;
    }
    pairs
};

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for RequestId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseIdError::RequestId(text.chars().take(80).collect());
        let digits = text.strip_prefix("req_").filter(|rest| rest.len() == 32);
        u128::from_str_radix(digits.ok_or_else(refused)?, 16).map(Self).map_err(|_| refused())
    }
}

macro_rules! debug_as_display {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    )*};
}

debug_as_display!(NodeId, MeshId, ModelDigest, RequestId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_written_as_its_peer_id() {
        let node = NodeId([7; 32]);
        let text = node.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<NodeId>(), Ok(node));
        assert_eq!(node.short().len(), 8);
    }

    #[test]
    fn wrong_texts_are_refused_with_the_text() {
        assert!(matches!("hello".parse::<NodeId>(), Err(ParseIdError::NodeId(_))));
        assert!("1".repeat(10_000).parse::<NodeId>().is_err());
        assert!("zz".repeat(32).parse::<ModelDigest>().is_err());
        assert!("é".repeat(32).parse::<ModelDigest>().is_err());
        assert!("req_1".parse::<RequestId>().is_err());
    }

    #[test]
    fn digests_and_requests_round_trip() {
        let digest = ModelDigest([0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for request in [0, 0xfeed, u128::MAX, 0x0123_4567_89ab_cdef << 64].map(RequestId) {
            let text = request.to_string();
            assert_eq!(text, format!("req_{:032x}", request.0));
            assert_eq!(text.as_bytes(), request.text());
            assert_eq!(text.parse(), Ok(request));
        }
    }
}
