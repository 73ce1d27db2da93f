use std::path::{Path, PathBuf};

use selvedge_base::Micros;
use selvedge_core::receive::MAX_DEADLINE;

use super::reference::fields;
use super::*;

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn written(text: &str) -> (crate::scratch::Scratch, PathBuf) {
    let scratch = crate::scratch::Scratch::new("config");
    let file = scratch.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    (scratch, file)
}

fn failure(result: anyhow::Result<Config>) -> String {
    format!("{:#}", result.map(|_| ()).unwrap_err())
}

#[test]
fn the_defaults_work() {
    let config = load(Path::new("/nonexistent/config.toml"), false, &Env::new(), |_| ()).unwrap();
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8420");
    assert!(!config.name.is_empty());
    assert!(config.mesh.mdns && config.mesh.rendezvous.is_none());
}

#[test]
fn flags_beat_the_environment_beats_the_file_beats_defaults() {
    let (_scratch, file) = written(
        "[api]\nlisten = '127.0.0.1:1'\nmax_requests = 1\n[node]\nname = 'file'\n\
         [mesh]\npeers = ['127.0.0.1:9']\n",
    );
    let env = env(&[
        ("SELVEDGE_API_LISTEN", "127.0.0.1:2"),
        ("SELVEDGE_NODE_NAME", "env"),
        ("SELVEDGE_MESH_MDNS", "off"),
        ("SELVEDGE_MESH_PEERS", "127.0.0.1:7, 127.0.0.1:8"),
        ("SELVEDGE_HOME", "/somewhere"),
    ]);
    let config = load(&file, true, &env, |raw| raw.node.name = "flag".to_owned()).unwrap();
    assert_eq!(config.name, "flag");
    assert_eq!(config.api.listen.port(), 2);
    assert_eq!(config.api.max_requests, 1);
    assert_eq!(config.api.max_body_bytes, 8 << 20);
    assert!(!config.mesh.mdns);
    assert_eq!(config.mesh.peers.len(), 2);
}

#[test]
fn what_is_unknown_is_named() {
    let (_scratch, file) = written("[api]\nlissten = '127.0.0.1:1'\n");
    let text = failure(load(&file, true, &Env::new(), |_| ()));
    assert!(text.contains("lissten") && text.contains("listen"), "{text}");
    let typo = env(&[("SELVEDGE_API_LISSTEN", "127.0.0.1:1")]);
    let text = failure(load(Path::new("/nonexistent"), false, &typo, |_| ()));
    assert!(text.contains("SELVEDGE_API_LISSTEN"), "{text}");
    let text = failure(load(Path::new("/nonexistent/x"), true, &Env::new(), |_| ()));
    assert!(text.contains("selvedge config defaults"), "{text}");
}

#[test]
fn every_number_is_bounded_and_the_error_says_by_what() {
    for field in fields().iter().filter(|field| field.default.is_integer()) {
        let maximum = field.maximum.unwrap_or_else(|| panic!("{} is unbounded", field.path()));
        let text = (maximum + 1).to_string();
        let over = env(&[(field.variable().as_str(), text.as_str())]);
        let error = failure(load(Path::new("/nonexistent"), false, &over, |_| ()));
        for part in [field.path(), text, maximum.to_string()] {
            assert!(error.contains(&part), "{error} does not say {part}");
        }
    }
}

#[test]
fn memory_that_nobody_names_is_the_machines_and_too_little_is_refused() {
    let (nowhere, key) = (Path::new("/nonexistent"), "SELVEDGE_ENGINE_MEMORY_BUDGET_BYTES");
    let said = |bytes: &str| load(nowhere, false, &env(&[(key, bytes)]), |_| ());
    let unsaid = load(nowhere, false, &Env::new(), |_| ()).unwrap();
    let memory = selvedge_runtime::Probe::here("").memory();
    let usual = selvedge_engine::EngineConfig::usual_budget(memory);
    assert_eq!(unsaid.engine.memory_budget_bytes, usual);
    assert_eq!(said("0").unwrap().budget, unsaid.budget);
    let named = said("16777216").unwrap();
    assert_eq!((named.engine.memory_budget_bytes, named.budget.bytes), (16 << 20, 16 << 20));
    let text = failure(said("16777215"));
    assert!(text.contains("memory_budget_bytes is '16777215'; allowed: 0, or 16777216"), "{text}");
}

