use std::collections::BTreeMap;
use std::sync::Mutex;

use bytemuck::{Pod, Zeroable};

use super::*;
use crate::format::Format;
use crate::matrix::Matrix;
use crate::model::{Model, Source};
use crate::simd::tests::{FORMATS, tensor};
use crate::step::tests::{Drawn, last, shape};

/// Bytes at an address that a tile may begin at.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

#[derive(Debug)]
struct Lines(Vec<Line>);

impl Kept for Lines {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A shelf in memory.
#[derive(Default)]
struct Memory(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    lines: Vec<Line>,
    /// Where each matrix begins, by its tensor and row, with layout, outputs and depth.
    starts: BTreeMap<(String, usize), (usize, Layout, usize, usize)>,
    /// Matrices that were brought.
    brought: usize,
}

/// A matrix on its way.
struct Bringing<'a> {
    memory: &'a Memory,
    key: (String, usize),
    shape: (Layout, usize, usize),
    tiles: Vec<u8>,
    expected: u64,
}

impl Place for Bringing<'_> {
    fn write(&mut self, tiles: &[u8]) -> Result<(), KernelError> {
        self.tiles.extend_from_slice(tiles);
        Ok(())
    }

    fn end(self: Box<Self>) -> Result<usize, KernelError> {
        assert_eq!(self.tiles.len() as u64, self.expected, "as many as were announced");
        let mut inside = self.memory.0.lock().expect("nobody panicked");
        let start = inside.lines.len() * size_of::<Line>();
        for part in self.tiles.chunks(size_of::<Line>()) {
            let mut line = Line::zeroed();
            line.0[..part.len()].copy_from_slice(part);
            inside.lines.push(line);
        }
        let (layout, outputs, depth) = self.shape;
        inside.starts.insert(self.key, (start, layout, outputs, depth));
        inside.brought += 1;
        Ok(start)
    }
}

