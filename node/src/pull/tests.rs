use sha2::Digest as _;

use super::download::{Wanted, download};
use super::fake_server::{FakeServer, Habit};
use super::*;
use crate::config::Config;
use crate::home::Home;
use crate::scratch::Scratch;

/// Bytes that begin like a model and differ everywhere.
fn body() -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    let mut noise = vec![0; 300_000];
    selvedge_base::Dice::keyed(1, "body").fill(&mut noise);
    bytes.extend(noise);
    bytes
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest(sha2::Sha256::digest(bytes).into())
}

fn config() -> ModelsConfig {
    Config::checked(&crate::config::RawConfig::default()).unwrap().models
}

struct Fetcher {
    scratch: Scratch,
}

impl Fetcher {
    fn new() -> Self {
        Self { scratch: Scratch::new("download") }
    }

    fn part(&self) -> Part {
        Part::open(&self.scratch.path().join("m.part"), 1 << 20).unwrap()
    }

    fn run(&self, url: &str) -> (Result<()>, Part) {
        let mut part = self.part();
        let timeout = std::time::Duration::from_secs(4);
        let wanted = Wanted { url, token: Some("tok"), timeout, last_resort: true };
        let result = download(&wanted, &mut part, &mut Progress::bytes("test", None));
        (result, part)
    }
}

#[test]
fn a_file_arrives_whole_through_a_redirect() {
    let server = FakeServer::start(body(), "\"v1\"", vec![Habit::Redirect, Habit::Whole]);
    let (result, part) = Fetcher::new().run(&server.url("m.gguf"));
    result.unwrap();
    assert_eq!(part.sha256(), sha256(&body()));
    let seen = server.seen();
    assert!(seen[0].contains("authorization: bearer tok"));
    assert!(seen[1].starts_with("get /elsewhere"));
    assert!(!seen[1].contains("authorization"), "the token went to the redirect's target");
}

#[test]
fn a_cut_connection_is_resumed_where_it_ended() {
    let habits = vec![Habit::CutAfter(100_000), Habit::CutAfter(50_000), Habit::Whole];
    let server = FakeServer::start(body(), "\"v1\"", habits);
    let (result, part) = Fetcher::new().run(&server.url("m.gguf"));
    result.unwrap();
    assert_eq!(part.sha256(), sha256(&body()));
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen[1].contains("range: bytes=100000-"), "{}", seen[1]);
    assert!(seen[1].contains("if-range: \"v1\""), "{}", seen[1]);
    assert!(seen[2].contains("range: bytes=150000-"), "{}", seen[2]);
}

#[test]
fn a_later_command_takes_up_what_an_earlier_one_left() {
    let fetcher = Fetcher::new();
    let server =
        FakeServer::start(body(), "\"v1\"", vec![Habit::CutAfter(70_000), Habit::CutAfter(0)]);
    let (result, part) = fetcher.run(&server.url("m.gguf"));
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains("the same command resumes"), "{error}");
    assert_eq!(part.len(), 70_000);
    let server = FakeServer::start(body(), "\"v1\"", vec![Habit::Whole]);
    let (result, part) = fetcher.run(&server.url("m.gguf"));
    result.unwrap();
    assert_eq!(part.sha256(), sha256(&body()));
    assert!(server.seen()[0].contains("range: bytes=70000-"));
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_anew() {
    let fetcher = Fetcher::new();
    let server = FakeServer::start(
        vec![b'G'; 9_000],
        "\"v1\"",
        vec![Habit::CutAfter(5), Habit::CutAfter(0)],
    );
    assert!(fetcher.run(&server.url("m.gguf")).0.is_err());
    let server = FakeServer::start(body(), "\"v2\"", vec![Habit::Whole]);
    let (result, part) = fetcher.run(&server.url("m.gguf"));
    result.unwrap();
    assert_eq!(part.sha256(), sha256(&body()));
}

#[test]
fn a_server_without_ranges_or_versions_starts_over() {
    for (etag, second) in [("\"v1\"", Habit::NoRanges), ("", Habit::Whole)] {
        let server = FakeServer::start(body(), etag, vec![Habit::CutAfter(90_000), second]);
        let (result, part) = Fetcher::new().run(&server.url("m.gguf"));
        result.unwrap();
        assert_eq!(part.sha256(), sha256(&body()), "etag {etag}");
    }
}

#[test]
fn refusals_say_what_the_server_said() {
    for (status, said) in [(404, "no such file"), (401, "HF_TOKEN"), (503, "503")] {
        let server = FakeServer::start(body(), "", vec![Habit::Status(status)]);
        let error = format!("{:#}", Fetcher::new().run(&server.url("x")).0.unwrap_err());
        assert!(error.contains(said), "{error}");
        assert_eq!(server.seen().len(), 1, "a refusal was tried again");
    }
}

