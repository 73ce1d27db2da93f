//! Matrices of weights, packed into tiles as they are read.
//!
//! Owns packing, some rows at a time: a tensor never lies in memory twice. Rows beyond a
//! matrix' own in its last tile, and inputs beyond its columns, are zero. Tiles are in memory of
//! the matrix' own, or lie in bytes that somebody keeps; before each phase of a step a matrix is
//! opened, behind which both are the same slice.

use crate::act::BLOCK;
use crate::error::KernelError;
use crate::format::{Codes, Format, Layout};
use crate::half;
use crate::kept::{Place, Wanted};
use crate::simd::LANES;
use crate::tile::{EXCESS6, EXCESS8, Offsets, Row, STEPS, Tile, Tile4, Tile5, Tile6, Tile8};

/// Bytes that are read at once: enough that the call costs nothing beside them, and little beside
/// the model.
const READ_BYTES: usize = 1 << 18;

/// A matrix of `outputs` rows and `inputs` columns.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) outputs: usize,
    /// Blocks of inputs.
    pub(crate) depth: usize,
    pub(crate) tiles: Tiles,
}

/// Tiles in order of output rows, then inputs.
#[derive(Debug)]
pub(crate) enum Tiles {
    Four(Vec<Tile4>),
    Five(Vec<Tile5>),
    Six(Vec<Tile6>),
    Eight(Vec<Tile8>),
    /// Of this layout, from this byte on of what is kept.
    Kept(Layout, usize),
}

/// A matrix whose tiles are at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) outputs: usize,
    pub(crate) depth: usize,
    pub(crate) tiles: Slices<'a>,
}

