//! The harness of the black-box tests: real `selvedge` processes, real sockets, real namespaces.
//!
//! Owns starting, watching, hurting and cleaning up nodes, and a client that can speak good and
//! bad HTTP. Deliberately lacks any view into a node: everything a test knows it read from a
//! node's output or over its interfaces, and it waits for lines and events with deadlines instead
//! of sleeping.

pub mod admin;
pub mod budgets;
pub mod chat;
pub mod digits;
pub mod figures;
pub mod home;
pub mod http;
pub mod javascript;
pub mod liar;
pub mod members;
pub mod namespaces;
pub mod node;
pub mod output;
pub mod parquet;
pub mod places;
pub mod process;
pub mod proxy;
pub mod python;
pub mod report;
pub mod rounds;
pub mod scenario;
pub mod sse;
pub mod stall;
pub mod time;
pub mod tiny;
pub mod unsigned;

pub use admin::{Admin, Watch};
pub use chat::{Asked, Heard};
pub use http::{Client, Reply};
pub use liar::Liar;
pub use namespaces::{Bridge, Host};
pub use node::{Node, NodeSpec};
pub use process::Process;
pub use scenario::{Scenario, scenario};
pub use time::{Deadline, Stopwatch};
