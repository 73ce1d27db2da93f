use proptest::prelude::*;
use selvedge_contract::Further;

use super::*;

fn sampling(temperature: f32, top_p: f32, top_k: u32) -> Sampling {
    Sampling {
        temperature,
        top_p,
        top_k,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 7,
        further: Further::NONE,
    }
}

fn draw(
    logits: &[f32],
    sampling: &Sampling,
    counts: &BTreeMap<u32, u32>,
    index: u32,
) -> Option<u32> {
    Draws::default().draw(logits, sampling, Past { tokens: &[], counts }, index)
}

/// Logits of these probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

fn shares(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
    let times = 20_000u32;
    let mut counts = vec![0u32; logits.len()];
    let (mut draws, none) = (Draws::default(), BTreeMap::new());
    let past = Past { tokens: &[], counts: &none };
    for index in 0..times {
        let token = draws.draw(logits, sampling, past, index).expect("numbers");
        counts[token as usize] += 1;
    }
    counts.iter().map(|&count| f64::from(count) / f64::from(times)).collect()
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
    let least = |min_p| with(sampling(1.0, 1.0, 0), Further { min_p, ..Further::NONE });
    near(&shares(&logits, &least(0.31)), &[0.625, 0.375, 0.0, 0.0]);
    near(&shares(&logits, &least(0.29)), &[0.526, 0.316, 0.158, 0.0]);
    near(&shares(&logits, &least(1.0)), &[1.0, 0.0, 0.0, 0.0]);
    // Of what it is drawn from: half the temperature makes 0.36 of the second one's 0.6.
    let cool = Sampling { temperature: 0.5, ..least(0.4) };
    near(&shares(&logits, &cool), &[1.0, 0.0, 0.0, 0.0]);
    // Half the temperature squares the probabilities.
    near(&shares(&logits, &sampling(0.5, 1.0, 0)), &[0.685, 0.247, 0.062, 0.007]);
}

