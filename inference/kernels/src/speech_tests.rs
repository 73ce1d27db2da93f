use std::ops::ControlFlow;

use super::*;
use crate::simd::tests::Dice;

fn config() -> SpeechConfig {
    SpeechConfig {
        bands: 5,
        frames: 21,
        width: 32,
        heads: [2, 1],
        layers: [2, 2],
        feed_forward: [48, 64],
        vocabulary: 37,
        positions: 30,
    }
}

/// Numbers that follow from a tensor's name.
fn drawn(name: &str, dims: &[usize]) -> Vec<f32> {
    let seed = name.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
    let (mut dice, gain) = (Dice(seed), name.ends_with("norm.weight"));
    let number = |dice: &mut Dice| dice.unit() * 0.3 + if gain { 1.0 } else { 0.0 };
    (0..dims.iter().product()).map(|_| number(&mut dice)).collect()
}

fn speech() -> Speech {
    Speech::load(config(), &mut |name, dims| Ok(drawn(name, dims))).expect("loads")
}

fn spectrum() -> Vec<f32> {
    drawn("spectrum", &[2 * config().frames, config().bands])
}

/// The logits after each of some tokens, which are given so many at a time.
fn written(speech: &Speech, crew: &mut SpeechCrew, tokens: &[u32], step: usize) -> Vec<Vec<f32>> {
    let mut heard = speech.room();
    let on = &mut || ControlFlow::Continue(());
    let end = speech.hear(crew, &spectrum(), &mut heard, on).expect("hears");
    assert!(end.is_continue());
    let mut logits = Vec::new();
    tokens
        .chunks(step)
        .map(|tokens| {
            speech.write(crew, &mut heard, tokens, &mut logits).expect("writes");
            logits.clone()
        })
        .collect()
}

const TOKENS: [u32; 20] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 36, 9, 7, 9, 3, 2, 3, 8, 4, 0];

fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn what_is_written_is_the_same_bits_on_every_crew_however_it_is_given() {
    let speech = speech();
    let mut alone = SpeechCrew::with_isa(1, Isa::scalar()).expect("threads");
    let single = written(&speech, &mut alone, &TOKENS, 1);
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut crew = SpeechCrew::with_isa(threads, isa).expect("threads");
            for step in [1, 4, 20] {
                let found = written(&speech, &mut crew, &TOKENS, step);
                for (at, found) in found.iter().enumerate() {
                    let expected = &single[(at + 1) * step - 1];
                    let name = isa.name();
                    assert!(bits(found) == bits(expected), "{name}, {threads} threads, {step}");
                }
            }
        }
    }
}

/// The same model in plain loops of doubles.
struct Plain {
    config: SpeechConfig,
}

type Rows = Vec<Vec<f64>>;

impl Plain {
    fn tensor(&self, name: &str, dims: &[usize]) -> Vec<f64> {
        drawn(name, dims).into_iter().map(f64::from).collect()
    }

    fn linear(&self, rows: &Rows, name: &str, outputs: usize) -> Rows {
        let inputs = rows[0].len();
        let weights = self.tensor(&format!("{name}.weight"), &[outputs, inputs]);
        let bias = match name.ends_with("k_proj") {
            true => vec![0.0; outputs],
            false => self.tensor(&format!("{name}.bias"), &[outputs]),
        };
        let product = |row: &Vec<f64>| {
            let one = |(weights, bias): (&[f64], &f64)| {
                bias + weights.iter().zip(row).map(|(w, x)| w * x).sum::<f64>()
            };
            weights.chunks(inputs).zip(&bias).map(one).collect()
        };
        rows.iter().map(product).collect()
    }

    fn norm(&self, rows: &Rows, name: &str) -> Rows {
        let width = self.config.width;
        let gain = self.tensor(&format!("{name}.weight"), &[width]);
        let shift = self.tensor(&format!("{name}.bias"), &[width]);
        let one = |row: &Vec<f64>| {
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            let factor = 1.0 / (variance + 1e-5).sqrt();
            let scaled = row.iter().zip(gain.iter().zip(&shift));
            scaled.map(|(x, (gain, shift))| (x - mean) * factor * gain + shift).collect()
        };
        rows.iter().map(one).collect()
    }

