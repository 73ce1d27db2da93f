//! The attempts of one request at one provider.
//!
//! Owns which keys the request has failed with, how many attempts it made, and what the caller is
//! told when there is no further one. Whether there is one decides the desk.

use selvedge_base::{Dice, Mono};

use super::desk::{Ask, Desk, Ended};
use super::ending::{Ending, Fault};
use super::retry::Decision;

/// One request's attempts so far.
#[derive(Clone, Debug, Default)]
pub struct Tries {
    tried: Vec<usize>,
    made: u32,
}

impl Tries {
    /// The next attempt, as the desk is asked for it.
    pub fn ask<'a>(&'a self, model: &'a str, tokens: u64) -> Ask<'a> {
        Ask { model, tokens, tried: &self.tried }
    }

    /// Keys it has failed with.
    pub fn tried(&self) -> &[usize] {
        &self.tried
    }

    /// Why no attempt begins any more, if the request's time is over: whoever was stopped, or
    /// waited for the disk, must not ask for what nobody waits for.
    pub fn late(now: Mono, deadline: Mono) -> Option<Ending> {
        (now >= deadline).then_some(Ending::Expired)
    }

    /// Attempts that ended.
    pub const fn made(&self) -> u32 {
        self.made
    }

    /// An attempt with the key at this place ended before a byte of its answer came. What to do
    /// now. The desk knows of the ending already.
    pub fn ended(
        &mut self,
        desk: &mut Desk,
        (now, deadline): (Mono, Mono),
        model: &str,
        (key, ending): (usize, Ending),
        dice: &mut Dice,
    ) -> Decision {
        self.made += 1;
        if ending.fault() == Fault::Key {
            self.tried.push(key);
        }
        let attempts = self.made;
        let tried = &self.tried;
        let ended = Ended { model, ending, attempts, delivered: false, tried, deadline };
        desk.again(now, &ended, dice)
    }
}

#[cfg(test)]
mod tests {
    use selvedge_base::Micros;

    use super::*;
    use crate::upstream::DeskSettings;

    #[test]
    fn a_key_that_failed_is_not_used_again_and_the_last_attempt_is_the_last() {
        let mut desk = Desk::new(DeskSettings { keys: 2, ..DeskSettings::default() });
        let mut dice = Dice::keyed(1, "tries");
        let mut tries = Tries::default();
        let (now, deadline) = (Mono(0), Mono(0).plus(Micros::secs(60)));
        let limited = Ending::Limited { retry_after: Some(Micros::secs(50)) };
        desk.requested();
        for (ending, decided) in [(limited, true), (limited, false)] {
            let ticket = desk.admit(now, &tries.ask("m", 1)).unwrap();
            assert!(!tries.tried().contains(&ticket.key()));
            desk.ended(now, ticket, ending, None, &mut Vec::new());
            let attempt = (ticket.key(), ending);
            let decision = tries.ended(&mut desk, (now, deadline), "m", attempt, &mut dice);
            assert_eq!(matches!(decision, Decision::Again { .. }), decided, "{decision:?}");
        }
        assert_eq!((tries.made(), tries.tried().len()), (2, 2));
        assert_eq!(Tries::late(deadline, deadline), Some(Ending::Expired));
        assert_eq!(Tries::late(now, deadline), None);
    }
}
