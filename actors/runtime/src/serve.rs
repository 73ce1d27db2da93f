//! The serving side of a hand-off: a peer's request, checked, run on the local engine, streamed.
//!
//! Owns one task per stream that a member opened. A stream's first frame says what it is; until
//! it came, the stream holds a place in a bounded room for a bounded time. The checks are
//! [`selvedge_core::receive`]'s, the answer is the engine's; this carries frames.

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, NodeId, Refusal, RequestId, Retry, Stage};
use selvedge_contract::{Answer, EventSink};
use selvedge_core::{Charged, HandOff, HandOffReply, Opening};
use selvedge_net::{FrameReceiver, FrameSender, NetError, clock};
use selvedge_proto::records::Signed;
use selvedge_proto::wire::{ALIVE_EVERY, Receipt};
use tokio::sync::mpsc;

use crate::counters::Held;
use crate::line::MeshLine;
use crate::membership::Membership;
use crate::shared::Shared;
use crate::{policy_sync, sync};

/// A stream must say what it is within this: its first frame was written before it was opened.
const OPENING_WITHIN: Micros = Micros::secs(5);

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
    let opening = tokio::time::timeout(OPENING_WITHIN.into(), receiver.recv::<Opening>()).await;
    let served = match opening {
        Ok(Ok(Some(Opening::HandOff(handed)))) => {
            hand_off(&context.shared, from, (handed, None), sender, receiver).await
        }
        Ok(Ok(Some(Opening::Sync(message)))) => {
            sync::answer(&context, from, message, sender, receiver).await
        }
        Ok(Ok(Some(Opening::Renew(held)))) => {
            sync::answer_renewal(&context.membership, from, *held, sender).await
        }
        Ok(Ok(Some(Opening::Charged(charged)))) => {
            let Charged { handed, receipt } = *charged;
            hand_off(&context.shared, from, (handed, Some(receipt)), sender, receiver).await
        }
        Ok(Ok(Some(Opening::Quota(message)))) => {
            context.shared.quota.hear(from, *message).await;
            Ok(())
        }
        Ok(Ok(Some(Opening::Policy(message)))) => {
            policy_sync::take(&context, from, *message).await;
            Ok(())
        }
        Ok(Ok(Some(Opening::Echo))) => sender.send(&()).await,
        Ok(Ok(None)) | Err(_) => Ok(()),
        Ok(Err(error)) => Err(error),
    };
    if let Err(error) = served {
        tracing::debug!(peer = %from.short(), %error, "stream ended early");
    }
}

async fn hand_off(
    shared: &Shared,
    from: NodeId,
    (mut handed, receipt): (HandOff, Option<Signed<Receipt>>),
    mut sender: FrameSender,
    _request_side: FrameReceiver,
) -> Result<(), NetError> {
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
        shared.engine.submit(handed.request, Box::new(PeerSink(to_stream)))
    });
    if let Err(refusal) = submitted {
        shared.counters.refused.bump();
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
        let last =
            matches!(reply, HandOffReply::Answer(Answer::Finished { .. } | Answer::Failed(_)));
        sender.send(&reply).await?;
        if last {
            sender.finish();
            return Ok(());
        }
    }
}

/// Carries the engine's events into the stream's task.
struct PeerSink(mpsc::UnboundedSender<Answer>);

impl EventSink for PeerSink {
    fn send(&mut self, answer: Answer) -> bool {
        self.0.send(answer).is_ok()
    }
}

/// Frees the engine however the stream's task ends.
struct CancelOnDrop<'a> {
    shared: &'a Shared,
    id: RequestId,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.shared.engine.cancel(self.id);
    }
}

fn engine_went_silent() -> Refusal {
    let message = "the engine dropped the request";
    Refusal::new(Stage::Execute, Blame::Peer, Retry::Elsewhere, Code::Internal, message)
}

fn deadline_passed() -> Refusal {
    let message = "the request's deadline passed on the serving node";
    Refusal::new(Stage::Execute, Blame::Peer, Retry::Never, Code::Timeout, message)
}
