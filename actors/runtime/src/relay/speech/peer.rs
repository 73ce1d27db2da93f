//! Sound at a node's engine: this one's, or a peer's over a stream.
//!
//! Owns both ends of such a stream: the request first, then its sound in chunks; signs of life from
//! the first chunk on, `Accepted` once the engine has it, and the transcript whole. The serving
//! side checks as it does for any hand-off ([`selvedge_core::receive`]), before sound is taken.
//! Dropping either end cancels the work.

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, NodeId, Refusal, Retry, Stage, TraceContext};
use selvedge_contract::speech::{CHUNK_SAMPLES, Chunk, MAX_SAMPLES, PROMPT_BYTES, tokens_of};
use selvedge_contract::{
    Further, GenerateRequest, Heard, Input, Limits, Samples, Sampling, SpeechRequest, Transcript,
};
use selvedge_core::{HandOff, Opening, Spoken, SpokenReply};
use selvedge_net::{FrameReceiver, FrameSender, Link, NetError, clock};
use selvedge_proto::wire::{self, ALIVE_EVERY, Label, Receipt};
use tokio::sync::oneshot;

use super::ours;
use crate::counters::Held;
use crate::handoff::{REQUEST_PRIORITY, begin};
use crate::membership::Key;
use crate::mesh::MeshMessage;
use crate::serve::{CancelOnDrop, WHOLE_WITHIN, deadline_passed, engine_went_silent, model_name};
use crate::shared::Shared;
use crate::trace::{Asking, Came, TRANSCRIPTION, Trace, Whom};

/// The wire version that knows sound.
const SOUND_SINCE: u8 = 9;
/// A peer that says nothing for so long is left: it sends signs of life many times a second.
const SILENCE: Micros = Micros::secs(5);
/// Bytes a second that sound comes at over the poorest link that it is sent over: faster than it is
/// spoken, so that an hour comes within one.
const SLOWEST: u64 = 64 << 10;
/// Bytes of a sample on the wire at most: a mark and two, as the codec writes whole numbers.
const SAMPLE_BYTES: u64 = 3;

/// A request for a peer.
pub(super) struct Handed {
    pub(super) to: NodeId,
    pub(super) tenant: String,
    pub(super) label: Label,
    pub(super) deadline: Micros,
    pub(super) fence: u64,
    pub(super) receipt: Option<Receipt>,
    pub(super) trace: Option<TraceContext>,
    pub(super) request: SpeechRequest,
}

/// What this node's own engine hears.
pub(super) async fn here(
    shared: &Shared,
    request: SpeechRequest,
    sound: Samples,
) -> Result<Transcript, Refusal> {
    let _cancel = CancelOnDrop { shared, id: request.id };
    let heard = engine(shared, request, sound)?;
    match heard.await {
        Ok(heard) => heard,
        Err(_) => Err(ours(Retry::Elsewhere, Code::Internal, "the computation broke down")),
    }
}

type Ended = oneshot::Receiver<Result<Transcript, Refusal>>;

fn engine(shared: &Shared, request: SpeechRequest, sound: Samples) -> Result<Ended, Refusal> {
    let (sink, ended) = oneshot::channel();
    let sink = Box::new(move |heard| {
        // Nobody listens when the request was given up.
        let _heard = sink.send(heard);
    });
    shared.engine.hear(request, sound, sink).map(|()| ended)
}

/// What a peer's engine hears.
pub(super) async fn ask(
    shared: &Shared,
    handed: Handed,
    sound: &Samples,
) -> Result<Transcript, Refusal> {
    let name = shared.view.load().name_of(&handed.to);
    let lost = |why: &str| {
        let message = format!("node {name} was lost while it heard: {why}");
        ours(Retry::Elsewhere, Code::ModelUnavailable, &message)
    };
    let link = shared.endpoint.link(&handed.to).ok_or_else(|| lost("there is no link to it"))?;
    let peer = handed.to;
    match exchange(shared, (peer, &link), handed, sound).await {
        Ok(Some(Heard::Told(transcript))) => Ok(*transcript),
        Ok(Some(Heard::Failed(refusal))) => Err(refusal),
        Ok(None) => Err(lost("the stream ended before the transcript came")),
        Err(error) => Err(lost(&error.to_string())),
    }
}

