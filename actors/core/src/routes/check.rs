//! From a book as written to routes that can be relied on, with the first thing that is wrong.
//!
//! Owns the checks and the search from a name through aliases to a route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::config::{PolicyConfig, RouteConfig, StickyBy, TargetConfig};
use super::{
    BOOK_VERSION, MAX_ALIAS_HOPS, MAX_ALIASES, MAX_NAME_BYTES, MAX_OVERRIDES, MAX_ROUTES,
    MAX_TARGETS, MAX_WEIGHT, RouteBook, RouteError,
};
use crate::catalogue::{Capability, Catalogue, Modality, Model, ProviderKind};

/// Providers listed in an error: enough to see a typing error.
const NAMES_IN_ERROR: usize = 8;

/// A configured provider, as far as routing needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// How it is spoken to, and whose models the catalogue has for it.
    pub kind: ProviderKind,
    /// Where it computes, when the operator says so.
    pub region: Option<String>,
    /// Whether it bills nothing, whatever the model: a server of one's own.
    pub free: bool,
}

/// Checked routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// By name without the `*`; the flag says whether there is one.
    pub(super) names: BTreeMap<(String, bool), Leads>,
    pub(super) catalogue: Catalogue,
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    Route(Arc<Route>),
    Alias(String),
}

/// A checked route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name as written.
    pub name: String,
    /// In which order targets are tried.
    pub policy: Policy,
    /// What every target must be able to do.
    pub needs: BTreeSet<Capability>,
    /// The least context of a target.
    pub min_context: u32,
    /// Providers that bill are skipped when less of the budget is left, in thousandths.
    pub keep_budget_permille: u16,
    /// What may answer; at least one.
    pub targets: Vec<Target>,
}

/// In which order targets are tried; see [`PolicyConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The first usable one alone.
    Fixed,
    /// All, in the order written.
    Fallback,
    /// By shares.
    Weighted(StickyBy),
    /// By price.
    Cheapest,
    /// By measured time.
    Fastest,
    /// By load.
    LeastLoaded,
    /// By complexity, and by the confidence of the answer.
    SmallFirst {
        /// In thousandths.
        min_confidence: Option<i32>,
    },
}

/// Something that may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is.
    pub place: Place,
    /// Its share or size, at least 1 unless it has no share at all.
    pub weight: u32,
    /// Where a provider computes.
    pub region: Option<String>,
    /// Only requests that need one of these come here.
    pub only_for: BTreeSet<Capability>,
    /// Only requests with one of these as input come here.
    pub only_input: BTreeSet<Modality>,
    /// The highest complexity it is good for.
    pub up_to: u32,
}

/// A model, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this mesh.
    Mesh {
        /// Its name; `None` is what the `*` of the route stands for.
        model: Option<String>,
    },
    /// At a provider.
    Provider {
        /// The provider's configured name.
        provider: String,
        /// Its kind.
        kind: ProviderKind,
        /// Whether it bills nothing.
        free: bool,
        /// The provider's name for the model; `None` is what the `*` of the route stands for.
        model: Option<String>,
        /// What the catalogue knows of it; looked up for each request when the name is a `*`.
        known: Option<Arc<Model>>,
    },
}

/// A route that was found for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved<'a> {
    pub(super) route: &'a Arc<Route>,
    /// What the `*` of the route stands for; empty without one.
    pub(super) rest: String,
    /// The aliases that were followed.
    pub(super) via: Vec<String>,
}

impl Routes {
    /// Checks a book. `providers` are the configured ones by name, `base` is what is known of
    /// models before the book's own entries.
    ///
    /// # Errors
    /// [`RouteError`] with the first thing that is wrong.
    pub fn check(
        book: &RouteBook,
        providers: &BTreeMap<String, Provider>,
        base: &Catalogue,
    ) -> Result<Self, RouteError> {
        if book.version != BOOK_VERSION {
            return Err(RouteError::Version(book.version));
        }
        at_most(book.routes.len(), MAX_ROUTES, "routes")?;
        at_most(book.aliases.len(), MAX_ALIASES, "aliases")?;
        at_most(book.models.len(), MAX_OVERRIDES, "entries for the catalogue")?;
        let mut routes = Self { names: BTreeMap::new(), catalogue: base.with(&book.models)? };
        for config in &book.routes {
            let key = pattern(&config.name)?;
            let route = Arc::new(check_route(config, key.1, providers, &routes.catalogue)?);
            if routes.names.insert(key, Leads::Route(route)).is_some() {
                return Err(RouteError::Twice(config.name.clone()));
            }
        }
        for (alias, to) in &book.aliases {
            let key = pattern(alias)?;
            if pattern(to)?.1 {
                let why = "an alias leads to one name, without a '*'";
                return Err(RouteError::Name { name: to.clone(), why });
            }
            if routes.names.insert(key, Leads::Alias(to.clone())).is_some() {
                return Err(RouteError::Twice(alias.clone()));
            }
        }
        for (alias, to) in &book.aliases {
            routes.follow(to, vec![alias.clone()])?;
        }
        Ok(routes)
    }

