//! Models that write down what is said in sound.
//!
//! Owns what such a model is on the disk, a directory as Hugging Face lays Whisper out (`folder`),
//! how sound becomes what it hears (`spectrum`), its tokens and the rules of its answers (`words`,
//! `rules`), one window (`listener`), a request window by window (`listening`), and the thread that
//! computes (`desk`). The arithmetic is `selvedge_kernels`' speech. Devices other than the
//! processor are not used.

mod desk;
mod folder;
mod listener;
mod listening;
#[cfg(test)]
#[allow(clippy::expect_used)]
mod real_tests;
mod rules;
mod spectrum;
#[cfg(test)]
#[allow(clippy::expect_used)]
mod testing;
mod words;

pub(crate) use desk::{Desk, Job, Message};
pub(crate) use folder::{Folder, is_folder};
pub(crate) use listener::Listener;
