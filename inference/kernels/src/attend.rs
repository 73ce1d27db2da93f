//! Attention of one row: scores, softmax and the mix of values, in one go.
//!
//! Owns the order of operations. Each query head by itself: a score is one chain of fused
//! multiply-adds over the dimensions, a mixed value one chain over the positions; heads that share
//! keys are computed side by side only to share the loads.

use crate::kv::{Geometry, PAGE};
use crate::math::{exp, greatest, total};
use crate::simd::{Floats, Halves, Kernel, LANES, Simd};

/// Vectors of values that are mixed side by side where there is room for their sums.
const WIDE: usize = 4;
/// Positions whose scores are computed side by side.
const PAIR: usize = 2 * LANES;

/// Some query heads of one row that share a key head.
pub(crate) struct Attend<'a, P> {
    /// The sequence's pages, as many as `length` needs or more.
    pub(crate) pages: &'a [P],
    pub(crate) geometry: Geometry,
    /// Where the key head begins in a page.
    pub(crate) offset: usize,
    /// The first position that the row sees.
    pub(crate) start: usize,
    /// The position behind the last that it sees.
    pub(crate) length: usize,
    /// Head after head, rotated and scaled, each padded with zeros to whole vectors.
    pub(crate) queries: &'a [f32],
    /// Room for the scores of four heads.
    pub(crate) scores: &'a mut Vec<Floats>,
    /// Head after head, not padded.
    pub(crate) out: &'a mut [f32],
}

/// What holds a page's numbers.
pub(crate) trait Numbers {
    fn numbers(&self) -> &[u16];
}

impl<P: Numbers> Kernel for Attend<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let heads = self.out.len() / self.geometry.dim.max(1);
        let mut first = 0;
        while first < heads {
            // A score takes two vectors of sums for each head.
            first += match (heads - first).min(S::BESIDE / 2) {
                1 => self.some::<S, 1>(s, first),
                2 => self.some::<S, 2>(s, first),
                3 => self.some::<S, 3>(s, first),
                _ => self.some::<S, 4>(s, first),
            };
        }
    }
}