async fn exchange(
    shared: &Shared,
    (peer, link): (NodeId, &Link),
    handed: Handed,
    sound: &Samples,
) -> Result<Option<Heard>, NetError> {
    let (mut sender, mut receiver) = link.open(REQUEST_PRIORITY).await?;
    if sender.version() < SOUND_SINCE {
        let message = "the node that has the model takes no sound from others; update it";
        let (stage, blame) = (Stage::HandOff, Blame::Peer);
        let refusal = Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message);
        return Ok(Some(Heard::Failed(refusal)));
    }
    let spoken = Spoken {
        samples: sound.len() as u32,
        trace: handed.trace,
        receipt: handed.receipt.map(|receipt| receipt.seal(&Key(&shared.identity))),
        handed: wire::HandOff {
            hop: 1,
            origin: shared.me,
            tenant: handed.tenant,
            label: handed.label,
            deadline: handed.deadline,
            fence: handed.fence,
            request: handed.request,
        },
    };
    begin(&mut sender, &Opening::Spoken(Box::new(spoken))).await?;
    let listening = listen(shared, peer, &mut receiver);
    let within = arrives_within(sound.len());
    let telling = tokio::time::timeout(within.into(), tell(&mut sender, sound));
    tokio::pin!(listening, telling);
    let sent = tokio::select! {
        biased;
        // A peer that refuses takes no sound, and says why.
        heard = &mut listening => return heard,
        sent = &mut telling => sent,
    };
    // One that does not read on is left for another.
    let sent = sent.map_err(|_| NetError::Lost("it takes no sound".to_owned()))?;
    match listening.await? {
        Some(heard) => Ok(Some(heard)),
        None => sent.map(|()| None),
    }
}

/// What a peer says, from its first sign of life on, which comes while it takes the sound.
async fn listen(
    shared: &Shared,
    peer: NodeId,
    receiver: &mut FrameReceiver,
) -> Result<Option<Heard>, NetError> {
    loop {
        let reply = tokio::time::timeout(SILENCE.into(), receiver.recv::<SpokenReply>()).await;
        let reply = reply.unwrap_or_else(|_| Err(NetError::Lost("it is silent".to_owned())))?;
        match reply {
            Some(SpokenReply::Accepted) => {}
            Some(SpokenReply::Refused(refusal)) => return Ok(Some(Heard::Failed(refusal))),
            Some(SpokenReply::Answer(heard)) => return Ok(Some(heard)),
            Some(SpokenReply::Alive(pulse)) => {
                // The failure detector hears it too: this is the fastest sign of a frozen peer.
                shared.mesh.tell_or_drop(MeshMessage::PulseSeen { node: peer, pulse });
            }
            None => return Ok(None),
        }
    }
}

/// The time in which so many samples come over the poorest link.
const fn arrives_within(samples: usize) -> Micros {
    WHOLE_WITHIN.plus(Micros::secs(samples as u64 * SAMPLE_BYTES / SLOWEST))
}

async fn tell(sender: &mut FrameSender, sound: &Samples) -> Result<(), NetError> {
    let mut left = sound.len();
    for samples in sound.chunks(CHUNK_SAMPLES) {
        left -= samples.len();
        sender.send(&Chunk { samples: samples.to_vec(), last: left == 0 }).await?;
    }
    sender.finish();
    Ok(())
}

/// Serves a peer's request.
pub(crate) async fn take(
    shared: &Shared,
    from: NodeId,
    spoken: Spoken,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) -> Result<(), NetError> {
    let asking = traced(shared, &from, &spoken);
    let checked = check(shared, from, &spoken);
    let Spoken { samples, handed, .. } = spoken;
    // It counts as running from here on, also while its sound comes.
    let _serving = shared.serving.hold(from);
    let id = shared.run_id();
    let _cancel = CancelOnDrop { shared, id };
    let submitted = match checked.and_then(|()| shared.sounds.share_of(from, samples as usize)) {
        Err(refusal) => Err(refusal),
        Ok(share) => {
            let samples = samples as usize;
            let within = arrives_within(samples).min(handed.deadline);
            let sound = receive(shared, &mut sender, &mut receiver, (samples, within)).await?;
            let request = SpeechRequest { id, ..handed.request };
            engine(shared, request, Arc::new(sound)).map(|ended| (ended, share))
        }
    };
    let (ended, _share) = match submitted {
        Ok(submitted) => submitted,
        Err(refusal) => {
            shared.counters.refused.bump();
            asking.failed(refusal.code.as_str());
            let reply = SpokenReply::Refused(refusal.spoken_at(sender.version()));
            sender.send(&reply).await?;
            sender.finish();
            return Ok(());
        }
    };
    shared.counters.taken.bump();
    let _gauge = Held::new(&shared.counters.serving);
    sender.send(&SpokenReply::Accepted).await?;
    let heard = watched(shared, &mut sender, ended, handed.deadline).await?;
    let Some(heard) = heard else { return Ok(()) };
    match &heard {
        Heard::Told(transcript) => asking.finished(Some(super::usage_of(transcript))),
        Heard::Failed(refusal) => asking.failed(refusal.code.as_str()),
    }
    sender.send(&SpokenReply::Answer(heard)).await?;
    sender.finish();
    Ok(())
}

