use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::act::{Act, BLOCK};
use crate::attend::{Attend, Numbers};
use crate::format::Format;
use crate::half;
use crate::kv::{Geometry, PAGE};
use crate::math::{exp, gelu, silu};
use crate::matrix::Matrix;
use crate::model::Activation;
use crate::product::Acts;
use crate::rows::{AddNormed, Gated, Norm, RoundPlain};

/// Formats with a layout of their own, and one that goes through eight bits.
pub(crate) const FORMATS: [Format; 9] = [
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::F16,
];

/// What every instruction set gives, or the first that differs.
fn same<T: PartialEq + std::fmt::Debug>(of: impl Fn(Isa) -> T) -> T {
    let expected = of(Isa::scalar());
    for isa in Isa::available() {
        assert!(of(isa) == expected, "{} differs", isa.name());
    }
    expected
}

fn bits(floats: &[Floats]) -> Vec<u32> {
    floats.iter().flatten().map(|number| number.to_bits()).collect()
}

/// Bytes of a format that stand for sane numbers: codes are random, scales are not.
pub(crate) fn tensor(format: Format, rows: usize, columns: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let count = format.bytes_for(columns) * rows;
    let mut bytes: Vec<u8> = (0..count).map(|_| dice.next() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        let at: &[usize] = match format {
            Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::F16 => &[0],
            Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
            Format::Q6K => &[208],
            Format::Q2K => &[80, 82],
            Format::Q3K => &[108],
            Format::F32 | Format::BF16 => &[],
        };
        for &at in at {
            let scale = half::from_f32(dice.unit() * 0.02);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

fn matrix(format: Format, rows: usize, columns: usize, seed: u64) -> Matrix {
    let bytes = tensor(format, rows, columns, seed);
    let row = format.bytes_for(columns);
    Matrix::pack(format, rows, columns, &mut |first, count, into| {
        into.extend_from_slice(&bytes[first * row..(first + count) * row]);
        Ok(())
    })
    .expect("packs")
}

/// A generator for tests (Vigna's splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Between -1 and 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, count: usize) -> Vec<Floats> {
        (0..count).map(|_| std::array::from_fn(|_| self.unit())).collect()
    }
}

/// A function of each number.
struct Each<'a>(&'a [Floats], Which);

#[derive(Clone, Copy)]
enum Which {
    Exp,
    Silu,
    Gelu,
}

impl Kernel for Each<'_> {
    type Output = Vec<Floats>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<Floats> {
        let mut out = self.0.to_vec();
        for value in &mut out {
            let x = s.load(value);
            let result = match self.1 {
                Which::Exp => exp(s, x),
                Which::Silu => silu(s, x),
                Which::Gelu => gelu(s, x),
            };
            s.store(result, value);
        }
        out
    }
}

#[test]
fn the_exponential_is_exact_enough_and_the_same_everywhere() {
    let steps = if cfg!(miri) { 64 } else { 100_000 };
    let numbers: Vec<Floats> = (0..steps)
        .map(|step| {
            std::array::from_fn(|lane| {
                -90.0 + 180.0 * (step * 16 + lane) as f32 / (steps * 16) as f32
            })
        })
        .chain([[f32::NEG_INFINITY; LANES], [f32::INFINITY; LANES], [0.0; LANES]])
        .collect();
    let all = same(|isa| bits(&isa.run(Each(&numbers, Which::Exp))));
    for (x, ours) in numbers.iter().flatten().zip(&all) {
        let exact = f64::from(x.clamp(-87.0, 88.0)).exp();
        let error = (f64::from(f32::from_bits(*ours)) - exact).abs() / exact;
        assert!(error < 2e-7, "e^{x}: {error}");
    }
    same(|isa| bits(&isa.run(Each(&numbers, Which::Silu))));
    let all = same(|isa| bits(&isa.run(Each(&numbers, Which::Gelu))));
    for (x, ours) in numbers.iter().flatten().zip(&all).filter(|(x, _)| x.is_finite()) {
        let x = f64::from(*x);
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
        let exact = 0.5 * x * (1.0 + u.tanh());
        let error = (f64::from(f32::from_bits(*ours)) - exact).abs();
        assert!(error < 1e-6 * exact.abs().max(1.0), "GELU of {x}: {error}");
    }
}

