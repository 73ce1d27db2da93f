//! From the entries of the mesh and of this node to the routes in force here.
//!
//! [`Routes::check`] takes a book whole or not at all, which is right for one that somebody is
//! handing in. What came from other nodes is signed already and can only be used as far as it
//! goes: entries are taken one by one, what cannot be used here is left out, and every such
//! case is told. A node's own entries come first: of two of one name its own counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_proto::settings::SettingKey;

use super::check::{Leads, at_most, check_route, pattern, unknown_provider};
use super::config::{PolicyConfig, RouteConfig};
use super::{Item, MAX_ALIASES, MAX_OVERRIDES, MAX_ROUTES, Provider, RouteError, Routes};
use crate::catalogue::Catalogue;

/// What is in force, and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// What is.
    pub routes: Routes,
    /// Entries of this node that are not used as they are.
    pub own: BTreeMap<SettingKey, Trouble>,
    /// Entries of the mesh that are not.
    pub shared: BTreeMap<SettingKey, Trouble>,
}

/// Why an entry is not used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This node has an own entry of this name.
    Shadowed,
    /// Targets are left out: their providers are not configured here.
    Partly(String),
    /// It is left out.
    Out(String),
}

impl Trouble {
    /// In words.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Shadowed => "this node's own routes say otherwise",
            Self::Partly(why) | Self::Out(why) => why,
        }
    }
}

/// What was added; the own entries come first.
struct Room {
    routes: usize,
    aliases: usize,
}

impl Routes {
    /// The routes of a node: its own entries and those of the mesh. `base` is what is known of
    /// models before either.
    pub fn gather(
        own: &[Item],
        shared: &[Item],
        providers: &BTreeMap<String, Provider>,
        base: &Catalogue,
    ) -> Gathered {
        let mut gathered = Gathered::default();
        gathered.routes.catalogue = gathered.models(own, shared, base);
        let mut room = Room { routes: 0, aliases: 0 };
        for (items, is_own) in [(own, true), (shared, false)] {
            for item in items {
                let trouble = gathered.routes.add(item, providers, &mut room);
                gathered.note(is_own, item, trouble);
            }
        }
        // A way that is good leads over good names only, so all others go at once.
        let sides = [(own, true), (shared, false)];
        let all = sides.iter().flat_map(|(items, own)| items.iter().map(move |item| (item, *own)));
        let lost: Vec<(&Item, bool, RouteError)> =
            all.filter_map(|(item, own)| Some((item, own, gathered.lost(own, item)?))).collect();
        for (item, is_own, why) in lost {
            if let Ok(key) = pattern(&item.key().name) {
                gathered.routes.names.remove(&key);
            }
            gathered.note(is_own, item, Some(Trouble::Out(why.to_string())));
        }
        gathered
    }

    /// Adds a name, if it can be.
    fn add(
        &mut self,
        item: &Item,
        providers: &BTreeMap<String, Provider>,
        room: &mut Room,
    ) -> Option<Trouble> {
        let out = |error: RouteError| Some(Trouble::Out(error.to_string()));
        let name = item.key().name;
        let key = match item {
            Item::Model(_) => return None,
            Item::Route(_) | Item::Alias { .. } => match pattern(&name) {
                Ok(key) => key,
                Err(error) => return out(error),
            },
        };
        if self.names.contains_key(&key) {
            return Some(Trouble::Shadowed);
        }
        match item {
            Item::Model(_) => None,
            Item::Alias { to, .. } => {
                if let Err(error) = at_most(room.aliases + 1, MAX_ALIASES, "aliases") {
                    return out(error);
                }
                match pattern(to) {
                    Ok((_, false)) => {
                        room.aliases += 1;
                        self.names.insert(key, Leads::Alias(to.clone()));
                        None
                    }
                    Ok((_, true)) => {
                        let why = "an alias leads to one name, without a '*'";
                        out(RouteError::Name { name: to.clone(), why })
                    }
                    Err(error) => out(error),
                }
            }
            Item::Route(config) => {
                if let Err(error) = at_most(room.routes + 1, MAX_ROUTES, "routes") {
                    return out(error);
                }
                let (config, missing) = with_known(config, providers);
                let route = match check_route(&config, key.1, providers, &self.catalogue) {
                    Ok(route) => route,
                    Err(_) if config.targets.is_empty() && missing.is_some() => {
                        return missing.map(Trouble::Out);
                    }
                    Err(error) => return out(error),
                };
                room.routes += 1;
                self.names.insert(key, Leads::Route(Arc::new(route)));
                missing.map(Trouble::Partly)
            }
        }
    }
}

impl Gathered {
    fn note(&mut self, own: bool, item: &Item, trouble: Option<Trouble>) {
        if let Some(trouble) = trouble {
            let notes = if own { &mut self.own } else { &mut self.shared };
            notes.insert(item.key(), trouble);
        }
    }

    /// Why an alias that was added leads nowhere, if it does.
    fn lost(&self, own: bool, item: &Item) -> Option<RouteError> {
        let Item::Alias { name, to } = item else { return None };
        let notes = if own { &self.own } else { &self.shared };
        if notes.contains_key(&item.key()) {
            return None;
        }
        self.routes.follow(to, vec![name.clone()]).err()
    }

    /// The catalogue with the entries of the mesh, and over them this node's own.
    fn models(&mut self, own: &[Item], shared: &[Item], base: &Catalogue) -> Catalogue {
        let mut catalogue = base.clone();
        let models = own.iter().filter(|item| matches!(item, Item::Model(_))).count();
        let left = MAX_OVERRIDES.saturating_sub(models);
        // Those of the mesh come first and get what room the own ones leave.
        for (items, is_own, most) in [(shared, false, left), (own, true, MAX_OVERRIDES)] {
            let mut count = 0;
            for item in items {
                let Item::Model(entry) = item else { continue };
                let added = at_most(count + 1, most, "entries for the catalogue")
                    .and_then(|()| Ok(catalogue.with(std::slice::from_ref(entry))?));
                match added {
                    Ok(with) => (catalogue, count) = (with, count + 1),
                    Err(error) => {
                        self.note(is_own, item, Some(Trouble::Out(error.to_string())));
                    }
                }
            }
        }
        catalogue
    }
}

/// A route without the targets whose providers are not configured, and what was left out.
fn with_known(
    config: &RouteConfig,
    providers: &BTreeMap<String, Provider>,
) -> (RouteConfig, Option<String>) {
    let is_unknown = |name: &&String| !providers.contains_key(*name);
    let mut config = config.clone();
    let missing = config.targets.iter().filter_map(|target| target.provider.as_ref());
    let missing = missing.filter(is_unknown).map(|name| unknown_provider(name, providers)).next();
    config.targets.retain(|target| target.provider.as_ref().filter(is_unknown).is_none());
    if missing.is_some()
        && matches!(config.policy, PolicyConfig::SmallFirst { .. })
        && let Some(last) = config.targets.last_mut()
    {
        // What is the last now is for all that is left.
        last.up_to = None;
    }
    (config, missing)
}
