//! Writing: tokens in, the scores of the next one out.

use super::{Forward, Heard, Speech, SpeechConfig, SpeechCrew, add, multiply, normalized};
use crate::dense::Then;
use crate::error::KernelError;
use crate::glance::{Glance, Kept};
use crate::simd::Isa;
use crate::team::Team;

impl Speech {
    /// Goes on with tokens; `logits` then holds a number for each token of the vocabulary, what
    /// could come next.
    ///
    /// # Errors
    /// [`KernelError`] when there is no token, one is none of the model's, or they are too many;
    /// nothing is computed then.
    pub fn write(
        &self,
        crew: &mut SpeechCrew,
        heard: &mut Heard,
        tokens: &[u32],
        logits: &mut Vec<f32>,
    ) -> Result<(), KernelError> {
        let SpeechConfig { width, vocabulary, positions, .. } = self.config;
        let begin = heard.written;
        if tokens.is_empty() || begin + tokens.len() > positions {
            let why = format!("{} tokens after {begin}, of {positions}", tokens.len());
            return Err(KernelError::Shape(why));
        }
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocabulary) {
            return Err(KernelError::Token { token, vocabulary });
        }
        crew.rows.clear();
        for (token, place) in tokens.iter().zip(self.positions.chunks_exact(width).skip(begin)) {
            let word = self.words.weights_of(*token as usize);
            crew.rows.extend(word.zip(place).map(|(word, place)| word + place));
        }
        for at in 0..self.writing.len() {
            self.step(crew, heard, at, begin);
        }
        heard.written = begin + tokens.len();
        let SpeechCrew { isa, team, rows, normed, scratches, .. } = crew;
        let last = &rows[(tokens.len() - 1) * width..];
        normalized(*isa, &self.writing_norm, last, normed);
        logits.clear();
        logits.resize(self.words.outputs(), 0.0);
        multiply((*isa, team, scratches), &self.words, normed, Then::Nothing, logits);
        logits.truncate(vocabulary);
        Ok(())
    }

    /// One layer for new rows, of which the first is at `begin`.
    fn step(&self, crew: &mut SpeechCrew, heard: &mut Heard, at: usize, begin: usize) {
        let SpeechConfig { width, frames, .. } = self.config;
        let (Some(layer), Some(kept)) = (self.writing.get(at), heard.layers.get_mut(at)) else {
            return;
        };
        let SpeechCrew { isa, team, rows, normed, wide, product, scratches } = crew;
        let (isa, none) = (*isa, Then::Nothing);
        let count = rows.len() / width;
        product.resize(rows.len(), 0.0);
        normalized(isa, &layer.norm, rows, normed);
        wide.resize(count * 3 * width, 0.0);
        multiply((isa, team, scratches), &layer.qkv, normed, none, wide);
        for (row, qkv) in wide.chunks_exact(3 * width).enumerate() {
            let (key, value) = qkv[width..].split_at(width);
            kept.text.put(begin + row, key, value);
        }
        let queries = wide.chunks_exact(3 * width).map(|qkv| &qkv[..width]);
        for (row, (query, out)) in queries.zip(normed.chunks_exact_mut(width)).enumerate() {
            look((isa, team, scratches), &kept.text, query, begin + row + 1, out);
        }
        multiply((isa, team, scratches), &layer.output, normed, none, product);
        add(rows, product);
        normalized(isa, &layer.heard_norm, rows, normed);
        multiply((isa, team, scratches), &layer.query, normed, none, product);
        for (query, out) in product.chunks_exact(width).zip(normed.chunks_exact_mut(width)) {
            look((isa, team, scratches), &kept.sound, query, frames, out);
        }
        multiply((isa, team, scratches), &layer.heard_output, normed, none, product);
        add(rows, product);
        let Forward { norm, up, down } = &layer.forward;
        normalized(isa, norm, rows, normed);
        wide.resize(count * up.outputs(), 0.0);
        multiply((isa, team, scratches), up, normed, Then::Gelu, wide);
        multiply((isa, team, scratches), down, wide, none, product);
        add(rows, product);
    }
}

/// All heads of one row.
fn look(
    (isa, team, scratches): (Isa, &mut Team, &mut [super::Scratch]),
    kept: &Kept,
    query: &[f32],
    seen: usize,
    out: &mut [f32],
) {
    team.split(out, kept.dim(), scratches, |head, out, scratch| {
        let scores = &mut scratch.scores;
        isa.run(Glance { kept, head, query, seen, scores, out });
    });
}
