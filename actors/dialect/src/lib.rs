//! How AI APIs speak: one canonical form of requests and answers, and its translation to and from
//! each dialect, in both roles.
//!
//! *Server side* is what clients say to us: a body becomes a [`chat::ChatRequest`], in which every
//! field is honoured, or a [`selvedge_base::Refusal`] that names the field; canonical
//! [`chat::Event`]s become the dialect's stream or its whole body. *Client side* is what we say to
//! a provider: a canonical request becomes an [`exchange::Outgoing`] or a refusal that names what
//! the target cannot say; the bytes of the answer, however they are split, become canonical events.
//!
//! Owns nothing about sockets, secrets, routing, prices or who may call. Start reading at
//! [`chat`] (the canonical form) and [`exchange`] (the roles as traits).

#![warn(missing_docs)]

pub mod anthropic;
pub mod bedrock;
mod cannot;
pub mod canon;
pub mod chat;
pub mod cohere;
mod decode;
pub mod embed;
pub mod exchange;
pub mod failure;
pub mod form;
pub mod frame;
pub mod gemini;
pub mod inference;
pub mod json;
pub mod limits;
mod media;
pub mod number;
pub mod objects;
pub mod ollama;
pub mod openai;
pub mod responses;
mod schema;
pub mod tap;
