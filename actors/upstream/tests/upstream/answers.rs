//! Good answers of every kind, whole and streaming.

use selvedge_base::Micros;
use selvedge_core::upstream::ProviderKind;

use crate::server::{Server, drip};
use crate::world::{all, provider, raw, soon};
use crate::{shape, world};

#[tokio::test]
async fn every_kind_is_asked_as_it_wants_and_answers_whole() {
    for kind in ProviderKind::ALL {
        let mut server = Server::start(kind, Vec::new()).await;
        let (provider, reports) = provider(&raw(kind, server.address));
        let call = shape::call(kind, false);
        let mut answer = provider.ask(&call, soon()).await.unwrap();
        assert_eq!((answer.status(), answer.attempts()), (200, 1), "{kind:?}");
        assert_eq!(all(&mut answer).await.unwrap(), shape::whole(kind), "{kind:?}");
        let received = server.received().await;
        assert!(received.authentic, "{kind:?}: {received:?}");
        assert_eq!(received.method, "POST");
        assert_eq!(received.path, shape::wire_path(kind, false), "{kind:?}");
        assert_eq!(received.body, call.body, "byte for byte");
        assert_eq!(received.headers["content-length"], call.body.len().to_string());
        assert_eq!(received.headers["host"], server.address.to_string());
        assert_eq!(provider.target().idle(), 1, "the connection waits for the next request");
        assert_eq!(provider.shared().running(), 0);
        assert_eq!(*reports.lock(), []);
    }
}

#[tokio::test]
async fn every_kinds_stream_comes_piece_by_piece_as_it_is_sent() {
    for kind in ProviderKind::ALL {
        let (sender, act) = drip();
        let mut server = Server::start(kind, vec![act]).await;
        let (provider, _) = provider(&raw(kind, server.address));
        let call = shape::call(kind, true);
        let pieces = shape::pieces(kind);
        sender.send(Ok(pieces[0].clone().into())).await.unwrap();
        let mut answer = provider.ask(&call, soon()).await.unwrap();
        assert_eq!(server.received().await.path, shape::wire_path(kind, true), "{kind:?}");
        assert_eq!(answer.chunk().await.unwrap().unwrap(), pieces[0], "{kind:?}");
        for piece in &pieces[1..] {
            // The next is only sent once the one before was given on: nothing is gathered.
            sender.send(Ok(piece.clone().into())).await.unwrap();
            assert_eq!(answer.chunk().await.unwrap().unwrap(), *piece, "{kind:?}");
        }
        drop(sender);
        assert_eq!(answer.chunk().await.unwrap(), None);
        assert_eq!(provider.target().idle(), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn connections_are_used_again_and_new_ones_made_beside_those_in_use() {
    let kind = ProviderKind::OpenAi;
    let (sender, act) = drip();
    let mut server = Server::start(kind, vec![act]).await;
    let (provider, _) = provider(&raw(kind, server.address));
    sender.send(Ok("data: 1\n\n".into())).await.unwrap();
    let mut long = provider.ask(&shape::call(kind, true), soon()).await.unwrap();
    for _ in 0..5 {
        let mut short = provider.ask(&shape::call(kind, false), soon()).await.unwrap();
        all(&mut short).await.unwrap();
    }
    drop(sender);
    all(&mut long).await.unwrap();
    let mut connections = Vec::new();
    for _ in 0..6 {
        connections.push(server.received().await.connection);
    }
    assert_eq!(connections, [0, 1, 1, 1, 1, 1]);
    assert_eq!(provider.target().idle(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_closes_the_upstream() {
    for kind in ProviderKind::ALL {
        let (sender, act) = drip();
        let mut server = Server::start(kind, vec![act]).await;
        let (provider, _) = provider(&raw(kind, server.address));
        sender.send(Ok("first".into())).await.unwrap();
        let mut answer = provider.ask(&shape::call(kind, true), soon()).await.unwrap();
        assert_eq!(answer.chunk().await.unwrap().unwrap(), "first");
        answer.used(7);
        drop(answer);
        server.left.recv().await.unwrap();
        assert!(sender.is_closed(), "the server's handler was dropped");
        assert_eq!((provider.target().idle(), provider.shared().running()), (0, 0));
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_byte_closes_the_upstream() {
    let kind = ProviderKind::Anthropic;
    let mut server = Server::start(kind, vec![crate::server::Act::Hang]).await;
    let (provider, _) = provider(&raw(kind, server.address));
    let provider = std::sync::Arc::new(provider);
    let asking = std::sync::Arc::clone(&provider);
    let task = tokio::spawn(async move {
        let call = shape::call(kind, true);
        asking.ask(&call, world::soon()).await.map(|_| ())
    });
    server.received().await;
    assert_eq!(provider.shared().running(), 1);
    task.abort();
    server.left.recv().await.unwrap();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(provider.shared().running(), 0, "and the attempt is accounted for");
}

#[tokio::test]
async fn tokens_of_a_cut_answer_count_as_the_provider_told_them() {
    let kind = ProviderKind::OpenAi;
    let (sender, act) = drip();
    let server = Server::start(kind, vec![act]).await;
    let mut raw = raw(kind, server.address);
    raw.limits.tokens_per_minute = 100;
    let (provider, _) = provider(&raw);
    sender.send(Ok("data: 1\n\n".into())).await.unwrap();
    let call = selvedge_upstream::Call { tokens: 90, ..shape::call(kind, true) };
    let mut answer = provider.ask(&call, soon()).await.unwrap();
    answer.chunk().await.unwrap();
    assert!(provider.shared().allows("m", 20).is_err(), "90 of 100 are spoken for");
    answer.used(30);
    drop(answer);
    assert!(provider.shared().allows("m", 70).is_ok(), "30 were used");
    assert!(provider.shared().allows("m", 71).is_err());
    // Nothing here takes long.
    assert!(world::clock().mono < soon().plus(Micros::secs(1)));
}
