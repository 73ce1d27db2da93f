//! Tests on the default model: they need its file, and say how to get it when it is missing.

use std::path::{Path, PathBuf};

use selvedge_engine::Tunable;

use crate::testing::Folder;
use crate::{Local, Plan, Source, Target, Texts, TrainError, Tuner, Tuning};

fn model() -> PathBuf {
    let directory = std::env::var_os("SELVEDGE_TEST_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.models")),
        PathBuf::from,
    );
    let path = directory.join("smollm2-135m-instruct.gguf");
    assert!(path.is_file(), "{} is missing: run `cargo xtask models`", path.display());
    path
}

/// Parts of real texts, one for each client.
const TEXTS: [&str; 3] = ["LICENSE", "ARCHITECTURE.md", "docs/federated.md"];

/// Three clients, each with a text of its own, go a few steps and average what they learned: every
/// one of them foretells better what it held out, by the mean and not by its own.
#[test]
fn a_few_steps_on_real_text_lower_the_loss_at_every_client() -> Result<(), TrainError> {
    let file = model();
    let tuning = Tuning {
        base: "smollm2-135m-instruct".to_owned(),
        digest: *blake3::hash(&std::fs::read(&file).expect("a file")).as_bytes(),
        shape: Tunable::open(&file)?.shape().into(),
        rank: 8,
        alpha: 16,
        targets: vec![Target::Q, Target::V],
        window: 32,
        seed: 1,
    };
    assert_eq!(tuning.size()?, 184_320);
    let (local, tuner) = (Local::new()?, Tuner::open(&file, &tuning)?);
    let folder = Folder::new();
    let mut clients = Vec::new();
    for (at, name) in TEXTS.iter().enumerate() {
        let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
        let text = std::fs::read(&text).expect("a text of the repository");
        let path = folder.write(&format!("{at}.txt"), &text);
        let all = tuner.read(&Source::Text(Texts { path }))?;
        assert!(all.len() >= 9, "{name} has {} windows", all.len());
        clients.push((all.pick(&[0, 1, 3, 4, 6, 7]), all.pick(&[2, 5, 8])));
    }
    let base = vec![0.0; tuning.size()?];
    let plan = Plan { epochs: 2, batch: 2, learning_rate: 0.2, proximal: 0.0, seed: 1 };
    let (mut sum, mut before) = (base.clone(), Vec::new());
    for (train, held_out) in &clients {
        before.push(tuner.measure(&local, &base, held_out)?.loss);
        let update = tuner.train(&local, &base, train, &plan, None)?;
        sum.iter_mut().zip(&update.delta).for_each(|(sum, delta)| *sum += delta / 3.0);
    }
    for ((_, held_out), before) in clients.iter().zip(before) {
        let after = tuner.measure(&local, &sum, held_out)?.loss;
        assert!(after < before - 0.005, "{before} {after}");
    }
    Ok(())
}