/// Activations of `rows` rows, block by block.
fn acts(rows: usize, depth: usize, dice: &mut Dice) -> (Vec<[Floats; 2]>, Vec<Act>) {
    let mut values: Vec<[Floats; 2]> = Vec::new();
    for _ in 0..rows * depth {
        let loud = 10f32.powi((dice.next() % 5) as i32 - 2);
        values.push(std::array::from_fn(|_| std::array::from_fn(|_| dice.unit() * loud)));
    }
    let out = same(|isa| {
        let mut out = vec![Act::default(); values.len()];
        isa.run(RoundPlain { values: &values, out: &mut out });
        out
    });
    (values, out)
}

/// Cases of a property: few under Miri, which takes seconds for each, and as many as
/// `PROPTEST_CASES` says on emulated processors.
fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 2 } else { ProptestConfig::default().cases.min(96) },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn products_are_right_and_the_same_everywhere_and_in_every_batch(
        format in prop::sample::select(FORMATS.to_vec()),
        outputs in 1usize..40,
        blocks in 1usize..9,
        rows in 1usize..20,
        seed: u64,
    ) {
        let columns = blocks * format.block_len().max(BLOCK);
        let matrix = matrix(format, outputs, columns, seed);
        let mut dice = Dice(seed);
        let (values, acts) = acts(rows, matrix.depth, &mut dice);
        let mut weights = vec![0.0; columns];
        for height in 0..matrix.height() {
            let product = |isa: Isa, acts: &[Act], rows: usize| {
                let mut out = vec![[0.5; LANES]; rows];
                matrix.open(&[]).multiply(isa, height, Acts { acts, rows }, &mut out, true);
                out
            };
            let all = same(|isa| bits(&product(isa, &acts, rows)));
            for row in 0..rows {
                let own: Vec<Act> = acts.iter().skip(row).step_by(rows).copied().collect();
                let alone = bits(&product(Isa::detect(), &own, 1));
                prop_assert!(alone == all[row * LANES..(row + 1) * LANES], "in a batch of {rows}");
                for lane in 0..LANES.min(outputs - height * LANES) {
                    matrix.open(&[]).row(height * LANES + lane, &mut weights);
                    let inputs = values.iter().skip(row).step_by(rows).flatten().flatten();
                    let (mut exact, mut size) = (0.0, 0.0);
                    for (weight, input) in weights.iter().zip(inputs) {
                        exact += f64::from(*weight) * f64::from(*input);
                        size += f64::from(*weight).powi(2);
                    }
                    // Each input is off by at most half a step of its block: 100 / 127 / 2.
                    let bound = size.sqrt() * (columns as f64).sqrt() * 0.4;
                    let ours = f64::from(f32::from_bits(all[row * LANES + lane])) - 0.5;
                    prop_assert!((ours - exact).abs() <= bound, "{ours} for {exact} ± {bound}");
                }
            }
        }
    }

    #[test]
    fn attention_is_right_and_the_same_everywhere(
        dim in prop::sample::select(vec![2usize, 8, 16, 40, 64, 80, 128]),
        heads in 1usize..9,
        length in 1usize..200,
        sight in 1usize..300,
        seed: u64,
    ) {
        let start = length.saturating_sub(sight);
        let geometry = Geometry { layers: 1, kv_heads: 1, dim };
        let padded = geometry.padded();
        let mut dice = Dice(seed);
        let pages: Vec<Plain> = (0..length.div_ceil(PAGE))
            .map(|_| Plain((0..2 * geometry.side())
                .map(|_| half::from_f32(dice.unit())).collect()))
            .collect();
        let mut queries = vec![0.0; heads * padded];
        for query in queries.chunks_exact_mut(padded) {
            query[..dim].iter_mut().for_each(|number| *number = dice.unit());
        }
        let run = |isa: Isa, queries: &[f32], heads: usize| {
            let (mut out, mut scores) = (vec![0.0; heads * dim], Vec::new());
            let (pages, scores, out_) = (pages.as_slice(), &mut scores, &mut out);
            let out = &mut *out_;
            isa.run(Attend { pages, geometry, offset: 0, start, length, queries, scores, out });
            out.iter().map(|number| number.to_bits()).collect::<Vec<_>>()
        };
        let all = same(|isa| run(isa, &queries, heads));
        for head in 0..heads {
            let query = &queries[head * padded..(head + 1) * padded];
            let ours = &all[head * dim..(head + 1) * dim];
            prop_assert!(run(Isa::detect(), query, 1) == ours, "a head alone");
            let exact = exact_attention(&pages, geometry, query, start..length);
            for (ours, exact) in ours.iter().zip(exact) {
                let ours = f64::from(f32::from_bits(*ours));
                prop_assert!((ours - exact).abs() < 1e-5, "{ours} for {exact}");
            }
        }
    }

    #[test]
    fn norms_and_gates_are_the_same_everywhere(rows in 1usize..7, tiles in 1usize..9, seed: u64) {
        let x = Dice(seed).floats(2 * tiles * rows);
        let factors = same(|isa| {
            let mut out = vec![0.0; rows];
            let width = 32 * tiles;
            isa.run(Norm { x: &x, rows, width, epsilon: 1e-5, first: 0, out: &mut out });
            out.iter().map(|number| number.to_bits()).collect::<Vec<_>>()
        });
        for (row, factor) in factors.iter().enumerate() {
            let squares = x.iter().skip(row).step_by(rows).flatten();
            let squares: f64 = squares.map(|number| f64::from(*number).powi(2)).sum();
            let exact = 1.0 / (squares / (32 * tiles) as f64 + 1e-5).sqrt();
            let ours = f64::from(f32::from_bits(*factor));
            prop_assert!((ours / exact - 1.0).abs() < 1e-5, "{ours} for {exact}");
        }
        same(|isa| {
            let (gate, up) = (&x[..2 * rows], &x[x.len() - 2 * rows..]);
            let mut out = vec![Act::default(); rows];
            isa.run(Gated { activation: Activation::Silu, gate, up, out: &mut out });
            let first = out.clone();
            isa.run(Gated { activation: Activation::Gelu, gate, up, out: &mut out });
            (first, out)
        });
        let added = same(|isa| {
            let (mut out, factors) = (vec![[0.5; LANES]; rows], vec![2.0; rows]);
            let (apart, weights, out_) = (&*x, &*x, &mut out);
            let first = 1;
            let kernel = AddNormed { apart, rows, factors: &factors, weights, first, out: out_ };
            isa.run(kernel);
            bits(&out)
        });
        for (row, ours) in added.chunks(LANES).enumerate() {
            for (lane, ours) in ours.iter().enumerate() {
                let exact = 0.5 + 2.0 * f64::from(x[rows + row][lane]) * f64::from(x[1][lane]);
                prop_assert!((f64::from(f32::from_bits(*ours)) - exact).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn half_precision_is_the_same_everywhere(numbers: [u32; 16]) {
        let floats: Floats = numbers.map(f32::from_bits);
        prop_assume!(floats.iter().all(|number| !number.is_nan()));
        same(|isa| isa.run(There(&floats)));
    }
}

struct There<'a>(&'a Floats);

impl Kernel for There<'_> {
    type Output = (Halves, [u32; LANES]);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let (mut halves, mut back) = ([0; LANES], [0.0; LANES]);
        s.narrow(s.load(self.0), &mut halves);
        s.store(s.widen(&halves), &mut back);
        (halves, back.map(f32::to_bits))
    }
}

