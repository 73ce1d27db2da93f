#![allow(clippy::unwrap_used)]

use selvedge_federated::robust::Rule;
use selvedge_federated::round::Mode;
use selvedge_federated::server::Strategy;

use super::*;
use crate::scratch::Scratch;

/// Files of a job of three rounds, whose anchors were replaced after the first.
fn golden(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../actors/runtime/src/federated/golden");
    Path::new(folder).join(name)
}

fn options(model: PathBuf) -> cli::FedVerify {
    cli::FedVerify { model, chain: None, contributions: false, json: false }
}

fn refusal(options: &cli::FedVerify) -> String {
    format!("{:#}", proven(options).unwrap_err())
}

#[test]
fn a_model_is_proven_by_the_chain_beside_it() {
    let Proven { model, verified, each } = proven(&options(golden("small.safetensors"))).unwrap();
    assert_eq!(each, None);
    let said = told(&model, &verified);
    let job = hex(&verified.told.job.digest());
    for part in ["proven: ", "'small'", "3, all of the job", &job, "5, from round 2 on"] {
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
    // Made when a sum was of as many parts as tell it.
    assert_eq!(json["unchecked_rounds"], 3);
    assert!(said.contains("3 of 3 rounds: no more parts"), "{said}");
    assert_eq!((&json["rule"], &json["groups"]), (&"mean".into(), &1.into()));
    let mut checked = Verified { unchecked: 0, ..verified };
    assert!(!told(&model, &checked).contains("not checked"));
    assert_eq!(as_json(&model, &checked)["unchecked_rounds"], 0);
    checked.told.job.mode = Mode::Plain(Rule::MultiKrum { byzantine: 1, keep: 3 });
    checked.told.job.strategy = Strategy::Scaffold { clients: 4 };
    let said = told(&model, &checked);
    assert!(said.contains("SCAFFOLD, rule multi-Krum (byzantine 1, keep 3)"), "{said}");
    let json = as_json(&model, &checked);
    assert_eq!(json["rule"], "multi-Krum (byzantine 1, keep 3)");
    assert_eq!(json["strategy"], "SCAFFOLD");
    verify(&options(golden("small.safetensors"))).unwrap();
}

#[test]
fn every_contribution_is_listed_when_asked_for() {
    let options = cli::FedVerify { contributions: true, ..options(golden("small.safetensors")) };
    let Proven { verified, each, .. } = proven(&options).unwrap();
    let each = each.unwrap();
    assert_eq!(each.len() as u64, verified.counted.values().sum::<u64>() + verified.expired);
    assert!(verified.left_out.is_empty());
    let first = recorded(&each[0]);
    assert_eq!((&first["round"], &first["number"]), (&0.into(), &1.into()));
    assert!(first["weight"].as_u64() >= Some(1) && first["expired"].is_null(), "{first}");
    assert_eq!(first["node"], each[0].id.client.node.to_string());
    assert_eq!(first["client"].as_str().unwrap().len(), 16);
    let gone = Settled { fate: Fate::Expired(Why::Reconfigured), ..each[0] };
    assert_eq!(recorded(&gone)["expired"], "reconfigured");
    assert!(recorded(&gone)["weight"].is_null());
    let out = Settled { fate: Fate::LeftOut, ..each[0] };
    assert!(recorded(&out)["left_out"] == true && recorded(&gone)["left_out"] == false);
    let rows = listed(&[each[0], gone, out]);
    assert_eq!(rows[3][3], "left out");
    assert_eq!((rows[0].len(), rows[1].len()), (6, 6));
    assert_eq!((rows[1][0].as_str(), rows[2][3].as_str()), ("1", "expired: reconfigured"));
    verify(&options).unwrap();
    verify(&cli::FedVerify { json: true, ..options }).unwrap();
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
    assert!(cut.contains("is NOT proven by") && cut.contains("middle of round 3"), "{cut}");
    let mut turned = bytes.clone();
    *turned.last_mut().unwrap() ^= 1;
    let turned = refusal(&with(&turned));
    assert!(turned.contains("round 3 does not follow"), "{turned}");
    let mut long = std::fs::read(&model).unwrap();
    long.resize(MAX_LEARNED_BYTES + 9, 0);
    std::fs::write(&model, long).unwrap();
    assert!(refusal(&with(&bytes)).contains("a file of a model has at most"));
}
