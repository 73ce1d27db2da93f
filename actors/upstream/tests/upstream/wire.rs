//! Wire faults that no HTTP library would make: written by hand on a socket.

use std::net::SocketAddr;

use selvedge_core::upstream::{Ending, ProviderKind};
use selvedge_upstream::{Failed, Roots, TargetSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::shape;
use crate::world::{all, provider, provider_with, raw, soon};

const KIND: ProviderKind = ProviderKind::Ollama;

/// A server that writes exactly these bytes when a request is there, to each connection; `stays`
/// leaves the connection open.
async fn written(bytes: Vec<u8>, stays: bool) -> (SocketAddr, oneshot::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (gone, left) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _read = stream.read(&mut request).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        if stays {
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
            let _heard = gone.send(());
        }
    });
    (address, left)
}

async fn outcome(bytes: &[u8], stays: bool) -> Result<Vec<u8>, Failed> {
    let (address, left) = written(bytes.to_vec(), stays).await;
    let (provider, _) = provider(&raw(KIND, address));
    let result = async {
        let mut answer = provider.ask(&shape::call(KIND, false), soon()).await?;
        all(&mut answer).await
    };
    let result = result.await.map(|bytes| bytes.to_vec());
    if stays && result.is_err() {
        left.await.unwrap();
    }
    assert_eq!((provider.target().idle(), provider.shared().running()), (0, 0));
    result
}

async fn ending(bytes: &[u8], stays: bool) -> Option<Ending> {
    match outcome(bytes, stays).await {
        Ok(bytes) => panic!("answered with {} bytes", bytes.len()),
        Err(failed) => failed.ending(),
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

#[tokio::test]
async fn a_malformed_chunk_is_not_taken_for_an_answer() {
    let chunked = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
    for wrong in ["4\r\n{\"a\"\r\nXYZ\r\n", "zz\r\n{}\r\n", "ffffffffffffffffff\r\n{}\r\n"] {
        let bytes = format!("{chunked}{wrong}");
        assert_eq!(ending(bytes.as_bytes(), true).await, Some(Ending::Malformed), "{wrong:?}");
    }
}

#[tokio::test]
async fn an_answer_shorter_than_announced_is_cut() {
    let short = format!("{HEAD}content-length: 100\r\n\r\n{{}}");
    assert_eq!(ending(short.as_bytes(), false).await, Some(Ending::Cut));
    let unfinished = format!("{HEAD}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n");
    assert_eq!(ending(unfinished.as_bytes(), false).await, Some(Ending::Cut));
    assert_eq!(ending(b"", false).await, Some(Ending::Cut), "no answer at all");
    assert_eq!(ending(b"HTTP/1.1 200 O", false).await, Some(Ending::Cut), "half a head");
}

#[tokio::test]
async fn what_is_not_http_is_malformed() {
    for wrong in ["SSH-2.0-OpenSSH_9\r\n\r\n", "HTTP/1.1 OK 200\r\n\r\n", "{\"a\":1}\r\n\r\n"] {
        assert_eq!(ending(wrong.as_bytes(), true).await, Some(Ending::Malformed), "{wrong:?}");
    }
    let twice = format!("{HEAD}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}");
    assert_eq!(ending(twice.as_bytes(), true).await, Some(Ending::Malformed));
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let long = format!("{HEAD}x: {}\r\n\r\n", "y".repeat(80 << 10));
    assert_eq!(ending(long.as_bytes(), true).await, Some(Ending::Malformed));
    let many: String = (0..200).map(|n| format!("x{n}: y\r\n")).collect();
    let many = format!("{HEAD}{many}content-length: 0\r\n\r\n");
    assert_eq!(ending(many.as_bytes(), true).await, Some(Ending::Malformed));
}

#[tokio::test]
async fn oversized_bodies_are_refused_announced_or_not() {
    let small = TargetSettings { max_answer: 1_000, ..TargetSettings::default() };
    let announced = format!("{HEAD}content-length: 1001\r\n\r\n{}", "x".repeat(1_001));
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let chunked = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}{chunk}0\r\n\r\n");
    let endless = format!("{HEAD}connection: close\r\n\r\n{}", "x".repeat(5_000));
    for bytes in [announced, chunked, endless] {
        let (address, left) = written(bytes.into_bytes(), true).await;
        let (provider, _) = provider_with(&raw(KIND, address), Roots::public().unwrap(), small);
        let result = async {
            let mut answer = provider.ask(&shape::call(KIND, false), soon()).await?;
            all(&mut answer).await
        };
        assert_eq!(result.await.unwrap_err().ending(), Some(Ending::Malformed));
        left.await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_died_while_idle_is_replaced_unseen() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (close, closing) = oneshot::channel::<()>();
    let (closed, was_closed) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let answer = format!("{HEAD}content-length: 2\r\n\r\n{{}}");
        let (mut first, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _read = first.read(&mut request).await.unwrap();
        first.write_all(answer.as_bytes()).await.unwrap();
        closing.await.unwrap();
        drop(first);
        closed.send(()).unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        let _read = second.read(&mut request).await.unwrap();
        second.write_all(answer.as_bytes()).await.unwrap();
    });
    let (provider, _) = provider(&raw(KIND, address));
    let mut answer = provider.ask(&shape::call(KIND, false), soon()).await.unwrap();
    assert_eq!(all(&mut answer).await.unwrap(), "{}");
    assert_eq!(provider.target().idle(), 1);
    close.send(()).unwrap();
    was_closed.await.unwrap();
    let mut answer = provider.ask(&shape::call(KIND, false), soon()).await.unwrap();
    assert_eq!((all(&mut answer).await.unwrap(), answer.attempts()), ("{}".into(), 1));
}

#[tokio::test]
async fn an_interim_answer_is_passed_over_and_close_is_heeded() {
    let bytes = format!("HTTP/1.1 100 Continue\r\n\r\n{HEAD}connection: close\r\n\r\n{{}}");
    assert_eq!(outcome(bytes.as_bytes(), false).await.unwrap(), b"{}");
}
