//! Providers that are slow: to connect, to begin, in the middle, altogether. Time is paused and
//! moves only when nothing else can, so each test waits for hours in no time.

use std::sync::Arc;

use selvedge_base::{Micros, Mono};
use selvedge_core::upstream::provider::RawTimes;
use selvedge_core::upstream::{Ending, ProviderKind, RawProvider};
use selvedge_upstream::{Call, Provider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::server::{Act, Server, drip};
use crate::shape;
use crate::world::{all, clock, provider, raw};

const KIND: ProviderKind = ProviderKind::OpenAi;

fn slow(server: &Server) -> Provider {
    let times = RawTimes {
        connect_ms: 60_000,
        first_byte_ms: 20_000,
        between_ms: 10_000,
        whole_ms: 100_000,
    };
    provider(&RawProvider { times, ..raw(KIND, server.address) }).0
}

fn within(seconds: u64) -> Mono {
    clock().mono.plus(Micros::secs(seconds))
}

#[tokio::test]
async fn a_provider_that_hangs_before_the_first_byte_is_silent_and_closed() {
    let mut server = Server::start(KIND, vec![Act::Hang]).await;
    let provider = Arc::new(slow(&server));
    let asking = Arc::clone(&provider);
    let call = shape::call(KIND, true);
    let task = tokio::spawn(async move { asking.ask(&call, within(600)).await.err().unwrap() });
    server.received().await;
    tokio::time::pause();
    let before = clock().mono;
    let failed = task.await.unwrap();
    assert_eq!(failed.ending(), Some(Ending::Silent));
    let waited = clock().mono.since(before);
    assert!((19..=21).contains(&(waited.0 / 1_000_000)), "{waited:?}");
    server.left.recv().await.unwrap();
    assert_eq!(provider.shared().running(), 0);
}

#[tokio::test]
async fn a_head_without_a_body_is_silent_too() {
    let (sender, act) = drip();
    let mut server = Server::start(KIND, vec![act]).await;
    let provider = Arc::new(slow(&server));
    let asking = Arc::clone(&provider);
    let call = shape::call(KIND, true);
    let task = tokio::spawn(async move { asking.ask(&call, within(600)).await.err().unwrap() });
    server.received().await;
    tokio::time::pause();
    assert_eq!(task.await.unwrap().ending(), Some(Ending::Silent));
    sender.closed().await;
}

#[tokio::test]
async fn a_slow_head_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sent, was_sent) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _read = stream.read(&mut request).await.unwrap();
        sent.send(()).unwrap();
        // One byte a second for ever, or until the client has had enough.
        let mut second = tokio::time::interval(std::time::Duration::from_secs(1));
        for byte in b"HTTP/1.1 200 OK\r\nx: ".iter().chain(std::iter::repeat(&b'y')) {
            second.tick().await;
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    });
    let times = RawTimes { first_byte_ms: 30_000, ..RawTimes::default() };
    let (provider, _) = provider(&RawProvider { times, ..raw(KIND, address) });
    let call = shape::call(KIND, false);
    let task = tokio::spawn(async move { provider.ask(&call, within(600)).await.err().unwrap() });
    was_sent.await.unwrap();
    tokio::time::pause();
    assert_eq!(task.await.unwrap().ending(), Some(Ending::Silent));
}

#[tokio::test]
async fn a_pause_in_the_middle_is_a_stall_unless_it_is_the_readers() {
    let (sender, act) = drip();
    let server = Server::start(KIND, vec![act]).await;
    let provider = slow(&server);
    sender.send(Ok("first".into())).await.unwrap();
    let mut answer = provider.ask(&shape::call(KIND, true), within(600)).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "first");
    sender.send(Ok("second".into())).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(60)).await;
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "second", "the reader was slow");
    let before = clock().mono;
    let failed = answer.chunk().await.unwrap_err();
    assert_eq!(failed.ending(), Some(Ending::Stalled));
    let waited = clock().mono.since(before);
    assert!((9..=11).contains(&(waited.0 / 1_000_000)), "{waited:?}");
    sender.closed().await;
}

#[tokio::test]
async fn a_drip_that_never_ends_overruns() {
    let (sender, act) = drip();
    let server = Server::start(KIND, vec![act]).await;
    let provider = slow(&server);
    sender.send(Ok(".".into())).await.unwrap();
    let mut answer = provider.ask(&shape::call(KIND, true), within(600)).await.unwrap();
    tokio::time::pause();
    let dripping = tokio::spawn(async move {
        let mut second = tokio::time::interval(std::time::Duration::from_secs(5));
        while sender.send(Ok(".".into())).await.is_ok() {
            second.tick().await;
        }
    });
    assert_eq!(all(&mut answer).await.unwrap_err().ending(), Some(Ending::Overran));
    dripping.await.unwrap();
}

#[tokio::test]
async fn a_deadline_of_the_caller_blames_nobody() {
    let mut server = Server::start(KIND, vec![Act::Hang]).await;
    let provider = Arc::new(slow(&server));
    let asking = Arc::clone(&provider);
    let call = shape::call(KIND, false);
    let task = tokio::spawn(async move { asking.ask(&call, within(3)).await.err().unwrap() });
    server.received().await;
    tokio::time::pause();
    assert_eq!(task.await.unwrap().ending(), Some(Ending::Expired));
    server.left.recv().await.unwrap();
}

#[tokio::test]
async fn idle_connections_are_closed_in_time() {
    let mut server = Server::start(KIND, Vec::new()).await;
    let provider = slow(&server);
    let mut answer = provider.ask(&shape::call(KIND, false), within(600)).await.unwrap();
    all(&mut answer).await.unwrap();
    server.received().await;
    assert_eq!(provider.target().idle(), 1);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(49)).await;
    assert_eq!(provider.target().idle(), 1);
    tokio::time::advance(std::time::Duration::from_secs(3)).await;
    tokio::task::yield_now().await;
    assert_eq!(provider.target().idle(), 0);
}

#[tokio::test]
async fn a_silent_first_attempt_is_hedged_where_that_is_allowed() {
    let mut server = Server::start(KIND, Vec::new()).await;
    let raw =
        RawProvider { hedge_after_ms: 2_000, hedge_permille: 50, ..raw(KIND, server.address) };
    let (provider, _) = provider(&raw);
    let provider = Arc::new(provider);
    let call = Call { idempotent: true, ..shape::call(KIND, false) };
    // One in twenty: the first twenty requests earn the first hedge.
    for _ in 0..20 {
        let mut answer = provider.ask(&call, within(600)).await.unwrap();
        all(&mut answer).await.unwrap();
        server.received().await;
    }
    server.then(Act::Hang);
    let asking = Arc::clone(&provider);
    let task = tokio::spawn(async move {
        let mut answer = asking.ask(&call, within(600)).await.unwrap();
        all(&mut answer).await.unwrap()
    });
    let first = server.received().await;
    // Two attempts must have time to connect before anything else is due.
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    tokio::time::resume();
    let second = server.received().await;
    assert_ne!(first.connection, second.connection);
    assert_eq!(task.await.unwrap(), shape::whole(KIND));
    server.left.recv().await.unwrap();
    assert_eq!(provider.shared().running(), 0, "the slower one was given back");
}
