//! What providers do wrong, by every kind of them, and whose fault it is found to be.

use std::io;

use selvedge_base::{Blame, Code, Micros, Retry};
use selvedge_core::upstream::keys::KeyTurn;
use selvedge_core::upstream::{Ending, ProviderKind, RawProvider, Report};
use selvedge_upstream::{Failed, MediaType};

use crate::server::{Act, Server, drip};
use crate::world::{all, clock, provider, raw, soon};
use crate::{shape, world};

async fn refused(kind: ProviderKind, act: Act) -> (Failed, Vec<Report>) {
    let mut server = Server::start(kind, vec![act]).await;
    let (provider, reports) = provider(&raw(kind, server.address));
    let failed = provider.ask(&shape::call(kind, false), soon()).await.err().unwrap();
    server.received().await;
    assert!(server.came.try_recv().is_err(), "one attempt");
    assert_eq!(provider.shared().running(), 0);
    let reports = reports.lock().clone();
    (failed, reports)
}

#[tokio::test]
async fn a_429_rests_the_key_for_as_long_as_it_says() {
    for kind in ProviderKind::ALL {
        let before = clock().mono;
        let after = vec![("retry-after", "7".to_owned())];
        let (failed, reports) = refused(kind, Act::Status(429, after)).await;
        let wait = Micros::secs(7);
        assert_eq!(failed.ending(), Some(Ending::Limited { retry_after: Some(wait) }), "{kind:?}");
        assert_eq!(failed.refusal().retry, Retry::After(wait));
        let [Report::Key { key: 0, turn: KeyTurn::Cooling { until } }] = reports[..] else {
            panic!("{kind:?}: {reports:?}")
        };
        assert!(until >= before.plus(wait), "{until:?}");
        let body = failed.said().unwrap().body.clone();
        assert!(body.starts_with(b"{") && body.len() > 10, "{body:?}");
    }
}

#[tokio::test]
async fn a_retry_after_may_be_a_date_or_milliseconds() {
    let kind = ProviderKind::OpenAi;
    // The tests' clock stands at 12:36:00.
    let date = vec![("retry-after", "Sun, 30 Aug 2015 12:36:03 GMT".to_owned())];
    let milliseconds = vec![("retry-after-ms", "1500".to_owned()), ("retry-after", "2".to_owned())];
    let fraction = vec![("retry-after", "0.25".to_owned())];
    let nonsense = vec![("retry-after", "soon".to_owned())];
    for (headers, wait) in [
        (date, Some(Micros::secs(3))),
        (milliseconds, Some(Micros::millis(1_500))),
        (fraction, Some(Micros::millis(250))),
        (nonsense, None),
    ] {
        let (failed, _) = refused(kind, Act::Status(503, headers)).await;
        let ending = Ending::Failed { status: 503, retry_after: wait };
        assert_eq!(failed.ending(), Some(ending));
    }
}

#[tokio::test]
async fn statuses_of_every_kind_find_their_cause() {
    for kind in ProviderKind::ALL {
        let (bad, _) = refused(kind, Act::Status(400, Vec::new())).await;
        assert_eq!(bad.refusal().blame, Blame::Client, "{kind:?}");
        assert_eq!(bad.refusal().retry, Retry::Never);
        let (down, _) = refused(kind, Act::Status(500, Vec::new())).await;
        assert_eq!(
            (down.refusal().blame, down.refusal().retry),
            (Blame::Provider, Retry::Elsewhere)
        );
        let (overloaded, _) = refused(kind, Act::Status(529, Vec::new())).await;
        assert!(matches!(overloaded.ending(), Some(Ending::Failed { status: 529, .. })));
        let (revoked, reports) = refused(kind, Act::Status(401, Vec::new())).await;
        assert_eq!(revoked.refusal().code, Code::ModelUnavailable);
        let parked = matches!(
            reports[..],
            [Report::Key { key: 0, turn: KeyTurn::Parked { status: 401, .. } }]
        );
        assert!(parked, "{kind:?}: {reports:?}");
        let (_, reports) = refused(kind, Act::Status(403, Vec::new())).await;
        let barred = matches!(reports[..], [Report::Key { key: 0, turn: KeyTurn::Barred { .. } }]);
        assert!(barred, "{kind:?}: {reports:?}");
    }
}

#[tokio::test]
async fn five_failures_open_the_breaker_and_bad_requests_do_not() {
    let kind = ProviderKind::Cohere;
    let mut acts: Vec<Act> = (0..50).map(|_| Act::Status(422, Vec::new())).collect();
    acts.extend((0..60).map(|_| Act::Status(500, Vec::new())));
    let mut server = Server::start(kind, acts).await;
    let (provider, reports) = provider(&raw(kind, server.address));
    for _ in 0..50 {
        let failed = provider.ask(&shape::call(kind, false), soon()).await.err().unwrap();
        assert_eq!(failed.ending(), Some(Ending::Refused { status: 422 }));
    }
    let mut asked = 0;
    let denied = loop {
        let failed = provider.ask(&shape::call(kind, false), soon()).await.err().unwrap();
        if failed.ending().is_none() {
            break failed;
        }
        asked += 1;
    };
    assert_eq!(asked, 50, "half of what the window saw");
    assert!(matches!(denied.refusal().retry, Retry::After(_)), "{denied:?}");
    assert!(matches!(&reports.lock()[..], [Report::Opened { model: Some(m), .. }] if m == "m"));
    for _ in 0..100 {
        server.received().await;
    }
    assert!(server.came.try_recv().is_err(), "an open breaker sends nothing");
}

