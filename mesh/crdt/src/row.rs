//! One row: who wrote it, which write it is, its value and the writer's signature.
//!
//! Owns the bytes that are signed and the order of writes. Does not know what the value means nor
//! how a signature is checked.

use std::fmt;

use selvedge_base::NodeId;
use selvedge_base::codec::{self, CodecError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The largest value of a row: a node with a hundred models at about 150 bytes each. Rows travel
/// in deltas of a few tens of KiB, so one row may not crowd out all others.
pub const MAX_VALUE_BYTES: usize = 16 << 10;

/// What stands before a row's signed bytes, so that no other record can pass for a row.
const DOMAIN: &[u8] = b"selvedge row";
/// The version of the signed bytes.
const CANONICAL_VERSION: u8 = 1;

/// An Ed25519 signature (RFC 8032): the halves `R` and `S`, 32 bytes each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Signature(pub [u8; 32], pub [u8; 32]);

/// Which write of its writer a row is. A later incarnation (process start) beats any sequence.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Stamp {
    /// Counts the starts of the writer; it is stored before it is used.
    pub incarnation: u64,
    /// Counts the writes since that start.
    pub seq: u64,
}

/// A node's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The only node that may write it.
    pub writer: NodeId,
    /// Which write it is.
    pub stamp: Stamp,
    /// The value, encoded by [`Row::draft`].
    pub value: Vec<u8>,
    /// The writer's signature over [`Row::canonical_bytes`].
    pub signature: Signature,
}

/// Why a row was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RowError {
    /// The value is too large.
    #[error("value of {size} bytes is over the limit of {MAX_VALUE_BYTES}")]
    TooLarge {
        /// Bytes of the value.
        size: usize,
    },
    /// The signature does not fit the writer and the bytes.
    #[error("row of {} is not signed by it", .0.short())]
    Signature(NodeId),
    /// There is no room for another writer.
    #[error("no room for another writer: {0} rows are held")]
    Full(usize),
    /// The value does not decode.
    #[error("value does not decode: {0}")]
    Value(CodecError),
}

/// Proof that a writer signed two different values under one stamp: it is broken, was copied, or
/// lies. Either row alone would pass, so both are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Equivocation {
    /// The row that stays in the map (the greater bytes, so that all nodes keep the same one).
    pub kept: Row,
    /// The other one.
    pub other: Row,
}

impl Row {
    /// A row with its value encoded and no valid signature yet.
    ///
    /// # Errors
    /// [`RowError::TooLarge`] over [`MAX_VALUE_BYTES`], [`RowError::Value`] when the value cannot
    /// be written.
    pub fn draft<V: Serialize>(writer: NodeId, stamp: Stamp, value: &V) -> Result<Self, RowError> {
        // A row reaches nodes of every version in the mesh, through whichever others: it is
        // written so that the oldest reads it.
        let value = codec::encode_datagram_at(codec::OLDEST_VERSION, value, codec::MAX_FRAME)
            .map_err(RowError::Value)?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(RowError::TooLarge { size: value.len() });
        }
        Ok(Self { writer, stamp, value, signature: Signature([0; 32], [0; 32]) })
    }

    /// The decoded value.
    ///
    /// # Errors
    /// [`RowError::Value`] when the value is of another version or type.
    pub fn value<V: DeserializeOwned>(&self) -> Result<V, RowError> {
        codec::decode_body(&self.value).map_err(RowError::Value)
    }

    /// The bytes the writer signs: version, domain, writer, stamp, value.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + DOMAIN.len() + 32 + 16 + 8 + self.value.len());
        bytes.push(CANONICAL_VERSION);
        bytes.extend(DOMAIN);
        bytes.extend(self.writer.0);
        bytes.extend(self.stamp.incarnation.to_be_bytes());
        bytes.extend(self.stamp.seq.to_be_bytes());
        bytes.extend((self.value.len() as u64).to_be_bytes());
        bytes.extend(&self.value);
        bytes
    }

    /// An upper bound of the bytes the row takes on the wire: writer and signature, two
    /// integers and a length of at most 9 bytes each, the value.
    pub fn wire_bytes(&self) -> usize {
        32 + 64 + 3 * 9 + self.value.len()
    }

    /// The first bytes of the hash of value and signature: tells rows of one stamp apart.
    pub(crate) fn check(&self) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.value.len() as u64).to_be_bytes());
        hasher.update(&self.value);
        hasher.update(&self.signature.0);
        hasher.update(&self.signature.1);
        let mut check = [0; 8];
        check.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        check
    }
}

impl Signature {
    /// The signature of 64 bytes.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&bytes[..32]);
        s.copy_from_slice(&bytes[32..]);
        Self(r, s)
    }

    /// The 64 bytes.
    pub fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Signature({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}
