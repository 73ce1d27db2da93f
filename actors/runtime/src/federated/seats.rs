//! Who a job's anchors are: drawn when it begins, and again when a steward asks for others.
//!
//! Owns the draw, and the setting by which the mesh is told of others. When they take over is the
//! rounds': with the next set that the anchors before them close, for which a majority of those has
//! to be there. A job whose anchors are lost beyond that has nobody who could hand it on.

use std::sync::Arc;

use selvedge_base::codec;
use selvedge_base::{Code, NodeId, Refusal, Stage};
use selvedge_federated::round::{Committee, Digest, Seat};
use selvedge_proto::seal::sealing_key;
use selvedge_proto::settings::MAX_CONTENT_BYTES;
use serde::{Deserialize, Serialize};

use super::jobs::Federation;
use super::task::seats_of;
use crate::shared::Shared;

/// The version of the shape of the setting.
const VERSION: u8 = 1;
/// The codec's version for what is inside.
const CODEC_VERSION: u8 = 1;

/// Who is to be a job's anchors after those that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reseated {
    /// The job, by its digest: another one of the same name keeps its own.
    pub(super) job: Digest,
    /// Its anchors, and how many sets of them were before.
    pub(super) committee: Committee,
}

impl Reseated {
    fn to_bytes(&self) -> Result<Vec<u8>, Refusal> {
        let body = codec::encode_datagram_at(CODEC_VERSION, self, MAX_CONTENT_BYTES - 1);
        let body = body.map_err(|error| refused(error.to_string()))?;
        Ok(std::iter::once(VERSION).chain(body).collect())
    }

    /// What a setting says; nothing where this build does not understand it.
    pub(super) fn from_bytes(content: &[u8]) -> Option<Self> {
        let (version, rest) = content.split_first()?;
        (*version == VERSION).then(|| codec::decode_body(rest).ok()).flatten()
    }
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

    /// Asks the mesh for other anchors of a job: of those that there are the ones that can be
    /// reached from here stay, others that can be reached take the places of the rest. Who they are.
    ///
    /// # Errors
    /// A refusal where there is no such job, nothing would change, too few can be reached, or this
    /// node may not sign.
    pub(crate) async fn reseat(
        &self,
        shared: &Arc<Shared>,
        name: &str,
    ) -> Result<Vec<NodeId>, Refusal> {
        let (told, now, epoch) = self.seated(name)?;
        let (job, scheme) = (told.job.digest(), told.job.scheme);
        let next = epoch.checked_add(1).ok_or_else(|| refused("there is no later set".into()))?;
        let view = shared.view.load();
        let is_usable =
            |seat: &Seat| view.nodes.iter().any(|node| node.node == seat.node && node.is_usable());
        let mut can = self.can_be_anchors(shared, told.job.nonce.wrapping_add(next), told.since());
        can.retain(is_usable);
        // Shares that those who stay hold are of no use to the next ones, and yet: whoever is an
        // anchor has shown that it can be.
        can.sort_by_key(|seat| !now.contains(&seat.node));
        if can.len() < scheme.anchors() {
            return Err(refused(format!(
                "the job needs {} anchors and {} members can be reached from here: start some, or \
                 add nodes with `selvedge mesh invite`",
                scheme.anchors(),
                can.len()
            )));
        }
        can.truncate(scheme.anchors());
        if can.iter().all(|seat| now.contains(&seat.node)) {
            return Err(refused(format!(
                "all anchors of '{name}' can be reached from here: none has to be replaced"
            )));
        }
        let nodes = can.iter().map(|seat| seat.node).collect();
        let committee = Committee { epoch: next, seats: can };
        let content = Reseated { job, committee }.to_bytes()?;
        shared.routing.tell_seats(seats_of(name), content).await?;
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
    use super::*;

    #[test]
    fn a_setting_is_read_as_it_was_told_and_what_is_none_is_nothing() {
        let seat = |at: u8| Seat { node: NodeId([at; 32]), key: [at + 100; 32] };
        let committee = Committee { epoch: 3, seats: (0..5).map(seat).collect() };
        let told = Reseated { job: [7; 32], committee };
        let bytes = told.to_bytes().unwrap();
        assert_eq!(Reseated::from_bytes(&bytes), Some(told));
        for end in 0..bytes.len() {
            assert_eq!(Reseated::from_bytes(&bytes[..end]), None, "{end}");
        }
        let later = [&[VERSION + 1], &bytes[1..]].concat();
        assert_eq!(Reseated::from_bytes(&later), None);
    }
}
