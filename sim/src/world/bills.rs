//! The observer's own account of providers: who asked them when, what they billed, what they should
//! be left alone for.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono, RequestId};
use selvedge_core::bill::Took;
use selvedge_core::catalogue::Counts;
use selvedge_core::upstream::{Ending, Fault};
use selvedge_proto::wire::Label;

use super::World;
use super::requests::{Funds, LATE};
use crate::invariant::Invariant;
use crate::marks::Mark;

/// Failures in a row after which a breaker must be open, when they are half of all endings.
const ENOUGH: usize = 5;
/// No failure is forgotten before this...
const CLOSE: Micros = Micros::secs(26);
/// ... and every success after this.
const FAR: Micros = Micros::secs(31);
/// Retries that need no requests before them, and the thousandths of one that each request adds,
/// as production promises.
const FREE_RETRIES: u64 = 3;

/// What the observer knows of one provider as one process asks it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Requests, and attempts beyond the first of each.
    requests: u64,
    retries: u64,
    /// Attempts under way: when they began.
    under_way: BTreeMap<u64, Mono>,
    reach: Row,
    model: Row,
}

/// Endings, as far as a breaker must heed them, and what it said.
#[derive(Debug, Default)]
struct Row {
    /// Failures since the last success.
    failures: Vec<Mono>,
    successes: Vec<Mono>,
    /// Since when it is open, and until when nobody may ask.
    open: Option<(Mono, Mono)>,
    /// When it last opened or closed: what began before says nothing any more.
    since: Mono,
}

impl Row {
    /// It said that it opened or closed.
    fn turned(&mut self, now: Mono, open_until: Option<Mono>) {
        *self = Self { open: open_until.map(|until| (now, until)), since: now, ..Self::default() };
    }

    /// Notes an ending; whether it must have opened by now.
    fn note(&mut self, now: Mono, began: Mono, failed: Option<bool>) -> bool {
        let Some(failed) = failed.filter(|_| began >= self.since) else { return false };
        self.failures.retain(|at| now.since(*at) < CLOSE);
        self.successes.retain(|at| now.since(*at) < FAR);
        if !failed {
            self.failures.clear();
            self.successes.push(now);
            return false;
        }
        self.failures.push(now);
        self.open.is_none() && self.failures.len() >= ENOUGH.max(self.successes.len())
    }
}

/// By node, start of its process, and provider.
pub(super) type Bills = BTreeMap<(usize, u64, usize), Seen>;

