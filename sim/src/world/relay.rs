//! Requests that may leave the mesh, at the node that took them: production's aim, routes and
//! journey, in the order of production's shell. One target after another: a model of the mesh by
//! the flow, a provider by [`super::paid`].

use std::collections::BTreeMap;

use selvedge_base::{Code, Micros, Mono, Refusal, RequestId};
use selvedge_core::aim::{Aim, Leaving};
use selvedge_core::catalogue::{Capability, Modality, Needs};
use selvedge_core::journey::{Journey, Step, Target};
use selvedge_core::meter::Meter;
use selvedge_core::record::RequestRecord;
use selvedge_core::routes::{
    Boundary, Facts, Latency, MeshFacts, Money, ProviderFacts, Request as Asked, Signals,
};
use selvedge_core::upstream::Ask;
use selvedge_core::{Flow, FlowInput};
use selvedge_proto::policy::Unit;
use selvedge_proto::wire::Label;

use super::World;
use super::paid::{Errand, Errands};
use super::requests::Funds;
use crate::engine::Model;
use crate::marks::Mark;
use crate::node::Taken;
use crate::watch::EventKind;

/// Bytes of a prompt per token, as production guesses.
const BYTES_PER_TOKEN: u32 = 4;
/// The turns of a conversation that is hard, for routes that go by it.
const HARD_TURNS: u32 = 40;

/// A request that may leave the mesh, at the node that took it.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub(super) journey: Journey,
    pub(super) routed: bool,
    /// The turn at a provider that is under way.
    pub(super) errand: Option<Box<Errand>>,
    /// How the turn in the mesh that is under way has ended.
    mesh_end: Option<End>,
    /// What the flow of the last turn in the mesh noted, where it matters.
    pub(super) in_mesh: Option<Box<RequestRecord>>,
    /// The caller went away.
    left: bool,
    /// The answer's end came.
    pub(super) answered: bool,
    pub(super) arrived: Mono,
    pub(super) first_piece: Option<Mono>,
    /// When the end of the answer came, and its tokens.
    tokens: u64,
}

/// How one target's turn ended.
#[derive(Debug)]
pub(super) enum End {
    /// With the answer's end.
    Answered { tokens: u64 },
    /// Without it.
    Failed(Refusal),
    /// The budgets allow no more money.
    LocalOnly,
}

impl Relayed {
    /// Whether a provider is being asked, or answers.
    pub(super) fn is_asking(&self) -> bool {
        self.errand.as_ref().is_some_and(|one| !matches!(one.stage, Errands::Reserving))
    }
}

