//! Bringing the points of a picture to another size.
//!
//! Owns the arithmetic, which is that of Pillow up to 12 (`Image.resize` of bytes, `src/libImaging/
//! Resample.c`): models were trained on what it gives. Pillow 13 begins with the other side where a
//! picture is tall, which moves some bytes by a few steps. Across first, then down; each number is a
//! weighted sum of bytes with weights of 22 bits after the point, rounded to a byte after both.
//! Where a picture becomes smaller, the weights reach as much further, so that no point is passed
//! over.

use std::ops::Range;

/// Bits after the point of a weight: a byte times a weight, and a sum of them, fit 32 bits.
const POINT: u32 = 32 - 8 - 2;
/// Channels of a point.
pub(super) const CHANNELS: usize = 3;

/// How far a point's weight reaches, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Three neighbours to each side, by sinc.
    Lanczos,
    /// One neighbour to each side, by distance.
    Bilinear,
    /// Two neighbours to each side, by Keys' cubic with a = -1/2.
    Bicubic,
}

/// Points, row after row, each its red, green and blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Points {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) bytes: Vec<u8>,
}

/// What one number of the result is made of.
struct Weighted {
    first: usize,
    weights: Vec<i32>,
}

impl Filter {
    const fn reach(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }

    /// The weights of those numbers of `to` that are `wanted`, of a side of `from`.
    fn weights(self, from: usize, to: usize, wanted: Range<usize>) -> Vec<Weighted> {
        let scale = from as f64 / to as f64;
        let wide = scale.max(1.0);
        let (reach, narrow) = (self.reach() * wide, 1.0 / wide);
        let one = |at: usize| {
            let middle = (at as f64 + 0.5) * scale;
            let first = (middle - reach + 0.5).max(0.0) as usize;
            let end = ((middle + reach + 0.5).max(0.0) as usize).min(from);
            let weight = |place: usize| self.at((place as f64 - middle + 0.5) * narrow);
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let whole = |weight: f64| {
                let share = if sum == 0.0 { weight } else { weight / sum };
                (share * f64::from(1_u32 << POINT)).round() as i32
            };
            Weighted { first, weights: weights.into_iter().map(whole).collect() }
        };
        wanted.map(one).collect()
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// The sum's nearest byte.
fn byte(sum: i32) -> u8 {
    (sum >> POINT).clamp(0, 255) as u8
}

/// Half of a byte's one: sums begin with it, so that they are rounded and not cut.
const HALF: i32 = 1 << (POINT - 1);

/// The part `across` by `down` of what a picture of `width` by `height` points becomes at the size
/// `to`. `row` gives a row of its points.
pub(super) fn resampled(
    filter: Filter,
    (width, height): (usize, usize),
    to: (usize, usize),
    (across, down): (Range<usize>, Range<usize>),
    mut row: impl FnMut(usize, &mut Vec<u8>),
) -> Points {
    let rows = match to.1 == height {
        true => None,
        false => Some(filter.weights(height, to.1, down.clone())),
    };
    // The rows that those which are wanted are made of.
    let needed = match &rows {
        None => down.clone(),
        Some(rows) => {
            let first = rows.iter().map(|row| row.first).min().unwrap_or(0);
            let end = rows.iter().map(|row| row.first + row.weights.len()).max().unwrap_or(0);
            first..end
        }
    };
    let columns = match to.0 == width {
        true => None,
        false => Some(filter.weights(width, to.0, across.clone())),
    };
    let stride = across.len() * CHANNELS;
    let mut middle = Vec::with_capacity(needed.len() * stride);
    let mut points = Vec::new();
    for at in needed.clone() {
        points.clear();
        row(at, &mut points);
        match &columns {
            None => middle.extend_from_slice(&points[across.start * CHANNELS..][..stride]),
            Some(columns) => middle.extend(columns.iter().flat_map(|column| {
                let mut sums = [HALF; CHANNELS];
                let points = points[column.first * CHANNELS..].chunks_exact(CHANNELS);
                for (point, weight) in points.zip(&column.weights) {
                    for (sum, number) in sums.iter_mut().zip(point) {
                        *sum = sum.wrapping_add(i32::from(*number).wrapping_mul(*weight));
                    }
                }
                sums.map(byte)
            })),
        }
    }
    let bytes = match rows {
        None => middle,
        Some(rows) => {
            let mut bytes = Vec::with_capacity(rows.len() * stride);
            let mut sums = vec![HALF; stride];
            for row in rows {
                sums.fill(HALF);
                let from = middle[(row.first - needed.start) * stride..].chunks_exact(stride);
                for (numbers, weight) in from.zip(&row.weights) {
                    for (sum, number) in sums.iter_mut().zip(numbers) {
                        *sum = sum.wrapping_add(i32::from(*number).wrapping_mul(*weight));
                    }
                }
                bytes.extend(sums.iter().map(|sum| byte(*sum)));
            }
            bytes
        }
    };
    Points { width: across.len(), height: down.len(), bytes }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
#[path = "resample_tests.rs"]
mod tests;
