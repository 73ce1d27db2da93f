//! Qwen 3 as its paper defines it, in plain loops over f32: what the kernels are measured against.
//!
//! Shares nothing with the code under test but the file's numbers (Qwen Team, 2025).

use crate::testing::Writer;

/// Heads of the tiny model: more than one for each head of keys.
const HEADS: usize = 4;
/// Heads of keys: more than one, so that a wrong one is noticed.
const KEY_HEADS: usize = 2;
/// Width of a head: no even share of the model's width.
const DIM: usize = 12;
/// What the tiny model's file says.
const EPSILON: f32 = 1e-5;

/// The logits after each token.
pub(crate) fn qwen3(model: &Writer, tokens: &[u32]) -> Vec<Vec<f32>> {
    let embedding = model.values("token_embd.weight");
    let row = |&token: &u32| embedding[token as usize * Writer::WIDTH..][..Writer::WIDTH].to_vec();
    let mut rows: Vec<Vec<f32>> = tokens.iter().map(row).collect();
    for layer in 0..2 {
        let of = |part: &str| model.values(&format!("blk.{layer}.{part}.weight"));
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (position, x) in rows.iter_mut().enumerate() {
            let input = norm(x, of("attn_norm"));
            let turned = |part: &str| {
                let all = times(of(&format!("attn_{part}")), &input);
                let heads = all
                    .chunks(DIM)
                    .map(|head| rotate(&norm(head, of(&format!("attn_{part}_norm"))), position));
                heads.collect::<Vec<_>>()
            };
            let queries = turned("q");
            keys.push(turned("k"));
            values.push(times(of("attn_v"), &input));
            let mut seen = Vec::new();
            for (head, query) in queries.iter().enumerate() {
                let shared = head / (HEADS / KEY_HEADS);
                let scores = keys.iter().map(|keys| dot(query, &keys[shared]));
                let weights: Vec<f32> =
                    scores.map(|score| (score / (DIM as f32).sqrt()).exp()).collect();
                let sum: f32 = weights.iter().sum();
                for at in 0..DIM {
                    let parts = weights.iter().zip(&values);
                    let mixed = parts.map(|(weight, value)| weight * value[shared * DIM + at]);
                    seen.push(mixed.sum::<f32>() / sum);
                }
            }
            add(x, &times(of("attn_output"), &seen));
            let input = norm(x, of("ffn_norm"));
            let gate = times(of("ffn_gate"), &input).into_iter();
            let gated = gate.zip(times(of("ffn_up"), &input));
            let gated: Vec<f32> =
                gated.map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
            add(x, &times(of("ffn_down"), &gated));
        }
    }
    let output = model.values("output.weight");
    rows.iter().map(|x| times(output, &norm(x, model.values("output_norm.weight")))).collect()
}

fn norm(x: &[f32], weights: &[f32]) -> Vec<f32> {
    let factor = 1.0 / (dot(x, x) / x.len() as f32 + EPSILON).sqrt();
    x.iter().zip(weights).map(|(number, weight)| number * factor * weight).collect()
}

/// Each dimension turns with the one half a head further.
fn rotate(head: &[f32], position: usize) -> Vec<f32> {
    let half = DIM / 2;
    let angle =
        |at: usize| position as f32 * 10_000f32.powf(-2.0 * (at % half) as f32 / DIM as f32);
    let turned = (0..DIM).map(|at| match head.get(at + half) {
        Some(other) => head[at] * angle(at).cos() - other * angle(at).sin(),
        None => head[at] * angle(at).cos() + head[at - half] * angle(at).sin(),
    });
    turned.collect()
}

fn times(matrix: &[f32], input: &[f32]) -> Vec<f32> {
    matrix.chunks(input.len()).map(|row| dot(row, input)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f32], more: &[f32]) {
    x.iter_mut().zip(more).for_each(|(number, more)| *number += more);
}
