use super::*;

fn sampling(temperature: f32, top_p: f32, top_k: u32) -> Sampling {
    Sampling { temperature, top_p, top_k, presence_penalty: 0.0, frequency_penalty: 0.0, seed: 7 }
}

/// Logits of these probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

fn shares(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
    let draws = 20_000u32;
    let mut counts = vec![0u32; logits.len()];
    for index in 0..draws {
        let token = draw(logits, sampling, &BTreeMap::new(), index).expect("numbers");
        counts[token as usize] += 1;
    }
    counts.iter().map(|&count| f64::from(count) / f64::from(draws)).collect()
}

fn near(shares: &[f64], expected: &[f64]) {
    for (share, expected) in shares.iter().zip(expected) {
        assert!((share - expected).abs() < 0.015, "{shares:?}");
    }
}

#[test]
fn without_temperature_the_likeliest_wins_and_the_lowest_id_among_equals() {
    let none = BTreeMap::new();
    assert_eq!(draw(&[1.0, 3.0, 3.0, 2.0], &sampling(0.0, 1.0, 0), &none, 0), Some(1));
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = logits(&[0.5, 0.3, 0.15, 0.05]);
    near(&shares(&logits, &sampling(1.0, 1.0, 0)), &[0.5, 0.3, 0.15, 0.05]);
    near(&shares(&logits, &sampling(1.0, 1.0, 2)), &[0.625, 0.375, 0.0, 0.0]);
    near(&shares(&logits, &sampling(1.0, 0.9, 0)), &[0.526, 0.316, 0.158, 0.0]);
    near(&shares(&logits, &sampling(1.0, 0.01, 0)), &[1.0, 0.0, 0.0, 0.0]);
    // Half the temperature squares the probabilities.
    near(&shares(&logits, &sampling(0.5, 1.0, 0)), &[0.685, 0.247, 0.062, 0.007]);
}

#[test]
fn a_draw_depends_on_seed_and_index_alone() {
    let logits = logits(&[0.25; 4]);
    let one = sampling(1.0, 1.0, 0);
    let other = Sampling { seed: 8, ..one.clone() };
    let none = BTreeMap::new();
    let of = |s: &Sampling| (0..64).map(|i| draw(&logits, s, &none, i)).collect::<Vec<_>>();
    assert_eq!(of(&one), of(&one));
    assert_ne!(of(&one), of(&other));
    assert_eq!(draw(&logits, &one, &none, 63), of(&one)[63], "without the draws before it");
}

#[test]
fn penalties_lower_what_occurred() {
    let counts = BTreeMap::from([(0, 3), (1, 1)]);
    let mut penalized = sampling(0.0, 1.0, 0);
    let logits = [2.0, 1.5, 1.0];
    assert_eq!(draw(&logits, &penalized, &counts, 0), Some(0));
    penalized.frequency_penalty = 0.4;
    assert_eq!(draw(&logits, &penalized, &counts, 0), Some(1), "0.8, 1.1, 1.0");
    penalized.presence_penalty = 0.5;
    assert_eq!(draw(&logits, &penalized, &counts, 0), Some(2), "0.3, 0.6, 1.0");
}

#[test]
fn log_probabilities_are_normalised_and_sorted() {
    let (chosen, top) = log_probabilities(&[0.0, 2.0, 1.0, 2.0], 2, 3);
    // 1 - ln(1 + e + 2 e^2)
    assert!((chosen - -1.917_576).abs() < 1e-5, "{chosen}");
    assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
    let (_, all) = log_probabilities(&[0.0, 2.0, 1.0, 2.0], 0, 20);
    let sum: f64 = all.iter().map(|(_, score)| f64::from(*score).exp()).sum();
    assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    assert!(log_probabilities(&[0.0, 1.0], 1, 0).1.is_empty());
}

#[test]
fn logits_that_are_no_numbers_draw_nothing() {
    let none = BTreeMap::new();
    assert_eq!(draw(&[0.0, f32::NAN], &sampling(1.0, 1.0, 0), &none, 0), None);
    assert_eq!(draw(&[0.0, f32::INFINITY], &sampling(0.0, 1.0, 0), &none, 0), None);
    assert_eq!(draw(&[], &sampling(0.0, 1.0, 0), &none, 0), None);
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    for (name, wrong) in [
        ("temperature", Sampling { temperature: f32::NAN, ..sampling(1.0, 1.0, 0) }),
        ("temperature", sampling(2.1, 1.0, 0)),
        ("top_p", sampling(1.0, 0.0, 0)),
        ("top_p", sampling(1.0, 1.1, 0)),
        ("presence_penalty", Sampling { presence_penalty: 3.0, ..sampling(1.0, 1.0, 0) }),
        ("frequency_penalty", Sampling { frequency_penalty: -3.0, ..sampling(1.0, 1.0, 0) }),
    ] {
        let refusal = check(&wrong).expect_err(name);
        assert_eq!(refusal.param.as_deref(), Some(name));
    }
    assert_eq!(check(&sampling(2.0, 1.0, 50)), Ok(()));
}
