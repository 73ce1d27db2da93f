//! Which of a provider's keys an attempt uses.
//!
//! Owns what is known of each key: its limits, whether it cools down after a 429, whether it is
//! parked since the provider rejected it, which models it may not use. Keys are places in a list
//! here; their names belong to the configuration and their secrets to the vault, so that nothing in
//! this file could leak one.

use std::collections::BTreeMap;

use selvedge_base::{Micros, Mono};

use super::ending::Ending;
use super::rate::{Limits, MinuteWindow};

/// Keys of one provider. Nobody is known to use more than a handful.
pub const MAX_KEYS: usize = 64;
/// The rest a key gets after a 429 without Retry-After; doubled while they go on.
const COOL_FIRST: Micros = Micros::secs(1);
/// The longest rest of that kind: limits are per minute nearly everywhere.
const COOL_LONGEST: Micros = Micros::secs(60);
/// The longest Retry-After that is believed: daily limits ask for hours, and a key that might work
/// again is worth one request an hour.
const RETRY_AFTER_LONGEST: Micros = Micros::secs(3_600);
/// How long a rejected key is left alone; doubled while it goes on being rejected. Providers have
/// rejected good keys for minutes; a revoked one costs a request now and then.
const PARK_FIRST: Micros = Micros::secs(600);
/// The longest: a key that was paid for again is back within two hours without anybody's help.
const PARK_LONGEST: Micros = Micros::secs(7_200);

/// The key chosen for one attempt; handed back with its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPass {
    /// Place in the configured list.
    pub key: usize,
    model: usize,
    taken: Mono,
    tokens: u64,
}

/// Why no key can be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// All are resting, parked or at their limits until this moment at the earliest.
    Until(Mono),
    /// All have as many requests as they may at the same time: one must end first.
    Full,
    /// There is none, or all were tried already.
    None,
}

/// What changed for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTurn {
    /// The provider asked to slow down.
    Cooling {
        /// When it may be used again.
        until: Mono,
    },
    /// The provider rejected it: an operator should look.
    Parked {
        /// HTTP status.
        status: u16,
        /// When it is tried again.
        until: Mono,
    },
    /// The provider rejects it for one model (403), as it does where access is granted model by
    /// model; for others it goes on.
    Barred {
        /// When it is tried again.
        until: Mono,
    },
    /// It works again after it was parked or barred.
    Back,
}

/// The keys of one provider.
#[derive(Clone, Debug)]
pub struct KeyPool {
    each: Limits,
    keys: Vec<Key>,
    /// Where the search begins among keys that are equally loaded.
    turn: usize,
}

#[derive(Clone, Debug, Default)]
struct Key {
    running: u32,
    requests: MinuteWindow,
    tokens: MinuteWindow,
    rests_until: Mono,
    /// 429s in a row.
    strikes: u32,
    /// Rejections in a row.
    rejected: Rejected,
    /// Models it was rejected for; as many as a desk tells apart.
    barred: BTreeMap<usize, Rejected>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rejected {
    times: u32,
    until: Mono,
}

impl Rejected {
    /// Counts a rejection of what was taken at `taken`. What was under way when an earlier one came
    /// is no further proof.
    fn again(&mut self, now: Mono, taken: Mono) -> Mono {
        if self.times == 0 || taken >= self.until {
            let wait = doubled(PARK_FIRST, self.times, PARK_LONGEST);
            self.times = self.times.saturating_add(1);
            self.until = self.until.max(now.plus(wait));
        }
        self.until
    }
}

impl KeyPool {
    /// `count` keys with the same limits each; a provider without keys has one that stands for it.
    pub fn new(count: usize, each: Limits) -> Self {
        Self { each, keys: vec![Key::default(); count.clamp(1, MAX_KEYS)], turn: 0 }
    }

