//! Links come up between members and only there, once per pair, and end at once.

use std::net::UdpSocket;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::mortal::Mortal;
use super::*;
use crate::NetError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_link() {
    let mesh = Mesh::new();
    let (mut a, mut b) = (mesh.node().await, mesh.node().await);
    let link = a.link_to(&b).await;
    assert_eq!((link.node(), link.remote_addr()), (b.id(), Some(b.addr())));
    assert_eq!(link.hello().credential.node(), b.id());
    assert_eq!(link.version(), VERSION);
    assert!(link.rtt().unwrap() < Micros::secs(1));
    let (up, dialled) = a.up().await;
    assert_eq!((up.node(), dialled), (b.id(), true));
    let (up, dialled) = b.up().await;
    assert_eq!((up.node(), dialled), (a.id(), false));
    assert_eq!(b.endpoint.links().len(), 1);
    assert_eq!(b.endpoint.link(&a.id()).unwrap().remote_addr(), Some(a.addr()));
    // A second dial finds the link there is.
    let again = a.link_to(&b).await;
    assert_eq!(again.connections(), 1);
    a.nothing_more();
    b.nothing_more();
}

#[tokio::test]
async fn another_node_at_the_address_is_not_taken_for_the_wanted_one() {
    let mesh = Mesh::new();
    let (a, b) = (mesh.node().await, mesh.node().await);
    let wanted = Identity::generate().node_id();
    let error = soon(a.endpoint.connect(wanted, &[b.addr()])).await.unwrap_err();
    let NetError::Unreachable(attempts) = &error else { panic!("{error}") };
    assert_eq!(attempts[0].addr, b.addr());
    assert!(attempts[0].why.contains(&b.id().to_string()), "{error}");
    assert_eq!(soon(a.endpoint.connect(a.id(), &[b.addr()])).await.unwrap_err(), NetError::Myself);
    let none = soon(a.endpoint.connect(wanted, &[])).await.unwrap_err();
    assert_eq!(none, NetError::NoAddress);
}

#[tokio::test]
async fn an_address_is_enough_to_link() {
    let mesh = Mesh::new();
    let (a, mut b) = (mesh.node().await, mesh.node().await);
    let link = soon(a.endpoint.connect_unknown(b.addr())).await.unwrap();
    assert_eq!(link.node(), b.id());
    b.up().await;
    let own = soon(a.endpoint.connect_unknown(a.addr())).await.unwrap_err();
    assert_eq!(own, NetError::Myself);
}

#[tokio::test]
async fn a_stranger_is_refused_politely() {
    let (ours, theirs) = (Mesh::new(), Mesh::new());
    let (mut member, mut stranger) = (ours.node().await, theirs.node().await);
    for pass in [&member.pass, &stranger.pass] {
        let hello_seen: crate::tests::Hook = Box::new(|_, _| panic!("a stranger's hello was read"));
        assert!(pass.on_admit.set(hello_seen).is_ok());
    }
    // Whoever dials, neither learns anything of the other's mesh.
    for (a, b) in [(&stranger, &member), (&member, &stranger)] {
        let error = soon(a.endpoint.connect(b.id(), &[b.addr()])).await.unwrap_err();
        let NetError::RefusedByPeer { node, refusal } = &error else { panic!("{error}") };
        assert_eq!((*node, refusal.code), (b.id(), Code::Unauthorized));
        assert_eq!(refusal.message, "not a member of this mesh");
    }
    assert!(stranger.endpoint.links().is_empty() && member.endpoint.links().is_empty());
    member.nothing_more();
    stranger.nothing_more();
}

#[tokio::test]
async fn the_dialler_refuses_too_and_then_neither_side_has_a_link() {
    let mesh = Mesh::new();
    let (a, mut b) = (mesh.node().await, mesh.node().await);
    a.pass.revoked.lock().push(b.id());
    let error = soon(a.endpoint.connect(b.id(), &[b.addr()])).await.unwrap_err();
    assert!(matches!(error, NetError::RefusedHere { .. }), "{error}");
    a.pass.revoked.lock().clear();
    a.link_to(&b).await;
    // The refused attempt left no trace in front of this.
    b.up().await;
    b.nothing_more();
}

#[tokio::test]
async fn versions_that_do_not_meet_are_named() {
    let mesh = Mesh::new();
    let a = mesh.node().await;
    let newer = |pass: &mut Pass| pass.versions = (VERSION + 1, VERSION + 2);
    let b = Node::start(&mesh, Identity::generate(), newer).await;
    let error = soon(a.endpoint.connect(b.id(), &[b.addr()])).await.unwrap_err();
    let NetError::RefusedByPeer { refusal, .. } = &error else { panic!("{error}") };
    assert_eq!(refusal.code, Code::Unsupported);
    assert!(refusal.message.contains(&format!("{} to {}", VERSION + 1, VERSION + 2)), "{error}");
}

