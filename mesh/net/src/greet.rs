//! The Hello: what two nodes say before anything else is listened to.
//!
//! Owns the exchange. The dialler sends its Hello, the other side answers with its own or with a
//! refusal, and the dialler confirms by ending its half. So a link comes up on both sides or on
//! neither. Which versions agree is `selvedge_proto::wire`'s rule, who is admitted is the gate's
//! decision.

use selvedge_base::codec::CodecError;
use selvedge_base::{Blame, Code, NodeId, Refusal, Retry, Stage};
use selvedge_proto::wire::{self, Hello, HelloReply, MAX_HELLO_BYTES, MAX_LISTEN_ADDRS};

use crate::config::LAST_WORDS;
use crate::error::{NetError, stream_code};
use crate::event::Gate;
use crate::frame::{FrameReceiver, FrameSender};
use crate::link::Lane;

/// A peer whose Hello was admitted, and the version to speak with it.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) hello: Hello,
    pub(crate) version: u8,
}

/// The dialler's half that is left open until the link is registered on this side.
pub(crate) struct Confirmation(FrameSender);

impl Confirmation {
    /// Tells the other side that this one agrees.
    pub(crate) fn give(mut self) {
        self.0.finish();
    }
}

/// The dialler's part.
pub(crate) async fn introduce(
    lane: &Lane,
    node: NodeId,
    gate: &dyn Gate,
) -> Result<(Greeted, Confirmation), NetError> {
    let halves = lane.connection.open_bi().await?;
    let (mut sender, mut receiver) = lane.frame(halves, MAX_HELLO_BYTES);
    let ours = gate.hello();
    sender.send(&ours).await?;
    let theirs = match receiver.recv::<HelloReply>().await? {
        Some(HelloReply::Welcome(hello)) => *hello,
        Some(HelloReply::Refused(refusal)) => {
            return Err(NetError::RefusedByPeer { node, refusal });
        }
        None => return Err(NetError::Truncated),
    };
    match judge(gate, node, &ours, &theirs) {
        Ok(version) => Ok((Greeted { hello: theirs, version }, Confirmation(sender))),
        Err(refusal) => {
            // Its end would say yes.
            sender.reset(stream_code::CANCELLED);
            Err(NetError::RefusedHere { node, refusal })
        }
    }
}

/// The first part of the side that was dialled: hears the Hello and answers it.
pub(crate) async fn receive(
    (sender, receiver): (&mut FrameSender, &mut FrameReceiver),
    node: NodeId,
    gate: &dyn Gate,
) -> Result<Greeted, NetError> {
    let ours = gate.hello();
    let judged = match receiver.recv::<Hello>().await {
        Ok(Some(theirs)) => {
            judge(gate, node, &ours, &theirs).map(|version| Greeted { hello: theirs, version })
        }
        Ok(None) => return Err(NetError::Truncated),
        Err(NetError::Codec(error)) => Err(unreadable(&error)),
        Err(error) => return Err(error),
    };
    match judged {
        Ok(greeted) => {
            sender.send(&HelloReply::Welcome(Box::new(ours))).await?;
            Ok(greeted)
        }
        Err(refusal) => {
            sender.send(&HelloReply::Refused(refusal.clone())).await?;
            sender.finish();
            // It hears it or it does not: the connection closes either way.
            let _heard = tokio::time::timeout(LAST_WORDS, sender.stopped()).await;
            Err(NetError::RefusedHere { node, refusal })
        }
    }
}

/// The second part of the side that was dialled: waits until the dialler agrees.
pub(crate) async fn confirmed(receiver: &mut FrameReceiver) -> Result<(), NetError> {
    match receiver.recv::<()>().await? {
        None => Ok(()),
        Some(()) => Err(NetError::Codec(CodecError::Malformed("more than one Hello".into()))),
    }
}

/// The version to speak with a peer, or why it may not come in.
fn judge(gate: &dyn Gate, node: NodeId, ours: &Hello, theirs: &Hello) -> Result<u8, Refusal> {
    let version = wire::agree((ours.oldest, ours.newest), (theirs.oldest, theirs.newest))?;
    if theirs.listen.len() > MAX_LISTEN_ADDRS {
        let message = format!("a Hello may list {MAX_LISTEN_ADDRS} addresses");
        let stage = Stage::Authenticate;
        return Err(Refusal::client(stage, Code::InvalidRequest, message));
    }
    gate.admit(node, theirs).map(|()| version)
}

fn unreadable(error: &CodecError) -> Refusal {
    let code = match error {
        CodecError::Version(_) | CodecError::Format(_) => Code::Unsupported,
        CodecError::TooLarge { .. } => Code::TooLarge,
        CodecError::Malformed(_) | CodecError::Trailing(_) => Code::InvalidRequest,
    };
    let message = format!("the Hello cannot be read: {error}");
    Refusal::new(Stage::Authenticate, Blame::Peer, Retry::Never, code, message)
}
