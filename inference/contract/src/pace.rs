//! How many rows of prompts a step has beside answers.
//!
//! Owns the bound that keeps answers flowing while prompts are computed, and the measure that it
//! follows from: what a row of a prompt costs, as a part of what it is assumed to cost. That is the
//! row's share of a step whose fixed part costs as much as [`FIXED_ROWS`] rows; so the bound is the
//! assumed one until something is measured, and it stays right when the whole machine becomes
//! slower or faster. How long steps without prompts take is known by
//! [`RowTimes`](crate::worth::RowTimes); which prompt gets the rows is the schedule's choice.
//!
//! Integers only, so that the simulator and production choose alike.

use selvedge_base::Micros;

use crate::schedule::PROMPT_ROWS;
use crate::worth::FIXED_ROWS;

/// How much longer than without prompts a step with them may take, as a fraction. Readers are
/// promised twice at most; the quarter that is left is for what differs from what was measured.
pub(crate) const STRETCH: (u64, u64) = (8, 5);
/// Rows that prompts have in a step in any case but one of [`REST_STEPS`], however dear they are:
/// so a prompt ends. One is enough, since where one row costs more than [`STRETCH`] allows, two
/// would cost a single answer three times the step.
pub(crate) const LEAST_ROWS: u32 = 1;
/// Steps with prompts beside answers between two that are kept free of prompts: the bound follows
/// from the time of a step without, which must be measured now and then. Prompts wait a sixteenth
/// longer at most, and that only while the number of answers keeps changing.
pub(crate) const REST_STEPS: u32 = 16;

/// One, in what prices are counted in.
const ONE: u64 = 1_024;
/// The least and the greatest price. Between them lie processors without vectors (some seven) and
/// cards on which the rows of a step are all but free; what lies beyond was a mistake, and found
/// out sooner for these.
const PRICES: (u64, u64) = (ONE / 64, ONE * 64);
/// Weight of a step's row in what is believed, as a part: where rows become four times as dear,
/// some eight steps are too long. Dearer and cheaper ones weigh the same: what makes steps differ
/// by themselves, neighbours of a virtual machine say, makes as many too short, and prompts do not
/// pay for it. (With dearer ones four times as heavy, believed was what four rows in five do not
/// exceed; beside answers whose steps differ by a third that left prompts a third of their rows.)
const WEIGHT: u64 = 8;
/// How many times the price that is believed a sample counts for at most: one slow moment lengthens
/// a prompt by some eighth for a few steps, and what differs counts by as much in both directions.
const MOST_DEARER: u64 = 2;

/// What rows of prompts cost beside answers, and when the next step goes without.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// Of a row, in 1/1024 of what it is assumed to cost.
    price: u64,
    /// Steps with prompts beside answers since the last one without.
    since: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { price: ONE, since: 0 }
    }
}

impl Pace {
    /// Rows of all prompts together beside so many answers: as many as are believed to make the
    /// step no longer than [`STRETCH`] allows, and [`LEAST_ROWS`] in any case. With the answers
    /// they are an even number where they can be: the kernels take eight, four and two rows
    /// together, and the last one of an odd number costs nearly as much as two.
    pub(crate) fn rows(&self, answers: usize) -> u32 {
        let all = FIXED_ROWS.saturating_add(answers as u64);
        let room = all.saturating_mul((STRETCH.0 - STRETCH.1) * ONE);
        let rows = (room / (STRETCH.1 * self.price)).min(u64::from(PROMPT_ROWS)) as u32;
        let odd = u32::from(!(rows as usize).wrapping_add(answers).is_multiple_of(2));
        rows.saturating_sub(odd).max(LEAST_ROWS)
    }

    /// Notes how long a step of so many answers and rows of prompts took, of which one of so many
    /// answers alone takes `plain` nanoseconds. Says nothing where any of them is zero.
    pub(crate) fn stretched(&mut self, answers: usize, rows: u32, plain: u64, took: Micros) {
        if answers == 0 || rows == 0 {
            return;
        }
        self.since = self.since.saturating_add(1);
        let all = FIXED_ROWS.saturating_add(answers as u64);
        let more = took.0.saturating_mul(1_000).saturating_sub(plain);
        let price = u128::from(more) * u128::from(all) * u128::from(ONE);
        let per = u128::from(plain) * u128::from(rows);
        let Some(sample) = price.checked_div(per) else { return };
        let sample = u64::try_from(sample).unwrap_or(u64::MAX);
        self.price = if sample > self.price {
            let sample = sample.min(self.price * MOST_DEARER);
            self.price + (sample - self.price).div_ceil(WEIGHT)
        } else {
            self.price - (self.price - sample).div_ceil(WEIGHT)
        };
        self.price = self.price.clamp(PRICES.0, PRICES.1);
    }

    /// Notes a step of answers alone.
    pub(crate) const fn rested(&mut self) {
        self.since = 0;
    }

    /// Whether the next step goes without prompts, to measure one of so many answers; `is_fresh`
    /// where that is known of late. Counted when it is decided, so that prompts go on in any case.
    pub(crate) const fn rests(&mut self, is_fresh: bool) -> bool {
        let rests = self.since >= REST_STEPS && !is_fresh;
        if rests {
            self.since = 0;
        }
        rests
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
