//! The engine that the rest of a node talks to.
//!
//! Owns the threads: one hands requests to those that prepare them, one for each model; one
//! computes, one makes vectors, one hears, one sees, one hands out tensors, one more exists while a
//! model loads.
//! Calls here never wait for a computation, but for one that makes room for a tuned model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use selvedge_base::{Code, Micros, ModelDigest, Mono, Refusal, RequestId, Stage};
use selvedge_contract::carried::{self, Carried};
use selvedge_contract::fair::Tenant;
use selvedge_contract::residence::{Residence, Standing, Wish};
use selvedge_contract::schedule::Drafts;
use selvedge_contract::speech::MAX_SAMPLES;
use selvedge_contract::{
    Answer, Asker, EmbedRequest, EmbedSink, Engine, EngineStatus, EventSink, FinishReason,
    GenerateRequest, InferRequest, InferSink, Input, ModelCard, Samples, Scope, Signature,
    SpeechRequest, SpeechSink, Usage,
};

use crate::card::inspect;
use crate::config::{Device, EngineConfig};
use crate::embed::{self, Desk};
use crate::error::EngineError;
use crate::front::{self, Order, closing};
use crate::gguf::Gguf;
use crate::job::{Outlet, check};
use crate::loader;
use crate::memory::MemoryUse;
use crate::onnx;
use crate::shared::{Made, Makes, Shared};
use crate::speech;
use crate::tuned::{Tuned, TunedModel};
use crate::vision;
use crate::worker::{Message, Worker};

/// How long a request of a peer may take here: the peer's own deadline is kept where its stream is
/// served, which cancels the request.
const MOST_CARRIED: Micros = Micros::secs(3_600);

/// Runs models on this machine.
pub struct LocalEngine {
    shared: Arc<Shared>,
    device: candle_core::Device,
    threads: Vec<JoinHandle<()>>,
}

impl LocalEngine {
    /// Starts the engine's threads. `clock` is read for measurements only.
    ///
    /// # Errors
    /// [`EngineError`] when the device cannot be used or a thread cannot be started.
    pub fn start(
        config: EngineConfig,
        clock: Arc<dyn Fn() -> Mono + Send + Sync>,
    ) -> Result<Self, EngineError> {
        let device = open(config.device)?;
        let shared = Shared::new(config, clock);
        let mut worker = Worker::new(Arc::clone(&shared), device.clone())?;
        let mut engine = Self { shared: Arc::clone(&shared), device, threads: Vec::new() };
        engine.thread("selvedge-engine", move || worker.serve())?;
        let mut desk = Desk::new(Arc::clone(&shared), engine.device.clone());
        engine.thread("selvedge-vectors", move || desk.serve())?;
        let mut desk = onnx::Desk::new(Arc::clone(&shared), engine.device.clone());
        engine.thread("selvedge-tensors", move || desk.serve())?;
        let mut hearing = speech::Desk::new(Arc::clone(&shared), engine.device.clone());
        engine.thread("selvedge-hearing", move || hearing.serve())?;
        let mut sight = vision::Desk::new(Arc::clone(&shared), engine.device.clone());
        engine.thread("selvedge-sight", move || sight.serve())?;
        engine.thread("selvedge-prompts", move || front::run(&shared))?;
        Ok(engine)
    }

    /// Adds a model file: reads its header only; the weights are loaded in the background if there
    /// is memory for them, else at the first request, as when the engine is lazy. A model whose
    /// loading failed is tried again.
    ///
    /// # Errors
    /// [`EngineError`] when the file cannot be a model here or the name is taken.
    pub fn add_model(
        &self,
        path: &Path,
        name: &str,
        digest: ModelDigest,
    ) -> Result<ModelCard, EngineError> {
        let inspected = inspect(path)?;
        let card = inspected.card(name, digest);
        let signature = inspected.signature.map(Arc::new);
        let classes = inspected.classes.map(Arc::new);
        let makes = Makes { dimensions: inspected.dimensions, signature, classes };
        let new = self.shared.add(card.clone(), path.to_owned(), makes)?;
        if new && !self.shared.config.lazy && self.shared.begin_loading(digest) {
            loader::spawn(&self.shared, &self.device, digest, (Duration::ZERO, Wish::Ahead));
        }
        Ok(card)
    }

    /// Forgets a model; its requests fail. Whether there was one of this name.
    pub fn remove_model(&self, name: &str) -> bool {
        let Some(digest) = self.shared.remove(name) else { return false };
        // A closed engine has nothing left to unload.
        drop(self.shared.front.push(front::Message::Removed(digest)));
        drop(self.shared.worker.push(Message::Removed(digest)));
        drop(self.shared.desk.push(embed::Message::Removed(digest)));
        drop(self.shared.tensors.push(onnx::Message::Removed(digest)));
        drop(self.shared.hearing.push(speech::Message::Removed(digest)));
        drop(self.shared.sight.push(vision::Message::Removed(digest)));
        true
    }

