use std::path::PathBuf;

use super::*;
use crate::testing::{Folder, Writer};
use crate::{BaseShape, Target, Texts};

/// Text with something to learn for a model that reads single bytes.
const TEXT: &str =
    "a node that trains keeps what it trains on, and a node that was off catches up. ";

fn tuning(file: &Path, window: usize) -> Tuning {
    let shape: BaseShape = Tunable::open(file).expect("well formed").shape().into();
    Tuning {
        base: "tiny".to_owned(),
        digest: digest_of(file),
        shape,
        rank: 4,
        alpha: 8,
        targets: vec![Target::Q, Target::V, Target::O, Target::Up, Target::Down],
        window,
        seed: 3,
    }
}

fn digest_of(file: &Path) -> [u8; 32] {
    *blake3::hash(&std::fs::read(file).expect("a file")).as_bytes()
}

/// A tiny model and texts in one directory.
fn place() -> (Folder, PathBuf, Source) {
    let folder = Folder::new();
    let file = folder.write("tiny.gguf", &Writer::tiny(7).bytes());
    let path = folder.write("notes.txt", TEXT.repeat(8).as_bytes());
    (folder, file, Source::Text(Texts { path }))
}

fn plan() -> Plan {
    Plan { epochs: 2, batch: 4, learning_rate: 0.05, proximal: 0.0, seed: 1 }
}

#[test]
fn windows_follow_each_other_and_share_a_token() {
    let tokens: Vec<u32> = (0..40).collect();
    let windows = Windows::cut(&tokens, 16);
    assert_eq!((windows.len(), windows.window(0).len()), (2, 17));
    assert_eq!((windows.window(0)[16], windows.window(1)[0]), (16, 16));
    assert_eq!(windows.pick(&[1]).window(0), windows.window(1));
    assert!(Windows::cut(&tokens[..16], 16).is_empty());
    assert_eq!(Windows::cut(&tokens[..17], 16).len(), 1);
}

#[test]
fn texts_are_cut_where_lines_end_and_nothing_is_lost() {
    let long = format!("{}\n", "ä".repeat(20_000)).repeat(5);
    let parts = pieces(&long);
    assert_eq!(parts.concat(), long);
    assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= PIECE));
    assert!(parts[0].ends_with('\n'));
    let whole = "ä".repeat(60_000);
    assert_eq!(pieces(&whole).concat(), whole);
}

#[test]
fn steps_lower_the_loss_and_repeat() -> Result<(), TrainError> {
    let (_folder, file, source) = place();
    let (local, tuner) = (Local::new()?, Tuner::open(&file, &tuning(&file, 32))?);
    let data = tuner.read(&source)?;
    let base = vec![0.0; tuner.tuning.size()?];
    let before = tuner.measure(&local, &base, &data)?;
    let update = tuner.train(&local, &base, &data, &plan(), None)?;
    let again = tuner.train(&local, &base, &data, &plan(), None)?;
    assert_eq!(update.delta, again.delta);
    assert_eq!((update.examples, update.steps), (data.len(), 2 * data.len().div_ceil(4)));
    let after = tuner.measure(&local, &update.delta, &data)?;
    assert_eq!(before.tokens, data.len() * 32);
    assert!(after.loss < before.loss - 0.1, "{before:?} {after:?}");
    assert!(tuner.held.lock().expect("not poisoned").upgrade().is_none(), "weights are let go");
    Ok(())
}

/// One step of the whole way against differences of the loss that is measured.
#[test]
fn a_step_goes_down_the_measured_loss() -> Result<(), TrainError> {
    let (_folder, file, source) = place();
    let (local, tuner) = (Local::new()?, Tuner::open(&file, &tuning(&file, 16))?);
    let data = tuner.read(&source)?.pick(&[0, 3]);
    let size = tuner.tuning.size()?;
    let base: Vec<f32> = (0..size).map(|at| (at * 13 % 7) as f32 * 0.01 - 0.03).collect();
    let plan = Plan { epochs: 1, batch: 2, learning_rate: 1.0, ..plan() };
    let update = tuner.train(&local, &base, &data, &plan, None)?;
    let largest = update.delta.iter().fold(0.0_f32, |most, one| most.max(one.abs()));
    let step = 2e-2_f32;
    for at in (0..size).step_by(size / 12) {
        let moved = |by: f32| -> Result<f64, TrainError> {
            let mut weights = base.clone();
            weights[at] += by;
            Ok(tuner.measure(&local, &weights, &data)?.loss)
        };
        let slope = (moved(step)? - moved(-step)?) / (2.0 * f64::from(step));
        let off = (slope + f64::from(update.delta[at])).abs();
        assert!(off < 0.03 * f64::from(largest), "{at}: {slope} {}", update.delta[at]);
    }
    Ok(())
}

