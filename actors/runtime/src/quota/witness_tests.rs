#![allow(clippy::unwrap_used, clippy::expect_used)]

//! Three real nodes with a reclaimable budget: one goes, the others spend what it had left.

use selvedge_base::Micros;

use super::tests::{DEADLINE, GLANCE, Home, monthly, spend, spend_all, until};
use crate::{BudgetDraft, Node};

fn reclaimable(limit: u64) -> BudgetDraft {
    let mut draft = monthly(limit);
    draft.terms.reclaimable = true;
    draft
}

/// Three linked nodes that all know a reclaimable budget of `limit` tokens.
async fn trio(name: &str, limit: u64) -> Vec<(Home, Node)> {
    let first = Home::new(&format!("{name}-0"));
    let root = first.start(&[]).await;
    let mut nodes = vec![(first, root)];
    for at in 1..3 {
        let home = Home::new(&format!("{name}-{at}"));
        let peers: Vec<_> = nodes.iter().map(|(_, node)| node.quic_addr()).collect();
        let code = nodes[0].1.admin().invite(Micros::secs(600)).await.unwrap();
        Node::join(&home.config(&peers[..1]), &code).await.unwrap();
        let node = home.start(&peers).await;
        nodes.push((home, node));
    }
    let policies = std::sync::Arc::clone(&nodes[0].1.gateway().shared.policies);
    for (_, node) in &nodes[1..] {
        let id = node.gateway().view().me;
        until("the name of another's store", || policies.holder_of(&id).is_some()).await;
    }
    let level = "acme".parse().unwrap();
    let set = nodes[0].1.admin().budget_set(&level, reclaimable(limit)).await.unwrap();
    assert!(set.in_force && set.waiting_for.is_empty(), "{set:?}");
    for (_, node) in &nodes {
        until("all witnesses at every node", || {
            let budgets = node.admin().budget_status(None);
            budgets.iter().any(|budget| budget.witnesses.is_some_and(|one| one.reached == 3))
        })
        .await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_that_is_gone_has_left_is_spent_by_the_others() {
    let mut nodes = trio("gone", 3_000).await;
    let (home, gone) = nodes.remove(0);
    gone.shutdown().await;
    let mut spent = 0;
    let taking_over = async {
        let mut glances = tokio::time::interval(GLANCE);
        while spent <= 2_300 {
            if spend(&nodes[0].1, 50).await {
                spent += 50;
            } else {
                glances.tick().await;
            }
        }
    };
    let done = tokio::time::timeout(DEADLINE, taking_over).await;
    assert!(done.is_ok(), "{spent} is all that was spent: nothing was taken over");
    let peers: Vec<_> = nodes.iter().map(|(_, node)| node.quic_addr()).collect();
    let back = home.start(&peers).await;
    let by_others = spent + spend_all(&nodes[1].1, 50).await;
    let by_it = spend_all(&back, 50).await;
    assert!(by_others + by_it <= 3_000, "{by_others} + {by_it}");
    back.shutdown().await;
    for (_, node) in nodes {
        node.shutdown().await;
    }
}
