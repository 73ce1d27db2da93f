//! Answers whose bytes pass as they came.

use std::io;

use bytes::Bytes;
use selvedge_core::upstream::ProviderKind;
use selvedge_dialect::exchange::Framing;
use selvedge_dialect::openai;
use selvedge_dialect::tap::Kind;
use selvedge_upstream::{Answer, Call, Failed, Passed, Passing, Provider};

use crate::server::{Act, Server, drip};
use crate::world::{provider, raw, soon};

const KIND: ProviderKind = ProviderKind::OpenAi;
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"h\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

async fn start(act: Act) -> (Server, Provider) {
    let server = Server::start(KIND, vec![act]).await;
    let mut raw = raw(KIND, server.address);
    raw.limits.tokens_per_minute = 100;
    let provider = provider(&raw).0;
    (server, provider)
}

async fn ask(provider: &Provider, framing: Framing) -> Answer {
    let body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
    let call = Call::passing(openai::ENVELOPE, body, "m", framing, 90);
    provider.ask(&call, soon()).await.unwrap()
}

async fn all(passing: &mut Passing) -> Result<(String, Option<Passed>), Failed> {
    let (mut text, mut last) = (String::new(), None);
    while let Some(passed) = passing.next().await? {
        text.push_str(std::str::from_utf8(&passed.bytes).unwrap());
        last = Some(passed);
    }
    Ok((text, last))
}

#[tokio::test]
async fn bytes_pass_as_they_come_and_the_connection_is_kept() {
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    sender.send(Ok(TEXT.into())).await.unwrap();
    let mut passing =
        Passing::stream(ask(&provider, Framing::Sse).await, Kind::OpenAi, false, None);
    let first = passing.next().await.unwrap().unwrap();
    assert_eq!((first.bytes, first.last), (TEXT.into(), false), "before the next was sent");
    let rest = [TEXT, STOP, USAGE, DONE].concat();
    sender.send(Ok(rest.clone().into())).await.unwrap();
    let (text, last) = all(&mut passing).await.unwrap();
    assert_eq!(text, rest);
    assert!(last.is_some_and(|last| last.last && !last.failed));
    assert_eq!((passing.took().pieces, passing.usage().unwrap().total()), (3, 7));
    assert_eq!(provider.shared().running(), 0);
    assert!(provider.shared().allows("m", 93).is_ok(), "seven of a hundred tokens were used");
    assert!(provider.shared().allows("m", 94).is_err());
    drop(sender);
    while provider.target().idle() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn usage_that_nobody_asked_for_is_left_out() {
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    sender.send(Ok([TEXT, STOP, USAGE, DONE].concat().into())).await.unwrap();
    let mut passing = Passing::stream(ask(&provider, Framing::Sse).await, Kind::OpenAi, true, None);
    let (text, _) = all(&mut passing).await.unwrap();
    assert_eq!(text, [TEXT, STOP, DONE].concat());
    assert_eq!(passing.usage().map(|usage| usage.total()), Some(7));
    drop(sender);
}

#[tokio::test]
async fn a_stream_without_its_end_is_cut_and_bills_what_it_told() {
    for broken in [false, true] {
        let (sender, act) = drip();
        let (_server, provider) = start(act).await;
        sender.send(Ok([TEXT, USAGE].concat().into())).await.unwrap();
        let mut passing =
            Passing::stream(ask(&provider, Framing::Sse).await, Kind::OpenAi, false, None);
        passing.next().await.unwrap().unwrap();
        if broken {
            sender.send(Err(io::Error::other("cut"))).await.unwrap();
        }
        drop(sender);
        assert!(all(&mut passing).await.is_err(), "broken: {broken}");
        assert_eq!(passing.usage().map(|usage| usage.total()), Some(7));
        assert!(passing.next().await.unwrap().is_none());
        assert_eq!(provider.shared().running(), 0);
    }
}

#[tokio::test]
async fn a_reason_to_end_is_enough_of_an_end() {
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    sender.send(Ok([TEXT, STOP].concat().into())).await.unwrap();
    let mut passing =
        Passing::stream(ask(&provider, Framing::Sse).await, Kind::OpenAi, false, None);
    drop(sender);
    let (text, last) = all(&mut passing).await.unwrap();
    assert_eq!(text, [TEXT, STOP].concat());
    assert!(last.is_some_and(|last| last.last));
}

#[tokio::test]
async fn an_error_inside_of_a_stream_is_told() {
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    let error = "data: {\"error\":{\"message\":\"no\",\"type\":\"server_error\"}}\n\n";
    sender.send(Ok(error.into())).await.unwrap();
    let mut passing =
        Passing::stream(ask(&provider, Framing::Sse).await, Kind::OpenAi, false, None);
    let passed = passing.next().await.unwrap().unwrap();
    assert!(passed.failed && passed.last);
    drop(sender);
}

#[tokio::test]
async fn a_whole_answer_passes_in_one_piece_or_not_at_all() {
    let body = r#"{"id":"c","choices":[{"finish_reason":"stop","message":{"content":"hé"}}],
        "usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let json = ("content-type", "application/json".to_owned());
    let act = Act::Odd(vec![json], body.into());
    let (_server, provider) = start(act).await;
    let mut passing = Passing::whole(ask(&provider, Framing::Json).await, Kind::OpenAi, None);
    let (text, last) = all(&mut passing).await.unwrap();
    assert_eq!(text, body);
    assert!(last.is_some_and(|last| last.last));
    assert_eq!(passing.usage().map(|usage| usage.total()), Some(7));
    let json = ("content-type", "application/json".to_owned());
    let (_server, provider) = start(Act::Odd(vec![json], body[..60].into())).await;
    let mut passing = Passing::whole(ask(&provider, Framing::Json).await, Kind::OpenAi, None);
    assert!(all(&mut passing).await.is_err(), "a document without its end");
}

#[tokio::test]
async fn an_answer_comes_under_the_name_that_was_asked_for() {
    let json = ("content-type", "application/json".to_owned());
    let body = r#"{"model":"theirs","choices":[],"text":"\"model\":\"theirs\""}"#;
    let (_server, provider) = start(Act::Odd(vec![json], body.into())).await;
    let answer = ask(&provider, Framing::Json).await;
    let (text, _) = all(&mut Passing::whole(answer, Kind::OpenAi, Some("ours"))).await.unwrap();
    assert_eq!(text, r#"{"model":"ours","choices":[],"text":"\"model\":\"theirs\""}"#);
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    let piece = "data: {\"model\": \"theirs\",\"choices\":[{\"delta\":{\"content\":\"h\"}}]}\n\n";
    // Cut in the middle of the name.
    sender.send(Ok(piece[..17].into())).await.unwrap();
    let answer = ask(&provider, Framing::Sse).await;
    let mut passing = Passing::stream(answer, Kind::OpenAi, false, Some("ours"));
    sender.send(Ok([&piece[17..], STOP, DONE].concat().into())).await.unwrap();
    let (text, _) = all(&mut passing).await.unwrap();
    assert_eq!(text, [&piece.replace("theirs", "ours"), STOP, DONE].concat());
    drop(sender);
}
