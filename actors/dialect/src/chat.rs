//! The canonical form of a chat: what is asked, what is answered, what it took.
//!
//! Owns the types that every dialect translates to and from. A field is here when at least two
//! dialects can say it; what only one can say is kept as an [`Extension`] of that dialect, so that
//! a translation to the dialect it came from loses nothing and any other one refuses it by name.

mod calls;
mod event;
mod gather;
pub(crate) mod held;
mod local;
mod request;
mod tools;
mod usage;

pub use calls::Calls;
pub use event::{Citation, Event, Failure, Finish, Head, Provider, TokenLogProb, TopLogProb};
pub use gather::{Block, Choice, Gathered};
pub use held::{HELD, Held, both, held};
pub use local::{ForEngine, for_engine, priority_of, tier_of};
pub use request::{
    Cache, ChatRequest, Content, Effort, Extension, Format, Function, LogProbs, Message, Part,
    Reasoning, Role, Sampling, Source, Thinking, Tool, ToolChoice,
};
pub use usage::{Timing, Usage};