    /// What is known of models, the book's own entries included.
    pub const fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The names that can be asked for, as written, routes and aliases alike.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.names.keys().map(|(name, open)| format!("{name}{}", if *open { "*" } else { "" }))
    }

    /// The route of a name: an exact name before one with `*`, and of those the longest.
    pub(super) fn resolve(&self, name: &str) -> Option<Resolved<'_>> {
        self.follow(name, Vec::new()).ok()
    }

    pub(super) fn follow(
        &self,
        name: &str,
        mut via: Vec<String>,
    ) -> Result<Resolved<'_>, RouteError> {
        let mut name = name.to_owned();
        loop {
            let dangling = || RouteError::Dangling {
                alias: via.first().cloned().unwrap_or_default(),
                to: name.clone(),
            };
            let ((start, open), leads) = self.lookup(&name).ok_or_else(dangling)?;
            match leads {
                Leads::Route(route) => {
                    let rest = if *open { name[start.len()..].to_owned() } else { String::new() };
                    return Ok(Resolved { route, rest, via });
                }
                Leads::Alias(to) => {
                    at_most(via.len(), MAX_ALIAS_HOPS, "aliases on the way to one route")?;
                    if via.contains(&name) {
                        via.push(name);
                        return Err(RouteError::Loop(via.join(" > ")));
                    }
                    via.push(std::mem::replace(&mut name, to.clone()));
                }
            }
        }
    }

    pub(super) fn lookup(&self, name: &str) -> Option<(&(String, bool), &Leads)> {
        if self.names.is_empty() {
            return None;
        }
        let exact = (name.to_owned(), false);
        if let Some(found) = self.names.get_key_value(&exact) {
            return Some(found);
        }
        let open = self.names.iter().filter(|((start, open), _)| *open && name.starts_with(start));
        open.max_by_key(|((start, _), _)| start.len())
    }
}

impl Place {
    /// How it is written.
    pub(super) fn written(&self) -> String {
        match self {
            Self::Mesh { model } => format!("mesh {}", model.as_deref().unwrap_or("*")),
            Self::Provider { provider, model, .. } => {
                format!("{provider} {}", model.as_deref().unwrap_or("*"))
            }
        }
    }
}

pub(super) fn check_route(
    config: &RouteConfig,
    open: bool,
    providers: &BTreeMap<String, Provider>,
    catalogue: &Catalogue,
) -> Result<Route, RouteError> {
    let refuse =
        |why: &str| Err(RouteError::Route { route: config.name.clone(), why: why.to_owned() });
    if config.targets.is_empty() || config.targets.len() > MAX_TARGETS {
        return refuse(&format!("it needs 1 to {MAX_TARGETS} targets ([[route.target]])"));
    }
    let percent = config.keep_budget_percent.unwrap_or(0);
    if percent > 100 {
        return refuse("keep_budget_percent lies between 0 and 100");
    }
    let mut targets = Vec::with_capacity(config.targets.len());
    for (at, target) in config.targets.iter().enumerate() {
        let checked = check_target(target, config.policy, open, providers, catalogue);
        let number = at + 1;
        let checked = checked.map_err(|why| RouteError::Target {
            route: config.name.clone(),
            number,
            why,
        })?;
        if targets.iter().any(|held: &Target| held.place == checked.place) {
            let why = format!("{} is a target already", checked.place.written());
            return Err(RouteError::Target { route: config.name.clone(), number, why });
        }
        targets.push(checked);
    }
    let policy = match config.policy {
        PolicyConfig::Fixed => Policy::Fixed,
        PolicyConfig::Fallback => Policy::Fallback,
        PolicyConfig::Weighted { by } => Policy::Weighted(by),
        PolicyConfig::Cheapest => Policy::Cheapest,
        PolicyConfig::Fastest => Policy::Fastest,
        PolicyConfig::LeastLoaded => Policy::LeastLoaded,
        PolicyConfig::SmallFirst { min_confidence } => Policy::SmallFirst { min_confidence },
    };
    check_policy(policy, config, &targets)?;
    Ok(Route {
        name: config.name.clone(),
        policy,
        needs: config.needs.clone(),
        min_context: config.min_context.unwrap_or(0),
        keep_budget_permille: u16::from(percent) * 10,
        targets,
    })
}

/// What a policy asks of the targets together.
fn check_policy(
    policy: Policy,
    config: &RouteConfig,
    targets: &[Target],
) -> Result<(), RouteError> {
    let refuse =
        |why: &str| Err(RouteError::Route { route: config.name.clone(), why: why.to_owned() });
    match policy {
        Policy::Weighted(_) if targets.iter().all(|target| target.weight == 0) => {
            return refuse("all weights are 0, so no target has a share");
        }
        Policy::SmallFirst { min_confidence } => {
            if min_confidence.is_some_and(|least| least > 0) {
                return refuse("min_confidence is a log-probability: 0 or less, such as -800");
            }
            let last = config.targets.len() - 1;
            let wrong =
                |(at, target): (usize, &TargetConfig)| (at == last) == target.up_to.is_some();
            if config.targets.iter().enumerate().any(wrong) {
                return refuse("every target but the last needs up_to, and the last has none");
            }
            if !targets.windows(2).all(|pair| pair[0].up_to < pair[1].up_to) {
                return refuse("up_to must rise from target to target");
            }
        }
        Policy::Fixed
        | Policy::Fallback
        | Policy::Weighted(_)
        | Policy::Cheapest
        | Policy::Fastest
        | Policy::LeastLoaded => {}
    }
    Ok(())
}