#[test]
fn packed_copies_are_in_the_home_or_where_somebody_says_or_nowhere() {
    let scratch = crate::scratch::Scratch::new("config");
    let home = crate::home::Home::locate(Some(scratch.path())).unwrap();
    let nowhere = Path::new("/nonexistent");
    let keeping = |pairs: &[(&str, &str)]| {
        load(nowhere, false, &env(pairs), |_| ()).unwrap().packed.keeping(&home)
    };
    let (bytes, place) = ("SELVEDGE_ENGINE_PACKED_MAX_BYTES", "SELVEDGE_ENGINE_PACKED_DIR");
    let usual = keeping(&[]).unwrap();
    assert_eq!(usual.directory, scratch.path().join("packed"));
    assert_eq!(usual.max_bytes, 16 << 30);
    let told = keeping(&[(bytes, "7"), (place, "/shared")]).unwrap();
    assert_eq!((told.directory, told.max_bytes), (PathBuf::from("/shared"), 7));
    assert_eq!(keeping(&[(bytes, "0"), (place, "/shared")]), None);
}

#[test]
fn no_request_may_take_longer_than_peers_accept() {
    let fields = fields();
    let field = fields.iter().find(|field| field.path() == "api.request_timeout_s").unwrap();
    assert_eq!(Micros::secs(field.maximum.unwrap()), MAX_DEADLINE);
}

