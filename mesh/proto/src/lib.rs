//! How the nodes of a mesh talk, as machines: membership records, joining, failure detection,
//! the choice of where to run, the exchange of state, and the frames that carry all of it.
//!
//! Everything here is pure: facts and a time go in, orders come out. Sockets, keys at rest and
//! clocks belong to the shells. What it deliberately lacks: the shape of inference requests (frames
//! are generic over them) and any decision about one request beyond where it could run.

#![warn(missing_docs)]

pub mod answers;
pub mod base32;
pub mod choice;
pub mod join;
pub mod policy;
pub mod records;
pub mod seal;
pub mod settings;
pub mod swim;
pub mod sync;
pub mod wire;
