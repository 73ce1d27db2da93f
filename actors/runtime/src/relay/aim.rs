//! Where a chat may go: by a route of its model's name, or by the name alone.
//!
//! Owns what routing is told of a request. Decides nothing: [`selvedge_core::routes`] and
//! [`selvedge_core::aim`] do.

use selvedge_core::aim::Aim;
use selvedge_core::catalogue::{Capability, Modality, Needs};
use selvedge_core::routes::{Boundary, Money, Request, Signals};
use selvedge_dialect::chat::{ChatRequest, Content, Format, Part, Role};
use selvedge_net::clock;
use selvedge_proto::policy::{AccountPath, KeyId};

use super::{ChatCall, learned};
use crate::shared::Shared;

/// Bytes of a prompt per token, for rules about length: usual for English text.
pub(super) const BYTES_PER_TOKEN: usize = 4;

/// Where a chat may go.
pub(super) fn aim(shared: &Shared, call: &ChatCall) -> Aim {
    let model = call.asked.model();
    if !shared.routing.has(model) {
        return by_name(shared, model);
    }
    match call.asked.request() {
        Ok(request) => aim_by(shared, &facts_of(shared, call, request)),
        Err(refusal) => Aim { refusal: Some(refusal), ..Aim::default() },
    }
}

/// Where a request may go of which routing knows this.
pub(super) fn aim_by(shared: &Shared, request: &Request) -> Aim {
    let view = shared.view.load();
    match shared.routing.decide(request, &view) {
        Some(decision) => Aim::of_route(&decision, clock::mono()),
        None => by_name(shared, &request.model),
    }
}

/// What a model's name means without a route.
pub(super) fn by_name(shared: &Shared, model: &str) -> Aim {
    let providers = shared.providers.all();
    let in_mesh = shared.view.load().has_model(model);
    let mut aim = Aim::of_name(model, in_mesh, providers.values().map(|open| open.spec()));
    if !in_mesh && !aim.targets.iter().any(|(target, _)| target.is_paid()) {
        aim.refusal = learned::no_talker(shared, model);
    }
    aim
}

fn facts_of(shared: &Shared, call: &ChatCall, request: &ChatRequest) -> Request {
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
        money: money(shared, &call.account, call.key.as_ref()),
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
    if request.held_by().is_some() {
        // Who cannot hold an answer to a schema cannot hold it to anything.
        needs.can.insert(Capability::JsonSchema);
    }
    needs
}

fn signals_of(request: &ChatRequest, prompt_tokens: u32) -> Signals {
    let mut own = request.messages.iter().filter(|message| message.role == Role::User);
    let mut signals = Signals {
        prompt_tokens,
        turns: u32::try_from(own.clone().count()).unwrap_or(u32::MAX),
        tools: u32::try_from(request.tools.len()).unwrap_or(u32::MAX),
        asked_output: request.max_tokens.unwrap_or(0),
        schema: matches!(request.format, Some(Format::JsonSchema { .. }))
            || request.held_by().is_some(),
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
pub(super) fn money(shared: &Shared, account: &AccountPath, key: Option<&KeyId>) -> Option<Money> {
    if !shared.policies.counts_money(account, key) {
        return None;
    }
    Some(Money::of(&shared.quota.remaining(account, key)))
}

fn len(part: &Part) -> usize {
    match &part.content {
        Content::Text(text) => text.len(),
        Content::ToolResult { parts, .. } => parts.iter().map(len).sum(),
        Content::ToolUse { arguments, .. } => arguments.len(),
        _ => 0,
    }
}
