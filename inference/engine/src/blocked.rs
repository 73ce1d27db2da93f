//! Matrices of blocks of 32 weights on the processor, multiplied exactly.
//!
//! Owns the layout and the kernel for Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0. Each weight is one byte
//! `q`, each block has a factor `d` and an offset `m` in f32, and a weight is `d * q + m`: the very
//! value the file stands for. Activations stay f32, so results equal those of the f32-dequantized
//! model but for the order of summation. candle's own kernels round activations to eight bits and
//! are scalar code for Q4_1, Q5_0 and Q5_1.
//!
//! What holds: every output is computed by the same operations in the same order whatever the
//! number of rows, the number of threads or the vector width (fused multiply-adds round alike in
//! vectors and alone), so a row's result depends neither on its batch nor on the processor.

use candle_core::quantized::GgmlDType;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, bail};
use rayon::prelude::*;

use crate::error::EngineError;

/// Weights per block in all five formats.
const BLOCK: usize = 32;
/// Weights that are multiplied at once: a quarter of a block.
const LANES: usize = 8;
/// Rows of activations that share one unpacking of the weights: four rows with two vectors of sums
/// each, the weights and their constants fit sixteen registers.
const ROWS: usize = 4;
/// A float whose last bits count ones: 2^23. Or-ing a byte into it converts the byte.
const MAGIC: u32 = 0x4b00_0000;
/// What such a float is too large by: 2^23, and 128 because bytes are stored without sign.
const EXCESS: f32 = 8_388_608.0 + 128.0;
/// Outputs one task computes: some microseconds of work.
const OUTPUTS: usize = 32;

/// A matrix of `outputs` rows and `inputs` columns.
#[derive(Debug)]
pub(crate) struct Blocked {
    outputs: usize,
    inputs: usize,
    blocks: Vec<Quants>,
    scales: Vec<Scale>,
}

/// A block's `q + 128`: byte `b` of word `w` is weight `8 b + w`, so that a shift and a mask
/// bring eight neighbours into eight lanes.
type Quants = [u32; LANES];

/// A block's factor and offset.
#[derive(Clone, Copy, Debug, Default)]
struct Scale {
    factor: f32,
    offset: f32,
}

impl Blocked {
    /// Whether this type is made of such blocks.
    pub(crate) const fn takes(kind: GgmlDType) -> bool {
        matches!(
            kind,
            GgmlDType::Q4_0 | GgmlDType::Q4_1 | GgmlDType::Q5_0 | GgmlDType::Q5_1 | GgmlDType::Q8_0
        )
    }

    /// Bytes that so many weights take in this layout.
    pub(crate) const fn bytes_for(weights: u64) -> u64 {
        weights + weights / BLOCK as u64 * size_of::<Scale>() as u64
    }

    /// The matrices in `parts`, one below the other; each has its type, rows and bytes.
    pub(crate) fn unpack(
        parts: &[(GgmlDType, usize, Vec<u8>)],
        inputs: usize,
    ) -> std::result::Result<Self, EngineError> {
        let outputs = parts.iter().map(|(_, rows, _)| rows).sum();
        let count = outputs * inputs / BLOCK;
        let (mut blocks, mut scales) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (kind, _, bytes) in parts {
            let mut block = [0; BLOCK];
            for packed in bytes.chunks_exact(kind.type_size()) {
                let scale = unpack(*kind, packed, &mut block);
                scales.push(scale.ok_or_else(|| EngineError::corrupt("unexpected block type"))?);
                blocks.push(interleaved(&block));
            }
        }
        if blocks.len() != count || !inputs.is_multiple_of(BLOCK) {
            return Err(EngineError::corrupt("a tensor's bytes do not match its shape"));
        }
        Ok(Self { outputs, inputs, blocks, scales })
    }

    /// The weights of some rows, as f32.
    pub(crate) fn rows(&self, rows: &[u32]) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(rows.len() * self.inputs);
        for &row in rows {
            let Some((blocks, scales)) = self.row(row as usize) else {
                bail!("row {row} of {}", self.outputs)
            };
            for (block, scale) in blocks.iter().zip(scales) {
                for quarter in 0..BLOCK / LANES {
                    out.extend(weights(block, *scale, quarter));
                }
            }
        }
        Ok(out)
    }

    /// `input` (rows of `inputs`) times the transposed matrix: rows of `outputs`.
    fn multiply(&self, input: &[f32]) -> Vec<f32> {
        let rows = input.len() / self.inputs;
        let mut by_output = vec![0.0; rows * self.outputs];
        by_output.par_chunks_mut(OUTPUTS * rows).enumerate().for_each(|(chunk, out)| {
            let task = Task { matrix: self, first: chunk * OUTPUTS, rows, input, out };
            pulp::Arch::new().dispatch(task);
        });
        if rows == 1 { by_output } else { transposed(&by_output, rows) }
    }

    fn row(&self, row: usize) -> Option<(&[Quants], &[Scale])> {
        let count = self.inputs / BLOCK;
        let range = row * count..(row + 1) * count;
        Some((self.blocks.get(range.clone())?, self.scales.get(range)?))
    }
}

