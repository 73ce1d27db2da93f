//! Traces of the simulator through the code of a running node: what a machine was told in a
//! simulated mesh is told to the same machine behind the actors, with the clock of the trace, and
//! it must order the same, step by step.
//!
//! `tape` records one simulated node; the other modules replay one machine each.

mod detector;
mod quota;
mod stage;
mod tape;
