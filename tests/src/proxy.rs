//! A bad network between two nodes: a UDP proxy that loses, doubles, delays and reorders.
//!
//! Owns one listening socket and one socket per client, so that answers find their way back. The
//! fate of every packet is drawn from a seed; how many met which fate is counted, so that a test
//! can show that its network really was bad. Bounded: clients, packets held back, packet size.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use selvedge_base::Dice;

use crate::namespaces::enter;

/// Clients served: a test has a handful of nodes.
const CLIENTS: usize = 16;
/// Packets held back at once in each direction; more are passed on at once.
const HELD: usize = 64;
/// The largest UDP packet.
const PACKET_BYTES: usize = 65_536;
/// How often a thread without packets looks whether it should end or release what it holds.
const TICK: Duration = Duration::from_millis(2);

/// What happens to packets, in permille.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Lost.
    pub lost: u64,
    /// Sent twice.
    pub doubled: u64,
    /// Held back until `held_ticks` quiet ticks or later packets have passed: delay and reordering.
    pub held: u64,
    /// How many later packets or ticks of 2 ms a held packet waits for.
    pub held_ticks: u32,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// How many packets met which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Passed on once, at once.
    pub passed: u64,
    /// Lost.
    pub lost: u64,
    /// Sent twice.
    pub doubled: u64,
    /// Passed on late.
    pub held: u64,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// Where the target is.
    namespace: Option<String>,
    weather: Mutex<Weather>,
    cut: AtomicBool,
    ended: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    held: AtomicU64,
}

impl Proxy {
    /// A proxy on loopback in front of `target`.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn start(target: SocketAddr, weather: Weather, seed: u64) -> Result<Self> {
        Self::between([None, None], target, weather, seed)
    }

    /// A proxy that is the only way from one namespace to another: clients reach it on loopback
    /// in the first, it reaches `target` in the second.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn between(
        [clients, servers]: [Option<&str>; 2],
        target: SocketAddr,
        weather: Weather,
        seed: u64,
    ) -> Result<Self> {
        let socket = bind(clients)?;
        let addr = socket.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            namespace: servers.map(str::to_owned),
            weather: Mutex::new(weather),
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            passed: AtomicU64::default(),
            lost: AtomicU64::default(),
            doubled: AtomicU64::default(),
            held: AtomicU64::default(),
        });
        let inner = Arc::clone(&shared);
        let front = thread::spawn(move || front(&inner, &socket, seed));
        Ok(Self { addr, shared, threads: vec![front] })
    }

    /// Where clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// Loses everything, or no longer.
    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// What has happened so far.
    pub fn fates(&self) -> Fates {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Fates {
            passed: count(&self.shared.passed),
            lost: count(&self.shared.lost),
            doubled: count(&self.shared.doubled),
            held: count(&self.shared.held),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One direction's way of treating packets.
struct Road<'a> {
    shared: &'a Shared,
    dice: Dice,
    held: Vec<(u32, Vec<u8>, SocketAddr)>,
}

impl<'a> Road<'a> {
    fn new(shared: &'a Shared, dice: Dice) -> Self {
        Self { shared, dice, held: Vec::new() }
    }

    fn carry(&mut self, socket: &UdpSocket, packet: &[u8], to: SocketAddr) {
        let weather = *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = self.shared.cut.load(Ordering::Relaxed);
        let add = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        // Sending may fail while the other side restarts: the packet is lost, as on a wire.
        if cut || self.dice.chance(weather.lost) {
            add(&self.shared.lost);
        } else if self.dice.chance(weather.held) && self.held.len() < HELD {
            add(&self.shared.held);
            self.held.push((weather.held_ticks.max(1), packet.to_vec(), to));
        } else if self.dice.chance(weather.doubled) {
            add(&self.shared.doubled);
            let _ = socket.send_to(packet, to);
            let _ = socket.send_to(packet, to);
        } else {
            add(&self.shared.passed);
            let _ = socket.send_to(packet, to);
        }
    }

    /// A packet or a quiet tick has passed: held ones come nearer to their release.
    fn pass_time(&mut self, socket: &UdpSocket) {
        for (left, packet, to) in &mut self.held {
            *left -= 1;
            if *left == 0 {
                let _ = socket.send_to(packet, *to);
            }
        }
        self.held.retain(|(left, ..)| *left > 0);
    }
}

fn bind(namespace: Option<&str>) -> Result<UdpSocket> {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let socket = namespace.map_or_else(|| Ok(bind()), |name| enter(name, bind))??;
    socket.set_read_timeout(Some(TICK))?;
    Ok(socket)
}

fn front(shared: &Arc<Shared>, socket: &UdpSocket, seed: u64) {
    let mut road = Road::new(shared, Dice::keyed(seed, "to the target"));
    let mut backs: BTreeMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)> = BTreeMap::new();
    let mut packet = vec![0; PACKET_BYTES];
    while !shared.ended.load(Ordering::Relaxed) {
        if let Ok((count, from)) = socket.recv_from(&mut packet) {
            if !backs.contains_key(&from)
                && backs.len() < CLIENTS
                && let Ok(back) = start_back(shared, socket, from, seed)
            {
                backs.insert(from, back);
            }
            if let Some((out, _)) = backs.get(&from) {
                road.carry(out, &packet[..count], shared.target);
            }
        }
        if let Some((out, _)) = backs.values().next() {
            road.pass_time(out);
        }
    }
    for (_, thread) in backs.into_values() {
        let _ = thread.join();
    }
}

