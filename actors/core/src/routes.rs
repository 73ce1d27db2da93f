//! Which model answers: from the name a client asks for to an ordered list of targets.
//!
//! A *route* is a name that clients ask for and a policy over *targets*: models of this mesh and
//! models of providers. Routing is a pure function of the configuration, the request, a snapshot of
//! what is known of the targets, and a seed; it says of every target why it was taken or not. Which
//! *node* answers for a mesh model is decided afterwards, in [`crate::route`].
//!
//! ```text
//! name ─▶ aliases ─▶ route ─▶ filters ─▶ policy ─▶ at most six targets, with reasons
//!                               label, abilities, health, budget
//! ```
//!
//! Owns the configuration and its checks, the filters, the policies and the explanation. Owns no
//! measurement, no key, no connection, and neither signs nor spreads anything: that is
//! [`selvedge_proto::settings`]'s, for entries as [`Item`] writes them.

mod book;
mod check;
mod complexity;
mod confidence;
mod config;
mod decision;
mod explain;
mod facts;
mod filter;
mod gather;
mod item;
mod order;
mod request;
mod seen;

use thiserror::Error;

use crate::catalogue::CatalogueError;

pub use book::RouteBook;
pub use check::{Place, Policy, Provider, Route, Routes, Target};
pub use complexity::{Complexity, Signals};
pub use confidence::{Confidence, Doubt, JUDGED_TOKENS, Judgement, Saving};
pub use config::{PolicyConfig, RouteConfig, StickyBy, TargetConfig};
pub use decision::{Decision, Standing, Verdict};
pub use explain::{ExplainedTarget, Explanation};
pub use facts::{Facts, Latency, Measured, MeshFacts, ProviderFacts, Reach};
pub use filter::Reason;
pub use gather::{Gathered, Trouble};
pub use item::Item;
pub use order::Score;
pub use request::{Boundary, Money, Request};

/// The newest shape of a [`RouteBook`] this build reads.
pub const BOOK_VERSION: u8 = 1;
/// The newest shape of an [`Item`]'s bytes this build reads and writes.
pub const ITEM_VERSION: u8 = 1;
/// Routes of one book: a name for each team and task of a site, not for each user.
pub const MAX_ROUTES: usize = 256;
/// Aliases of one book: four for each route.
pub const MAX_ALIASES: usize = 1_024;
/// Aliases passed on the way to a route; more is a configuration nobody can read.
pub const MAX_ALIAS_HOPS: usize = 8;
/// Targets of one route: every provider that sells one open model.
pub const MAX_TARGETS: usize = 32;
/// Targets tried for one request: as many as [`crate::flow::MAX_ATTEMPTS`].
pub const MAX_TRIED: usize = 6;
/// The longest name of a route, an alias, a provider or a region: a model id fits.
pub const MAX_NAME_BYTES: usize = 256;
/// The largest weight; a share of one in a million is finer than anyone can measure.
pub const MAX_WEIGHT: u32 = 1_000_000;
/// Entries for the catalogue in one book: what an operator types, not a copy of a price list.
pub const MAX_OVERRIDES: usize = 512;

/// What is wrong with a configuration of routes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouteError {
    /// Not TOML of the right shape.
    #[error("the routes cannot be read: {0}")]
    Text(String),
    /// Not the bytes of an entry.
    #[error("the entry cannot be read: {0}")]
    Bytes(String),
    /// Written by a newer program.
    #[error("the book of routes has version {0}; this build reads {BOOK_VERSION}")]
    Version(u8),
    /// A setting that this build does not understand.
    #[error("it is of a newer program (kind {kind}, version {version}): update this node")]
    Newer {
        /// The kind of setting.
        kind: u8,
        /// The version of its content.
        version: u8,
    },
    /// There are too many of something.
    #[error("there are more than {limit} {what}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// A name is unusable.
    #[error("'{name}': {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Two routes, two aliases or one of each share a name.
    #[error("'{0}' is the name of two routes, or of a route and an alias")]
    Twice(String),
    /// A route is unusable.
    #[error("route '{route}': {why}")]
    Route {
        /// Its name.
        route: String,
        /// What is wrong and what to write instead.
        why: String,
    },
    /// A target is unusable.
    #[error("route '{route}', target {number}: {why}")]
    Target {
        /// The route.
        route: String,
        /// Which one, from 1.
        number: usize,
        /// What is wrong and what to write instead.
        why: String,
    },
    /// An alias leads nowhere.
    #[error("alias '{alias}' leads to '{to}', which is neither a route nor an alias")]
    Dangling {
        /// The alias.
        alias: String,
        /// Where it ends.
        to: String,
    },
    /// Aliases lead back to themselves.
    #[error("aliases lead in a circle: {0}")]
    Loop(String),
    /// The overrides of the catalogue are unusable.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

#[cfg(test)]
mod tests;