#[tokio::test]
async fn failures_are_made_up_for_within_the_retries_share() {
    let kind = ProviderKind::OpenAi;
    let acts = (0..2).map(|_| Act::Status(502, Vec::new())).collect();
    let server = Server::start(kind, acts).await;
    let raw = RawProvider { attempts: 3, ..raw(kind, server.address) };
    let (provider, _) = provider(&raw);
    let mut answer = provider.ask(&shape::call(kind, false), soon()).await.unwrap();
    assert_eq!(answer.attempts(), 3);
    all(&mut answer).await.unwrap();
}

#[tokio::test]
async fn a_key_at_its_limit_is_left_for_the_next_at_once() {
    let kind = ProviderKind::OpenAi;
    let after = vec![("retry-after", "3600".to_owned())];
    let server = Server::start(kind, vec![Act::Status(429, after)]).await;
    let raw = RawProvider {
        keys: vec!["one".to_owned(), "two".to_owned()],
        attempts: 2,
        ..raw(kind, server.address)
    };
    let (provider, _) = provider(&raw);
    let mut answer = provider.ask(&shape::call(kind, false), soon()).await.unwrap();
    assert_eq!((answer.attempts(), answer.key()), (2, 1));
    all(&mut answer).await.unwrap();
}

#[tokio::test]
async fn a_stream_cut_in_the_middle_is_the_providers_fault_and_says_so() {
    for kind in ProviderKind::ALL {
        let (sender, act) = drip();
        let server = Server::start(kind, vec![act]).await;
        let (provider, _) = provider(&raw(kind, server.address));
        sender.send(Ok("first".into())).await.unwrap();
        let mut answer = provider.ask(&shape::call(kind, true), soon()).await.unwrap();
        assert_eq!(answer.chunk().await.unwrap().unwrap(), "first");
        sender.send(Err(io::Error::other("cut"))).await.unwrap();
        let failed = answer.chunk().await.unwrap_err();
        assert_eq!(failed.ending(), Some(Ending::Cut), "{kind:?}: {failed}");
        assert_eq!(failed.refusal().code, Code::PeerLost);
        assert_eq!(answer.chunk().await.unwrap(), None, "and nothing more");
        assert_eq!((provider.target().idle(), provider.shared().running()), (0, 0));
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let kind = ProviderKind::Gemini;
    let mut elsewhere = Server::start(kind, Vec::new()).await;
    for status in [301, 302, 307, 308] {
        let location = vec![("location", format!("http://{}/x", elsewhere.address))];
        let (failed, _) = refused(kind, Act::Status(status, location)).await;
        assert_eq!(failed.ending(), Some(Ending::Malformed));
        assert!(failed.to_string().contains("redirect"), "{failed}");
    }
    assert!(elsewhere.came.try_recv().is_err(), "no key went elsewhere");
}

#[tokio::test]
async fn an_answer_of_another_type_or_compressed_is_refused_unread() {
    for kind in ProviderKind::ALL {
        let html = vec![("content-type", "text/html".to_owned())];
        let (failed, _) = refused(kind, Act::Odd(html, b"<html>".to_vec())).await;
        assert_eq!(failed.ending(), Some(Ending::Malformed), "{kind:?}");
        assert!(failed.to_string().contains("text/html"), "{failed}");
        let zipped = vec![("content-encoding", "gzip".to_owned())];
        let (failed, _) = refused(kind, Act::Odd(zipped, b"zip".to_vec())).await;
        assert_eq!(failed.ending(), Some(Ending::Malformed), "{kind:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_passed_on_may_be_of_any_type() {
    let kind = ProviderKind::OpenAi;
    let html = vec![("content-type", "text/html".to_owned())];
    let server = Server::start(kind, vec![Act::Odd(html, b"<html>".to_vec())]).await;
    let (provider, _) = provider(&raw(kind, server.address));
    let call = selvedge_upstream::Call { expects: MediaType::Any, ..shape::call(kind, false) };
    let mut answer = provider.ask(&call, soon()).await.unwrap();
    assert_eq!(answer.media_type(), "text/html");
    assert_eq!(all(&mut answer).await.unwrap(), "<html>");
}

#[tokio::test]
async fn a_key_that_is_not_in_the_vault_is_this_nodes_fault() {
    let kind = ProviderKind::OpenAi;
    let mut server = Server::start(kind, Vec::new()).await;
    let (provider, _) = provider(&raw(kind, server.address));
    provider.shared().replace(0, None);
    let failed = provider.ask(&shape::call(kind, false), soon()).await.err().unwrap();
    assert_eq!((failed.ending(), failed.refusal().blame), (Some(Ending::Unsent), Blame::Us));
    assert!(server.came.try_recv().is_err());
    let text = selvedge_upstream::Secret::new(shape::KEY.to_owned());
    let credential = selvedge_upstream::Credential::of(kind, "main", &text).unwrap();
    provider.shared().replace(0, Some(credential));
    assert!(provider.ask(&shape::call(kind, false), world::soon()).await.is_ok());
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let kind = ProviderKind::Ollama;
    let address = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let (provider, _) = provider(&raw(kind, address));
    let failed = provider.ask(&shape::call(kind, false), soon()).await.err().unwrap();
    assert_eq!(failed.ending(), Some(Ending::Unreachable));
    assert_eq!(
        failed.refusal().message,
        "provider 'acme' cannot be reached: nothing listens there"
    );
}
