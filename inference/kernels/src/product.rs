//! The product of rounded activations with tiles of weights.
//!
//! Owns the batch path: a tile is opened once for eight rows of activations, then four, two, one;
//! each row's sums are computed as if it were alone.

use crate::act::Act;
use crate::matrix::{Slices, View};
use crate::simd::{Floats, Isa, Kernel, Simd};
use crate::tile::Tile;

/// Activations of all rows of a batch: block by block, each with all rows.
#[derive(Clone, Copy)]
pub(crate) struct Acts<'a> {
    pub(crate) acts: &'a [Act],
    pub(crate) rows: usize,
}

impl View<'_> {
    /// Sixteen outputs for all rows of a batch. They replace what is in `out`, or are added to it.
    pub(crate) fn multiply(
        &self,
        isa: Isa,
        height: usize,
        acts: Acts<'_>,
        out: &mut [Floats],
        add: bool,
    ) {
        let range = height * self.depth..(height + 1) * self.depth;
        match self.tiles {
            Slices::Four(all) => run(isa, all.get(range), acts, out, add),
            Slices::Five(all) => run(isa, all.get(range), acts, out, add),
            Slices::Six(all) => run(isa, all.get(range), acts, out, add),
            Slices::Eight(all) => run(isa, all.get(range), acts, out, add),
        }
    }
}

fn run<T: Tile>(isa: Isa, tiles: Option<&[T]>, acts: Acts<'_>, out: &mut [Floats], add: bool) {
    isa.run(Product { tiles: tiles.unwrap_or_default(), acts, out, add });
}

struct Product<'a, T> {
    tiles: &'a [T],
    acts: Acts<'a>,
    out: &'a mut [Floats],
    add: bool,
}

impl<T: Tile> Kernel for Product<'_, T> {
    type Output = ();
    const TILES: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut first = 0;
        let rows = self.acts.rows.min(self.out.len());
        while first + 8 <= rows {
            self.some::<S, 8>(s, first);
            first += 8;
        }
        if first + 4 <= rows {
            self.some::<S, 4>(s, first);
            first += 4;
        }
        if first + 2 <= rows {
            self.some::<S, 2>(s, first);
            first += 2;
        }
        if first < rows {
            self.some::<S, 1>(s, first);
        }
    }
}

impl<T: Tile> Product<'_, T> {
    #[inline(always)]
    fn some<S: Simd, const ROWS: usize>(&mut self, s: S, first: usize) {
        let mut sums = [s.splat(0.0); ROWS];
        for (tile, acts) in self.tiles.iter().zip(self.acts.acts.chunks_exact(self.acts.rows)) {
            let Some(acts) = acts.get(first..).and_then(<[Act]>::first_chunk::<ROWS>) else {
                return;
            };
            s.multiply(tile, acts, &mut sums);
        }
        for (row, out) in self.out[first..].iter_mut().take(ROWS).enumerate() {
            let sum = if self.add { s.add(s.load(out), sums[row]) } else { sums[row] };
            s.store(sum, out);
        }
    }
}
