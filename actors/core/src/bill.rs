//! How much of its reservation an answer has used that a provider is paid for.
//!
//! Owns the difference between the worst case, reserved before anything is sent, and what was
//! billed at last. A provider says what an answer took; until it does, what was seen counts. Does
//! not own prices: whoever tells the bill has applied them. The sibling for answers of the mesh is
//! [`crate::meter`].

use serde::{Deserialize, Serialize};

/// One paid request's bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    reserved: Took,
    used: Option<Took>,
}

/// Tokens and money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// Tokens of prompt and answer.
    pub tokens: u64,
    /// Millionths of a dollar.
    pub micro_dollars: u64,
}

impl Took {
    /// Both together.
    #[must_use]
    pub const fn plus(self, more: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(more.tokens),
            micro_dollars: self.micro_dollars.saturating_add(more.micro_dollars),
        }
    }
}

impl Bill {
    /// The bill of a request that takes at most this much.
    pub const fn at_most(reserved: Took) -> Self {
        Self { reserved, used: None }
    }

    /// What is reserved.
    pub const fn reserved(&self) -> Took {
        self.reserved
    }

    /// So much was used so far, as the provider says or as was seen. The latest word counts: counts
    /// of providers are totals, and a correction is one.
    pub const fn told(&mut self, took: Took) {
        self.used = Some(took);
    }

    /// Whether the provider began to answer, from when on the request counts as one.
    pub const fn has_begun(&self) -> bool {
        self.used.is_some()
    }

    /// What is settled when the request ends now. It may be more than was reserved; the rest is the
    /// debt of the next window.
    pub fn used(&self) -> Took {
        self.used.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_never_answered_is_not_paid() {
        let bill = Bill::at_most(Took { tokens: 100, micro_dollars: 900 });
        assert_eq!((bill.used(), bill.has_begun()), (Took::default(), false));
    }

    #[test]
    fn the_latest_word_counts_whatever_was_reserved() {
        let mut bill = Bill::at_most(Took { tokens: 100, micro_dollars: 900 });
        for tokens in [40, 130, 120] {
            bill.told(Took { tokens, micro_dollars: tokens * 9 });
        }
        assert_eq!(bill.used(), Took { tokens: 120, micro_dollars: 1_080 });
        assert_eq!(bill.reserved(), Took { tokens: 100, micro_dollars: 900 });
        assert!(bill.has_begun());
    }
}
