use std::sync::atomic::AtomicU64;

use candle_core::Var;
use selvedge_base::Dice;

use super::*;
use crate::kv::KvCache;
use crate::llama::Logits;
use crate::tensors;
use crate::testing::{Temporary, Writer, temporary};

fn tokens() -> Vec<u32> {
    (0..40).map(|index| index * 37 % 256).collect()
}

fn family(name: &str) -> Temporary {
    let mut writer = Writer::tiny(7);
    match name {
        "qwen2" => writer.become_qwen2(7),
        "qwen3" => writer.become_qwen3(7),
        "tied" => writer = writer.without("output.weight"),
        _ => {}
    }
    temporary(&writer.bytes())
}

/// What the engine's own pass makes of the same file.
fn engines(path: &Path, tokens: &[u32]) -> Vec<Vec<f32>> {
    let gguf = Gguf::open(path).expect("well formed");
    let model = tensors::Llama::load(&gguf, &Device::Cpu, &|| ()).expect("loads");
    let mut cache: KvCache = model.cache().expect("a cache");
    let segment = tensors::Segment { cache: &mut cache, tokens, logits: Logits::All };
    model.step(&mut [segment], &AtomicU64::new(0)).expect("computes").remove(0)
}

fn relative(ours: &Tensor, theirs: &[Vec<f32>]) -> f64 {
    let ours = ours.flatten_all().and_then(|all| all.to_vec1::<f32>()).expect("numbers");
    let theirs = theirs.iter().flatten();
    assert_eq!(ours.len(), theirs.clone().count());
    let pairs = ours.iter().zip(theirs).map(|(ours, theirs)| (f64::from(*ours), *theirs));
    let (error, size) = pairs.fold((0.0, 0.0), |(error, size), (ours, theirs)| {
        let theirs = f64::from(theirs);
        (error + (ours - theirs).powi(2), size + theirs.powi(2))
    });
    (error / size).sqrt()
}

/// Something small at every projection, all of it different.
fn additions(shape: &TunableShape, rank: usize) -> (Additions, Vec<Var>) {
    let mut dice = Dice::keyed(3, "additions");
    let mut draw = |rows: usize, columns: usize| {
        let numbers = (0..rows * columns).map(|_| (dice.unit_f32() - 0.5) * 0.4).collect();
        Tensor::from_vec(numbers, (rows, columns), &Device::Cpu).expect("a matrix")
    };
    let (mut added, mut learned) = (Additions::new(), Vec::new());
    for layer in 0..shape.layers {
        for which in Projection::ALL {
            let (outputs, inputs) = which.sides(shape);
            let b = Var::from_tensor(&draw(outputs, rank)).expect("a variable");
            let (a, held) = (draw(rank, inputs), b.as_tensor().clone());
            added.insert((layer, which), LowRank { a, b: held, scale: 0.5 });
            learned.push(b);
        }
    }
    (added, learned)
}

#[test]
fn all_families_compute_what_the_engine_computes() {
    for name in ["llama", "tied", "qwen2", "qwen3"] {
        let file = family(name);
        let decoder = Tunable::open(file.path()).and_then(|file| file.load()).expect("loads");
        let logits = decoder.logits(&tokens(), &Additions::new()).expect("computes");
        let off = relative(&logits, &engines(file.path(), &tokens()));
        assert!(off < 1e-5, "{name}: off by {off}");
    }
}

/// Adding B · A is adding it to the matrix, also where the file has rows in another order.
#[test]
fn an_addition_is_as_if_the_matrix_had_it() {
    for name in ["llama", "qwen2"] {
        let file = family(name);
        let tunable = Tunable::open(file.path()).expect("well formed");
        let (added, _) = additions(&tunable.shape(), 2);
        let mut decoder = tunable.load().expect("loads");
        let beside = decoder.logits(&tokens(), &added).expect("computes");
        for (&(layer, which), LowRank { a, b, scale }) in &added {
            let whole = decoder.blocks[layer].weights.get_mut(&which).expect("a projection");
            let more = (b.matmul(a).expect("fits") * *scale).expect("fits");
            *whole = (&*whole + more).expect("fits").detach();
        }
        let within = decoder.logits(&tokens(), &Additions::new()).expect("computes");
        let rows = within.to_vec2::<f32>().expect("rows");
        let off = relative(&beside, &rows);
        assert!(off < 1e-5, "{name}: off by {off}");
        let without = engines(file.path(), &tokens());
        assert!(relative(&beside, &without) > 0.1, "it changes what comes out");
    }
}