struct Plain(Vec<u16>);

impl Numbers for Plain {
    fn numbers(&self) -> &[u16] {
        &self.0
    }
}

fn exact_attention(
    pages: &[Plain],
    geometry: Geometry,
    query: &[f32],
    seen: Range<usize>,
) -> Vec<f64> {
    let padded = geometry.padded();
    let key = |position: usize, at: usize| {
        let (page, slot) = (&pages[position / PAGE].0, position % PAGE);
        f64::from(half::to_f32(page[(slot / LANES * padded + at) * LANES + slot % LANES]))
    };
    let value = |position: usize, at: usize| {
        let (page, slot) = (&pages[position / PAGE].0, position % PAGE);
        f64::from(half::to_f32(page[geometry.side() + slot * padded + at]))
    };
    let scores: Vec<f64> = (seen.clone())
        .map(|position| (0..padded).map(|at| f64::from(query[at]) * key(position, at)).sum())
        .collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mixed = |at| seen.clone().zip(&weights).map(|(p, w)| w * value(p, at)).sum::<f64>() / sum;
    (0..geometry.dim).map(mixed).collect()
}

/// The extremes: all codes at their greatest, activations at their greatest and of one sign.
#[test]
fn nothing_saturates() {
    // Under Miri one of each layout.
    let kinds = if cfg!(miri) {
        &[Format::Q4_0, Format::Q5K, Format::Q6K, Format::Q8_0][..]
    } else {
        &FORMATS
    };
    for &format in kinds {
        let columns = format.block_len().max(BLOCK);
        for (code, input) in [(0xff, -1.0), (0xff, 1.0), (0x00, 1.0), (0x80, -1.0), (0x7f, 1.0)] {
            let mut bytes = tensor(format, LANES, columns, 1);
            let row = format.bytes_for(columns);
            let kept = bytes.clone();
            bytes.fill(code);
            for (block, kept) in bytes
                .chunks_exact_mut(format.block_bytes())
                .zip(kept.chunks_exact(format.block_bytes()))
            {
                let at = if format == Format::Q6K { 208 } else { 0 };
                let scales = at..(at + 4).min(block.len());
                if format != Format::F16 {
                    block[scales.clone()].copy_from_slice(&kept[scales]);
                }
            }
            let matrix = Matrix::pack(format, LANES, columns, &mut |first, count, into| {
                into.extend_from_slice(&bytes[first * row..(first + count) * row]);
                Ok(())
            })
            .expect("packs");
            let values = vec![[[input; LANES]; 2]; matrix.depth];
            let mut acts = vec![Act::default(); matrix.depth];
            Isa::scalar().run(RoundPlain { values: &values, out: &mut acts });
            same(|isa| {
                let mut out = vec![[0.0; LANES]];
                matrix.open(&[]).multiply(isa, 0, Acts { acts: &acts, rows: 1 }, &mut out, false);
                bits(&out)
            });
        }
    }
}

