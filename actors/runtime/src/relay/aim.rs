//! Where a chat may go: by a route of its model's name, or by the name alone.
//!
//! Owns what routing is told of a request, and the translation of its decision into legs. Decides
//! nothing: a name without a route means a model of the mesh, `PROVIDER/MODEL`, or a provider's
//! model by its own name, in this order.

use selvedge_base::Refusal;
use selvedge_core::catalogue::{Capability, Modality, Needs};
use selvedge_core::journey::{Leg, Target};
use selvedge_core::routes::{Boundary, Decision, Money, Request, Signals, Standing};
use selvedge_dialect::chat::{ChatRequest, Content, Format, Part, Role};
use selvedge_net::clock;
use selvedge_proto::policy::Unit;

use super::ChatCall;
use crate::routing::target_of;
use crate::shared::Shared;

/// Bytes of a prompt per token, for rules about length: usual for English text.
const BYTES_PER_TOKEN: usize = 4;

/// Where a chat may go.
pub(super) struct Aim {
    /// In the order to try, each with the reason it stands there.
    pub(super) targets: Vec<(Target, String)>,
    /// Those that a route names and this request cannot use, for the record.
    pub(super) passed_over: Vec<Leg>,
    /// A route of the operator's led there: whoever asks for it may go where it leads.
    pub(super) routed: bool,
    /// Why it can go nowhere, if so.
    pub(super) refusal: Option<Refusal>,
}

/// Where a chat may go.
pub(super) fn aim(shared: &Shared, call: &ChatCall) -> Aim {
    let request = facts_of(shared, call);
    let view = shared.view.load();
    match shared.routing.decide(&request, &view, &shared.providers) {
        Some(decision) => by_route(&decision),
        None => Aim {
            targets: by_name(shared, &call.request.model),
            passed_over: Vec::new(),
            routed: false,
            refusal: None,
        },
    }
}

/// What a model's name means without a route, in the order to try.
pub(super) fn by_name(shared: &Shared, model: &str) -> Vec<(Target, String)> {
    let at = |provider: &str, model: &str| Target::Provider {
        provider: provider.to_owned(),
        model: model.to_owned(),
    };
    let providers = shared.providers.all();
    if let Some((provider, model)) = model.split_once('/')
        && let Some(open) = providers.get(provider)
        // A provider without a list of models is asked for whatever the caller names.
        && (open.spec().models.is_empty() || open.spec().model(model).is_some())
    {
        return vec![(at(provider, model), "named by the caller".to_owned())];
    }
    let mut targets = Vec::new();
    if shared.view.load().has_model(model) {
        let target = Target::Mesh { model: model.to_owned() };
        targets.push((target, "a model of the mesh has this name".to_owned()));
    }
    for (name, open) in providers.iter() {
        if open.spec().model(model).is_some() {
            targets.push((at(name, model), format!("provider '{name}' has a model of this name")));
        }
    }
    if targets.is_empty() {
        // The mesh says best what is not there, and what is.
        let target = Target::Mesh { model: model.to_owned() };
        targets.push((target, "nobody else has a model of this name".to_owned()));
    }
    targets
}

fn by_route(decision: &Decision) -> Aim {
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
        Some(Leg {
            target: target(number)?,
            why: format!("route '{}', {}", explained.route, explained.policy),
            asked: false,
            ended: Some(told.because.join("; ")),
        })
    });
    Aim {
        targets: targets.collect(),
        passed_over: passed_over.collect(),
        routed: true,
        refusal: decision.refusal(clock::mono()),
    }
}

fn facts_of(shared: &Shared, call: &ChatCall) -> Request {
    let request = &call.request;
    let bytes: usize = request.messages.iter().flat_map(|message| &message.parts).map(len).sum();
    let prompt_tokens = u32::try_from(bytes / BYTES_PER_TOKEN + 1).unwrap_or(u32::MAX);
    let mut signals = Signals::default();
    if shared.routing.asks_complexity(&request.model) {
        signals = signals_of(request, prompt_tokens);
    }
    Request {
        model: request.model.clone(),
        needs: needs(request, prompt_tokens),
        boundary: call.label.map_or(Boundary::Anywhere, Boundary::from),
        tenant: call.tenant.clone(),
        user: request.user.clone().or_else(|| request.safety_id.clone()),
        conversation: request.cache_key.clone(),
        money: money(shared, call),
        signals,
        seed: call.drawn,
    }
}

fn needs(request: &ChatRequest, prompt_tokens: u32) -> Needs {
    let mut needs = Needs { prompt_tokens, output_tokens: request.max_tokens, ..Needs::default() };
    for part in request.messages.iter().flat_map(|message| &message.parts) {
        match &part.content {
            Content::Image { .. } => needs.input.insert(Modality::Image),
            Content::Audio(_) => needs.input.insert(Modality::Audio),
            Content::Document { .. } => needs.input.insert(Modality::Document),
            _ => false,
        };
    }
    if !request.tools.is_empty() {
        needs.can.insert(Capability::Tools);
    }
    match &request.format {
        Some(Format::JsonObject) => needs.can.insert(Capability::JsonObject),
        Some(Format::JsonSchema { .. }) => needs.can.insert(Capability::JsonSchema),
        Some(Format::Text) | None => false,
    };
    needs
}

fn signals_of(request: &ChatRequest, prompt_tokens: u32) -> Signals {
    let mut own = request.messages.iter().filter(|message| message.role == Role::User);
    let mut signals = Signals {
        prompt_tokens,
        turns: u32::try_from(own.clone().count()).unwrap_or(u32::MAX),
        tools: u32::try_from(request.tools.len()).unwrap_or(u32::MAX),
        asked_output: request.max_tokens.unwrap_or(0),
        schema: matches!(request.format, Some(Format::JsonSchema { .. })),
        ..Signals::default()
    };
    for part in own.next_back().into_iter().flat_map(|message| &message.parts) {
        if let Content::Text(text) = &part.content {
            signals.read(text);
        }
    }
    signals
}

/// The tightest budget of money, if one counts.
fn money(shared: &Shared, call: &ChatCall) -> Option<Money> {
    let (account, key) = (&call.account, call.key.as_ref());
    if !shared.policies.counts_money(account, key) {
        return None;
    }
    let left = shared.quota.remaining(account, key).into_iter();
    let left = left.filter(|left| left.unit == Unit::MicroDollars);
    let permille = left.map(|left| {
        let of = u128::from(left.remaining) * 1_000 / u128::from(left.limit.max(1));
        u16::try_from(of).unwrap_or(1_000)
    });
    // Not counted here yet: nothing is known to be spent.
    Some(Money { left_permille: permille.min().unwrap_or(1_000) })
}

fn len(part: &Part) -> usize {
    match &part.content {
        Content::Text(text) => text.len(),
        Content::ToolResult { parts, .. } => parts.iter().map(len).sum(),
        Content::ToolUse { arguments, .. } => arguments.len(),
        _ => 0,
    }
}
