//! The HTTP surface: what clients of the OpenAI API, operators and scrapers speak to.
//!
//! ```text
//! connections ─▶ router ─▶ guard ─▶ chat | completions ─▶ answers ─▶ reply | events
//!   (sockets)               (who)    (what is asked)      (pieces)    (what is said)
//!                             └────▶ models · admin · metrics
//! ```
//!
//! Owns sockets of clients, limits on what they send, the shapes of requests, answers and errors,
//! and the rules that keep a browser from abusing a loopback address. Deliberately decides nothing
//! about which node answers, and holds no state of a request beyond its response.

mod admin;
mod allowance;
mod answers;
mod api;
mod audio;
mod backend;
mod body;
mod cache;
mod chat;
mod completions;
mod connections;
mod embed;
mod errors;
mod events;
mod fields;
mod grpc;
mod guard;
#[cfg(test)]
mod headers_tests;
mod heads;
mod ids;
mod infer;
mod limits;
mod logprobs;
mod metrics;
mod models;
mod ollama;
mod params;
mod relay;
mod reply;
mod requests;
mod router;
#[cfg(test)]
mod script;
mod settings;
mod speech;
mod stop;
#[cfg(test)]
mod surface_tests;
mod trace;
pub(crate) mod wire;
mod workers;

pub(crate) use backend::{Allowance, Backend, FederatedOrder, Holder, KeyRefused, Order};
pub(crate) use connections::lasting;
pub(crate) use settings::{AdminToken, Settings};
pub(crate) use stop::Stop;
