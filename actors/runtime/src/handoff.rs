//! The ingest side of a hand-off: one stream to a peer, its frames turned into facts.
//!
//! Owns the stream and its task. Dropping the [`Outbound`] drops the stream, by which the peer
//! learns that nobody wants the answer any more. Does not decide what a silent or failing peer
//! means: the flow machine does.

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, NodeId, Refusal, Retry, Stage, TraceContext};
use selvedge_contract::{Constraint, GenerateRequest, Input};
use selvedge_core::flow::FlowInput;
use selvedge_core::{Charged, Detailed, HandOff, HandOffReply, Opening, Shaped, Traced};
use selvedge_net::{FrameSender, Link, NetError};
use selvedge_proto::records::Signed;
use selvedge_proto::wire::{Label, Receipt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::membership::Key;
use crate::mesh::{BUDGETS_SINCE, MeshMessage};
use crate::shared::Shared;

/// Priority of request streams; control streams (row sync) run below it, so that an answer never
/// waits for gossip.
pub(crate) const REQUEST_PRIORITY: i32 = 10;
/// Priority of control streams.
pub(crate) const CONTROL_PRIORITY: i32 = 0;

/// The wire version that knows traces.
const TRACES_SINCE: u8 = 4;

/// The wire version that knows answers that hold to a schema.
const SCHEMAS_SINCE: u8 = 8;

/// The wire version that knows chats with tools.
const TOOLS_SINCE: u8 = 10;

/// The wire version that knows what is asked beside a request.
const DETAILS_SINCE: u8 = 13;

/// The wire version that knows answers that hold to something else than a schema.
const GRAMMARS_SINCE: u8 = 14;

/// A stream notices the end of its link a moment before the reason is known.
const REASON_WITHIN: Micros = Micros::millis(20);

/// A request for a peer.
pub(crate) struct Handed {
    /// Names the attempt.
    pub fence: u64,
    /// The peer.
    pub to: NodeId,
    /// Who is charged.
    pub tenant: String,
    /// How far the data may travel.
    pub label: Label,
    /// Time left.
    pub deadline: Micros,
    /// Who answers for its tokens, where budgets count it.
    pub receipt: Option<Receipt>,
    /// The trace that goes on there, if there is one.
    pub trace: Option<TraceContext>,
    /// The request.
    pub request: GenerateRequest,
}

/// A hand-off under way; dropping it cancels it.
pub(crate) struct Outbound(JoinHandle<()>);

impl Drop for Outbound {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Hands a request to a peer; what comes back arrives at `events`.
pub(crate) fn send(
    shared: Arc<Shared>,
    handed: Handed,
    events: mpsc::Sender<FlowInput>,
) -> Outbound {
    Outbound(tokio::spawn(async move {
        let fence = handed.fence;
        let _in_flight = shared.in_flight.hold(handed.to);
        let link = shared.endpoint.link(&handed.to);
        let why = match (exchange(&shared, handed, link.as_ref(), &events).await, link) {
            (Ok(()), _) => "the stream ended before the answer did".to_owned(),
            (Err(NetError::Lost(seen)), Some(link)) => {
                // The link knows better than the stream why it ended.
                let told = tokio::time::timeout(REASON_WITHIN.into(), link.closed()).await;
                told.unwrap_or(seen)
            }
            (Err(error), _) => error.to_string(),
        };
        // Fails only when the request is over; then nobody needs to know.
        let _over = events.send(FlowInput::Lost { fence, why }).await;
    }))
}

/// Says what a stream is for, unless the peer would not understand it.
pub(crate) async fn begin(sender: &mut FrameSender, opening: &Opening) -> Result<(), NetError> {
    sender.send_since(opening.since(), opening).await
}

/// Tells a peer something that it does not answer on the same stream; done when the peer has it, or
/// wants it no more.
///
/// # Errors
/// As opening a stream and sending.
pub(crate) async fn deliver(link: &Link, priority: i32, opening: &Opening) -> Result<(), NetError> {
    let (mut sender, _no_answer) = link.open(priority).await?;
    begin(&mut sender, opening).await?;
    sender.finish();
    // The stream must not be dropped before the peer has it.
    sender.stopped().await;
    Ok(())
}

/// What a peer of a version is told of a request: as much as it understands.
fn opening(
    version: u8,
    mut handed: HandOff,
    receipt: Option<Signed<Receipt>>,
    trace: Option<TraceContext>,
) -> Opening {
    // A peer that knows no receipts knows no budgets either: this node answers for both.
    let receipt = receipt.filter(|_| version >= BUDGETS_SINCE);
    if !handed.request.sampling.further.is_none() {
        let details = handed.request.take_details();
        return Opening::Detailed(Box::new(Detailed { details, trace, handed, receipt }));
    }
    if let Some(schema) = handed.request.schema.take() {
        return Opening::Shaped(Box::new(Shaped { schema, trace, handed, receipt }));
    }
    match (trace.filter(|_| version >= TRACES_SINCE), receipt) {
        (Some(trace), receipt) => Opening::Traced(Box::new(Traced { trace, handed, receipt })),
        (None, Some(receipt)) => Opening::Charged(Box::new(Charged { handed, receipt })),
        (None, None) => Opening::HandOff(handed),
    }
}

async fn exchange(
    shared: &Shared,
    handed: Handed,
    link: Option<&Link>,
    events: &mpsc::Sender<FlowInput>,
) -> Result<(), NetError> {
    let (fence, peer) = (handed.fence, handed.to);
    let Some(link) = link else {
        return Err(NetError::Lost("there is no link to it".to_owned()));
    };
    let (mut sender, mut receiver) = link.open(REQUEST_PRIORITY).await?;
    let (receipt, trace) = (handed.receipt, handed.trace);
    let handed = HandOff {
        hop: 1,
        origin: shared.me,
        tenant: handed.tenant,
        label: handed.label,
        deadline: handed.deadline,
        fence,
        request: handed.request,
    };
    if let Some(refusal) = unfit(sender.version(), &handed.request) {
        // The flow tries another node, or says why there is none.
        let _over = events.send(FlowInput::Refused { fence, refusal }).await;
        return Ok(());
    }
    let receipt = receipt.map(|receipt| receipt.seal(&Key(&shared.identity)));
    let opening = opening(sender.version(), handed, receipt, trace);
    begin(&mut sender, &opening).await?;
    while let Some(reply) = receiver.recv::<HandOffReply>().await? {
        let input = match reply {
            HandOffReply::Accepted => FlowInput::Accepted { fence },
            HandOffReply::Refused(refusal) => FlowInput::Refused { fence, refusal },
            HandOffReply::Answer(answer) => FlowInput::Answered { fence, answer },
            HandOffReply::Alive(pulse) => {
                // The failure detector hears it too: this is the fastest sign of a frozen peer.
                shared.mesh.tell_or_drop(MeshMessage::PulseSeen { node: peer, pulse });
                FlowInput::Pulsed { fence, pulse }
            }
        };
        if events.send(input).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Why a peer of a version is not asked: it would answer anything where a schema must be held to,
/// take a grammar for a schema that is wrong, draw as if nothing more were asked of the draw, and
/// does not understand what a chat with tools is.
fn unfit(version: u8, request: &GenerateRequest) -> Option<Refusal> {
    let held = request.schema.as_deref().map(Constraint::of);
    let message = if held.is_some() && version < SCHEMAS_SINCE {
        "the node that has the model cannot hold answers to a schema; update it"
    } else if held.is_some_and(|held| !held.is_schema()) && version < GRAMMARS_SINCE {
        "the node that has the model holds answers to JSON Schemas only; update it"
    } else if matches!(request.input, Input::Tooled(_)) && version < TOOLS_SINCE {
        "the node that has the model does not know chats with tools; update it"
    } else if !request.sampling.further.is_none() && version < DETAILS_SINCE {
        "the node that has the model knows no 'min_p' and no penalty on repetition; update it"
    } else {
        return None;
    };
    let (stage, blame) = (Stage::HandOff, Blame::Peer);
    Some(Refusal::new(stage, blame, Retry::Elsewhere, Code::Unsupported, message))
}

#[cfg(test)]
#[path = "handoff_tests.rs"]
mod tests;
