use candle_core::{Device, Tensor};
use selvedge_base::Dice;

use super::*;

fn random(dice: &mut Dice, dims: (usize, usize, usize)) -> Tensor {
    let count = dims.0 * dims.1 * dims.2;
    let numbers = (0..count).map(|_| dice.unit_f32() * 4.0 - 2.0).collect();
    Tensor::from_vec(numbers, dims, &Device::Cpu).expect("a shape")
}

/// The definition, number by number, in f64.
fn expected(queries: &Tensor, sequences: &[Sequence]) -> Vec<f64> {
    let queries: Vec<Vec<Vec<f32>>> = queries.to_vec3().expect("numbers");
    let mut out = Vec::new();
    let mut row = 0;
    for sequence in sequences {
        let keys: Vec<Vec<Vec<f32>>> = sequence.keys.to_vec3().expect("numbers");
        let values: Vec<Vec<Vec<f32>>> = sequence.values.to_vec3().expect("numbers");
        for position in sequence.start..sequence.start + sequence.count {
            for (head, queries) in queries.iter().enumerate() {
                let kv = head * keys.len() / 6;
                let dot = |key: &[f32]| -> f64 {
                    queries[row].iter().zip(key).map(|(a, b)| f64::from(a * b)).sum()
                };
                let scores: Vec<f64> =
                    keys[kv][..=position].iter().map(|key| dot(key).exp()).collect();
                let sum: f64 = scores.iter().sum();
                for lane in 0..queries[row].len() {
                    let mixed: f64 = (scores.iter().zip(&values[kv]))
                        .map(|(score, value)| score / sum * f64::from(value[lane]))
                        .sum();
                    out.push(mixed);
                }
            }
            row += 1;
        }
    }
    out
}

#[test]
fn rows_attend_to_their_own_past() {
    let mut dice = Dice::keyed(1, "attention");
    // 44 = one group of four vectors, one vector more and a rest, with vectors of eight.
    for dim in [2, 8, 44, 64] {
        let spans = [(0, 1), (0, 5), (13, 1), (70, 3)];
        let sequences: Vec<_> = spans
            .iter()
            .map(|&(start, count)| {
                let view = |all: Tensor| all.narrow(1, 0, start + count).expect("within");
                let keys = view(random(&mut dice, (3, 128, dim)));
                let values = view(random(&mut dice, (3, 128, dim)));
                Sequence { keys, values, start, count }
            })
            .collect();
        let queries = random(&mut dice, (6, 10, dim)).affine(0.2, 0.0).expect("scales");
        let result: Vec<f32> =
            attend(&queries, &sequences).and_then(|t| t.flatten_all()?.to_vec1()).expect("rows");
        let expected = expected(&queries, &sequences);
        assert_eq!(result.len(), expected.len());
        for (ours, exact) in result.iter().zip(expected) {
            assert!((f64::from(*ours) - exact).abs() < 1e-4, "dim {dim}: {ours} for {exact}");
        }
    }
}

#[test]
fn shapes_that_do_not_match_are_errors() {
    let mut dice = Dice::keyed(2, "attention");
    let keys = random(&mut dice, (3, 4, 8));
    let sequence =
        |start, count| Sequence { keys: keys.clone(), values: keys.clone(), start, count };
    let queries = random(&mut dice, (6, 2, 8));
    assert!(attend(&queries, &[sequence(0, 3)]).is_err());
    assert!(attend(&queries, &[sequence(90, 2)]).is_err());
    assert!(attend(&queries, &[]).is_err());
}