/// The tiles of a matrix, wherever they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slices<'a> {
    Four(&'a [Tile4]),
    Five(&'a [Tile5]),
    Six(&'a [Tile6]),
    Eight(&'a [Tile8]),
}

/// Reads `count` rows of a tensor from row `first` on into a buffer.
pub(crate) type ReadRows<'a> =
    dyn FnMut(usize, usize, &mut Vec<u8>) -> Result<(), KernelError> + 'a;

impl Matrix {
    /// Reads and packs a tensor into memory of its own.
    pub(crate) fn pack(
        format: Format,
        outputs: usize,
        inputs: usize,
        read: &mut ReadRows<'_>,
    ) -> Result<Self, KernelError> {
        let mut rows = Rows::new(format, outputs, inputs, read)?;
        let depth = rows.depth;
        let tiles = match format.layout() {
            Layout::Four => Tiles::Four(rows.pack(pack4)?),
            Layout::Five => Tiles::Five(rows.pack(pack5)?),
            Layout::Six => Tiles::Six(rows.pack(pack6)?),
            Layout::Eight => Tiles::Eight(rows.pack(pack8)?),
        };
        Ok(Self { outputs, depth, tiles })
    }

    /// Reads and packs a tensor into a place where it is kept.
    pub(crate) fn pack_into(
        mut place: Box<dyn Place + '_>,
        format: Format,
        outputs: usize,
        inputs: usize,
        read: &mut ReadRows<'_>,
    ) -> Result<Self, KernelError> {
        let mut rows = Rows::new(format, outputs, inputs, read)?;
        let (depth, layout) = (rows.depth, format.layout());
        match layout {
            Layout::Four => rows.pack_into(&mut *place, pack4)?,
            Layout::Five => rows.pack_into(&mut *place, pack5)?,
            Layout::Six => rows.pack_into(&mut *place, pack6)?,
            Layout::Eight => rows.pack_into(&mut *place, pack8)?,
        }
        Ok(Self { outputs, depth, tiles: Tiles::Kept(layout, place.end()?) })
    }

    /// One that was packed before, from this byte on of what is kept.
    pub(crate) const fn kept(wanted: &Wanted<'_>, start: usize) -> Self {
        let tiles = Tiles::Kept(wanted.layout, start);
        Self { outputs: wanted.outputs, depth: wanted.depth, tiles }
    }

    /// Bytes that a tensor takes when packed.
    pub(crate) const fn bytes_for(format: Format, outputs: usize, inputs: usize) -> u64 {
        let tiles = outputs.div_ceil(LANES).saturating_mul(inputs.div_ceil(BLOCK));
        (tiles as u64).saturating_mul(format.layout().tile_bytes() as u64)
    }

    /// Rows of sixteen outputs.
    pub(crate) const fn height(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// The matrix with its tiles, given the bytes that kept ones lie in. Costs a few nanoseconds.
    pub(crate) fn open<'a>(&'a self, kept: &'a [u8]) -> View<'a> {
        let count = self.height().saturating_mul(self.depth);
        let tiles = match &self.tiles {
            Tiles::Four(tiles) => Slices::Four(tiles),
            Tiles::Five(tiles) => Slices::Five(tiles),
            Tiles::Six(tiles) => Slices::Six(tiles),
            Tiles::Eight(tiles) => Slices::Eight(tiles),
            Tiles::Kept(Layout::Four, start) => Slices::Four(lying(kept, *start, count)),
            Tiles::Kept(Layout::Five, start) => Slices::Five(lying(kept, *start, count)),
            Tiles::Kept(Layout::Six, start) => Slices::Six(lying(kept, *start, count)),
            Tiles::Kept(Layout::Eight, start) => Slices::Eight(lying(kept, *start, count)),
        };
        View { outputs: self.outputs, depth: self.depth, tiles }
    }

    /// Whether all of its tiles are there.
    pub(crate) fn is_whole(&self, kept: &[u8]) -> bool {
        let there = match self.open(kept).tiles {
            Slices::Four(tiles) => tiles.len(),
            Slices::Five(tiles) => tiles.len(),
            Slices::Six(tiles) => tiles.len(),
            Slices::Eight(tiles) => tiles.len(),
        };
        there == self.height().saturating_mul(self.depth)
    }
}

impl View<'_> {
    /// Rows of sixteen outputs.
    pub(crate) const fn height(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// The weights of one row, as many as `out` takes.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        match self.tiles {
            Slices::Four(tiles) => unpack(tiles, self.depth, row, out),
            Slices::Five(tiles) => unpack(tiles, self.depth, row, out),
            Slices::Six(tiles) => unpack(tiles, self.depth, row, out),
            Slices::Eight(tiles) => unpack(tiles, self.depth, row, out),
        }
    }
}

/// So many tiles that lie in bytes; none where there are fewer, or where none can begin.
fn lying<T: Tile>(kept: &[u8], start: usize, count: usize) -> &[T] {
    let end = start.saturating_add(count.saturating_mul(size_of::<T>()));
    let bytes = kept.get(start..end).unwrap_or_default();
    bytemuck::try_cast_slice(bytes).unwrap_or_default()
}

fn unpack<T: Tile>(tiles: &[T], depth: usize, row: usize, out: &mut [f32]) {
    let tiles = tiles.get(row / LANES * depth..).unwrap_or_default();
    for (tile, out) in tiles.iter().zip(out.chunks_mut(BLOCK)) {
        spell(&tile.row(row % LANES), out);
    }
}

/// The weights of a row whose bytes are as its file has them, as many as `out` takes: the same
/// numbers that [`View::row`] gives when it is packed.
pub(crate) fn spell_row(format: Format, bytes: &[u8], out: &mut [f32]) {
    for (index, out) in out.chunks_mut(BLOCK).enumerate() {
        let Codes { words, factors, offset } = format.codes(bytes, index);
        let offsets = match format.layout() {
            Layout::Four | Layout::Five => Offsets::Own(offset),
            Layout::Six => Offsets::Factors(-EXCESS6),
            Layout::Eight => Offsets::Factors(-EXCESS8),
        };
        spell(&Row { words, factors, offsets }, out);
    }
}

fn spell(row: &Row, out: &mut [f32]) {
    let Row { words, factors, offsets } = row;
    for (half, out) in out.chunks_mut(BLOCK / 2).enumerate() {
        let factor = half::to_f32(factors[half]);
        let offset = match offsets {
            Offsets::Own(bits) => half::to_f32(*bits),
            Offsets::Factors(count) => factor * *count as f32,
        };
        let words = words[half * STEPS / 2..].iter();
        for (out, code) in out.iter_mut().zip(words.flat_map(|word| word.to_le_bytes())) {
            *out = factor * f32::from(code) + offset;
        }
    }
}

/// A tensor that is read row by row.
struct Rows<'a, 'b> {
    format: Format,
    outputs: usize,
    inputs: usize,
    depth: usize,
    read: &'a mut ReadRows<'b>,
    buffer: Vec<u8>,
}

/// The codes of sixteen rows, at one block of inputs.
type Column = [Codes; LANES];

impl<'a, 'b> Rows<'a, 'b> {
    fn new(
        format: Format,
        outputs: usize,
        inputs: usize,
        read: &'a mut ReadRows<'b>,
    ) -> Result<Self, KernelError> {
        if format.block_len() > 1 && !inputs.is_multiple_of(format.block_len()) {
            return Err(KernelError::Shape(format!("{inputs} columns of {format:?}")));
        }
        let depth = inputs.div_ceil(BLOCK);
        Ok(Self { format, outputs, inputs, depth, read, buffer: Vec::new() })
    }

    fn pack<T: Tile>(&mut self, pack: impl Fn(&Column) -> T) -> Result<Vec<T>, KernelError> {
        let mut tiles = Vec::with_capacity(self.outputs.div_ceil(LANES) * self.depth);
        self.each(&mut tiles, pack, |_| Ok(()))?;
        Ok(tiles)
    }

    fn pack_into<T: Tile>(
        &mut self,
        place: &mut dyn Place,
        pack: impl Fn(&Column) -> T,
    ) -> Result<(), KernelError> {
        self.each(&mut Vec::new(), pack, |tiles| {
            place.write(bytemuck::cast_slice::<T, u8>(tiles))?;
            tiles.clear();
            Ok(())
        })
    }

    /// Appends the tiles of all rows, and calls `packed` after each part that was read.
    fn each<T: Tile>(
        &mut self,
        tiles: &mut Vec<T>,
        pack: impl Fn(&Column) -> T,
        mut packed: impl FnMut(&mut Vec<T>) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        let row_bytes = self.format.bytes_for(self.inputs);
        let at_once = LANES * (READ_BYTES / row_bytes.max(1) / LANES).max(1);
        for first in (0..self.outputs).step_by(at_once) {
            let count = at_once.min(self.outputs - first);
            self.buffer.clear();
            (self.read)(first, count, &mut self.buffer)?;
            if self.buffer.len() != count.saturating_mul(row_bytes) {
                return Err(KernelError::Bytes);
            }
            for rows in self.buffer.chunks(LANES * row_bytes.max(1)) {
                let mut column: Column = [Codes::default(); LANES];
                for index in 0..self.depth {
                    for (codes, row) in column.iter_mut().zip(rows.chunks_exact(row_bytes)) {
                        *codes = self.format.codes(row, index);
                    }
                    tiles.push(pack(&column));
                }
            }
            packed(tiles)?;
        }
        Ok(())
    }
}

/// Sixteen rows' words of one step.
fn words(column: &Column, word: impl Fn(&Codes) -> u32) -> [u32; LANES] {
    std::array::from_fn(|row| word(&column[row]))
}

fn low_words(column: &Column) -> [[u32; LANES]; 4] {
    /// The lower four bits of each byte.
    const LOW: u32 = 0x0f0f_0f0f;
    std::array::from_fn(|step| {
        words(column, |codes| codes.words[step] & LOW | (codes.words[step + 4] & LOW) << 4)
    })
}

fn factors(column: &Column, half: usize) -> [u16; LANES] {
    std::array::from_fn(|row| column[row].factors[half])
}

fn offsets(column: &Column) -> [u16; LANES] {
    std::array::from_fn(|row| column[row].offset)
}

fn pack4(column: &Column) -> Tile4 {
    Tile4 { factor: factors(column, 0), offset: offsets(column), low: low_words(column) }
}

fn pack5(column: &Column) -> Tile5 {
    let high = words(column, |codes| {
        let bits = codes.words.iter().enumerate();
        bits.fold(0, |high, (step, word)| high | (word >> 4 & 0x0101_0101) << step)
    });
    let (factor, offset) = (factors(column, 0), offsets(column));
    Tile5 { factor, offset, low: low_words(column), high }
}

fn pack6(column: &Column) -> Tile6 {
    let high = |group: usize| {
        words(column, |codes| {
            let pairs = codes.words[4 * group..4 * group + 4].iter().enumerate();
            pairs.fold(0, |high, (step, word)| high | (word >> 4 & 0x0303_0303) << (2 * step))
        })
    };
    let factors = [factors(column, 0), factors(column, 1)];
    Tile6 { factors, low: low_words(column), high: [high(0), high(1)] }
}

fn pack8(column: &Column) -> Tile8 {
    Tile8 {
        factor: factors(column, 0),
        codes: std::array::from_fn(|step| words(column, |codes| codes.words[step])),
    }
}
