//! Being dialled: from a stranger's first packet to a link.
//!
//! Owns the bounds on strangers (how many, how many from one address, how long) and the tasks
//! that serve a connection. Nothing of a stranger's reaches the runtime before its Hello was
//! admitted, and of a joiner's nothing but its messages.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use quinn::{Connection, ConnectionError, Incoming, VarInt};
use selvedge_base::codec::MAX_FRAME;
use selvedge_base::{Blame, Code, Micros, NodeId, Refusal, Retry, Stage};
use selvedge_proto::wire::MAX_HELLO_BYTES;
use tokio::time::{Instant, timeout_at};

use crate::config::{self, GREETING, STRANGERS, STRANGERS_PER_ADDRESS, STRANGERS_UNPROVEN};
use crate::counters::NetCounters;
use crate::endpoint::Shared;
use crate::error::{CloseCode, NetError, describe};
use crate::event::NetEvent;
use crate::greet;
use crate::join::{JoinLink, JoinSide};
use crate::link::{Lane, Session};
use crate::registry::Registered;
use crate::tls::{self, JOIN_ALPN, MEMBER_ALPN};
use crate::vigil::Vigil;

/// Takes connections until the endpoint closes.
pub(crate) async fn listen(shared: Arc<Shared>) {
    let door = Arc::new(Door::new(STRANGERS, STRANGERS_PER_ADDRESS));
    while let Some(incoming) = shared.quinn.accept().await {
        let addr = incoming.remote_address().ip().to_canonical();
        let crowded = door.count() >= STRANGERS_UNPROVEN;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            // Fails only for what was just excluded.
            let _sent = incoming.retry();
            continue;
        }
        let Some(place) = door.enter(addr) else {
            NetCounters::count(&shared.counters.turned_away);
            incoming.refuse();
            continue;
        };
        tokio::spawn(meet(Arc::clone(&shared), incoming, place));
    }
}

/// Serves a connection that is part of a link, until it is gone.
pub(crate) async fn serve(shared: Arc<Shared>, session: Arc<Session>, lane: Lane) {
    shared.registry.announce_up(&session).await;
    let connection = lane.connection.clone();
    let mut vigil = Vigil::start(&shared, &lane);
    let why = loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok(halves) => {
                    let (sender, receiver) = lane.frame(halves, MAX_FRAME);
                    let event = NetEvent::Stream { from: session.node, sender, receiver };
                    if shared.events.send(event).await.is_err() {
                        break describe(&connection.closed().await);
                    }
                }
                Err(error) => break parting(&session, &error),
            },
            datagram = connection.read_datagram() => match datagram {
                // Somebody asks whether this process lives; QUIC has answered.
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    let event = NetEvent::Datagram { from: session.node, bytes };
                    if shared.events.try_send(event).is_err() {
                        NetCounters::count(&shared.counters.dropped_datagrams);
                    }
                }
                Err(error) => break parting(&session, &error),
            },
            why = vigil.death() => {
                session.mark_gone();
                CloseCode::Done.close(&connection, why);
                break why.to_owned();
            }
        }
    };
    session.prune(&why);
    if session.why_ended().is_some() {
        shared.registry.announce_lost(&session).await;
    }
}

/// Why a connection ended; a peer that says it is going down is believed.
fn parting(session: &Session, error: &ConnectionError) -> String {
    if let ConnectionError::ApplicationClosed(close) = error
        && close.error_code == VarInt::from_u32(CloseCode::ShuttingDown as u32)
    {
        session.mark_gone();
    }
    describe(error)
}

