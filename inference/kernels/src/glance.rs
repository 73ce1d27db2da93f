//! One row that looks at rows that are kept: at what was heard, or at what was written so far.
//!
//! Owns the layout of what is kept and the order of operations: a score is one chain over the
//! dimensions, with sixteen of the kept rows in the lanes; a mixed value one chain over the kept
//! rows.

use crate::math::{exp, greatest, total};
use crate::simd::{Floats, Kernel, LANES, Simd};

/// Groups of kept rows whose scores are computed side by side, and tiles of mixed values: they
/// hide a multiply-add's time.
const SIDE: usize = 4;

/// Keys and values of rows, for one layer.
pub(crate) struct Kept {
    heads: usize,
    dim: usize,
    /// Groups of sixteen rows that there is room for.
    groups: usize,
    /// Head after head, group after group, dimension after dimension: sixteen rows.
    keys: Vec<Floats>,
    /// Row after row.
    values: Vec<f32>,
}

impl Kept {
    /// Room for so many rows.
    pub(crate) fn new(heads: usize, dim: usize, rows: usize) -> Self {
        let groups = rows.div_ceil(LANES);
        let keys = vec![[0.0; LANES]; heads * groups * dim];
        Self { heads, dim, groups, keys, values: vec![0.0; groups * LANES * heads * dim] }
    }

    /// Numbers of a head.
    pub(crate) const fn dim(&self) -> usize {
        self.dim
    }

    /// Numbers of a row.
    const fn width(&self) -> usize {
        self.heads * self.dim
    }

    /// Keeps the keys and values of a row.
    pub(crate) fn put(&mut self, row: usize, key: &[f32], value: &[f32]) {
        let (dim, width) = (self.dim, self.width());
        for (head, key) in key.chunks_exact(dim).enumerate() {
            let group = &mut self.keys[(head * self.groups + row / LANES) * dim..][..dim];
            for (lanes, number) in group.iter_mut().zip(key) {
                lanes[row % LANES] = *number;
            }
        }
        self.values[row * width..][..width].copy_from_slice(value);
    }
}

/// One head of one row.
pub(crate) struct Glance<'a> {
    pub(crate) kept: &'a Kept,
    pub(crate) head: usize,
    /// The row's query, all heads.
    pub(crate) query: &'a [f32],
    /// Kept rows that it sees, from the first on; one at least.
    pub(crate) seen: usize,
    pub(crate) scores: &'a mut Vec<Floats>,
    /// What the head sees.
    pub(crate) out: &'a mut [f32],
}

impl Kernel for Glance<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let groups = self.seen.div_ceil(LANES);
        self.scores.resize(groups, [0.0; LANES]);
        let mut at = 0;
        while at < groups {
            if at + SIDE <= groups {
                self.score::<S, SIDE>(s, at);
                at += SIDE;
            } else {
                self.score::<S, 1>(s, at);
                at += 1;
            }
        }
        let inverse = self.soften(s, groups);
        let tiles = self.kept.dim / LANES;
        let mut tile = 0;
        while tile < tiles {
            if tile + SIDE <= tiles {
                self.mix::<S, SIDE>(s, tile, inverse);
                tile += SIDE;
            } else {
                self.mix::<S, 1>(s, tile, inverse);
                tile += 1;
            }
        }
    }
}

impl Glance<'_> {
    #[inline(always)]
    fn score<S: Simd, const N: usize>(&mut self, s: S, at: usize) {
        let dim = self.kept.dim;
        let query = &self.query[self.head * dim..][..dim];
        let scale = s.splat(1.0 / (dim as f32).sqrt());
        let mut keys: [&[Floats]; N] = [&[]; N];
        for side in 0..N {
            keys[side] = &self.kept.keys[(self.head * self.kept.groups + at + side) * dim..][..dim];
        }
        let mut sums = [s.splat(0.0); N];
        for place in 0..dim {
            let number = s.mul(s.splat(query[place]), scale);
            for side in 0..N {
                sums[side] = s.fma(s.load(&keys[side][place]), number, sums[side]);
            }
        }
        for side in 0..N {
            s.store(sums[side], &mut self.scores[at + side]);
        }
    }

    /// Scores to weights; one over their sum. Rows that are not seen weigh nothing.
    #[inline(always)]
    fn soften<S: Simd>(&mut self, s: S, groups: usize) -> S::F {
        let unseen = self.seen - (groups - 1) * LANES..LANES;
        for lane in unseen.clone() {
            self.scores[groups - 1][lane] = f32::NEG_INFINITY;
        }
        let mut most = s.splat(f32::NEG_INFINITY);
        for score in self.scores.iter() {
            most = s.max(s.load(score), most);
        }
        let most = s.splat(greatest(s, most));
        let mut sum = s.splat(0.0);
        for group in 0..groups {
            let weight = exp(s, s.sub(s.load(&self.scores[group]), most));
            s.store(weight, &mut self.scores[group]);
            if group + 1 == groups {
                for lane in unseen.clone() {
                    self.scores[group][lane] = 0.0;
                }
            }
            sum = s.add(sum, s.load(&self.scores[group]));
        }
        s.splat(1.0 / total(s, sum))
    }

    #[inline(always)]
    fn mix<S: Simd, const N: usize>(&mut self, s: S, tile: usize, inverse: S::F) {
        let tiles = self.kept.width() / LANES;
        let first = self.head * self.kept.dim / LANES + tile;
        let values = self.kept.values.as_chunks::<LANES>().0;
        let mut sums = [s.splat(0.0); N];
        for row in 0..self.seen {
            let weight = s.splat(self.scores[row / LANES][row % LANES]);
            let values = &values[row * tiles + first..][..N];
            for side in 0..N {
                sums[side] = s.fma(weight, s.load(&values[side]), sums[side]);
            }
        }
        let out = self.out.as_chunks_mut().0;
        for side in 0..N {
            s.store(s.mul(sums[side], inverse), &mut out[tile + side]);
        }
    }
}
