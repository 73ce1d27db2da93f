//! Anthropic's messages.
//!
//! Owns both roles, and the counting of tokens. Source: the Anthropic API reference, "Messages" and
//! "Streaming messages". Blocks and tools that only this dialect has pass through whole.

mod answer;
mod blocks;
mod count;
mod error;
mod fields;
mod render;
mod usage;
mod whole;
mod write;

pub use answer::{Parser, WholeParser};
pub use count::{count_body, count_schema, parse_count, read_count, render_count};
pub use error::{error_body, failure, status};
pub use fields::{body_schema, parse};
pub use render::{ENVELOPE, Target, render};
pub use whole::whole;
pub use write::Writer;

pub(crate) use answer::{Counts, reason};
pub(crate) use usage::UsageField;

#[cfg(test)]
#[path = "anthropic/tests.rs"]
mod tests;