impl CustomOp1 for Blocked {
    fn name(&self) -> &'static str {
        "blocked-matmul"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (Some((from, to)), &[rows, inputs]) = (layout.contiguous_offsets(), layout.dims())
        else {
            bail!("activations must be contiguous rows, not {layout:?}")
        };
        let Some(input) = storage.as_slice::<f32>()?.get(from..to) else {
            bail!("activations end before their layout {layout:?}")
        };
        if inputs != self.inputs {
            bail!("{inputs} activations for {} inputs", self.inputs)
        }
        let product = self.multiply(input);
        Ok((CpuStorage::F32(product), Shape::from((rows, self.outputs))))
    }
}

/// Some outputs for all rows of the input.
struct Task<'a> {
    matrix: &'a Blocked,
    first: usize,
    rows: usize,
    input: &'a [f32],
    out: &'a mut [f32],
}

impl pulp::WithSimd for Task<'_> {
    type Output = ();

    /// Compiled once for each vector width; the one this processor has is chosen when it runs.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let inputs = self.matrix.inputs;
        for (offset, out) in self.out.chunks_exact_mut(self.rows).enumerate() {
            let Some((blocks, scales)) = self.matrix.row(self.first + offset) else { return };
            let mut groups = self.input.chunks_exact(inputs * ROWS);
            let mut outs = out.chunks_exact_mut(ROWS);
            for (group, out) in groups.by_ref().zip(outs.by_ref()) {
                out.copy_from_slice(&dots::<S, ROWS>(simd, blocks, scales, group));
            }
            let rest = groups.remainder().chunks_exact(inputs);
            for (row, out) in rest.zip(outs.into_remainder()) {
                [*out] = dots::<S, 1>(simd, blocks, scales, row);
            }
        }
    }
}

/// The products of one row of weights with `N` rows of activations.
#[inline(always)]
fn dots<S: pulp::Simd, const N: usize>(
    simd: S,
    blocks: &[Quants],
    scales: &[Scale],
    input: &[f32],
) -> [f32; N] {
    let sums = if S::F32_LANES == LANES {
        wide(simd, blocks, scales, input)
    } else {
        plain(blocks, scales, input)
    };
    sums.map(|mut sums: [f32; LANES]| {
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                sums[lane] += sums[lane + width];
            }
            width /= 2;
        }
        sums[0]
    })
}

/// The sums of each lane where a vector has just as many. Odd and even quarters are summed apart,
/// so that additions do not wait for each other.
#[inline(always)]
fn wide<S: pulp::Simd, const N: usize>(
    simd: S,
    blocks: &[Quants],
    scales: &[Scale],
    input: &[f32],
) -> [[f32; LANES]; N] {
    let (mask, magic) = (simd.splat_u32s(0xff), simd.splat_u32s(MAGIC));
    let excess = simd.splat_f32s(EXCESS);
    let shifts = [0, 8, 16, 24].map(|bits| simd.splat_u32s(bits));
    let mut rows: [&[[S::f32s; 4]]; N] = [&[]; N];
    for (row, input) in rows.iter_mut().zip(input.chunks_exact(blocks.len() * BLOCK)) {
        *row = S::as_simd_f32s(input).0.as_chunks().0;
    }
    let mut sums = [[simd.splat_f32s(0.0); 2]; N];
    let words = S::as_simd_u32s(blocks.as_flattened()).0;
    for (index, (words, scale)) in words.iter().zip(scales).enumerate() {
        let factor = simd.splat_f32s(scale.factor);
        let offset = simd.splat_f32s(scale.offset);
        for quarter in 0..4 {
            let bytes = simd.wrapping_dyn_shr_u32s(*words, shifts[quarter]);
            let float = simd.or_u32s(simd.and_u32s(bytes, mask), magic);
            let quants = simd.sub_f32s(simd.transmute_f32s_u32s(float), excess);
            let weights = simd.add_f32s(simd.mul_f32s(quants, factor), offset);
            for row in 0..N {
                let sum = &mut sums[row][quarter & 1];
                *sum = simd.mul_add_f32s(weights, rows[row][index][quarter], *sum);
            }
        }
    }
    let mut out = [[0.0; LANES]; N];
    for (out, [even, odd]) in out.iter_mut().zip(sums) {
        S::as_mut_simd_f32s(out).0[0] = simd.add_f32s(even, odd);
    }
    out
}

