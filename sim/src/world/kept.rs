//! What must hold of caches, by the observer's own account of what was asked, kept and purged.

use selvedge_base::{Micros, Mono, RequestId};
use selvedge_core::journey::Target;
use selvedge_proto::wire::Label;

use super::World;
use super::body::Written;
use super::cached::{Given, Kept};
use super::requests::Funds;
use crate::engine::Prompt;
use crate::invariant::Invariant;
use crate::marks::Mark;

/// How much longer than half of its time a request may be seen waiting: a look at a moment.
const WAITS_AT_MOST: Micros = Micros::millis(50);

/// What a request means, known from its draw: two that mean the same are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Meaning {
    account: String,
    asks: String,
    dialect: &'static str,
    label: Option<Label>,
    target: Target,
    limited: bool,
    hot: bool,
    tools: bool,
    prompt: Prompt,
    max_tokens: u32,
    unlimited: bool,
}

/// What the observer knows of a request that came to a cache.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    meaning: Meaning,
    node: usize,
    came: Mono,
    /// Purges before it was asked of peers or of a target.
    purges: usize,
    /// Those that its node had heard of then.
    heard: usize,
    /// When its answer was kept.
    kept_at: Option<Mono>,
}

/// A purge that an operator made.
#[derive(Debug)]
pub(super) struct Purge {
    /// Where.
    pub(super) node: usize,
    /// Its number there; 0 where the build tells nobody.
    pub(super) number: u64,
    account: Option<String>,
    model: Option<String>,
}