/// Rows of llama's files and of the models that they come from, worked out by hand.
#[test]
fn rows_that_turn_together_are_put_half_a_head_apart() {
    let rows: Vec<f32> = (0..8).map(|row| row as f32).collect();
    let file = Tensor::from_vec(rows, (8, 1), &Device::Cpu).expect("a matrix");
    let model = unpaired(&file, 2).and_then(|rows| rows.flatten_all()).expect("a matrix");
    assert_eq!(model.to_vec1::<f32>().expect("rows"), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
}

/// Against differences of the function itself, at every projection of every layer.
#[test]
fn gradients_are_those_of_the_function() {
    let tokens: Vec<u32> = tokens().into_iter().take(6).collect();
    for name in ["llama", "tied", "qwen2", "qwen3"] {
        let file = family(name);
        let tunable = Tunable::open(file.path()).expect("well formed");
        let decoder = tunable.load().expect("loads");
        let (added, learned) = additions(&tunable.shape(), 2);
        // A function of the logits that looks at all of them, and differently.
        let value = |added: &Additions| {
            let logits = decoder.logits(&tokens, added).expect("computes");
            let bent = (logits * 0.1).and_then(|logits| logits.tanh()).expect("computes");
            let weigh = (0..bent.elem_count()).map(|at| (at * 31 % 17) as f32 / 17.0 - 0.4);
            let weigh = Tensor::from_vec(weigh.collect(), bent.dims(), &Device::Cpu);
            (bent * weigh.expect("fits")).and_then(|all| all.sum_all()).expect("computes")
        };
        let gradients = value(&added).backward().expect("differentiable");
        let mut compared = 0;
        for (&place, b) in added.keys().zip(&learned) {
            let gradient = gradients.get(b).expect("a gradient of every B");
            let gradient = gradient.flatten_all().and_then(|all| all.to_vec1::<f32>());
            let gradient = gradient.expect("numbers");
            let largest = gradient.iter().fold(0.0_f32, |most, one| most.max(one.abs()));
            for at in [0, gradient.len() / 2, gradient.len() - 1] {
                let moved = |by: f32| {
                    let mut numbers: Vec<f32> =
                        b.flatten_all().and_then(|all| all.to_vec1()).expect("numbers");
                    numbers[at] += by;
                    let mut added = added.clone();
                    let held = added.get_mut(&place).expect("it is there");
                    held.b = Tensor::from_vec(numbers, b.dims(), &Device::Cpu).expect("fits");
                    value(&added).to_scalar::<f32>().expect("a number")
                };
                let step = 4e-3;
                let difference = (moved(step) - moved(-step)) / (2.0 * step);
                let off = (difference - gradient[at]).abs();
                let allowed = 0.02 * largest.max(0.05);
                assert!(off < allowed, "{name} {place:?} {at}: {difference} {}", gradient[at]);
                compared += 1;
            }
        }
        assert_eq!(compared, 2 * 7 * 3);
        assert!(gradients.get(&decoder.head).is_none(), "what is frozen has none");
    }
}

#[test]
fn a_family_without_a_pass_for_tuning_is_refused_by_name() {
    let mut writer = Writer::tiny(7);
    writer.become_gemma3(7);
    let said = Tunable::open(temporary(&writer.bytes()).path()).err().expect("refused");
    assert!(said.to_string().contains("gemma3 are not tuned here; llama"), "{said}");
}

#[test]
fn what_is_no_model_or_too_large_is_refused() {
    assert!(Tunable::open(temporary(b"GGUF").path()).is_err());
    let file = family("llama");
    let tunable = Tunable::open(file.path()).expect("well formed");
    let decoder = tunable.load().expect("loads");
    assert!(decoder.logits(&[100_000], &Additions::new()).is_err(), "there is no such token");
    assert_eq!(tunable.end(), Some(Writer::END));
    assert_eq!(tunable.encode("ab").expect("tokens").len(), 2);
}
