//! Whether a failed attempt is made again, when, and how much of that a provider gets.
//!
//! Owns the back-off with jitter, the respect for Retry-After and for the deadline, and the
//! allowance that keeps retries and hedges a fixed share of all requests, so that a provider in
//! trouble is never given more work by them than that share.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{Dice, Micros, Mono};

use super::ending::{Ending, Fault};

/// Thousandths of one extra request: an allowance counts in these.
const WHOLE: u64 = 1_000;

/// How often and how patiently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts at this provider for one request, the first among them.
    pub attempts: u32,
    /// The back-off before the first retry is up to this; doubled each time.
    pub first: Micros,
    /// The longest back-off.
    pub longest: Micros,
    /// Retries in a thousand requests.
    pub permille: u32,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            // What two retries do not cure, a third rarely does; another provider may.
            attempts: 3,
            // A hiccup of a load balancer is over in this time.
            first: Micros::millis(200),
            // Longer than this the caller is better served elsewhere.
            longest: Micros::secs(5),
            // A fifth more work is what a provider at its limit can be expected to bear.
            permille: 200,
        }
    }
}

/// Hedging: a second attempt beside the first, when that one is slow to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeSettings {
    /// How long the first attempt may be silent before the second begins.
    pub after: Micros,
    /// Hedges in a thousand requests, at most [`HedgeSettings::MOST_PERMILLE`].
    pub permille: u32,
}

impl HedgeSettings {
    /// One request in twenty: hedging is for the slowest few.
    pub const MOST_PERMILLE: u32 = 50;
}

/// Extra requests that may be made for the requests that came.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    permille: u64,
    /// Thousandths of an extra request.
    saved: u64,
    most: u64,
}

impl Allowance {
    /// Extra requests saved up at most: a burst of that many retries harms nobody.
    const MOST_SAVED: u64 = 10;

    /// `permille` extra requests in a thousand, and `first` of them before any request came, so
    /// that a quiet node may retry too.
    pub const fn new(permille: u32, first: u64) -> Self {
        let most = Self::MOST_SAVED * WHOLE;
        let first = if first > Self::MOST_SAVED { Self::MOST_SAVED } else { first };
        Self { permille: permille as u64, saved: first * WHOLE, most }
    }

    /// A request came.
    pub fn requested(&mut self) {
        self.saved = self.saved.saturating_add(self.permille).min(self.most);
    }

    /// Takes one extra request, if there is one.
    pub const fn take(&mut self) -> bool {
        let enough = self.saved >= WHOLE;
        if enough {
            self.saved -= WHOLE;
        }
        enough
    }

    /// Gives back one that was taken and not used.
    pub fn give_back(&mut self) {
        self.saved = self.saved.saturating_add(WHOLE).min(self.most);
    }
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Make another attempt at this provider after this wait.
    Again {
        /// How long to wait.
        after: Micros,
    },
    /// The same request would be refused again, anywhere: tell the caller.
    Final,
    /// Not here, or not now; another provider may do.
    Elsewhere,
}

/// One failed attempt, as the retry policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// How it ended.
    pub ending: Ending,
    /// Attempts made so far, this one among them.
    pub attempts: u32,
    /// Whether the caller was given any of the answer: then it cannot be taken back.
    pub delivered: bool,
    /// Whether another key of the provider can be used at once.
    pub other_key: bool,
    /// When the request must be answered.
    pub deadline: Mono,
}