    /// Chooses the key with the fewest requests running, then the fewest in the last minute, and
    /// notes its use. `model` is its place at the desk; keys in `tried` are passed over.
    ///
    /// # Errors
    /// [`NoKey`].
    pub fn take(
        &mut self,
        now: Mono,
        model: usize,
        tokens: u64,
        tried: &[usize],
    ) -> Result<KeyPass, NoKey> {
        let count = self.keys.len();
        let (mut soonest, mut full) = (None::<Mono>, false);
        let mut best = None;
        for place in (0..count).map(|n| (self.turn + n) % count) {
            if tried.contains(&place) {
                continue;
            }
            let key = &self.keys[place];
            let free = key.free_at(now, model, tokens, &self.each);
            if free > now {
                soonest = Some(soonest.map_or(free, |soonest| soonest.min(free)));
            } else if self.each.concurrent.is_some_and(|most| key.running >= most) {
                full = true;
            } else {
                // Of one key alone nobody asks how loaded it is.
                let load = match count {
                    1 => (0, 0),
                    _ => (key.running, key.requests.used(now)),
                };
                if best.is_none_or(|(least, _)| load < least) {
                    best = Some((load, place));
                }
            }
        }
        let Some((_, place)) = best else {
            return Err(match soonest {
                _ if full => NoKey::Full,
                Some(soonest) => NoKey::Until(soonest),
                None => NoKey::None,
            });
        };
        self.turn = (place + 1) % count;
        let key = &mut self.keys[place];
        key.running += 1;
        key.requests.add(now, 1);
        key.tokens.add(now, tokens);
        Ok(KeyPass { key: place, model, taken: now, tokens })
    }

    /// An attempt ended after `used` tokens, if that is known.
    pub fn ended(
        &mut self,
        now: Mono,
        pass: KeyPass,
        ending: Ending,
        used: Option<u64>,
    ) -> Option<KeyTurn> {
        let key = self.keys.get_mut(pass.key)?;
        key.running = key.running.saturating_sub(1);
        if let Some(used) = used {
            key.tokens.correct(pass.taken, pass.tokens, used);
        }
        match ending {
            Ending::Limited { retry_after } => {
                let backoff = doubled(COOL_FIRST, key.strikes, COOL_LONGEST);
                let wait = retry_after.map_or(backoff, |wait| wait.min(RETRY_AFTER_LONGEST));
                key.strikes = key.strikes.saturating_add(1);
                key.rests_until = key.rests_until.max(now.plus(wait));
                Some(KeyTurn::Cooling { until: key.rests_until })
            }
            Ending::KeyRejected { status: 403 } => {
                let until = key.barred.entry(pass.model).or_default().again(now, pass.taken);
                Some(KeyTurn::Barred { until })
            }
            Ending::KeyRejected { status } => {
                let until = key.rejected.again(now, pass.taken);
                Some(KeyTurn::Parked { status, until })
            }
            Ending::Answered | Ending::Refused { .. } if pass.taken >= key.rests() => {
                key.strikes = 0;
                let parked = std::mem::take(&mut key.rejected).times > 0;
                let barred = key.barred.remove(&pass.model).is_some();
                (parked || barred).then_some(KeyTurn::Back)
            }
            Ending::Answered
            | Ending::Refused { .. }
            | Ending::Failed { .. }
            | Ending::Unreachable
            | Ending::Silent
            | Ending::Stalled
            | Ending::Cut
            | Ending::Malformed
            | Ending::Overran
            | Ending::Expired
            | Ending::Left
            | Ending::Unsent => None,
        }
    }

    /// The key at `place` was replaced in the vault: what was known of the old one is forgotten.
    pub fn replaced(&mut self, place: usize) {
        if let Some(key) = self.keys.get_mut(place) {
            (key.rests_until, key.strikes, key.rejected) = (Mono(0), 0, Rejected::default());
            key.barred.clear();
        }
    }

    /// Whether a key that is not in `tried` is neither resting nor parked nor barred from `model`.
    pub fn has_other(&self, now: Mono, model: usize, tried: &[usize]) -> bool {
        let mut others = (0..self.keys.len()).filter(|place| !tried.contains(place));
        others.any(|place| self.keys[place].rests_from(model) <= now)
    }

    /// How many keys can be used now but for their limits.
    pub fn usable(&self, now: Mono) -> usize {
        self.keys.iter().filter(|key| key.rests() <= now).count()
    }

    /// Requests running with the key at `place`.
    pub fn running(&self, place: usize) -> u32 {
        self.keys.get(place).map_or(0, |key| key.running)
    }
}

impl Key {
    /// Until when it rests or is parked.
    fn rests(&self) -> Mono {
        self.rests_until.max(self.rejected.until)
    }

