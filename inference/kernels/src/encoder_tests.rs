use super::*;
use crate::simd::tests::Dice;

fn config() -> EncoderConfig {
    EncoderConfig {
        vocabulary: 40,
        positions: 50,
        kinds: 2,
        width: 48,
        feed_forward: 96,
        heads: 3,
        layers: 2,
        epsilon: 1e-12,
    }
}

/// Numbers that follow from a tensor's name.
fn drawn(name: &str, dims: &[usize]) -> Vec<f32> {
    let seed = name.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
    let (mut dice, gain) = (Dice(seed), name.ends_with("LayerNorm.weight"));
    let number = |dice: &mut Dice| dice.unit() * 0.3 + if gain { 1.0 } else { 0.0 };
    (0..dims.iter().product()).map(|_| number(&mut dice)).collect()
}

fn encoder() -> Encoder {
    Encoder::load(config(), &mut |name, dims| Ok(drawn(name, dims))).expect("loads")
}

/// Texts of several lengths, longer than what is computed side by side and than a piece.
fn texts() -> Vec<Vec<u32>> {
    let text = |length: u32| (0..length).map(|at| (at * 7 + length) % 40).collect();
    [1, 2, 17, 50, 8, 33].map(text).to_vec()
}

fn read(encoder: &Encoder, crew: &mut EncoderCrew, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    encoder.read(crew, &texts, &AtomicU64::new(0)).expect("reads")
}

fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn a_text_is_the_same_bits_in_every_batch_on_every_crew() {
    let (encoder, texts) = (encoder(), texts());
    let mut alone = EncoderCrew::with_isa(1, Isa::scalar()).expect("threads");
    let single: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| bits(&read(&encoder, &mut alone, std::slice::from_ref(text))[0]))
        .collect();
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut crew = EncoderCrew::with_isa(threads, isa).expect("threads");
            for turn in 0..texts.len() {
                let mut batch = texts.clone();
                batch.rotate_left(turn);
                let mut expected = single.clone();
                expected.rotate_left(turn);
                let found = read(&encoder, &mut crew, &batch);
                let found: Vec<_> = found.iter().map(|rows| bits(rows)).collect();
                assert!(found == expected, "{} with {threads} threads", isa.name());
            }
        }
    }
}

