//! The desk before one provider: asked before each attempt, told after it.
//!
//! Owns the order of the checks (breakers, the provider's own limits, keys) and that each attempt
//! that was let through is accounted for once. Each check's rules are its own file's.

use std::collections::BTreeMap;

use selvedge_base::{Blame, Code, Dice, Micros, Mono, Refusal, Retry, Stage};

use super::breaker::{Breaker, BreakerSettings, Pass, Turn};
use super::ending::{Ending, Fault};
use super::keys::{KeyPass, KeyPool, KeyTurn, NoKey};
use super::rate::{Limits, MinuteWindow};
use super::retry::{Allowance, Decision, HedgeSettings, RetrySettings, Tried, decide};

/// Models with a breaker of their own at one provider; the rest share one. The largest catalogues
/// have a few hundred models, of which few are asked for at the same time.
pub const MAX_MODELS: usize = 256;
/// Retries a provider gets before it had any request: a quiet node may retry its first ones.
const FIRST_RETRIES: u64 = 3;

/// What holds for one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeskSettings {
    /// How many keys there are; 0 for a provider that needs none.
    pub keys: usize,
    /// What each key may be used for.
    pub per_key: Limits,
    /// What all of them together may be used for.
    pub whole: Limits,
    /// When it is left alone.
    pub breaker: BreakerSettings,
    /// When a failed attempt is made again.
    pub retry: RetrySettings,
    /// When a second attempt runs beside a slow first one; never without.
    pub hedge: Option<HedgeSettings>,
}

/// One attempt that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The model, as the provider calls it.
    pub model: &'a str,
    /// Tokens it may take, prompt and answer.
    pub tokens: u64,
    /// Keys this request has failed with.
    pub tried: &'a [usize],
}

/// Leave for one attempt, to be handed back with its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    key: KeyPass,
    model: usize,
    reach: Pass,
    pass: Pass,
    taken: Mono,
    tokens: u64,
}

impl Ticket {
    /// Place of the key to use in the configured list.
    pub const fn key(&self) -> usize {
        self.key.key
    }

    /// Whether it is a probe of a provider that was left alone.
    pub const fn is_probe(&self) -> bool {
        self.pass.is_probe() || self.reach.is_probe()
    }
}

/// Why an attempt is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It failed too often and is left alone until then.
    Open(Mono),
    /// A limit per minute, ours or one it told us of, holds until then.
    Limited(Mono),
    /// As many requests as may run at the same time are running.
    Full,
    /// No key is left that this request has not failed with.
    NoKey,
}

/// What an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The provider, or one model of it, is left alone.
    Opened {
        /// The model; none: all of them, since there is no connection.
        model: Option<String>,
        /// No attempt before this.
        until: Mono,
    },
    /// It is back.
    Closed {
        /// The model; none: the provider as a whole.
        model: Option<String>,
    },
    /// Something changed for a key.
    Key {
        /// Its place in the configured list.
        key: usize,
        /// What.
        turn: KeyTurn,
    },
}

/// An attempt that ended, for the question whether to make another.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// The model, as the provider calls it.
    pub model: &'a str,
    /// How it ended.
    pub ending: Ending,
    /// Attempts made so far, this one among them.
    pub attempts: u32,
    /// Whether the caller was given any of the answer.
    pub delivered: bool,
    /// Keys this request has failed with.
    pub tried: &'a [usize],
    /// When the request must be answered.
    pub deadline: Mono,
}

/// What is known of one provider.
#[derive(Clone, Debug)]
pub struct Desk {
    settings: DeskSettings,
    keys: KeyPool,
    /// Connecting: what fails here fails for all models.
    reach: Breaker,
    names: BTreeMap<String, usize>,
    /// The first is shared by the models beyond [`MAX_MODELS`].
    models: Vec<Breaker>,
    running: u32,
    requests: MinuteWindow,
    tokens: MinuteWindow,
    retries: Allowance,
    hedges: Allowance,
}

