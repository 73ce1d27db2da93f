//! Who a job's anchors are: drawn when it begins, and again when a steward asks for others.
//!
//! Owns the draw, and the setting by which the mesh is told of others. When they take over is the
//! rounds': with the next set that the anchors before them close, for which as many of those have
//! to be there as for any other. A job whose anchors are lost beyond that has nobody who could hand
//! it on.

use std::sync::Arc;

use selvedge_base::codec;
use selvedge_base::{Code, NodeId, Refusal, Stage};
use selvedge_federated::round::{
    Committee, Digest, Seat, last_wish_after, merge_wishes, one_more_wish,
};
use selvedge_proto::seal::sealing_key;
use selvedge_proto::settings::MAX_CONTENT_BYTES;
use serde::{Deserialize, Serialize};

use super::jobs::{Federation, Running};
use super::state::JobProgress;
use super::task::key_of;
use crate::shared::Shared;

/// The version of the shape of the setting.
const VERSION: u8 = 1;
/// The codec's version for what is inside.
const CODEC_VERSION: u8 = 1;

/// Who is to be a job's anchors after those that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reseated {
    /// The job, by its digest: another one of the same name keeps its own.
    job: Digest,
    /// What was asked for, the last wish at the end. Those before it may have been proposed
    /// already, and then only they can be closed; so every anchor has to know them.
    wishes: Vec<Committee>,
}

impl Reseated {
    fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        let body = codec::encode_datagram_at(CODEC_VERSION, self, MAX_CONTENT_BYTES - 1);
        let body = body.map_err(|error| refused(error.to_string()))?;
        Ok(std::iter::once(VERSION).chain(body).collect())
    }

    /// What a setting says; nothing where this build does not understand it.
    fn from_bytes(content: &[u8]) -> Option<Self> {
        let (version, rest) = content.split_first()?;
        (*version == VERSION).then(|| codec::decode_body(rest).ok()).flatten()
    }

    /// Wishes for a job in all that was told of its anchors, of which each seat is sealed to by the
    /// node's own key and no other. What governs comes last; before it may be wishes of a steward
    /// who did not know of that one, of which a set may have been proposed all the same.
    fn of(job: &Digest, told: &[Vec<u8>]) -> Vec<Committee> {
        let told = told.iter().filter_map(|content| Self::from_bytes(content));
        let told = told.filter(|told| told.job == *job);
        let mut wishes = merge_wishes(told.map(|told| told.wishes));
        let is_own = |seat: &Seat| sealing_key(&seat.node) == Some(seat.key);
        wishes.retain(|committee| committee.seats.iter().all(is_own));
        wishes
    }

    /// One more wish, after those that are still open.
    ///
    /// # Errors
    /// Where others know of later anchors than whoever wishes: theirs may be under way.
    fn with(job: Digest, before: &[Vec<u8>], wish: Committee) -> Result<Self, Refusal> {
        let wishes = one_more_wish(Self::of(&job, before), wish).map_err(|behind| {
            refused(format!(
                "this node is behind: {behind}. Ask again once `selvedge fed status` shows a \
                 later round of the job"
            ))
        })?;
        Ok(Self { job, wishes })
    }
}

/// The anchors that were asked for last and that are none yet.
pub(super) fn wanted(running: &Running, progress: &JobProgress) -> Vec<NodeId> {
    let wishes = running.seats.borrow();
    let last = last_wish_after(&wishes, progress.epoch);
    let seats = last.map(|last| last.seats.as_slice()).unwrap_or_default();
    seats.iter().map(|seat| seat.node).collect()
}

impl Federation {
    /// Members that can be anchors now of a job that nodes know since a wire version, in an order
    /// that a number draws.
    pub(super) fn can_be_anchors(&self, shared: &Shared, nonce: u64, since: u8) -> Vec<Seat> {
        let speaks = |node: &NodeId| {
            let link = self.endpoint().link(node);
            link.is_some_and(|link| link.version() >= since)
        };
        let view = shared.view.load();
        let others = view.nodes.iter().map(|node| node.node);
        let others = others.filter(|node| *node != self.me() && speaks(node));
        let seat = |node: NodeId| Some(Seat { node, key: sealing_key(&node)? });
        let mut seats: Vec<Seat> = others.chain([self.me()]).filter_map(seat).collect();
        let lot = |node: &NodeId| {
            let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 anchors of a job");
            hasher.update(&nonce.to_le_bytes());
            hasher.update(&node.0);
            *hasher.finalize().as_bytes()
        };
        seats.sort_by_key(|seat| lot(&seat.node));
        seats
    }

