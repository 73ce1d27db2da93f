//! Federated rounds under faults, on virtual time: jobs of a few nodes, run to their end.
//!
//! The machines are those of `selvedge-federated`, with real shares, sealed and opened; signatures
//! are stand-ins. Training is a draw. A seed makes a [`Plan`]: who the anchors are, how many
//! clients a node has, what is made of their updates, what is lost, doubled and delayed, who is cut
//! off, who crashes, in which step and with how much of its last writes, who dies for good, who
//! lies about its parts of sums, and which stewards ask for other anchors, when and by what they
//! know. An observer that sees everything holds what happens against what must hold. This is a
//! harness of its own beside the meshes of [`crate::run`]: rounds need nothing of a mesh but that
//! it carries messages.

mod check;
mod disk;
mod faults;
mod kill;
mod liar;
mod mixing;
mod node;
mod plan;
mod reference;
mod steward;
mod wishes;
mod world;

pub use check::{Broken, Promise};
pub use kill::{Kill, Moment, Steps, Taken};
pub use mixing::Step;
pub use plan::{Cut, Plan, Wish};
pub use steward::View;
pub use world::{Counters, Outcome, run};

use selvedge_base::Plant;

/// The planted bugs that are of rounds; the others are the meshes'.
pub const PLANTS: &[Plant] = &[
    Plant::ReceiptBeforeStored,
    Plant::SharedBeforeStored,
    Plant::PromiseForgotten,
    Plant::AcceptedUntold,
    Plant::WishesForgotten,
    Plant::MinorityCloses,
    Plant::OpenedUncertified,
    Plant::PrivacyFloorIgnored,
    Plant::FoldedUnnumbered,
    Plant::CarriedForgotten,
    Plant::SpentBeforeStored,
    Plant::PrivacyCapIgnored,
    Plant::NoiseRedrawn,
    Plant::LeftUnasked,
    Plant::RobustWeighed,
    Plant::ControlOverdone,
    Plant::MomentForgotten,
];

/// The planted bugs that are of personal models; [`Plan::mixing`] has the plans that find them.
pub const MIXING_PLANTS: &[Plant] =
    &[Plant::PersonalMixedTwice, Plant::PersonalSentUnstored, Plant::PersonalBaseIgnored];

/// The planted bugs that only an anchor that lies makes anything of; [`Plan::lying`] has the plans
/// that find them.
pub const LYING_PLANTS: &[Plant] = &[Plant::FewestPartsFolded, Plant::FirstWordBelieved];