/// With frozen A, adding the mean of the B is adding the mean of what each client would.
#[test]
fn a_mean_of_updates_is_the_update_of_the_mean() -> Result<(), TrainError> {
    let (_folder, file, source) = place();
    let (local, tuner) = (Local::new()?, Tuner::open(&file, &tuning(&file, 16))?);
    let data = tuner.read(&source)?;
    let base = vec![0.0; tuner.tuning.size()?];
    let parts = [data.pick(&[0, 1]), data.pick(&[2, 3])];
    let deltas = parts.iter().map(|part| tuner.train(&local, &base, part, &plan(), None));
    let deltas = deltas.collect::<Result<Vec<_>, _>>()?;
    let mean: Vec<f32> =
        deltas[0].delta.iter().zip(&deltas[1].delta).map(|(a, b)| f32::midpoint(*a, *b)).collect();
    let place = tuner.tuning.places()?[0];
    let a = Tensor::from_slice(&tuner.tuning.frozen()?[0], (4, place.inputs), &Device::Cpu)?;
    let product = |b: &[f32]| -> Result<Vec<f32>, TrainError> {
        let b = Tensor::from_slice(&b[..place.outputs * 4], (place.outputs, 4), &Device::Cpu)?;
        Ok(b.matmul(&a)?.flatten_all()?.to_vec1()?)
    };
    let (one, two) = (product(&deltas[0].delta)?, product(&deltas[1].delta)?);
    for (of_mean, (one, two)) in product(&mean)?.iter().zip(one.iter().zip(&two)) {
        assert!((of_mean - f32::midpoint(*one, *two)).abs() < 1e-6);
    }
    Ok(())
}

#[test]
fn strategies_pull_on_what_is_learned() -> Result<(), TrainError> {
    let (_folder, file, source) = place();
    let (local, tuner) = (Local::new()?, Tuner::open(&file, &tuning(&file, 16))?);
    let data = tuner.read(&source)?.pick(&[0, 1, 2, 3]);
    let base = vec![0.0; tuner.tuning.size()?];
    let length = |plan: &Plan| -> Result<f32, TrainError> {
        let update = tuner.train(&local, &base, &data, plan, None)?;
        Ok(update.delta.iter().map(|one| one * one).sum())
    };
    let many = Plan { epochs: 6, ..plan() };
    assert!(length(&Plan { proximal: 10.0, ..many })? < 0.9 * length(&many)?);
    let zeros = vec![0.0; base.len()];
    let control = Control { global: &zeros, own: &zeros };
    let update = tuner.train(&local, &base, &data, &plan(), Some(control))?;
    assert_eq!(update.control.map(|control| control.len()), Some(base.len()));
    Ok(())
}

#[test]
fn what_cannot_be_tuned_is_refused() -> Result<(), TrainError> {
    let (folder, file, source) = place();
    let (local, good) = (Local::new()?, tuning(&file, 16));
    let tuner = Tuner::open(&file, &good)?;
    let other = Tuning { shape: BaseShape { layers: 3, ..good.shape }, ..good.clone() };
    let told = Tuner::open(&file, &other).err().map(|error| error.to_string());
    assert!(told.unwrap_or_default().contains("not those of the file"));
    let path = folder.write("short.txt", b"too short");
    let told = tuner.read(&Source::Text(Texts { path })).err().map(|error| error.to_string());
    assert!(told.unwrap_or_default().contains("one window takes 17"));
    let data = tuner.read(&source)?;
    let base = vec![0.0; good.size()?];
    assert!(tuner.train(&local, &base[1..], &data, &plan(), None).is_err());
    let wild = Plan { learning_rate: 1e30, ..plan() };
    let told = tuner.train(&local, &base, &data, &wild, None);
    assert!(matches!(told, Err(TrainError::Diverged { .. })), "{told:?}");
    Ok(())
}

#[test]
fn a_file_that_was_replaced_is_not_tuned() -> Result<(), TrainError> {
    let (folder, file, source) = place();
    let (local, tuner) = (Local::new()?, Tuner::open(&file, &tuning(&file, 16))?);
    let data = tuner.read(&source)?;
    let base = vec![0.0; tuner.tuning.size()?];
    tuner.measure(&local, &base, &data)?;
    // Of the same shape, with other weights.
    folder.write("tiny.gguf", &Writer::tiny(8).bytes());
    let said = |error: TrainError| error.to_string();
    let trained = tuner.train(&local, &base, &data, &plan(), None).map_err(said);
    assert!(trained.is_err_and(|why| why.contains("not the file any more")));
    assert!(tuner.measure(&local, &base, &data).is_err());
    folder.write("tiny.gguf", &Writer::tiny(7).bytes());
    tuner.measure(&local, &base, &data).map(drop)
}

/// Training that would take hours ends at its next window.
#[test]
fn what_nobody_wants_any_more_ends() -> Result<(), TrainError> {
    let (_folder, file, source) = place();
    let (local, tuner) = (Local::new()?, Tuner::open(&file, &tuning(&file, 16))?);
    let data = tuner.read(&source)?;
    let base = vec![0.0; tuner.tuning.size()?];
    let (local, begun) = (&local, std::sync::Barrier::new(2));
    let hours = Plan { epochs: 1_000, ..plan() };
    std::thread::scope(|scope| {
        let training = scope.spawn(|| {
            begun.wait();
            tuner.train(local, &base, &data, &hours, None)
        });
        begun.wait();
        // Once it has the weights it is among its steps.
        let has_weights = || tuner.held.lock().expect("not poisoned").upgrade().is_some();
        while !has_weights() && !training.is_finished() {
            std::thread::yield_now();
        }
        tuner.stop();
        let ended = training.join().expect("it does not panic");
        assert!(matches!(ended, Err(TrainError::Stopped)), "{ended:?}");
    });
    assert!(matches!(tuner.measure(local, &base, &data), Err(TrainError::Stopped)));
    Ok(())
}
