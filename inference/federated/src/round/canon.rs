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

    /// A list of numbers: the same as by [`Canon::list`], at once, since an update has a million.
    pub(super) fn numbers(self, items: impl ExactSizeIterator<Item = u64>) -> Self {
        let Self(mut bytes) = self.number(items.len() as u64);
        let begin = bytes.len();
        bytes.resize(begin + 8 * items.len(), 0);
        let (places, _) = bytes[begin..].as_chunks_mut::<8>();
        places.iter_mut().zip(items).for_each(|(place, item)| *place = item.to_be_bytes());
        Self(bytes)
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn digest(self) -> Digest {
        *blake3::hash(&self.0).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_a_list_of_numbers() {
        for items in [vec![], vec![7], vec![u64::MAX, 0, 1 << 40]] {
            let one = Canon::of("test").numbers(items.iter().copied()).bytes();
            let other = Canon::of("test").list(items.iter(), |canon, item| canon.number(*item));
            assert_eq!(one, other.bytes());
        }
    }
}