    /// Hands each job what the mesh says of its anchors.
    pub(super) fn heed_seats(&self, shared: &Shared) {
        for (name, told) in shared.routing.seats() {
            // Whose keys are whose is worked out without holding up who asks for another job.
            let wishes = self.look(&name, |running| running.job);
            let wishes = wishes.map(|job| (job, Reseated::of(&job, &told)));
            let heard = wishes.and_then(|(job, wishes)| {
                self.look(&name, |running| {
                    if running.job != job {
                        return;
                    }
                    running.seats.send_if_modified(|now| {
                        let is_new = *now != wishes;
                        *now = wishes;
                        is_new
                    });
                })
            });
            if let Err(why) = heard {
                tracing::debug!(job = name, %why, "what is said of its anchors waits");
            }
        }
    }

    /// Asks the mesh for other anchors of a job: of those that there are the ones that can be
    /// reached from here stay, others that can be reached take the places of the rest. Who they
    /// are.
    ///
    /// # Errors
    /// A refusal where there is no such job or it is over, nothing would change, too few can be
    /// reached, or this node may not sign.
    pub(crate) async fn reseat(
        &self,
        shared: &Arc<Shared>,
        name: &str,
    ) -> Result<Vec<NodeId>, Refusal> {
        let at = |running: &Running| {
            let progress = running.state.progress();
            let wanted = wanted(running, &progress);
            (Arc::clone(&running.told), progress, wanted)
        };
        let (told, progress, wanted) = self.look(name, at)?;
        let (job, now) = (told.job.digest(), &progress.anchors);
        if progress.round >= told.job.rounds {
            return Err(refused(format!("'{name}' is over: nothing is left for anchors to do")));
        }
        let next = progress.epoch.checked_add(1);
        let next = next.ok_or_else(|| refused("there is no later set of anchors".into()))?;
        let view = shared.view.load();
        let is_usable =
            |node: &NodeId| view.nodes.iter().any(|one| one.node == *node && one.is_usable());
        let (found, needed) =
            (now.iter().filter(|node| is_usable(node)).count(), told.job.gathering());
        if found < needed {
            return Err(refused(format!(
                "{found} of the anchors of '{name}' can be reached from here, and it takes \
                 {needed} of them to hand it to others: bring some back, or cancel the job and \
                 submit it anew"
            )));
        }
        let mut can = self.can_be_anchors(shared, told.job.nonce.wrapping_add(next), told.since());
        can.retain(|seat| is_usable(&seat.node));
        // Whoever is an anchor has shown that it can be.
        can.sort_by_key(|seat| !now.contains(&seat.node));
        let count = told.job.scheme.anchors();
        if can.len() < count {
            return Err(refused(format!(
                "the job needs {count} anchors and {} members can be reached from here: start \
                 some, or add nodes with `selvedge mesh invite`",
                can.len()
            )));
        }
        can.truncate(count);
        // Where others were asked for before, those that there are may be asked for again.
        if wanted.is_empty() && can.iter().all(|seat| now.contains(&seat.node)) {
            return Err(refused(format!(
                "all anchors of '{name}' can be reached from here: none has to be replaced"
            )));
        }
        let nodes = can.iter().map(|seat| seat.node).collect();
        let wish = Committee { epoch: next, seats: can };
        let make = |before: &[Vec<u8>]| Reseated::with(job, before, wish)?.to_bytes();
        shared.routing.tell_seats(key_of(name), make).await?;
        self.heed(shared);
        Ok(nodes)
    }
}

