//! Attention on the processor.
//!
//! Owns the kernel: every row of every sequence attends by itself to the keys and values up to its
//! own position, so nothing is masked, and no result depends on the batch or on how a prompt was
//! cut into chunks. candle's product is not used here: it asks the system for the number of cores
//! each time, which takes longer than the small products of one sequence.

use candle_core::{Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Keys that are multiplied together, so that additions do not wait for each other.
const KEYS: usize = 4;
/// Vectors of an output that are summed together, for the same reason.
const SUMS: usize = 4;

/// One sequence's part of a step.
pub(crate) struct Sequence {
    /// All keys and values so far: `[kv heads, length, dim]`, views into the cache.
    pub(crate) keys: Tensor,
    pub(crate) values: Tensor,
    /// Tokens before this step.
    pub(crate) start: usize,
    /// Tokens of this step.
    pub(crate) count: usize,
}

/// Keys or values of a sequence as numbers, and how far apart two heads lie.
#[derive(Clone, Copy)]
struct Side<'a> {
    numbers: &'a [f32],
    stride: usize,
}

/// What one row attends to.
#[derive(Clone, Copy)]
struct Row<'a> {
    keys: Side<'a>,
    values: Side<'a>,
    /// Keys up to and including its own.
    length: usize,
}

/// Scaled `queries` (`[heads, rows, dim]`, contiguous) against each row's own past; the result is
/// `[rows, heads * dim]`.
pub(crate) fn attend(queries: &Tensor, sequences: &[Sequence]) -> Result<Tensor> {
    let (heads, rows, dim) = queries.dims3()?;
    let guards: Vec<_> = sequences
        .iter()
        .map(|sequence| (sequence.keys.storage_and_layout(), sequence.values.storage_and_layout()))
        .collect();
    let mut pasts = Vec::with_capacity(rows);
    for (sequence, (keys, values)) in sequences.iter().zip(&guards) {
        let (keys, values) = (side(&keys.0, keys.1)?, side(&values.0, values.1)?);
        let lengths = sequence.start + 1..=sequence.start + sequence.count;
        pasts.extend(lengths.map(|length| Row { keys, values, length }));
    }
    let kv_heads = sequences.first().map_or(Ok(1), |sequence| sequence.keys.dim(0))?;
    let group = heads / kv_heads.max(1);
    if pasts.len() != rows || group == 0 {
        bail!("{rows} rows of {heads} heads do not match their sequences")
    }
    let (query_guard, layout) = queries.storage_and_layout();
    let numbers = side(&query_guard, layout)?.numbers;
    let mut out = vec![0.0; rows * heads * dim];
    out.par_chunks_mut(group * dim).enumerate().try_for_each(|(index, out)| {
        let (row, kv_head) = (index / kv_heads, index % kv_heads);
        for (member, out) in out.chunks_exact_mut(dim).enumerate() {
            let at = ((kv_head * group + member) * rows + row) * dim;
            let task = pasts.get(row).zip(numbers.get(at..at + dim)).and_then(|(past, query)| {
                Some(Task {
                    query,
                    keys: past.keys.head(kv_head, past.length * dim)?,
                    values: past.values.head(kv_head, past.length * dim)?,
                    out,
                })
            });
            match task {
                Some(task) => pulp::Arch::new().dispatch(task),
                None => bail!("row {row} reaches beyond its cache"),
            }
        }
        Ok(())
    })?;
    Tensor::from_vec(out, (rows, heads * dim), queries.device())
}

/// One head of one row.
struct Task<'a> {
    query: &'a [f32],
    /// As many keys as this row sees, one after the other.
    keys: &'a [f32],
    values: &'a [f32],
    out: &'a mut [f32],
}