/// As [`wide`], number by number, for processors with other vectors.
#[inline(always)]
fn plain<const N: usize>(blocks: &[Quants], scales: &[Scale], input: &[f32]) -> [[f32; LANES]; N] {
    let mut out = [[0.0; LANES]; N];
    for (out, input) in out.iter_mut().zip(input.chunks_exact(blocks.len() * BLOCK)) {
        let mut sums = [[0.0f32; LANES]; 2];
        let quarters = input.as_chunks::<LANES>().0;
        for (index, activations) in quarters.iter().enumerate() {
            let (block, quarter) = (index / 4, index % 4);
            let weights = weights(&blocks[block], scales[block], quarter);
            for lane in 0..LANES {
                let sum = &mut sums[quarter & 1][lane];
                *sum = weights[lane].mul_add(activations[lane], *sum);
            }
        }
        *out = std::array::from_fn(|lane| sums[0][lane] + sums[1][lane]);
    }
    out
}

/// Eight neighbouring weights of a block.
#[inline(always)]
fn weights(block: &Quants, scale: Scale, quarter: usize) -> [f32; LANES] {
    block.map(|word| {
        let quant = f32::from_bits(((word >> (8 * quarter)) & 0xff) | MAGIC) - EXCESS;
        quant * scale.factor + scale.offset
    })
}

fn interleaved(block: &[i8; BLOCK]) -> Quants {
    let byte = |index: usize| (i16::from(block[index]) + 128) as u8;
    std::array::from_fn(|word| {
        u32::from_le_bytes([byte(word), byte(word + 8), byte(word + 16), byte(word + 24)])
    })
}

/// Rows of outputs from outputs of rows.
fn transposed(by_output: &[f32], rows: usize) -> Vec<f32> {
    let outputs = by_output.len() / rows;
    let mut by_row = vec![0.0; by_output.len()];
    for (row, out) in by_row.chunks_exact_mut(outputs).enumerate() {
        for (value, outputs) in out.iter_mut().zip(by_output.chunks_exact(rows)) {
            *value = outputs[row];
        }
    }
    by_row
}

/// Unpacks one block (ggml-quants.c); `None` when the type or the length is not one of ours.
fn unpack(kind: GgmlDType, packed: &[u8], out: &mut [i8; BLOCK]) -> Option<Scale> {
    let half =
        |at: usize| Some(from_half(u16::from_le_bytes(packed.get(at..at + 2)?.try_into().ok()?)));
    let high = |at: usize| Some(u32::from_le_bytes(packed.get(at..at + 4)?.try_into().ok()?));
    let factor = half(0)?;
    let scale = |offset| Some(Scale { factor, offset });
    match kind {
        GgmlDType::Q4_0 => {
            nibbles(packed.get(2..18)?, 0, 8, out);
            scale(0.0)
        }
        GgmlDType::Q4_1 => {
            nibbles(packed.get(4..20)?, 0, 0, out);
            scale(half(2)?)
        }
        GgmlDType::Q5_0 => {
            nibbles(packed.get(6..22)?, high(2)?, 16, out);
            scale(0.0)
        }
        GgmlDType::Q5_1 => {
            nibbles(packed.get(8..24)?, high(4)?, 0, out);
            scale(half(2)?)
        }
        GgmlDType::Q8_0 => {
            for (out, &byte) in out.iter_mut().zip(packed.get(2..34)?) {
                *out = byte as i8;
            }
            scale(0.0)
        }
        _ => None,
    }
}

/// Low nibbles are the first sixteen weights, high nibbles the others; bit `i` of `high` is the
/// fifth bit of weight `i`.
fn nibbles(packed: &[u8], high: u32, zero: i8, out: &mut [i8; BLOCK]) {
    let (first, second) = out.split_at_mut(BLOCK / 2);
    for (index, (&byte, (low_out, high_out))) in
        packed.iter().zip(first.iter_mut().zip(second)).enumerate()
    {
        let fifth = |weight: usize| (((high >> weight) & 1) << 4) as i8;
        *low_out = ((byte & 0x0f) as i8 | fifth(index)) - zero;
        *high_out = ((byte >> 4) as i8 | fifth(index + BLOCK / 2)) - zero;
    }
}

/// IEEE 754 half precision to single; exact.
fn from_half(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let (exponent, fraction) = (u32::from(half >> 10) & 0x1f, u32::from(half) & 0x3ff);
    match exponent {
        // Subnormal halves are multiples of 2^-24.
        0 => {
            let magnitude = fraction as f32 / (1u32 << 24) as f32;
            f32::from_bits(sign | magnitude.to_bits())
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | (fraction << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (fraction << 13)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "blocked_tests.rs"]
mod tests;
