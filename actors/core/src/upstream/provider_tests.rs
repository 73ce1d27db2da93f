use selvedge_base::Micros;
use selvedge_proto::records::Record;

use super::*;

fn openai() -> RawProvider {
    RawProvider {
        keys: vec!["main".to_owned()],
        ..RawProvider::named("acme", ProviderKind::OpenAi)
    }
}

fn fields(errors: &[ProviderError]) -> Vec<&str> {
    errors
        .iter()
        .map(|error| match error {
            ProviderError::Field { field, .. } => *field,
            ProviderError::Twice(_) => "twice",
            ProviderError::Version(_) => "version",
            ProviderError::TooMany(_) => "many",
        })
        .collect()
}

#[test]
fn defaults_work_for_every_kind() {
    for kind in ProviderKind::ALL {
        let raw = RawProvider {
            keys: vec!["k".to_owned()],
            region: "eu-west-1".to_owned(),
            base_url: if kind == ProviderKind::Azure { "https://x.openai.azure.com/" } else { "" }
                .to_owned(),
            ..RawProvider::named("p", kind)
        };
        let spec = raw.checked().unwrap_or_else(|errors| panic!("{kind:?}: {errors:?}"));
        assert_eq!(spec.base.is_https(), kind != ProviderKind::Ollama);
        assert_eq!(spec.times.connect, Micros::secs(5));
        if kind == ProviderKind::Bedrock {
            assert_eq!(spec.base.host(), "bedrock-runtime.eu-west-1.amazonaws.com");
        }
    }
}

#[test]
fn addresses_are_read_or_refused() {
    let read = |text| BaseUrl::parse(text).map(|base| base.to_string());
    assert_eq!(read("https://A.example/v1/"), Ok("https://a.example/v1".to_owned()));
    assert_eq!(read("http://[::1]:8080/x"), Ok("http://[::1]:8080/x".to_owned()));
    assert_eq!(read("https://a.example:443"), Ok("https://a.example".to_owned()));
    assert_eq!(BaseUrl::parse("http://h:81").map(|base| base.authority()), Ok("h:81".to_owned()));
    for wrong in [
        "",
        "a.example",
        "ftp://a.example",
        "https://",
        "https://user:pass@a.example",
        "https://a.example:0",
        "https://a.example:65536",
        "https://a.example:x",
        "https://a.example/?q=1",
        "https://a.example/#f",
        "https://a.example/a b",
        "https://a.example/\r\nx: y",
        "https://a exa",
        "https://[::1",
        "https://[::1]x",
        "https://[zz]:80",
        "https://-a.example",
    ] {
        assert!(BaseUrl::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let raw = RawProvider {
        name: "a b".to_owned(),
        base_url: "https://me:hunter2@a.example".to_owned(),
        keys: vec!["k".to_owned(), "k".to_owned()],
        models: vec![
            RawModel { name: "m".to_owned(), ..RawModel::default() },
            RawModel { name: "n".to_owned(), aliases: vec!["m".to_owned()], ..RawModel::default() },
        ],
        attempts: 0,
        retry_permille: 201,
        hedge_permille: 51,
        times: RawTimes { connect_ms: 60_001, ..RawTimes::default() },
        ..RawProvider::default()
    };
    let errors = raw.checked().expect_err("nothing of it is right");
    let said = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(
        fields(&errors),
        [
            "name",
            "keys",
            "base_url",
            "models",
            "attempts",
            "retry_permille",
            "hedge_permille",
            "times.connect_ms"
        ],
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn kinds_that_need_a_key_or_an_address_say_so() {
    let azure = RawProvider::named("a", ProviderKind::Azure).checked().expect_err("lacks both");
    assert_eq!(fields(&azure), ["keys", "base_url"]);
    let bedrock = RawProvider {
        keys: vec!["k".to_owned()],
        ..RawProvider::named("b", ProviderKind::Bedrock)
    };
    assert!(fields(&bedrock.checked().expect_err("lacks a region")).contains(&"region"));
    assert!(RawProvider::named("o", ProviderKind::Ollama).checked().is_ok());
}

#[test]
fn aliases_lead_to_the_providers_name() {
    let raw = RawProvider {
        models: vec![RawModel {
            name: "fast".to_owned(),
            upstream: "gpt-x-mini".to_owned(),
            aliases: vec!["cheap".to_owned()],
            deployment: String::new(),
        }],
        ..openai()
    };
    let spec = raw.checked().unwrap();
    for name in ["fast", "cheap"] {
        assert_eq!(spec.model(name).map(|model| model.upstream.as_str()), Some("gpt-x-mini"));
    }
    assert_eq!(spec.model("gpt-x-mini"), None);
}

#[test]
fn two_of_one_name_are_refused() {
    let errors = check_all(&[openai(), openai()]).expect_err("the same name");
    assert_eq!(fields(&errors), ["twice"]);
    assert!(check_all(&[openai()]).is_ok());
}

#[test]
fn a_record_of_another_version_is_refused_by_name() {
    let record = ProviderRecord { version: 9, ..ProviderRecord::new(1, openai()) };
    assert_eq!(record.checked(), Err(vec![ProviderError::Version(9)]));
}

#[test]
fn a_record_of_the_version_before_is_read_and_has_the_bytes_it_had() {
    let record = ProviderRecord { version: 1, ..ProviderRecord::new(1, openai()) };
    assert!(record.checked().is_ok());
    let bytes = |record: &ProviderRecord| {
        let mut out = Vec::new();
        record.write(&mut out);
        out
    };
    let (before, now) = (bytes(&record), bytes(&ProviderRecord::new(1, openai())));
    assert_eq!(now[1..], [&before[1..], &[0]].concat());
}

#[test]
fn records_survive_the_wire_and_each_field_is_signed() {
    let record = ProviderRecord::new(3, openai());
    let frame = selvedge_base::codec::encode(&record, 1 << 16).unwrap();
    let read: ProviderRecord = selvedge_base::codec::decode_body(&frame[4..]).unwrap();
    assert_eq!(read, record);
    let bytes = |raw: RawProvider| {
        let mut out = Vec::new();
        ProviderRecord::new(3, raw).write(&mut out);
        out
    };
    let plain = bytes(openai());
    let changed: Vec<RawProvider> = vec![
        RawProvider { name: "b".into(), ..openai() },
        RawProvider { kind: ProviderKind::Cohere, ..openai() },
        RawProvider { base_url: "b".into(), ..openai() },
        RawProvider { keys: vec![], ..openai() },
        RawProvider { models: vec![RawModel::default()], ..openai() },
        RawProvider { per_key: RawLimits { concurrent: 1, ..RawLimits::default() }, ..openai() },
        RawProvider {
            limits: RawLimits { tokens_per_minute: 1, ..RawLimits::default() },
            ..openai()
        },
        RawProvider { times: RawTimes { whole_ms: 1, ..RawTimes::default() }, ..openai() },
        RawProvider { attempts: 1, ..openai() },
        RawProvider { retry_permille: 1, ..openai() },
        RawProvider { hedge_after_ms: 1, ..openai() },
        RawProvider { hedge_permille: 1, ..openai() },
        RawProvider { region: "b".into(), ..openai() },
        RawProvider { api_version: "b".into(), ..openai() },
        RawProvider { extra_ca: "b".into(), ..openai() },
        RawProvider { label: "b".into(), ..openai() },
        RawProvider { cost: CostClass::Free, ..openai() },
        RawProvider { continues: Continues::Prefix, ..openai() },
    ];
    for raw in changed {
        assert_ne!(bytes(raw.clone()), plain, "{raw:?}");
    }
}