fn with(sampling: Sampling, further: Further) -> Sampling {
    Sampling { further, ..sampling }
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
fn what_was_said_lately_is_penalized_once_whichever_sign_it_has() {
    let none = BTreeMap::new();
    let of = |logits: &[f32], tokens: &[u32], penalty: f32, window: u32| {
        let further =
            Further { min_p: 0.0, repetition_penalty: penalty, repetition_window: window };
        let sampling = with(sampling(0.0, 1.0, 0), further);
        Draws::default().draw(logits, &sampling, Past { tokens, counts: &none }, 0).unwrap()
    };
    assert_eq!(of(&[2.0, 1.5], &[], 1.5, 64), 0);
    assert_eq!(of(&[2.0, 1.5], &[0], 1.5, 64), 1, "1.33, 1.5");
    assert_eq!(of(&[2.0, 1.2], &[0, 0, 0], 1.5, 64), 0, "1.33, 1.2, however often it was said");
    assert_eq!(of(&[-1.0, -1.2], &[0], 1.5, 64), 1, "-1.5, -1.2");
    assert_eq!(of(&[1.0, 1.2], &[0], 0.5, 64), 0, "below one it is favoured: 2.0, 1.2");
    assert_eq!(of(&[2.0, 1.5], &[0, 3, 3], 1.5, 2), 0, "it is out of the window");
    assert_eq!(of(&[2.0, 1.5], &[0, 3, 3], 1.5, 3), 1, "1.33, 1.5");
    assert_eq!(of(&[2.0, 1.5], &[0], 1.5, 0), 0, "a window of none");
    assert_eq!(of(&[2.0, 1.5], &[0, u32::MAX], 1.5, u32::MAX), 1, "of all there is");
    // Before the other penalties: the other way around it would be -2.4.
    let counts = BTreeMap::from([(0, 1)]);
    let further = Further { repetition_penalty: 1.6, ..Further::NONE };
    let both = with(Sampling { presence_penalty: 0.5, ..sampling(0.0, 1.0, 0) }, further);
    let past = Past { tokens: &[0], counts: &counts };
    assert_eq!(Draws::default().draw(&[-1.0, -2.2], &both, past, 0), Some(0), "-2.1, -2.2");
}

/// The logits of a vocabulary of a thousand tokens, which no rounding can make others.
fn thousand() -> Vec<f32> {
    let spread = |token: u32| token.wrapping_mul(2_654_435_761) >> 16;
    (0..1_000).map(|token| spread(token) as f32 / 4_096.0 - 8.0).collect()
}

/// These tokens were computed apart from this program, in another language, from the papers on
/// BLAKE3 and ChaCha12 and the source of `libm`. On whatever machine, they are the same; other ones
/// would let an answer that another node goes on with take another turn.
#[test]
fn a_seed_draws_the_same_tokens_on_every_machine() {
    let plain =
        |seed, temperature, top_p, top_k| Sampling { seed, ..sampling(temperature, top_p, top_k) };
    let less = |seed, temperature, top_p, top_k, min_p| {
        with(plain(seed, temperature, top_p, top_k), Further { min_p, ..Further::NONE })
    };
    let (presence_penalty, frequency_penalty) = (0.5, 0.2);
    let further = Further { min_p: 0.0, repetition_penalty: 1.3, repetition_window: 4 };
    let penalized = Sampling { presence_penalty, frequency_penalty, ..plain(13, 0.9, 1.0, 0) };
    let everything = Further { min_p: 0.1, repetition_penalty: 1.1, ..Further::NONE };
    let golden: [(Sampling, [u32; 8]); 8] = [
        (plain(7, 1.0, 1.0, 0), [919, 359, 707, 542, 288, 453, 414, 995]),
        (plain(8, 0.7, 1.0, 40), [21, 398, 987, 864, 597, 521, 542, 741]),
        (plain(9, 1.3, 0.9, 0), [576, 859, 893, 508, 830, 898, 469, 147]),
        (plain(10, 0.8, 0.95, 50), [597, 487, 76, 398, 898, 364, 309, 754]),
        (less(11, 1.0, 1.0, 0, 0.05), [681, 987, 647, 529, 84, 165, 749, 558]),
        (less(12, 1.5, 1.0, 100, 0.02), [398, 220, 76, 665, 893, 809, 665, 474]),
        (with(penalized, further), [660, 809, 275, 626, 665, 542, 291, 55]),
        (with(plain(14, 2.0, 0.8, 0), everything), [597, 262, 859, 521, 495, 278, 215, 168]),
    ];
    let (logits, mut draws) = (thousand(), Draws::default());
    for (sampling, expected) in golden {
        let (mut tokens, mut counts) = (vec![11, 22, 33], BTreeMap::new());
        for index in 0..8 {
            let past = Past { tokens: &tokens, counts: &counts };
            let token = draws.draw(&logits, &sampling, past, index).expect("numbers");
            tokens.push(token);
            *counts.entry(token).or_default() += 1;
        }
        assert_eq!(tokens[3..], expected, "{sampling:?}");
    }
}

#[test]
fn log_probabilities_are_the_same_bits_on_every_machine() {
    let logits = thousand();
    for (token, bits) in [
        (919, 0xc092_0a3e_u32),
        (359, 0xc0c4_be3e),
        (0, 0xc1a1_150f),
        (20, 0xc165_d51f),
        (21, 0xc08f_3c3e),
        (291, 0xc0d2_363e),
        (278, 0xc0e3_d83e),
    ] {
        assert_eq!(log_probabilities(&logits, token, 0).0.to_bits(), bits, "token {token}");
    }
}

/// The same draw without sparing anything: all weights, all of them sorted.
fn plainly(logits: &[f32], sampling: &Sampling, past: Past<'_>, index: u32) -> Option<u32> {
    let mut copy = Vec::new();
    let logits = penalties(&mut copy, logits, sampling, past);
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (highest, temperature) = (f64::from(highest), f64::from(sampling.temperature));
    let mut all: Vec<Weighed> = (0..)
        .zip(logits)
        .filter(|(_, logit)| logit.is_finite())
        .map(|(token, &logit)| (token, libm::exp((f64::from(logit) - highest) / temperature)))
        .collect();
    if sampling.top_k > 0 || sampling.top_p < 1.0 {
        let total: f64 = all.iter().map(|(_, weight)| weight).sum();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if sampling.top_k > 0 {
            all.truncate(sampling.top_k as usize);
        }
        if sampling.top_p < 1.0 {
            let few: f64 = all.iter().map(|(_, weight)| weight).sum();
            let inside = f64::from(sampling.top_p) * if sampling.top_k > 0 { few } else { total };
            let mut sum = 0.0;
            let last = all.iter().position(|(_, weight)| {
                sum += weight;
                sum >= inside
            });
            all.truncate(last.map_or(all.len(), |last| last + 1));
        }
    }
    all.retain(|(_, weight)| *weight >= f64::from(sampling.further.min_p));
    let total: f64 = all.iter().map(|(_, weight)| weight).sum();
    let mut left = (dice(sampling.seed, index).next() >> 11) as f64 / (1u64 << 53) as f64 * total;
    let found = all.iter().find(|(_, weight)| {
        left -= weight;
        left < 0.0
    });
    found.or(all.last()).map(|(token, _)| *token)
}

/// Few values, so that there are equals, with what is ruled out and what is far below the rest.
fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        8 => (-40i8..40).prop_map(|step| f32::from(step) / 4.0),
        4 => -30.0f32..30.0,
        1 => Just(f32::NEG_INFINITY),
        1 => Just(-1e-30f32),
        1 => -1e4f32..-700.0,
    ];
    prop::collection::vec(logit, 1..200).prop_filter("something must be possible", |logits| {
        logits.iter().any(|logit| logit.is_finite())
    })
}

