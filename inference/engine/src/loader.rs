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
use crate::embed::{self, Folder, Reader};
use crate::error::EngineError;
use crate::gguf::Gguf;
use crate::llama::Llama;
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
        return read_onnx(shared, digest, &path, wish).map(|()| None);
    }
    if vision::is_folder(&path) {
        return read_seer(shared, digest, &path, wish).map(|()| None);
    }
    if embed::is_folder(&path) {
        return match speech::is_folder(&path) {
            true => read_listener(shared, digest, &path, wish).map(|()| None),
            false => read_folder(shared, digest, &path, wish).map(|()| None),
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
    let advanced = || {
        shared.progress.fetch_add(1, Ordering::Relaxed);
    };
    #[cfg(test)]
    assert!(shape.context != crate::testing::FATAL_CONTEXT, "a test asked for it");
    let llama = Llama::load(&gguf, device, shared.config.thread_count(), &advanced)?;
    tracing::info!(%digest, bytes = needed, "model loaded");
    Ok(Some(Loaded { llama, reservation, kv_token_bytes, kept }))
}

/// The memory that a model takes which writes: its weights, and some keys and values.
pub(crate) fn room(gguf: &Gguf, shape: &Shape, device: &Device) -> Room {
    let tokens = LEAST_TOKENS.min(shape.context as u64);
    let beside = Llama::token_bytes(shape, device).saturating_mul(tokens);
    Room { weights: Llama::bytes(gguf, device), beside }
}

/// Loads a model of embeddings and hands it to whoever makes vectors.
fn read_folder(
    shared: &Arc<Shared>,
    digest: ModelDigest,
    path: &Path,
    wish: Wish,
) -> Result<(), EngineError> {
    let folder = Folder::open(path)?;
    let needed = folder.config.bytes();
    let room = Room { weights: needed, beside: 0 };
    let reservation = shared.make_room(digest, room, wish)?;
    // Pages that others keep there are given up before the weights come.
    shared.worker.nudge();
    let reader = Reader::load(&folder)?;
    shared.progress.fetch_add(1, Ordering::Relaxed);
    tracing::info!(%digest, bytes = needed, "model loaded");
    // A closed engine needs no weights any more.
    drop(shared.desk.push(embed::Message::Loaded(digest, Box::new((reader, reservation)))));
    Ok(())
}

/// Starts the process of a model that takes tensors and hands it to whoever runs such.
fn read_onnx(
    shared: &Arc<Shared>,
    digest: ModelDigest,
    path: &Path,
    wish: Wish,
) -> Result<(), EngineError> {
    let file = onnx::File::open(path)?;
    let needed = file.needed();
    let room = Room { weights: needed, beside: 0 };
    let reservation = shared.make_room(digest, room, wish)?;
    // Pages that others keep there are given up before the weights come.
    shared.worker.nudge();
    let host = Host::open(file, &shared.config.running, shared.config.thread_count())?;
    shared.progress.fetch_add(1, Ordering::Relaxed);
    tracing::info!(%digest, bytes = needed, "model loaded");
    // A closed engine needs no process any more.
    drop(shared.tensors.push(onnx::Message::Loaded(digest, Box::new((host, reservation)))));
    Ok(())
}

/// Loads a model that hears and hands it to whoever does.
fn read_listener(
    shared: &Arc<Shared>,
    digest: ModelDigest,
    path: &Path,
    wish: Wish,
) -> Result<(), EngineError> {
    let folder = speech::Folder::open(path)?;
    let needed = folder.config.bytes().saturating_add(folder.config.working_bytes());
    let room = Room { weights: needed, beside: 0 };
    let reservation = shared.make_room(digest, room, wish)?;
    // Pages that others keep there are given up before the weights come.
    shared.worker.nudge();
    let listener = Listener::load(&folder)?;
    shared.progress.fetch_add(1, Ordering::Relaxed);
    tracing::info!(%digest, bytes = needed, "model loaded");
    // A closed engine needs no weights any more.
    drop(shared.hearing.push(speech::Message::Loaded(digest, Box::new((listener, reservation)))));
    Ok(())
}

/// Loads a model that sees and hands it to whoever does.
fn read_seer(
    shared: &Arc<Shared>,
    digest: ModelDigest,
    path: &Path,
    wish: Wish,
) -> Result<(), EngineError> {
    let folder = vision::Folder::open(path)?;
    let needed = folder.needed();
    let room = Room { weights: needed, beside: 0 };
    let reservation = shared.make_room(digest, room, wish)?;
    // Pages that others keep there are given up before the weights come.
    shared.worker.nudge();
    let seer = Seer::load(&folder)?;
    shared.progress.fetch_add(1, Ordering::Relaxed);
    tracing::info!(%digest, bytes = needed, "model loaded");
    // A closed engine needs no weights any more.
    drop(shared.sight.push(vision::Message::Loaded(digest, Box::new((seer, reservation)))));
    Ok(())
}