fn check_target(
    config: &TargetConfig,
    policy: PolicyConfig,
    open: bool,
    providers: &BTreeMap<String, Provider>,
    catalogue: &Catalogue,
) -> Result<Target, String> {
    let model_of = |name: &String| -> Result<Option<String>, String> {
        if name == "*" {
            let why = "'*' as model needs a route whose name ends in '*'";
            return if open { Ok(None) } else { Err(why.to_owned()) };
        }
        check_name(name).map_err(|why| format!("model '{name}': {why}"))?;
        Ok(Some(name.clone()))
    };
    let (place, region) = match (&config.mesh, &config.provider, &config.model) {
        (Some(mesh), None, None) => {
            if config.region.is_some() || config.known_as.is_some() {
                return Err("region and known_as are for targets at providers".to_owned());
            }
            (Place::Mesh { model: model_of(mesh)? }, None)
        }
        (None, Some(name), Some(model)) => {
            let found = providers.get(name).ok_or_else(|| unknown_provider(name, providers))?;
            let model = model_of(model)?;
            let known = known(config, found.kind, model.as_deref(), catalogue)?;
            let region = config.region.clone().or_else(|| found.region.clone());
            let place = Place::Provider {
                provider: name.clone(),
                kind: found.kind,
                free: found.free,
                model,
                known,
            };
            (place, region)
        }
        _ => return Err("write either mesh, or provider and model".to_owned()),
    };
    if let Some(region) = &region {
        check_name(region).map_err(|why| format!("region '{region}': {why}"))?;
    }
    let weighs = matches!(policy, PolicyConfig::Weighted { .. } | PolicyConfig::LeastLoaded);
    let weight = config.weight.unwrap_or(1);
    if config.weight.is_some() && !weighs {
        return Err("weight has a meaning for weighted and least-loaded only".to_owned());
    }
    if weight > MAX_WEIGHT || weight == 0 && matches!(policy, PolicyConfig::LeastLoaded) {
        return Err(format!("a weight lies between 1 and {MAX_WEIGHT}; 0 is for weighted only"));
    }
    if config.up_to.is_some() && !matches!(policy, PolicyConfig::SmallFirst { .. }) {
        return Err("up_to has a meaning for small-first only".to_owned());
    }
    if config.up_to.is_some_and(|most| most >= 100) {
        return Err("up_to is a complexity below 100".to_owned());
    }
    Ok(Target {
        place,
        weight,
        region,
        only_for: config.only_for.clone(),
        only_input: config.only_input.clone(),
        up_to: config.up_to.unwrap_or(u32::MAX),
    })
}

/// What the catalogue knows of a target's model. A name it was told to look under must be there.
fn known(
    config: &TargetConfig,
    kind: ProviderKind,
    model: Option<&str>,
    catalogue: &Catalogue,
) -> Result<Option<Arc<Model>>, String> {
    let find = |name: &str| catalogue.find(kind, name).map(|found| Arc::clone(found.model()));
    match (&config.known_as, model) {
        (Some(_), None) => Err("known_as needs a model that is not '*'".to_owned()),
        (Some(name), Some(_)) => {
            let why = || format!("known_as: the catalogue has no {kind} model '{name}'");
            find(name).map(Some).ok_or_else(why)
        }
        (None, model) => Ok(model.and_then(find)),
    }
}

pub(super) fn unknown_provider(name: &str, providers: &BTreeMap<String, Provider>) -> String {
    if providers.is_empty() {
        return format!("provider '{name}' is unknown: none is configured");
    }
    let names: Vec<&str> = providers.keys().map(String::as_str).take(NAMES_IN_ERROR).collect();
    format!("provider '{name}' is unknown; configured are {}", names.join(", "))
}

pub(super) const fn at_most(
    count: usize,
    limit: usize,
    what: &'static str,
) -> Result<(), RouteError> {
    if count > limit { Err(RouteError::Full { what, limit }) } else { Ok(()) }
}

/// A name without its `*`, and whether it had one.
pub(super) fn pattern(name: &str) -> Result<(String, bool), RouteError> {
    let (start, open) = name.strip_suffix('*').map_or((name, false), |start| (start, true));
    let refuse = |why| Err(RouteError::Name { name: name.to_owned(), why });
    if open && start.is_empty() {
        return Ok((String::new(), true));
    }
    match check_name(start) {
        Ok(()) => Ok((start.to_owned(), open)),
        Err(why) => refuse(why),
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err("a name has 1 to 256 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a name is printable ASCII without spaces");
    }
    if name.contains('*') {
        return Err("a '*' stands at the end only");
    }
    Ok(())
}
