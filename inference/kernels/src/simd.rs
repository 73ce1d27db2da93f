//! Sixteen lanes: the one vocabulary in which every kernel is written, once.
//!
//! Owns the trait and the choice of an instruction set when the program runs. A kernel is generic
//! over [`Simd`]; each implementation does the same operation in every lane, rounds once where
//! this page says once, and adds integers exactly. So a kernel's result is bitwise the same on
//! every processor: an answer begun on one node is continued on another as the first would have.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(all(miri, target_arch = "x86_64"))]
mod interpreted;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
mod scalar;

pub(crate) use scalar::Scalar;

use crate::act::Act;
use crate::tile::Tile;

/// Lanes of every vector: output rows of a tile, positions of a group of keys.
pub(crate) const LANES: usize = 16;

/// Sixteen floats in memory.
pub(crate) type Floats = [f32; LANES];
/// Sixteen half-precision floats in memory, as their bits.
pub(crate) type Halves = [u16; LANES];
/// Sixteen times four bytes in memory: byte `i` of a word is its bits `8 i..8 i + 8`.
pub(crate) type Words = [u32; LANES];

/// What a processor must do, in all lanes alike.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen floats.
    type F: Copy;
    /// Sixteen signed integers of 32 bits.
    type I: Copy;
    /// Sixteen times four bytes.
    type B: Copy;
    /// Whether a register holds all lanes, and there are 32 of them: how much is kept at hand.
    const ROOMY: bool;
    /// Vectors of sums that attention lets grow side by side: they share loads and hide the time of
    /// a multiply-add. No result depends on it.
    const BESIDE: usize;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, from: &Floats) -> Self::F;
    fn store(self, value: Self::F, to: &mut Floats);
    /// From half precision; exact.
    fn widen(self, from: &Halves) -> Self::F;
    /// To half precision, to the nearest, ties to even.
    fn narrow(self, value: Self::F, to: &mut Halves);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a` where it is greater, else `b`: also where either is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a` where it is less, else `b`: also where either is not a number.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// 2^n for lanes that hold 1.5 * 2^23 + n, by moving n into the exponent.
    fn power_of_two(self, biased: Self::F) -> Self::F;
    /// The lowest byte of each lane's bits.
    fn low_bytes(self, value: Self::F, to: &mut [u8; LANES]);

    fn splat_integer(self, value: i32) -> Self::I;
    fn add_integers(self, a: Self::I, b: Self::I) -> Self::I;
    /// Exact for magnitudes up to 2^24.
    fn to_float(self, value: Self::I) -> Self::F;

    fn bytes(self, from: &Words) -> Self::B;
    /// The lower four bits of each byte.
    fn lower(self, bytes: Self::B) -> Self::B;
    /// The upper four bits of each byte.
    fn upper(self, bytes: Self::B) -> Self::B;
    /// Bit `at` of each byte of `bits` as bit 4 of the same byte of `low`; `at` is below 8.
    fn with_bit(self, low: Self::B, bits: Self::B, at: u32) -> Self::B;
    /// Bits `2 at` and `2 at + 1` of each byte as bits 4 and 5; `at` is below 4.
    fn with_pair(self, low: Self::B, bits: Self::B, at: u32) -> Self::B;

    /// Adds to the sums of some rows the products of a tile with their activations, each row's as
    /// if it were alone: integers exactly, then [`Tile::scale`] once for each of the tile's parts.
    fn multiply<T: Tile, const ROWS: usize>(
        self,
        tile: &T,
        acts: &[Act; ROWS],
        sums: &mut [Self::F; ROWS],
    );
}

/// What multiplies step by step while it holds an opened tile ([`crate::tile::held`]).
pub(crate) trait Dot: Simd {
    /// `sum` and, lane by lane, the products of four bytes below 64 with the four signed bytes of
    /// `by`. Exact.
    fn dot(self, sum: Self::I, bytes: Self::B, by: u32) -> Self::I;
    /// The same for any bytes.
    fn dot_wide(self, sum: Self::I, bytes: Self::B, by: u32) -> Self::I;
}

/// Work that is compiled once for each instruction set.
pub(crate) trait Kernel {
    type Output;
    /// Whether it multiplies tiles: what does not is the same in all classes of a processor, and is
    /// compiled for one of them.
    #[cfg_attr(
        not(all(target_arch = "aarch64", target_endian = "little")),
        allow(dead_code, reason = "other processors have no such classes")
    )]
    const TILES: bool = false;
    /// Implementations are `#[inline(always)]`, as is all that they call with `simd`: only then do
    /// the instructions end up in the function that may use them.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An instruction set that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    Neon(neon::Neon<neon::Plain>),
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    Dotprod(neon::Neon<neon::Dotprod>),
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    I8mm(neon::Neon<neon::I8mm>),
}

impl Isa {
    /// The fastest that this processor has.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self::scalar())
    }

    /// All that this processor has, the slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "some processors have nothing to add")]
        let mut all = vec![Self::scalar()];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(avx2::Avx2::detect().map(|set| Self(Set::Avx2(set))));
            all.extend(avx512::Avx512::detect().map(|set| Self(Set::Avx512(set))));
        }
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        {
            all.extend(neon::Plain::detect().map(|set| Self(Set::Neon(set))));
            all.extend(neon::Dotprod::detect().map(|set| Self(Set::Dotprod(set))));
            all.extend(neon::I8mm::detect().map(|set| Self(Set::I8mm(set))));
        }
        all
    }

    /// No vectors: what every processor has.
    pub const fn scalar() -> Self {
        Self(Set::Scalar)
    }

    /// As people call it.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Set::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_) => "avx512-vnni",
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Set::Neon(_) => "neon",
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Set::Dotprod(_) => "neon-dotprod",
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Set::I8mm(_) => "neon-i8mm",
        }
    }

    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Set::Scalar => kernel.run(Scalar),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(set) => set.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(set) => set.run(kernel),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Set::Neon(set) => set.run(kernel),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Set::Dotprod(set) => set.run(kernel),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Set::I8mm(set) => set.run(kernel),
        }
    }
}

#[cfg(test)]
#[path = "simd_tests.rs"]
pub(crate) mod tests;
