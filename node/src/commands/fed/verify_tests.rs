#![allow(clippy::unwrap_used)]

use super::*;
use crate::scratch::Scratch;

/// Files of a job of three rounds, whose anchors were replaced after the first.
fn golden(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../actors/runtime/src/federated/golden");
    Path::new(folder).join(name)
}

fn options(model: PathBuf) -> cli::FedVerify {
    cli::FedVerify { model, chain: None, json: false }
}

fn refusal(options: &cli::FedVerify) -> String {
    format!("{:#}", proven(options).unwrap_err())
}

#[test]
fn a_model_is_proven_by_the_chain_beside_it() {
    let (model, verified) = proven(&options(golden("small.safetensors"))).unwrap();
    let said = told(&model, &verified);
    let job = hex(&verified.told.job.digest());
    for part in ["proven: ", "'small'", "3, all of the job", &job, "5, from round 1 on"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let json = as_json(&model, &verified);
    assert_eq!(
        (&json["proven"], &json["rounds"], &json["name"]),
        (&true.into(), &3.into(), &"small".into())
    );
    assert_eq!(json["job"], job);
    assert_eq!(json["anchors"][1]["from_round"], 1);
    assert_eq!(json["anchors"][1]["nodes"].as_array().unwrap().len(), 5);
    let counted = json["contributions"].as_array().unwrap().iter();
    let sum: u64 = counted.map(|one| one["contributions"].as_u64().unwrap()).sum();
    assert_eq!(sum, verified.counted.values().sum::<u64>());
    assert!(sum >= 12, "three rounds of four nodes at least");
    verify(&options(golden("small.safetensors"))).unwrap();
}

#[test]
fn what_is_not_proven_is_said_with_the_files_and_the_reason() {
    let scratch = Scratch::new("verify");
    let at = |name: &str| scratch.path().join(name);
    let (model, chain) = (at("m.safetensors"), at("other.chain"));
    assert!(refusal(&options(model.clone())).contains("cannot read"));
    std::fs::write(&model, b"{}").unwrap();
    assert!(refusal(&options(model.clone())).contains("is no model of a job: the model file: "));
    std::fs::copy(golden("small.safetensors"), &model).unwrap();
    let alone = refusal(&options(model.clone()));
    assert!(alone.contains("m.chain; --chain names another file"), "{alone}");
    let bytes = std::fs::read(golden("small.chain")).unwrap();
    let with = |bytes: &[u8]| {
        std::fs::write(&chain, bytes).unwrap();
        cli::FedVerify { chain: Some(chain.clone()), ..options(model.clone()) }
    };
    assert!(proven(&with(&bytes)).is_ok());
    let cut = refusal(&with(&bytes[..bytes.len() - 1]));
    assert!(cut.contains("is NOT proven by") && cut.contains("middle of round 2"), "{cut}");
    let mut turned = bytes.clone();
    *turned.last_mut().unwrap() ^= 1;
    let turned = refusal(&with(&turned));
    assert!(turned.contains("round 2 (the first is 0) does not follow"), "{turned}");
    let mut long = std::fs::read(&model).unwrap();
    long.resize(MAX_LEARNED_BYTES + 9, 0);
    std::fs::write(&model, long).unwrap();
    assert!(refusal(&with(&bytes)).contains("a file of a model has at most"));
}
