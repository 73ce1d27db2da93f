//! A process that dies is noticed by the end of its TCP connection; TCP alone ends nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::mortal::Mortal;
use super::relay::Relay;
use super::*;
use crate::config::STRANGERS;
use crate::lifeline::{LENGTH, Secret};

/// The promise for one death, whatever came before it.
const OUT: Micros = Micros::secs(1);

/// Waits for something that no event tells.
async fn until(mut wanted: impl FnMut() -> bool) {
    soon(async {
        while !wanted() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn without(config: &mut NetConfig) {
    config.lifelines = false;
}

async fn node(mesh: &Mesh, change: impl FnOnce(&mut NetConfig)) -> Node {
    let mut config = NetConfig::default();
    change(&mut config);
    Node::with_config(mesh, Identity::generate(), |_| {}, config).await
}

/// Whether the other side hangs up without having said anything.
fn hangs_up(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    match stream.read(&mut [0]) {
        Ok(size) => size == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_right_after_each_other_are_all_noticed_in_time() {
    let mesh = Mesh::new();
    let mut watcher = mesh.node().await;
    let mut mortals = Vec::new();
    for n in 0..8 {
        let mortal = Mortal::start(&mesh, Identity::generate(), loopback(0), 1);
        // Whoever dialled, both notice.
        let (from, to) =
            if n % 2 == 0 { (&watcher, &mortal.node) } else { (&mortal.node, &watcher) };
        let before = to.endpoint.counts().lifelines;
        from.link_to(to).await;
        until(|| to.endpoint.counts().lifelines > before).await;
        let (link, _) = watcher.up().await;
        mortals.push((mortal, link));
    }
    for (mortal, link) in mortals {
        mortal.die();
        let died = clock::mono();
        let why = soon(link.closed()).await;
        let took = clock::mono().since(died);
        assert!(took < OUT, "{took:?}: {why}");
        match watcher.event().await {
            NetEvent::LinkLost { gone, why, .. } => {
                assert!(gone && why.contains("its lifeline ended"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_tcp_alone_ends_nothing() {
    let mesh = Mesh::new();
    let (mut a, mut b) = (mesh.node().await, mesh.node().await);
    let relay = Relay::before(b.addr());
    let link = soon(a.endpoint.connect(b.id(), &[relay.addr])).await.unwrap();
    a.up().await;
    let (theirs, _) = b.up().await;
    for cut in 1..=3u64 {
        until(|| b.endpoint.counts().lifelines == cut).await;
        relay.cut_tcp();
        // Each new one proves itself again, which is after both sides have asked over QUIC.
        let alive = || assert!(!link.is_closed() && !theirs.is_closed());
        until(|| {
            alive();
            b.endpoint.counts().lifelines == cut + 1
        })
        .await;
    }
    assert_eq!(relay.passed(), 4);
    let (mut sender, _receiver) = link.open(0).await.unwrap();
    sender.send("still here").await.unwrap();
    let (_sender, mut receiver) = b.stream().await;
    assert_eq!(soon(receiver.recv::<String>()).await.unwrap().unwrap(), "still here");
    // Empty datagrams asked; neither runtime was told of one.
    a.nothing_more();
    b.nothing_more();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_proof_is_dropped_unheard() {
    let mesh = Mesh::new();
    let (a, mut b) = (mesh.node().await, mesh.node().await);
    let link = a.link_to(&b).await;
    b.up().await;
    until(|| b.endpoint.counts().lifelines == 1).await;
    let secret = Secret::of(&link.0.current().unwrap().connection).unwrap();
    let (used, unused) = (secret.proof(0), secret.proof(1));
    let changed = |at: usize| {
        let mut proof = unused;
        proof[at] ^= 1;
        proof
    };
    // Seen on the way; another version; a later number; a proof that is almost right.
    for proof in [used, changed(0), changed(12), changed(LENGTH - 1)] {
        let mut stream = TcpStream::connect(b.addr()).unwrap();
        stream.write_all(&proof).unwrap();
        let hangs_up = tokio::task::spawn_blocking(move || hangs_up(&mut stream));
        assert!(soon(hangs_up).await.unwrap());
    }
    until(|| b.endpoint.counts().lifelines_refused == 4).await;
    assert_eq!(b.endpoint.counts().lifelines, 1);
    // The true one is taken in place of the first, which then ends.
    let mut stream = TcpStream::connect(b.addr()).unwrap();
    stream.write_all(&unused).unwrap();
    until(|| b.endpoint.counts().lifelines == 2).await;
    assert!(!link.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_take_no_more_than_their_places() {
    let mesh = Mesh::new();
    let (a, mut b) = (mesh.node().await, mesh.node().await);
    let crowd: Vec<TcpStream> =
        (0..STRANGERS + 20).map(|_| TcpStream::connect(b.addr()).unwrap()).collect();
    until(|| b.endpoint.counts().turned_away >= 20).await;
    // A link comes up all the same, and so does its lifeline once the silent ones are gone.
    let link = a.link_to(&b).await;
    b.up().await;
    until(|| b.endpoint.counts().lifelines == 1).await;
    until(|| b.endpoint.counts().lifelines_refused >= 1).await;
    assert!(!link.is_closed());
    drop(crowd);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_lifelines_is_as_good() {
    let mesh = Mesh::new();
    for dialled_by_the_old_one in [false, true] {
        let (new, mut old) = (node(&mesh, |_| {}).await, node(&mesh, without).await);
        let (from, to) = if dialled_by_the_old_one { (&old, &new) } else { (&new, &old) };
        from.link_to(to).await;
        old.up().await;
        let link = soon(new.endpoint.connect(old.id(), &[old.addr()])).await.unwrap();
        let (mut sender, _receiver) = link.open(0).await.unwrap();
        sender.send("hello").await.unwrap();
        let (_sender, mut receiver) = old.stream().await;
        assert_eq!(soon(receiver.recv::<String>()).await.unwrap().unwrap(), "hello");
        assert_eq!(new.endpoint.counts().lifelines, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lifeline_a_death_is_still_noticed() {
    let mesh = Mesh::new();
    let mut a = node(&mesh, without).await;
    let mortal = Mortal::start(&mesh, Identity::generate(), loopback(0), 1);
    let link = a.link_to(&mortal.node).await;
    a.up().await;
    let start = clock::mono();
    mortal.die();
    let why = soon(link.closed()).await;
    assert!(why.contains("port is closed"), "{why}");
    assert!(clock::mono().since(start) < Micros::millis(2_500));
    a.lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_tcp_port_is_taken_works_without() {
    let mesh = Mesh::new();
    let taken = TcpListener::bind(loopback(0)).unwrap();
    let listen = taken.local_addr().unwrap();
    let config = NetConfig::default();
    let mut b = Node::at(&mesh, Identity::generate(), |_| {}, config, listen).await;
    assert_eq!(b.addr(), listen);
    let a = mesh.node().await;
    let link = a.link_to(&b).await;
    b.up().await;
    // The other program has nothing to say either: that is asked about and then ends nothing.
    let (stream, _) = taken.accept().unwrap();
    drop((stream, taken));
    let (mut sender, _receiver) = link.open(0).await.unwrap();
    sender.send("still here").await.unwrap();
    let (_sender, mut receiver) = b.stream().await;
    assert_eq!(soon(receiver.recv::<String>()).await.unwrap().unwrap(), "still here");
    assert!(!link.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tcp_port_is_free_after_a_shutdown() {
    let mesh = Mesh::new();
    let (a, mut b) = (mesh.node().await, mesh.node().await);
    a.link_to(&b).await;
    b.up().await;
    until(|| b.endpoint.counts().lifelines == 1).await;
    let listen = b.addr();
    soon(b.endpoint.shutdown()).await;
    let again = std::net::TcpListener::bind(listen);
    assert!(again.is_ok(), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_families_have_lifelines() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        // A machine without IPv6 has only one family.
        return;
    }
    let mesh = Mesh::new();
    let any = "[::]:0".parse().unwrap();
    let config = NetConfig::default();
    let mut b = Node::at(&mesh, Identity::generate(), |_| {}, config, any).await;
    let mut linked = Vec::new();
    for (ip, lifelines) in [("127.0.0.1", 1), ("::1", 2)] {
        let config = NetConfig::default();
        let a = Node::at(&mesh, Identity::generate(), |_| {}, config, any).await;
        let addr = SocketAddr::new(ip.parse().unwrap(), b.addr().port());
        let link = soon(a.endpoint.connect(b.id(), &[addr])).await.unwrap();
        b.up().await;
        until(|| b.endpoint.counts().lifelines == lifelines).await;
        assert!(!link.is_closed());
        linked.push(a);
    }
}
