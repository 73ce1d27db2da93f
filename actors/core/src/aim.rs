//! Where a request may go: by a route of its model's name, or by the name alone; and whether its
//! data and money may leave the mesh for it.
//!
//! Owns what a name without a route means (a model of the mesh, `PROVIDER/MODEL`, or a provider's
//! model by its own name, in this order), the legs that a route's decision comes to, and the rule
//! about leaving. Which targets of a route can be used is [`crate::routes`]'s, what happens between
//! targets [`crate::journey`]'s.

use std::sync::Arc;

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Blame, Code, Mono, Refusal, Retry, Stage};
use selvedge_proto::wire::Label;

use crate::catalogue::{Counts, Model};
use crate::journey::{Leg, Rising, Target};
use crate::routes::{Decision, Place, Policy, Saving, Standing};
use crate::upstream::ProviderSpec;

/// Where a request may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aim {
    /// In the order to try, each with the reason it stands there.
    pub targets: Vec<(Target, String)>,
    /// Those that a route names and this request cannot use, for the record.
    pub passed_over: Vec<Leg>,
    /// What the route knows of the models of providers that it leads to: what it compared prices by
    /// is what is billed.
    pub known: Vec<(Target, Arc<Model>)>,
    /// Which of them go from small to large, where an answer may be doubted.
    pub rising: Option<Rising>,
    /// What is compared with what was paid, where small models come first.
    pub yardstick: Option<Yardstick>,
    /// A route of the operator's led there: whoever asks for it may go where it leads.
    pub routed: bool,
    /// Why it can go nowhere, if so.
    pub refusal: Option<Refusal>,
}

/// The largest model a request could have gone to at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Yardstick {
    /// The route.
    pub route: String,
    /// What is known of the model; none where it bills nothing or nothing is known.
    pub largest: Option<Arc<Model>>,
}

impl Yardstick {
    /// What trying small models first has saved, by what an answer took at last; none where the
    /// largest model bills nothing or has no known price.
    pub fn saving(&self, legs: &[Leg], answer: &Counts) -> Option<Saving> {
        let paid = legs.iter().fold(0_u64, |sum, leg| sum.saturating_add(leg.took.micro_dollars));
        Saving::of(paid, &self.largest.as_ref()?.price, answer).ok()
    }

    /// Of the targets a decision tries, the largest one.
    fn of(decision: &Decision) -> Option<Self> {
        let Policy::SmallFirst { .. } = decision.route.policy else { return None };
        let largest = *decision.order.iter().max()?;
        let place = &decision.route.targets.get(largest)?.place;
        let bills = matches!(place, Place::Provider { free: false, .. });
        let known = decision.verdicts.get(largest)?.known.clone();
        let route = decision.route.name.clone();
        Some(Self { route, largest: known.filter(|_| bills) })
    }
}

/// How many of a decision's targets go from small to large, and when an answer is doubted.
fn rising(decision: &Decision) -> Option<Rising> {
    let Policy::SmallFirst { min_confidence: Some(min_millinats) } = decision.route.policy else {
        return None;
    };
    let steps = decision.order.windows(2).take_while(|pair| pair[0] < pair[1]).count();
    (steps > 0).then_some(Rising { legs: steps + 1, min_millinats })
}

impl Aim {
    /// What a route's decision comes to.
    pub fn of_route(decision: &Decision, now: Mono) -> Self {
        let explained = decision.explain();
        let target = |number: usize| {
            let place = &decision.route.targets.get(number)?.place;
            Some(target_of(place, &decision.verdicts.get(number)?.model))
        };
        let targets = decision.order.iter().filter_map(|number| {
            let told = explained.targets.get(*number)?;
            let score = told.score.as_ref().map_or(String::new(), |score| format!(", {score}"));
            let why = format!("route '{}', {}{score}", explained.route, explained.policy);
            Some((target(*number)?, why))
        });
        let passed_over = decision.verdicts.iter().enumerate().filter_map(|(number, verdict)| {
            let Standing::Excluded(_) = &verdict.standing else { return None };
            let told = explained.targets.get(number)?;
            let why = format!("route '{}', {}", explained.route, explained.policy);
            Some(Leg::unasked(target(number)?, why, Some(told.because.join("; "))))
        });
        let known = decision.order.iter().filter_map(|number| {
            let known = decision.verdicts.get(*number)?.known.as_ref()?;
            Some((target(*number)?, Arc::clone(known)))
        });
        Self {
            targets: targets.collect(),
            known: known.collect(),
            rising: rising(decision),
            yardstick: Yardstick::of(decision),
            passed_over: passed_over.collect(),
            routed: true,
            refusal: decision.refusal(now),
        }
    }

    /// What is known of a target at a provider, which calls its model `upstream`. `by_name` is what
    /// the catalogue in force says of that name. A route may know a model under another name of the
    /// catalogue, as with deployments; a model that the provider's own configuration gives another
    /// name is the one of that name.
    pub fn known_of(
        &self,
        target: &Target,
        upstream: &str,
        by_name: impl FnOnce() -> Option<Arc<Model>>,
    ) -> Option<Arc<Model>> {
        let by_route = self.known.iter().find(|(known, _)| known == target);
        let by_route = by_route.map(|(_, model)| Arc::clone(model));
        match target {
            Target::Provider { model, .. } if model != upstream => by_name().or(by_route),
            Target::Provider { .. } | Target::Mesh { .. } => by_route.or_else(by_name),
        }
    }

