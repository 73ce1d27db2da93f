//! A machine in the middle that passes UDP and TCP on, until it is told to cut TCP.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::*;

pub(super) struct Relay {
    pub(super) addr: SocketAddr,
    /// TCP connections that were passed on so far.
    passed: Arc<AtomicUsize>,
    cuts: broadcast::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Stands in front of `target` for one client.
    pub(super) fn before(target: SocketAddr) -> Self {
        let (udp, tcp) = crate::sockets::open(loopback(0), true).unwrap();
        let addr = udp.local_addr().unwrap();
        let udp = UdpSocket::from_std(udp).unwrap();
        let tcp = TcpListener::from_std(tcp.unwrap()).unwrap();
        let (cuts, passed) = (broadcast::channel(1).0, Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        tasks.spawn(pass_datagrams(udp, target));
        tasks.spawn(pass_streams(tcp, target, cuts.clone(), Arc::clone(&passed)));
        Self { addr, passed, cuts, _tasks: tasks }
    }

    pub(super) fn cut_tcp(&self) {
        self.cuts.send(()).unwrap();
    }

    pub(super) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

async fn pass_datagrams(front: UdpSocket, target: SocketAddr) {
    let back = UdpSocket::bind(loopback(0)).await.unwrap();
    back.connect(target).await.unwrap();
    let (mut there, mut here) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    loop {
        tokio::select! {
            Ok((size, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                let _sent = back.send(&there[..size]).await;
            }
            // The target's port may be closed: that is what is being tested.
            answer = back.recv(&mut here) => if let (Ok(size), Some(client)) = (answer, client) {
                let _sent = front.send_to(&here[..size], client).await;
            }
        }
    }
}

async fn pass_streams(
    front: TcpListener,
    target: SocketAddr,
    cuts: broadcast::Sender<()>,
    passed: Arc<AtomicUsize>,
) {
    let mut open = JoinSet::new();
    while let Ok((mut client, _)) = front.accept().await {
        let mut cut = cuts.subscribe();
        let Ok(mut back) = TcpStream::connect(target).await else { continue };
        passed.fetch_add(1, Ordering::SeqCst);
        open.spawn(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut back) => {}
                _ = cut.recv() => {}
            }
        });
    }
}
