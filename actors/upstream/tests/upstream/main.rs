//! The client against servers of each provider's shape, on real sockets.

mod answers;
mod dialect;
mod faults;
mod limits;
mod secrets;
mod server;
mod shape;
mod times;
mod tls;
mod wire;
mod world;
