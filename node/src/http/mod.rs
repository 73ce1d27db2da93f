//! The HTTP/1.1 surface: what clients of the OpenAI API, operators and scrapers speak to.
//!
//! ```text
//! connections ─▶ router ─▶ guard ─▶ chat | completions ─▶ answers ─▶ reply | stream
//!   (sockets)               (who)    (what is asked)      (pieces)    (what is said)
//!                             └────▶ models · admin · metrics
//! ```
//!
//! Owns sockets of clients, limits on what they send, the shapes of requests, answers and errors,
//! and the rules that keep a browser from abusing a loopback address. Deliberately decides nothing
//! about which node answers, and holds no state of a request beyond its response.

mod backend;
mod settings;
mod stop;
pub(crate) mod wire;

pub(crate) use backend::{Backend, Order};
pub(crate) use settings::{AdminToken, Settings};
pub(crate) use stop::Stop;