impl pulp::WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let dim = self.query.len();
        let mut scores = vec![0.0; self.keys.len() / dim];
        let (mut keys, mut slots) =
            (self.keys.chunks_exact(dim * KEYS), scores.chunks_exact_mut(KEYS));
        for (keys, slots) in keys.by_ref().zip(slots.by_ref()) {
            slots.copy_from_slice(&dots::<S, KEYS>(simd, self.query, keys));
        }
        for (key, slot) in keys.remainder().chunks_exact(dim).zip(slots.into_remainder()) {
            [*slot] = dots::<S, 1>(simd, self.query, key);
        }
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for score in &mut scores {
            *score = (*score - highest).exp();
            sum += *score;
        }
        scores.iter_mut().for_each(|score| *score /= sum);
        mix(simd, &scores, self.values, self.out);
    }
}

/// The products of a query with `N` keys. Each is summed in the same order whatever `N` is.
#[inline(always)]
fn dots<S: pulp::Simd, const N: usize>(simd: S, query: &[f32], keys: &[f32]) -> [f32; N] {
    let (vectors, rest) = S::as_simd_f32s(query);
    let mut sides: [(&[S::f32s], &[f32]); N] = [(&[], &[]); N];
    for (side, key) in sides.iter_mut().zip(keys.chunks_exact(query.len())) {
        *side = S::as_simd_f32s(key);
    }
    let mut sums = [simd.splat_f32s(0.0); N];
    for (index, query) in vectors.iter().enumerate() {
        for key in 0..N {
            sums[key] = simd.mul_add_f32s(*query, sides[key].0[index], sums[key]);
        }
    }
    let mut out = [0.0; N];
    for key in 0..N {
        let rest: f32 = rest.iter().zip(sides[key].1).map(|(a, b)| a * b).sum();
        out[key] = simd.reduce_sum_f32s(sums[key]) + rest;
    }
    out
}

/// The values, weighted and summed.
#[inline(always)]
fn mix<S: pulp::Simd>(simd: S, weights: &[f32], values: &[f32], out: &mut [f32]) {
    let dim = out.len();
    let (vectors, rest) = S::as_mut_simd_f32s(out);
    let whole = vectors.len() * S::F32_LANES;
    let (wide, narrow) = vectors.as_chunks_mut::<SUMS>();
    for (index, out) in wide.iter_mut().enumerate() {
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        for (weight, value) in weights.iter().zip(values.chunks_exact(dim)) {
            let weight = simd.splat_f32s(*weight);
            let value = S::as_simd_f32s(&value[index * SUMS * S::F32_LANES..]).0;
            if let Some(value) = value.first_chunk::<SUMS>() {
                for lane in 0..SUMS {
                    sums[lane] = simd.mul_add_f32s(weight, value[lane], sums[lane]);
                }
            }
        }
        *out = sums;
    }
    let done = wide.len() * SUMS * S::F32_LANES;
    for (index, out) in narrow.iter_mut().enumerate() {
        for (weight, value) in weights.iter().zip(values.chunks_exact(dim)) {
            let value = S::as_simd_f32s(&value[done + index * S::F32_LANES..]).0;
            *out = simd.mul_add_f32s(simd.splat_f32s(*weight), value[0], *out);
        }
    }
    for (index, out) in rest.iter_mut().enumerate() {
        let products = weights.iter().zip(values.chunks_exact(dim));
        *out = products.map(|(weight, value)| weight * value[whole + index]).sum();
    }
}

impl<'a> Side<'a> {
    fn head(self, head: usize, length: usize) -> Option<&'a [f32]> {
        self.numbers.get(head * self.stride..head * self.stride + length)
    }
}

fn side<'a>(storage: &'a Storage, layout: &Layout) -> Result<Side<'a>> {
    let Storage::Cpu(numbers) = storage else { bail!("not on the processor") };
    let &[stride, _, 1] = layout.stride() else { bail!("unexpected layout {layout:?}") };
    let Some(numbers) = numbers.as_slice::<f32>()?.get(layout.start_offset()..) else {
        bail!("a view beyond its numbers: {layout:?}")
    };
    Ok(Side { numbers, stride })
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "attention_tests.rs"]
mod tests;