    /// Whether a name means, or means too, a model of a provider.
    pub fn is_provided<'a>(
        model: &str,
        providers: impl Iterator<Item = &'a ProviderSpec> + Clone,
    ) -> bool {
        let named = model.split_once('/').is_some_and(|(provider, model)| {
            let spec = providers.clone().find(|spec| spec.name == provider);
            spec.is_some_and(|spec| spec.models.is_empty() || spec.model(model).is_some())
        });
        named || providers.clone().any(|spec| spec.model(model).is_some())
    }

    /// What a name means without a route. `in_mesh`: a node has a model of this name. `providers`
    /// are the configured ones in the order of their names.
    pub fn of_name<'a>(
        model: &str,
        in_mesh: bool,
        providers: impl Iterator<Item = &'a ProviderSpec> + Clone,
    ) -> Self {
        let at = |provider: &str, model: &str| Target::Provider {
            provider: provider.to_owned(),
            model: model.to_owned(),
        };
        let only = |targets| Self { targets, ..Self::default() };
        if let Some((provider, model)) = model.split_once('/')
            && let Some(spec) = providers.clone().find(|spec| spec.name == provider)
            // A provider without a list of models is asked for whatever the caller names.
            && (spec.models.is_empty() || spec.model(model).is_some())
        {
            return only(vec![(at(provider, model), "named by the caller".to_owned())]);
        }
        let mut targets = Vec::new();
        if in_mesh {
            let target = Target::Mesh { model: model.to_owned() };
            targets.push((target, "a model of the mesh has this name".to_owned()));
        }
        for spec in providers.filter(|spec| spec.model(model).is_some()) {
            let why = format!("provider '{}' has a model of this name", spec.name);
            targets.push((at(&spec.name, model), why));
        }
        if targets.is_empty() {
            // The mesh says best what is not there, and what is.
            let target = Target::Mesh { model: model.to_owned() };
            targets.push((target, "nobody else has a model of this name".to_owned()));
        }
        only(targets)
    }
}

/// Where a decision's target is.
pub fn target_of(place: &Place, model: &str) -> Target {
    match place {
        Place::Mesh { .. } => Target::Mesh { model: model.to_owned() },
        Place::Provider { provider, .. } => {
            Target::Provider { provider: provider.clone(), model: model.to_owned() }
        }
    }
}

/// A request that would go to a provider.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// How far its data may travel, if the caller said.
    pub label: Option<Label>,
    /// It named a model that only providers have, or a route to them.
    pub only_there: bool,
    /// The caller showed a key: only then money is spent.
    pub keyed: bool,
    /// Asking the provider is paid for.
    pub costs_money: bool,
}

impl Leaving {
    /// Whether its data and money may go there. Who named a model that only providers have, or a
    /// route to them, wants it asked there; who named one of the mesh must say that it may leave.
    ///
    /// # Errors
    /// Why not, and what would allow it.
    pub fn check(self, provider: &str) -> Result<(), Refusal> {
        let stays = match self.label {
            None => !self.only_there,
            Some(Label::Node | Label::Site | Label::Mesh) => !plant::is_on(Plant::LabelLeaves),
            Some(Label::Anywhere) => false,
        };
        if stays {
            let message = format!(
                "the request's data may not leave for provider '{provider}'; the header \
                 'x-selvedge-label: anywhere' allows it"
            );
            let (stage, blame, code) = (Stage::Route, Blame::Us, Code::Forbidden);
            return Err(Refusal::new(stage, blame, Retry::Elsewhere, code, message));
        }
        if self.costs_money && !self.keyed {
            let message = format!(
                "asking provider '{provider}' costs money, and that needs an API key: `selvedge \
                 key create NAME` makes one"
            );
            return Err(Refusal::client(Stage::Authenticate, Code::Unauthorized, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::provider::RawModel;
    use crate::upstream::{ProviderKind, RawProvider};

    const FREE: Leaving =
        Leaving { label: None, only_there: false, keyed: false, costs_money: false };

    #[test]
    fn data_leaves_only_where_somebody_said_so() {
        let only = Leaving { only_there: true, ..FREE };
        let with = |label, leaving| Leaving { label: Some(label), ..leaving };
        assert!(FREE.check("acme").is_err() && only.check("acme").is_ok());
        assert!(with(Label::Anywhere, FREE).check("acme").is_ok());
        for label in [Label::Node, Label::Site, Label::Mesh] {
            let refusal = with(label, only).check("acme").unwrap_err();
            assert_eq!(refusal.code, Code::Forbidden);
        }
        let paid = Leaving { costs_money: true, ..only };
        assert_eq!(paid.check("acme").unwrap_err().code, Code::Unauthorized);
        assert!(Leaving { keyed: true, ..paid }.check("acme").is_ok());
    }

    #[test]
    fn a_name_is_the_meshs_before_it_is_a_providers() {
        let models = vec![RawModel { name: "m".to_owned(), ..RawModel::default() }];
        let raw = RawProvider { models, ..RawProvider::named("acme", ProviderKind::Ollama) };
        let spec = raw.checked().unwrap();
        let shown = |model: &str, in_mesh| -> Vec<String> {
            let aim = Aim::of_name(model, in_mesh, std::iter::once(&spec));
            aim.targets.iter().map(|(target, _)| target.to_string()).collect()
        };
        assert_eq!(shown("m", true), ["m", "acme/m"]);
        assert_eq!(shown("m", false), ["acme/m"]);
        assert_eq!(shown("acme/m", true), ["acme/m"]);
        assert_eq!(shown("acme/other", false), ["acme/other"], "the mesh says that it has none");
        assert_eq!(shown("other", false), ["other"]);
    }
}