impl World<'_> {
    fn seen(&mut self, node: usize, at: usize) -> &mut Seen {
        let start = self.nodes[node].starts;
        self.bills.entry((node, start, at)).or_default()
    }

    /// A request came for a provider.
    pub(super) fn note_asked(&mut self, node: usize, at: usize) {
        self.seen(node, at).requests += 1;
    }

    /// An attempt begins: it must be allowed to, in every way there is.
    pub(super) fn audit_attempt(&mut self, node: usize, request: u64, exchange: u64) {
        let now = self.now.0;
        let Some(errand) = self.errand(node, request) else { return };
        let (at, made, limited) = (errand.at, errand.tries.made(), errand.limited);
        let settings = self.specs[at].desk;
        let start = self.nodes[node].starts;
        let truth = &self.requests[request as usize];
        let who = format!("request {request} of node {node} at provider {at}");
        let mut wrong = Vec::new();
        let stays = matches!(truth.label, Some(Label::Node | Label::Site | Label::Mesh));
        if stays {
            wrong.push((Invariant::RouteLabelKept, format!("{who}: {:?}", truth.label)));
        }
        let id = RequestId(u128::from(request));
        let quota = self.nodes[node].memory.quota.as_ref();
        let is_held = !limited || quota.is_some_and(|quota| quota.is_active(&id));
        if truth.unpaid || truth.funds != Funds::There || !is_held {
            let seen = format!("{who}: held {is_held}, money {:?}", truth.funds);
            wrong.push((Invariant::PaidWithinBudget, seen));
        }
        if now > truth.deadline_at.plus(LATE) && self.nodes[node].pauses == 0 {
            wrong.push((Invariant::FlowNothingLate, who.clone()));
        }
        if made >= settings.retry.attempts {
            wrong.push((Invariant::PaidTriesBounded, format!("{who}: {made} were made")));
        }
        let seen = self.bills.entry((node, start, at)).or_default();
        seen.retries += u64::from(made > 0);
        let allowed = FREE_RETRIES * 1_000 + u64::from(settings.retry.permille) * seen.requests;
        if seen.retries * 1_000 > allowed {
            let (retries, requests) = (seen.retries, seen.requests);
            let seen = format!("{who}: {retries} retries of {requests} requests");
            wrong.push((Invariant::PaidTriesBounded, seen));
        }
        let seen = self.bills.entry((node, start, at)).or_default();
        for row in [&seen.reach, &seen.model] {
            let Some((since, until)) = row.open else { continue };
            let lease = settings.breaker.probe_lease;
            let probes = seen.under_way.values();
            let others =
                probes.filter(|began| **began >= since && now.since(**began) < lease).count();
            if now < until || others > 0 {
                let seen = format!("{who}: open since {since:?} until {until:?}, {others} probes");
                wrong.push((Invariant::PaidLeftAlone, seen));
            }
        }
        seen.under_way.insert(exchange, now);
        for (invariant, seen) in wrong {
            self.broken(invariant, seen);
        }
        self.audit_key(node, request, false);
    }

    /// An attempt ended.
    pub(super) fn audit_ending(&mut self, node: usize, at: usize, exchange: u64, ending: Ending) {
        let now = self.now.0;
        let seen = self.seen(node, at);
        let Some(began) = seen.under_way.remove(&exchange) else { return };
        let failed = ending.fault() == Fault::Provider;
        let (reach, model) = match ending {
            Ending::Unreachable => (Some(true), None),
            Ending::Left | Ending::Expired | Ending::Unsent => (None, None),
            _ => (Some(false), Some(failed)),
        };
        let must = seen.reach.note(now, began, reach) | seen.model.note(now, began, model);
        if must {
            let seen = format!("node {node} at provider {at}, after {ending:?}: {seen:?}");
            self.broken(Invariant::PaidLeftAlone, seen);
        }
    }

    /// A breaker said that it opened or closed.
    pub(super) fn breaker_turned(
        &mut self,
        node: usize,
        at: usize,
        is_reach: bool,
        open_until: Option<Mono>,
    ) {
        let (now, first) = (self.now.0, self.specs[at].desk.breaker.open_first);
        let seen = self.seen(node, at);
        let row = if is_reach { &mut seen.reach } else { &mut seen.model };
        row.turned(now, open_until);
        if open_until.is_some_and(|until| until < now.plus(first)) {
            let seen = format!("node {node} at provider {at}: open until {open_until:?}");
            self.broken(Invariant::PaidLeftAlone, seen);
        }
        self.hit(if open_until.is_some() { Mark::ProviderLeftAlone } else { Mark::ProviderBack });
    }

    /// What is about to be settled must be what the provider billed; of an answer that broke off,
    /// no less than what came of it.
    pub(super) fn audit_bill(&mut self, node: usize, request: u64, whole: Option<Counts>) {
        let truth = &self.requests[request as usize];
        let (prompt, pieces) = (u64::from(truth.prompt.tokens), truth.pieces);
        let Some(errand) = self.errand(node, request) else { return };
        let pieces = pieces.saturating_sub(errand.before);
        let used = errand.bill.used();
        let seen = match whole {
            Some(counts) => {
                let billed: Took = errand.priced.cost(&counts);
                (used != billed).then(|| format!("{used:?} of {billed:?}"))
            }
            None if pieces > 0 => {
                let completion = u64::from(pieces);
                let came = Counts { prompt, completion, ..Counts::default() };
                let least = errand.priced.cost(&came);
                let short = used.tokens < least.tokens || used.micro_dollars < least.micro_dollars;
                short.then(|| format!("{used:?}, and {least:?} came"))
            }
            None => None,
        };
        if let Some(seen) = seen {
            let seen = format!("request {request} at node {node}: {seen}");
            self.broken(Invariant::PaidAsBilled, seen);
        }
    }

    /// Nothing but the refusal follows a deadline.
    pub(super) fn audit_late(&mut self, node: usize, request: u64) {
        let deadline = self.requests[request as usize].deadline_at;
        if self.now.0 > deadline.plus(LATE) && self.nodes[node].pauses == 0 {
            let seen = format!("request {request} at node {node}, due at {deadline:?}");
            self.broken(Invariant::FlowNothingLate, seen);
        }
    }

    /// Of a request that is over nothing is reserved.
    pub(super) fn audit_settled(&mut self, node: usize, request: u64) {
        let memory = &self.nodes[node].memory;
        let id = RequestId(u128::from(request));
        // While the budgets are in the middle of a step, what they were told is in their inbox.
        let held = memory.quota.as_ref().is_some_and(|quota| quota.is_active(&id));
        if held && !memory.quota_busy {
            let seen = format!("request {request} at node {node}");
            self.broken(Invariant::PaidSettled, seen);
        }
    }
}
