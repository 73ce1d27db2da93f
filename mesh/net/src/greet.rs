//! The Hello: what two nodes say before anything else is listened to.
//!
//! Owns the exchange. First both sides knock: each shows that it knows the mesh's id without
//! telling it, the dialler first. Then the dialler sends its Hello, the other side answers with its
//! own or with a refusal, and the dialler confirms by ending its half. So a link comes up on both
//! sides or on neither. Which versions agree is `selvedge_proto::wire`'s rule, who is admitted is
//! the gate's decision.

use selvedge_base::codec::CodecError;
use selvedge_base::{Blame, Code, NodeId, Refusal, Retry, Stage};
use selvedge_proto::wire::{
    self, Hello, HelloReply, Knock, KnockReply, MAX_HELLO_BYTES, MAX_LISTEN_ADDRS,
};

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
    let knocks = Knocks::new(lane, gate)?;
    sender.send(&knocks.dialler).await?;
    match receiver.recv::<KnockReply>().await? {
        Some(KnockReply::Known(knock)) if knock.fits(&knocks.dialled) => {}
        Some(KnockReply::Known(_)) => {
            sender.reset(stream_code::CANCELLED);
            return Err(NetError::RefusedHere { node, refusal: stranger() });
        }
        Some(KnockReply::Refused(refusal)) => {
            return Err(NetError::RefusedByPeer { node, refusal });
        }
        None => return Err(NetError::Truncated),
    }
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
    lane: &Lane,
    node: NodeId,
    gate: &dyn Gate,
) -> Result<Greeted, NetError> {
    let knocks = Knocks::new(lane, gate)?;
    let known = match receiver.recv::<Knock>().await {
        Ok(Some(knock)) if knock.fits(&knocks.dialler) => Ok(()),
        Ok(Some(_)) => Err(stranger()),
        Ok(None) => return Err(NetError::Truncated),
        // A newer build is told which versions are spoken here; that is no secret.
        Err(NetError::Codec(error)) => Err(unreadable(&error)),
        Err(error) => return Err(error),
    };
    if let Err(refusal) = known {
        sender.send(&KnockReply::Refused(refusal.clone())).await?;
        return Err(turned_away(sender, node, refusal).await);
    }
    sender.send(&KnockReply::Known(knocks.dialled)).await?;
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
            Err(turned_away(sender, node, refusal).await)
        }
    }
}

/// Ends the conversation with a node that was refused.
async fn turned_away(sender: &mut FrameSender, node: NodeId, refusal: Refusal) -> NetError {
    sender.finish();
    // It hears it or it does not: the connection closes either way.
    let _heard = tokio::time::timeout(LAST_WORDS, sender.stopped()).await;
    NetError::RefusedHere { node, refusal }
}

/// What each side has to show on this connection.
struct Knocks {
    dialler: Knock,
    dialled: Knock,
}

impl Knocks {
    fn new(lane: &Lane, gate: &dyn Gate) -> Result<Self, NetError> {
        let mut secret = [0; 32];
        lane.connection
            .export_keying_material(&mut secret, b"selvedge knock", b"")
            .map_err(|_| NetError::Tls("the connection exports no secret".into()))?;
        let mesh = gate.mesh();
        let (dialler, dialled) =
            (Knock::new(&mesh, &secret, true), Knock::new(&mesh, &secret, false));
        Ok(Self { dialler, dialled })
    }
}

/// What every stranger is told, and nothing more.
fn stranger() -> Refusal {
    let message = "not a member of this mesh";
    Refusal::client(Stage::Authenticate, Code::Unauthorized, message)
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
        CodecError::Version(_) | CodecError::Format(_) | CodecError::NotAgreed { .. } => {
            Code::Unsupported
        }
        CodecError::TooLarge { .. } => Code::TooLarge,
        CodecError::Malformed(_) | CodecError::Trailing(_) => Code::InvalidRequest,
    };
    let message = format!("the first words cannot be read: {error}");
    Refusal::new(Stage::Authenticate, Blame::Peer, Retry::Never, code, message)
}
