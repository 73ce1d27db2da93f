#![allow(clippy::unwrap_used)]

use std::net::UdpSocket;

use crate::quota::tests::Home;
use crate::{Node, StartError};

use super::*;

/// As long as a test may take.
const GOOD_FOR: Micros = Micros::secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_not_spent_on_a_node_whose_port_is_taken() {
    let (a_home, b_home) = (Home::new("join-port-a"), Home::new("join-port-b"));
    let a = a_home.start(&[]).await;
    let code = a.admin().invite(GOOD_FOR).await.unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let free = b_home.config(&[a.quic_addr()]);
    let config = NodeConfig { listen: taken.local_addr().unwrap(), ..free.clone() };
    let refused = Node::join(&config, &code).await.unwrap_err().to_string();
    assert!(refused.contains("another program uses this port; choose another"), "{refused}");
    Node::join(&free, &code).await.unwrap();
    a.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_has_joined_may_be_given_its_code_again() {
    let (a_home, b_home) = (Home::new("join-again-a"), Home::new("join-again-b"));
    let c_home = Home::new("join-again-c");
    let (a, c) = (a_home.start(&[]).await, c_home.start(&[]).await);
    let code = a.admin().invite(GOOD_FOR).await.unwrap();
    let config = b_home.config(&[a.quic_addr()]);
    let mesh = Node::join(&config, &code).await.unwrap();
    let again = Node::join(&config, &code).await.unwrap_err();
    assert!(matches!(again, StartError::Joined(_)), "{again}");
    let other = c.admin().invite(GOOD_FOR).await.unwrap();
    let refused = Node::join(&config, &other).await.unwrap_err();
    assert!(matches!(refused, StartError::AlreadyMember(_)), "{refused}");
    let refused = refused.to_string();
    assert!(refused.contains("without --join") && refused.contains("mesh leave"), "{refused}");
    // As once its lease is over.
    let lapsed = StartError::belongs(&mesh, &code, false);
    assert!(matches!(lapsed, StartError::Lapsed(_)), "{lapsed}");
    let lapsed = lapsed.to_string();
    assert!(lapsed.contains("`selvedge mesh leave`, then join again with this"), "{lapsed}");
    let other = StartError::belongs(&mesh, &other, false);
    assert!(matches!(other, StartError::AlreadyMember(_)), "{other}");
    // What looked at the home has let go of it.
    let b = b_home.start(&[]).await;
    for node in [a, b, c] {
        node.shutdown().await;
    }
}
