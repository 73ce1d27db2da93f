//! A layer of 5 × 5 filters and what it keeps of their values: the largest of each 2 × 2.
//!
//! Owns the way of one image forward and of its gradient back. An image is laid out as columns, one
//! for each place of the filters, so that both are products of matrices; one image at a time, since
//! the columns take 25 times its memory.

use super::product::{Before, Matrix, product};
use crate::model::FILTER;

/// The sizes of such a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Convolution {
    /// What it reads.
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// What it makes of it.
    pub(super) filters: usize,
}

/// Memory for one image.
#[derive(Default)]
pub(super) struct Scratch {
    /// What each filter sees at each place: `[channels · 25, height · width]`.
    columns: Vec<f32>,
    /// What each filter says of each place, or its gradient: `[filters, height · width]`.
    plane: Vec<f32>,
}

impl Scratch {
    /// Room for the images of this layer too.
    pub(super) fn grow(&mut self, layer: &Convolution) {
        let (columns, plane) = (layer.seen() * layer.places(), layer.filters * layer.places());
        self.columns.resize(self.columns.len().max(columns), 0.0);
        self.plane.resize(self.plane.len().max(plane), 0.0);
    }
}

impl Convolution {
    /// Values that it reads of one example.
    pub(super) const fn inputs(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Values that it gives for one example. The last row or column of an odd image is left out.
    pub(super) const fn outputs(&self) -> usize {
        self.filters * (self.height / 2) * (self.width / 2)
    }

    /// Places of a filter, one for each pixel.
    const fn places(&self) -> usize {
        self.height * self.width
    }

    /// Values that a filter sees at each place.
    pub(super) const fn seen(&self) -> usize {
        self.channels * FILTER * FILTER
    }

    /// One image forward: the largest value of each 2 × 2, or 0 where that is less, and where it
    /// was.
    pub(super) fn forward(
        &self,
        weights: (&[f32], &[f32]),
        image: &[f32],
        scratch: &mut Scratch,
        values: &mut [f32],
        chosen: &mut [u32],
    ) {
        let (weight, bias) = weights;
        let (seen, places) = (self.seen(), self.places());
        self.lay_out(image, &mut scratch.columns);
        let filters = Matrix::new(weight, self.filters, seen);
        let columns = Matrix::new(&scratch.columns, seen, places);
        product(&mut scratch.plane, Before::Gone, 1.0, filters, columns);
        let (rows, width) = (self.height / 2, self.width / 2);
        for (filter, bias) in bias.iter().enumerate() {
            for at in 0..rows * width {
                let corner = filter * places + at / width * 2 * self.width + at % width * 2;
                let square = [corner, corner + 1, corner + self.width, corner + self.width + 1];
                let mut best = corner;
                for place in square {
                    if scratch.plane[place] > scratch.plane[best] {
                        best = place;
                    }
                }
                let own = filter * rows * width + at;
                values[own] = (scratch.plane[best] + bias).max(0.0);
                // An example has at most 2^28 values, and a layer less than 2^32.
                chosen[own] = best as u32;
            }
        }
    }

    /// One image's gradient back, from what the layer gives to what it reads.
    pub(super) fn backward(
        &self,
        weight: &[f32],
        blame: &[f32],
        chosen: &[u32],
        scratch: &mut Scratch,
        below: &mut [f32],
    ) {
        let (seen, places) = (self.seen(), self.places());
        self.spread(blame, chosen, &mut scratch.plane);
        let filters = Matrix::new(weight, self.filters, seen).turned();
        let plane = Matrix::new(&scratch.plane, self.filters, places);
        product(&mut scratch.columns, Before::Gone, 1.0, filters, plane);
        below.fill(0.0);
        self.each_run(|row, run, from, length| {
            let column = &scratch.columns[row * places + run..][..length];
            for (sum, part) in below[from..][..length].iter_mut().zip(column) {
                *sum += part;
            }
        });
    }

    /// Adds `factor` times one image's gradient by the weights to them.
    pub(super) fn learn(
        &self,
        weights: (&mut [f32], &mut [f32]),
        factor: f32,
        image: &[f32],
        back: (&[f32], &[u32]),
        scratch: &mut Scratch,
    ) {
        let (weight, bias) = weights;
        let (blame, chosen) = back;
        let (seen, places) = (self.seen(), self.places());
        self.lay_out(image, &mut scratch.columns);
        self.spread(blame, chosen, &mut scratch.plane);
        let plane = Matrix::new(&scratch.plane, self.filters, places);
        let columns = Matrix::new(&scratch.columns, seen, places).turned();
        product(weight, Before::Kept, factor, plane, columns);
        for (bias, blame) in bias.iter_mut().zip(blame.chunks_exact(self.outputs() / self.filters))
        {
            *bias += factor * blame.iter().sum::<f32>();
        }
    }

    /// The gradient of each place: that of the value which was kept of it, or none.
    fn spread(&self, blame: &[f32], chosen: &[u32], plane: &mut [f32]) {
        plane[..self.filters * self.places()].fill(0.0);
        for (blame, place) in blame.iter().zip(chosen) {
            plane[*place as usize] = *blame;
        }
    }

    /// An image as columns.
    fn lay_out(&self, image: &[f32], columns: &mut [f32]) {
        let places = self.places();
        // What lies outside of the image is nothing.
        columns[..self.seen() * places].fill(0.0);
        self.each_run(|row, run, from, length| {
            columns[row * places + run..][..length].copy_from_slice(&image[from..][..length]);
        });
    }

    /// Tells every run of neighbours that a value of the filters sees: the row of the columns,
    /// where in it the run begins, where in the image, and how long it is.
    fn each_run(&self, mut tell: impl FnMut(usize, usize, usize, usize)) {
        let (height, width) = (self.height, self.width);
        let edge = FILTER / 2;
        for row in 0..self.seen() {
            let (channel, y, x) = (row / FILTER / FILTER, row / FILTER % FILTER, row % FILTER);
            // The filter's place is at (top, left) of its own middle.
            let (left, right) = (edge.saturating_sub(x), x.saturating_sub(edge));
            let length = width.saturating_sub(left + right);
            for line in edge.saturating_sub(y)..height.saturating_sub(y.saturating_sub(edge)) {
                let source = channel * height * width + (line + y - edge) * width;
                if length > 0 {
                    tell(row, line * width + left, source + left + x - edge, length);
                }
            }
        }
    }
}
