//! The keys and values of one sequence, in half precision.
//!
//! Owns their memory: pages of 64 positions with all layers in each, so that a short answer never
//! pays for a long context. A page never moves and refers to nothing, so pages can be shared
//! between sequences one day. Who may grow is decided elsewhere.

use crate::simd::LANES;

/// Positions per page.
pub const PAGE: usize = 64;

/// Groups of positions whose keys lie side by side in a page.
pub(crate) const GROUPS: usize = PAGE / LANES;

/// The dimensions that a cache is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    /// Of one head.
    pub(crate) dim: usize,
}

/// Keys and values of one sequence.
pub struct Cache {
    pub(crate) geometry: Geometry,
    pub(crate) pages: Vec<Page>,
    pub(crate) length: usize,
}

/// For each layer and head: keys, for each group of 16 positions and each dimension its sixteen
/// numbers; then values, position by position. Half precision.
pub(crate) type Page = Box<[u16]>;

impl Geometry {
    /// Dimensions of a head as stored: whole vectors.
    pub(crate) const fn padded(self) -> usize {
        self.dim.next_multiple_of(LANES)
    }

    /// Numbers of keys (or of values) of a head in a page.
    pub(crate) const fn side(self) -> usize {
        PAGE * self.padded()
    }

    /// Where the keys of a head begin in a page; its values follow.
    pub(crate) const fn offset(self, layer: usize, head: usize) -> usize {
        (layer * self.kv_heads + head) * 2 * self.side()
    }

    /// Bytes of one position.
    pub(crate) const fn position_bytes(self) -> usize {
        self.layers * self.kv_heads * 2 * self.padded() * size_of::<u16>()
    }
}

impl Cache {
    pub(crate) const fn new(geometry: Geometry) -> Self {
        Self { geometry, pages: Vec::new(), length: 0 }
    }

    /// Positions held.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is held.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Makes room for `more` positions.
    pub(crate) fn reserve(&mut self, more: usize) {
        let pages = (self.length + more).div_ceil(PAGE);
        let numbers = self.geometry.offset(self.geometry.layers, 0);
        while self.pages.len() < pages {
            self.pages.push(vec![0; numbers].into_boxed_slice());
        }
    }
}
