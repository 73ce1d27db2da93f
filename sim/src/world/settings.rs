//! Routes of the mesh: what stewards sign at nodes, how it spreads, and by what each node routes.
//!
//! Owns the observer's own account of it: which versions anybody signed, and which one a node's
//! disk has held, so that a node which goes by another is noticed. Nodes of a build before settings
//! go by the plan's routes, as by a file of their own.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::MeshId;
use selvedge_core::catalogue::Catalogue;
use selvedge_core::paid::list_of;
use selvedge_core::routes::{Gathered, Item, PolicyConfig, Provider, RouteConfig, Routes};
use selvedge_core::upstream::provider::CostClass;
use selvedge_proto::records::Roster;
use selvedge_proto::settings::{
    Setting, SettingKey, SettingNotice, SettingPart, SettingsBook, SettingsMessage, Which,
    sign_setting,
};

use super::{Load, World};
use crate::invariant::Invariant;
use crate::plan::Rerouting;
use crate::watch::EventKind;

/// The wire version that brought settings.
pub(super) const SETTINGS_VERSION: u8 = 4;

/// What decides between two versions, as the observer reads it from the records.
type Rank = (u32, u64, [u8; 32]);

/// What the observer knows.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// What every disk begins with; nothing where there are no routes.
    first: Vec<SettingPart>,
    /// Every version that somebody with a right has signed.
    signed: BTreeSet<[u8; 32]>,
    /// The highest that each node's disk has held since it was last made or set back.
    held: Vec<BTreeMap<SettingKey, Rank>>,
}

fn rank(notice: &SettingNotice) -> Rank {
    let body = &notice.signed.body;
    (body.generation, body.version, Setting::id(notice))
}

