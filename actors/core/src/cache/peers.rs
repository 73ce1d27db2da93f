//! Which peers may have an answer that this node lacks, whom of them to ask, and for how long.
//!
//! Owns what peers told of what they keep, and what asking them brought. What they told may be old
//! and may say yes to what is not there; so few are asked, for a short time, and one that is asked
//! in vain again and again is left alone for a while. What is given and kept is
//! [`super::Cache`]'s to say.

use std::collections::BTreeMap;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Micros, Mono, NodeId};
use selvedge_proto::answers::{Digests, KeptInBrief};
use selvedge_proto::wire::Label;

use super::Key;

/// Peers asked for one answer, one after the other: the second one is for when the first has just
/// let go of it.
const ASKED: usize = 2;
/// How long a request looks for its answer at peers, all of them together: some round trips of a
/// LAN and the way of a megabyte, and well below the half second that a provider takes to begin.
const LOOK_WITHIN: Micros = Micros::millis(150);
/// A request with little time looks for this part of it at most.
const PART_OF_TIME: u64 = 8;
/// Times a peer is asked in vain, one after the other, until it rests: of what it told one in a
/// hundred is wrong, so that this many mean that what it told is old or that it is slow.
const VAIN: u8 = 8;
/// How long it rests then: it tells anew what it keeps within a second when there is more.
const REST: Micros = Micros::secs(5);
/// Peers that are remembered: a LAN's, at up to 128 KiB each. Others are not asked.
const MAX_PEERS: usize = 128;

/// A peer as it stands to this node now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// Who.
    pub node: NodeId,
    /// Whether it stands at the same site.
    pub same_site: bool,
    /// The way to it and back, if that was measured.
    pub rtt: Option<Micros>,
}

/// What peers told.
#[derive(Debug, Default)]
pub struct Peers {
    known: BTreeMap<NodeId, Peer>,
}

#[derive(Debug)]
struct Peer {
    at: (u64, u64),
    answers: u64,
    wide: Digests,
    site: Option<Digests>,
    vain: u8,
    rests_until: Option<Mono>,
}

impl Peers {
    /// Nobody told anything.
    pub const fn new() -> Self {
        Self { known: BTreeMap::new() }
    }

    /// A peer tells what it keeps. What comes late, is out of bounds or finds no room is dropped.
    pub fn heard(&mut self, node: NodeId, told: KeptInBrief) {
        let KeptInBrief { at, answers, wide, site } = told;
        let known = self.known.get(&node);
        let is_late = known.is_some_and(|known| known.at >= at);
        let has_room = known.is_some() || self.known.len() < MAX_PEERS;
        let fits = wide.is_within_bounds() && site.as_ref().is_none_or(Digests::is_within_bounds);
        if is_late || !has_room || !fits {
            return;
        }
        let rests_until = known.and_then(|known| known.rests_until);
        self.known.insert(node, Peer { at, answers, wide, site, vain: 0, rests_until });
    }

    /// Forgets peers that are not there any more: what they keep they tell anew when they return.
    pub fn keep(&mut self, is_there: impl Fn(&NodeId) -> bool) {
        self.known.retain(|node, _| is_there(node));
    }

    /// Whether nobody told anything.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Peers that told something, and how many answers they keep.
    pub fn told(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.known.iter().map(|(node, peer)| (*node, peer.answers))
    }

    /// Whom to ask for an answer, in this order, of those who are there. Data of a site is asked
    /// for there only, and data of a node nowhere.
    pub fn whom(&self, now: Mono, key: &Key, label: Label, near: &[Near]) -> Vec<NodeId> {
        let anywhere = plant::is_on(Plant::CacheLabelIgnored);
        if label == Label::Node && !anywhere {
            return Vec::new();
        }
        let may_have = |near: &&Near| {
            let Some(peer) = self.known.get(&near.node) else { return false };
            let rests = peer.rests_until.is_some_and(|until| now < until);
            let of_site = || peer.site.as_ref().is_some_and(|site| site.may_have(&key.0));
            let has = match label {
                Label::Node | Label::Site if anywhere => true,
                Label::Site => near.same_site && of_site(),
                Label::Node | Label::Mesh | Label::Anywhere => peer.wide.may_have(&key.0),
            };
            !rests && has
        };
        let mut all: Vec<&Near> = near.iter().filter(may_have).collect();
        all.sort_by_key(|near| (near.rtt.unwrap_or(LOOK_WITHIN), near.node));
        all.truncate(ASKED);
        all.into_iter().map(|near| near.node).collect()
    }

    /// Until when a request looks that came then and may take so long.
    pub fn until(now: Mono, came: Mono, deadline: Micros) -> Mono {
        let left = came.plus(deadline).since(now);
        now.plus(LOOK_WITHIN.min(Micros(left.0 / PART_OF_TIME)))
    }