fn any_sampling() -> impl Strategy<Value = Sampling> {
    let share = || prop_oneof![Just(1.0f32), 0.01f32..1.0, Just(0.999_999f32)];
    let least = prop_oneof![Just(0.0f32), 1e-6f32..1.0, Just(1.0f32)];
    let top_k = prop_oneof![2 => Just(0u32), 3 => 1u32..50, 1 => 50u32..250];
    let temperature = prop_oneof![Just(1.0f32), 0.01f32..2.0];
    let further = (least, prop_oneof![Just(1.0f32), 0.5f32..2.0], 0u32..9);
    (temperature, share(), top_k, further, any::<u64>()).prop_map(
        |(temperature, top_p, top_k, (min_p, repetition_penalty, repetition_window), seed)| {
            let further = Further { min_p, repetition_penalty, repetition_window };
            Sampling { seed, ..with(sampling(temperature, top_p, top_k), further) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_spared_changes_no_draw(
        logits in any_logits(),
        other in any_logits(),
        sampling in any_sampling(),
        tokens in prop::collection::vec(0u32..200, 0..12),
    ) {
        let none = BTreeMap::new();
        let past = Past { tokens: &tokens, counts: &none };
        let mut draws = Draws::default();
        for index in 0..4 {
            // What another draw left in its memory is no part of this one.
            draws.draw(&other, &sampling, past, index);
            let drawn = draws.draw(&logits, &sampling, past, index);
            prop_assert_eq!(drawn, plainly(&logits, &sampling, past, index));
        }
    }
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
    let further = |min_p, repetition_penalty| {
        with(sampling(1.0, 1.0, 0), Further { min_p, repetition_penalty, ..Further::NONE })
    };
    for (name, wrong) in [
        ("temperature", Sampling { temperature: f32::NAN, ..sampling(1.0, 1.0, 0) }),
        ("temperature", sampling(2.1, 1.0, 0)),
        ("top_p", sampling(1.0, 0.0, 0)),
        ("top_p", sampling(1.0, 1.1, 0)),
        ("presence_penalty", Sampling { presence_penalty: 3.0, ..sampling(1.0, 1.0, 0) }),
        ("frequency_penalty", Sampling { frequency_penalty: -3.0, ..sampling(1.0, 1.0, 0) }),
        ("min_p", further(1.1, 1.0)),
        ("min_p", further(f32::NAN, 1.0)),
        ("repetition_penalty", further(0.0, 0.0)),
        ("repetition_penalty", further(0.0, 2.1)),
        ("repetition_penalty", further(0.0, f32::NAN)),
    ] {
        let refusal = check(&wrong).expect_err(name);
        assert_eq!(refusal.param.as_deref(), Some(name));
    }
    assert_eq!(check(&sampling(2.0, 1.0, 50)), Ok(()));
}
