//! One target at a provider, in the order of production's shells: reserve the worst case, ask by
//! the desk, pass on what comes, settle what is billed.

use selvedge_base::{Blame, Code, Dice, Micros, Mono, Refusal, RequestId, Retry, Stage};
use selvedge_core::bill::Bill;
use selvedge_core::catalogue::Counts;
use selvedge_core::continuing::way;
use selvedge_core::paid::{Priced, Running, Size, known};
use selvedge_core::quota::{Charge, CostClass, QuotaInput, Verdict};
use selvedge_core::upstream::desk::Report;
use selvedge_core::upstream::provider::Continues;
use selvedge_core::upstream::{
    Decision, Denied, Desk, Ending, Fault, ProviderSpec, Ticket, Tries, Watch,
};
use selvedge_crdt::escrow::BudgetId;
use selvedge_proto::policy::Unit;

use super::relay::End;
use super::requests::Funds;
use super::{Drawn, Due, Own, World};
use crate::cloud::{Exchange, Word};
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::queue::Class;
use crate::watch::EventKind;

/// The longest answer asked of a provider when nothing limits it, as in production.
const USUAL_ANSWER: u32 = 4_096;
/// How long a verdict of the budgets is waited for, as in production.
const VERDICT_WITHIN: Micros = Micros::secs(5);
/// What a lease lasts beyond its request's deadline, as in production.
const LEASE_BEYOND: Micros = Micros::secs(5);
/// Tokens around a prompt and its message, as production counts them at most.
const AROUND: u64 = 64;
/// How soon what was lost on the way to a provider is sent again.
const SENT_AGAIN: Micros = Micros::millis(500);

/// What a process knows of one provider.
#[derive(Clone, Debug)]
pub(crate) struct DeskSide {
    pub(crate) desk: Desk,
    pub(crate) dice: Dice,
}

/// A turn at a provider.
#[derive(Debug)]
pub(crate) struct Errand {
    /// Which provider.
    pub(super) at: usize,
    /// The target, as budgets call it.
    name: String,
    /// The model, as the provider calls it.
    model: String,
    pub(super) priced: Priced,
    pub(super) bill: Bill,
    pub(super) running: Running,
    pub(super) tries: Tries,
    /// How the last attempt ended.
    last: Option<Ending>,
    /// Budgets count it, and whether they agreed.
    pub(super) limited: bool,
    pub(super) granted: bool,
    pub(crate) drawn: Drawn,
    pub(super) stage: Errands,
    /// What the provider told of its count so far.
    told: Option<Counts>,
    /// Pieces that the caller had before.
    pub(super) before: u32,
    tick_at: Option<Mono>,
}

/// Where a turn at a provider stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Errands {
    /// The budgets are asked.
    Reserving,
    /// An attempt is under way.
    Trying { exchange: u64, ticket: Ticket, watch: Watch },
    /// The answer comes.
    Streaming { exchange: u64, ticket: Ticket, watch: Watch },
    /// Until another attempt.
    Resting { until: Mono },
}

impl Errand {
    fn watch(&mut self) -> Option<&mut Watch> {
        match &mut self.stage {
            Errands::Trying { watch, .. } | Errands::Streaming { watch, .. } => Some(watch),
            Errands::Reserving | Errands::Resting { .. } => None,
        }
    }

    pub(super) const fn exchange(&self) -> Option<u64> {
        match self.stage {
            Errands::Trying { exchange, .. } | Errands::Streaming { exchange, .. } => {
                Some(exchange)
            }
            Errands::Reserving | Errands::Resting { .. } => None,
        }
    }

    const fn ticket(&self) -> Option<Ticket> {
        match self.stage {
            Errands::Trying { ticket, .. } | Errands::Streaming { ticket, .. } => Some(ticket),
            Errands::Reserving | Errands::Resting { .. } => None,
        }
    }

    /// What is reserved before anything is sent.
    pub(super) fn worst(&self) -> Charge {
        let took = self.bill.reserved();
        self.charge(took.tokens, took.micro_dollars, 1)
    }

