//! What is known of the models of providers: what they take, what they can do, what they cost.
//!
//! Owns the built-in list (`catalogue/models.toml`), its checks, an operator's changes to it, the
//! search by name and all arithmetic of prices. Knows no request, no key and no provider's address.
//! The list goes out of date by nature: each entry says as of when it holds, and single fields of
//! it can be replaced.
//!
//! **A price that is not known is not zero.** [`Price::Unknown`] makes [`Price::cost`] and
//! [`Price::worst_case`] fail, so that a budget of money refuses the model instead of letting it
//! through free of charge.

mod entry;
mod kind;
mod model;
mod price;
mod shelf;

use thiserror::Error;

pub use entry::{Entry, PriceEntry, TierEntry};
pub use kind::{Capability, Modality, ProviderKind};
pub use model::{Abilities, Missing, Model, Needs};
pub use price::{Ask, Counts, Part, Price, Rates, Tariff, Tier, Unpriced};
pub use shelf::{Catalogue, Found};

/// Entries of a catalogue, an operator's own among them: ten times as many as are built in, and as
/// many as the largest market place lists.
pub const MAX_MODELS: usize = 4_096;
/// The longest id or alias: the longest one in use, of a fine-tuned model, has about 100 bytes.
pub const MAX_ID_BYTES: usize = 256;
/// Other names of one model.
pub const MAX_ALIASES: usize = 16;
/// Prices that step up with the length of the prompt: providers have one step, some two.
pub const MAX_TIERS: usize = 4;
/// The highest price there may be, a dollar a token; the dearest model costs a thousandth of it. A
/// typing error beyond is refused, and sums of prices stay far within their integers.
pub const MAX_RATE: u64 = 1_000_000_000_000;

/// What is wrong with a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CatalogueError {
    /// The text is not TOML of the right shape.
    #[error("the catalogue cannot be read: {0}")]
    Text(String),
    /// An entry is unusable.
    #[error("catalogue entry {kind} '{id}': {why}")]
    Entry {
        /// Its provider.
        kind: ProviderKind,
        /// Its id.
        id: String,
        /// What is wrong and what to write instead.
        why: String,
    },
    /// There are too many.
    #[error("the catalogue has more than {MAX_MODELS} entries")]
    Full,
}

#[cfg(test)]
mod price_tests;
#[cfg(test)]
mod tests;
