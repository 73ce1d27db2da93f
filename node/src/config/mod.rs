//! Configuration: where each value comes from and what it may be.
//!
//! Owns the order of precedence (defaults, then the file, then `SELVEDGE_<SECTION>_<FIELD>`, then
//! flags) and the two forms: [`RawConfig`] is what people write, [`Config`] is what the program
//! uses, with every value parsed and inside its bounds. Does not own the home directory's layout
//! (`home.rs`) nor state the node writes by itself.

mod budget;
mod check;
mod data;
mod overlay;
mod raw;
mod reference;
mod secret;
mod telemetry;

pub(crate) use check::{Config, ModelsConfig, VariantsConfig};
pub(crate) use data::data_problems;
pub(crate) use overlay::{Env, load};
pub(crate) use raw::{LogFormat, RawConfig};
pub(crate) use reference::{commented_defaults, markdown, schema_json};
pub(crate) use secret::Secret;
pub(crate) use telemetry::{Signals, TelemetryConfig};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
