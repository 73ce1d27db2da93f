//! Leases: who may stay connected, and keeping this node's own membership alive.
//!
//! Owns when to check and whom to ask. What makes a lease good is the roster's to say.

use std::sync::Arc;

use selvedge_base::{Micros, Mono};
use selvedge_net::{Link, clock};

use super::{MeshMessage, MeshState};
use crate::sync;

/// How often a lease that is due is asked for.
const RENEW_EVERY: Micros = Micros::secs(30);

impl MeshState {
    /// Links of peers that would not be let in any more: their lease lapsed while they were
    /// connected, their steward was put out, the root key was rotated past them.
    pub(super) fn close_unfit(&self) {
        for link in self.args.shared.endpoint.links() {
            let node = link.node();
            if let Some(error) = self.args.membership.unfit(node) {
                tracing::warn!(peer = %node.short(), %error, "link closed");
                self.args.shared.endpoint.close(&node, "membership is no longer good");
            }
        }
    }

    /// Shows this node's new lease to everyone it is linked with.
    pub(super) fn show_lease(&self) {
        for link in self.args.shared.endpoint.links() {
            let membership = Arc::clone(&self.args.membership);
            tokio::spawn(sync::show_lease(membership, link));
        }
    }

    pub(super) fn renew(&mut self, now: Mono) {
        let due = self.args.membership.with(|roster| roster.due_for_renewal(clock::wall()));
        let recently = self.renewed_at.is_some_and(|at| now.since(at) < RENEW_EVERY);
        if !due || recently {
            return;
        }
        self.renewed_at = Some(now);
        let wall = clock::wall();
        let membership = Arc::clone(&self.args.membership);
        if membership.with(|roster| roster.own_steward(wall).is_some()) {
            let line = self.args.line.clone();
            tokio::spawn(async move {
                let kept = membership.keep_steward().await;
                match kept.and(membership.renew_own().await) {
                    Ok(()) => line.tell(MeshMessage::Renewed),
                    Err(refusal) => {
                        tracing::warn!(%refusal, "this steward could not renew itself");
                    }
                }
            });
            return;
        }
        let (held, stewards) = membership.with(|roster| {
            let stewards = roster.stewards(wall).map(|steward| steward.body.node);
            (roster.own().cloned(), stewards.collect::<Vec<_>>())
        });
        let endpoint = &self.args.shared.endpoint;
        let links: Vec<Link> = stewards.iter().filter_map(|node| endpoint.link(node)).collect();
        // Another one each time: a steward that refuses or hangs must not stand before a good one.
        let drawn = self.args.shared.dice.lock().below(links.len() as u64) as usize;
        if let (Some(held), Some(link)) = (held, links.get(drawn)) {
            let line = self.args.line.clone();
            tokio::spawn(sync::renew(membership, line, link.clone(), held));
        }
    }
}
