//! The serving side of a hand-off: a peer's request, checked, run on the local engine, streamed.
//!
//! Owns one task per stream that a member opened. A stream's first frame says what it is; until
//! it came, the stream holds a place in a bounded room for a bounded time. The checks are
//! [`selvedge_core::receive`]'s, the answer is the engine's; this carries frames.

use std::sync::Arc;

use selvedge_base::codec::CodecError;
use selvedge_base::{
    Blame, Code, Micros, ModelDigest, NodeId, Refusal, RequestId, Retry, Stage, TraceContext,
};
use selvedge_contract::{Answer, Asker, EventSink};
use selvedge_core::{Charged, Detailed, HandOff, HandOffReply, Opening, Shaped, Traced};
use selvedge_net::{FrameReceiver, FrameSender, NetError, clock};
use selvedge_proto::records::Signed;
use selvedge_proto::wire::{ALIVE_EVERY, Receipt};
use tokio::sync::mpsc;

use crate::counters::Held;
use crate::federated::answer_fits;
use crate::line::MeshLine;
use crate::membership::Membership;
use crate::relay::speech::peer as speech;
use crate::shared::Shared;
use crate::trace::{Asking, Came, Trace, Whom, finish_of, usage_of};
use crate::{answers, policy_sync, sync};

/// A stream must begin to say what it is within this: its first frame was written before it was
/// opened.
const OPENING_WITHIN: Micros = Micros::secs(5);
/// The whole of it must be there within this: 8 MiB, a part of a round, at 2.5 Mbit/s, which is a
/// poor uplink.
pub(crate) const WHOLE_WITHIN: Micros = Micros::secs(30);

/// What serving a stream may need.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) mesh: MeshLine,
}

/// Serves one stream of a member until it ends.
pub(crate) async fn stream(
    context: Context,
    from: NodeId,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) {
    let served = match opening(&mut receiver).await {
        Ok(Some(Opening::HandOff(handed))) => {
            let taken = Taken { handed, receipt: None, trace: None };
            hand_off(&context.shared, from, taken, sender, receiver).await
        }
        Ok(Some(Opening::Sync(message))) => {
            sync::answer(&context, from, message, sender, receiver).await
        }
        Ok(Some(Opening::Renew(held))) => {
            sync::answer_renewal(&context.membership, from, *held, sender).await
        }
        Ok(Some(Opening::Charged(charged))) => {
            hand_off(&context.shared, from, (*charged).into(), sender, receiver).await
        }
        Ok(Some(Opening::Traced(traced))) => {
            hand_off(&context.shared, from, (*traced).into(), sender, receiver).await
        }
        Ok(Some(Opening::Shaped(shaped))) => {
            hand_off(&context.shared, from, (*shaped).into(), sender, receiver).await
        }
        Ok(Some(Opening::Detailed(detailed))) => {
            hand_off(&context.shared, from, (*detailed).into(), sender, receiver).await
        }
        Ok(Some(Opening::Spoken(spoken))) => {
            speech::take(&context.shared, from, *spoken, sender, receiver).await
        }
        Ok(Some(Opening::Quota(message))) => {
            context.shared.quota.hear(from, *message).await;
            Ok(())
        }
        Ok(Some(Opening::Policy(message))) => {
            policy_sync::take(&context, from, *message).await;
            Ok(())
        }
        Ok(Some(Opening::Settings(message))) => {
            policy_sync::take_settings(&context, from, *message).await;
            Ok(())
        }
        Ok(Some(Opening::Answers(word))) => answers::take(&context, from, *word, sender).await,
        Ok(Some(Opening::Echo)) => sender.send(&()).await,
        Ok(Some(Opening::Federated(word))) => {
            context.shared.federation.hear(from, *word).await;
            Ok(())
        }
        Ok(Some(Opening::Personal(word))) => {
            context.shared.federation.hear_personal(from, *word).await;
            Ok(())
        }
        Ok(Some(Opening::Machine(machine))) => {
            context.shared.machines.hear(from, *machine);
            Ok(())
        }
        Ok(Some(Opening::Fits(word))) => answer_fits(&context.shared, from, *word, sender).await,
        Ok(None) => Ok(()),
        Err(error) => Err(unread(&context.shared, from, error)),
    };
    if let Err(error) = served {
        tracing::debug!(peer = %from.short(), %error, "stream ended early");
    }
}