    /// What is settled when the turn ends now.
    pub(super) fn actual(&self) -> Charge {
        let took = self.bill.used();
        self.charge(took.tokens, took.micro_dollars, u64::from(self.bill.has_begun()))
    }

    fn charge(&self, tokens: u64, micro_dollars: u64, requests: u64) -> Charge {
        Charge {
            tokens,
            requests,
            micro_dollars,
            class: CostClass::Cloud,
            model: self.name.clone(),
        }
    }
}

impl World<'_> {
    /// A process starts with desks that nothing is known at.
    pub(super) fn boot_desks(&mut self, node: usize) {
        let specs = self.specs.iter();
        let side = |spec: &ProviderSpec| DeskSide {
            desk: Desk::new(spec.desk),
            dice: self.nodes[node].dice(&format!("provider/{}", spec.name)),
        };
        let desks = specs.map(side).collect();
        self.nodes[node].memory.desks = desks;
    }

    /// The turn of a provider's model.
    pub(super) fn ask_provider(&mut self, node: usize, request: u64, provider: &str, model: &str) {
        let Some(at) = self.specs.iter().position(|spec| spec.name == provider) else { return };
        if let Err(refusal) = self.may_leave(node, request, at) {
            if refusal.code == Code::Forbidden {
                self.hit(Mark::LabelStayed);
            }
            return self.leg_ended(node, request, End::Failed(refusal));
        }
        if let Some(barred) = self.barred(node, request) {
            return self.leg_ended(node, request, End::Failed(barred));
        }
        let limited = self.counts(node, request, |_| true);
        let money = self.counts(node, request, |unit| unit == Unit::MicroDollars);
        let spec = &self.specs[at];
        let upstream = spec.model(model).map_or_else(|| model.to_owned(), |m| m.upstream.clone());
        let truth = &self.requests[request as usize];
        let unlimited = self.plan.workload.clients[truth.group].unlimited;
        let size = Size {
            prompt_tokens: AROUND + u64::from(truth.prompt.bytes() + truth.said),
            answers: 1,
            max_tokens: (!unlimited).then_some(truth.max_tokens.saturating_sub(truth.said)),
            usual: USUAL_ANSWER,
            ..Size::default()
        };
        let known = known(self.routes_at(node).catalogue(), spec, &upstream);
        let priced = Priced::new(spec, known, size);
        if money && !priced.is_known() {
            let message = format!("no price of model '{upstream}' is known");
            let (stage, code) = (Stage::Reserve, Code::QuotaExhausted);
            let refusal = Refusal::new(stage, Blame::Us, Retry::Elsewhere, code, message);
            return self.leg_ended(node, request, End::Failed(refusal));
        }
        let errand = Errand {
            at,
            name: format!("{provider}/{model}"),
            model: upstream,
            bill: Bill::at_most(priced.worst()),
            priced,
            running: Running::default(),
            tries: Tries::default(),
            last: None,
            limited,
            granted: false,
            drawn: Drawn::default(),
            stage: Errands::Reserving,
            told: None,
            before: truth.pieces,
            tick_at: None,
        };
        let worst = errand.worst();
        let Some(relayed) = self.nodes[node].memory.relays.get_mut(&request) else { return };
        relayed.errand = Some(Box::new(errand));
        if limited {
            self.reserve_money(node, request, worst);
        } else {
            self.begin_asking(node, request);
        }
    }

    fn reserve_money(&mut self, node: usize, request: u64, worst: Charge) {
        let truth = &mut self.requests[request as usize];
        truth.unpaid = true;
        let (group, key) = (truth.group, truth.key);
        let Some(account) = self.accounts[group].clone() else { return };
        let asked = self.windows_of(node, request);
        let whole = self.plan.workload.clients[group].deadline;
        if let Some(errand) = self.errand(node, request) {
            errand.drawn.asked_in(asked);
        }
        let (id, lease) = (RequestId(u128::from(request)), whole.plus(LEASE_BEYOND));
        self.quota(node, QuotaInput::Asked { id, account, key, worst, lease });
        let waits = |errand: &&mut Errand| matches!(errand.stage, Errands::Reserving);
        if self.errand(node, request).filter(waits).is_some() {
            self.later(node, self.now.0.plus(VERDICT_WITHIN), Own::VerdictDue { request });
        }
    }

    pub(super) fn errand(&mut self, node: usize, request: u64) -> Option<&mut Errand> {
        self.nodes[node].memory.relays.get_mut(&request)?.errand.as_deref_mut()
    }

    /// The budgets did not say anything for too long.
    pub(super) fn verdict_due(&mut self, node: usize, request: u64) {
        let waits = |errand: &&mut Errand| matches!(errand.stage, Errands::Reserving);
        if self.errand(node, request).filter(waits).is_none() {
            return;
        }
        self.settle_errand(node, request);
        let message = "the budgets did not answer in time".to_owned();
        let (stage, code) = (Stage::Reserve, Code::Overloaded);
        let retry = Retry::After(Micros::secs(1));
        let refusal = Refusal::new(stage, Blame::Us, retry, code, message);
        self.leg_ended(node, request, End::Failed(refusal));
    }

    /// What the budgets say of a turn at a provider; whether there is one.
    pub(super) fn paid_verdict(&mut self, node: usize, request: u64, verdict: &Verdict) -> bool {
        if self.errand(node, request).is_none() {
            return false;
        }
        match verdict {
            Verdict::Granted { budgets, downgrade, local_only } => {
                self.agreed(node, request, budgets, downgrade.as_deref(), *local_only);
            }
            Verdict::Extended => {}
            Verdict::Refused(refusal) => {
                if let Some(blocked) = &refusal.budget {
                    self.hit(Mark::BudgetRefused);
                    self.hit(Mark::MoneyUsedUp);
                    self.note_refusal(node, blocked.id);
                }
                self.record("refused", [node, node], &request.to_be_bytes());
                let refusal = refusal.to_refusal();
                if self.errand(node, request).is_some_and(|errand| errand.granted) {
                    // The budgets take back what they gave.
                    self.leave_errand(node, request);
                } else if let Some(relayed) = self.nodes[node].memory.relays.get_mut(&request) {
                    relayed.errand = None;
                    self.requests[request as usize].unpaid = false;
                }
                self.leg_ended(node, request, End::Failed(refusal));
            }
        }
        true
    }

    fn agreed(
        &mut self,
        node: usize,
        request: u64,
        budgets: &[BudgetId],
        downgrade: Option<&str>,
        local_only: bool,
    ) {
        self.record("granted", [node, node], &request.to_be_bytes());
        self.drew(node, request, budgets);
        let truth = &mut self.requests[request as usize];
        truth.unpaid = false;
        // The observer takes the budgets at their word: what is gone does not come back.
        truth.funds = match (truth.funds, local_only, downgrade) {
            (Funds::Gone, ..) | (_, true, _) => Funds::Gone,
            (_, false, Some(_)) => Funds::Short,
            (_, false, None) => Funds::There,
        };
        let Some(errand) = self.errand(node, request) else { return };
        errand.granted = true;
        if !local_only && downgrade.is_none() {
            let Some(barred) = self.barred(node, request) else {
                return self.begin_asking(node, request);
            };
            self.settle_errand(node, request);
            return self.leg_ended(node, request, End::Failed(barred));
        }
        self.settle_errand(node, request);
        if self.requests[request as usize].said > 0 {
            // Another answer does not begin after a part of this one.
            let message = "no money for a provider that goes on".to_owned();
            let (stage, code) = (Stage::Reserve, Code::QuotaExhausted);
            let refusal = Refusal::new(stage, Blame::Client, Retry::Elsewhere, code, message);
            return self.leg_ended(node, request, End::Failed(refusal));
        }
        match downgrade {
            Some(model) => {
                self.hit(Mark::PaidDowngraded);
                self.ask_mesh(node, request, model);
            }
            None => self.leg_ended(node, request, End::LocalOnly),
        }
    }

    fn begin_asking(&mut self, node: usize, request: u64) {
        let Some(at) = self.errand(node, request).map(|errand| errand.at) else { return };
        self.nodes[node].memory.desks[at].desk.requested();
        self.note_asked(node, at);
        self.attempt(node, request);
    }

    /// One attempt, if the desk lets it through.
    fn attempt(&mut self, node: usize, request: u64) {
        let now = self.now.0;
        let deadline = self.requests[request as usize].deadline_at;
        let memory = &mut self.nodes[node].memory;
        let errand = memory.relays.get_mut(&request).and_then(|one| one.errand.as_deref_mut());
        let Some(errand) = errand else { return };
        let at = errand.at;
        if let Some(ending) = Tries::late(now, deadline) {
            let refusal = ending.refusal(&self.specs[at].name, "");
            self.settle_errand(node, request);
            return self.leg_ended(node, request, End::Failed(refusal));
        }
        let ask = errand.tries.ask(&errand.model, errand.priced.worst().tokens);
        let desk = &mut memory.desks[at].desk;
        match desk.admit(now, &ask) {
            Err(denied) => {
                let spec = &self.specs[at];
                let refusal = match errand.last {
                    Some(ending) => ending.refusal(&spec.name, ""),
                    None => denied.refusal(&spec.name, now),
                };
                self.record("denied", [node, at], &request.to_be_bytes());
                if denied == Denied::Full {
                    self.hit(Mark::ProviderFull);
                }
                self.settle_errand(node, request);
                self.leg_ended(node, request, End::Failed(refusal));
            }
            Ok(ticket) => {
                self.exchanges_made += 1;
                let exchange = self.exchanges_made;
                let watch = Watch::new(self.specs[at].times, now, deadline);
                errand.stage = Errands::Trying { exchange, ticket, watch };
                self.audit_attempt(node, request, exchange);
                self.dial_provider(node, request, exchange, at);
                self.look_later(node, request);
            }
        }
    }

    /// The request is on its way to the provider, if there is one.
    fn dial_provider(&mut self, node: usize, request: u64, exchange: u64, at: usize) {
        self.record("asks", [node, at], &exchange.to_be_bytes());
        let name = self.specs[at].name.clone();
        self.show_request(EventKind::ProviderAsked, (node, None), (request, None), || name);
        let truth = &self.requests[request as usize];
        let (prompt, most) = (truth.prompt, truth.max_tokens);
        let start = self.nodes[node].starts;
        // Whoever cannot go on begins at the beginning.
        let begun = if self.goes_on(at) { truth.said } else { 0 };
        let begun = (begun, truth.pieces);
        let kept = Exchange::new((at, node, start), request, (prompt, most), begun);
        self.exchanges.insert(exchange, kept);
        let trip = self.clouds[at].latency;
        if let Some(fault) = self.internet_cut(node) {
            self.cuts_met.insert(fault);
            if !self.clouds[at].is_dropped() {
                let word = Word::NoRoute;
                self.later(node, self.now.0.plus(Micros::millis(1)), Own::Heard { exchange, word });
            }
            return;
        }
        let ready = self.now.0.plus(trip.times(2));
        self.later(node, ready, Own::Heard { exchange, word: Word::Connected });
        self.queue.push(ready.plus(trip), Class::Network, Due::CloudSpeaks { exchange });
    }

    /// Whether a provider's model goes on after the beginning of an answer.
    pub(super) fn goes_on(&self, at: usize) -> bool {
        way(&self.specs[at], None) != Continues::No
    }

    /// The fault that keeps a node from every provider, if one does.
    fn internet_cut(&self, node: usize) -> Option<usize> {
        self.cuts.iter().find(|(_, nodes)| nodes.contains(&node)).map(|(index, _)| *index)
    }

    /// A provider says its next word on an exchange.
    pub(super) fn cloud_speaks(&mut self, exchange: u64) {
        let Some(kept) = self.exchanges.get_mut(&exchange) else { return };
        let (at, node, start) = (kept.cloud, kept.node, kept.start);
        kept.gone |= self.nodes[node].starts != start || self.nodes[node].crashes > 0;
        if !kept.gone
            && let Some(fault) = self.internet_cut(node)
        {
            // What cannot get through now is sent again.
            self.cuts_met.insert(fault);
            return self.again(SENT_AGAIN, Due::CloudSpeaks { exchange });
        }
        let Some(kept) = self.exchanges.get_mut(&exchange) else { return };
        let (words, next) = self.clouds[at].speak(kept);
        let over = kept.is_over();
        let arrives = self.now.0.plus(self.clouds[at].latency);
        for word in words {
            self.later(node, arrives, Own::Heard { exchange, word });
        }
        if let Some(after) = next {
            self.again(after, Due::CloudSpeaks { exchange });
        }
        if over && self.exchanges.get(&exchange).is_some_and(|kept| kept.gone) {
            self.exchanges.remove(&exchange);
        }
    }

    /// A node hears a word of a provider's.
    pub(super) fn heard_provider(&mut self, node: usize, exchange: u64, word: Word) {
        let now = self.now.0;
        let Some(request) = self.exchanges.get(&exchange).map(|kept| kept.request) else { return };
        let current = |errand: &&mut Errand| errand.exchange() == Some(exchange);
        let Some(errand) = self.errand(node, request).filter(current) else { return };
        if let Some(ending) = errand.watch().and_then(|watch| watch.late(now)) {
            return match errand.stage {
                Errands::Streaming { .. } => self.answer_broke(node, request, ending),
                _ => self.attempt_failed(node, request, ending),
            };
        }
        match word {
            Word::Connected => {
                if let Some(watch) = errand.watch() {
                    watch.connected(now);
                }
                self.look_later(node, request);
            }
            Word::NoRoute => self.attempt_failed(node, request, Ending::Unreachable),
            Word::Status { status, retry_after } => {
                self.attempt_failed(node, request, Ending::of_status(status, retry_after));
            }
            Word::Head { prompt } => {
                if let Errands::Trying { exchange, ticket, mut watch } = errand.stage {
                    watch.progressed(now);
                    errand.stage = Errands::Streaming { exchange, ticket, watch };
                }
                errand.told =
                    prompt.map(|prompt| Counts { prompt: u64::from(prompt), ..Counts::default() });
                self.note_paid(node, request);
                self.look_later(node, request);
            }
            Word::Piece { index, from, to } => {
                if let Some(watch) = errand.watch() {
                    watch.progressed(now);
                }
                errand.running.piece();
                self.note_paid(node, request);
                self.paid_piece(node, request, exchange, (index, from, to));
                self.look_later(node, request);
            }
            Word::Done { prompt, completion } => {
                let counts = Counts { prompt, completion, ..Counts::default() };
                self.answered(node, request, counts);
            }
            Word::Cut => self.answer_broke(node, request, Ending::Cut),
        }
    }

    /// Notes what the answer took so far.
    fn note_paid(&mut self, node: usize, request: u64) {
        let Some(errand) = self.errand(node, request) else { return };
        if let Some(counts) = errand.running.counts(&errand.priced, errand.told) {
            errand.bill.told(errand.priced.cost(&counts));
        }
    }

    /// The caller gets a piece of a provider's answer.
    fn paid_piece(
        &mut self,
        node: usize,
        request: u64,
        exchange: u64,
        (index, from, to): (u32, u32, u32),
    ) {
        let truth = &mut self.requests[request as usize];
        let fits = *truth.voice.get_or_insert(exchange) == exchange
            && truth.tokens == 0
            && truth.pieces == index
            && truth.said == from
            && truth.ends == 0;
        (truth.pieces, truth.said) = (index + 1, to);
        if !fits {
            let seen =
                format!("request {request} at node {node}: piece {index} of {exchange}: {truth:?}");
            self.broken(Invariant::PaidOneVoice, seen);
        }
        self.tally.tokens += 1;
        self.audit_key(node, request, false);
        self.audit_late(node, request);
        if index == 0 {
            let (kind, who) = (EventKind::RequestStarted, (node, None));
            self.show_request(kind, who, (request, None), String::new);
        }
        self.piece_came(node, request);
        self.collect_piece(node, request);
    }

    /// A provider's answer is whole.
    fn answered(&mut self, node: usize, request: u64, counts: Counts) {
        let total = counts.prompt + counts.completion;
        self.tell_desk(node, request, Ending::Answered, Some(total));
        let Some(errand) = self.errand(node, request) else { return };
        let (took, _) = errand.running.at_end(&errand.priced, Some(counts), true);
        if took.micro_dollars > errand.bill.reserved().micro_dollars {
            self.marks.hit(Mark::Overbilled);
        }
        let Some(errand) = self.errand(node, request) else { return };
        errand.bill.told(took);
        self.audit_bill(node, request, Some(counts));
        // Whoever has the end finds it settled.
        self.settle_errand(node, request);
        self.hit(Mark::ProviderAnswered);
        self.audit_late(node, request);
        self.piece_came(node, request);
        let truth = &mut self.requests[request as usize];
        (truth.ends, truth.finished) = (truth.ends + 1, true);
        self.finished_at(node);
        let (who, amount) = ((node, None), Some(total));
        let kind = EventKind::RequestFinished;
        self.show_request(kind, who, (request, amount), || "stop".to_owned());
        self.leg_ended(node, request, End::Answered { tokens: counts.completion });
    }

    /// An attempt ended before a byte of its answer came.
    fn attempt_failed(&mut self, node: usize, request: u64, ending: Ending) {
        let (now, deadline) = (self.now.0, self.requests[request as usize].deadline_at);
        let Some(ticket) = self.errand(node, request).and_then(|errand| errand.ticket()) else {
            return;
        };
        self.let_exchange_go(node, request);
        self.tell_desk(node, request, ending, None);
        let memory = &mut self.nodes[node].memory;
        let errand = memory.relays.get_mut(&request).and_then(|one| one.errand.as_deref_mut());
        let Some(errand) = errand else { return };
        errand.last = Some(ending);
        let side = &mut memory.desks[errand.at];
        let attempt = (ticket.key(), ending);
        let decision = errand.tries.ended(
            &mut side.desk,
            (now, deadline),
            &errand.model,
            attempt,
            &mut side.dice,
        );
        match decision {
            Decision::Again { after } => {
                let until = now.plus(after);
                errand.stage = Errands::Resting { until };
                self.hit(Mark::ProviderAskedAgain);
                if ending.fault() == Fault::Key {
                    self.hit(Mark::OtherKeyUsed);
                }
                self.later(node, until, Own::TryAgain { request });
            }
            Decision::Final | Decision::Elsewhere => {
                let refusal = ending.refusal(&self.specs[errand.at].name, "");
                self.settle_errand(node, request);
                self.leg_ended(node, request, End::Failed(refusal));
            }
        }
    }

    pub(super) fn try_again(&mut self, node: usize, request: u64) {
        let now = self.now.0;
        let rested = |errand: &&mut Errand| match errand.stage {
            Errands::Resting { until } => until <= now,
            _ => false,
        };
        if self.errand(node, request).filter(rested).is_some() {
            self.attempt(node, request);
        }
    }

    /// An answer that had begun ended without its end.
    fn answer_broke(&mut self, node: usize, request: u64, ending: Ending) {
        let Some(errand) = self.errand(node, request) else { return };
        let used = errand.told.map(|told| told.prompt + told.completion);
        self.let_exchange_go(node, request);
        self.tell_desk(node, request, ending, used);
        self.note_paid(node, request);
        self.audit_bill(node, request, None);
        let Some(at) = self.errand(node, request).map(|errand| errand.at) else { return };
        let refusal = ending.refusal(&self.specs[at].name, "");
        self.settle_errand(node, request);
        let delivered = self.requests[request as usize].pieces > 0;
        self.hit(if delivered { Mark::ProviderCutOff } else { Mark::HeadThenElsewhere });
        self.leg_ended(node, request, End::Failed(refusal));
    }

    /// Nobody wants the turn at a provider any more; whether there was an attempt.
    pub(super) fn leave_errand(&mut self, node: usize, request: u64) -> bool {
        let Some(errand) = self.errand(node, request) else { return false };
        let asked = errand.exchange().is_some();
        let used = errand.told.map(|told| told.prompt + told.completion);
        if asked {
            self.let_exchange_go(node, request);
            self.tell_desk(node, request, Ending::Left, used);
            self.audit_bill(node, request, None);
        }
        self.settle_errand(node, request);
        asked
    }

    fn let_exchange_go(&mut self, node: usize, request: u64) {
        let exchange = self.errand(node, request).and_then(|errand| errand.exchange());
        if let Some(kept) = exchange.and_then(|exchange| self.exchanges.get_mut(&exchange)) {
            kept.gone = true;
        }
    }

    /// The attempt under way has ended: the desk is told, once.
    fn tell_desk(&mut self, node: usize, request: u64, ending: Ending, used: Option<u64>) {
        let now = self.now.0;
        let memory = &mut self.nodes[node].memory;
        let errand = memory.relays.get_mut(&request).and_then(|one| one.errand.as_deref_mut());
        let Some((at, exchange, ticket)) =
            errand.and_then(|one| Some((one.at, one.exchange()?, one.ticket()?)))
        else {
            return;
        };
        let mut reports = Vec::new();
        memory.desks[at].desk.ended(now, ticket, ending, used, &mut reports);
        for report in reports {
            match report {
                Report::Opened { model, until } => {
                    self.breaker_turned(node, at, model.is_none(), Some(until));
                }
                Report::Closed { model } => self.breaker_turned(node, at, model.is_none(), None),
                Report::Key { .. } => {}
            }
        }
        self.audit_ending(node, at, exchange, ending);
    }

    /// The next moment at which the attempt's time may be over.
    fn look_later(&mut self, node: usize, request: u64) {
        let Some(errand) = self.errand(node, request) else { return };
        let Some(at) = errand.watch().map(|watch| watch.wake_at()) else { return };
        if errand.tick_at.is_none_or(|known| at < known) {
            errand.tick_at = Some(at);
            self.later(node, at, Own::ErrandTick { request });
        }
    }

    pub(super) fn errand_ticked(&mut self, node: usize, request: u64) {
        let now = self.now.0;
        let Some(errand) = self.errand(node, request) else { return };
        if errand.tick_at.is_none_or(|at| at > now) {
            return;
        }
        errand.tick_at = None;
        let began = matches!(errand.stage, Errands::Streaming { .. });
        let over = errand.watch().and_then(|watch| watch.expired(now));
        match over {
            None => self.look_later(node, request),
            Some(ending) if began => self.answer_broke(node, request, ending),
            Some(ending) => self.attempt_failed(node, request, ending),
        }
    }

    /// The turn at a provider is over: what it took is settled, once.
    pub(super) fn settle_errand(&mut self, node: usize, request: u64) {
        let Some(relayed) = self.nodes[node].memory.relays.get_mut(&request) else { return };
        let Some(errand) = relayed.errand.take() else { return };
        self.requests[request as usize].unpaid = false;
        if !errand.limited {
            return;
        }
        let actual = errand.actual();
        self.settling_is(&errand.drawn);
        if errand.granted {
            self.served(node, &errand.drawn, &actual);
        }
        self.charge_in_full(node, request, actual);
    }
}