#[test]
fn all_problems_are_reported_together() {
    let (_scratch, file) = written(
        "[api]\nlisten = 'here'\nmax_requests = 0\n[engine]\ndevice = 'tpu'\n\
         [models]\nhub = 'ftp://x'\n[log]\nfilter = '=='\n",
    );
    let text = failure(load(&file, true, &Env::new(), |_| ()));
    for part in ["5 problems", "api.listen is 'here'", "1 to 65536", "tpu", "ftp://x", "log.filter"]
    {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn the_hubs_own_variables_are_honoured() {
    let hub = env(&[("HF_ENDPOINT", "http://127.0.0.1:1/"), ("HF_TOKEN", "hush")]);
    let config = load(Path::new("/nonexistent"), false, &hub, |_| ()).unwrap();
    assert_eq!(config.models.hub, "http://127.0.0.1:1");
    assert_eq!(config.models.hub_token.reveal(), Some("hush"));
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn the_printed_defaults_are_the_defaults_and_every_field_is_explained() {
    let raw: RawConfig = toml::from_str(&commented_defaults()).unwrap();
    assert_eq!(toml::to_string(&raw).unwrap(), toml::to_string(&RawConfig::default()).unwrap());
    let fields = fields();
    assert!(fields.len() >= 20, "only {} fields", fields.len());
    for field in fields {
        assert!(field.docs.len() > 10, "{} is not explained", field.path());
        assert!(markdown().contains(&field.variable()));
    }
    assert!(schema_json().contains("max_body_bytes"));
}

#[test]
fn opentelemetrys_own_variables_are_honoured_and_their_secrets_hidden() {
    let nowhere = Path::new("/nonexistent");
    assert!(load(nowhere, false, &Env::new(), |_| ()).unwrap().telemetry.is_none());
    let mut variables = env(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=hush%20now, x=1"),
        ("OTEL_SERVICE_NAME", "gate"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=a%2Cb,empty="),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
    ]);
    let config = load(nowhere, false, &variables, |_| ()).unwrap();
    assert!(!format!("{config:?}").contains("hush"));
    let telemetry = config.telemetry.unwrap();
    assert_eq!(telemetry.endpoint.to_string(), "http://127.0.0.1:4318");
    let (name, value) = &telemetry.headers[0];
    assert_eq!((name.as_str(), value.reveal()), ("api-key", Some("hush now")));
    assert_eq!(telemetry.service_name, "gate");
    assert_eq!(telemetry.resource[0], ("team".to_owned(), "a,b".to_owned()));
    assert!(telemetry.sampler.samples(0, None) && !telemetry.sampler.samples(u128::MAX, None));
    let all = Signals { traces: true, metrics: true, logs: true };
    assert_eq!(telemetry.signals, all);
    variables.insert("OTEL_SDK_DISABLED".to_owned(), "true".to_owned());
    assert!(load(nowhere, false, &variables, |_| ()).unwrap().telemetry.is_none());
}

#[test]
fn a_site_that_other_nodes_would_not_take_is_refused() {
    let (nowhere, none) = (Path::new("/nonexistent"), Env::new());
    let with = |site: &str| load(nowhere, false, &none, |raw| raw.node.site = site.to_owned());
    assert_eq!(with("Halle 3").unwrap().site, "Halle 3");
    for wrong in ["a\tb", "\u{1b}[2J", &"x".repeat(65)] {
        let refused = with(wrong).unwrap_err().to_string();
        assert!(refused.contains("node.site"), "{refused}");
    }
}

#[test]
fn what_is_wrong_with_telemetry_is_said_without_its_secrets() {
    let wrong = env(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hush@collector"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hush"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("SELVEDGE_TELEMETRY_SIGNALS", "smoke"),
    ]);
    let text = failure(load(Path::new("/nonexistent"), false, &wrong, |_| ()));
    for part in ["endpoint", "headers", "4318", "sometimes", "smoke"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    assert!(!text.contains("hush"), "{text}");
}

#[test]
fn sources_of_data_are_read_and_named_once() {
    let (_scratch, file) = written(super::reference::DATA_EXAMPLE);
    let config = load(&file, true, &Env::new(), |_| ()).unwrap();
    let names = ["digits", "line3", "line4", "notes", "welds"];
    assert_eq!(config.data.keys().collect::<Vec<_>>(), names);
    let csv =
        |name: &str| format!("[[data]]\nkind = 'csv'\nname = '{name}'\npath = 'x'\nlabel = 'y'\n");
    let (_scratch, file) = written(&(csv("a") + &csv("a") + &csv("B")));
    let text = failure(load(&file, true, &Env::new(), |_| ()));
    for part in ["2 problems", "no other [[data]]", "data.name is 'B'"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    let part = |name: &str, part: &str| csv(name) + &format!("part = '{part}'\n");
    let (_scratch, file) = written(&(csv("a") + &part("a", "north") + &part("a", "east")));
    let config = load(&file, true, &Env::new(), |_| ()).unwrap();
    let parts = [None, Some("east".to_owned()), Some("north".to_owned())];
    assert_eq!(config.data["a"].keys().collect::<Vec<_>>(), parts.iter().collect::<Vec<_>>());
    let twice = part("a", "b") + &part("a", "b") + &part("a", "North") + &csv("c") + &csv("c");
    let (_scratch, file) = written(&twice);
    let text = failure(load(&file, true, &Env::new(), |_| ()));
    for part in [
        "3 problems",
        "data.part is 'b'; allowed: a part that no other [[data]] table of 'a' is",
        "data.part is 'North'",
        "data.name is 'c'; allowed: a name that no other [[data]] table has, or a 'part'",
    ] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    let many = (0..17).map(|at| part("a", &format!("p{at}"))).collect::<String>();
    let (_scratch, file) = written(&many);
    let text = failure(load(&file, true, &Env::new(), |_| ()));
    assert!(text.contains("at most 16 [[data]] tables of one name"), "{text}");
    let asked = |part: &str| {
        format!("[[data]]\nkind = 'requests'\nname = 'l'\npart = '{part}'\nmodel = 'wear'\n")
    };
    let (_scratch, file) = written(&(asked("a") + &asked("b")));
    let text = failure(load(&file, true, &Env::new(), |_| ()));
    assert!(text.contains("data.model is 'wear'; allowed: a model that no other"), "{text}");
    let (_scratch, file) = written(&(csv("a") + "secret = 1\n"));
    assert!(failure(load(&file, true, &Env::new(), |_| ())).contains("secret"));
    let (_scratch, file) = written(&csv("a").repeat(65));
    assert!(failure(load(&file, true, &Env::new(), |_| ())).contains("at most 64"));
}

#[test]
fn data_that_are_not_there_are_told_by_table_and_file() {
    let (scratch, file) = written(super::reference::DATA_EXAMPLE);
    let config = load(&file, true, &Env::new(), |_| ()).unwrap();
    let problems = data_problems(&config.data);
    assert_eq!(problems.len(), 5, "{problems:?}");
    let first = "[[data]] 'digits': cannot read /var/lib/digits/images-idx3-ubyte";
    assert!(problems[0].starts_with(first), "{problems:?}");
    let (good, bad) = (scratch.path().join("good.csv"), scratch.path().join("bad.csv"));
    std::fs::write(&good, "heat,state\n1,0\n").unwrap();
    std::fs::write(&bad, "heat;state\n1;0\n").unwrap();
    let table = |part: &str, path: &Path| {
        let path = path.display();
        format!(
            "[[data]]\nkind = 'csv'\nname = 'l'\npart = '{part}'\npath = '{path}'\n\
             label = 'state'\n"
        )
    };
    let (_scratch, file) = written(&(table("a", &good) + &table("b", &bad)));
    let config = load(&file, true, &Env::new(), |_| ()).unwrap();
    let problems = data_problems(&config.data);
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(problem.starts_with("[[data]] 'l.b': ") && problem.contains("commas"), "{problem}");
}

#[test]
fn models_with_several_files_are_read_and_bounded() {
    let (_scratch, file) = written(super::reference::MODEL_EXAMPLE);
    let config = load(&file, true, &Env::new(), |_| ()).unwrap();
    let [model] = &config.variants[..] else { panic!("{:?}", config.variants) };
    assert_eq!((model.name.as_str(), model.wanted_rate), ("assistant", 8));
    let sizes: Vec<Option<u64>> = model.files.iter().map(|(_, bytes)| *bytes).collect();
    assert_eq!(sizes, [None, None, Some(900_000_000)]);
    let table =
        |name: &str, files: &str| format!("[[model]]\nname = '{name}'\nvariants = {files}\n");
    for (text, problem) in [
        (table("Big", "['a']"), "model.name is 'Big'"),
        (table("a", "['b']") + &table("a", "['c']"), "no other [[model]] table has"),
        (table("a", "[]"), "model.variants is '0 files'"),
        (table("a", &format!("[{}]", "'x',".repeat(17))), "model.variants is '17 files'"),
        (table("a", "['a']"), "other names than the model's own"),
        (table("a", "['b']") + "min_tokens_per_s = 10001\n", "model.min_tokens_per_s is '10001'"),
    ] {
        let (_scratch, file) = written(&text);
        let said = failure(load(&file, true, &Env::new(), |_| ()));
        assert!(said.contains(problem), "{said} lacks {problem}");
    }
    let many: String = (0..33).map(|at| table(&format!("m{at}"), "['x']")).collect();
    let (_scratch, file) = written(&many);
    assert!(failure(load(&file, true, &Env::new(), |_| ())).contains("at most 32"));
    let (_scratch, file) = written(&(table("a", "['b']") + "secret = 1\n"));
    assert!(failure(load(&file, true, &Env::new(), |_| ())).contains("secret"));
}
