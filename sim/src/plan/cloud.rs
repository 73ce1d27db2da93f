//! What is outside of the mesh: providers, and the routes that lead to them.

use selvedge_base::Micros;
use selvedge_core::catalogue::Catalogue;
use selvedge_core::paid::list_of;
use selvedge_core::routes::{PolicyConfig, Provider, RouteBook, RouteConfig, Routes, TargetConfig};
use selvedge_core::upstream::provider::{
    Continues, CostClass, RawLimits, RawModel, RawTimes, check_all,
};
use selvedge_core::upstream::{BreakerSettings, ProviderKind, ProviderSpec, RawProvider};
use serde::{Deserialize, Serialize};

/// Providers a plan may have: enough for every order of failures among them.
const MAX_PROVIDERS: usize = 8;
/// Routes a plan may have.
const MAX_ROUTES: usize = 16;

/// The highest complexity of a simple request, for the smallest model.
const SIMPLE: u32 = 50;

/// Providers, and routes that lead to them. All nodes know the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloudPlan {
    /// The providers.
    pub providers: Vec<ProviderPlan>,
    /// The routes.
    pub routes: Vec<RouteConfig>,
}

/// A provider, as it is and as the nodes are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderPlan {
    /// Its name in the mesh.
    pub name: String,
    /// Whose price list it bills by. Anthropic's kind tells the prompt's tokens as the answer
    /// begins, the others all of them at the end.
    pub kind: ProviderKind,
    /// Its one model, as the catalogue calls it.
    pub model: String,
    /// One way between a node and it.
    #[serde(default = "far")]
    pub latency: Micros,
    /// From a request to the first byte of its answer.
    #[serde(default = "first")]
    pub first: Micros,
    /// From piece to piece.
    #[serde(default = "each")]
    pub each: Micros,
    /// Keys the mesh has for it.
    #[serde(default = "one")]
    pub keys: usize,
    /// Requests a node may have there at the same time; 0 = any number.
    #[serde(default)]
    pub concurrent: u32,
    /// Whether nodes wait for it and leave it alone for seconds, not for minutes: short runs end
    /// before the usual times do.
    #[serde(default)]
    pub hasty: bool,
    /// Whether it goes on after the beginning of an answer, and the nodes were told so.
    #[serde(default)]
    pub continues: bool,
}

const fn far() -> Micros {
    Micros::millis(15)
}

const fn first() -> Micros {
    Micros::millis(180)
}

const fn each() -> Micros {
    Micros::millis(25)
}

const fn one() -> usize {
    1
}

impl ProviderPlan {
    /// A provider across a continent, with one key.
    pub fn new(name: &str, kind: ProviderKind, model: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            model: model.to_owned(),
            latency: far(),
            first: first(),
            each: each(),
            keys: one(),
            concurrent: 0,
            hasty: false,
            continues: false,
        }
    }

    fn raw(&self) -> RawProvider {
        let model = RawModel { name: self.model.clone(), ..RawModel::default() };
        let times =
            RawTimes { connect_ms: 1_000, first_byte_ms: 3_000, between_ms: 2_000, whole_ms: 0 };
        RawProvider {
            keys: (0..self.keys).map(|key| format!("{}-{key}", self.name)).collect(),
            models: vec![model],
            limits: RawLimits { concurrent: self.concurrent, ..RawLimits::default() },
            times: if self.hasty { times } else { RawTimes::default() },
            cost: CostClass::Paid,
            continues: if self.continues { Continues::LastMessage } else { Continues::No },
            ..RawProvider::named(&self.name, self.kind)
        }
    }

    fn spec(&self) -> Result<ProviderSpec, String> {
        let mut spec = self.raw().checked().map_err(|errors| format!("{errors:?}"))?;
        if self.hasty {
            spec.desk.breaker = BreakerSettings {
                open_first: Micros::secs(1),
                open_longest: Micros::secs(4),
                probe_lease: Micros::secs(4),
                ..BreakerSettings::default()
            };
        }
        Ok(spec)
    }
}

impl CloudPlan {
    /// Whether there is nothing outside.
    pub const fn is_none(&self) -> bool {
        self.providers.is_empty() && self.routes.is_empty()
    }

    /// The providers as nodes know them, and the routes in force.
    ///
    /// # Errors
    /// What production would say is wrong with them.
    pub(crate) fn checked(&self) -> Result<(Vec<ProviderSpec>, Routes), String> {
        if self.providers.len() > MAX_PROVIDERS || self.routes.len() > MAX_ROUTES {
            return Err("too many providers or routes".to_owned());
        }
        if self.is_none() {
            return Ok((Vec::new(), Routes::default()));
        }
        let raws: Vec<RawProvider> = self.providers.iter().map(ProviderPlan::raw).collect();
        check_all(&raws).map_err(|errors| format!("{errors:?}"))?;
        let specs: Result<Vec<ProviderSpec>, String> =
            self.providers.iter().map(ProviderPlan::spec).collect();
        let specs = specs?;
        let known = specs.iter().map(|spec| {
            let free = spec.cost == CostClass::Free;
            (spec.name.clone(), Provider { kind: list_of(spec), region: None, free })
        });
        let book = RouteBook { routes: self.routes.clone(), ..RouteBook::default() };
        let base = Catalogue::built_in().map_err(ToString::to_string)?;
        let routes =
            Routes::check(&book, &known.collect(), base).map_err(|error| error.to_string())?;
        Ok((specs, routes))
    }
}

/// A route: targets are `PROVIDER/MODEL` or models of the mesh.
pub(super) fn route(name: &str, policy: PolicyConfig, targets: &[&str]) -> RouteConfig {
    let small_first = matches!(policy, PolicyConfig::SmallFirst { .. });
    let target = |(at, target): (usize, &&str)| {
        // Small ones are good for the simple requests; the last one is for all.
        let up_to = (small_first && at + 1 < targets.len()).then_some(SIMPLE + at as u32);
        let both = target.split_once('/');
        match both {
            None => {
                TargetConfig { mesh: Some((*target).to_owned()), up_to, ..TargetConfig::default() }
            }
            Some((provider, model)) => TargetConfig {
                provider: Some(provider.to_owned()),
                model: Some(model.to_owned()),
                up_to,
                ..TargetConfig::default()
            },
        }
    };
    RouteConfig {
        name: name.to_owned(),
        policy,
        needs: std::collections::BTreeSet::new(),
        min_context: None,
        keep_budget_percent: None,
        targets: targets.iter().enumerate().map(target).collect(),
    }
}
