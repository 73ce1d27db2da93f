//! Frames arrive whole, in order and bounded; either side can give up; datagrams may be lost.

use bytes::Bytes;
use futures::FutureExt;
use selvedge_base::codec::{self, CodecError, MAX_FRAME};

use super::*;
use crate::{NetError, stream_code};

#[tokio::test]
async fn frames_go_both_ways_and_end() {
    let (_a, mut b, link) = pair().await;
    let (mut sender, mut receiver) = link.open(5).await.unwrap();
    for n in 0..100u32 {
        sender.send(&n).await.unwrap();
    }
    sender.finish();
    assert_eq!(sender.send(&0u32).await, Err(NetError::Closed));
    let (mut their_sender, mut their_receiver) = b.stream().await;
    for n in 0..100u32 {
        assert_eq!(soon(their_receiver.recv()).await, Ok(Some(n)));
    }
    assert_eq!(soon(their_receiver.recv::<u32>()).await, Ok(None));
    let large = vec![7u8; 8 << 20];
    let (sent, received) =
        soon(futures::future::join(their_sender.send(&large), receiver.recv::<Vec<u8>>())).await;
    sent.unwrap();
    assert!(received.unwrap().unwrap() == large);
    drop(their_sender);
    assert_eq!(soon(receiver.recv::<u32>()).await, Ok(None), "dropping ends in good order");
}

#[tokio::test]
async fn what_is_over_the_limit_is_not_sent() {
    let (_a, mut b, link) = pair().await;
    let (mut sender, _receiver) = link.open(0).await.unwrap();
    let error = sender.send(&vec![0u8; MAX_FRAME]).await.unwrap_err();
    assert!(matches!(error, NetError::Codec(CodecError::TooLarge { .. })), "{error}");
    sender.send("small").await.unwrap();
    let (_sender, mut receiver) = b.stream().await;
    assert_eq!(soon(receiver.recv::<String>()).await.unwrap().unwrap(), "small");
}

/// Opens a stream on which `bytes` are said without the help of a `FrameSender`.
async fn say(link: &Link, bytes: &[u8]) -> quinn::SendStream {
    let (mut send, _) = link.0.current().unwrap().connection.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send
}

