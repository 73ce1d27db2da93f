//! Which guesses are worth computing.
//!
//! Owns two measures and the choice that follows from them: how often the guesses of a sequence
//! are right, and how long a step takes by its number of rows. A guessed token is a further row of
//! the step, and where that is nearly free or nearly certain to be right, answers come sooner. The
//! choice must never make them slower: it is taken only where it wins by a margin.
//!
//! Guesses are judged by what is drawn whether or not they were computed, so to learn that they are
//! right again costs nothing. Integers only, so that the simulator and production choose alike.

use std::cmp::Reverse;

use selvedge_base::Micros;

/// Rows of a step with guesses in it, at most: beyond them a step is bound by arithmetic
/// everywhere, and a further row costs what a step of its own would.
pub(crate) const GUESS_ROWS: usize = 16;
/// Tokens of one guess: what one sequence alone could have computed.
pub(crate) const MOST_GUESSED: usize = GUESS_ROWS - 1;
/// Numbers of rows whose time is told apart: the most answers of a batch that can be configured.
const TIMED_ROWS: usize = 64;
/// One, in what chances are counted in.
const ONE: u64 = 1_024;
/// Nothing is certain: so a longer guess is always less likely than a shorter one.
const SUREST: u64 = 1_008;
/// Weight of a judged token in its chance: 1/8 follows a text that begins to repeat itself within
/// some ten tokens.
const CHANCE_SHIFT: u32 = 3;
/// Weight of a measurement in the time of its number of rows: 1/4 corrects a wrong belief within a
/// few steps that lose by it.
const TIME_SHIFT: u32 = 2;
/// Weight by which a time that was not measured moves to what is assumed, at its turn: those of
/// longer texts grow meanwhile. Of what one slow moment said a third is left after 512 steps and
/// an eighth after 1,024; a greater weight would forget as soon what is true, and try it again.
const DRIFT_SHIFT: u32 = 3;
/// Steps after which the time of one without guesses is to be measured again: what guesses win is
/// judged by it. One such step after 64 with guesses gives away less than 2 % of what they win.
const FRESH_STEPS: u64 = 64;
/// Steps after which the time of one without prompts is measured again where prompts are computed
/// beside answers: half of those, so that it is corrected by what is measured and not replaced.
const PLAIN_STEPS: u64 = FRESH_STEPS / 2;
/// Rows that a step's fixed part is assumed to cost before it is measured: of the default model on
/// two cores, eight rows take twice the time of one and sixteen some four times.
pub(crate) const FIXED_ROWS: u64 = 5;
/// What guessing must win at least, as a fraction: less is within the noise of what is measured.
const MARGIN: (u64, u64) = (17, 16);
/// By how much anybody may wait longer for a token, on average, as a fraction: who gains less by
/// its own guess than the step takes longer has nothing of it but an earlier end of whom it shares
/// the machine with.
const PATIENCE: (u64, u64) = (5, 4);

/// How often a sequence's guesses are right, by how much was equal before them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chances([u64; 5]);

impl Default for Chances {
    fn default() -> Self {
        // Of free text two equal tokens foretell the third in one of five cases; a copy that has
        // gone on for long goes on. Less than four equal tokens must not win by what is assumed of
        // times: 240/1024 of a token more, for a sixth more time, is less than the margin.
        Self([160, 240, 400, 760, 960])
    }
}

impl Chances {
    /// A guess behind so many equal tokens was judged.
    pub(crate) fn judge(&mut self, equal: usize, is_right: bool) {
        if let Some(chance) = self.0.get_mut(kind(equal)) {
            *chance -= *chance >> CHANCE_SHIFT;
            *chance += if is_right { ONE >> CHANCE_SHIFT } else { 0 };
        }
    }

    /// For each token of a guess, how likely it and all before it are right.
    pub(crate) fn of(&self, equal: usize, count: usize) -> impl Iterator<Item = u64> {
        let chances = self.0;
        let each = move |at: usize| chances.get(kind(equal + at)).copied().unwrap_or(0);
        (0..count).scan(ONE, move |all, at| {
            *all = *all * each(at).min(SUREST) / ONE;
            Some(*all)
        })
    }
}

const fn kind(equal: usize) -> usize {
    match equal {
        0..=2 => 0,
        3 => 1,
        4..=7 => 2,
        8..=15 => 3,
        _ => 4,
    }
}

/// How long a step takes by its number of rows.
#[derive(Clone, Debug)]
pub(crate) struct RowTimes {
    /// Nanoseconds; 0 = not measured.
    ns: [u64; TIMED_ROWS + 1],
    /// In which step each was measured last.
    seen: [u64; TIMED_ROWS + 1],
    /// Steps that there were, those with prompts beside answers included.
    steps: u64,
    /// Whose turn it is to move to what is assumed.
    turn: usize,
}

impl Default for RowTimes {
    fn default() -> Self {
        Self { ns: [0; TIMED_ROWS + 1], seen: [0; TIMED_ROWS + 1], steps: 0, turn: 0 }
    }
}