#[test]
fn what_is_no_number_is_never_lost() {
    for (half, lane) in [(0, 0), (1, 5), (0, 15), (1, 15)] {
        for strange in [f32::NAN, -f32::NAN] {
            let mut values = [[1.0; LANES]; 2];
            values[half][lane] = strange;
            for isa in Isa::available() {
                let mut acts = [Act::default()];
                isa.run(RoundPlain { values: &[values], out: &mut acts });
                assert!(acts[0].scale.is_nan() && acts[0].sum.is_nan());
                assert!(isa.run(Each(&[[strange; LANES]], Which::Exp))[0][0].is_nan());
            }
            let mut bytes: Vec<u8> = [1.0f32; BLOCK].iter().flat_map(|n| n.to_le_bytes()).collect();
            let at = 4 * (16 * half + lane);
            bytes[at..at + 4].copy_from_slice(&strange.to_le_bytes());
            assert!(half::to_f32(Format::F32.codes(&bytes, 0).factors[0]).is_nan());
        }
    }
}

/// On emulated processors `cargo xtask arm` says which it must be.
#[test]
fn the_best_of_the_processors_own_sets_is_chosen() {
    let names: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
    assert_eq!(names.first(), Some(&"scalar"));
    assert_eq!(names.last(), Some(&Isa::detect().name()));
    let unlike: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unlike.len(), names.len(), "{names:?}");
    if cfg!(target_arch = "aarch64") {
        assert_eq!(names.get(1), Some(&"neon"), "every such processor has it");
    }
    if let Ok(expected) = std::env::var("SELVEDGE_TEST_ISA") {
        assert_eq!(Isa::detect().name(), expected);
    }
}
