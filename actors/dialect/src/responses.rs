//! OpenAI's responses.
//!
//! Owns both roles, without a store of answers: what refers to a stored one (`previous_response_id`
//! and its kin) passes to targets of this dialect only. Source: the OpenAI API reference,
//! "Responses". Items of one turn of the model (thinking, text, calls) are one canonical message.

mod answer;
mod fields;
mod items;
mod render;
mod write;

pub use crate::openai::{error_body, failure, status};
pub use answer::{Parser, WholeParser};
pub use fields::{body_schema, parse};
pub use render::render;
pub use write::{Writer, whole};

#[cfg(test)]
#[path = "responses/tests.rs"]
mod tests;
