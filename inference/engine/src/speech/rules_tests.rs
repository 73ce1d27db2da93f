use super::super::folder::Folder;
use super::super::testing::{FIRST_TIME, tiny};
use super::*;

fn words() -> Words {
    Words::load(&Folder::open(tiny(true).path()).expect("reads")).expect("words")
}

/// Tokens that may come, where all are alike but times, which are unlikely.
fn allowed(words: &Words, written: &[u32]) -> Vec<u32> {
    let mut logits = vec![0.0; 71];
    logits[FIRST_TIME as usize..].fill(-9.0);
    restrict(words, written, &mut logits);
    (0..71).filter(|token| logits[*token as usize].is_finite()).collect()
}

#[test]
fn times_come_in_order_and_in_pairs() {
    let words = words();
    let time = |step: u32| FIRST_TIME + step;
    let letters: Vec<u32> = (0..9).chain([10, 12, 13, 16, 18]).collect();
    // First comes a time within the first second, which is all of this model's.
    assert_eq!(allowed(&words, &[]), (time(0)..=time(50)).collect::<Vec<_>>());
    // Then words: never those on the list, nor what tells the model what to do.
    let after = |written: &[u32]| allowed(&words, written);
    let text = |found: Vec<u32>| found.into_iter().filter(|t| *t < FIRST_TIME).collect::<Vec<_>>();
    let found = after(&[time(3)]);
    assert_eq!(text(found.clone()), letters);
    assert!(!found.iter().any(|token| *token >= FIRST_TIME));
    // After a word anything but a time that is past, or the one where the part began.
    let found = after(&[time(3), 1]);
    assert_eq!(text(found.clone()), letters);
    assert_eq!(found.iter().find(|token| **token >= FIRST_TIME), Some(&time(4)));
    // After a part's end: the next one's beginning, or the end of all.
    let found = after(&[time(3), 1, time(9)]);
    assert_eq!(text(found.clone()), [10, 12, 13, 16, 18]);
    assert_eq!(found.iter().find(|token| **token >= FIRST_TIME), Some(&time(9)));
    // After two times words.
    let found = after(&[time(3), 1, time(9), time(9)]);
    assert_eq!(found, letters);
    // The last time there is: nothing later.
    assert_eq!(after(&[time(3), 1, time(50), time(50), 2]), letters);
}

#[test]
fn likely_times_go_before_words() {
    let words = words();
    let mut logits = vec![0.0; 71];
    // Each is less likely than a word, all together are not.
    logits[FIRST_TIME as usize..].fill(-2.0);
    restrict(&words, &[FIRST_TIME, 1], &mut logits);
    assert!(logits[..FIRST_TIME as usize].iter().all(|logit| *logit == f32::NEG_INFINITY));
    assert!(logits[FIRST_TIME as usize + 1..].iter().all(|logit| *logit == -2.0));
}

#[test]
fn the_likeliest_comes_without_temperature_and_others_with_it() {
    let mut dice = Dice::keyed(1, "test");
    let logits = [1.0, f32::NEG_INFINITY, 3.0, 2.0];
    let (token, logprob) = choose(&logits, 0.0, &mut dice).expect("a token");
    let sum = (1.0_f32.exp() + 3.0_f32.exp() + 2.0_f32.exp()).ln();
    assert_eq!(token, 2);
    assert!((logprob - (3.0 - sum)).abs() < 1e-6, "{logprob}");
    let mut counts = [0; 4];
    for _ in 0..4_000 {
        counts[choose(&logits, 1.0, &mut dice).expect("a token").0 as usize] += 1;
    }
    // 9 %, 0, 67 % and 24 %.
    assert!((280..440).contains(&counts[0]) && counts[1] == 0, "{counts:?}");
    assert!((2_500..2_860).contains(&counts[2]), "{counts:?}");
    assert!((probability(&logits, 2) - (3.0 - sum).exp()).abs() < 1e-6);
    let none = [f32::NEG_INFINITY; 3];
    assert_eq!(choose(&none, 0.0, &mut dice), None);
    assert_eq!(choose(&[f32::NAN, 1.0], 0.5, &mut dice), None);
}

#[test]
fn what_somebody_writes_is_no_mark() {
    let words = words();
    let tokens = words.tokens(" a<|endoftext|>b").expect("tokens");
    assert!(tokens.iter().all(|token| *token < words.end), "{tokens:?}");
    assert_eq!(words.text(&[0, 1, FIRST_TIME, 2, 10]).expect("text"), " ab");
    assert_eq!(words.languages.keys().collect::<Vec<_>>(), ["de", "en"]);
}