impl Shelf for Memory {
    fn take(&self, wanted: &Wanted<'_>) -> Result<Taken<'_>, KernelError> {
        let key = (wanted.tensor.to_owned(), wanted.first);
        let shape = (wanted.layout, wanted.outputs, wanted.depth);
        let inside = self.0.lock().expect("nobody panicked");
        if let Some(&(start, layout, outputs, depth)) = inside.starts.get(&key) {
            assert_eq!((layout, outputs, depth), shape);
            return Ok(Taken::Found(start));
        }
        let expected = wanted.bytes();
        let bringing = Bringing { memory: self, key, shape, tiles: Vec::new(), expected };
        Ok(Taken::Place(Box::new(bringing)))
    }

    fn close(&self) -> Result<Arc<dyn Kept>, KernelError> {
        let inside = self.0.lock().expect("nobody panicked");
        Ok(Arc::new(Lines(inside.lines.clone())))
    }
}

fn load(format: Format, fused: bool, shelf: Option<&dyn Shelf>) -> Result<Model, KernelError> {
    let config = crate::model::Config { fused, ..shape(96, 16) };
    let open = || -> Result<Box<dyn Source>, KernelError> { Ok(Box::new(Drawn(format))) };
    Model::load(config, &open, 2, shelf)
}

#[test]
fn a_kept_model_computes_the_same_bits() {
    let tokens: Vec<u32> = (0..if cfg!(miri) { 2 } else { 70 }).map(|at| at * 7 % 50).collect();
    for fused in [false, true] {
        let alone = load(Format::Q8_0, fused, None).expect("loads");
        let expected = last(&alone, &mut alone.cache(), &tokens, 33);
        let memory = Memory::default();
        for _ in ["brought", "found"] {
            let kept = load(Format::Q8_0, fused, Some(&memory)).expect("loads");
            assert!(kept.is_kept() && !alone.is_kept());
            assert!(last(&kept, &mut kept.cache(), &tokens, 33) == expected, "fused: {fused}");
        }
        // Seven matrices a layer, and the words: nothing was packed twice.
        assert_eq!(memory.0.lock().expect("nobody panicked").brought, 2 * 7 + 1);
    }
}

/// Shelves that are broken are found out before anything is computed.
#[test]
fn tiles_that_are_not_there_are_no_model() {
    let memory = Memory::default();
    load(Format::Q8_0, false, Some(&memory)).expect("loads");
    let whole = std::mem::take(&mut *memory.0.lock().expect("nobody panicked"));
    let broken = |edit: &dyn Fn(&mut Inside)| {
        let (lines, starts) = (whole.lines.clone(), whole.starts.clone());
        let mut inside = Inside { lines, starts, brought: 0 };
        edit(&mut inside);
        load(Format::Q8_0, false, Some(&Memory(Mutex::new(inside))))
    };
    assert!(broken(&|_| ()).is_ok());
    let refused: [&dyn Fn(&mut Inside); 3] = [
        &|inside: &mut Inside| inside.lines.truncate(inside.lines.len() - 1),
        &|inside: &mut Inside| inside.lines.clear(),
        // Where no tile can begin.
        &|inside: &mut Inside| inside.starts.values_mut().for_each(|(start, ..)| *start += 1),
    ];
    for edit in refused {
        assert!(matches!(broken(edit), Err(KernelError::Bytes)));
    }
}

/// All tiles of a matrix as bytes, and the matrix that lies there.
fn brought(format: Format, rows: usize, columns: usize, bytes: &[u8]) -> (Matrix, Vec<u8>) {
    let memory = Memory::default();
    let (layout, depth) = (format.layout(), columns.div_ceil(crate::act::BLOCK));
    let wanted = Wanted { tensor: "it", first: 0, layout, outputs: rows, depth };
    let Taken::Place(place) = memory.take(&wanted).expect("a place") else {
        panic!("nothing is there")
    };
    let row = format.bytes_for(columns);
    let matrix = Matrix::pack_into(place, format, rows, columns, &mut |first, count, into| {
        into.extend_from_slice(&bytes[first * row..(first + count) * row]);
        Ok(())
    });
    let kept = memory.close().expect("closes");
    (matrix.expect("packs"), kept.bytes()[..wanted.bytes() as usize].to_vec())
}

#[test]
fn every_layout_is_kept_as_it_is_packed() {
    for format in FORMATS {
        // The last tile is not whole, and of the longest rows not all are read at once.
        let columns = if cfg!(miri) { 256 } else { 8_192 };
        let (rows, bytes) = (50, tensor(format, 50, columns, 9));
        let row = format.bytes_for(columns);
        let alone = Matrix::pack(format, rows, columns, &mut |first, count, into| {
            into.extend_from_slice(&bytes[first * row..(first + count) * row]);
            Ok(())
        });
        let alone = alone.expect("packs");
        let (kept, tiles) = brought(format, rows, columns, &bytes);
        let lines: Vec<Line> = tiles
            .chunks(size_of::<Line>())
            .map(|part| {
                let mut line = Line::zeroed();
                line.0[..part.len()].copy_from_slice(part);
                line
            })
            .collect();
        let lines = Lines(lines);
        assert!(kept.is_whole(lines.bytes()) && alone.is_whole(&[]) && !kept.is_whole(&[]));
        let (mut ours, mut theirs) = (vec![0.0; columns], vec![0.0; columns]);
        for row in 0..rows {
            alone.open(&[]).row(row, &mut ours);
            kept.open(lines.bytes()).row(row, &mut theirs);
            let same = ours.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{format:?}, row {row}");
        }
    }
}

/// Fowler, Noll and Vo's hash, of 64 bits (FNV-1a).
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Files are kept over versions of the program: where this fails, packing writes other bits than
/// before, and [`TILES_VERSION`] is to be raised with the numbers here. They come from a program of
/// its own that packs by the definition of the layouts.
#[test]
fn what_packing_writes_is_what_its_version_says() {
    assert_eq!(TILES_VERSION, 1);
    let byte = |at: usize| ((at * 37 + 11) % 251) as u8;
    let all: [(Format, &[usize], u64); 8] = [
        (Format::Q4_0, &[0], 0x1ce8_a213_adc5_1c34),
        (Format::Q4_1, &[0, 2], 0x9ff9_69be_e110_b526),
        (Format::Q5_0, &[0], 0x86fa_1bee_bef3_265a),
        (Format::Q5_1, &[0, 2], 0xe494_004f_abc0_895e),
        (Format::Q8_0, &[0], 0xade4_555f_055e_0b40),
        (Format::Q4K, &[0, 2], 0x4227_f9fe_99b8_5dfc),
        (Format::Q6K, &[208], 0x48aa_e31c_2c8c_0443),
        (Format::F32, &[], 0xe7fd_2b30_aaeb_5dbb),
    ];
    for (format, scales, expected) in all {
        let columns = format.block_len().max(crate::act::BLOCK);
        let mut bytes: Vec<u8> = match format {
            Format::F32 => (0..16 * columns)
                .flat_map(|at| (f32::from(byte(at)) - 125.0).to_le_bytes())
                .collect(),
            _ => (0..16 * format.block_bytes()).map(byte).collect(),
        };
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            for at in scales {
                // Halves of about a sixteenth.
                block[at + 1] = 0x2c;
            }
        }
        let (_, tiles) = brought(format, 16, columns, &bytes);
        assert_eq!(hash(&tiles), expected, "{format:?} is packed otherwise");
    }
}

#[test]
fn layouts_have_codes_of_their_own() {
    let codes = Layout::ALL.map(Layout::code);
    assert_eq!(codes, [4, 5, 6, 8]);
    for layout in Layout::ALL {
        // A tile may begin wherever a line of a cache does, and fills whole halves of one.
        assert!(layout.tile_bytes().is_multiple_of(32));
    }
}