/// From the first packet to a link, a conversation about joining, or nothing.
async fn meet(shared: Arc<Shared>, incoming: Incoming, place: Place) {
    let deadline = Instant::now() + GREETING;
    let greeted = timeout_at(deadline, handshake(&shared, incoming)).await;
    let Ok(Some((connection, node, protocol))) = greeted else {
        NetCounters::count(&shared.counters.failed_handshakes);
        return;
    };
    let lane = Lane::new(connection, node);
    if protocol == JOIN_ALPN {
        return ask_to_join(&shared, (node, lane), deadline, place).await;
    }
    let connection = lane.connection.clone();
    let welcomed = match timeout_at(deadline, welcome(&shared, node, &lane)).await {
        Ok(welcomed) => welcomed,
        Err(_) => Err(NetError::Late("the Hello")),
    };
    drop(place);
    match welcomed {
        Ok(session) => {
            NetCounters::count(&shared.counters.links);
            serve(shared, session, lane).await;
        }
        Err(error) => turn_away(&shared, &connection, node, &error),
    }
}

async fn handshake(shared: &Shared, incoming: Incoming) -> Option<(Connection, NodeId, Vec<u8>)> {
    let addr = incoming.remote_address();
    let connection = match incoming.accept().ok()?.await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%addr, why = describe(&error), "a handshake failed");
            return None;
        }
    };
    let node = tls::peer_of(&connection)?;
    if node == shared.me {
        CloseCode::Refused.close(&connection, "that is this node itself");
        return None;
    }
    let protocol = tls::protocol_of(&connection)?;
    (protocol == MEMBER_ALPN || protocol == JOIN_ALPN).then_some((connection, node, protocol))
}

async fn welcome(shared: &Shared, node: NodeId, lane: &Lane) -> Result<Arc<Session>, NetError> {
    let halves = lane.connection.accept_bi().await?;
    let (mut sender, mut receiver) = lane.frame(halves, MAX_HELLO_BYTES);
    let mut cuts = shared.registry.cuts();
    let gate = shared.gate.as_ref();
    let greeted = greet::receive((&mut sender, &mut receiver), lane, node, gate).await?;
    greet::confirmed(&mut receiver).await?;
    // Streams are allowed before the link is told, so that none has to wait for it.
    config::raise(&lane.connection, &shared.config);
    loop {
        let peer = (node, greeted.hello.clone(), greeted.version);
        match shared.registry.register(peer, (lane.clone(), false), cuts) {
            Registered::Yes(session) => return Ok(session),
            Registered::Full => {
                return Err(NetError::RefusedHere { node, refusal: full(shared) });
            }
            Registered::ShutDown => return Err(NetError::ShuttingDown),
            Registered::Stale => {
                cuts = shared.registry.cuts();
                gate.admit(node, &greeted.hello)
                    .map_err(|refusal| NetError::RefusedHere { node, refusal })?;
            }
        }
    }
}

pub(crate) fn full(shared: &Shared) -> Refusal {
    let message = format!("this node has {} links, its limit", shared.config.max_links);
    let retry = Retry::After(Micros::secs(5));
    Refusal::new(Stage::Admit, Blame::Us, retry, Code::Overloaded, message)
}

fn turn_away(shared: &Shared, connection: &Connection, node: NodeId, error: &NetError) {
    tracing::debug!(%node, %error, "a connection did not become a link");
    let (counter, code) = match error {
        NetError::RefusedHere { .. } => (&shared.counters.refused_hellos, CloseCode::Refused),
        NetError::Late(_) => (&shared.counters.failed_handshakes, CloseCode::Late),
        NetError::ShuttingDown => (&shared.counters.turned_away, CloseCode::ShuttingDown),
        _ => (&shared.counters.failed_handshakes, CloseCode::Broken),
    };
    NetCounters::count(counter);
    let why = match error {
        NetError::RefusedHere { refusal, .. } => refusal.message.clone(),
        other => other.to_string(),
    };
    code.close(connection, &why);
}