impl World<'_> {
    /// The plan's routes were signed before the run, and every node was set up with them.
    pub(super) fn prepare_settings(&mut self) {
        self.settings.held = vec![BTreeMap::new(); self.nodes.len()];
        let mesh = MeshId(self.names.root.verifying_key().to_bytes());
        let wall = self.nodes[0].now(self.now.0).wall;
        let mut book = SettingsBook::new(mesh);
        let roster = Roster::new(mesh, self.id(0));
        for route in &self.plan.cloud.routes {
            let item = Item::Route(route.clone());
            let next = item.to_bytes().map(|bytes| book.next(item.key(), Some(bytes), 0, wall));
            let Ok(Ok(next)) = next else { continue };
            let notice = sign_setting(&self.names.root, None, next);
            self.settings.signed.insert(Setting::id(&notice));
            let taken = book.apply(vec![notice], &roster, wall);
            debug_assert_eq!(taken, Ok(true), "what the root key signs is taken");
        }
        self.settings.first = book.parts().into_values().collect();
        for node in 0..self.nodes.len() {
            self.set_up_settings(node);
        }
    }

    /// A disk as it is when a node is set up.
    pub(super) fn set_up_settings(&mut self, node: usize) {
        self.nodes[node].disk.stored.settings = self.settings.first.clone();
    }

    /// A process starts with the routes of its disk.
    pub(super) fn boot_settings(&mut self, node: usize) {
        if self.settings.first.is_empty() {
            // Nobody made a route: the list of models that comes with the program is in force.
            self.nodes[node].memory.routes = self.routes.clone();
            return;
        }
        let wall = self.nodes[node].now(self.now.0).wall;
        let parts = self.nodes[node].disk.stored.settings.clone();
        let memory = &mut self.nodes[node].memory;
        let (book, left_out) = SettingsBook::from_parts(parts, &memory.roster, wall);
        memory.settings = book;
        for error in left_out {
            let seen = format!("node {node} leaves out of its own disk: {error}");
            self.broken(Invariant::RouteByGoverning, seen);
        }
        // A backup that was put back says what it said.
        self.settings.held[node] = self.heads(node);
        self.gather_routes(node);
    }

    fn heads(&self, node: usize) -> BTreeMap<SettingKey, Rank> {
        let book = &self.nodes[node].memory.settings;
        let keys = self.plan.cloud.routes.iter().map(|one| Item::key_of_name(one.name.clone()));
        let head = |key: SettingKey| {
            let head = rank(book.head(&key)?);
            Some((key, head))
        };
        keys.filter_map(head).collect()
    }

    /// What is in force at a node now.
    fn gather_routes(&mut self, node: usize) {
        let Ok(base) = Catalogue::built_in() else { return };
        let known = self.specs.iter().map(|spec| {
            let free = spec.cost == CostClass::Free;
            (spec.name.clone(), Provider { kind: list_of(spec), region: None, free })
        });
        let memory = &self.nodes[node].memory;
        let items = memory.settings.current();
        let items = items.filter_map(|(one, said)| Item::of_setting(&one.key, said).ok());
        let items: Vec<Item> = items.collect();
        let Gathered { routes, .. } = Routes::gather(&[], &items, &known.collect(), base);
        let memory = &mut self.nodes[node].memory;
        memory.routed_by = memory.settings.revision();
        memory.routes = routes;
    }

    /// The routes that a node goes by.
    pub(super) fn routes_at(&self, node: usize) -> &Routes {
        match self.nodes[node].version < SETTINGS_VERSION {
            true => &self.routes,
            false => &self.nodes[node].memory.routes,
        }
    }

    /// The settings of a node are others now: its disk keeps them, its routes follow, peers hear.
    fn settings_changed(&mut self, node: usize) {
        let parts = self.nodes[node].memory.settings.parts();
        self.nodes[node].disk.stored.settings = parts.into_values().collect();
        self.gather_routes(node);
        self.judge_settings(node);
        let revision = self.nodes[node].memory.settings.revision();
        self.record("settings", [node, node], &revision.to_be_bytes());
        let peers = self.nodes[node].memory.links.len();
        if self.plan.nodes <= super::LARGE {
            (0..peers).for_each(|peer| self.greet_settings(node, peer));
        }
    }

    /// Tells a peer which settings this node has.
    pub(super) fn greet_settings(&mut self, node: usize, peer: usize) {
        let link = self.nodes[node].memory.link(peer);
        if self.settings.first.is_empty() || link.is_none_or(|link| link.version < SETTINGS_VERSION)
        {
            return;
        }
        let message = self.nodes[node].memory.settings.greeting();
        self.send_reliable(node, peer, Load::Settings(Box::new(message)));
    }

    pub(super) fn settings_received(
        &mut self,
        node: usize,
        from: usize,
        message: &SettingsMessage,
    ) {
        let wall = self.nodes[node].now(self.now.0).wall;
        let turn = self.nodes[node].memory.dice.next();
        let memory = &mut self.nodes[node].memory;
        let mut is_new = false;
        if let SettingsMessage::Delta(delta) = message {
            let changed = memory.settings.apply_all(delta.clone(), &memory.roster, wall);
            is_new = !changed.keys.is_empty();
        }
        if let Some(answer) = memory.settings.answer(message, turn) {
            self.send_reliable(node, from, Load::Settings(Box::new(answer)));
        }
        if is_new {
            self.settings_changed(node);
        }
    }

    /// Once in a while a node forgets what was removed long ago, and heeds who was put out.
    pub(super) fn look_after_settings(&mut self, node: usize) {
        if self.settings.first.is_empty() || !self.nodes[node].acts() {
            return;
        }
        let wall = self.nodes[node].now(self.now.0).wall;
        let memory = &mut self.nodes[node].memory;
        let heeded = memory.settings.heed(&memory.roster);
        if memory.settings.tick(wall) || heeded {
            self.settings_changed(node);
        }
    }

    /// A steward changes a route at one node.
    pub(super) fn reroute(&mut self, index: usize, node: usize, how: Rerouting) {
        let state = &self.nodes[node];
        let able = state.acts() && state.clock.is_right() && state.version >= SETTINGS_VERSION;
        let routes = &self.plan.cloud.routes;
        if !able || !self.belongs(node) || routes.is_empty() {
            return;
        }
        let route = &routes[index % routes.len()];
        let key = Item::key_of_name(route.name.clone());
        let wall = state.now(self.now.0).wall;
        let book = &state.memory.settings;
        let said = book.head(&key).and_then(|head| head.signed.body.content.clone());
        let content = match how {
            Rerouting::Turned => {
                let turned = Item::Route(turned(route)).to_bytes().ok();
                let plain = Item::Route(route.clone()).to_bytes().ok();
                if said == turned { plain } else { turned }
            }
            Rerouting::Removed => None,
            Rerouting::Back => match book.content_of(&key, &Which::Before) {
                Ok(content) => content,
                Err(_) => return,
            },
        };
        let Ok(next) = book.next(key, content, 0, wall) else { return };
        let notice = sign_setting(&self.names.root, None, next);
        self.settings.signed.insert(Setting::id(&notice));
        let memory = &mut self.nodes[node].memory;
        if memory.settings.apply(vec![notice], &memory.roster, wall) == Ok(true) {
            self.fired(index);
            self.show(EventKind::PolicyChanged, node, None, || "a route changes".to_owned());
            self.settings_changed(node);
        }
    }

    /// A member says that a route leads elsewhere, which it has no right to.
    pub(super) fn forged_setting(&self, node: usize) -> Option<SettingsMessage> {
        let route = self.plan.cloud.routes.first()?;
        let wall = self.nodes[node].now(self.now.0).wall;
        let item = Item::Route(turned(route));
        let book = &self.nodes[node].memory.settings;
        let next = book.next(item.key(), Some(item.to_bytes().ok()?), 0, wall).ok()?;
        let notice = sign_setting(self.names.key(node), None, next);
        let mut delta = selvedge_proto::settings::SettingsDelta::default();
        delta.lines.push(vec![notice]);
        Some(SettingsMessage::Delta(delta))
    }

    /// What governs at a node was signed by somebody who may, and nothing higher was there before.
    pub(super) fn judge_settings(&mut self, node: usize) {
        if self.nodes[node].version < SETTINGS_VERSION || self.settings.first.is_empty() {
            return;
        }
        let heads = self.heads(node);
        let mut wrong = Vec::new();
        for (key, rank) in &heads {
            if !self.settings.signed.contains(&rank.2) {
                wrong.push(format!("node {node} goes by a '{}' that nobody signed", key.name));
            }
        }
        for (key, held) in &self.settings.held[node] {
            if heads.get(key).is_none_or(|now| now < held) {
                wrong.push(format!(
                    "node {node} goes back from version {} of '{}'",
                    held.1, key.name
                ));
            }
        }
        let memory = &self.nodes[node].memory;
        if memory.routed_by != memory.settings.revision() {
            wrong.push(format!("node {node} routes by what it had before"));
        }
        for seen in wrong {
            self.broken(Invariant::RouteByGoverning, seen);
        }
        self.settings.held[node] = heads;
    }

    /// After healing all nodes have the same routes, by the records and in force.
    pub(super) fn settings_agree(&mut self) {
        if self.settings.first.is_empty() || self.ease() > 1 {
            return;
        }
        let whole: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.is_whole(*node) && self.nodes[*node].version >= SETTINGS_VERSION)
            .filter(|node| self.nodes[*node].acts() && self.nodes[*node].clock.is_right())
            .collect();
        for pair in whole.windows(2) {
            let (one, other) = (&self.nodes[pair[0]].memory, &self.nodes[pair[1]].memory);
            let same = one.settings.greeting() == other.settings.greeting();
            if !same || one.routes != other.routes {
                let versions = |node: usize| {
                    let heads = self.heads(node);
                    heads.into_iter().map(|(key, rank)| (key.name, rank.1)).collect::<Vec<_>>()
                };
                let seen = format!("{pair:?}: {:?}, {:?}", versions(pair[0]), versions(pair[1]));
                self.broken(Invariant::LiveRoutesAgree, seen);
            }
        }
    }
}

/// The same targets, the last one first, each after the one before failed.
fn turned(route: &RouteConfig) -> RouteConfig {
    let mut route = route.clone();
    route.policy = PolicyConfig::Fallback;
    route.targets.reverse();
    for target in &mut route.targets {
        (target.up_to, target.weight) = (None, None);
    }
    route
}
