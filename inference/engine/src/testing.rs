//! What the engine's tests share: a collecting sink, an engine, and files of small models.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use selvedge_base::{ModelDigest, Mono, RequestId};
use selvedge_contract::{
    Answer, EventSink, FinishReason, Further, GenerateRequest, Input, Sampling, TokenEvent, Usage,
};

use crate::card::Shape;
use crate::gguf::Gguf;
use crate::{EngineConfig, LocalEngine, loader};

pub(crate) mod families;
pub(crate) mod writer;

pub(crate) use families::Family;
pub(crate) use writer::Writer;

/// A file of `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> serde_json::Value {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the fixture is in the repository");
    serde_json::from_str(&text).expect("the fixture is JSON")
}

/// A prompt that makes a step panic, to see what becomes of the others.
pub(crate) const FATAL: [u32; 4] = [258, 1, 258, 1];

/// A prompt whose first token panics when it is drawn.
pub(crate) const FATAL_TO_DELIVER: [u32; 4] = [258, 2, 258, 2];
/// A prompt that panics when the stepping thread sees it.
pub(crate) const FATAL_TO_SETTLE: [u32; 4] = [258, 3, 258, 3];
/// A model of this context panics when its weights are read.
pub(crate) const FATAL_CONTEXT: usize = 511;

/// A file that is removed with its owner.
pub(crate) struct Temporary(PathBuf);

impl Temporary {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn temporary(bytes: &[u8]) -> Temporary {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("selvedge-engine-{}-{number}.gguf", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, bytes).expect("the temporary directory is writable");
    Temporary(path)
}

/// A directory that is removed with its owner.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("selvedge-engine-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("1_Pooling")).expect("the directory is writable");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).expect("the directory is writable");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A sink that passes events on.
pub(crate) struct Outlet(pub(crate) mpsc::Sender<Answer>);

impl EventSink for Outlet {
    fn send(&mut self, event: Answer) -> bool {
        self.0.send(event).is_ok()
    }
}

/// What came of a request.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) digest: [u8; 32],
    pub(crate) tokens: Vec<TokenEvent>,
    pub(crate) tail: String,
    pub(crate) finished: Option<(FinishReason, Usage)>,
    pub(crate) failed: Option<selvedge_base::Refusal>,
}

impl Collected {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|event| event.token).collect()
    }

    pub(crate) fn text(&self) -> String {
        let texts = self.tokens.iter().map(|event| event.text.as_str());
        texts.chain([self.tail.as_str()]).collect()
    }
}

/// Waits for the end of an answer.
pub(crate) fn collect(events: &mpsc::Receiver<Answer>) -> Collected {
    let mut all = Collected::default();
    // A minute is far more than any test's answer takes; it turns a hang into a failure.
    while let Ok(event) = events.recv_timeout(std::time::Duration::from_secs(60)) {
        match event {
            Answer::Started { prompt_digest, .. } => all.digest = prompt_digest,
            Answer::Token(token) => all.tokens.push(token),
            Answer::Finished { reason, text, usage } => {
                all.tail = text;
                all.finished = Some((reason, usage));
            }
            Answer::Failed(refusal) => assert!(all.failed.replace(refusal).is_none(), "one end"),
        }
    }
    assert!(all.finished.is_some() != all.failed.is_some(), "exactly one end: {all:?}");
    all
}

pub(crate) fn greedy() -> Sampling {
    Sampling {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        seed: 0,
        further: Further::NONE,
    }
}

pub(crate) fn request(id: u128, model: ModelDigest, input: Input) -> GenerateRequest {
    GenerateRequest {
        id: RequestId(id),
        model,
        input,
        sampling: greedy(),
        max_tokens: 20,
        stop: Vec::new(),
        logprobs: None,
        schema: None,
        emitted: None,
    }
}

/// The memory that a model takes which writes.
pub(crate) fn needs(path: &Path) -> u64 {
    let gguf = Gguf::open(path).expect("a model");
    let shape = Shape::read(&gguf).expect("a model");
    let room = loader::room(&gguf, &shape, &candle_core::Device::Cpu);
    room.weights + room.beside
}

/// An engine whose clock counts how often it is read: enough for what needs some time.
pub(crate) fn engine(config: EngineConfig) -> LocalEngine {
    let ticks = AtomicU64::new(0);
    let clock = Arc::new(move || Mono(ticks.fetch_add(1_000, Ordering::Relaxed)));
    LocalEngine::start(config, clock).expect("the engine starts")
}