#[tokio::test]
async fn bad_frames_are_refused_and_the_writer_is_told() {
    let (_a, mut b, link) = pair().await;
    let good = codec::encode(&1u8, MAX_FRAME).unwrap();
    let newer = [&good[..4], &[codec::VERSION + 1], &good[5..]].concat();
    let malformed = [&good[..], &[0, 0, 0, 3, 1, 1, 255]].concat();
    let cases: [(&[u8], u32); 4] = [
        (&[0xff; 64], stream_code::OVERSIZED),
        (&[0, 0, 0, 1, 1], stream_code::MALFORMED),
        (&newer, stream_code::MALFORMED),
        (&malformed, stream_code::MALFORMED),
    ];
    for (bytes, code) in cases {
        let send = say(&link, bytes).await;
        let (_sender, mut receiver) = b.stream().await;
        let error = loop {
            match soon(receiver.recv::<bool>()).await {
                Ok(value) => assert_eq!(value, Some(true)),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, NetError::Codec(_)), "{error}");
        let stopped = soon(send.stopped()).await.unwrap();
        assert_eq!(stopped, Some(code.into()), "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_is_noticed() {
    let (_a, mut b, link) = pair().await;
    let frame = codec::encode(&"half of this", MAX_FRAME).unwrap();
    let mut send = say(&link, &frame[..9]).await;
    send.finish().unwrap();
    let (_sender, mut receiver) = b.stream().await;
    assert_eq!(soon(receiver.recv::<String>()).await, Err(NetError::Truncated));
}

#[tokio::test]
async fn receiving_can_be_interrupted() {
    let (_a, mut b, link) = pair().await;
    let frame = codec::encode(&"in two parts", MAX_FRAME).unwrap();
    let mut send = say(&link, &frame[..9]).await;
    let (_sender, mut receiver) = b.stream().await;
    // The first part is read, or not yet: either way nothing may be lost.
    for _ in 0..3 {
        assert!(receiver.recv::<String>().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    send.write_all(&frame[9..]).await.unwrap();
    assert_eq!(soon(receiver.recv::<String>()).await.unwrap().unwrap(), "in two parts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_reader_cancels_the_writer() {
    let (_a, mut b, link) = pair().await;
    let (mut sender, receiver) = link.open(0).await.unwrap();
    sender.send("please").await.unwrap();
    let (mut their_sender, _their_receiver) = b.stream().await;
    let stopped = their_sender.stopped();
    drop((sender, receiver));
    soon(stopped).await;
    let error = soon(their_sender.send("too late")).await.unwrap_err();
    assert!(matches!(error, NetError::Stopped(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_and_stops_carry_their_codes() {
    let (_a, mut b, link) = pair().await;
    let (mut sender, mut receiver) = link.open(0).await.unwrap();
    sender.send("x").await.unwrap();
    let (mut their_sender, mut their_receiver) = b.stream().await;
    soon(their_receiver.recv::<String>()).await.unwrap();
    their_sender.reset(77);
    assert_eq!(soon(receiver.recv::<String>()).await, Err(NetError::Reset(77)));
    their_receiver.stop(78);
    soon(sender.stopped()).await;
    assert_eq!(sender.send("y").await, Err(NetError::Stopped(78)));
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_and_an_interrupted_send_tears_the_stream() {
    let (_a, mut b, link) = pair().await;
    let (mut sender, _receiver) = link.open(0).await.unwrap();
    sender.send("first").await.unwrap();
    let (_their_sender, mut their_receiver) = b.stream().await;
    assert!(soon(their_receiver.recv::<String>()).await.is_ok());
    let large = vec![0u8; 8 << 20];
    assert!(sender.send(&large).now_or_never().is_none(), "nobody reads 8 MiB");
    assert_eq!(sender.send("next").await, Err(NetError::Interrupted));
    drop(sender);
    let error = soon(their_receiver.recv::<Vec<u8>>()).await.unwrap_err();
    assert_eq!(error, NetError::Reset(stream_code::CANCELLED.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_streams_at_once() {
    let (_a, mut b, link) = pair().await;
    let echo = tokio::spawn(async move {
        for _ in 0..64 {
            let (mut sender, mut receiver) = b.stream().await;
            tokio::spawn(async move {
                while let Some(value) = receiver.recv::<Vec<u8>>().await.unwrap() {
                    sender.send(&value).await.unwrap();
                }
            });
        }
        b
    });
    let asks = (0..64u8).map(|n| {
        let link = link.clone();
        async move {
            let (mut sender, mut receiver) = link.open(i32::from(n % 3)).await.unwrap();
            for round in 0..10u8 {
                let value = vec![n ^ round; 1_000 * usize::from(n) + 1];
                sender.send(&value).await.unwrap();
                assert!(receiver.recv::<Vec<u8>>().await.unwrap().unwrap() == value);
            }
        }
    });
    soon(futures::future::join_all(asks)).await;
    soon(echo).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_has_only_so_many_streams() {
    let mesh = Mesh::new();
    let a = mesh.node().await;
    let config = NetConfig { max_streams_per_peer: 4, ..NetConfig::default() };
    let mut b = Node::with_config(&mesh, Identity::generate(), |_| {}, config).await;
    let link = a.link_to(&b).await;
    b.up().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let (mut sender, receiver) = soon(link.open(0)).await.unwrap();
        sender.send("x").await.unwrap();
        open.push((sender, receiver, b.stream().await));
    }
    let fifth = link.open(0);
    tokio::pin!(fifth);
    assert!(fifth.as_mut().now_or_never().is_none());
    drop(open.pop());
    soon(fifth).await.unwrap();
}

#[tokio::test]
async fn datagrams_arrive_or_are_refused_for_their_size() {
    let (a, mut b, link) = pair().await;
    link.datagram(&[7; 1_100]).unwrap();
    match b.event().await {
        NetEvent::Datagram { from, bytes } => {
            assert_eq!((from, bytes), (a.id(), Bytes::from(vec![7; 1_100])));
        }
        other => panic!("{other:?}"),
    }
    let error = link.datagram(&[0; 70_000]).unwrap_err();
    assert!(matches!(error, NetError::DatagramTooLarge { size: 70_000, .. }), "{error}");
}

#[tokio::test]
async fn a_runtime_that_is_behind_loses_datagrams_and_nothing_else() {
    let mesh = Mesh::new();
    let a = mesh.node().await;
    let config = NetConfig { event_queue: 2, ..NetConfig::default() };
    let mut b = Node::with_config(&mesh, Identity::generate(), |_| {}, config).await;
    let link = a.link_to(&b).await;
    for n in 0..10u8 {
        link.datagram(&[n]).unwrap();
    }
    for _ in 0..5 {
        let (mut sender, _) = link.open(0).await.unwrap();
        sender.send("kept").await.unwrap();
    }
    b.up().await;
    let mut streams = 0;
    while streams < 5 {
        match b.event().await {
            NetEvent::Stream { mut receiver, .. } => {
                assert_eq!(soon(receiver.recv::<String>()).await.unwrap().unwrap(), "kept");
                streams += 1;
            }
            NetEvent::Datagram { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_peer_of_the_version_before_reads_everything_and_gets_nothing_newer() {
    let mesh = Mesh::new();
    let a = mesh.node().await;
    let older = |pass: &mut Pass| pass.versions = (OLDEST_VERSION, VERSION - 1);
    let mut b = Node::start(&mesh, Identity::generate(), older).await;
    let link = a.link_to(&b).await;
    b.up().await;
    assert_eq!(link.version(), VERSION - 1);
    let (mut sender, _receiver) = link.open(0).await.unwrap();
    let newer = sender.send_since(VERSION, "new").await;
    let error = CodecError::NotAgreed { needs: VERSION, agreed: VERSION - 1 };
    assert_eq!(newer, Err(NetError::Codec(error)));
    sender.send_since(OLDEST_VERSION, "old").await.unwrap();
    let (mut answer, mut receiver) = b.stream().await;
    assert_eq!(soon(receiver.recv::<String>()).await.unwrap().unwrap(), "old");
    // The side that was dialled keeps to the agreement as well.
    assert_eq!(answer.version(), VERSION - 1);
    assert!(answer.send_since(VERSION, "new").await.is_err());
}