/// The same model in plain loops of doubles.
fn plain(config: &EncoderConfig, text: &[u32]) -> Vec<Vec<f64>> {
    let (width, dim) = (config.width, config.width / config.heads);
    let tensor = |name: &str, dims: &[usize]| -> Vec<f64> {
        drawn(name, dims).into_iter().map(f64::from).collect()
    };
    let row = |name: &str, count: usize, at: usize| -> Vec<f64> {
        tensor(name, &[count, width])[at * width..][..width].to_vec()
    };
    let add = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
    let norm = |row: &[f64], name: &str| -> Vec<f64> {
        let (gain, shift) = (format!("{name}.weight"), format!("{name}.bias"));
        let (gain, shift) = (tensor(&gain, &[width]), tensor(&shift, &[width]));
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / width as f64;
        let factor = 1.0 / (variance + f64::from(config.epsilon)).sqrt();
        (0..width).map(|at| (row[at] - mean) * factor * gain[at] + shift[at]).collect()
    };
    let linear = |row: &[f64], name: &str, outputs: usize| -> Vec<f64> {
        let weights = tensor(&format!("{name}.weight"), &[outputs, row.len()]);
        let bias = tensor(&format!("{name}.bias"), &[outputs]);
        let sum = |weights: &[f64]| row.iter().zip(weights).map(|(a, b)| a * b).sum::<f64>();
        weights.chunks(row.len()).zip(&bias).map(|(weights, bias)| sum(weights) + bias).collect()
    };
    let begin = |(at, token): (usize, &u32)| {
        let word = row("embeddings.word_embeddings.weight", config.vocabulary, *token as usize);
        let place = row("embeddings.position_embeddings.weight", config.positions, at);
        let kind = row("embeddings.token_type_embeddings.weight", config.kinds, 0);
        norm(&add(&add(&word, &place), &kind), "embeddings.LayerNorm")
    };
    let mut rows: Vec<Vec<f64>> = text.iter().enumerate().map(begin).collect();
    for layer in 0..config.layers {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let all = |part: &str| -> Vec<Vec<f64>> {
            let name = name(&format!("attention.self.{part}"));
            rows.iter().map(|row| linear(row, &name, width)).collect()
        };
        let (queries, keys, values) = (all("query"), all("key"), all("value"));
        rows = rows
            .iter()
            .enumerate()
            .map(|(at, row)| {
                let mut seen = vec![0.0; width];
                for head in 0..config.heads {
                    let part = head * dim..(head + 1) * dim;
                    let dot = |key: &Vec<f64>| {
                        let pairs = queries[at][part.clone()].iter().zip(&key[part.clone()]);
                        (pairs.map(|(a, b)| a * b).sum::<f64>() / (dim as f64).sqrt()).exp()
                    };
                    let weights: Vec<f64> = keys.iter().map(dot).collect();
                    let sum: f64 = weights.iter().sum();
                    for (weight, value) in weights.iter().zip(&values) {
                        for at in part.clone() {
                            seen[at] += weight / sum * value[at];
                        }
                    }
                }
                let seen = linear(&seen, &name("attention.output.dense"), width);
                let row = norm(&add(row, &seen), &name("attention.output.LayerNorm"));
                let up = linear(&row, &name("intermediate.dense"), config.feed_forward);
                let gelu = |x: &f64| 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
                let up: Vec<f64> = up.iter().map(gelu).collect();
                let down = linear(&up, &name("output.dense"), width);
                norm(&add(&row, &down), &name("output.LayerNorm"))
            })
            .collect();
    }
    rows
}

#[test]
fn the_numbers_are_those_of_plain_loops() {
    let (encoder, texts) = (encoder(), texts());
    let mut crew = EncoderCrew::new(2).expect("threads");
    let progress = AtomicU64::new(0);
    let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let found = encoder.read(&mut crew, &slices, &progress).expect("reads");
    assert_eq!(progress.load(Ordering::Relaxed), 2);
    for (text, found) in texts.iter().zip(found) {
        let exact: Vec<f64> = plain(encoder.config(), text).concat();
        assert_eq!(found.len(), exact.len());
        let worst = found.iter().zip(&exact).map(|(a, b)| (f64::from(*a) - b).abs());
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 2e-5, "{} tokens: {worst}", text.len());
    }
}

#[test]
fn what_is_not_the_models_is_refused() {
    let encoder = encoder();
    let mut crew = EncoderCrew::new(1).expect("threads");
    let progress = AtomicU64::new(0);
    let unknown = encoder.read(&mut crew, &[&[3, 40]], &progress);
    assert!(matches!(unknown, Err(KernelError::Token { token: 40, vocabulary: 40 })));
    assert!(encoder.read(&mut crew, &[&[1; 51]], &progress).is_err());
    assert!(encoder.read(&mut crew, &[], &progress).expect("nothing to do").is_empty());
    let empty = encoder.read(&mut crew, &[&[], &[1]], &progress).expect("reads");
    assert_eq!(empty.iter().map(Vec::len).collect::<Vec<_>>(), [0, 48]);
    for change in [
        |config: &mut EncoderConfig| config.heads = 5,
        |config: &mut EncoderConfig| config.heads = 12,
        |config: &mut EncoderConfig| config.width = 40,
        |config: &mut EncoderConfig| config.feed_forward = 0,
        |config: &mut EncoderConfig| config.kinds = 0,
    ] {
        let mut config = config();
        change(&mut config);
        assert!(Encoder::load(config, &mut |name, dims| Ok(drawn(name, dims))).is_err());
    }
    let missing = Encoder::load(config(), &mut |_, _| Err(KernelError::Bytes));
    assert!(missing.is_err());
}
