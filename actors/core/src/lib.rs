//! Every decision a node makes about requests, as pure machines and functions.
//!
//! Start reading at [`flow`]: the life of one request. Owns the flow, the choice of a node from
//! what is known of the mesh, who may call, what a peer may hand over, and the record of it all.
//! Deliberately lacks sockets, clocks, threads and channels: `actors/runtime` has those.

#![warn(missing_docs, clippy::wildcard_enum_match_arm)]

pub mod aim;
pub mod auth;
pub mod bill;
pub mod cache;
pub mod catalogue;
pub mod continuing;
pub mod flow;
pub mod journey;
pub mod meter;
pub mod paid;
pub mod quota;
pub mod receive;
pub mod record;
pub mod restart;
pub mod route;
pub mod routes;
pub mod rows;
pub mod upstream;

pub use flow::{Flow, FlowEffect, FlowInput, Piece};
pub use record::{Attempt, Outcome, RequestRecord};
pub use route::{MeshView, ModelSummary, Need, NodeView};
pub use rows::{
    Charged, Detailed, FederatedWord, FitsWord, HandOff, HandOffReply, NodeRow, Opening,
    PersonalWord, PolicyWord, Shaped, Spoken, SpokenReply, Traced,
};