impl World<'_> {
    /// A client asks by name.
    pub(super) fn relay(&mut self, node: usize, request: u64) {
        if let Err(refusal) = self.let_in(node, request) {
            self.record("not let in", [node, node], &request.to_be_bytes());
            return self.tell_failure(node, request, &refusal, true);
        }
        self.at_cache(node, request);
    }

    /// Nobody has the answer yet: its targets are asked.
    pub(super) fn ask_targets(&mut self, node: usize, request: u64) {
        let mut aim = self.aim(node, request);
        for leg in &aim.passed_over {
            let stays = leg.ended.as_ref().is_some_and(|why| why.contains("may not leave"));
            if stays && leg.target.is_paid() {
                self.marks.hit(Mark::LabelStayed);
            }
        }
        let refusal = self.barred(node, request).or_else(|| aim.refusal.take());
        let mut relayed = Relayed {
            journey: Journey::new(aim.targets),
            routed: aim.routed,
            errand: None,
            mesh_end: None,
            in_mesh: None,
            left: false,
            answered: false,
            arrived: self.now.0,
            first_piece: None,
            tokens: 0,
        };
        let step = match refusal {
            Some(refusal) => Step::Fail(refusal),
            None => relayed.journey.begin(),
        };
        self.nodes[node].memory.relays.insert(request, relayed);
        self.go(node, request, step);
    }

    /// Where the request may go.
    pub(super) fn aim(&mut self, node: usize, request: u64) -> Aim {
        let asked = self.facts_of(node, request);
        let (now, name) = (self.now.0, asked.model.clone());
        self.nodes[node].view(now, &self.names);
        let facts = self.facts(node);
        self.judge_settings(node);
        let routes = self.routes_at(node);
        match routes.decide(&asked, &facts, now) {
            Some(decision) => Aim::of_route(&decision, now),
            None => {
                let in_mesh = self.nodes[node].memory.view.has_model(&name);
                Aim::of_name(&name, in_mesh, self.specs.iter())
            }
        }
    }

    fn facts_of(&self, node: usize, request: u64) -> Asked {
        let truth = &self.requests[request as usize];
        let client = &self.plan.workload.clients[truth.group];
        let model = client.asks.clone().unwrap_or_default();
        let prompt_tokens = truth.prompt.bytes() / BYTES_PER_TOKEN + 1;
        let mut signals = Signals::default();
        if self.routes_at(node).asks_complexity(&model) {
            let hard = truth.prompt.seed.is_multiple_of(2);
            let turns = if hard { HARD_TURNS } else { 1 };
            let (tools, schema) = (if hard { 16 } else { 0 }, hard);
            signals = Signals { prompt_tokens, turns, tools, schema, ..Signals::default() };
        }
        let mut needs = Needs { prompt_tokens, ..Needs::default() };
        needs.output_tokens = Some(truth.max_tokens);
        needs.input.insert(Modality::Text);
        if truth.tools {
            needs.can.insert(Capability::Tools);
        }
        Asked {
            model,
            needs,
            boundary: truth.label.map_or(Boundary::Anywhere, Boundary::from),
            tenant: client.account.split('/').next().unwrap_or_default().to_owned(),
            user: None,
            conversation: None,
            money: self.money(node, request),
            signals,
            seed: u64::from(truth.drawn),
        }
    }

    /// The tightest budget of money, if one counts.
    fn money(&self, node: usize, request: u64) -> Option<Money> {
        if !self.counts(node, request, |unit| unit == Unit::MicroDollars) {
            return None;
        }
        let truth = &self.requests[request as usize];
        let account = self.accounts[truth.group].as_ref()?;
        let now = self.nodes[node].now(self.now.0);
        let quota = self.nodes[node].memory.quota.as_ref()?;
        Some(Money::of(&quota.remaining(account, truth.key.as_ref(), now)))
    }

    /// Whether a budget of such a unit counts the request.
    pub(super) fn counts(&self, node: usize, request: u64, unit: fn(Unit) -> bool) -> bool {
        let truth = &self.requests[request as usize];
        let memory = &self.nodes[node].memory;
        let (Some(account), Some(_)) = (&self.accounts[truth.group], &memory.quota) else {
            return false;
        };
        let budgets = memory.book.budgets_of(account, truth.key.as_ref());
        budgets.iter().any(|budget| unit(budget.spec.unit))
    }

    fn facts(&self, node: usize) -> Facts {
        let memory = &self.nodes[node].memory;
        let mut facts =
            Facts { mesh: MeshFacts::of(&memory.view, &memory.measured), ..Facts::default() };
        for (spec, desk) in self.specs.iter().zip(&memory.desks) {
            let ask = Ask { model: "", tokens: 0, tried: &[] };
            let (allowed, running) = (desk.desk.allows(self.now.0, &ask), desk.desk.running());
            let known =
                ProviderFacts::of(&spec.name, allowed, running, &memory.measured, self.now.0);
            facts.providers.insert(spec.name.clone(), known);
        }
        facts
    }

    /// The request goes on.
    fn go(&mut self, node: usize, request: u64, step: Step) {
        if let Step::Fail(refusal) = step {
            let barred = refusal.code == Code::Unauthorized;
            return self.relay_over(node, request, Some((refusal, barred)));
        }
        let relayed = self.nodes[node].memory.relays.get(&request);
        let target = relayed.and_then(|relayed| relayed.journey.target().cloned());
        self.record("leg", [node, node], &request.to_be_bytes());
        self.audit_leg(node, request);
        match target {
            Some(Target::Mesh { model }) => self.ask_mesh(node, request, &model),
            Some(Target::Provider { provider, model }) => {
                self.ask_provider(node, request, &provider, &model);
            }
            None => {}
        }
    }

    /// A target's turn is over.
    pub(super) fn leg_ended(&mut self, node: usize, request: u64, end: End) {
        let able = self.able(node, request);
        let Some(relayed) = self.nodes[node].memory.relays.get_mut(&request) else { return };
        let step = match end {
            End::Answered { tokens } => {
                (relayed.tokens, relayed.answered) = (tokens, true);
                self.measure(node, request);
                return self.relay_over(node, request, None);
            }
            End::LocalOnly => relayed.journey.local_only(),
            End::Failed(refusal) => relayed.journey.broke_off(refusal, &able, None),
        };
        if let Step::Continue(_) = step {
            // Another voice may speak, from where the first one broke off.
            self.requests[request as usize].voice = None;
        }
        if let Step::Ask(at) | Step::Continue(at) = step
            && at > 0
        {
            self.hit(Mark::AskedElsewhere);
        }
        self.go(node, request, step);
    }

    /// Of each target, whether it can go on with what the caller has: providers that say so, where
    /// it is text of a provider.
    fn able(&self, node: usize, request: u64) -> Vec<bool> {
        let Some(relayed) = self.nodes[node].memory.relays.get(&request) else { return Vec::new() };
        let from_mesh = self.requests[request as usize].tokens > 0;
        let able = |target: &Target| {
            let Target::Provider { provider, .. } = target else { return false };
            let at = self.specs.iter().position(|spec| spec.name == *provider);
            !from_mesh && at.is_some_and(|at| self.goes_on(at))
        };
        relayed.journey.legs().iter().map(|leg| able(&leg.target)).collect()
    }

    /// A model of the mesh makes the whole answer.
    pub(super) fn ask_mesh(&mut self, node: usize, request: u64, model: &str) {
        let truth = &mut self.requests[request as usize];
        let client = &self.plan.workload.clients[truth.group];
        truth.model = Model::named(model).unwrap_or(Model::Loom);
        // Another node may have had a turn in an earlier leg.
        truth.tried.clear();
        let prompt = truth.prompt;
        let max_tokens = (!client.unlimited).then_some(truth.max_tokens);
        let deadline = truth.deadline_at.since(self.now.0);
        let now = self.nodes[node].now(self.now.0);
        let (id, account) = (RequestId(u128::from(request)), client.account.clone());
        let leg = self.nodes[node].memory.relays.get(&request).map_or(0, |one| one.journey.at());
        let flow = Flow::new(now, id, model.to_owned(), account, deadline).after(leg);
        let taken = Taken::new(flow, Meter::new(&prompt.input(), max_tokens));
        self.nodes[node].memory.taken.insert(request, taken);
        match self.barred(node, request) {
            Some(why) => self.flow(node, request, FlowInput::Barred(why)),
            None => self.reserve(node, request),
        }
    }

    /// Whether the request's data and money may go to a provider.
    pub(super) fn may_leave(&self, node: usize, request: u64, at: usize) -> Result<(), Refusal> {
        let spec = &self.specs[at];
        let truth = &self.requests[request as usize];
        let relayed = self.nodes[node].memory.relays.get(&request);
        let only_paid =
            |relayed: &Relayed| relayed.journey.legs().iter().all(|leg| leg.target.is_paid());
        let only_there = relayed.is_some_and(|relayed| relayed.routed || only_paid(relayed));
        let costs_money = spec.cost != selvedge_core::upstream::provider::CostClass::Free;
        Leaving { label: truth.label, only_there, keyed: true, costs_money }.check(&spec.name)
    }

    /// The flow of a turn in the mesh said its last; it closes next.
    pub(super) fn mesh_leg_says(&mut self, node: usize, request: u64, end: End) {
        if let Some(relayed) = self.nodes[node].memory.relays.get_mut(&request) {
            relayed.mesh_end = Some(end);
        }
    }

    /// The flow of a turn in the mesh is over, and settled.
    pub(super) fn mesh_leg_over(&mut self, node: usize, request: u64) {
        let Some(relayed) = self.nodes[node].memory.relays.get_mut(&request) else { return };
        if relayed.left {
            return self.relay_over(node, request, None);
        }
        if let Some(end) = relayed.mesh_end.take() {
            let is_short = self.requests[request as usize].funds != Funds::There;
            let failed_before = relayed
                .journey
                .legs()
                .iter()
                .any(|leg| leg.target.is_paid() && leg.asked && leg.ended.is_some());
            if matches!(end, End::Answered { .. }) {
                if is_short {
                    self.hit(Mark::LocalOnlyAnswered);
                } else if failed_before {
                    self.hit(Mark::AnsweredInTheMesh);
                }
            }
            self.leg_ended(node, request, end);
        }
    }

    /// A piece of the answer went to the caller, wherever it is from.
    pub(super) fn piece_came(&mut self, node: usize, request: u64) {
        let now = self.now.0;
        if let Some(relayed) = self.nodes[node].memory.relays.get_mut(&request) {
            relayed.journey.came();
            relayed.first_piece.get_or_insert(now);
        }
    }

    /// The caller of such a request hangs up.
    pub(super) fn relay_left(&mut self, node: usize, request: u64) {
        let Some(relayed) = self.nodes[node].memory.relays.get_mut(&request) else { return };
        relayed.left = true;
        self.hit(Mark::CallerLeft);
        self.tally.left += 1;
        self.requests[request as usize].ends += 1;
        self.show_request(EventKind::RequestLeft, (node, None), (request, None), String::new);
        if self.nodes[node].memory.taken.contains_key(&request) {
            return self.flow(node, request, FlowInput::CallerLeft);
        }
        if self.leave_errand(node, request) {
            self.hit(Mark::PaidCallerLeft);
        }
        self.relay_over(node, request, None);
    }

    /// The node that took such requests died with them; their turns in the mesh are lost as others
    /// are.
    pub(super) fn lose_relays(&mut self, node: usize) {
        let memory = &mut self.nodes[node].memory;
        let relays = std::mem::take(&mut memory.relays);
        let elsewhere: Vec<u64> =
            relays.keys().copied().filter(|one| !memory.taken.contains_key(one)).collect();
        for request in elsewhere {
            self.tally.lost += 1;
            self.requests[request as usize].is_over = true;
            self.hit(Mark::IngestDied);
            let who = (node, None);
            self.show_request(EventKind::RequestLost, who, (request, None), String::new);
        }
    }

    /// Notes how fast the target answered, for routes that go by it.
    fn measure(&mut self, node: usize, request: u64) {
        let memory = &mut self.nodes[node].memory;
        let Some(relayed) = memory.relays.get(&request) else { return };
        let (Some(target), Some(first)) = (relayed.journey.target(), relayed.first_piece) else {
            return;
        };
        let Some(gaps) = relayed.tokens.checked_sub(1).filter(|gaps| *gaps > 0) else { return };
        let (first, after) = (first.since(relayed.arrived), self.now.0.since(first));
        observe(&mut memory.measured, target, first, Micros(after.0 / gaps));
    }

    /// The one end of such a request.
    fn relay_over(&mut self, node: usize, request: u64, failed: Option<(Refusal, bool)>) {
        let Some(relayed) = self.nodes[node].memory.relays.remove(&request) else { return };
        match failed {
            Some((refusal, barred)) => self.tell_failure(node, request, &refusal, barred),
            None => self.close_request(node, request),
        }
        self.audit_settled(node, request);
        // Whoever has the end finds the record.
        self.collected(node, request, &relayed);
    }

    /// The caller is told that there is no (more) answer.
    pub(super) fn tell_failure(
        &mut self,
        node: usize,
        request: u64,
        refusal: &Refusal,
        barred: bool,
    ) {
        self.requests[request as usize].ends += 1;
        if barred || refusal.code == Code::QuotaExhausted {
            self.tally.refused += 1;
        } else {
            self.tally.failed += 1;
        }
        if refusal.code == Code::Timeout {
            self.hit(Mark::DeadlinePassed);
        }
        let (kind, who) = (EventKind::RequestFailed, (node, None));
        self.show_request(kind, who, (request, None), || refusal.message.clone());
        self.close_request(node, request);
    }
}

/// Moves the average of what was measured of a target.
fn observe(all: &mut BTreeMap<Target, Latency>, at: &Target, first: Micros, per_token: Micros) {
    match all.get_mut(at) {
        Some(known) => known.observe(first, per_token),
        None => drop(all.insert(at.clone(), Latency { first_token: first, per_token })),
    }
}

/// What a label says of a request, when its client says anything.
pub(super) const fn label_of(label: Option<Label>, home: bool) -> Option<Label> {
    if home { Some(Label::Node) } else { label }
}