fn refused(why: String) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::LazyLock;

    use selvedge_federated::round::MAX_WISHES;
    use selvedge_net::Identity;

    use super::*;

    /// Nodes with keys of their own; which ones does not matter.
    static NODES: LazyLock<Vec<NodeId>> =
        LazyLock::new(|| (0..32).map(|_| Identity::generate().node_id()).collect());

    fn committee(epoch: u64, first: usize) -> Committee {
        let seat = |node: &NodeId| Seat { node: *node, key: sealing_key(node).unwrap() };
        Committee { epoch, seats: NODES[first..first + 5].iter().map(seat).collect() }
    }

    const JOB: Digest = [7; 32];

    #[test]
    fn a_setting_is_read_as_it_was_told_and_what_is_none_is_nothing() {
        let told = Reseated { job: JOB, wishes: vec![committee(3, 1)] };
        let bytes = told.to_bytes().unwrap();
        assert_eq!(Reseated::from_bytes(&bytes), Some(told.clone()));
        for end in 0..bytes.len() {
            assert_eq!(Reseated::from_bytes(&bytes[..end]), None, "{end}");
        }
        let later = [&[VERSION + 1], &bytes[1..]].concat();
        assert_eq!(Reseated::from_bytes(&later), None);
        assert_eq!(Reseated::of(&JOB, std::slice::from_ref(&bytes)), told.wishes);
        assert_eq!(Reseated::of(&[8; 32], &[bytes]), [], "another job of the name");
    }

    #[test]
    fn a_seat_with_a_key_that_is_not_its_nodes_is_no_wish() {
        let mut forged = committee(3, 1);
        forged.seats[2].key = committee(3, 9).seats[0].key;
        let told = Reseated { job: JOB, wishes: vec![forged, committee(3, 2)] };
        assert_eq!(Reseated::of(&JOB, &[told.to_bytes().unwrap()]), [committee(3, 2)]);
    }

    #[test]
    fn wishes_before_the_last_are_kept_while_they_may_be_closed() {
        let mut told = Reseated::with(JOB, &[], committee(3, 1)).unwrap();
        for first in 2..20 {
            let before = [told.to_bytes().unwrap()];
            told = Reseated::with(JOB, &before, committee(3, first)).unwrap();
            assert_eq!(told.wishes.last(), Some(&committee(3, first)));
            assert_eq!(told.wishes.len(), MAX_WISHES.min(first));
        }
        let before = [told.to_bytes().unwrap()];
        let again = Reseated::with(JOB, &before, committee(3, 15)).unwrap();
        assert_eq!(again.wishes.len(), MAX_WISHES);
        assert_eq!(again.wishes.last(), Some(&committee(3, 15)));
        let later = Reseated::with(JOB, &before, committee(4, 1)).unwrap();
        assert_eq!(later.wishes, [committee(4, 1)], "of an earlier set none can be closed");
        let told = [later.to_bytes().unwrap()];
        assert!(Reseated::with(JOB, &told, committee(3, 1)).is_err(), "of one behind");
        let other = Reseated::with([8; 32], &before, committee(3, 1)).unwrap();
        assert_eq!(other.wishes, [committee(3, 1)]);
    }

    #[test]
    fn of_two_stewards_who_did_not_know_of_each_other_both_are_heard() {
        let told =
            |first| Reseated { job: JOB, wishes: vec![committee(3, first)] }.to_bytes().unwrap();
        let both = [told(1), told(2)];
        assert_eq!(Reseated::of(&JOB, &both), [committee(3, 1), committee(3, 2)]);
        let third = Reseated::with(JOB, &both, committee(3, 4)).unwrap();
        assert_eq!(third.wishes, [committee(3, 1), committee(3, 2), committee(3, 4)]);
        // A version with both after one of them: each is there once.
        let more = [told(1), third.to_bytes().unwrap()];
        assert_eq!(Reseated::of(&JOB, &more), third.wishes);
    }

    #[test]
    fn as_many_wishes_as_there_may_be_fit_a_setting() {
        let seats = (1..=16).map(|at| committee(1, at).seats[0]).collect();
        let wish = Committee { epoch: u64::MAX, seats };
        let told = Reseated { job: JOB, wishes: vec![wish; MAX_WISHES] };
        assert!(told.to_bytes().is_ok());
    }
}
