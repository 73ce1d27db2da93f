//! The keys and values of one sequence, in half precision.
//!
//! Owns their memory: pages of 64 positions with all layers in each, so that a short answer never
//! pays for a long context. A page never moves and refers to nothing, so a whole one, which nobody
//! writes any more, can be shared between sequences of equal beginnings. Who may grow, and who
//! shares what, is decided elsewhere.

use std::sync::Arc;

use crate::error::KernelError;
use crate::simd::LANES;

/// Positions per page.
pub const PAGE: usize = 64;

/// The dimensions that a cache is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    /// Of one head.
    pub(crate) dim: usize,
}

/// Keys and values of one sequence: shared pages, all whole, and behind them its own.
pub struct Cache {
    pub(crate) geometry: Geometry,
    pub(crate) shared: Vec<SharedPage>,
    pub(crate) pages: Vec<Page>,
    pub(crate) length: usize,
}

/// A whole page that nobody writes any more: a function of the model and of all tokens up to its
/// end.
#[derive(Clone)]
pub struct SharedPage {
    geometry: Geometry,
    index: usize,
    numbers: Arc<Page>,
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

impl SharedPage {
    pub(crate) fn numbers(&self) -> &[u16] {
        &self.numbers
    }
}

impl Cache {
    pub(crate) const fn new(geometry: Geometry) -> Self {
        Self { geometry, shared: Vec::new(), pages: Vec::new(), length: 0 }
    }

    /// Shares the first whole page that is the sequence's own; `None` when there is none.
    pub fn share(&mut self) -> Option<SharedPage> {
        let index = self.shared.len();
        if self.pages.is_empty() || self.length < (index + 1) * PAGE {
            return None;
        }
        let numbers = Arc::new(self.pages.remove(0));
        let page = SharedPage { geometry: self.geometry, index, numbers };
        self.shared.push(page.clone());
        Some(page)
    }

    /// Goes on behind a shared page: in place of the sequence's own of the same tokens, if it has
    /// computed that, else instead of computing it.
    ///
    /// # Errors
    /// [`KernelError::Shape`] when the page is of another model or another place, or the
    /// sequence's own is not whole.
    pub fn join(&mut self, page: SharedPage) -> Result<(), KernelError> {
        let index = self.shared.len();
        let (begins, ends) = (index * PAGE, (index + 1) * PAGE);
        let fits = page.geometry == self.geometry && page.index == index;
        if !fits || (self.length > begins && self.length < ends) {
            return Err(KernelError::Shape("a page that does not belong there".to_owned()));
        }
        // Room set aside is given up, too: it would stand behind the wrong page.
        if !self.pages.is_empty() {
            self.pages.remove(0);
        }
        self.length = self.length.max(ends);
        self.shared.push(page);
        Ok(())
    }

    /// Positions held.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is held.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets what is behind the first positions, whole pages with their memory. What stays of a
    /// page is not touched: a row sees nothing behind its own position, and what is computed there
    /// next is written over what was forgotten. Shared pages stay.
    pub fn truncate(&mut self, length: usize) {
        let length = length.max(self.shared.len() * PAGE);
        if length < self.length {
            self.length = length;
            self.pages.truncate(length.div_ceil(PAGE) - self.shared.len());
        }
    }

    /// Makes room for `more` positions.
    pub(crate) fn reserve(&mut self, more: usize) {
        let pages = (self.length + more).div_ceil(PAGE);
        let numbers = self.geometry.offset(self.geometry.layers, 0);
        while self.shared.len() + self.pages.len() < pages {
            self.pages.push(vec![0; numbers].into_boxed_slice());
        }
    }
}