    fn rests_from(&self, model: usize) -> Mono {
        self.rests().max(self.barred.get(&model).map_or(Mono(0), |barred| barred.until))
    }

    fn free_at(&self, now: Mono, model: usize, tokens: u64, limits: &Limits) -> Mono {
        let mut free = now.max(self.rests_from(model));
        if let Some(limit) = limits.requests_per_minute {
            free = free.max(self.requests.fits_at(now, 1, limit));
        }
        if let Some(limit) = limits.tokens_per_minute {
            free = free.max(self.tokens.fits_at(now, tokens, limit));
        }
        free
    }
}

fn doubled(first: Micros, times: u32, longest: Micros) -> Micros {
    // 2^20 times any first wait is beyond any longest wait.
    first.times(1 << times.min(20)).min(longest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN: Limits =
        Limits { requests_per_minute: None, tokens_per_minute: None, concurrent: None };

    fn at(seconds: u64) -> Mono {
        Mono(0).plus(Micros::secs(seconds))
    }

    #[test]
    fn the_least_loaded_key_is_used() {
        let mut pool = KeyPool::new(3, OPEN);
        let used: Vec<usize> = (0..6).map(|_| pool.take(at(0), 0, 1, &[]).unwrap().key).collect();
        assert_eq!(used, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_key_over_its_limit_rests_as_long_as_it_was_told_to() {
        let mut pool = KeyPool::new(2, OPEN);
        let pass = pool.take(at(0), 0, 1, &[]).unwrap();
        let ending = Ending::Limited { retry_after: Some(Micros::secs(9)) };
        let turn = pool.ended(at(1), pass, ending, None);
        assert_eq!(turn, Some(KeyTurn::Cooling { until: at(10) }));
        assert!((0..4).all(|_| pool.take(at(9), 0, 1, &[]).unwrap().key == 1));
        assert_eq!(pool.take(at(9), 0, 1, &[1]), Err(NoKey::Until(at(10))));
        assert_eq!(pool.take(at(10), 0, 1, &[1]).map(|pass| pass.key), Ok(0));
    }

    #[test]
    fn rests_without_a_retry_after_double_and_a_success_ends_them() {
        let mut pool = KeyPool::new(1, OPEN);
        let limited = Ending::Limited { retry_after: None };
        let mut now = at(0);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pass = pool.take(now, 0, 1, &[]).unwrap();
            let until = now.plus(Micros::secs(wait));
            assert_eq!(pool.ended(now, pass, limited, None), Some(KeyTurn::Cooling { until }));
            now = until;
        }
        let pass = pool.take(now, 0, 1, &[]).unwrap();
        pool.ended(now, pass, Ending::Answered, None);
        let pass = pool.take(now, 0, 1, &[]).unwrap();
        let until = now.plus(Micros::secs(1));
        assert_eq!(pool.ended(now, pass, limited, None), Some(KeyTurn::Cooling { until }));
    }

    #[test]
    fn a_revoked_key_is_parked_and_reported_and_found_again() {
        let mut pool = KeyPool::new(1, OPEN);
        let revoked = Ending::KeyRejected { status: 401 };
        let first = pool.take(at(0), 0, 1, &[]).unwrap();
        let beside = pool.take(at(0), 0, 1, &[]).unwrap();
        let parked = Some(KeyTurn::Parked { status: 401, until: at(600) });
        assert_eq!(pool.ended(at(0), first, revoked, None), parked);
        assert_eq!(pool.ended(at(0), beside, revoked, None), parked, "counted once");
        assert_eq!(pool.take(at(599), 0, 1, &[]), Err(NoKey::Until(at(600))));
        let again = pool.take(at(600), 0, 1, &[]).unwrap();
        let longer = Some(KeyTurn::Parked { status: 401, until: at(1_800) });
        assert_eq!(pool.ended(at(600), again, revoked, None), longer);
        let good = pool.take(at(1_800), 0, 1, &[]).unwrap();
        assert_eq!(pool.ended(at(1_801), good, Ending::Answered, None), Some(KeyTurn::Back));
        let pass = pool.take(at(1_801), 0, 1, &[]).unwrap();
        pool.ended(at(1_801), pass, revoked, None);
        pool.replaced(0);
        assert!(pool.take(at(1_801), 0, 1, &[]).is_ok());
    }

    #[test]
    fn a_key_without_access_to_one_model_goes_on_with_the_others() {
        let mut pool = KeyPool::new(1, OPEN);
        let pass = pool.take(at(0), 7, 1, &[]).unwrap();
        let turn = pool.ended(at(0), pass, Ending::KeyRejected { status: 403 }, None);
        assert_eq!(turn, Some(KeyTurn::Barred { until: at(600) }));
        assert_eq!(pool.take(at(1), 7, 1, &[]), Err(NoKey::Until(at(600))));
        let other = pool.take(at(1), 8, 1, &[]).unwrap();
        assert_eq!(pool.ended(at(1), other, Ending::Answered, None), None);
        assert!(pool.has_other(at(1), 8, &[]) && !pool.has_other(at(1), 7, &[]));
        let again = pool.take(at(600), 7, 1, &[]).unwrap();
        assert_eq!(pool.ended(at(601), again, Ending::Answered, None), Some(KeyTurn::Back));
    }

    #[test]
    fn failures_of_the_provider_are_not_the_keys() {
        let mut pool = KeyPool::new(1, OPEN);
        for _ in 0..50 {
            let pass = pool.take(at(0), 0, 1, &[]).unwrap();
            let ending = Ending::Failed { status: 503, retry_after: Some(Micros::secs(60)) };
            assert_eq!(pool.ended(at(0), pass, ending, None), None);
        }
        assert_eq!(pool.usable(at(0)), 1);
    }

    #[test]
    fn tokens_that_were_not_used_come_back() {
        let limits = Limits { tokens_per_minute: Some(1_000), ..OPEN };
        let mut pool = KeyPool::new(1, limits);
        let pass = pool.take(at(0), 0, 900, &[]).unwrap();
        assert_eq!(pool.take(at(1), 0, 200, &[]), Err(NoKey::Until(at(65))));
        pool.ended(at(1), pass, Ending::Answered, Some(100));
        assert!(pool.take(at(1), 0, 200, &[]).is_ok());
    }

    proptest! {
        /// No schedule breaks a key's limits, and no key is used while it rests.
        #[test]
        fn limits_hold(steps in prop::collection::vec((0u64..3_000, 0u8..8, 1u64..50), 1..300)) {
            let limits = Limits {
                requests_per_minute: Some(20),
                tokens_per_minute: Some(400),
                concurrent: Some(3),
            };
            let mut pool = KeyPool::new(3, limits);
            let mut now = at(0);
            let mut running: Vec<KeyPass> = Vec::new();
            let mut taken: Vec<(Mono, usize)> = Vec::new();
            let mut rests = [Mono(0); 3];
            for (millis, what, tokens) in steps {
                now = now.plus(Micros::millis(millis));
                if what < 5 {
                    let Ok(pass) = pool.take(now, 0, tokens, &[]) else { continue };
                    prop_assert!(rests[pass.key] <= now);
                    taken.push((now, pass.key));
                    running.push(pass);
                    for key in 0..3 {
                        let last = |(then, k): &&(Mono, usize)| {
                            *k == key && now.since(*then) <= Micros::secs(60)
                        };
                        prop_assert!(taken.iter().filter(last).count() <= 20);
                        prop_assert!(running.iter().filter(|p| p.key == key).count() <= 3);
                    }
                } else if let Some(pass) = running.pop() {
                    let ending = match what {
                        5 => Ending::Answered,
                        6 => Ending::Limited { retry_after: Some(Micros::millis(tokens * 100)) },
                        _ => Ending::KeyRejected { status: 401 },
                    };
                    match pool.ended(now, pass, ending, Some(tokens)) {
                        Some(KeyTurn::Cooling { until } | KeyTurn::Parked { until, .. }) => {
                            rests[pass.key] = rests[pass.key].max(until);
                        }
                        Some(KeyTurn::Barred { .. } | KeyTurn::Back) | None => {}
                    }
                }
            }
        }
    }
}