    /// Lets a model answer that is one of this engine's with something added, in place of its
    /// version before. Requests that run end with the version they began with. Reads the header of
    /// the base's file. Others make room for it, and while they are at work it waits, as a model
    /// does that is asked for.
    ///
    /// # Errors
    /// [`EngineError`] when the base is not here, the numbers are not of its matrices, the name is
    /// a file's, or memory is short.
    pub fn tune(&self, model: TunedModel) -> Result<ModelCard, EngineError> {
        self.tunes()?;
        // Before anybody goes for it.
        let path = self.shared.tunable(model.base, &model.name)?;
        let tuned = Tuned::pack(&self.shared, &Gguf::open(&path)?, model)?;
        self.shared.tune(tuned)
    }

    /// Whether [`Self::tune`] can come to anything here.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] where the engine does not compute on the processor.
    pub fn tunes(&self) -> Result<(), EngineError> {
        if self.device.is_cpu() {
            return Ok(());
        }
        let message = "tuned models answer on the processor only: set the engine's device so";
        Err(EngineError::unsupported(message))
    }

    /// Forgets a tuned model; what runs goes on. Whether there was one.
    pub fn untune(&self, name: &str) -> bool {
        self.shared.untune(name)
    }

    /// Why a model could not be loaded, if so.
    pub fn failure(&self, digest: ModelDigest) -> Option<String> {
        self.shared.failure(self.shared.meant(digest).0)
    }

    /// How much of a model is in memory, in percent, while it is loaded. Counted by tensors, of
    /// models that write.
    pub fn loading(&self, digest: ModelDigest) -> Option<u8> {
        self.shared.loading(self.shared.meant(digest).0)
    }

    /// What was drafted for each model that writes, since it was loaded.
    pub fn drafts(&self) -> Vec<(String, Drafts)> {
        self.shared.drafts()
    }

    /// What is in memory, and how often models came and went.
    pub fn memory(&self) -> MemoryUse {
        self.shared.memory_use()
    }

    /// Each model's part of it, its last use, and why it went the last time.
    pub fn standings(&self) -> Vec<Standing> {
        let now = self.shared.now();
        self.shared.memory.look(|account| account.standings(now))
    }

    /// Ends the engine's threads within a step; requests under way fail.
    pub fn shutdown(self) {
        drop(self);
    }

    /// Queues texts for a model that reads them whole.
    fn queue_texts(&self, request: EmbedRequest, sink: EmbedSink) -> Result<(), Refusal> {
        let place = self.shared.admit(request.id, request.model)?;
        let job = Box::new(embed::Job::new(request, sink, place));
        // The sink is dropped with the job, unheard: the caller hears it here.
        self.shared.desk.push(embed::Message::Job(job)).map_err(|_| closing())
    }

    /// A request for a model that is asked with tensors, which came as one for text: from a peer,
    /// or from somebody who takes it for a model that writes.
    fn carries(
        &self,
        request: &GenerateRequest,
        signature: Arc<Signature>,
        mut sink: Box<dyn EventSink>,
    ) -> Result<(), Refusal> {
        let Some(asked) = carried::of_hand_off(request, MOST_CARRIED) else {
            // In the words for every model that writes nothing.
            return self.shared.check_makes(request.model, Made::Text);
        };
        if asked.inputs.is_empty() {
            tell(Carried::Signature(Signature::clone(&signature)), sink.as_mut());
            return Ok(());
        }
        self.infer(
            asked,
            Box::new(move |made| match made {
                Ok(tensors) => tell(Carried::Tensors(tensors), sink.as_mut()),
                Err(refusal) => drop(sink.send(Answer::Failed(refusal))),
            }),
        )
    }

    fn thread(
        &mut self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), EngineError> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|error| EngineError::Thread(error.to_string()))?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        self.shared.memory.change(Residence::close);
        self.shared.front.close();
        self.shared.worker.close();
        self.shared.desk.close();
        self.shared.tensors.close();
        self.shared.hearing.close();
        self.shared.sight.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the engine had panicked");
            }
        }
    }
}

impl Engine for LocalEngine {
    fn submit_as(
        &self,
        asker: &Asker<'_>,
        mut request: GenerateRequest,
        sink: Box<dyn EventSink>,
    ) -> Result<(), Refusal> {
        check(&request)?;
        let (base, tuned) = self.shared.meant(request.model);
        let scope = match &tuned {
            Some(tuned) => Scope::tuned(asker.scope, tuned.digest),
            None => Scope::new(asker.scope),
        };
        request.model = base;
        if let Some(signature) = self.shared.signature(request.model) {
            return self.carries(&request, signature, sink);
        }
        self.shared.check_makes(request.model, Made::Text)?;
        let submitted = self.shared.now();
        let claim = asker.claim(submitted);
        let group = Tenant::new(asker.group);
        let place = self.shared.admit_of(request.id, request.model, Some(&group))?;
        let outlet = Outlet::new(sink, place);
        let order = Box::new(Order { scope, claim, tuned, request, outlet, submitted });
        self.shared.front.push(front::Message::Order(order)).map_err(|message| {
            if let front::Message::Order(order) = message {
                order.outlet.abandon();
            }
            closing()
        })
    }