#[test]
fn a_server_that_never_answers_is_given_up_soon_when_there_is_another_place() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/m.gguf", listener.local_addr().unwrap());
    let mut part = Fetcher::new().part();
    let timeout = std::time::Duration::from_millis(100);
    let wanted = Wanted { url: &url, token: None, timeout, last_resort: false };
    let begun = selvedge_net::clock::mono();
    let error = download(&wanted, &mut part, &mut Progress::bytes("test", None)).unwrap_err();
    let took = selvedge_net::clock::mono().since(begun);
    assert!(format!("{error:#}").contains("timeout"), "{error:#}");
    assert!(took.as_millis() < 5_000, "{took:?}");
}

#[test]
fn a_file_over_the_limit_is_refused_at_its_announcement() {
    let mut large = b"GGUF\x03\0\0\0".to_vec();
    large.resize(2 << 20, 1);
    let server = FakeServer::start(large, "", vec![Habit::Whole]);
    let (result, part) = Fetcher::new().run(&server.url("x"));
    assert!(format!("{:#}", result.unwrap_err()).contains("models.max_bytes"));
    assert_eq!(part.len(), 0);
}

fn order(url: &str, sha256: Option<Sha256Digest>, yes: bool) -> Order {
    Order { source: url.parse().unwrap(), name: Some("m".to_owned()), sha256, yes }
}

fn store(scratch: &Scratch) -> Store {
    Store::of(&Home::locate(Some(scratch.path())).unwrap())
}

#[test]
fn a_wrong_digest_is_refused_and_nothing_is_kept() {
    let scratch = Scratch::new("pull");
    let store = store(&scratch);
    let server = FakeServer::start(body(), "\"v1\"", vec![Habit::Whole]);
    let wrong = order(&server.url("m.gguf"), Some(Sha256Digest([1; 32])), false);
    let error = format!("{:#}", pull(&store, &config(), &wrong).unwrap_err());
    assert!(error.contains(&sha256(&body()).to_string()), "{error}");
    assert!(store.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(store.incoming()).unwrap().count(), 0);
}

#[test]
fn an_unvouched_digest_is_refused_with_the_line_to_type_when_nobody_can_confirm() {
    let scratch = Scratch::new("pull");
    let store = store(&scratch);
    let server = FakeServer::start(body(), "\"v1\"", vec![Habit::Whole]);
    let unsure = order(&server.url("m.gguf"), None, false);
    let error = pull_asking(&store, &config(), &unsure, &|_| None).unwrap_err();
    let error = format!("{error:#}");
    let line = format!("selvedge models pull {} --sha256 {}", unsure.source, sha256(&body()));
    assert!(error.contains(&line), "{error}");
    assert!(store.list().unwrap().is_empty());
    // What was fetched is kept for that line; saying no removes it.
    assert!(std::fs::read_dir(store.incoming()).unwrap().count() > 0);
    let refused = pull_asking(&store, &config(), &unsure, &|_| Some(false)).unwrap_err();
    assert_eq!(refused.to_string(), "not kept");
    assert_eq!(std::fs::read_dir(store.incoming()).unwrap().count(), 0);
    assert_eq!(server.seen().len(), 1, "the file was fetched twice");
}

#[test]
fn a_damaged_model_is_refused_even_when_its_digest_is_right() {
    let scratch = Scratch::new("pull");
    let store = store(&scratch);
    let server = FakeServer::start(body(), "\"v1\"", vec![Habit::Whole]);
    let damaged = order(&server.url("m.gguf"), Some(sha256(&body())), false);
    let error = format!("{:#}", pull(&store, &config(), &damaged).unwrap_err());
    assert!(error.contains("cannot be used as a model"), "{error}");
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn pickles_are_refused_by_their_first_bytes() {
    let scratch = Scratch::new("pull");
    let file = scratch.path().join("model.bin");
    std::fs::write(&file, b"\x80\x04\x95\x10\0\0\0\0\0\0\0cos\nsystem\n.").unwrap();
    let pickle = order(file.to_str().unwrap(), None, true);
    let error = format!("{:#}", pull(&store(&scratch), &config(), &pickle).unwrap_err());
    assert!(error.contains("pickle"), "{error}");
}

#[test]
fn files_placed_by_hand_are_models_too() {
    let scratch = Scratch::new("store");
    let store = store(&scratch);
    store.prepare().unwrap();
    let file = scratch.path().join("models/by-hand.gguf");
    std::fs::write(&file, b"GGUF one").unwrap();
    let first = store.find("by-hand").unwrap().unwrap();
    assert_eq!(first.digest.0, *blake3::hash(b"GGUF one").as_bytes());
    assert_eq!((first.source.clone(), first.bytes), (None, 8));
    std::fs::write(&file, b"GGUF number two").unwrap();
    let second = store.find("by-hand").unwrap().unwrap();
    assert_eq!(second.digest.0, *blake3::hash(b"GGUF number two").as_bytes());
    assert_eq!(store.list().unwrap(), [second]);
    assert!(store.remove("by-hand").unwrap());
    assert!(!store.remove("by-hand").unwrap());
}

#[test]
fn names_that_would_leave_the_directory_are_refused() {
    let scratch = Scratch::new("store");
    for name in ["", "../x", "a/b", ".hidden", "-rf", "A", "é", &"x".repeat(65)] {
        assert!(store(&scratch).find(name).is_err(), "{name} was taken");
    }
}