/// Hands a joiner's only stream to the runtime, if there is room for one more.
async fn ask_to_join(
    shared: &Shared,
    (node, lane): (NodeId, Lane),
    deadline: Instant,
    place: Place,
) {
    let connection = lane.connection.clone();
    let Some(seat) = shared.joins.enter(place.addr) else {
        NetCounters::count(&shared.counters.turned_away);
        return CloseCode::Busy.close(&connection, "others are joining: try again in a moment");
    };
    let Ok(Ok(halves)) = timeout_at(deadline, connection.accept_bi()).await else {
        NetCounters::count(&shared.counters.failed_handshakes);
        return CloseCode::Late.close(&connection, "nothing was said");
    };
    drop(place);
    let link = JoinLink::new((node, lane), halves, JoinSide::Issuer { _place: seat });
    let event = NetEvent::JoinAttempt { from: node, addr: link.remote_addr(), link };
    if shared.events.try_send(event).is_err() {
        NetCounters::count(&shared.counters.turned_away);
        return CloseCode::Busy.close(&connection, "this node is busy: try again in a moment");
    }
    NetCounters::count(&shared.counters.joins);
}

/// How many strangers are being met or are joining, in all and by address.
#[derive(Debug)]
pub(crate) struct Door {
    inside: Mutex<(usize, BTreeMap<IpAddr, usize>)>,
    places: usize,
    per_address: usize,
}

/// A stranger's place at the door, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    door: Arc<Door>,
    addr: IpAddr,
}

impl Door {
    pub(crate) fn new(places: usize, per_address: usize) -> Self {
        Self { inside: Mutex::default(), places, per_address }
    }

    fn count(&self) -> usize {
        self.inside.lock().0
    }

    pub(crate) fn enter(self: &Arc<Self>, addr: IpAddr) -> Option<Place> {
        let mut inside = self.inside.lock();
        let (total, by_addr) = &mut *inside;
        let here = by_addr.get(&addr).copied().unwrap_or(0);
        // On one machine all nodes share the loopback address, and only its own users reach it.
        if *total >= self.places || (here >= self.per_address && !addr.is_loopback()) {
            return None;
        }
        *total += 1;
        by_addr.insert(addr, here + 1);
        Some(Place { door: Arc::clone(self), addr })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.door.inside.lock();
        let (total, by_addr) = &mut *inside;
        *total -= 1;
        if let Some(here) = by_addr.get_mut(&self.addr) {
            *here -= 1;
            if *here == 0 {
                by_addr.remove(&self.addr);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{JOINS, JOINS_PER_ADDRESS};

    #[test]
    fn one_address_cannot_take_all_places() {
        let door = Arc::new(Door::new(STRANGERS, STRANGERS_PER_ADDRESS));
        let greedy: IpAddr = "192.0.2.1".parse().unwrap();
        let taken: Vec<_> = (0..100).filter_map(|_| door.enter(greedy)).collect();
        assert_eq!(taken.len(), STRANGERS_PER_ADDRESS);
        let others: Vec<_> =
            (0..100u8).filter_map(|n| door.enter([198, 51, 100, n].into())).collect();
        assert_eq!(others.len(), STRANGERS - STRANGERS_PER_ADDRESS);
        drop(taken);
        assert!(door.enter(greedy).is_some());
        drop(others);
        assert_eq!(door.count(), 0);
        assert!(door.inside.lock().1.is_empty());
    }

    #[test]
    fn one_address_joins_once_at_a_time_but_loopback_is_shared() {
        let door = Arc::new(Door::new(JOINS, JOINS_PER_ADDRESS));
        let greedy: IpAddr = "192.0.2.1".parse().unwrap();
        let taken = door.enter(greedy);
        assert!(taken.is_some() && door.enter(greedy).is_none());
        assert!(door.enter([198, 51, 100, 1].into()).is_some(), "others still have a place");
        drop(taken);
        assert!(door.enter(greedy).is_some());
        let here: IpAddr = [127, 0, 0, 1].into();
        let local: Vec<_> = (0..=JOINS).filter_map(|_| door.enter(here)).collect();
        assert_eq!(local.len(), JOINS);
    }
}
