//! Reading a window of sound: two convolutions, the layers of what hears, and the keys and values
//! that what writes will look at.

use std::ops::ControlFlow;

use super::{GoOn, Heard, Hearing, Scratch, Speech, SpeechConfig, SpeechCrew};
use super::{add, multiply, normalized};
use crate::dense::{Dense, Multiply, Then};
use crate::error::KernelError;
use crate::look::Look;
use crate::simd::{Isa, LANES};
use crate::team::Team;

impl Speech {
    /// Hears a window: `spectrum` holds twice as many rows as the window has frames, row after row.
    /// What was written before is forgotten. Breaks off where `go_on` says so, which is asked after
    /// each layer; then nothing may be written.
    ///
    /// # Errors
    /// [`KernelError`] when the spectrum is not of such a window; nothing is computed then.
    pub fn hear(
        &self,
        crew: &mut SpeechCrew,
        spectrum: &[f32],
        heard: &mut Heard,
        go_on: &mut GoOn<'_>,
    ) -> Result<ControlFlow<()>, KernelError> {
        let SpeechConfig { bands, frames, width, .. } = self.config;
        if spectrum.len() != 2 * frames * bands || heard.layers.len() != self.writing.len() {
            let why =
                format!("a spectrum of {} numbers, not {}", spectrum.len(), 2 * frames * bands);
            return Err(KernelError::Shape(why));
        }
        heard.written = 0;
        self.convolve(crew, spectrum);
        crew.wide.resize(frames * 3 * width, 0.0);
        for layer in &self.hearing {
            self.layer(crew, layer);
            if go_on().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let SpeechCrew { isa, team, rows, normed, wide, scratches, .. } = crew;
        normalized(*isa, &self.hearing_norm, rows, normed);
        wide.resize(frames * 2 * width, 0.0);
        for (layer, kept) in self.writing.iter().zip(&mut heard.layers) {
            multiply((*isa, team, scratches), &layer.heard, normed, Then::Nothing, wide);
            for (row, both) in wide.chunks_exact(2 * width).enumerate() {
                let (key, value) = both.split_at(width);
                kept.sound.put(row, key, value);
            }
            if go_on().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Both convolutions, and the places of the rows.
    fn convolve(&self, crew: &mut SpeechCrew, spectrum: &[f32]) {
        let SpeechConfig { bands, frames, width, .. } = self.config;
        let piece = crew.piece(frames);
        let SpeechCrew { isa, team, rows, wide, scratches, .. } = crew;
        wide.resize(2 * frames * width, 0.0);
        neighbours((*isa, team, scratches), (&self.first, 1), (spectrum, bands), piece, wide);
        rows.resize(frames * width, 0.0);
        neighbours((*isa, team, scratches), (&self.second, 2), (wide, width), piece, rows);
        add(rows, &self.places);
    }

    fn layer(&self, crew: &mut SpeechCrew, layer: &Hearing) {
        let SpeechConfig { frames, width, heads: [heads, _], .. } = self.config;
        let piece = crew.piece(frames);
        let SpeechCrew { isa, team, rows, wide, scratches, .. } = crew;
        let isa = *isa;
        let all = &*rows;
        team.split(wide, piece * 3 * width, scratches, |index, out, scratch| {
            let rows = &all[index * piece * width..][..out.len() / 3];
            normalized(isa, &layer.norm, rows, &mut scratch.normed);
            let (dense, rows) = (&layer.qkv, scratch.normed.as_slice());
            isa.run(Multiply { dense, rows, then: Then::Nothing, out });
        });
        let qkv = &*wide;
        team.split(rows, piece * width, scratches, |index, rows, scratch| {
            let Scratch { turned, scores, normed, seen, product, wide } = scratch;
            let first = index * piece;
            for buffer in [&mut *seen, &mut *product] {
                buffer.resize(rows.len(), 0.0);
            }
            let count = rows.len() / width;
            for start in (0..count).step_by(LANES) {
                let from = first + start..first + count.min(start + LANES);
                let out = &mut seen[start * width..][..from.len() * width];
                let (text, back) = (0..frames, false);
                isa.run(Look { qkv, width, heads, text, from, back, turned, scores, out });
            }
            let (dense, then) = (&layer.output, Then::Nothing);
            isa.run(Multiply { dense, rows: seen, then, out: product });
            add(rows, product);
            let forward = &layer.forward;
            normalized(isa, &forward.norm, rows, normed);
            wide.resize(count * forward.up.outputs(), 0.0);
            isa.run(Multiply { dense: &forward.up, rows: normed, then: Then::Gelu, out: wide });
            isa.run(Multiply { dense: &forward.down, rows: wide, then, out: product });
            add(rows, product);
        });
    }
}

/// A convolution over three neighbours, each `stride`th row in the middle; beyond the ends are
/// zeros.
fn neighbours(
    (isa, team, scratches): (Isa, &mut Team, &mut [Scratch]),
    (dense, stride): (&Dense, usize),
    (given, inputs): (&[f32], usize),
    piece: usize,
    out: &mut [f32],
) {
    let outputs = dense.outputs();
    team.split(out, piece * outputs, scratches, |index, out, scratch| {
        let count = out.len() / outputs;
        let rows = &mut scratch.wide;
        rows.clear();
        rows.resize(count * 3 * inputs, 0.0);
        for (row, three) in rows.chunks_exact_mut(3 * inputs).enumerate() {
            let middle = (index * piece + row) * stride * inputs;
            // Where the first neighbour would begin, and how much of it is before the beginning.
            let before = inputs.saturating_sub(middle);
            let begin = middle.saturating_sub(inputs);
            let end = given.len().min(middle + 2 * inputs);
            three[before..][..end - begin].copy_from_slice(&given[begin..end]);
        }
        isa.run(Multiply { dense, rows, then: Then::Gelu, out });
    });
}
