//! The narrow door: a few messages, one stream, a few at a time.

use futures::FutureExt;

use super::*;
use crate::config::{JOIN_MESSAGES, JOINS};
use crate::{JoinLink, NetError};

async fn attempt(node: &mut Node) -> JoinLink {
    match node.event().await {
        NetEvent::JoinAttempt { from, addr, link } => {
            assert_eq!((from, addr), (link.node(), link.remote_addr()));
            link
        }
        other => panic!("expected an attempt to join, got {other:?}"),
    }
}

/// A node of a mesh of its own, which is not the issuer's.
async fn outsider() -> Node {
    Mesh::new().node().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outsider_and_an_issuer_talk() {
    let mut issuer = Mesh::new().node().await;
    let mut joiner = outsider().await;
    let mut asking = soon(joiner.endpoint.join(Some(issuer.id()), &[issuer.addr()])).await.unwrap();
    assert_eq!(asking.node(), issuer.id());
    asking.send("start").await.unwrap();
    let mut asked = attempt(&mut issuer).await;
    assert_eq!(asked.node(), joiner.id());
    assert_eq!(soon(asked.recv::<String>()).await.unwrap().unwrap(), "start");
    asked.send("welcome").await.unwrap();
    // The last word arrives although the issuer goes away at once.
    drop(asked);
    assert_eq!(soon(asking.recv::<String>()).await.unwrap().unwrap(), "welcome");
    assert_eq!(soon(asking.recv::<String>()).await, Ok(None));
    assert!(issuer.endpoint.links().is_empty() && joiner.endpoint.links().is_empty());
    joiner.nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_issuer_is_found_by_address_alone_but_another_is_not_taken_for_it() {
    let mut issuer = Mesh::new().node().await;
    let joiner = outsider().await;
    let mut asking = soon(joiner.endpoint.join(None, &[issuer.addr()])).await.unwrap();
    asking.send("start").await.unwrap();
    attempt(&mut issuer).await;
    let wrong = Identity::generate().node_id();
    let error = soon(joiner.endpoint.join(Some(wrong), &[issuer.addr()])).await.unwrap_err();
    assert!(error.to_string().contains("another node answers"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_gets_one_stream_and_no_datagrams() {
    let mut issuer = Mesh::new().node().await;
    let joiner = outsider().await;
    let mut race = crate::dial::Race::new(
        &joiner.endpoint.shared,
        crate::tls::JOIN_ALPN,
        None,
        &[issuer.addr()],
    )
    .unwrap();
    let (_, connection) = soon(race.winner()).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let frame = selvedge_base::codec::encode(&"start", 100).unwrap();
    send.write_all(&frame).await.unwrap();
    connection.send_datagram(b"psst".as_slice().into()).unwrap();
    let mut asked = attempt(&mut issuer).await;
    assert_eq!(soon(asked.recv::<String>()).await.unwrap().unwrap(), "start");
    assert!(connection.open_bi().now_or_never().is_none());
    assert!(connection.open_uni().now_or_never().is_none());
    asked.send("bye").await.unwrap();
    drop(asked);
    soon(connection.closed()).await;
    issuer.nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_counted() {
    let mut issuer = Mesh::new().node().await;
    let joiner = outsider().await;
    let mut asking = soon(joiner.endpoint.join(None, &[issuer.addr()])).await.unwrap();
    for _ in 0..JOIN_MESSAGES {
        asking.send("again").await.unwrap();
    }
    assert_eq!(asking.send("again").await, Err(NetError::TooManyMessages(JOIN_MESSAGES)));
    let mut asked = attempt(&mut issuer).await;
    for _ in 0..JOIN_MESSAGES {
        assert!(soon(asked.recv::<String>()).await.unwrap().is_some());
    }
    let over = soon(asked.recv::<String>()).await;
    assert_eq!(over, Err(NetError::TooManyMessages(JOIN_MESSAGES)));
    let error = asking.send(&vec![0u8; 100_000]).await.unwrap_err();
    assert!(matches!(error, NetError::TooManyMessages(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_join_at_a_time() {
    let mut issuer = Mesh::new().node().await;
    let joiner = outsider().await;
    let mut inside = Vec::new();
    for _ in 0..JOINS {
        let mut asking = soon(joiner.endpoint.join(None, &[issuer.addr()])).await.unwrap();
        asking.send("start").await.unwrap();
        inside.push((asking, attempt(&mut issuer).await));
    }
    // Turned away at the door, or a moment later on the stream.
    let error = match soon(joiner.endpoint.join(None, &[issuer.addr()])).await {
        Ok(mut late) => soon(late.recv::<String>()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().contains("try again in a moment"), "{error}");
    issuer.nothing_more();
}
