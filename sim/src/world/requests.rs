//! Requests from the clients' side and at the node that took them: production's flow and routing,
//! and the observer who knows what every answer must be.

use selvedge_base::{Machine, Micros, Mono, Refusal, RequestId};
use selvedge_contract::{Answer, FinishReason, Further, GenerateRequest, Sampling, Usage};
use selvedge_core::meter::Meter;
use selvedge_core::route::{self, Need};
use selvedge_core::{Flow, FlowEffect, FlowInput, HandOff, Piece};
use selvedge_proto::policy::KeyId;
use selvedge_proto::records::Signed;
use selvedge_proto::wire::{ALIVE_EVERY, Label, Receipt};

use super::quota::QUOTA_VERSION;
use super::relay::{End, label_of};
use super::{CLIENT, Due, Load, Own, Packet, World};
use crate::engine::{Model, Owner, Prompt};
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::names::sign_receipt;
use crate::network::RETRANSMISSION;
use crate::node::{Attempt, Taken};
use crate::plan::{ClientPlan, MAX_ANSWER, Plan};
use crate::stream::Stream;
use crate::watch::EventKind;

/// The purpose of the streams of questions that many ask.
const QUESTION: u64 = 12;
/// What an answer may be late: a token that was on its way when the deadline struck.
pub(super) const LATE: Micros = Micros::millis(50);

/// A group of clients, as it runs.
#[derive(Debug)]
pub(super) struct Group {
    stream: Stream,
    /// Which node is next.
    turn: usize,
}

/// A request, as the observer knows it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) group: usize,
    pub(super) prompt: Prompt,
    pub(super) max_tokens: u32,
    /// What was asked for, and what a budget gave instead.
    pub(super) asked: Model,
    pub(super) model: Model,
    /// The key of the mesh it came with.
    pub(super) key: Option<KeyId>,
    pub(super) deadline_at: Mono,
    /// May not leave the node.
    pub(super) home: bool,
    /// How far its data may travel, if its client said so.
    pub(super) label: Option<Label>,
    /// Needs a model that can call tools.
    pub(super) tools: bool,
    /// The exchange with a provider that the caller heard first, and its pieces.
    pub(super) voice: Option<u64>,
    pub(super) pieces: u32,
    /// Tokens of a provider's answer that the caller has.
    pub(super) said: u32,
    /// Whether a provider may be paid for it, by what the budgets said last.
    pub(super) funds: Funds,
    /// Tokens the caller has.
    pub(super) tokens: u32,
    pub(super) moves: u32,
    pub(super) ends: u32,
    /// Nodes that had a turn.
    pub(super) tried: Vec<usize>,
    pub(super) is_over: bool,
    /// Budgets count it, and have not agreed yet.
    pub(super) unpaid: bool,
    pub(super) finished: bool,
    /// What routes that go by chance go by.
    pub(super) drawn: u32,
    /// How its text is written.
    pub(super) words: u64,
    /// Targets that were asked.
    pub(super) legs: u32,
    /// A budget ended its answer.
    pub(super) cut_short: bool,
    /// Its answer was one that a cache had kept.
    pub(super) given_again: bool,
    /// What the observer knows of it at a cache.
    pub(super) at_cache: Option<Box<super::kept::Asked>>,
}

/// What the budgets said of money for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Funds {
    /// Nothing, or that it is there.
    There,
    /// Not for this target. A later one may cost less, or come when rights have come.
    Short,
    /// No target that costs money may be asked any more.
    Gone,
}

impl Group {
    pub(super) fn all(plan: &Plan) -> Vec<Self> {
        let groups = 0..plan.workload.clients.len();
        let stream = |group| Stream::keyed(plan.seed, CLIENT, group, 0);
        groups.map(|group| Self { stream: stream(group), turn: 0 }).collect()
    }
}

