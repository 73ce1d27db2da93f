//! Canonical requests through a dialect, and its events back.

use std::io;

use selvedge_core::upstream::ProviderKind;
use selvedge_dialect::chat::Event;
use selvedge_dialect::exchange::Framing;
use selvedge_dialect::openai;
use selvedge_upstream::{Answer, Call, Events, Failed, Provider};

use crate::server::{Act, Server, drip};
use crate::world::{provider, raw, soon};

const KIND: ProviderKind = ProviderKind::OpenAi;

async fn start(act: Act) -> (Server, Provider) {
    let server = Server::start(KIND, vec![act]).await;
    let mut raw = raw(KIND, server.address);
    raw.limits.tokens_per_minute = 100;
    let provider = provider(&raw).0;
    (server, provider)
}

async fn ask(provider: &Provider) -> Answer {
    let body = br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
    let request = openai::parse(body).unwrap();
    let outgoing = openai::render(&request, openai::Target::OpenAi).unwrap();
    let call = Call::of(outgoing, "m", Framing::Sse, 90);
    provider.ask(&call, soon()).await.unwrap()
}

fn read(answer: Answer) -> Events {
    Events::new(answer, Box::new(openai::Parser::default()))
}

async fn texts(events: &mut Events) -> Result<(String, Option<Event>), Failed> {
    let (mut text, mut last) = (String::new(), None);
    while let Some(event) = events.next().await? {
        if let Event::Text { text: piece, .. } = &event {
            text.push_str(piece);
        }
        last = Some(event);
    }
    Ok((text, last))
}

/// One event of a stream: these choices, and what else stands beside them.
fn event(choices: &str, beside: &str) -> String {
    let head = r#""id":"c","object":"chat.completion.chunk","created":1,"model":"m""#;
    format!("data: {{{head},\"choices\":[{choices}]{beside}}}\n\n")
}

fn chunk(text: &str) -> String {
    let choice = format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}"#);
    event(&choice, "")
}

fn stop() -> String {
    event(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#, "")
}

fn usage(prompt: u64, completion: u64) -> String {
    let total = prompt.saturating_add(completion);
    let counts = format!(r#""prompt_tokens":{prompt},"completion_tokens":{completion}"#);
    event("", &format!(r#","usage":{{{counts},"total_tokens":{total}}}"#))
}

#[tokio::test]
async fn events_come_as_their_bytes_do_and_the_connection_is_kept() {
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    sender.send(Ok(chunk("h").into())).await.unwrap();
    let mut events = read(ask(&provider).await);
    loop {
        if let Event::Text { text, .. } = events.next().await.unwrap().unwrap() {
            assert_eq!(text, "h", "before the next was sent");
            break;
        }
    }
    let rest = format!("{}{}{}data: [DONE]\n\n", chunk("i"), stop(), usage(5, 2));
    sender.send(Ok(rest.into())).await.unwrap();
    // The body's end comes after the dialect's own.
    let (text, last) = texts(&mut events).await.unwrap();
    assert_eq!(text, "i");
    assert!(matches!(last, Some(Event::Finished { usage: Some(_), .. })), "{last:?}");
    assert_eq!(provider.shared().running(), 0);
    assert!(provider.shared().allows("m", 93).is_ok(), "seven of a hundred tokens were used");
    assert!(provider.shared().allows("m", 94).is_err());
    drop(events);
    drop(sender);
    while provider.target().idle() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stream_that_ends_politely_without_its_sign_is_cut() {
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    sender.send(Ok(format!("{}{}", chunk("h"), usage(5, 2)).into())).await.unwrap();
    let mut events = read(ask(&provider).await);
    drop(sender);
    let (text, last) = texts(&mut events).await.unwrap();
    assert_eq!(text, "h");
    assert!(matches!(last, Some(Event::Failed(_))), "{last:?}");
    let usage = events.usage().unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (5, 2));
}

#[tokio::test]
async fn what_a_cut_stream_took_is_what_the_provider_said() {
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    sender.send(Ok(format!("{}{}", chunk("h"), usage(5, 2)).into())).await.unwrap();
    let mut events = read(ask(&provider).await);
    sender.send(Err(io::Error::other("cut"))).await.unwrap();
    assert!(texts(&mut events).await.is_err());
    assert_eq!(events.usage().map(|usage| usage.total()), Some(7));
    assert!(provider.shared().allows("m", 93).is_ok(), "and what counts for the limit");
    assert!(provider.shared().allows("m", 94).is_err());
}

#[tokio::test]
async fn a_client_that_leaves_is_charged_what_was_told_so_far() {
    let (sender, act) = drip();
    let (mut server, provider) = start(act).await;
    sender.send(Ok(format!("{}{}", chunk("h"), usage(5, 2)).into())).await.unwrap();
    let mut events = read(ask(&provider).await);
    while events.usage().is_none() {
        events.next().await.unwrap().unwrap();
    }
    drop(events);
    server.left.recv().await.unwrap();
    assert!(provider.shared().allows("m", 93).is_ok());
    assert!(provider.shared().allows("m", 94).is_err());
}

#[tokio::test]
async fn nonsense_in_a_stream_is_the_providers_fault() {
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    sender.send(Ok("data: {\"choices\":[}\n\n".into())).await.unwrap();
    let mut events = read(ask(&provider).await);
    let (_, last) = texts(&mut events).await.unwrap();
    assert!(matches!(last, Some(Event::Failed(_))), "{last:?}");
    sender.closed().await;
    assert_eq!(provider.target().idle(), 0, "nothing of that connection is trusted");
}

#[tokio::test]
async fn usage_that_cannot_be_true_harms_nobody() {
    let (sender, act) = drip();
    let (_server, provider) = start(act).await;
    let all = format!("{}{}{}data: [DONE]\n\n", chunk("h"), stop(), usage(u64::MAX, u64::MAX));
    sender.send(Ok(all.into())).await.unwrap();
    drop(sender);
    let mut events = read(ask(&provider).await);
    // Refused or believed: either way it ends, and the next minute begins anew.
    let _ended = texts(&mut events).await;
    assert_eq!(provider.shared().running(), 0);
}