impl<P: Numbers> Attend<'_, P> {
    #[inline(always)]
    fn some<S: Simd, const HEADS: usize>(&mut self, s: S, first: usize) -> usize {
        self.score::<S, HEADS>(s, first);
        let mut inverse = [0.0; HEADS];
        for head in 0..HEADS {
            inverse[head] = 1.0 / self.soften::<S, HEADS>(s, head);
        }
        let vectors = self.geometry.padded() / LANES;
        let mut vector = 0;
        while vector + WIDE <= vectors && HEADS * WIDE <= S::BESIDE {
            self.mix::<S, HEADS, WIDE>(s, first, vector, &inverse);
            vector += WIDE;
        }
        while vector + 2 <= vectors && HEADS * 2 <= S::BESIDE {
            self.mix::<S, HEADS, 2>(s, first, vector, &inverse);
            vector += 2;
        }
        while vector < vectors {
            self.mix::<S, HEADS, 1>(s, first, vector, &inverse);
            vector += 1;
        }
        HEADS
    }

    /// Where the scores begin: groups of positions are computed two by two, from the beginning of
    /// the text on, so that a window changes no order of operations.
    const fn begin(&self) -> usize {
        self.start / PAIR * PAIR
    }

    /// The scores of the positions in sight; those before them and behind them are minus infinity.
    #[inline(always)]
    fn score<S: Simd, const HEADS: usize>(&mut self, s: S, first: usize) {
        let padded = self.geometry.padded();
        let Some(queries) = self.queries.get(first * padded..(first + HEADS) * padded) else {
            return;
        };
        self.scores.clear();
        let mut position = self.begin();
        let mut skipped = position % PAGE / PAIR;
        for page in self.pages.iter().skip(position / PAGE) {
            let keys = &page.numbers()[self.offset..self.offset + self.geometry.side()];
            let keys: &[Halves] = keys.as_chunks().0;
            // Two groups at once, so that two chains grow side by side for each head.
            for pair in keys.chunks_exact(padded * 2).skip(std::mem::take(&mut skipped)) {
                if position >= self.length {
                    return;
                }
                let (left, right) = pair.split_at(padded);
                let mut sums = [[s.splat(0.0); 2]; HEADS];
                for at in 0..padded {
                    let keys = [s.widen(&left[at]), s.widen(&right[at])];
                    for head in 0..HEADS {
                        let query = s.splat(queries[head * padded + at]);
                        sums[head][0] = s.fma(query, keys[0], sums[head][0]);
                        sums[head][1] = s.fma(query, keys[1], sums[head][1]);
                    }
                }
                for side in 0..2 {
                    for head in 0..HEADS {
                        let mut scores = [0.0; LANES];
                        s.store(sums[head][side], &mut scores);
                        let kept = self.length.saturating_sub(position).min(LANES);
                        scores[kept..].fill(f32::NEG_INFINITY);
                        let hidden = self.start.saturating_sub(position).min(LANES);
                        scores[..hidden].fill(f32::NEG_INFINITY);
                        self.scores.push(scores);
                    }
                    position += LANES;
                }
            }
        }
    }

    /// Turns a head's scores into weights; returns their sum.
    #[inline(always)]
    fn soften<S: Simd, const HEADS: usize>(&mut self, s: S, head: usize) -> f32 {
        let mut most = s.splat(f32::NEG_INFINITY);
        for scores in self.scores.iter().skip(head).step_by(HEADS) {
            most = s.max(s.load(scores), most);
        }
        let most = s.splat(greatest(s, most));
        let mut sum = s.splat(0.0);
        for scores in self.scores.iter_mut().skip(head).step_by(HEADS) {
            let weights = exp(s, s.sub(s.load(scores), most));
            sum = s.add(sum, weights);
            s.store(weights, scores);
        }
        total(s, sum)
    }

    /// Some dimensions of the values, weighted and summed.
    #[inline(always)]
    fn mix<S: Simd, const HEADS: usize, const VECTORS: usize>(
        &mut self,
        s: S,
        first: usize,
        vector: usize,
        inverse: &[f32; HEADS],
    ) {
        let Geometry { dim, .. } = self.geometry;
        let vectors = self.geometry.padded() / LANES;
        let mut sums = [[s.splat(0.0); VECTORS]; HEADS];
        let mut position = self.begin();
        let mut skipped = position % PAGE / LANES;
        let mut groups = self.scores.chunks_exact(HEADS);
        for page in self.pages.iter().skip(position / PAGE) {
            let from = self.offset + self.geometry.side();
            let values = &page.numbers()[from..from + self.geometry.side()];
            let values: &[Halves] = values.as_chunks().0;
            let all = values.chunks_exact(vectors * LANES);
            for values in all.skip(std::mem::take(&mut skipped)) {
                let seen = position < self.length;
                let Some(weights) = groups.next().filter(|_| seen) else { break };
                let hidden = self.start.saturating_sub(position).min(LANES);
                for lane in hidden..(self.length - position).min(LANES) {
                    let row = &values[lane * vectors + vector..][..VECTORS];
                    for at in 0..VECTORS {
                        let value = s.widen(&row[at]);
                        for head in 0..HEADS {
                            let weight = s.splat(weights[head][lane]);
                            sums[head][at] = s.fma(weight, value, sums[head][at]);
                        }
                    }
                }
                position += LANES;
            }
        }
        for head in 0..HEADS {
            for at in 0..VECTORS {
                let mut mixed = [0.0; LANES];
                s.store(s.mul(sums[head][at], s.splat(inverse[head])), &mut mixed);
                let from = (vector + at) * LANES;
                let out = &mut self.out[(first + head) * dim..(first + head + 1) * dim];
                for (out, mixed) in out.iter_mut().skip(from).zip(mixed) {
                    *out = mixed;
                }
            }
        }
    }
}
