//! What those can do who are not members: nothing, for a short time, a few at once.

use std::net::UdpSocket;

use quinn::{Connection, VarInt};
use selvedge_base::codec;
use selvedge_proto::wire::{HelloReply, Knock, KnockReply, MAX_HELLO_BYTES};

use super::*;
use crate::config::{GREETING, STRANGERS};
use crate::frame::{FrameReceiver, FrameSender};
use crate::link::Lane;
use crate::tls::{Credentials, MEMBER_ALPN, SERVER_NAME};

/// Somebody with a QUIC library and a key.
struct Stranger {
    identity: Identity,
    quinn: quinn::Endpoint,
}

impl Stranger {
    fn new() -> Self {
        let quinn = quinn::Endpoint::client(loopback(0)).unwrap();
        Self { identity: Identity::generate(), quinn }
    }

    async fn reach(&self, addr: SocketAddr, alpn: &[u8]) -> Result<Connection, String> {
        let credentials = Credentials::new(&self.identity).unwrap();
        let (config, _) = credentials.client(alpn, None).unwrap();
        let connecting = self.quinn.connect_with(config, addr, SERVER_NAME).unwrap();
        soon(connecting).await.map_err(|error| crate::error::describe(&error))
    }

    async fn say(&self, node: &Node, hello: &[u8]) -> (Connection, FrameSender, FrameReceiver) {
        let connection = self.reach(node.addr(), MEMBER_ALPN).await.unwrap();
        let (mut send, recv) = connection.open_bi().await.unwrap();
        // A refusal may come before all of it was said.
        let _said = send.write_all(hello).await;
        let lane = Lane::new(connection.clone(), self.identity.node_id());
        let (sender, receiver) = lane.frame((send, recv), MAX_HELLO_BYTES);
        (connection, sender, receiver)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_counted_and_harms_nobody() {
    let (_a, mut b, link) = pair().await;
    let socket = UdpSocket::bind(loopback(0)).unwrap();
    let mut dice = crate::entropy::dice();
    let mut sent = 0;
    for size in [0, 1, 20, 21, 50, 1_200, 1_452, 9_000] {
        for first in [0x00, 0x40, 0x80, 0xc0, 0xff, b'G'] {
            let mut packet = vec![0; size];
            dice.fill(&mut packet);
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            socket.send_to(&packet, b.addr()).unwrap();
            sent += 1;
        }
    }
    // What was sent before this has been looked at when this arrives.
    let (mut sender, _receiver) = link.open(0).await.unwrap();
    sender.send("still here").await.unwrap();
    let (_sender, mut receiver) = b.stream().await;
    assert_eq!(soon(receiver.recv::<String>()).await.unwrap().unwrap(), "still here");
    let strays = b.endpoint.counts().strays;
    assert!((sent / 2..=sent + 1).contains(&strays), "{strays} of {sent}");
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let mesh = Mesh::new();
    let node = mesh.node().await;
    let error = Stranger::new().reach(node.addr(), b"h3").await.unwrap_err();
    assert!(error.contains("does not speak this protocol"), "{error}");
}

#[tokio::test]
async fn nobody_comes_in_without_a_certificate() {
    let mesh = Mesh::new();
    let mut node = mesh.node().await;
    let stranger = Stranger::new();
    let (config, _) = Credentials::new(&stranger.identity)
        .unwrap()
        .client_without_certificate(MEMBER_ALPN)
        .unwrap();
    let connecting = stranger.quinn.connect_with(config, node.addr(), SERVER_NAME).unwrap();
    // A client learns only afterwards that its certificate was missed.
    if let Ok(connection) = soon(connecting).await {
        soon(connection.closed()).await;
    }
    assert!(node.endpoint.links().is_empty());
    node.nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_not_waited_for() {
    let mesh = Mesh::new();
    let mut node = mesh.node().await;
    let stranger = Stranger::new();
    let start = clock::mono();
    let connection = stranger.reach(node.addr(), MEMBER_ALPN).await.unwrap();
    // Before its Hello a stranger has one stream, and its datagrams reach nobody.
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let second = connection.open_bi();
    tokio::pin!(second);
    assert!(futures::FutureExt::now_or_never(second.as_mut()).is_none());
    connection.send_datagram(b"psst".as_slice().into()).unwrap();
    send.write_all(&[0, 0]).await.unwrap();
    soon(connection.closed()).await;
    let waited = clock::mono().since(start);
    let limit = GREETING + Duration::from_secs(1);
    assert!(Duration::from(waited) < limit, "{waited:?}");
    node.nothing_more();
    assert!(node.endpoint.counts().failed_handshakes > 0);
}

#[tokio::test]
async fn an_unreadable_hello_is_refused_by_name() {
    let mesh = Mesh::new();
    let mut node = mesh.node().await;
    let hello = codec::encode(&node.pass.hello(), MAX_HELLO_BYTES).unwrap();
    let newer = [&hello[..4], &[codec::VERSION + 1], &hello[5..]].concat();
    let said_newer = format!("version {}", codec::VERSION + 1);
    let huge = [&[0, 255, 255, 255], &hello[4..]].concat();
    let cut = [&[0, 0, 0, 9], &hello[4..13]].concat();
    for (said, code, word) in [
        (newer, Code::Unsupported, said_newer.as_str()),
        (huge, Code::TooLarge, "over the limit"),
        (cut, Code::InvalidRequest, "cannot be read"),
    ] {
        let (connection, _sender, mut receiver) = Stranger::new().say(&node, &said).await;
        match soon(receiver.recv::<KnockReply>()).await {
            Ok(Some(KnockReply::Refused(refusal))) => {
                assert_eq!(refusal.code, code);
                assert!(refusal.message.contains(word), "{refusal}");
            }
            other => panic!("{other:?}"),
        }
        soon(connection.closed()).await;
    }
    node.nothing_more();
}

#[tokio::test]
async fn a_stolen_hello_opens_nothing() {
    let mesh = Mesh::new();
    let (member, mut node) = (mesh.node().await, mesh.node().await);
    // Somebody who once was a member still knows the mesh's id.
    let stranger = Stranger::new();
    let connection = stranger.reach(node.addr(), MEMBER_ALPN).await.unwrap();
    let lane = Lane::new(connection.clone(), stranger.identity.node_id());
    let (mut sender, mut receiver) =
        lane.frame(connection.open_bi().await.unwrap(), MAX_HELLO_BYTES);
    let mut secret = [0; 32];
    connection.export_keying_material(&mut secret, b"selvedge knock", b"").unwrap();
    sender.send(&Knock::new(&node.pass.mesh, &secret, true)).await.unwrap();
    let known = soon(receiver.recv::<KnockReply>()).await.unwrap();
    let expected = Knock::new(&node.pass.mesh, &secret, false);
    assert_eq!(known, Some(KnockReply::Known(expected)));
    sender.send(&member.pass.hello()).await.unwrap();
    let reply = soon(receiver.recv::<HelloReply>()).await.unwrap();
    assert!(matches!(reply, Some(HelloReply::Refused(_))), "{reply:?}");
    node.nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_strangers_is_bounded() {
    let mesh = Mesh::new();
    let mut node = mesh.node().await;
    let stranger = Stranger::new();
    let tries = (0..STRANGERS + 20).map(|_| stranger.reach(node.addr(), MEMBER_ALPN));
    let reached = futures::future::join_all(tries).await;
    let inside = reached.iter().flatten().count();
    assert!(inside <= STRANGERS, "{inside}");
    let turned_away = node.endpoint.counts().turned_away;
    assert!(turned_away >= 20, "{turned_away}");
    for connection in reached.into_iter().flatten() {
        connection.close(VarInt::from_u32(0), b"");
    }
    node.nothing_more();
}