    fn attention(&self, rows: &Rows, kept: &Rows, name: &str, side: usize, causal: bool) -> Rows {
        let (width, heads) = (self.config.width, self.config.heads[side]);
        let dim = width / heads;
        let part = |rows: &Rows, part: &str| self.linear(rows, &format!("{name}.{part}"), width);
        let (q, k, v) = (part(rows, "q_proj"), part(kept, "k_proj"), part(kept, "v_proj"));
        let mut seen = vec![vec![0.0; width]; rows.len()];
        for (at, query) in q.iter().enumerate() {
            let sees = if causal { at + 1 } else { kept.len() };
            for head in 0..heads {
                let lanes = head * dim..(head + 1) * dim;
                let score = |key: &Vec<f64>| {
                    let pairs = query[lanes.clone()].iter().zip(&key[lanes.clone()]);
                    (pairs.map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = k[..sees].iter().map(score).collect();
                let sum: f64 = weights.iter().sum();
                for lane in lanes.clone() {
                    let mixed = weights.iter().zip(&v).map(|(weight, value)| weight * value[lane]);
                    seen[at][lane] = mixed.sum::<f64>() / sum;
                }
            }
        }
        self.linear(&seen, &format!("{name}.out_proj"), width)
    }

    fn forward(&self, rows: &Rows, name: &str, side: usize) -> Rows {
        let normed = self.norm(rows, &format!("{name}.final_layer_norm"));
        let wide = self.linear(&normed, &format!("{name}.fc1"), self.config.feed_forward[side]);
        let wide = wide.iter().map(|row| row.iter().map(|x| gelu(*x)).collect()).collect();
        self.linear(&wide, &format!("{name}.fc2"), self.config.width)
    }

    fn convolution(&self, rows: &Rows, name: &str, stride: usize) -> Rows {
        let (inputs, outputs) = (rows[0].len(), self.config.width);
        let weights = self.tensor(&format!("{name}.weight"), &[outputs, inputs, 3]);
        let bias = self.tensor(&format!("{name}.bias"), &[outputs]);
        let one = |middle: usize| {
            let output = |output: usize| {
                let mut sum = bias[output];
                for (neighbour, place) in (middle as isize - 1..=middle as isize + 1).enumerate() {
                    let Some(row) = rows.get(place as usize) else { continue };
                    for (input, x) in row.iter().enumerate() {
                        sum += weights[(output * inputs + input) * 3 + neighbour] * x;
                    }
                }
                gelu(sum)
            };
            (0..outputs).map(output).collect()
        };
        (0..rows.len()).step_by(stride).map(one).collect()
    }

    fn hear(&self) -> Rows {
        let SpeechConfig { bands, frames, width, layers, .. } = self.config;
        let rows: Rows = spectrum()
            .chunks(bands)
            .map(|row| row.iter().map(|x| f64::from(*x)).collect())
            .collect();
        let rows = self.convolution(&rows, "encoder.conv1", 1);
        let mut rows = self.convolution(&rows, "encoder.conv2", 2);
        let places = self.tensor("encoder.embed_positions.weight", &[frames, width]);
        for (row, place) in rows.iter_mut().zip(places.chunks(width)) {
            row.iter_mut().zip(place).for_each(|(x, place)| *x += place);
        }
        for at in 0..layers[0] {
            let name = format!("encoder.layers.{at}");
            let own = format!("{name}.self_attn");
            let normed = self.norm(&rows, &format!("{own}_layer_norm"));
            sum(&mut rows, &self.attention(&normed, &normed, &own, 0, false));
            let forward = self.forward(&rows, &name, 0);
            sum(&mut rows, &forward);
        }
        self.norm(&rows, "encoder.layer_norm")
    }

    fn write(&self, tokens: &[u32]) -> Rows {
        let SpeechConfig { width, layers, vocabulary, positions, .. } = self.config;
        let heard = self.hear();
        let words = self.tensor("decoder.embed_tokens.weight", &[vocabulary, width]);
        let places = self.tensor("decoder.embed_positions.weight", &[positions, width]);
        let row = |(at, token): (usize, &u32)| {
            let word = &words[*token as usize * width..][..width];
            word.iter().zip(&places[at * width..]).map(|(a, b)| a + b).collect()
        };
        let mut rows: Rows = tokens.iter().enumerate().map(row).collect();
        for at in 0..layers[1] {
            let name = format!("decoder.layers.{at}");
            let (own, other) = (format!("{name}.self_attn"), format!("{name}.encoder_attn"));
            let normed = self.norm(&rows, &format!("{own}_layer_norm"));
            sum(&mut rows, &self.attention(&normed, &normed, &own, 1, true));
            let normed = self.norm(&rows, &format!("{other}_layer_norm"));
            sum(&mut rows, &self.attention(&normed, &heard, &other, 1, false));
            let forward = self.forward(&rows, &name, 1);
            sum(&mut rows, &forward);
        }
        let logit = |row: &Vec<f64>, word: &[f64]| word.iter().zip(row).map(|(w, x)| w * x).sum();
        let normed = self.norm(&rows, "decoder.layer_norm");
        normed
            .iter()
            .map(|row| words.chunks(width).map(|word| logit(row, word)).collect())
            .collect()
    }
}

fn sum(rows: &mut Rows, more: &Rows) {
    for (row, more) in rows.iter_mut().zip(more) {
        row.iter_mut().zip(more).for_each(|(x, more)| *x += more);
    }
}

/// By the series of the error function, which is exact for such small numbers.
fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut series) = (z, z);
    for n in 1..80 {
        term *= -z * z / f64::from(n);
        series += term / f64::from(2 * n + 1);
    }
    x * 0.5 * (1.0 + series * 2.0 / std::f64::consts::PI.sqrt())
}

