//! The black-box suite: real `selvedge` processes and real clients, nothing replaced.
//!
//! `real` holds the scenarios, one module per promise; each test starts the processes it needs and
//! checks many things in order, every step named. `commands` is the list of command lines that the
//! documents may show, each of which is run; `simulation` is `selvedge sim` and its page.

mod commands;
mod real;
mod simulation;
