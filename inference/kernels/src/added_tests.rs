use super::*;
use crate::simd::Isa;
use crate::simd::tests::Dice;

fn draw(dice: &mut Dice, count: usize) -> Vec<f32> {
    (0..count).map(|_| dice.unit()).collect()
}

/// Rows of a batch, rounded, as the step lays them out; and what they are rounded to.
fn rounded(isa: Isa, rows: &[Vec<f32>]) -> (Vec<Act>, Vec<Vec<f32>>) {
    let depth = rows[0].len().div_ceil(BLOCK);
    let mut acts = vec![Act::default(); depth * rows.len()];
    for (row, numbers) in rows.iter().enumerate() {
        for (block, numbers) in numbers.chunks(BLOCK).enumerate() {
            let mut halves = [[0.0; LANES]; 2];
            halves.as_flattened_mut()[..numbers.len()].copy_from_slice(numbers);
            let out = std::slice::from_mut(&mut acts[block * rows.len() + row]);
            isa.run(crate::rows::RoundPlain { values: &[halves], out });
        }
    }
    let number = |row: usize, at: usize| {
        let act = &acts[at / BLOCK * rows.len() + row];
        let byte = act.words[at % BLOCK / 4].to_le_bytes()[at % 4] as i8;
        f32::from(byte) * act.scale
    };
    let seen = (0..rows.len()).map(|row| (0..rows[0].len()).map(|at| number(row, at)).collect());
    let seen = seen.collect();
    (acts, seen)
}

#[test]
fn what_is_added_is_scale_times_b_times_a_times_x_on_every_processor() {
    for (rank, inputs, outputs) in [(1, 40, 24), (8, 64, 16), (16, 33, 50)] {
        let mut dice = Dice(7);
        let (a, b) = (draw(&mut dice, rank * inputs), draw(&mut dice, outputs * rank));
        let rows: Vec<Vec<f32>> = (0..3).map(|_| draw(&mut dice, inputs)).collect();
        let before = draw(&mut dice, outputs);
        let low_rank = LowRank::pack(rank, &a, &b, 2.0).expect("packs");
        let mut first: Option<Vec<u32>> = None;
        for isa in Isa::available() {
            let (acts, seen) = rounded(isa, &rows);
            let mut all = Vec::new();
            for (row, x) in seen.iter().enumerate() {
                let mut low = [0.0; LANES];
                let rows = rows.len();
                isa.run(Lower { low_rank: &low_rank, acts: &acts, rows, row, out: &mut low });
                let mut out: Vec<Floats> = before
                    .chunks(LANES)
                    .map(|part| std::array::from_fn(|at| part.get(at).copied().unwrap_or(0.0)))
                    .collect();
                for (height, out) in out.iter_mut().enumerate() {
                    isa.run(Raise { low: Low { low_rank: &low_rank, low: &low }, height, out });
                }
                for (output, ours) in out.concat().iter().take(outputs).enumerate() {
                    let added: f32 = (0..rank)
                        .map(|at| {
                            let a = &a[at * inputs..][..inputs];
                            let low: f32 = a.iter().zip(x).map(|(a, x)| a * x).sum();
                            2.0 * b[output * rank + at] * low
                        })
                        .sum();
                    let off = (ours - before[output] - added).abs();
                    assert!(off < 1e-5, "{rank} {row} {output}: off by {off}");
                }
                all.extend(out.concat().into_iter().map(f32::to_bits));
            }
            assert!(*first.get_or_insert_with(|| all.clone()) == all, "{}", isa.name());
        }
    }
}

#[test]
fn what_is_no_pair_of_matrices_is_refused() {
    let mut added = Additions::new(2);
    let numbers = vec![0.5; 17 * 8];
    let (a, b) = (&numbers[..], &numbers[..]);
    for (rank, a, b) in [(0, a, b), (17, a, b), (3, a, b), (8, &a[..0], b), (8, a, &b[..0])] {
        assert!(added.add((0, Part::Up), rank, (a, b), 1.0).is_err(), "{rank}");
    }
    assert!(added.add((2, Part::Up), 8, (a, b), 1.0).is_err(), "there is no third layer");
    assert_eq!(added.bytes(), 0);
    added.add((1, Part::Up), 8, (a, b), 1.0).expect("fits");
    // One block of inputs, two tiles of eight ranks, sixteen floats each.
    assert_eq!(added.bytes(), (32 + 16) * 64);
}