#[test]
fn what_is_written_is_that_of_plain_loops() {
    let (speech, plain) = (speech(), Plain { config: config() });
    let mut crew = SpeechCrew::new(2).expect("threads");
    let found = written(&speech, &mut crew, &TOKENS, 1);
    let exact = plain.write(&TOKENS);
    for (at, (found, exact)) in found.iter().zip(&exact).enumerate() {
        assert_eq!(found.len(), exact.len());
        for (found, exact) in found.iter().zip(exact) {
            assert!((f64::from(*found) - exact).abs() < 1e-4, "{at}: {found} {exact}");
        }
    }
}

#[test]
fn a_window_is_written_anew_and_given_up() {
    let speech = speech();
    let mut crew = SpeechCrew::new(1).expect("threads");
    let (mut heard, mut logits, mut again) = (speech.room(), Vec::new(), Vec::new());
    let on = &mut || ControlFlow::Continue(());
    let _on = speech.hear(&mut crew, &spectrum(), &mut heard, on).expect("hears");
    speech.write(&mut crew, &mut heard, &TOKENS[..7], &mut logits).expect("writes");
    assert_eq!(heard.written(), 7);
    heard.anew();
    speech.write(&mut crew, &mut heard, &[7, 8, 9], &mut again).expect("writes");
    heard.anew();
    speech.write(&mut crew, &mut heard, &TOKENS[..7], &mut again).expect("writes");
    assert!(bits(&again) == bits(&logits));
    // Two layers hear and two look at what was heard: each asks.
    let mut asked = 0;
    let mut off = || {
        asked += 1;
        if asked == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let end = speech.hear(&mut crew, &spectrum(), &mut heard, &mut off).expect("hears");
    assert!(end.is_break());
    assert_eq!(asked, 3);
}

#[test]
fn what_does_not_fit_is_refused() {
    let speech = speech();
    let mut crew = SpeechCrew::new(1).expect("threads");
    let (mut heard, mut logits) = (speech.room(), Vec::new());
    let on = &mut || ControlFlow::Continue(());
    let short = spectrum();
    assert!(speech.hear(&mut crew, &short[1..], &mut heard, on).is_err());
    for tokens in [&[][..], &[37], &[1; 31]] {
        assert!(speech.write(&mut crew, &mut heard, tokens, &mut logits).is_err(), "{tokens:?}");
    }
    for change in [
        |config: &mut SpeechConfig| config.width = 24,
        |config: &mut SpeechConfig| config.heads[1] = 3,
        |config: &mut SpeechConfig| config.heads[0] = 0,
        |config: &mut SpeechConfig| config.feed_forward[1] = 8,
        |config: &mut SpeechConfig| config.frames = 0,
    ] {
        let mut config = config();
        change(&mut config);
        assert!(config.check().is_err(), "{config:?}");
    }
}
