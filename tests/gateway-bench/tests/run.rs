//! A short run of the whole: mock upstream, load generator and floor as real processes.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_run_ends_with_one_object_that_claims_nothing_it_did_not_measure() {
    let output = Command::new(env!("CARGO_BIN_EXE_bench-gateway"))
        .args(["--quick", "--fair", "--json", "--only", "floor", "--scenario", "translate"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let figure = |name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("no {name}: {text}"));
    assert_eq!(figure("floor_translate_bad"), 0.0);
    assert_eq!(figure("floor_translate_stranger_status"), 401.0);
    assert!(figure("floor_translate_cpu_us") > 1.0 && figure("floor_translate_per_s") > 1.0);
    let missed = figures["missed"].as_array().unwrap();
    assert!(
        missed.contains(&"run_void".into()),
        "neither floor nor nginx were measured in json_1k"
    );
    assert!(missed.contains(&"selvedge_not_measured".into()));
    assert!(text.contains("THE RUN IS VOID"));
}

#[test]
fn unknown_words_are_refused_with_the_known_ones() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bench-gateway")).args(["--only", "apache"]).output();
    let output = output.unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("apache") && text.contains("nginx"), "{text}");
}
