//! Building the snapshot that routing and people look at.
//!
//! Owns how the failure detector's verdict, the rows, the links and what was said over them are put
//! together. Pure reading; the mesh actor decides when.

use std::net::SocketAddr;

use selvedge_base::NodeId;
use selvedge_core::NodeRow;
use selvedge_core::route::{MeshView, NodeView};
use selvedge_proto::records::check_name;
use selvedge_proto::swim::{PeerState, Pulse, Swim};

use crate::contacts::Contacts;
use crate::membership::Membership;
use crate::shared::Shared;

/// What a view is made of.
pub(crate) struct ViewParts<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) membership: &'a Membership,
    pub(crate) swim: &'a Swim,
    pub(crate) row: &'a NodeRow,
    pub(crate) contacts: &'a Contacts,
}

/// The view now.
pub(crate) fn build(parts: &ViewParts<'_>) -> MeshView {
    let mut nodes = vec![myself(parts)];
    nodes.extend(parts.swim.states().map(|peer| {
        let row = parts
            .membership
            .with_rows(|rows| rows.get(&peer.node).and_then(|row| row.value::<NodeRow>().ok()));
        let row = row.filter(NodeRow::is_within_bounds).unwrap_or_default();
        let link = parts.shared.endpoint.link(&peer.node);
        let linked = link.is_some();
        let rtt = link.and_then(|link| link.rtt()).or(peer.rtt);
        NodeView {
            node: peer.node,
            me: false,
            name: name_of(parts, &peer.node, &row),
            site: row.site.clone(),
            state: peer.state,
            why: peer.why.as_str().to_owned(),
            linked,
            rtt,
            addrs: addrs_of(parts.contacts, &peer.node, &row),
            api: row.api,
            version: row.version.clone(),
            engine: with_pulse(row, &peer.pulse),
            // What was said over a link that is gone may no longer hold.
            machine: parts.shared.machines.of(&peer.node).filter(|_| linked).unwrap_or_default(),
        }
    }));
    MeshView { me: parts.shared.me, mesh: Some(parts.membership.mesh()), nodes }
}

fn myself(parts: &ViewParts<'_>) -> NodeView {
    let row = parts.row.clone();
    NodeView {
        node: parts.shared.me,
        me: true,
        name: row.name,
        site: row.site,
        state: PeerState::Alive,
        why: "this node".to_owned(),
        linked: true,
        rtt: None,
        addrs: row.addrs,
        api: row.api,
        version: row.version,
        engine: parts.shared.engine.status(),
        machine: parts.shared.machines.own(),
    }
}

fn name_of(parts: &ViewParts<'_>, node: &NodeId, row: &NodeRow) -> String {
    // A node writes its row itself; what could not be a member's name moves terminals' cursors.
    if check_name(&row.name).is_ok() {
        return row.name.clone();
    }
    parts.membership.with(|roster| {
        let member = roster.members().find(|(member, _)| *member == node);
        member.map(|(_, member)| member.name.clone()).unwrap_or_default()
    })
}

fn addrs_of(contacts: &Contacts, node: &NodeId, row: &NodeRow) -> Vec<SocketAddr> {
    let known = contacts.addrs(node);
    if known.is_empty() { row.addrs.clone() } else { known.to_vec() }
}

/// The row's engine with the fresher facts of the last heartbeat.
fn with_pulse(row: NodeRow, pulse: &Pulse) -> selvedge_contract::EngineStatus {
    let mut engine = row.engine;
    engine.progress = pulse.progress;
    engine.computing = pulse.computing;
    engine.loading = pulse.loading;
    // The pulse counts the whole node; with one model it is that model's.
    if let [model] = engine.models.as_mut_slice() {
        model.running = pulse.running;
        model.queued = pulse.queued;
    }
    engine
}