impl Request {
    fn new(group: usize, prompt: Prompt, most: Option<u32>, deadline_at: Mono) -> Self {
        Self {
            group,
            prompt,
            max_tokens: most.unwrap_or(MAX_ANSWER),
            asked: Model::Loom,
            model: Model::Loom,
            key: None,
            deadline_at,
            home: false,
            label: None,
            tools: false,
            voice: None,
            pieces: 0,
            said: 0,
            funds: Funds::There,
            tokens: 0,
            moves: 0,
            ends: 0,
            tried: Vec::new(),
            is_over: false,
            unpaid: false,
            finished: false,
            drawn: prompt.seed,
            words: 0,
            legs: 0,
            cut_short: false,
            given_again: false,
            at_cache: None,
        }
    }
}

impl World<'_> {
    pub(super) fn client_came(&mut self, group: usize) {
        let plan = self.plan;
        let client = &plan.workload.clients[group];
        if self.now.0 >= Mono(client.until.0) || client.per_minute == 0 {
            return;
        }
        // Pauses between nothing and twice the mean.
        let mean = Micros::secs(60).0 / client.per_minute;
        let pause = Micros(self.groups[group].stream.below(2 * mean.max(1)).max(1));
        self.again(pause, Due::ClientCame { group });
        self.ask(group, client);
    }

    /// A client asks.
    pub(super) fn ask(&mut self, group: usize, client: &ClientPlan) {
        let state = &mut self.groups[group];
        let turn = state.turn;
        state.turn += 1;
        let node = match client.nodes.len() {
            0 => turn % self.plan.nodes,
            count => client.nodes[turn % count],
        };
        let stream = &mut state.stream;
        let prompt = match client.questions {
            0 => question(client, stream),
            all => {
                let one = stream.below(all) as usize;
                question(client, &mut Stream::keyed(self.plan.seed, QUESTION, one, 0))
            }
        };
        let max_tokens = (!client.unlimited).then_some(client.answer.1);
        let leaves = stream.chance(client.leave_permille);
        let home = stream.chance(client.home_permille);
        let leaves_after = Micros(stream.below(Micros::secs(1).0));
        let tools = stream.chance(client.tools_permille);
        let (drawn, words) = match client.questions {
            0 => (prompt.seed, 0),
            _ => (stream.next() as u32, stream.next()),
        };
        let model = match client.models.len() as u64 {
            0 => Model::Loom,
            all => Model::Shared(client.models[stream.below(all) as usize] as u8),
        };
        if !self.nodes[node].acts() || !self.belongs(node) || self.nodes[node].is_leaving {
            self.tally.unreachable += 1;
            return;
        }
        let request = self.requests.len() as u64;
        self.requests.push(Request {
            home,
            label: label_of(client.label, home),
            tools,
            drawn,
            words,
            asked: model,
            model,
            ..Request::new(group, prompt, max_tokens, self.now.0.plus(client.deadline))
        });
        self.tally.arrived += 1;
        self.record("request", [node, group], &request.to_be_bytes());
        let amount = Some(u64::from(prompt.tokens));
        self.show_request(EventKind::RequestArrived, (node, None), (request, amount), || {
            client.account.clone()
        });
        if leaves {
            self.later(node, self.now.0.plus(leaves_after), Own::CallerLeft { request });
        }
        if client.asks.is_some() {
            return self.relay(node, request);
        }
        let now = self.nodes[node].now(self.now.0);
        let (id, account) = (RequestId(u128::from(request)), client.account.clone());
        let flow = Flow::new(now, id, model.name().to_owned(), account, client.deadline);
        let taken = Taken::new(flow, Meter::new(&prompt.input(), max_tokens));
        self.nodes[node].memory.taken.insert(request, taken);
        if self.may_call(node, request) {
            self.reserve(node, request);
        }
    }

    /// The budgets have agreed: the request begins to flow.
    pub(super) fn granted(&mut self, node: usize, request: u64) {
        let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) else { return };
        taken.granted = true;
        self.requests[request as usize].unpaid = false;
        let input = self.barred(node, request).map_or(FlowInput::Arrived, FlowInput::Barred);
        self.flow(node, request, input);
    }

    /// An engine begins to work for a request: its budgets must have agreed.
    pub(super) fn audit_reserved(&mut self, node: usize, request: u64) {
        if self.requests.get(request as usize).is_some_and(|truth| truth.unpaid) {
            let seen =
                format!("node {node} computes request {request}, which was not reserved for");
            self.broken(Invariant::FlowStageOrder, seen);
        }
    }

    /// The caller of a request hangs up.
    pub(super) fn caller_left(&mut self, node: usize, request: u64) {
        self.hit(Mark::CallerLeft);
        self.tally.left += 1;
        self.requests[request as usize].ends += 1;
        self.show_request(EventKind::RequestLeft, (node, None), (request, None), String::new);
        self.flow(node, request, FlowInput::CallerLeft);
    }

    /// Gives a request's flow a fact and carries out its orders.
    pub(super) fn flow(&mut self, node: usize, request: u64, input: FlowInput) {
        let mut inputs = vec![input];
        let mut effects = Vec::new();
        while let Some(input) = inputs.pop() {
            let now = self.nodes[node].now(self.now.0);
            let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) else { return };
            if taken.waits && matches!(input, FlowInput::Answered { .. }) {
                taken.held.push_back(input);
                continue;
            }
            let (fenced, fence) = fence_of(&input, taken.attempt.as_ref());
            self.trace_flow(node, request, &input);
            let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) else { return };
            taken.flow.step(now, input, &mut effects);
            for effect in effects.drain(..) {
                let writes =
                    matches!(&effect, FlowEffect::Deliver(p) if !matches!(p, Piece::Failed(_)));
                if fenced && writes {
                    let seen = format!("node {node}, request {request}, fence {fence}: {effect:?}");
                    self.checker.broken(self.now.0, Invariant::HandOverFenced, seen);
                }
                if let Some(next) = self.carry_out(node, request, effect) {
                    inputs.push(next);
                }
            }
        }
        let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) else { return };
        let wanted = taken.flow.wake_at();
        if let Some(at) = wanted.map(|at| at.max(self.now.0))
            && taken.tick_at != Some(at)
        {
            // An earlier tick that is under way finds nothing to do and is no harm.
            taken.tick_at = Some(at);
            self.later(node, at, Own::FlowTick { request });
        }
    }

    fn carry_out(&mut self, node: usize, request: u64, effect: FlowEffect) -> Option<FlowInput> {
        match effect {
            FlowEffect::Route { exclude } => Some(FlowInput::Routed(
                self.route(node, request, &exclude).map(|(_, choice)| choice),
            )),
            FlowEffect::Dispatch { fence, to, emitted, deadline } => {
                let to = self.names.index(&to);
                let truth = &self.requests[request as usize];
                let wanted = GenerateRequest {
                    id: RequestId(u128::from(request)),
                    model: truth.model.digest(),
                    input: truth.prompt.input(),
                    sampling: GREEDY,
                    max_tokens: truth.max_tokens,
                    stop: Vec::new(),
                    logprobs: None,
                    schema: None,
                    emitted,
                };
                self.dispatch(node, request, (fence, to, deadline), wanted)
            }
            FlowEffect::Cancel { fence } => {
                self.cancel(node, request, fence);
                None
            }
            FlowEffect::Deliver(piece) => {
                self.delivered(node, request, piece);
                None
            }
            FlowEffect::Close => {
                self.over(node, request);
                None
            }
        }
    }

    fn route(
        &mut self,
        node: usize,
        request: u64,
        exclude: &[selvedge_base::NodeId],
    ) -> Result<(selvedge_base::ModelDigest, selvedge_proto::choice::Choice), Refusal> {
        let truth = &self.requests[request as usize];
        let need = Need {
            model: truth.model.name().to_owned(),
            digest: None,
            prompt_tokens: truth.prompt.tokens,
            answer_tokens: Some(truth.max_tokens),
            label: truth.label.unwrap_or(Label::Mesh),
        };
        self.nodes[node].view(self.now.0, &self.names);
        let memory = &mut self.nodes[node].memory;
        let chosen =
            route::choose(&memory.view, &need, exclude, &memory.in_flight, &mut memory.route_dice);
        if let Ok((_, choice)) = &chosen
            && let Some(to) = choice.chosen
        {
            let to = self.names.index(&to);
            self.record("route", [node, to], &request.to_be_bytes());
            self.audit_spared(node, request, (to, exclude));
        }
        chosen
    }

    /// Whose request it is.
    fn tenant(&self, request: u64) -> &str {
        let group = self.requests[request as usize].group;
        let account = &self.plan.workload.clients[group].account;
        account.split('/').next().unwrap_or_default()
    }

    fn dispatch(
        &mut self,
        node: usize,
        request: u64,
        (fence, to, deadline): (u64, usize, Micros),
        wanted: GenerateRequest,
    ) -> Option<FlowInput> {
        self.audit_dispatch(node, to, request);
        let tried = &mut self.requests[request as usize].tried;
        if tried.contains(&to) {
            self.marks.hit(Mark::DoubtfulTriedAgain);
        } else {
            tried.push(to);
        }
        self.show_request(
            EventKind::RequestDispatched,
            (node, Some(to)),
            (request, Some(fence)),
            String::new,
        );
        *self.nodes[node].memory.in_flight.entry(self.names.id(to)).or_default() += 1;
        if to == node {
            let attempt = Attempt { fence, to, stream: None, opens_at: self.now.0 };
            let owner = Owner::Own { request, fence };
            let taken = self.nodes[node].memory.taken.get_mut(&request)?;
            taken.attempt = Some(attempt);
            let (now, tenant) = (self.now.0, self.tenant(request).to_owned());
            let started = self.nodes[node].memory.engine.submit(now, owner, &tenant, &wanted);
            return Some(match started {
                Ok(started) => {
                    self.audit_reserved(node, request);
                    self.kick(node);
                    let at = self.now.0.plus(ALIVE_EVERY);
                    self.later(node, at, Own::HomePulse { request, fence });
                    FlowInput::Answered { fence, answer: started }
                }
                Err(refusal) => {
                    self.hit(Mark::ScheduleFull);
                    FlowInput::Refused { fence, refusal }
                }
            });
        }
        self.streams += 1;
        let stream = self.streams;
        let memory = &mut self.nodes[node].memory;
        memory.streams.insert(stream, (request, fence));
        let taken = memory.taken.get_mut(&request)?;
        taken.attempt = Some(Attempt { fence, to, stream: Some(stream), opens_at: self.now.0 });
        if memory.link(to).is_none() {
            return Some(FlowInput::Lost { fence, why: "no connection".to_owned() });
        }
        let handed = Box::new(HandOff {
            hop: 1,
            origin: self.names.id(node),
            tenant: self.tenant(request).to_owned(),
            label: Label::Mesh,
            deadline,
            fence,
            request: wanted,
        });
        let receipt = self.receipt(node, to, request, &handed);
        let arrives = self.send_timed(node, to, Load::Open { stream, handed, receipt });
        let taken = self.nodes[node].memory.taken.get_mut(&request)?;
        if let (Some(attempt), Some(at)) = (&mut taken.attempt, arrives) {
            attempt.opens_at = at;
        }
        None
    }

    /// The receipt of a request that was reserved for, when the peer's build knows receipts.
    fn receipt(
        &self,
        node: usize,
        to: usize,
        request: u64,
        handed: &HandOff,
    ) -> Option<Box<Signed<Receipt>>> {
        let memory = &self.nodes[node].memory;
        let knows = memory.link(to).is_some_and(|link| link.version >= QUOTA_VERSION);
        let taken = memory.taken.get(&request)?;
        if !knows || memory.quota.is_none() {
            return None;
        }
        let group = self.requests[request as usize].group;
        let receipt = Receipt {
            request: handed.request.id,
            ingest: self.id(node),
            serving: self.id(to),
            account: self.plan.workload.clients[group].account.clone(),
            key: self.requests[request as usize].key.map(|key| key.to_string()),
            tokens: taken.meter.answers_for(),
            not_after_in: handed.deadline,
            fence: handed.fence,
            budgets: taken.drawn.budgets(),
        };
        Some(Box::new(sign_receipt(receipt)))
    }

    fn audit_dispatch(&mut self, node: usize, to: usize, request: u64) {
        if self.requests[request as usize].home && to != node {
            let seen = format!("request {request} of node {node} goes to {to}");
            self.broken(Invariant::RouteLabelKept, seen);
        }
        let peer = self.id(to);
        if self.nodes[node].memory.roster.is_revoked(&peer) {
            self.broken(Invariant::RouteNotToRevoked, format!("node {node} to {to}"));
        }
    }

    fn cancel(&mut self, node: usize, request: u64, fence: u64) {
        let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) else { return };
        let Some(attempt) = taken.attempt.take_if(|attempt| attempt.fence == fence) else { return };
        self.let_go(node, attempt.to);
        match attempt.stream {
            None => {
                self.nodes[node].memory.engine.cancel(Owner::Own { request, fence });
            }
            Some(stream) => {
                let link = self.nodes[node].memory.link(attempt.to);
                if let Some(link) = link {
                    let after = attempt.opens_at;
                    self.stop(node, attempt.to, link.conn, (stream, after));
                }
            }
        }
    }

    /// Says that a stream is not wanted any more, until it arrives or the connection is over: QUIC
    /// sends a reset again like all else of a stream (RFC 9000, section 13.3).
    pub(super) fn stop(&mut self, node: usize, to: usize, conn: u64, (stream, after): (u64, Mono)) {
        if self.nodes[node].memory.link(to).is_none_or(|link| link.conn != conn) {
            return;
        }
        let now = self.now.0;
        match self.network.reliable(now, node, to) {
            Some(delay) => {
                // A stream that is reset before its first byte came never opens there.
                let delay = now.plus(delay).max(after.plus(Micros(1))).since(now);
                self.deliver(to, delay, Packet { from: node, conn, load: Load::Stop { stream } });
            }
            None => {
                self.later(node, now.plus(RETRANSMISSION), Own::Stop { to, conn, stream, after });
            }
        }
    }

    fn let_go(&mut self, node: usize, to: usize) {
        let to = self.id(to);
        if let Some(count) = self.nodes[node].memory.in_flight.get_mut(&to) {
            *count = count.saturating_sub(1);
        }
    }

    /// The caller gets something: held against what it must be.
    fn delivered(&mut self, node: usize, request: u64, piece: Piece) {
        let now = self.now.0;
        let truth = &mut self.requests[request as usize];
        let prompt = truth.prompt;
        let late = now > truth.deadline_at.plus(LATE) && self.nodes[node].pauses == 0;
        if late && !matches!(piece, Piece::Failed(_)) {
            // A process that was stopped finds out at once; what it says first is the refusal.
            let seen = format!("request {request} at node {node}: {piece:?}");
            self.broken(Invariant::FlowNothingLate, seen);
        }
        let truth = &mut self.requests[request as usize];
        match piece {
            Piece::Started { prompt_tokens, .. } => {
                self.metered(node, request, |meter| meter.started(prompt_tokens));
                let (kind, who) = (EventKind::RequestStarted, (node, None));
                self.show_request(kind, who, (request, None), String::new);
            }
            Piece::Token(token) => {
                if token.index != truth.tokens
                    || token.token != prompt.token(truth.model, token.index)
                {
                    let seen = format!(
                        "request {request} at node {node}: token {} where {} was due",
                        token.index, truth.tokens
                    );
                    self.broken(Invariant::HandOverEveryTokenOnce, seen);
                    return;
                }
                truth.tokens += 1;
                if truth.voice.is_some() {
                    let seen = format!("request {request} at node {node}: a token after a piece");
                    self.broken(Invariant::PaidOneVoice, seen);
                }
                self.tally.tokens += 1;
                self.piece_came(node, request);
                self.collect_piece(node, request);
                self.audit_key(node, request, false);
                self.metered(node, request, Meter::token);
                self.wait_if_used_up(node, request);
            }
            Piece::Moved { from, to, why } => {
                truth.moves += 1;
                let twice = truth.moves > 1;
                let (from, to) = (self.names.index(&from), self.names.index(&to));
                self.moved(node, (from, to), twice);
                let who = (node, Some(to));
                self.show_request(EventKind::RequestMoved, who, (request, None), || why);
            }
            Piece::Finished { reason, usage, .. } => {
                self.finished(node, request, reason, &usage);
            }
            Piece::Failed(refusal) if self.nodes[node].memory.relays.contains_key(&request) => {
                self.mesh_leg_says(node, request, End::Failed(refusal));
            }
            Piece::Failed(refusal) => {
                truth.ends += 1;
                self.audit_reason(node, request, &refusal);
                self.tally.failed += 1;
                if refusal.code == selvedge_base::Code::Timeout {
                    self.hit(Mark::DeadlinePassed);
                }
                let (kind, who) = (EventKind::RequestFailed, (node, None));
                self.show_request(kind, who, (request, None), || refusal.message.clone());
            }
        }
    }

    /// An answer is complete: it must be the one the model gives.
    fn finished(&mut self, node: usize, request: u64, reason: FinishReason, usage: &Usage) {
        let truth = &mut self.requests[request as usize];
        let prompt = truth.prompt;
        truth.ends += 1;
        truth.finished = true;
        let wanted = prompt.end(truth.max_tokens);
        let got = (truth.tokens, reason);
        let ended = reason == FinishReason::Quota;
        truth.cut_short |= ended;
        let cut_short = ended && got.0 <= wanted.0;
        let counted = truth.tokens + if ended { 0 } else { prompt.hidden() };
        if (got != wanted && !cut_short) || usage.completion_tokens != counted {
            let seen = format!("request {request}: {got:?} instead of {wanted:?}");
            self.broken(Invariant::HandOverSameAnswer, seen);
        }
        if let Some(taken) = self.nodes[node].memory.taken.get_mut(&request) {
            taken.meter.finished(usage);
        }
        self.finished_at(node);
        let tokens = u64::from(usage.completion_tokens);
        self.mesh_leg_says(node, request, End::Answered { tokens });
        let amount = Some(u64::from(got.0) + u64::from(prompt.tokens));
        let text = || if reason == FinishReason::Stop { "stop" } else { "length" }.into();
        let who = (node, None);
        self.show_request(EventKind::RequestFinished, who, (request, amount), text);
    }

    pub(super) fn finished_at(&mut self, node: usize) {
        self.tally.finished += 1;
        self.tally.finished_at[node] += 1;
        self.tally.finished_while_cut += u64::from(self.network.is_cut());
    }

    /// Another node goes on with an answer.
    fn moved(&mut self, node: usize, (from, to): (usize, usize), twice: bool) {
        self.tally.moved += 1;
        self.hit(Mark::AnswerResumed);
        if twice {
            self.hit(Mark::ResumedTwice);
        }
        if to == node && from != node {
            self.hit(Mark::ResumedAtHome);
        }
    }

    /// A request is over at its node: settled, forgotten.
    pub(super) fn over(&mut self, node: usize, request: u64) {
        self.settle(node, request);
        let Some(taken) = self.nodes[node].memory.taken.remove(&request) else { return };
        if let Some(attempt) = taken.attempt {
            self.let_go(node, attempt.to);
            if attempt.stream.is_none() {
                let owner = Owner::Own { request, fence: attempt.fence };
                self.nodes[node].memory.engine.cancel(owner);
            }
        }
        if let Some(gap) = taken.flow.record().longest_gap {
            self.tally.longest_gap = self.tally.longest_gap.max(Some(gap));
        }
        let memory = &mut self.nodes[node].memory;
        if let Some(relayed) = memory.relays.get_mut(&request) {
            if memory.cache.is_some() {
                relayed.in_mesh = Some(Box::new(taken.flow.record().clone()));
            }
            return self.mesh_leg_over(node, request);
        }
        self.close_request(node, request);
    }

    /// The end of a request at its node: there was one.
    pub(super) fn close_request(&mut self, node: usize, request: u64) {
        self.record("over", [node, node], &request.to_be_bytes());
        let truth = &mut self.requests[request as usize];
        truth.is_over = true;
        if truth.ends != 1 {
            let seen = format!("request {request} at node {node} ended {} times", truth.ends);
            self.broken(Invariant::FlowOneTerminal, seen);
        }
    }

    /// The node that took these requests died with them.
    pub(super) fn lose_requests(&mut self, node: usize) {
        self.lose_residents(node);
        self.quota_died(node);
        self.lose_relays(node);
        self.lose_cache(node);
        let taken = std::mem::take(&mut self.nodes[node].memory.taken);
        for (request, taken) in taken {
            self.tally.lost += 1;
            self.requests[request as usize].is_over = true;
            self.hit(Mark::IngestDied);
            if taken.granted {
                self.hit(Mark::CrashWithReservation);
            }
            let who = (node, None);
            self.show_request(EventKind::RequestLost, who, (request, None), String::new);
        }
        if self.nodes[node].memory.engine.owners().any(|one| matches!(one, Owner::Stream(_))) {
            self.hit(Mark::ServerDied);
        }
    }

    pub(super) fn home_pulse(&mut self, node: usize, request: u64, fence: u64) {
        let memory = &self.nodes[node].memory;
        let taken = memory.taken.get(&request);
        let current = taken.and_then(|taken| taken.attempt.as_ref());
        if current.is_none_or(|attempt| attempt.fence != fence) {
            return;
        }
        let pulse = memory.engine.pulse(self.now.0);
        self.later(node, self.now.0.plus(ALIVE_EVERY), Own::HomePulse { request, fence });
        self.flow(node, request, FlowInput::Pulsed { fence, pulse });
    }

    fn trace_flow(&mut self, node: usize, request: u64, input: &FlowInput) {
        let (tag, detail) = match input {
            FlowInput::Arrived => (0, 0),
            FlowInput::Routed(Ok(_)) => (1, 0),
            FlowInput::Routed(Err(refusal)) => (2, refusal.code as u64),
            FlowInput::Accepted { fence } => (3, *fence),
            FlowInput::Refused { refusal, .. } => (4, refusal.code as u64),
            FlowInput::Answered { answer: Answer::Token(token), .. } => {
                (5, (u64::from(token.index) << 32) | u64::from(token.token))
            }
            FlowInput::Answered { fence, .. } => (6, *fence),
            FlowInput::Pulsed { pulse, .. } => (7, pulse.progress),
            FlowInput::Lost { fence, .. } => (8, *fence),
            FlowInput::CallerLeft => (9, 0),
            FlowInput::Ticked => (10, 0),
            FlowInput::NotReserved(refusal) => (11, refusal.code as u64),
            FlowInput::QuotaEnded(refusal) => (12, refusal.code as u64),
            FlowInput::Barred(refusal) => (13, refusal.code as u64),
        };
        let mut bytes = [0; 17];
        bytes[0] = tag;
        bytes[1..9].copy_from_slice(&request.to_be_bytes());
        bytes[9..].copy_from_slice(&detail.to_be_bytes());
        self.record("flow", [node, node], &bytes);
    }
}