/// Holds the first two decisions of two nodes until both are there: the first is about the other
/// side's dial, the second about the answer to the own one. So neither dial can overtake.
fn meet(nodes: [&Node; 2]) {
    let turns = Arc::new([Barrier::new(2), Barrier::new(2)]);
    for node in nodes {
        let (turns, calls) = (Arc::clone(&turns), AtomicUsize::new(0));
        let hook = move |_: &Pass, _| {
            if let Some(turn) = turns.get(calls.fetch_add(1, Ordering::SeqCst)) {
                tokio::task::block_in_place(|| turn.wait());
            }
        };
        assert!(node.pass.on_admit.set(Box::new(hook)).is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_dial_at_once_and_have_one_link() {
    let mesh = Mesh::new();
    let (mut a, mut b) = (mesh.node().await, mesh.node().await);
    meet([&a, &b]);
    let dial = |from: &Node, to: &Node| {
        let (endpoint, node, addr) = (from.endpoint.clone(), to.id(), to.addr());
        tokio::spawn(async move { endpoint.connect(node, &[addr]).await.unwrap() })
    };
    let (from_a, from_b) = (dial(&a, &b), dial(&b, &a));
    let (from_a, from_b) = (soon(from_a).await.unwrap(), soon(from_b).await.unwrap());
    let (a_up, _) = a.up().await;
    let (b_up, _) = b.up().await;
    assert_eq!((a_up.node(), b_up.node()), (b.id(), a.id()));
    // A stream in use survives the move to one connection, whichever it was opened on.
    let (mut sender, receiver) = from_a.open(0).await.unwrap();
    sender.send("first").await.unwrap();
    let (their_sender, mut their_receiver) = b.stream().await;
    assert_eq!(soon(their_receiver.recv::<String>()).await.unwrap().unwrap(), "first");
    let doubled = || a.endpoint.counts().links == 2 && b.endpoint.counts().links == 2;
    soon(async {
        while !doubled() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    sender.send("second").await.unwrap();
    assert_eq!(soon(their_receiver.recv::<String>()).await.unwrap().unwrap(), "second");
    drop((sender, receiver, their_sender, their_receiver));
    while let Some(lane) = [from_a.0.spare(), from_b.0.spare()].concat().pop() {
        soon(lane.connection.closed()).await;
    }
    assert_eq!((from_a.connections(), from_b.connections()), (1, 1));
    let smaller = a.id().min(b.id());
    assert_eq!(from_a.0.current().unwrap().dialler, smaller);
    assert_eq!(from_b.0.current().unwrap().dialler, smaller);
    assert!(!from_a.is_closed() && !from_b.is_closed());
    a.nothing_more();
    b.nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cutting_a_node_off_takes_effect_at_once() {
    let (mut a, mut b, link) = pair().await;
    let (mut sender, mut receiver) = link.open(0).await.unwrap();
    sender.send("work").await.unwrap();
    let (_their_sender, mut their_receiver) = b.stream().await;
    let start = clock::mono();
    a.endpoint.close(&b.id(), "revoked by the operator");
    assert!(a.endpoint.link(&b.id()).is_none(), "at once");
    assert!(link.is_closed());
    assert!(receiver.recv::<String>().await.is_err());
    assert!(link.open(0).await.is_err());
    assert!(link.datagram(b"x").is_err());
    assert_eq!(soon(link.closed()).await, "revoked by the operator");
    assert_eq!(a.lost().await, (b.id(), "revoked by the operator".into()));
    let (node, why) = b.lost().await;
    assert_eq!(node, a.id());
    assert!(why.contains("revoked by the operator"), "{why}");
    assert_eq!(soon(their_receiver.recv::<String>()).await.unwrap().unwrap(), "work");
    assert!(soon(their_receiver.recv::<String>()).await.is_err());
    assert!(clock::mono().since(start) < Micros::secs(1));
}

#[tokio::test]
async fn a_cut_during_the_hello_is_not_missed() {
    let mesh = Mesh::new();
    let (a, mut b) = (mesh.node().await, mesh.node().await);
    let endpoint = b.endpoint.clone();
    let first = AtomicBool::new(true);
    let hook = move |pass: &Pass, peer: NodeId| {
        if first.swap(false, Ordering::SeqCst) {
            pass.revoked.lock().push(peer);
            endpoint.close(&peer, "revoked");
        }
    };
    assert!(b.pass.on_admit.set(Box::new(hook)).is_ok());
    let link = soon(a.endpoint.connect(b.id(), &[b.addr()])).await;
    // The other side had said yes before the cut: what it gave is taken back at once.
    if let Ok(link) = link {
        let why = soon(link.closed()).await;
        assert!(why.contains("revoked"), "{why}");
    }
    assert!(b.endpoint.links().is_empty());
    b.nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_peer_replaces_its_former_self() {
    let mesh = Mesh::new();
    let mut a = mesh.node().await;
    let home = crate::scratch::Scratch::new();
    let load = || Identity::load_or_create(&home.path().join("node.key")).unwrap();
    let before = Node::start(&mesh, load(), |pass| pass.incarnation = 1).await;
    let old = before.link_to(&a).await;
    a.up().await;
    let after = Node::start(&mesh, load(), |pass| pass.incarnation = 2).await;
    after.link_to(&a).await;
    let (node, why) = a.lost().await;
    assert_eq!(node, before.id());
    assert!(why.contains("new process"), "{why}");
    let (link, _) = a.up().await;
    assert_eq!((link.hello().incarnation, link.remote_addr()), (2, Some(after.addr())));
    soon(old.closed()).await;
    a.nothing_more();
}

#[tokio::test]
async fn the_address_that_answers_wins_and_the_others_are_named() {
    let mesh = Mesh::new();
    let (a, b) = (mesh.node().await, mesh.node().await);
    let silent: Vec<_> = (0..2).map(|_| UdpSocket::bind(loopback(0)).unwrap()).collect();
    let mut addrs: Vec<_> = silent.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let error = soon(a.endpoint.connect(b.id(), &addrs)).await.unwrap_err();
    let NetError::Unreachable(attempts) = &error else { panic!("{error}") };
    assert_eq!(attempts.len(), 2, "{error}");
    assert!(addrs.iter().all(|addr| error.to_string().contains(&addr.to_string())), "{error}");
    addrs.push(b.addr());
    let start = clock::mono();
    soon(a.endpoint.connect(b.id(), &addrs)).await.unwrap();
    assert!(clock::mono().since(start) < Micros::secs(2), "did not wait for the silent ones");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_is_told() {
    let (mut a, mut b, _link) = pair().await;
    soon(a.endpoint.shutdown()).await;
    let (node, why) = b.lost().await;
    assert_eq!(node, a.id());
    assert!(why.contains("shutting down"), "{why}");
    assert_eq!(a.lost().await.0, b.id());
    let error = soon(b.endpoint.connect(a.id(), &[a.addr()])).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let mesh = Mesh::new();
    let a = mesh.node().await;
    let identity = Arc::new(Identity::generate());
    let gate: Arc<dyn Gate> = Arc::new(mesh.pass(&identity));
    let error = Endpoint::bind(identity, a.addr(), gate, NetConfig::default()).await.unwrap_err();
    let expected = format!("cannot listen on {}/udp: another program uses this port", a.addr());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_full_node_says_so() {
    let mesh = Mesh::new();
    let config = NetConfig { max_links: 1, ..NetConfig::default() };
    let mut full = Node::with_config(&mesh, Identity::generate(), |_| {}, config).await;
    let (a, b) = (mesh.node().await, mesh.node().await);
    a.link_to(&full).await;
    full.up().await;
    let late = soon(b.endpoint.connect(full.id(), &[full.addr()])).await;
    let why = match late {
        Ok(link) => soon(link.closed()).await,
        Err(error) => error.to_string(),
    };
    assert!(why.contains("1 links, its limit"), "{why}");
    full.nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_came_back_says_that_the_old_one_is_gone() {
    let mesh = Mesh::new();
    let mut a = mesh.node().await;
    let home = crate::scratch::Scratch::new();
    let load = || Identity::load_or_create(&home.path().join("node.key")).unwrap();
    let before = Mortal::start(&mesh, load(), loopback(0), 1);
    let addr = before.node.addr();
    let link = a.link_to(&before.node).await;
    a.up().await;
    before.die();
    let start = clock::mono();
    let after = Mortal::start(&mesh, load(), addr, 2);
    let why = soon(link.closed()).await;
    assert!(why.contains("restarted"), "{why}");
    assert!(clock::mono().since(start) < Micros::millis(2_500));
    a.lost().await;
    let again = a.link_to(&after.node).await;
    assert_eq!(again.hello().incarnation, 2);
    after.die();
}

#[tokio::test]
async fn one_socket_serves_both_families() {
    if UdpSocket::bind("[::1]:0").is_err() {
        // A machine without IPv6 has only one family.
        return;
    }
    let mesh = Mesh::new();
    let any = "[::]:0".parse().unwrap();
    let config = NetConfig::default;
    let mut b = Node::at(&mesh, Identity::generate(), |_| {}, config(), any).await;
    let mut linked = Vec::new();
    for ip in ["127.0.0.1", "::1"] {
        let a = Node::at(&mesh, Identity::generate(), |_| {}, config(), any).await;
        let addr = SocketAddr::new(ip.parse().unwrap(), b.addr().port());
        let link = soon(a.endpoint.connect(b.id(), &[addr])).await.unwrap();
        assert_eq!(link.remote_addr(), Some(addr));
        let (link, _) = b.up().await;
        assert_eq!(link.remote_addr().unwrap().ip().to_string(), ip);
        linked.push(a);
    }
}