impl Desk {
    /// A desk before a provider nothing is known of yet.
    pub fn new(settings: DeskSettings) -> Self {
        let hedges = settings.hedge.map_or(0, |hedge| hedge.permille);
        Self {
            settings,
            keys: KeyPool::new(settings.keys, settings.per_key),
            reach: Breaker::new(settings.breaker),
            names: BTreeMap::new(),
            models: vec![Breaker::new(settings.breaker)],
            running: 0,
            requests: MinuteWindow::default(),
            tokens: MinuteWindow::default(),
            retries: Allowance::new(settings.retry.permille, FIRST_RETRIES),
            hedges: Allowance::new(hedges.min(HedgeSettings::MOST_PERMILLE), 0),
        }
    }

    /// A request came for this provider; once each, however many attempts it takes.
    pub fn requested(&mut self) {
        self.retries.requested();
        self.hedges.requested();
    }

    /// Whether an attempt would be let through, without making it: for routing.
    ///
    /// # Errors
    /// [`Denied`], but for keys.
    pub fn allows(&self, now: Mono, ask: &Ask<'_>) -> Result<(), Denied> {
        self.reach.allows(now).map_err(Denied::Open)?;
        let known = self.names.get(ask.model).copied();
        let model = known.or_else(|| (self.models.len() > MAX_MODELS).then_some(0));
        if let Some(model) = model {
            self.models[model].allows(now).map_err(Denied::Open)?;
        }
        let limits = &self.settings.whole;
        let requests = limits.requests_per_minute;
        let tokens = limits.tokens_per_minute;
        let free = requests.map_or(now, |limit| self.requests.fits_at(now, 1, limit));
        let free = free.max(tokens.map_or(now, |l| self.tokens.fits_at(now, ask.tokens, l)));
        if free > now {
            return Err(Denied::Limited(free));
        }
        if limits.concurrent.is_some_and(|most| self.running >= most) {
            return Err(Denied::Full);
        }
        Ok(())
    }

    /// Leave for one attempt. What is taken here is given back by [`Desk::ended`].
    ///
    /// # Errors
    /// [`Denied`].
    pub fn admit(&mut self, now: Mono, ask: &Ask<'_>) -> Result<Ticket, Denied> {
        self.allows(now, ask)?;
        let model = self.model(ask.model);
        let key = self.keys.take(now, model, ask.tokens, ask.tried).map_err(|none| match none {
            NoKey::Until(until) => Denied::Limited(until),
            NoKey::Full => Denied::Full,
            NoKey::None => Denied::NoKey,
        })?;
        // `allows` has said that both let it through.
        let reach = self.reach.take(now).map_err(Denied::Open)?;
        let pass = self.models[model].take(now).map_err(Denied::Open)?;
        self.running += 1;
        self.requests.add(now, 1);
        self.tokens.add(now, ask.tokens);
        Ok(Ticket { key, model, reach, pass, taken: now, tokens: ask.tokens })
    }

    /// An attempt ended after `used` tokens, if that is known.
    pub fn ended(
        &mut self,
        now: Mono,
        ticket: Ticket,
        ending: Ending,
        used: Option<u64>,
        reports: &mut Vec<Report>,
    ) {
        // A request that was not accepted took no tokens.
        let refused = matches!(ending, Ending::Unreachable | Ending::Unsent)
            || matches!(ending.fault(), Fault::Client | Fault::Key);
        let used = used.or(refused.then_some(0));
        self.running = self.running.saturating_sub(1);
        if let Some(used) = used {
            self.tokens.correct(ticket.taken, ticket.tokens, used);
        }
        let key = ticket.key.key;
        if let Some(turn) = self.keys.ended(now, ticket.key, ending, used) {
            reports.push(Report::Key { key, turn });
        }
        // Anything but a failure to connect shows that there is a connection.
        let reached = match ending {
            Ending::Unreachable | Ending::Left | Ending::Expired | Ending::Unsent => ending,
            Ending::Answered
            | Ending::Refused { .. }
            | Ending::Limited { .. }
            | Ending::KeyRejected { .. }
            | Ending::Failed { .. }
            | Ending::Silent
            | Ending::Stalled
            | Ending::Cut
            | Ending::Malformed
            | Ending::Overran => Ending::Answered,
        };
        if let Some(turn) = self.reach.ended(now, ticket.reach, reached) {
            reports.push(report(turn, None));
        }
        // Without a connection nothing is known of the model.
        let asked = if ending == Ending::Unreachable { Ending::Left } else { ending };
        let Some(breaker) = self.models.get_mut(ticket.model) else { return };
        if let Some(turn) = breaker.ended(now, ticket.pass, asked) {
            let name = self.names.iter().find(|(_, place)| **place == ticket.model);
            let name = name.map_or("(others)", |(name, _)| name).to_owned();
            reports.push(report(turn, Some(name)));
        }
    }