/// What a stream is for; none where it does not say so in time.
async fn opening(receiver: &mut FrameReceiver) -> Result<Option<Opening>, NetError> {
    let begun = tokio::time::timeout(OPENING_WITHIN.into(), receiver.begun()).await;
    if !matches!(begun, Ok(Ok(()))) {
        return Ok(None);
    }
    let whole = tokio::time::timeout(WHOLE_WITHIN.into(), receiver.recv::<Opening>()).await;
    whole.unwrap_or(Ok(None))
}

/// Tells people of a member whose streams say what nobody can read; of what is said only how it is
/// wrong. A stream that broke off is no lie.
fn unread(shared: &Shared, from: NodeId, error: NetError) -> NetError {
    let NetError::Codec(wrong) = &error else { return error };
    let reason = match wrong {
        CodecError::TooLarge { .. } => "oversized",
        CodecError::Version(_)
        | CodecError::NotAgreed { .. }
        | CodecError::Format(_)
        | CodecError::Malformed(_)
        | CodecError::Trailing(_) => "malformed",
    };
    if let Some(times) = shared.unread.lock().note(clock::mono(), from, reason, 1) {
        let (node, id) = (shared.view.load().name_of(&from), from.short());
        tracing::warn!(node, id, reason, times, "a node sent what cannot be read");
    }
    error
}

/// What a peer hands over.
struct Taken {
    handed: HandOff,
    receipt: Option<Signed<Receipt>>,
    trace: Option<TraceContext>,
}

impl From<Charged> for Taken {
    fn from(Charged { handed, receipt }: Charged) -> Self {
        Self { handed, receipt: Some(receipt), trace: None }
    }
}

impl From<Traced> for Taken {
    fn from(Traced { trace, handed, receipt }: Traced) -> Self {
        Self { handed, receipt, trace: Some(trace) }
    }
}

impl From<Shaped> for Taken {
    fn from(Shaped { schema, trace, mut handed, receipt }: Shaped) -> Self {
        handed.request.schema = Some(schema);
        Self { handed, receipt, trace }
    }
}

impl From<Detailed> for Taken {
    fn from(Detailed { details, trace, mut handed, receipt }: Detailed) -> Self {
        handed.request = handed.request.with_details(details);
        Self { handed, receipt, trace }
    }
}

/// The peer's request in the trace that it named, if this node tells of requests.
fn traced(shared: &Shared, from: &NodeId, taken: &Taken) -> Asking {
    let caller = taken.trace.as_ref().filter(|trace| trace.is_within_bounds());
    let (Some(tracer), Some(caller)) = (&shared.tracer, caller) else { return Asking::default() };
    let view = shared.view.load();
    let trace = tracer.begin(Some(caller), Came::Peer { origin: view.name_of(from) });
    Trace::ask(Some(&trace), &model_name(shared, taken.handed.request.model), || Whom::Here)
}

pub(crate) fn model_name(shared: &Shared, digest: ModelDigest) -> String {
    let models = shared.engine.status().models;
    let known = models.into_iter().find(|model| model.card.digest == digest);
    known.map_or_else(|| digest.to_string(), |model| model.card.name)
}

