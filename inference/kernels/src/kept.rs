//! Packed matrices that outlive a model in memory: what is known of them, and who keeps them.
//!
//! Owns what a file of them has to say and the version of what is in it. Files themselves, and
//! whether one is to be believed, are the caller's affair.

use std::fmt;
use std::sync::Arc;

use crate::error::KernelError;
use crate::format::Layout;
use crate::simd::LANES;

/// The version of tiles and of the numbers that packing gives. Whoever changes a bit of what
/// packing writes raises it, so that no node computes with what an older one packed; a test knows
/// the bits.
pub const TILES_VERSION: u8 = 1;

/// A matrix of a model, as a file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The tensor that it is a part of.
    pub tensor: &'a str,
    /// The tensor's row that it begins at.
    pub first: usize,
    /// How its tiles are laid out.
    pub layout: Layout,
    /// Its rows.
    pub outputs: usize,
    /// Blocks of its columns.
    pub depth: usize,
}

impl Wanted<'_> {
    /// Bytes of its tiles.
    pub const fn bytes(&self) -> u64 {
        let tiles = self.outputs.div_ceil(LANES).saturating_mul(self.depth) as u64;
        tiles.saturating_mul(self.layout.tile_bytes() as u64)
    }
}

/// Who keeps matrices. Several threads ask for different ones at once.
pub trait Shelf: Sync {
    /// Where a matrix lies, or a place to keep it at.
    ///
    /// # Errors
    /// [`KernelError`] when nothing here can be used any more.
    fn take(&self, wanted: &Wanted<'_>) -> Result<Taken<'_>, KernelError>;

    /// All matrices of the model were taken: the bytes that they lie in.
    ///
    /// # Errors
    /// [`KernelError`] when they cannot be had.
    fn close(&self) -> Result<Arc<dyn Kept>, KernelError>;
}

/// What a shelf has for a matrix.
pub enum Taken<'a> {
    /// Its tiles begin at this byte.
    Found(usize),
    /// Nothing yet.
    Place(Box<dyn Place + 'a>),
}

/// Where the tiles of one matrix go.
pub trait Place {
    /// Appends tiles.
    ///
    /// # Errors
    /// [`KernelError`] when they cannot be kept.
    fn write(&mut self, tiles: &[u8]) -> Result<(), KernelError>;

    /// All tiles were appended: the byte that they begin at.
    ///
    /// # Errors
    /// [`KernelError`] when they cannot be kept.
    fn end(self: Box<Self>) -> Result<usize, KernelError>;
}

/// Bytes that matrices lie in. They begin at an address that a tile may begin at, and are the same
/// for as long as anybody has them.
pub trait Kept: fmt::Debug + Send + Sync {
    /// All of them.
    fn bytes(&self) -> &[u8];
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