    fn cancel(&self, id: RequestId) {
        self.shared.cancel(id);
    }

    fn status(&self) -> EngineStatus {
        self.shared.status()
    }

    fn copied(&self, copies: &BTreeMap<ModelDigest, u32>) {
        self.shared.memory.change(|account| account.copied(copies));
    }

    fn count_tokens(&self, model: ModelDigest, input: &Input) -> Result<u32, Refusal> {
        let tokens = self.shared.text(self.shared.meant(model).0)?.tokens(input)?;
        Ok(tokens.len().min(u32::MAX as usize) as u32)
    }

    fn dimensions(&self, model: ModelDigest) -> Option<u32> {
        self.shared.dimensions(model)
    }

    fn embed(&self, request: EmbedRequest, sink: EmbedSink) -> Result<(), Refusal> {
        self.shared.check_makes(request.model, Made::Vectors)?;
        if !self.shared.sees(request.model) {
            return self.queue_texts(request, sink);
        }
        let place = self.shared.admit(request.id, request.model)?;
        let job = Box::new(vision::Job::vectors(request, sink, place));
        // The sink is dropped with the job, unheard: the caller hears it here.
        self.shared.sight.push(vision::Message::Job(job)).map_err(|_| closing())
    }

    fn signature(&self, model: ModelDigest) -> Option<Arc<Signature>> {
        self.shared.signature(model)
    }

    fn infer(&self, mut request: InferRequest, sink: InferSink) -> Result<(), Refusal> {
        self.shared.check_makes(request.model, Made::Tensors)?;
        if let Some(signature) = self.shared.signature(request.model) {
            request = vision::completed(request, &signature);
            signature.check(&request.inputs, &request.outputs)?;
        }
        if self.shared.sees(request.model) {
            let admit = || self.shared.admit(request.id, request.model);
            let job = Box::new(vision::Job::tensors(&request, sink, admit)?);
            return self.shared.sight.push(vision::Message::Job(job)).map_err(|_| closing());
        }
        if let Some(classes) = self.shared.classes(request.model) {
            let (request, sink) = embed::infer(&classes, request, sink)?;
            return self.queue_texts(request, sink);
        }
        let place = self.shared.admit(request.id, request.model)?;
        let job = Box::new(onnx::Job::new(request, sink, place, self.shared.now()));
        // The sink is dropped with the job, unheard: the caller hears it here.
        self.shared.tensors.push(onnx::Message::Job(job)).map_err(|_| closing())
    }

    fn hear(
        &self,
        request: SpeechRequest,
        sound: Samples,
        sink: SpeechSink,
    ) -> Result<(), Refusal> {
        self.shared.check_makes(request.model, Made::Transcripts)?;
        if sound.is_empty() || sound.len() > MAX_SAMPLES {
            let message =
                format!("{} samples of sound (1 to {MAX_SAMPLES} are heard)", sound.len());
            let code = Code::InvalidRequest;
            return Err(Refusal::client(Stage::Validate, code, message).param("file"));
        }
        let place = self.shared.admit(request.id, request.model)?;
        let job = Box::new(speech::Job::new(request, sound, sink, place));
        // The sink is dropped with the job, unheard: the caller hears it here.
        self.shared.hearing.push(speech::Message::Job(job)).map_err(|_| closing())
    }

    fn begun(&self, model: ModelDigest, input: &Input, text: &str) -> Result<Vec<u32>, Refusal> {
        self.shared.text(self.shared.meant(model).0)?.begun(input, text)
    }
}

/// Tells a peer an answer.
fn tell(carried: Carried, sink: &mut dyn EventSink) {
    let end = Answer::Finished {
        reason: FinishReason::Stop,
        text: String::new(),
        usage: Usage::default(),
    };
    // Whoever does not listen any more needs no more.
    let _heard = carried::to_events(carried).into_iter().chain([end]).all(|event| sink.send(event));
}

fn open(device: Device) -> Result<candle_core::Device, EngineError> {
    let named = |name: &str, index: usize, opened: candle_core::Result<candle_core::Device>| {
        opened.map_err(|error| EngineError::Device {
            name: format!("{name}:{index}"),
            reason: error.to_string(),
        })
    };
    match device {
        Device::Cpu => Ok(candle_core::Device::Cpu),
        Device::Cuda(index) => named("cuda", index, candle_core::Device::new_cuda(index)),
        Device::Metal(index) => named("metal", index, candle_core::Device::new_metal(index)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[path = "local_tests.rs"]
mod tests;
