//! The bytes that are hashed and signed: a version and a domain, then every field, lengths first.

use selvedge_crdt::escrow::Holder;

use super::Digest;

/// The version of all canonical bytes of rounds.
const VERSION: u8 = 1;

/// Canonical bytes in the making.
pub(super) struct Canon(Vec<u8>);

impl Canon {
    /// Begins with the version and what kind of record it is.
    pub(super) fn of(domain: &str) -> Self {
        let mut bytes = vec![VERSION];
        bytes.extend(domain.as_bytes());
        bytes.push(0);
        Self(bytes)
    }

    pub(super) fn number(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn fixed(mut self, bytes: &[u8; 32]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn holder(self, holder: &Holder) -> Self {
        self.fixed(&holder.node.0).number(holder.incarnation)
    }

    /// A list, with its length.
    pub(super) fn list<T>(
        self,
        items: impl ExactSizeIterator<Item = T>,
        each: impl Fn(Self, T) -> Self,
    ) -> Self {
        let canon = self.number(items.len() as u64);
        items.fold(canon, each)
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn digest(self) -> Digest {
        *blake3::hash(&self.0).as_bytes()
    }
}
