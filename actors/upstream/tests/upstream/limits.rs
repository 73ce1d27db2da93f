//! Back-pressure and many requests at once.

use std::sync::Arc;

use bytes::Bytes;
use selvedge_core::upstream::{Denied, ProviderKind};
use selvedge_upstream::Failed;

use crate::server::{Server, drip};
use crate::shape;
use crate::world::{all, provider, raw, soon};

const KIND: ProviderKind = ProviderKind::OpenAi;

#[tokio::test]
async fn a_reader_that_stops_stops_the_provider() {
    let (sender, act) = drip();
    let server = Server::start(KIND, vec![act]).await;
    let (provider, _) = provider(&raw(KIND, server.address));
    sender.send(Ok("first".into())).await.unwrap();
    let mut answer = provider.ask(&shape::call(KIND, true), soon()).await.unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "first");
    // Nobody reads: what fits into the sockets' buffers goes, and then nothing more can happen but
    // time passing.
    tokio::time::pause();
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    let mut sent = 0_usize;
    loop {
        let room = std::time::Duration::from_millis(500);
        match tokio::time::timeout(room, sender.send(Ok(piece.clone()))).await {
            Ok(result) => result.unwrap(),
            Err(_) => break,
        }
        sent += piece.len();
        assert!(sent < 64 << 20, "64 MiB went somewhere");
    }
    drop(sender);
    assert_eq!(all(&mut answer).await.unwrap().len(), sent, "and none of it is lost");
}

#[tokio::test]
async fn requests_beyond_the_limit_are_denied_and_sent_nowhere() {
    let (sender, act) = drip();
    let mut server = Server::start(KIND, vec![act]).await;
    let mut raw = raw(KIND, server.address);
    raw.limits.concurrent = 1;
    let (provider, _) = provider(&raw);
    sender.send(Ok("first".into())).await.unwrap();
    let mut answer = provider.ask(&shape::call(KIND, true), soon()).await.unwrap();
    server.received().await;
    let failed = provider.ask(&shape::call(KIND, true), soon()).await.err().unwrap();
    assert!(matches!(failed, Failed::Denied { denied: Denied::Full, .. }), "{failed:?}");
    assert!(server.came.try_recv().is_err());
    drop(sender);
    all(&mut answer).await.unwrap();
    assert!(provider.ask(&shape::call(KIND, true), soon()).await.is_ok());
}

#[tokio::test]
async fn many_at_once_all_get_their_own_answer() {
    let server = Server::start(KIND, Vec::new()).await;
    let (provider, _) = provider(&raw(KIND, server.address));
    let provider = Arc::new(provider);
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let provider = Arc::clone(&provider);
            tokio::spawn(async move {
                let call = shape::call(KIND, n % 2 == 0);
                let mut answer = provider.ask(&call, soon()).await.unwrap();
                let whole = all(&mut answer).await.unwrap();
                let expected =
                    if n % 2 == 0 { shape::pieces(KIND).concat() } else { shape::whole(KIND) };
                assert_eq!(whole, expected);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(provider.shared().running(), 0);
    assert!(provider.target().idle() <= 64, "the pool is bounded");
}
