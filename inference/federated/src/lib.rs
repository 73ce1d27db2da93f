//! Learning across sites: the decisions and the arithmetic, no training and no transport.
//!
//! Nodes train on what they have and send what changed in the model; a few of them, the anchors,
//! add the changes up without seeing any of them. Everything that several nodes must agree on is
//! computed here in integers, so that all come to the same bytes. Owns the field, the shares, the
//! rounds as machines, and what a server makes of a sum. Owns neither the training (floats, a
//! shell's work) nor sockets, disks, clocks and entropy: seeds are handed in.

#![warn(missing_docs)]

mod digest;
pub mod epidemic;
pub mod field;
pub mod fits;
pub mod fixed;
pub mod mask;
pub mod privacy;
pub mod proof;
pub mod refusals;
pub mod robust;
pub mod round;
pub mod seal;
pub mod select;
pub mod server;
pub mod shamir;
