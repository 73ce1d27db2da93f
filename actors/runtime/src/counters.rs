//! What the node counts for people who watch it.
//!
//! Owns plain atomic counters that the request path bumps without a lock. How they are written
//! down (Prometheus) is the HTTP surface's business.

use std::sync::atomic::{AtomicU64, Ordering};

use selvedge_base::Micros;
use selvedge_core::journey::Leg;
use selvedge_core::routes::Saving;

/// Upper bounds of the time-to-first-token histogram, in milliseconds: from a warm small model to
/// a long prompt on a slow machine.
pub const FIRST_TOKEN_BOUNDS_MS: [u64; 10] =
    [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];

/// A number that only grows (or, for gauges, follows a level).
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn bump(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes one back; for gauges.
    pub fn drop_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything counted on the request path.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests admitted.
    pub admitted: Count,
    /// Requests refused because this node was full.
    pub turned_away: Count,
    /// Requests answered to the end.
    pub finished: Count,
    /// Requests that ended in a refusal.
    pub failed: Count,
    /// Requests whose caller went away.
    pub cancelled: Count,
    /// Requests being answered now (gauge).
    pub in_flight: Count,
    /// Prompt tokens of finished answers.
    pub prompt_tokens: Count,
    /// Answer tokens delivered.
    pub answer_tokens: Count,
    /// Requests handed to peers.
    pub handed_off: Count,
    /// Requests taken from peers.
    pub taken: Count,
    /// Requests of peers that were refused here.
    pub refused: Count,
    /// Requests of peers being answered here now (gauge).
    pub serving: Count,
    /// Answers that went on at another node.
    pub resumed: Count,
    /// Requests refused for want of budget.
    pub budget_refusals: Count,
    /// Requests sent to providers.
    pub provided: Count,
    /// Millionths of a dollar that providers billed, by the catalogue in force.
    pub billed_micro_dollars: Count,
    /// Times an answer that broke off at a provider was gone on with.
    pub continued: Count,
    /// Answers of small models that were found wanting.
    pub escalated: Count,
    /// Millionths of a dollar paid where small models come first and the largest has a price.
    pub small_first_paid: Count,
    /// What the largest model alone would have cost for the same answers.
    pub small_first_instead: Count,
    /// Requests that had to wait for their budgets: for the disk or for a peer.
    pub budget_waits: Count,
    /// Answers that ended where their budget did.
    pub budget_ends: Count,
    /// Times rights were given to a peer.
    pub budget_gifts: Count,
    /// Times rights of a peer came to this node.
    pub budget_receipts: Count,
    /// Writes of budget rows begun.
    pub budget_writes: Count,
    /// Writes of budget rows that failed.
    pub budget_write_failures: Count,
    /// Time to first token: one count per bound of [`FIRST_TOKEN_BOUNDS_MS`], then the rest.
    pub first_token_buckets: [Count; FIRST_TOKEN_BOUNDS_MS.len() + 1],
    /// Sum of all times to first token, in microseconds.
    pub first_token_sum_us: Count,
}

impl Counters {
    /// Notes what a request's targets billed.
    pub(crate) fn paid(&self, legs: &[Leg]) {
        let billed = legs.iter().fold(0_u64, |sum, leg| sum.saturating_add(leg.took.micro_dollars));
        if billed > 0 {
            self.billed_micro_dollars.add(billed);
        }
    }

    /// Notes what trying small models first came to.
    pub(crate) fn saved(&self, saving: Option<Saving>) {
        if let Some(Saving { paid, instead }) = saving {
            self.small_first_paid.add(paid);
            self.small_first_instead.add(instead);
        }
    }

    /// Notes a time to first token.
    pub fn first_token(&self, took: Micros) {
        let bucket = FIRST_TOKEN_BOUNDS_MS.iter().position(|bound| took.as_millis() <= *bound);
        self.first_token_buckets[bucket.unwrap_or(FIRST_TOKEN_BOUNDS_MS.len())].bump();
        self.first_token_sum_us.add(took.0);
    }
}

/// Holds a gauge up while it lives.
pub(crate) struct Held<'a>(&'a Count);

impl<'a> Held<'a> {
    /// Adds one until dropped.
    pub(crate) fn new(count: &'a Count) -> Self {
        count.bump();
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.drop_one();
    }
}