/// Decides about a retry and takes it from the allowance.
pub fn decide(
    settings: &RetrySettings,
    allowance: &mut Allowance,
    now: Mono,
    tried: &Tried,
    dice: &mut Dice,
) -> Decision {
    match (tried.ending, tried.ending.fault()) {
        (Ending::Answered | Ending::Expired | Ending::Left, _) | (_, Fault::Client) => {
            return Decision::Final;
        }
        // A rejected key is as wrong the second time; without another there is nothing to try.
        (Ending::KeyRejected { .. }, _) if !tried.other_key => return Decision::Elsewhere,
        (Ending::Unsent | Ending::Overran, _) => return Decision::Elsewhere,
        (_, Fault::Nobody | Fault::Key | Fault::Provider) => {}
    }
    let enough = tried.attempts >= settings.attempts && !plant::is_on(Plant::TriesUnbounded);
    if tried.delivered || enough {
        return Decision::Elsewhere;
    }
    let key_fault = tried.ending.fault() == Fault::Key;
    // What a provider asks to wait for concerns the key it limited, not the next one.
    let asked = if key_fault && tried.other_key { None } else { tried.ending.retry_after() };
    let doublings = tried.attempts.saturating_sub(1).min(20);
    let most = settings.first.times(1 << doublings).min(settings.longest);
    // Full jitter; on top of a wait that was asked for, so that not all come back at that moment.
    let jitter = Micros(dice.below(most.0.saturating_add(1)));
    let after = match asked {
        Some(wait) => wait.plus(Micros(jitter.0.min(wait.0 / 4))),
        None if key_fault && tried.other_key => Micros::ZERO,
        None => jitter,
    };
    if asked.is_some_and(|wait| wait > settings.longest) || now.plus(after) >= tried.deadline {
        return Decision::Elsewhere;
    }
    if allowance.take() { Decision::Again { after } } else { Decision::Elsewhere }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILED: Ending = Ending::Failed { status: 502, retry_after: None };

    fn tried(ending: Ending) -> Tried {
        Tried {
            ending,
            attempts: 1,
            delivered: false,
            other_key: false,
            deadline: Mono(60_000_000),
        }
    }

    fn decided(tried: Tried) -> Decision {
        let settings = RetrySettings::default();
        let mut allowance = Allowance::new(200, 3);
        decide(&settings, &mut allowance, Mono(0), &tried, &mut Dice::keyed(1, "retry"))
    }

    #[test]
    fn what_is_made_again() {
        for ending in [FAILED, Ending::Unreachable, Ending::Silent, Ending::Cut, Ending::Malformed]
        {
            let decision = decided(tried(ending));
            assert!(matches!(decision, Decision::Again { .. }), "{ending:?}: {decision:?}");
        }
        for ending in [Ending::Refused { status: 400 }, Ending::Expired, Ending::Left] {
            assert_eq!(decided(tried(ending)), Decision::Final, "{ending:?}");
        }
        assert_eq!(decided(tried(Ending::KeyRejected { status: 401 })), Decision::Elsewhere);
        let other = Tried { other_key: true, ..tried(Ending::KeyRejected { status: 401 }) };
        assert_eq!(decided(other), Decision::Again { after: Micros::ZERO });
        let delivered = Tried { delivered: true, ..tried(Ending::Cut) };
        assert_eq!(decided(delivered), Decision::Elsewhere);
        let often = Tried { attempts: 3, ..tried(FAILED) };
        assert_eq!(decided(often), Decision::Elsewhere);
    }

    #[test]
    fn a_retry_after_is_honoured_or_the_provider_is_left() {
        let asks = |wait| tried(Ending::of_status(503, Some(wait)));
        let Decision::Again { after } = decided(asks(Micros::secs(2))) else {
            panic!("two seconds are worth the wait")
        };
        assert!((Micros::secs(2)..=Micros::millis(2_500)).contains(&after), "{after:?}");
        assert_eq!(decided(asks(Micros::secs(30))), Decision::Elsewhere);
        let short = Tried { deadline: Mono(1_000_000), ..asks(Micros::secs(2)) };
        assert_eq!(decided(short), Decision::Elsewhere);
    }

    #[test]
    fn the_wait_of_one_key_is_not_the_next_ones() {
        let limited = Ending::Limited { retry_after: Some(Micros::secs(50)) };
        assert_eq!(decided(tried(limited)), Decision::Elsewhere);
        let other = Tried { other_key: true, ..tried(limited) };
        assert_eq!(decided(other), Decision::Again { after: Micros::ZERO });
    }

    #[test]
    fn the_same_seed_waits_the_same() {
        assert_eq!(decided(tried(FAILED)), decided(tried(FAILED)));
    }

    proptest! {
        /// However the failures come, extra requests stay within their share, and no wait passes
        /// the longest or the deadline.
        #[test]
        fn retries_cannot_storm(
            requests in 1usize..400,
            seed in any::<u64>(),
            permille in 0u32..=200,
        ) {
            let settings = RetrySettings { permille, ..RetrySettings::default() };
            let mut allowance = Allowance::new(permille, 3);
            let mut dice = Dice::keyed(seed, "storm");
            let mut retries = 0u64;
            for request in 0..requests {
                allowance.requested();
                let mut attempts = 1;
                loop {
                    let tried = Tried { attempts, ..tried(FAILED) };
                    let decision = decide(&settings, &mut allowance, Mono(0), &tried, &mut dice);
                    let Decision::Again { after } = decision else { break };
                    prop_assert!(after <= settings.longest);
                    retries += 1;
                    attempts += 1;
                }
                let share = (request as u64 + 1) * u64::from(permille) / 1_000;
                prop_assert!(retries <= share + 3, "{retries} for {request}");
            }
        }
    }
}
