//! What a sequence will say next if it repeats itself.
//!
//! Owns the index of what one sequence has said so far, prompt included, and the guess that follows
//! from it (prompt lookup; Saxena, 2023): the tokens behind the most recent place where the
//! sequence read as it does now. No model is asked. Whether a guess is worth computing is decided
//! in [`crate::worth`], whether it was right by the engine's own draw.
//!
//! A place is compared by its tokens and never by a digest, in ordered maps, so no prompt can make
//! the index slow.

use std::collections::BTreeMap;

/// Tokens that must be equal at least: one token alone occurs almost always and says nothing.
pub const LEAST_EQUAL: usize = 2;
/// Tokens that are looked for at most: a place that has four of them in common is almost always the
/// only one, and each further length costs an entry a token. How much more a place has in common
/// is seen when it is found.
pub const MOST_EQUAL: usize = 4;
/// Equal tokens that are counted at most: behind so many a copy goes on nearly for certain.
pub const MOST_COUNTED: usize = 16;
/// Places that are remembered: the last ones, in some two megabytes. It is more than the documents
/// that an answer repeats have, and little beside the keys and values of as many tokens.
pub const WINDOW: usize = 16_384;

const LENGTHS: usize = MOST_EQUAL - LEAST_EQUAL + 1;

/// Some tokens that are equal; those of shorter ones are zero behind.
type Gram = [u32; MOST_EQUAL];

/// Where one sequence has said what.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// For each number of equal tokens: the last place behind them. A place is the index of the
    /// token that follows.
    places: [BTreeMap<Gram, u32>; LENGTHS],
    /// The next place to remember.
    next: usize,
}

/// What may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// The tokens, in order; at least one.
    pub tokens: Vec<u32>,
    /// Tokens before them that were equal, [`MOST_COUNTED`] at most.
    pub equal: usize,
}

impl Lookup {
    /// Remembers what is new of a sequence's tokens, at most so many places, and none that the
    /// [`WINDOW`] has passed already. Returns how many.
    pub fn follow(&mut self, tokens: &[u32], most: usize) -> usize {
        let first = tokens.len().saturating_sub(WINDOW);
        if first > self.next {
            // All that is remembered lies before it.
            *self = Self { next: first, ..Self::default() };
        }
        let from = self.next.max(1);
        let to = tokens.len().min(from.saturating_add(most));
        for place in from..to {
            self.remember(tokens, place);
            if let Some(old) = place.checked_sub(WINDOW) {
                self.forget(tokens, old);
            }
        }
        self.next = self.next.max(to);
        to.saturating_sub(from)
    }

    /// What follows the tokens if they go on as where they read last as they do at their end: so
    /// many tokens. `None` where they never did, or not all of them are remembered.
    pub fn guess(&self, tokens: &[u32], count: usize) -> Option<Guess> {
        if self.next < tokens.len() || count == 0 {
            return None;
        }
        let lengths = (LEAST_EQUAL..=MOST_EQUAL).rev();
        let found = |length: usize| {
            let gram = gram(tokens, tokens.len(), length)?;
            self.places.get(length - LEAST_EQUAL)?.get(&gram).copied()
        };
        let place = lengths.filter_map(found).next()? as usize;
        let (before, end) = (tokens.get(..place)?.iter().rev(), tokens.iter().rev());
        let equal = before.zip(end).take(MOST_COUNTED).take_while(|(a, b)| a == b).count();
        let mut guessed = Vec::with_capacity(count);
        for at in place..place + count {
            // Behind the end goes on what was guessed itself: a text that turns in a circle.
            let token = tokens.get(at).or_else(|| guessed.get(at - tokens.len())).copied();
            guessed.push(token?);
        }
        Some(Guess { tokens: guessed, equal })
    }

    fn remember(&mut self, tokens: &[u32], place: usize) {
        for (length, places) in (LEAST_EQUAL..).zip(&mut self.places) {
            if let Some(gram) = gram(tokens, place, length) {
                places.insert(gram, place as u32);
            }
        }
    }

    /// Forgets a place unless what was there has been said again since.
    fn forget(&mut self, tokens: &[u32], place: usize) {
        for (length, places) in (LEAST_EQUAL..).zip(&mut self.places) {
            let Some(gram) = gram(tokens, place, length) else { continue };
            if places.get(&gram) == Some(&(place as u32)) {
                places.remove(&gram);
            }
        }
    }
}

/// So many tokens before a place.
fn gram(tokens: &[u32], place: usize, length: usize) -> Option<Gram> {
    let mut gram = [0; MOST_EQUAL];
    let equal = tokens.get(place.checked_sub(length)?..place)?;
    for (slot, token) in gram.iter_mut().zip(equal) {
        *slot = *token;
    }
    Some(gram)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "draft_tests.rs"]
mod tests;