    /// A peer was asked and gave nothing in time.
    pub fn in_vain(&mut self, now: Mono, node: &NodeId) {
        let Some(peer) = self.known.get_mut(node) else { return };
        peer.vain = peer.vain.saturating_add(1);
        if peer.vain >= VAIN {
            peer.vain = 0;
            peer.rests_until = Some(now.plus(REST));
        }
    }

    /// A peer gave what it was asked for.
    pub fn gave(&mut self, node: &NodeId) {
        if let Some(peer) = self.known.get_mut(node) {
            (peer.vain, peer.rests_until) = (0, None);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: Key = Key([7; 32]);

    fn told(at: (u64, u64), wide: bool, site: Option<bool>) -> KeptInBrief {
        let set = |has: bool| {
            let mut set = Digests::for_so_many(1);
            if has {
                set.put(&KEY.0);
            }
            set
        };
        KeptInBrief { at, answers: 1, wide: set(wide), site: site.map(set) }
    }

    fn near(number: u8, same_site: bool, ms: u64) -> Near {
        Near { node: NodeId([number; 32]), same_site, rtt: Some(Micros::millis(ms)) }
    }

    fn peers(all: &[(u8, bool, Option<bool>)]) -> Peers {
        let mut peers = Peers::new();
        for (number, wide, site) in all {
            peers.heard(NodeId([*number; 32]), told((1, 1), *wide, *site));
        }
        peers
    }

    #[test]
    fn the_nearest_two_that_may_have_it_are_asked() {
        let all = [(1, true, None), (2, false, None), (3, true, None), (4, true, None)];
        let peers = peers(&all);
        let here = [near(1, true, 9), near(2, true, 1), near(3, true, 2), near(4, true, 3)];
        let asked = |here: &[Near]| peers.whom(Mono(0), &KEY, Label::Mesh, here);
        assert_eq!(asked(&here), [here[2].node, here[3].node]);
        // Who is gone is not asked, and who told nothing neither.
        assert_eq!(asked(&[near(1, true, 9), near(5, true, 1)]), [here[0].node]);
    }

    #[test]
    fn a_label_forbids_the_look() {
        let peers = peers(&[(1, true, Some(true)), (2, true, Some(true)), (3, true, None)]);
        let here = [near(1, true, 5), near(2, false, 1), near(3, true, 1)];
        let asked = |label| peers.whom(Mono(0), &KEY, label, &here);
        assert_eq!(asked(Label::Node), []);
        assert_eq!(asked(Label::Site), [here[0].node]);
        assert_eq!(asked(Label::Anywhere).len(), 2);
    }

    #[test]
    fn who_is_asked_in_vain_rests_and_is_asked_again_later() {
        let mut peers = peers(&[(1, true, None)]);
        let (node, here) = (NodeId([1; 32]), [near(1, true, 1)]);
        for _ in 0..VAIN - 1 {
            peers.in_vain(Mono(0), &node);
        }
        assert_eq!(peers.whom(Mono(0), &KEY, Label::Mesh, &here), [node]);
        peers.in_vain(Mono(0), &node);
        assert_eq!(peers.whom(Mono(0), &KEY, Label::Mesh, &here), []);
        assert_eq!(peers.whom(Mono(REST.0), &KEY, Label::Mesh, &here), [node]);
        peers.in_vain(Mono(0), &node);
        peers.gave(&node);
        assert_eq!(peers.known.get(&node).unwrap().vain, 0);
    }

    #[test]
    fn the_last_word_counts_and_rooms_are_bounded() {
        let mut peers = peers(&[(1, true, None)]);
        let (node, here) = (NodeId([1; 32]), [near(1, true, 1)]);
        peers.heard(node, told((1, 2), false, None));
        peers.heard(node, told((1, 1), true, None));
        assert_eq!(peers.whom(Mono(0), &KEY, Label::Mesh, &here), []);
        // Another start counts anew.
        peers.heard(node, told((2, 0), true, None));
        assert_eq!(peers.whom(Mono(0), &KEY, Label::Mesh, &here), [node]);
        for number in 0..=255 {
            peers.heard(NodeId([number; 32]), told((3, 0), true, None));
        }
        assert_eq!(peers.known.len(), MAX_PEERS);
        peers.keep(|known| *known != node);
        assert_eq!(peers.told().count(), MAX_PEERS - 1);
    }

    #[test]
    fn a_look_takes_little_of_the_time_there_is() {
        let (now, came) = (Mono(1_000_000), Mono(0));
        assert_eq!(Peers::until(now, came, Micros::secs(60)), now.plus(LOOK_WITHIN));
        assert_eq!(Peers::until(now, came, Micros(1_000_800)), Mono(1_000_100));
        assert_eq!(Peers::until(now, came, Micros(5)), now);
    }
}