async fn hand_off(
    shared: &Shared,
    from: NodeId,
    taken: Taken,
    mut sender: FrameSender,
    _request_side: FrameReceiver,
) -> Result<(), NetError> {
    let mut asking = traced(shared, &from, &taken);
    let Taken { mut handed, receipt, .. } = taken;
    let peer_site = shared.view.load().node(&from).map(|node| node.site.clone());
    let running = shared.serving.count(&from);
    let checked = shared.receive.check(from, peer_site.as_deref(), running, &handed);
    let checked = checked.and_then(|()| {
        let must = shared.policies.is_hard(&handed.tenant);
        let (now, between) = (clock::mono(), (from, shared.me));
        shared.receipts.lock().check(now, between, &handed, receipt.as_ref(), must)
    });
    let id = shared.run_id();
    let (to_stream, mut answers) = mpsc::unbounded_channel();
    handed.request.id = id;
    let submitted = checked.and_then(|()| {
        // Bounded by the answer, as in the gateway: `max_tokens` tokens and three more events.
        // What a peer calls its tenants is its own affair: two peers' may have one name.
        let tenant = format!("{from}|{}", handed.tenant);
        // Nor has it more places the more of them it names.
        let group = from.to_string();
        let within = Some(handed.deadline);
        let asker = Asker { within, group: &group, ..Asker::new(&tenant) };
        shared.engine.submit_as(&asker, handed.request, Box::new(PeerSink(to_stream)))
    });
    if let Err(refusal) = submitted {
        shared.counters.refused.bump();
        asking.failed(refusal.code.as_str());
        let refusal = refusal.spoken_at(sender.version());
        return sender.send(&HandOffReply::Refused(refusal)).await;
    }
    shared.counters.taken.bump();
    let _serving = shared.serving.hold(from);
    let _gauge = Held::new(&shared.counters.serving);
    let _cancel = CancelOnDrop { shared, id };
    sender.send(&HandOffReply::Accepted).await?;
    let deadline = tokio::time::sleep(handed.deadline.into());
    tokio::pin!(deadline);
    // The ingest node drops its half of the stream when nobody wants the answer any more.
    let stopped = sender.stopped();
    tokio::pin!(stopped);
    loop {
        let reply = tokio::select! {
            biased;
            answer = answers.recv() => match answer {
                Some(answer) => HandOffReply::Answer(answer),
                None => HandOffReply::Answer(Answer::Failed(engine_went_silent())),
            },
            () = &mut stopped => return Ok(()),
            () = &mut deadline => HandOffReply::Answer(Answer::Failed(deadline_passed())),
            () = tokio::time::sleep(ALIVE_EVERY.into()) => HandOffReply::Alive(shared.pulse()),
        };
        let last = note(&mut asking, &reply);
        sender.send(&reply).await?;
        if last {
            sender.finish();
            return Ok(());
        }
    }
}

/// Notes a reply for the trace; whether it is the last.
fn note(asking: &mut Asking, reply: &HandOffReply) -> bool {
    match reply {
        HandOffReply::Answer(Answer::Token(_)) => asking.came(),
        HandOffReply::Answer(Answer::Finished { reason, usage, .. }) => {
            asking.note(|turn| turn.finish.push(finish_of(*reason)));
            std::mem::take(asking).finished(Some(usage_of(usage)));
            return true;
        }
        HandOffReply::Answer(Answer::Failed(refusal)) => {
            std::mem::take(asking).failed(refusal.code.as_str());
            return true;
        }
        HandOffReply::Answer(Answer::Started { .. })
        | HandOffReply::Accepted
        | HandOffReply::Refused(_)
        | HandOffReply::Alive(_) => {}
    }
    false
}

/// Carries the engine's events into the stream's task.
struct PeerSink(mpsc::UnboundedSender<Answer>);

impl EventSink for PeerSink {
    fn send(&mut self, answer: Answer) -> bool {
        self.0.send(answer).is_ok()
    }
}

/// Frees the engine however the stream's task ends.
pub(crate) struct CancelOnDrop<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) id: RequestId,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.shared.engine.cancel(self.id);
    }
}

pub(crate) fn engine_went_silent() -> Refusal {
    let message = "the engine dropped the request";
    Refusal::new(Stage::Execute, Blame::Peer, Retry::Elsewhere, Code::Internal, message)
}

pub(crate) fn deadline_passed() -> Refusal {
    let message = "the request's deadline passed on the serving node";
    Refusal::new(Stage::Execute, Blame::Peer, Retry::Never, Code::Timeout, message)
}
