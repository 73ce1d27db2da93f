use super::*;
use crate::simd::Isa;
use crate::simd::tests::Dice;

fn drawn(seed: u64, count: usize) -> Vec<f32> {
    let mut dice = Dice(seed);
    (0..count).map(|_| dice.unit()).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn products_are_those_of_plain_loops_and_the_same_bits_everywhere() {
    let (inputs, outputs) = (37, 48);
    for count in [1, 3, 4, 9, 17] {
        let (weights, bias) = (drawn(1, inputs * outputs), drawn(2, outputs));
        let rows = drawn(3, count * inputs);
        let dense = Dense::pack(inputs, &weights, &bias).expect("packs");
        let mut first: Option<Vec<u32>> = None;
        for isa in Isa::available() {
            let mut out = vec![0.0; count * outputs];
            isa.run(Multiply { dense: &dense, rows: &rows, then: Then::Nothing, out: &mut out });
            for (row, out) in rows.chunks(inputs).zip(out.chunks(outputs)) {
                for (output, number) in out.iter().enumerate() {
                    let weights = &weights[output * inputs..][..inputs];
                    let exact: f64 = row.iter().zip(weights).map(|(a, b)| f64::from(a * b)).sum();
                    let exact = exact + f64::from(bias[output]);
                    assert!((f64::from(*number) - exact).abs() < 1e-5, "{number} {exact}");
                }
            }
            assert_eq!(*first.get_or_insert_with(|| bits(&out)), bits(&out), "{}", isa.name());
        }
    }
}

#[test]
fn gelu_is_the_one_of_the_error_function() {
    // Each input by itself through a matrix of ones, so that the product is the input.
    let dense = Dense::pack(1, &[1.0; LANES], &[0.0; LANES]).expect("packs");
    let inputs: Vec<f32> = (-120..=120).map(|step| step as f32 / 10.0).collect();
    for isa in Isa::available() {
        let mut out = vec![0.0; inputs.len() * LANES];
        isa.run(Multiply { dense: &dense, rows: &inputs, then: Then::Gelu, out: &mut out });
        for (input, out) in inputs.iter().zip(out.chunks(LANES)) {
            let x = f64::from(*input);
            let exact = 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
            assert!((f64::from(out[0]) - exact).abs() < 2e-6, "{input}: {} {exact}", out[0]);
        }
    }
}

#[test]
fn a_norm_has_mean_and_variance_as_told() {
    let gains = Gains { gain: vec![[2.0; LANES]; 3], shift: vec![[1.0; LANES]; 3] };
    let (add, start) = (drawn(5, 96), drawn(6, 96));
    let mut first: Option<Vec<u32>> = None;
    for isa in Isa::available() {
        let mut rows = start.clone();
        isa.run(Normalize { gains: &gains, epsilon: 1e-12, add: Some(&add), rows: &mut rows });
        for row in rows.chunks(48) {
            let mean = row.iter().sum::<f32>() / 48.0;
            let variance = row.iter().map(|n| (n - mean).powi(2)).sum::<f32>() / 48.0;
            assert!(
                (mean - 1.0).abs() < 1e-5 && (variance - 4.0).abs() < 1e-4,
                "{mean} {variance}"
            );
        }
        assert_eq!(*first.get_or_insert_with(|| bits(&rows)), bits(&rows), "{}", isa.name());
    }
}

#[test]
fn a_matrix_of_other_numbers_is_refused() {
    assert!(Dense::pack(3, &[0.0; 47], &[0.0; 16]).is_err());
    assert!(Dense::pack(3, &[0.0; 45], &[0.0; 15]).is_err());
    assert!(Dense::pack(0, &[], &[0.0; 16]).is_err());
}