fn start_back(
    shared: &Arc<Shared>,
    socket: &UdpSocket,
    client: SocketAddr,
    seed: u64,
) -> Result<(Arc<UdpSocket>, JoinHandle<()>)> {
    let out = Arc::new(bind(shared.namespace.as_deref())?);
    let dice = Dice::keyed(seed ^ u64::from(client.port()), "to the client");
    let (shared, socket, inward) = (Arc::clone(shared), socket.try_clone()?, Arc::clone(&out));
    let thread = thread::spawn(move || {
        let mut road = Road::new(&shared, dice);
        let mut packet = vec![0; PACKET_BYTES];
        while !shared.ended.load(Ordering::Relaxed) {
            if let Ok((count, _)) = inward.recv_from(&mut packet) {
                road.carry(&socket, &packet[..count], client);
            }
            road.pass_time(&socket);
        }
    });
    Ok((out, thread))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn count_received(weather: Weather) -> (usize, Fates) {
        let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        target.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let proxy = Proxy::start(target.local_addr().unwrap(), weather, 7).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut packet = [0; 16];
        let mut received = 0;
        for number in 0..200u8 {
            client.send_to(&[number], proxy.addr()).unwrap();
        }
        while target.recv_from(&mut packet).is_ok() {
            received += 1;
        }
        (received, proxy.fates())
    }

    #[test]
    fn good_weather_changes_nothing() {
        let (received, fates) = count_received(Weather::default());
        assert_eq!((received, fates.passed, fates.lost), (200, 200, 0));
    }

    #[test]
    fn every_fate_happens_and_is_counted() {
        let weather = Weather { lost: 200, doubled: 100, held: 100, held_ticks: 3 };
        let (received, fates) = count_received(weather);
        assert!(fates.lost > 10 && fates.doubled > 3 && fates.held > 3, "{fates:?}");
        let expected = fates.passed + 2 * fates.doubled + fates.held;
        assert_eq!(received as u64, expected, "{fates:?}");
    }

    #[test]
    fn answers_come_back() {
        let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::start(target.local_addr().unwrap(), Weather::default(), 7).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.send_to(b"ping", proxy.addr()).unwrap();
        let mut packet = [0; 16];
        let (_, from) = target.recv_from(&mut packet).unwrap();
        target.send_to(b"pong", from).unwrap();
        let (count, from) = client.recv_from(&mut packet).unwrap();
        assert_eq!((&packet[..count], from), (&b"pong"[..], proxy.addr()));
    }
}