impl Purge {
    fn reaches(&self, asked: &Asked) -> bool {
        let below = |path: &String| {
            let rest = asked.meaning.account.strip_prefix(path.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.account.as_ref().is_none_or(below)
            && self.model.as_ref().is_none_or(|model| *model == asked.meaning.asks)
    }
}

impl World<'_> {
    /// A request came to a cache.
    pub(super) fn note_question(
        &mut self,
        node: usize,
        request: u64,
        written: &Written,
        (target, limited): (&Target, bool),
    ) {
        let truth = &self.requests[request as usize];
        let client = &self.plan.workload.clients[truth.group];
        let meaning = Meaning {
            account: client.account.clone(),
            asks: client.asks.clone().unwrap_or_default(),
            dialect: written.dialect,
            label: truth.label,
            target: target.clone(),
            limited,
            hot: written.hot,
            tools: truth.tools,
            prompt: truth.prompt,
            max_tokens: truth.max_tokens,
            unlimited: client.unlimited,
        };
        let (came, purges) = (self.now.0, self.purges.len());
        let asked = Asked { meaning, node, came, purges, heard: 0, kept_at: None };
        self.requests[request as usize].at_cache = Some(Box::new(asked));
    }

    /// It is asked of peers or of a target from now on.
    pub(super) fn note_asked_at_cache(&mut self, request: u64) {
        let purges = self.purges.len();
        if let Some(asked) = &mut self.requests[request as usize].at_cache {
            (asked.purges, asked.heard) = (purges, self.learned[asked.node].len());
        }
    }

    /// Its answer is kept.
    pub(super) fn note_kept(&mut self, request: u64) {
        let now = self.now.0;
        if let Some(asked) = &mut self.requests[request as usize].at_cache {
            asked.kept_at = Some(now);
        }
    }

    /// An operator purged.
    pub(super) fn note_purge(
        &mut self,
        node: usize,
        (account, model): (Option<&str>, Option<&str>),
        number: u64,
    ) {
        let (account, model) = (account.map(str::to_owned), model.map(str::to_owned));
        self.purges.push(Purge { node, number, account, model });
    }

    /// A request is to ask for all who ask the same: nobody does yet.
    pub(super) fn audit_lead(&mut self, node: usize, request: u64) {
        let Some(mine) = &self.requests[request as usize].at_cache else { return };
        let Some(side) = &self.nodes[node].memory.cache else { return };
        let same = |other: &u64| {
            let theirs = self.requests[*other as usize].at_cache.as_ref();
            let asked = theirs.filter(|theirs| theirs.meaning == mine.meaning);
            asked.is_some_and(|asked| {
                // Also a purge of before, if it was heard of since, ends the question.
                let mut since = self.learned[node].iter().skip(asked.heard);
                !since.any(|index| self.purges[*index].reaches(asked))
            })
        };
        let leaders = side.keepers.iter().filter(|(_, keeper)| keeper.leads);
        let leaders = leaders.map(|(other, _)| other).chain(side.fetching.keys());
        if let Some(other) = leaders.into_iter().find(|other| same(other)) {
            let seen = format!("request {request} of node {node} is asked, and {other} is");
            self.broken(Invariant::CacheOneAsks, seen);
        }
    }

    /// Whether a purge reached a question after it was asked, among the first so many that a node
    /// heard of.
    fn was_purged(&self, node: usize, asked: &Asked, first: usize) -> bool {
        let heard = self.learned[node].iter().take(first);
        let mut since = heard.filter(|index| **index >= asked.purges);
        since.any(|index| self.purges[*index].reaches(asked))
    }

    /// An answer of before is given to a request: it must be its answer, good, and cost nothing.
    pub(super) fn audit_given(&mut self, node: usize, request: u64, kept: Kept, how: Given) {
        let handed = if let Given::Handed(purges) = how { Some(purges) } else { None };
        let now = self.now.0;
        let (mine, by) = (&self.requests[request as usize], &self.requests[kept.by as usize]);
        let (Some(asks), Some(asked)) = (&mine.at_cache, &by.at_cache) else { return };
        let mut wrong = Vec::new();
        let who = format!("request {request} of node {node} gets the answer of {}", kept.by);
        if asks.meaning.account != asked.meaning.account {
            let seen = format!("{who}: {} and {}", asks.meaning.account, asked.meaning.account);
            wrong.push((Invariant::CacheOwnOnly, seen));
        } else if asks.meaning != asked.meaning {
            let seen = format!("{who}: {:?} and {:?}", asks.meaning, asked.meaning);
            wrong.push((Invariant::CacheEqualOnly, seen));
        }
        let ttl = self.plan.options.cache.map_or(Micros::ZERO, |plan| plan.ttl);
        let good = asked.kept_at.is_some_and(|at| handed.is_some() || now.since(at) < ttl);
        if !good || kept.at != (node, self.nodes[node].starts) {
            let seen = format!("{who}, kept at {:?} at node {}", asked.kept_at, asked.node);
            wrong.push((Invariant::CacheInTime, seen));
        }
        let stays = match asked.meaning.label {
            Some(Label::Node) => asked.node != node,
            Some(Label::Site) => self.nodes[asked.node].site != self.nodes[node].site,
            Some(Label::Mesh | Label::Anywhere) | None => false,
        };
        if stays {
            let seen = format!("{who} of node {}: {:?}", asked.node, asked.meaning.label);
            wrong.push((Invariant::CacheStaysHome, seen));
        }
        if self.was_purged(node, asked, handed.unwrap_or(usize::MAX)) {
            wrong.push((Invariant::CachePurgeHolds, format!("{who}: {:?}", self.purges)));
        }
        let pieces = match &asked.meaning.target {
            Target::Mesh { model } => (by.model.name() == model).then_some(by.tokens),
            Target::Provider { .. } => by.voice.map(|_| by.pieces),
        };
        let first_hand = by.legs == 1 && by.funds == Funds::There && !by.cut_short;
        if !by.finished || !first_hand || pieces != Some(kept.pieces) {
            let seen = format!("{who}: {} of {pieces:?} pieces, {} legs", kept.pieces, by.legs);
            wrong.push((Invariant::CacheWholeOnly, seen));
        }
        let id = RequestId(u128::from(request));
        let quota = self.nodes[node].memory.quota.as_ref();
        if mine.legs > 0 || quota.is_some_and(|quota| quota.is_active(&id)) {
            wrong.push((Invariant::CacheCostsNothing, format!("{who}: {} legs", mine.legs)));
        }
        for (invariant, seen) in wrong {
            self.broken(invariant, seen);
        }
    }

    /// A target is about to be asked: not for who has an answer that was kept.
    pub(super) fn audit_leg(&mut self, node: usize, request: u64) {
        let truth = &mut self.requests[request as usize];
        truth.legs += 1;
        if truth.given_again {
            let seen = format!("request {request} of node {node} is asked after its answer");
            self.broken(Invariant::CacheCostsNothing, seen);
        }
    }

    /// Who waits waits for somebody, and not for too long; what was found was counted.
    pub(super) fn audit_cache(&mut self, node: usize, wrong: &mut Vec<(Invariant, String)>) {
        let Some(side) = &self.nodes[node].memory.cache else { return };
        let counts = side.machine.counts();
        for (request, waiting) in &side.waiting {
            let truth = &self.requests[*request as usize];
            let Some(asked) = &truth.at_cache else { continue };
            let half = Micros(truth.deadline_at.since(asked.came).0 / 2);
            let waited = self.now.0.since(asked.came);
            let asks = side.keepers.values().any(|keeper| keeper.ticket == waiting.ticket)
                || side.fetching.values().any(|one| one.ticket == waiting.ticket);
            if waited > half.plus(WAITS_AT_MOST) || !asks && waiting.told.is_none() {
                let seen = format!(
                    "request {request} at node {node} waits since {:?}, for somebody: {asks}",
                    asked.came
                );
                wrong.push((Invariant::CacheNobodyForgotten, seen));
            }
        }
        if counts.hits != side.found {
            let seen = format!("node {node} counts {}, and {} were found", counts.hits, side.found);
            wrong.push((Invariant::CacheCostsNothing, seen));
        }
        for (count, mark) in
            [(counts.expired, Mark::CacheExpired), (counts.evicted, Mark::CacheEvicted)]
        {
            if count > 0 {
                self.marks.hit(mark);
            }
        }
    }
}