impl RowTimes {
    /// Notes that a step of so many rows took so long; a step of none says nothing.
    pub(crate) fn measured(&mut self, rows: usize, took: Micros) {
        let (Some(time), Some(seen)) = (self.ns.get_mut(rows), self.seen.get_mut(rows)) else {
            return;
        };
        if rows == 0 {
            return;
        }
        let sample = took.0.saturating_mul(1_000).max(1);
        self.steps += 1;
        let is_old = self.steps - *seen > FRESH_STEPS;
        *seen = self.steps;
        *time = match *time {
            0 => sample,
            // What was known has moved to what is assumed by now, or the texts have grown.
            _ if is_old => sample,
            known => blend(known, sample, TIME_SHIFT),
        };
        let time = *time;
        self.turn = self.turn % TIMED_ROWS + 1;
        if let Some(other) = self.ns.get_mut(self.turn).filter(|other| **other > 0)
            && self.turn != rows
        {
            *other = blend(*other, scaled(time, rows, self.turn), DRIFT_SHIFT);
        }
        self.order(rows, time);
    }

    /// Notes a step that was not measured, since it had prompts.
    pub(crate) const fn passed(&mut self) {
        self.steps = self.steps.saturating_add(1);
    }

    /// Corrects what contradicts the time just noted: no step is faster for a row more, so what was
    /// measured otherwise was measured at another time.
    fn order(&mut self, rows: usize, time: u64) {
        for (at, other) in self.ns.iter_mut().enumerate().filter(|(_, other)| **other > 0) {
            if (at < rows && *other > time) || (at > rows && *other < time) {
                *other = scaled(time, rows, at);
            }
        }
    }

    /// Whether a step of so many rows was measured not long ago.
    fn is_fresh(&self, rows: usize) -> bool {
        self.is_within(rows, FRESH_STEPS)
    }

    /// Whether the time of a step of so many rows is known well enough to compute prompts beside.
    pub(crate) fn is_plain(&self, rows: usize) -> bool {
        self.is_within(rows, PLAIN_STEPS)
    }

    fn is_within(&self, rows: usize, steps: u64) -> bool {
        let seen = self.seen.get(rows).copied().filter(|seen| *seen > 0);
        seen.is_some_and(|seen| self.steps - seen < steps)
    }

    /// Nanoseconds of a step of so many rows, assumed from the nearest measured ones if it was not
    /// measured itself; 0 = nothing is known.
    pub(crate) fn of(&self, rows: usize) -> u64 {
        let known = |at: &usize| self.ns.get(*at).copied().unwrap_or(0) > 0;
        let below = (1..=rows.min(TIMED_ROWS)).rev().find(known);
        let nearest = below.or_else(|| (rows..=TIMED_ROWS).find(known));
        let Some(at) = nearest else { return 0 };
        scaled(self.ns.get(at).copied().unwrap_or(0), at, rows)
    }
}

/// The time of one number of rows from that of another.
fn scaled(time: u64, from: usize, to: usize) -> u64 {
    time.saturating_mul(FIXED_ROWS + to as u64) / (FIXED_ROWS + from as u64)
}

fn blend(known: u64, sample: u64, shift: u32) -> u64 {
    (known - (known >> shift)).saturating_add(sample >> shift).max(1)
}

/// How many tokens of each sequence's guess to compute: `offers` are their chances, an empty list
/// where there is no guess. All zero where none is worth it, or where it is not known of late how
/// long a step takes without. If not `alone`, somebody waits who is not of this step at all.
pub(crate) fn choose(times: &RowTimes, offers: &[Vec<u64>], alone: bool) -> Vec<usize> {
    let mut counts = vec![0; offers.len()];
    let plain = times.of(offers.len());
    if plain == 0 || !times.is_fresh(offers.len()) {
        return counts;
    }
    let all = offers.iter().enumerate();
    let mut rows: Vec<(usize, u64)> =
        all.flat_map(|(of, chances)| chances.iter().map(move |chance| (of, *chance))).collect();
    // The likeliest first; of one sequence they stay in order, as each is likelier than the next.
    rows.sort_by_key(|(_, chance)| Reverse(*chance));
    rows.truncate(GUESS_ROWS.saturating_sub(offers.len()));
    let mut own = vec![ONE; offers.len()];
    let mut tokens = ONE * offers.len() as u64;
    let mut best = Rate { tokens: tokens.saturating_mul(MARGIN.0) / MARGIN.1, time: plain };
    let mut taken = 0;
    for (index, &(of, chance)) in rows.iter().enumerate() {
        if let Some(own) = own.get_mut(of) {
            *own += chance;
        }
        tokens += chance;
        // No step is faster for a row more; where it was measured so, that was chance.
        let time = times.of(offers.len() + index + 1).max(plain);
        let patient = |own: u64| {
            let patience = u128::from(own) * u128::from(plain) * u128::from(PATIENCE.0);
            patience >= u128::from(ONE) * u128::from(time) * u128::from(PATIENCE.1)
        };
        let fair = own.iter().all(|own| patient(*own)) && (alone || patient(ONE));
        let rate = Rate { tokens, time };
        if rate.beats(best) && fair {
            (best, taken) = (rate, index + 1);
        }
    }
    for (of, _) in rows.into_iter().take(taken) {
        if let Some(count) = counts.get_mut(of) {
            *count += 1;
        }
    }
    counts
}

/// Tokens that a step is expected to bring, and how long it takes.
#[derive(Clone, Copy)]
struct Rate {
    tokens: u64,
    time: u64,
}

impl Rate {
    const fn beats(self, other: Self) -> bool {
        self.tokens as u128 * other.time as u128 > other.tokens as u128 * self.time as u128
    }
}

#[cfg(test)]
#[path = "worth_tests.rs"]
mod tests;
