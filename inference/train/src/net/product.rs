//! Products of matrices that lie row after row: the one place that calls `gemm`.
//!
//! Owns the call and what has to hold for it. What the matrices mean is in the modules beside.
#![allow(unsafe_code, reason = "gemm reads and writes through pointers and strides")]

use gemm::{Parallelism, gemm};

/// A matrix that is read, either as it lies or turned.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Values from one row to the next, and from one column to the next.
    down: usize,
    along: usize,
}

impl<'a> Matrix<'a> {
    /// The first `rows` times `columns` of these values, row after row.
    ///
    /// # Panics
    /// Where there are fewer: a mistake of this crate, which made the buffers for the layers.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        let Some(values) = rows.checked_mul(columns).and_then(|length| values.get(..length)) else {
            panic!("{} values are no {rows} rows of {columns}", values.len());
        };
        Self { values, rows, columns, down: columns, along: 1 }
    }

    /// The same matrix with rows for columns.
    pub(super) const fn turned(self) -> Self {
        let Self { values, rows, columns, down, along } = self;
        Self { values, rows: columns, columns: rows, down: along, along: down }
    }
}

/// What becomes of what was there before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// It is written over, and not read.
    Gone,
    /// The product is added to it.
    Kept,
}

/// Writes or adds `factor · left · right` into the first values of `out`, row after row. On the
/// thread that calls; the same numbers every time on processors of one kind.
///
/// # Panics
/// Where the matrices do not fit each other or `out`: a mistake of this crate.
pub(super) fn product(
    out: &mut [f32],
    before: Before,
    factor: f32,
    left: Matrix<'_>,
    right: Matrix<'_>,
) {
    let (rows, depth, columns) = (left.rows, left.columns, right.columns);
    assert_eq!(depth, right.rows, "the matrices do not fit each other");
    let length = rows.checked_mul(columns);
    let Some(out) = length.and_then(|length| out.get_mut(..length)) else {
        panic!("the product has {rows} rows of {columns}, and there is less room");
    };
    // No slice has more values than this, so the numbers below are those of the matrices.
    let stride = |values: usize| isize::try_from(values).unwrap_or(isize::MAX);
    // SAFETY: gemm reads, for every row r, place d and column c within the sizes it is given, the
    // values `left[r, d]` and `right[d, c]` and reads or writes `out[r, c]`, each at its pointer
    // plus row times row stride plus column times column stride, and nothing else. A `Matrix` has
    // exactly rows · columns values (`new` cut them so, which `turned` does not change), and its
    // strides are columns and 1, or 1 and rows once turned: the place of its last value is
    // rows · columns - 1, within its slice. `out` was cut to rows · columns above and has the
    // strides columns and 1. `out` is borrowed alone, so that it overlaps neither matrix; all are
    // f32, aligned and initialised. With `Parallelism::None` nothing outlives the call.
    unsafe {
        gemm(
            rows,
            columns,
            depth,
            out.as_mut_ptr(),
            1,
            stride(columns),
            before == Before::Kept,
            left.values.as_ptr(),
            stride(left.along),
            stride(left.down),
            right.values.as_ptr(),
            stride(right.along),
            stride(right.down),
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values between -1 and 1, all different, the same every time.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 193 + seed * 71) % 509) as f32 / 254.5 - 1.0).collect()
    }

    /// Row after row of a matrix, whichever way it lies.
    fn at(matrix: Matrix<'_>, row: usize, column: usize) -> f64 {
        f64::from(matrix.values[row * matrix.down + column * matrix.along])
    }

    proptest! {
        /// Against three plain loops, over sizes for all of gemm's ways: single rows and columns,
        /// shallow ones, those smaller than a register and those beyond a block.
        #[test]
        fn products_are_those_of_plain_loops(
            rows in 0usize..70, depth in 0usize..300, columns in 0usize..70,
            turned: (bool, bool), kept: bool, factor in -2.0f32..2.0,
        ) {
            let (one, two) = (values(rows * depth, 1), values(depth * columns, 2));
            let left = if turned.0 {
                Matrix::new(&one, depth, rows).turned()
            } else {
                Matrix::new(&one, rows, depth)
            };
            let right = if turned.1 {
                Matrix::new(&two, columns, depth).turned()
            } else {
                Matrix::new(&two, depth, columns)
            };
            // What is beyond the product must stay as it is.
            let there = values(rows * columns + 3, 3);
            let mut out = there.clone();
            let before = if kept { Before::Kept } else { Before::Gone };
            product(&mut out, before, factor, left, right);
            for row in 0..rows {
                for column in 0..columns {
                    let sum: f64 =
                        (0..depth).map(|d| at(left, row, d) * at(right, d, column)).sum();
                    let place = row * columns + column;
                    let was = if kept { f64::from(there[place]) } else { 0.0 };
                    let wanted = was + f64::from(factor) * sum;
                    let got = f64::from(out[place]);
                    // Every one of the sums is rounded, and none is above the depth.
                    let most = 1e-6 * (1.0 + 2.0 * depth as f64);
                    prop_assert!((got - wanted).abs() < most, "{row} {column}: {got} {wanted}");
                }
            }
            prop_assert_eq!(&out[rows * columns..], &there[rows * columns..]);
        }
    }

    #[test]
    fn what_is_written_over_is_not_read() {
        let mut out = [f32::NAN; 4];
        let (one, two) = ([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 1.0]);
        let (left, right) = (Matrix::new(&one, 2, 2), Matrix::new(&two, 2, 2));
        product(&mut out, Before::Gone, 1.0, left, right);
        assert_eq!(out, one);
    }

    #[test]
    #[should_panic(expected = "less room")]
    fn a_product_without_room_is_no_product() {
        let one = [1.0; 6];
        product(&mut [0.0; 3], Before::Gone, 1.0, Matrix::new(&one, 2, 3), Matrix::new(&one, 3, 2));
    }
}
