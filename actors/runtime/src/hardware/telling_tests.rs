#![allow(clippy::unwrap_used)]

use selvedge_base::codec;
use selvedge_contract::Hardware;

use super::*;
use crate::Node;
use crate::quota::tests::{Home, until};

/// A node with an address, and another one that has joined its mesh and speaks at most `newest`.
async fn pair(name: &str, newest: u8) -> ((Home, Node), (Home, Node)) {
    let (a_home, b_home) =
        (Home::new(&format!("machine-{name}-a")), Home::new(&format!("machine-{name}-b")));
    let a = a_home.start(&[]).await;
    let code = a.admin().invite(Micros::secs(600)).await.unwrap();
    Node::join(&b_home.config(&[a.quic_addr()]), &code).await.unwrap();
    // Started where it finds nobody, so that its first hello is the one it is told to say.
    let b = b_home.start(&[]).await;
    b.admin().membership.speak_at_most(newest);
    let (b_id, shared) = (b.gateway().view().me, Arc::clone(&a.gateway().shared));
    shared.endpoint.connect(b_id, &[b.quic_addr()]).await.unwrap();
    ((a_home, a), (b_home, b))
}

/// What a node's view says of another one's machine.
fn seen(from: &Node, of: &Node) -> Option<Machine> {
    let view = from.gateway().view();
    view.node(&of.gateway().view().me).map(|node| node.machine.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_tell_each_other_of_their_machines_and_of_changes() {
    let ((_a_home, a), (_b_home, b)) = pair("new", codec::VERSION).await;
    for (from, of) in [(&a, &b), (&b, &a)] {
        let known = |machine: &Machine| !machine.made.architecture.is_empty();
        until("the peer's machine", || seen(from, of).as_ref().is_some_and(known)).await;
        until("the same as it says", || seen(from, of) == seen(of, of)).await;
    }
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_the_version_before_is_told_nothing_and_nothing_is_known_of_it() {
    let older = MACHINES_SINCE - 1;
    let ((_a_home, a), (_b_home, b)) = pair("old", older).await;
    let named = |from: &Node, of: &Node| {
        let view = from.gateway().view();
        let node = view.node(&of.gateway().view().me).cloned();
        node.is_some_and(|node| node.linked && !node.version.is_empty())
    };
    // Rows travel as ever, in both directions.
    for (from, of) in [(&a, &b), (&b, &a)] {
        until("the peer's row", || named(from, of)).await;
    }
    let (shared, b_id) = (Arc::clone(&a.gateway().shared), b.gateway().view().me);
    let link = shared.endpoint.link(&b_id).unwrap();
    assert_eq!(link.version(), older);
    let error = say(&link, a.gateway().shared.machines.own()).await.unwrap_err();
    assert!(error.to_string().contains("needs version"), "{error}");
    for (from, of) in [(&a, &b), (&b, &a)] {
        assert_eq!(seen(from, of), Some(Machine::default()), "unknown");
        assert!(named(from, of), "the link stands");
    }
    a.shutdown().await;
    b.shutdown().await;
}

#[test]
fn peers_are_kept_while_linked_and_no_more_of_them_than_there_can_be() {
    let machines = Machines::new(Probe::here("scalar"));
    let id = |number: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        NodeId(id)
    };
    for number in 0..MAX_PEERS + 5 {
        machines.hear(id(number), Machine::default());
    }
    assert!(machines.of(&id(MAX_PEERS - 1)).is_some() && machines.of(&id(MAX_PEERS)).is_none());
    let hot = Condition { temperature: Some(950), ..Condition::default() };
    machines.hear(id(0), Machine { now: hot, ..Machine::default() });
    assert_eq!(machines.of(&id(0)).map(|machine| machine.now), Some(hot));
    // Out of all bounds, or with what a terminal would obey: not taken, and cleaned.
    let named = |text: &str| Machine {
        made: Hardware { processor: text.to_owned(), ..Hardware::default() },
        ..Machine::default()
    };
    machines.hear(id(0), named("\u{1b}[31mred"));
    machines.hear(id(0), named(&"x".repeat(10_000)));
    assert_eq!(machines.of(&id(0)), Some(named("[31mred")));
    machines.keep(|node| *node == id(0));
    assert_eq!(machines.peers.lock().len(), 1);
    assert!(machines.stands(hot) && !machines.stands(hot), "news once");
}
