use super::*;
use crate::simd::tests::Dice;

fn tower(bend: Bend) -> TowerConfig {
    TowerConfig { width: 48, feed_forward: 96, heads: 3, layers: 2, epsilon: 1e-5, bend }
}

fn sight() -> SightConfig {
    // Forty-nine squares and the picture's own row; a rim of two points that no square has.
    let tower = tower(Bend::Gelu);
    SightConfig { tower, side: 30, square: 4, shifted: true, normed_first: true }
}

fn captions() -> CaptionsConfig {
    CaptionsConfig { tower: tower(Bend::QuickGelu), vocabulary: 40, positions: 50 }
}

/// Numbers that follow from a tensor's name.
fn drawn(name: &str, dims: &[usize]) -> Vec<f32> {
    let seed = name.bytes().fold(7_u64, |seed, byte| seed.wrapping_mul(31) + u64::from(byte));
    let gain = name.contains("norm") && name.ends_with("weight");
    let mut dice = Dice(seed);
    let number = |dice: &mut Dice| dice.unit() * 0.3 + if gain { 1.0 } else { 0.0 };
    (0..dims.iter().product()).map(|_| number(&mut dice)).collect()
}

fn seer() -> Sight {
    Sight::load(sight(), &mut |name, dims| Ok(drawn(name, dims))).expect("loads")
}

fn reader() -> Captions {
    Captions::load(captions(), &mut |name, dims| Ok(drawn(name, dims))).expect("loads")
}

fn picture() -> Vec<f32> {
    drawn("picture", &[sight().numbers()])
}

/// Texts of several lengths, longer than what is computed side by side and than a piece, and a
/// place in each.
fn texts() -> Vec<(Vec<u32>, usize)> {
    let text = |length: u32| {
        let text: Vec<u32> = (0..length).map(|at| (at * 7 + length) % 40).collect();
        let place = text.len() * 2 / 3;
        (text, place)
    };
    [1, 2, 17, 50, 8, 33].map(text).to_vec()
}

fn on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn read(reader: &Captions, crew: &mut EncoderCrew, texts: &[(Vec<u32>, usize)]) -> Vec<Vec<f32>> {
    let texts: Vec<_> = texts.iter().map(|(text, place)| (text.as_slice(), *place)).collect();
    reader.read(crew, &texts, &mut on).expect("reads").expect("not given up")
}

fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn the_bits_are_the_same_in_every_batch_on_every_crew() {
    let (seer, reader, texts, picture) = (seer(), reader(), texts(), picture());
    let mut alone = EncoderCrew::with_isa(1, Isa::scalar()).expect("threads");
    let seen = seer.see(&mut alone, &picture, &mut on).expect("sees").expect("not given up");
    let single: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| bits(&read(&reader, &mut alone, std::slice::from_ref(text))[0]))
        .collect();
    for isa in Isa::available() {
        for threads in [1, 3] {
            let mut crew = EncoderCrew::with_isa(threads, isa).expect("threads");
            let again = seer.see(&mut crew, &picture, &mut on).expect("sees").expect("seen");
            assert!(bits(&again) == bits(&seen), "{} with {threads} threads", isa.name());
            for turn in 0..texts.len() {
                let mut batch = texts.clone();
                batch.rotate_left(turn);
                let mut expected = single.clone();
                expected.rotate_left(turn);
                let found = read(&reader, &mut crew, &batch);
                let found: Vec<_> = found.iter().map(|rows| bits(rows)).collect();
                assert!(found == expected, "{} with {threads} threads", isa.name());
            }
        }
    }
}

#[test]
fn what_comes_after_a_place_changes_nothing_there() {
    let (reader, mut crew) = (reader(), EncoderCrew::new(2).expect("threads"));
    let text: Vec<u32> = (0..40).collect();
    for place in [0, 1, 15, 16, 17, 30] {
        let short = (text[..=place].to_vec(), place);
        let found = read(&reader, &mut crew, &[(text.clone(), place), short]);
        assert_eq!(bits(&found[0]), bits(&found[1]), "{place}");
    }
}

