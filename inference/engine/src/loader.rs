//! Loading a model in the background.
//!
//! Owns the order of things: header, text side, memory, weights. Memory is set aside before weights
//! are read, so that two loads never both count on the same. A file is untrusted:
//! whatever goes wrong becomes the model's reason to be unavailable, and nothing else stops.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use candle_core::Device;
use selvedge_base::ModelDigest;
use selvedge_contract::residence::{Room, Wish};

use crate::card::Shape;
use crate::desk;
use crate::embed::{self, Folder, Reader};
use crate::error::EngineError;
use crate::gguf::Gguf;
use crate::llama::Llama;
use crate::mailbox::Mailbox;
use crate::onnx::{self, Host};
use crate::shared::Shared;
use crate::speech::{self, Listener};
use crate::vision::{self, Seer};
use crate::worker::{Loaded, Message};

/// Tokens for which keys and values must fit beside the weights: room for a few short answers.
pub(crate) const LEAST_TOKENS: u64 = 2_048;

/// Loads a model on a thread of its own, after `delay`; its state is Loading meanwhile, and Cold
/// while it waits for memory.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    device: &Device,
    digest: ModelDigest,
    (delay, wish): (Duration, Wish),
) {
    let (theirs, device) = (Arc::clone(shared), device.clone());
    let thread = std::thread::Builder::new().name("selvedge-load".into()).spawn(move || {
        if !delay.is_zero() {
            std::thread::park_timeout(delay);
        }
        load(&theirs, &device, digest, wish);
    });
    if let Err(error) = thread {
        shared.load_failed(digest, EngineError::Thread(error.to_string()));
    }
}

/// Loads a model on this thread.
pub(crate) fn load(shared: &Arc<Shared>, device: &Device, digest: ModelDigest, wish: Wish) {
    let result = catch_unwind(AssertUnwindSafe(|| read(shared, device, digest, wish)));
    let result = result.unwrap_or_else(|_| Err(EngineError::corrupt("loading the file panicked")));
    match result {
        Ok(None) => {}
        // A closed engine needs no weights any more.
        Ok(Some(loaded)) => drop(shared.worker.push(Message::Loaded(digest, Box::new(loaded)))),
        Err(error) => shared.load_failed(digest, error),
    }
}

fn read(
    shared: &Arc<Shared>,
    device: &Device,
    digest: ModelDigest,
    wish: Wish,
) -> Result<Option<Loaded>, EngineError> {
    let Some(path) = shared.path(digest) else { return Ok(None) };
    if onnx::is_file(&path) {
        return read_onnx(shared, (digest, wish), &path).map(|()| None);
    }
    if vision::is_folder(&path) {
        return read_seer(shared, (digest, wish), &path).map(|()| None);
    }
    if embed::is_folder(&path) {
        return match speech::is_folder(&path) {
            true => read_listener(shared, (digest, wish), &path).map(|()| None),
            false => read_folder(shared, (digest, wish), &path).map(|()| None),
        };
    }
    let mut gguf = Gguf::open(&path)?;
    let shape = Shape::read(&gguf)?;
    shared.read_text(digest, &gguf)?;
    // Read by now, it need not lie beside the weights.
    gguf.metadata.retain(|key, _| !key.starts_with("tokenizer."));
    let kv_token_bytes = Llama::token_bytes(&shape, device);
    let room = room(&gguf, &shape, device);
    let (needed, kept) = (room.weights, room.beside);
    let reservation = shared.make_room(digest, room, wish)?;
    // Pages that others keep there are given up before the weights come.
    shared.worker.nudge();
    let meter = shared.measures(digest, gguf.tensors.len());
    let advanced = || {
        shared.progress.fetch_add(1, Ordering::Relaxed);
        meter.advanced();
    };
    #[cfg(test)]
    assert!(shape.context != crate::testing::FATAL_CONTEXT, "a test asked for it");
    let keeping = shared.config.keeping.as_ref().map(|keeping| (keeping, digest));
    let threads = shared.config.thread_count();
    let llama = Llama::load_kept(&gguf, device, keeping, threads, &advanced)?;
    tracing::info!(%digest, bytes = needed, mapped = llama.is_mapped(), "model loaded");
    Ok(Some(Loaded { llama, reservation, kv_token_bytes, kept }))
}

/// The memory that a model takes which writes: its weights, and some keys and values.
pub(crate) fn room(gguf: &Gguf, shape: &Shape, device: &Device) -> Room {
    let tokens = LEAST_TOKENS.min(shape.context as u64);
    let beside = Llama::token_bytes(shape, device).saturating_mul(tokens);
    Room { weights: Llama::bytes(gguf, device), beside }
}

/// Loads a model that does not write and hands it to whoever computes with it. `needed` is the
/// memory that it takes.
fn read_for<W, M>(
    shared: &Arc<Shared>,
    (digest, wish): (ModelDigest, Wish),
    needed: u64,
    mailbox: &Mailbox<desk::Message<W, M>>,
    load: impl FnOnce() -> Result<M, EngineError>,
) -> Result<(), EngineError> {
    let room = Room { weights: needed, beside: 0 };
    let reservation = shared.make_room(digest, room, wish)?;
    // Pages that others keep there are given up before the weights come.
    shared.worker.nudge();
    let model = load()?;
    shared.progress.fetch_add(1, Ordering::Relaxed);
    tracing::info!(%digest, bytes = needed, "model loaded");
    // A closed engine needs no model any more.
    drop(mailbox.push(desk::Message::Loaded(digest, Box::new((model, reservation)))));
    Ok(())
}

/// Loads a model of embeddings.
fn read_folder(
    shared: &Arc<Shared>,
    wanted: (ModelDigest, Wish),
    path: &Path,
) -> Result<(), EngineError> {
    let folder = Folder::open(path)?;
    read_for(shared, wanted, folder.config.bytes(), &shared.desk, || Reader::load(&folder))
}

/// Starts the process of a model that takes tensors.
fn read_onnx(
    shared: &Arc<Shared>,
    wanted: (ModelDigest, Wish),
    path: &Path,
) -> Result<(), EngineError> {
    let file = onnx::File::open(path)?;
    let threads = shared.config.thread_count();
    read_for(shared, wanted, file.needed(), &shared.tensors, || {
        Host::open(file, &shared.config.running, threads)
    })
}

/// Loads a model that hears.
fn read_listener(
    shared: &Arc<Shared>,
    wanted: (ModelDigest, Wish),
    path: &Path,
) -> Result<(), EngineError> {
    let folder = speech::Folder::open(path)?;
    let needed = folder.config.bytes().saturating_add(folder.config.working_bytes());
    read_for(shared, wanted, needed, &shared.hearing, || Listener::load(&folder))
}

/// Loads a model that sees.
fn read_seer(
    shared: &Arc<Shared>,
    wanted: (ModelDigest, Wish),
    path: &Path,
) -> Result<(), EngineError> {
    let folder = vision::Folder::open(path)?;
    read_for(shared, wanted, folder.needed(), &shared.sight, || Seer::load(&folder))
}