/// Waits for the engine with signs of life; none where nobody wants the answer any more.
async fn watched(
    shared: &Shared,
    sender: &mut FrameSender,
    mut ended: Ended,
    deadline: Micros,
) -> Result<Option<Heard>, NetError> {
    let deadline = tokio::time::sleep(deadline.into());
    tokio::pin!(deadline);
    let stopped = sender.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            biased;
            heard = &mut ended => {
                return Ok(Some(match heard {
                    Ok(Ok(transcript)) => Heard::Told(Box::new(transcript)),
                    Ok(Err(refusal)) => Heard::Failed(refusal),
                    Err(_) => Heard::Failed(engine_went_silent()),
                }));
            }
            () = &mut stopped => return Ok(None),
            () = &mut deadline => return Ok(Some(Heard::Failed(deadline_passed()))),
            () = tokio::time::sleep(ALIVE_EVERY.into()) => {}
        }
        sender.send(&SpokenReply::Alive(shared.pulse())).await?;
    }
}

/// The sound that follows a request, all of it within a time, with signs of life meanwhile.
async fn receive(
    shared: &Shared,
    sender: &mut FrameSender,
    receiver: &mut FrameReceiver,
    (samples, within): (usize, Micros),
) -> Result<Vec<i16>, NetError> {
    let whole = tokio::time::timeout(within.into(), gather(receiver, samples));
    tokio::pin!(whole);
    loop {
        tokio::select! {
            biased;
            gathered = &mut whole => {
                let late = |_| NetError::Lost("the sound did not come in time".to_owned());
                return gathered.map_err(late)?;
            }
            () = tokio::time::sleep(ALIVE_EVERY.into()) => {}
        }
        sender.send(&SpokenReply::Alive(shared.pulse())).await?;
    }
}

/// Exactly as much sound as was announced.
async fn gather(receiver: &mut FrameReceiver, samples: usize) -> Result<Vec<i16>, NetError> {
    let mut sound = Vec::new();
    while sound.len() < samples {
        let Some(chunk) = receiver.recv::<Chunk>().await? else { return Err(NetError::Truncated) };
        let fits = !chunk.samples.is_empty()
            && chunk.samples.len() <= CHUNK_SAMPLES
            && sound.len() + chunk.samples.len() <= samples
            && chunk.last == (sound.len() + chunk.samples.len() == samples);
        if !fits {
            return Err(NetError::Lost("the sound is not what was announced".to_owned()));
        }
        sound.extend_from_slice(&chunk.samples);
    }
    Ok(sound)
}

/// As for any hand-off, before anything is taken.
fn check(shared: &Shared, from: NodeId, spoken: &Spoken) -> Result<(), Refusal> {
    let handed = &spoken.handed;
    let samples = spoken.samples as usize;
    let request = &handed.request;
    let within = (1..=MAX_SAMPLES).contains(&samples)
        && request.prompt.len() <= PROMPT_BYTES
        && request.language.as_ref().is_none_or(|language| language.len() <= 16)
        && request.temperature_milli <= 1_000;
    if !within {
        let message = "the request is over this node's bounds";
        let (stage, blame) = (Stage::HandOff, Blame::Peer);
        return Err(Refusal::new(stage, blame, Retry::Elsewhere, Code::InvalidRequest, message));
    }
    let stand_in = stand_in(handed, samples);
    let site = shared.view.load().node(&from).map(|node| node.site.clone());
    let running = shared.serving.count(&from);
    shared.receive.check(from, site.as_deref(), running, &stand_in)?;
    let must = shared.policies.is_hard(&handed.tenant);
    let receipt = spoken.receipt.as_ref();
    let (now, between) = (clock::mono(), (from, shared.me));
    shared.receipts.lock().check(now, between, &stand_in, receipt, must)
}

/// A request for text that takes as much, which is what the checks know.
fn stand_in(handed: &wire::HandOff<SpeechRequest>, samples: usize) -> HandOff {
    let (_, written) = tokens_of(samples);
    HandOff {
        hop: handed.hop,
        origin: handed.origin,
        tenant: handed.tenant.clone(),
        label: handed.label,
        deadline: handed.deadline,
        fence: handed.fence,
        request: GenerateRequest {
            id: handed.request.id,
            model: handed.request.model,
            input: Input::Text(String::new()),
            sampling: Sampling {
                temperature: 0.0,
                top_p: 1.0,
                top_k: 0,
                presence_penalty: 0.0,
                frequency_penalty: 0.0,
                seed: 0,
                further: Further::NONE,
            },
            max_tokens: written.min(Limits::ANSWER_TOKENS),
            stop: Vec::new(),
            logprobs: None,
            schema: None,
            emitted: None,
        },
    }
}

/// The peer's request in the trace that it named, if this node tells of requests.
fn traced(shared: &Shared, from: &NodeId, spoken: &Spoken) -> Asking {
    let caller = spoken.trace.as_ref().filter(|trace| trace.is_within_bounds());
    let (Some(tracer), Some(caller)) = (&shared.tracer, caller) else { return Asking::default() };
    let origin = shared.view.load().name_of(from);
    let trace = tracer.begin(Some(caller), Came::Peer { origin });
    let model = model_name(shared, spoken.handed.request.model);
    let mut asking = Trace::ask(Some(&trace), &model, || Whom::Here);
    asking.note(|turn| turn.operation = TRANSCRIPTION);
    asking
}