type Rows = Vec<Vec<f64>>;

fn tensor(name: &str, dims: &[usize]) -> Vec<f64> {
    drawn(name, dims).into_iter().map(f64::from).collect()
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn norm(row: &[f64], name: &str) -> Vec<f64> {
    let (gain, shift) = (format!("{name}.weight"), format!("{name}.bias"));
    let width = row.len();
    let (gain, shift) = (tensor(&gain, &[width]), tensor(&shift, &[width]));
    let mean = row.iter().sum::<f64>() / width as f64;
    let variance = row.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / width as f64;
    let factor = 1.0 / (variance + f64::from(1e-5_f32)).sqrt();
    (0..width).map(|at| (row[at] - mean) * factor * gain[at] + shift[at]).collect()
}

fn linear(row: &[f64], name: &str, outputs: usize) -> Vec<f64> {
    let weights = tensor(&format!("{name}.weight"), &[outputs, row.len()]);
    let bias = tensor(&format!("{name}.bias"), &[outputs]);
    let dot = |weights: &[f64]| row.iter().zip(weights).map(|(a, b)| a * b).sum::<f64>();
    weights.chunks(row.len()).zip(&bias).map(|(weights, bias)| dot(weights) + bias).collect()
}

/// The layers in plain loops of doubles.
fn climbed(config: &TowerConfig, mut rows: Rows, back: bool) -> Rows {
    let dim = config.width / config.heads;
    let bent = |x: &f64| match config.bend {
        Bend::Gelu => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        Bend::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
    };
    for layer in 0..config.layers {
        let name = |part: &str| format!("encoder.layers.{layer}.{part}");
        let normed: Rows = rows.iter().map(|row| norm(row, &name("layer_norm1"))).collect();
        let all = |part: &str| -> Rows {
            let name = name(&format!("self_attn.{part}"));
            normed.iter().map(|row| linear(row, &name, config.width)).collect()
        };
        let (queries, keys, values) = (all("q_proj"), all("k_proj"), all("v_proj"));
        for (at, row) in rows.iter_mut().enumerate() {
            let seen_rows = if back { at + 1 } else { keys.len() };
            let mut seen = vec![0.0; config.width];
            for head in 0..config.heads {
                let part = head * dim..(head + 1) * dim;
                let dot = |key: &Vec<f64>| {
                    let pairs = queries[at][part.clone()].iter().zip(&key[part.clone()]);
                    (pairs.map(|(a, b)| a * b).sum::<f64>() / (dim as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = keys[..seen_rows].iter().map(dot).collect();
                let total: f64 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&values) {
                    for at in part.clone() {
                        seen[at] += weight / total * value[at];
                    }
                }
            }
            *row = sum(row, &linear(&seen, &name("self_attn.out_proj"), config.width));
            let up =
                linear(&norm(row, &name("layer_norm2")), &name("mlp.fc1"), config.feed_forward);
            let up: Vec<f64> = up.iter().map(bent).collect();
            *row = sum(row, &linear(&up, &name("mlp.fc2"), config.width));
        }
    }
    rows
}

fn assert_near(found: &[f32], exact: &[f64], what: &str) {
    assert_eq!(found.len(), exact.len());
    let worst = found.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).abs());
    let worst = worst.fold(0.0, f64::max);
    assert!(worst < 2e-5, "{what}: {worst}");
}

#[test]
fn a_text_is_read_as_by_plain_loops() {
    let (reader, texts) = (reader(), texts());
    let mut crew = EncoderCrew::new(2).expect("threads");
    let found = read(&reader, &mut crew, &texts);
    let width = captions().tower.width;
    for ((text, place), found) in texts.iter().zip(found) {
        let words = tensor("embeddings.token_embedding.weight", &[40, width]);
        let places = tensor("embeddings.position_embedding.weight", &[50, width]);
        let row = |(at, token): (usize, &u32)| {
            let word = &words[*token as usize * width..][..width];
            sum(word, &places[at * width..][..width])
        };
        let rows = climbed(&captions().tower, text.iter().enumerate().map(row).collect(), true);
        let exact = norm(&rows[*place], "final_layer_norm");
        assert_near(&found, &exact, &format!("{} tokens", text.len()));
    }
}

#[test]
fn a_picture_is_seen_as_by_plain_loops() {
    let (config, picture) = (sight(), picture());
    let (width, side, square) = (config.tower.width, config.side, config.square);
    let mut crew = EncoderCrew::new(2).expect("threads");
    let mut layers = 0;
    let mut count = || {
        layers += 1;
        ControlFlow::Continue(())
    };
    let found = seer().see(&mut crew, &picture, &mut count).expect("sees").expect("seen");
    assert_eq!(layers, 2);
    let places = tensor("embeddings.position_embedding.weight", &[50, width]);
    let mut rows = vec![tensor("embeddings.class_embedding", &[width])];
    let along = side / square;
    for at in 0..along * along {
        let mut numbers = Vec::new();
        for channel in 0..3 {
            for down in 0..square {
                for across in 0..square {
                    let (row, column) = (at / along * square + down, at % along * square + across);
                    numbers.push(f64::from(picture[channel * side * side + row * side + column]));
                }
            }
        }
        rows.push(linear(&numbers, "embeddings.patch_embedding", width));
    }
    let placed = rows.iter().zip(places.chunks(width)).map(|(row, place)| sum(row, place));
    let rows = placed.map(|row| norm(&row, "pre_layrnorm")).collect();
    let rows = climbed(&config.tower, rows, false);
    assert_near(&found, &norm(&rows[0], "post_layernorm"), "the picture");
}

#[test]
fn what_is_not_the_models_is_refused_and_what_is_given_up_ends() {
    let (seer, reader) = (seer(), reader());
    let mut crew = EncoderCrew::new(1).expect("threads");
    assert!(seer.see(&mut crew, &picture()[1..], &mut on).is_err());
    let unknown = reader.read(&mut crew, &[(&[3, 40], 0)], &mut on);
    assert!(matches!(unknown, Err(KernelError::Token { token: 40, vocabulary: 40 })));
    assert!(reader.read(&mut crew, &[(&[1; 51], 0)], &mut on).is_err());
    assert!(reader.read(&mut crew, &[(&[1; 5], 5)], &mut on).is_err());
    assert!(reader.read(&mut crew, &[(&[], 0)], &mut on).is_err());
    assert_eq!(reader.read(&mut crew, &[], &mut on).expect("nothing"), Some(Vec::new()));
    let mut off = || ControlFlow::Break(());
    assert_eq!(seer.see(&mut crew, &picture(), &mut off).expect("begins"), None);
    assert_eq!(reader.read(&mut crew, &[(&[1, 2], 1)], &mut off).expect("begins"), None);
    for change in [
        |config: &mut SightConfig| config.tower.heads = 5,
        |config: &mut SightConfig| config.tower.heads = 12,
        |config: &mut SightConfig| config.tower.width = 40,
        |config: &mut SightConfig| config.tower.feed_forward = 0,
        |config: &mut SightConfig| config.square = 0,
        |config: &mut SightConfig| config.square = 31,
    ] {
        let mut config = sight();
        change(&mut config);
        assert!(Sight::load(config, &mut |name, dims| Ok(drawn(name, dims))).is_err());
    }
    assert!(Sight::load(sight(), &mut |_, _| Err(KernelError::Bytes)).is_err());
    assert!(Captions::load(captions(), &mut |_, _| Err(KernelError::Bytes)).is_err());
}