/// What one request asks.
fn question(client: &ClientPlan, stream: &mut Stream) -> Prompt {
    Prompt {
        seed: stream.next() as u32,
        tokens: stream.between(client.prompt),
        answer: stream.between(client.answer),
        is_dense: stream.chance(client.dense_permille),
    }
}

/// The likeliest token always: the simulated model knows no other.
const GREEDY: Sampling = Sampling {
    temperature: 0.0,
    top_p: 1.0,
    top_k: 0,
    presence_penalty: 0.0,
    frequency_penalty: 0.0,
    seed: 0,
    further: Further::NONE,
};

/// Whether an input comes from an attempt that may not speak any more.
fn fence_of(input: &FlowInput, attempt: Option<&Attempt>) -> (bool, u64) {
    match input {
        FlowInput::Accepted { fence }
        | FlowInput::Refused { fence, .. }
        | FlowInput::Answered { fence, .. }
        | FlowInput::Pulsed { fence, .. }
        | FlowInput::Lost { fence, .. } => {
            (attempt.is_none_or(|attempt| attempt.fence != *fence), *fence)
        }
        FlowInput::Arrived
        | FlowInput::Routed(_)
        | FlowInput::NotReserved(_)
        | FlowInput::QuotaEnded(_)
        | FlowInput::Barred(_)
        | FlowInput::CallerLeft
        | FlowInput::Ticked => (false, 0),
    }
}
