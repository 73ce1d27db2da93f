use candle_core::quantized::QTensor;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::{Device, Tensor};
use selvedge_base::Dice;

use super::*;

const KINDS: [GgmlDType; 5] =
    [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q5_0, GgmlDType::Q5_1, GgmlDType::Q8_0];

fn random(dice: &mut Dice, count: usize) -> Vec<f32> {
    (0..count).map(|_| dice.unit_f32() * 2.0 - 1.0).collect()
}

/// A random matrix in this layout and as candle holds it.
fn matrix(dice: &mut Dice, kind: GgmlDType, rows: usize, columns: usize) -> (Blocked, QTensor) {
    let weights = Tensor::from_vec(random(dice, rows * columns), (rows, columns), &Device::Cpu);
    let quantized = QTensor::quantize(&weights.expect("shape"), kind).expect("quantizes");
    let bytes = quantized.data().expect("bytes").into_owned();
    let theirs = qtensor_from_ggml(kind, &bytes, vec![rows, columns], &Device::Cpu);
    let ours = Blocked::unpack(&[(kind, rows, bytes)], columns).expect("unpacks");
    (ours, theirs.expect("reads"))
}

#[test]
fn weights_are_the_very_values_of_the_file() {
    let mut dice = Dice::keyed(1, "blocked");
    for kind in KINDS {
        let (ours, theirs) = matrix(&mut dice, kind, 5, 96);
        let expected = theirs.dequantize(&Device::Cpu).and_then(|t| t.flatten_all()?.to_vec1());
        let expected: Vec<f32> = expected.expect("dequantizes");
        assert_eq!(ours.rows(&[0, 1, 2, 3, 4]).expect("rows"), expected, "{kind:?}");
    }
}

#[test]
fn products_are_those_of_the_dequantized_matrix() {
    let mut dice = Dice::keyed(2, "blocked");
    for kind in KINDS {
        let (ours, theirs) = matrix(&mut dice, kind, 70, 160);
        let weights: Vec<f32> = ours.rows(&(0..70).collect::<Vec<_>>()).expect("rows");
        assert_eq!(theirs.shape().dims(), [70, 160]);
        for rows in [1usize, 2, 3, 4, 5, 9] {
            let input = random(&mut dice, rows * 160);
            let product = ours.multiply(&input);
            for (row, activations) in input.chunks_exact(160).enumerate() {
                for (output, weights) in weights.chunks_exact(160).enumerate() {
                    let exact: f64 = (weights.iter().zip(activations))
                        .map(|(w, x)| f64::from(*w) * f64::from(*x))
                        .sum();
                    let error = (f64::from(product[row * 70 + output]) - exact).abs();
                    assert!(error < 1e-4, "{kind:?} {rows} rows: off by {error}");
                }
            }
        }
    }
}

#[test]
fn a_row_is_bitwise_the_same_in_every_batch() {
    let mut dice = Dice::keyed(3, "blocked");
    let (matrix, _) = matrix(&mut dice, GgmlDType::Q4_1, 100, 576);
    let input = random(&mut dice, 13 * 576);
    let alone: Vec<Vec<u32>> = (input.chunks_exact(576))
        .map(|row| matrix.multiply(row).iter().map(|value| value.to_bits()).collect())
        .collect();
    for rows in 1..=13 {
        let together = matrix.multiply(&input[..rows * 576]);
        for (row, values) in together.chunks_exact(100).enumerate() {
            let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, alone[row], "row {row} of {rows}");
        }
    }
}

#[test]
fn vectors_and_single_numbers_give_the_same_bits() {
    let mut dice = Dice::keyed(4, "blocked");
    let (matrix, _) = matrix(&mut dice, GgmlDType::Q5_1, 40, 320);
    let input = random(&mut dice, 3 * 320);
    let fast = matrix.multiply(&input);
    for (row, activations) in input.chunks_exact(320).enumerate() {
        for output in 0..40 {
            let (blocks, scales) = matrix.row(output).expect("a row");
            let [sums] = plain::<1>(blocks, scales, activations);
            let pairs: [f32; 4] = std::array::from_fn(|lane| sums[lane] + sums[lane + 4]);
            let slow = (pairs[0] + pairs[2]) + (pairs[1] + pairs[3]);
            assert_eq!(slow.to_bits(), fast[row * 40 + output].to_bits());
        }
    }
}

#[test]
fn halves_are_converted_exactly() {
    for (half, single) in [
        (0x0000, 0.0),
        (0x0001, 5.960_464_5e-8),
        (0x03ff, 6.097_555e-5),
        (0x3c00, 1.0),
        (0xc000, -2.0),
        (0x7bff, 65504.0),
        (0x7c00, f32::INFINITY),
    ] {
        assert_eq!(from_half(half), single);
    }
    assert!(from_half(0x7e00).is_nan());
}

#[test]
fn bytes_that_do_not_fit_the_shape_are_refused() {
    assert!(Blocked::unpack(&[(GgmlDType::Q4_1, 2, vec![0; 20])], 32).is_err());
    assert!(Blocked::unpack(&[(GgmlDType::Q4K, 1, vec![0; 144])], 256).is_err());
}