    /// What to do after an attempt that failed; a retry is taken from the provider's share.
    pub fn again(&mut self, now: Mono, ended: &Ended<'_>, dice: &mut Dice) -> Decision {
        let open = self.allows(now, &Ask { model: ended.model, tokens: 0, tried: ended.tried });
        let model = self.names.get(ended.model).copied().unwrap_or(0);
        let tried = Tried {
            ending: ended.ending,
            attempts: ended.attempts,
            delivered: ended.delivered,
            other_key: self.keys.has_other(now, model, ended.tried),
            deadline: ended.deadline,
        };
        let before = self.retries;
        let decision = decide(&self.settings.retry, &mut self.retries, now, &tried, dice);
        let Decision::Again { after } = decision else { return decision };
        match open {
            Err(Denied::Open(until) | Denied::Limited(until)) if until > now.plus(after) => {
                self.retries = before;
                Decision::Elsewhere
            }
            Ok(()) | Err(_) => decision,
        }
    }

    /// How long the first attempt may be silent before [`Desk::hedge`] is asked.
    pub fn hedge_after(&self) -> Option<Micros> {
        self.settings.hedge.map(|hedge| hedge.after)
    }

    /// Whether a second attempt may run beside a slow first one. `idempotent`: asking twice does
    /// nothing that asking once does not.
    pub const fn hedge(&mut self, idempotent: bool) -> bool {
        idempotent && self.settings.hedge.is_some() && self.hedges.take()
    }

    /// A hedge that was allowed did not begin after all.
    pub fn not_hedged(&mut self) {
        self.hedges.give_back();
    }

    /// The key at `place` was replaced in the vault.
    pub fn key_replaced(&mut self, place: usize) {
        self.keys.replaced(place);
    }

    /// Attempts under way.
    pub const fn running(&self) -> u32 {
        self.running
    }

    fn model(&mut self, name: &str) -> usize {
        if let Some(place) = self.names.get(name) {
            return *place;
        }
        if self.models.len() > MAX_MODELS {
            return 0;
        }
        self.models.push(Breaker::new(self.settings.breaker));
        self.names.insert(name.to_owned(), self.models.len() - 1);
        self.models.len() - 1
    }
}

impl Denied {
    /// The refusal a caller gets when there is nowhere else to go.
    pub fn refusal(self, provider: &str, now: Mono) -> Refusal {
        let (retry, code, why) = match self {
            Self::Open(until) => {
                (Retry::After(until.since(now)), Code::ModelUnavailable, "has been failing")
            }
            Self::Limited(until) => {
                (Retry::After(until.since(now)), Code::Overloaded, "is at its limit per minute")
            }
            Self::Full => {
                (Retry::After(Micros::secs(1)), Code::Overloaded, "has all it may have at a time")
            }
            Self::NoKey => (Retry::Elsewhere, Code::ModelUnavailable, "has no key that works"),
        };
        let message = format!("provider '{provider}' {why}");
        Refusal::new(Stage::Execute, Blame::Provider, retry, code, message)
    }
}

fn report(turn: Turn, model: Option<String>) -> Report {
    match turn {
        Turn::Opened { until } => Report::Opened { model, until },
        Turn::Closed => Report::Closed { model },
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
