//! Carrying the exchange of state between two members: three frames on a stream.
//!
//! Owns the streams. What is lacking, what may be taken and what follows from it are decided by
//! `selvedge_proto::sync` and the mesh actor. Lease renewals travel the same way: a member asks, a
//! steward signs.

use std::sync::Arc;

use selvedge_base::{Micros, NodeId};
use selvedge_core::Opening;
use selvedge_net::{FrameReceiver, FrameSender, Link, NetError};
use selvedge_proto::records::Credential;
use selvedge_proto::sync::Taken;
use selvedge_proto::wire::{RenewReply, SyncMessage};

use crate::handoff::{CONTROL_PRIORITY, begin};
use crate::line::MeshLine;
use crate::membership::{Membership, refused};
use crate::mesh::MeshMessage;
use crate::serve::Context;

/// An exchange of three frames within this, or it is tried again later.
const EXCHANGE_WITHIN: Micros = Micros::secs(5);

/// Opens an exchange with a peer. Failures are left to the next round.
pub(crate) async fn open(membership: Arc<Membership>, mesh: MeshLine, link: Link) {
    let peer = link.node();
    let exchanged = tokio::time::timeout(EXCHANGE_WITHIN.into(), async {
        let (mut sender, mut receiver) = link.open(CONTROL_PRIORITY).await?;
        let digest = membership.digest();
        begin(&mut sender, &Opening::Sync(SyncMessage::Digest(digest))).await?;
        let Some(SyncMessage::Delta(delta)) = receiver.recv::<SyncMessage>().await? else {
            return Ok(());
        };
        if let Some(theirs) = &delta.digest {
            let answer = membership.delta(peer, theirs, false);
            sender.send(&SyncMessage::Delta(answer)).await?;
        }
        sender.finish();
        take(&membership, &mesh, peer, SyncMessage::Delta(delta)).await;
        Ok::<(), NetError>(())
    })
    .await;
    if let Ok(Err(error)) = exchanged {
        tracing::debug!(peer = %peer.short(), %error, "state exchange failed");
    }
}

/// Answers an exchange that a peer opened.
pub(crate) async fn answer(
    context: &Context,
    from: NodeId,
    message: SyncMessage,
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
) -> Result<(), NetError> {
    let (membership, mesh) = (&*context.membership, &context.mesh);
    let SyncMessage::Digest(theirs) = message else {
        take(membership, mesh, from, message).await;
        return Ok(());
    };
    let delta = membership.delta(from, &theirs, true);
    sender.send(&SyncMessage::Delta(delta)).await?;
    sender.finish();
    let third = tokio::time::timeout(EXCHANGE_WITHIN.into(), receiver.recv::<SyncMessage>()).await;
    if let Ok(Ok(Some(message))) = third {
        take(membership, mesh, from, message).await;
    }
    Ok(())
}

/// Asks a steward for a new lease.
pub(crate) async fn renew(
    membership: Arc<Membership>,
    mesh: MeshLine,
    link: Link,
    held: Credential,
) {
    let renewed = tokio::time::timeout(EXCHANGE_WITHIN.into(), async {
        let (mut sender, mut receiver) = link.open(CONTROL_PRIORITY).await?;
        begin(&mut sender, &Opening::Renew(Box::new(held))).await?;
        receiver.recv::<RenewReply>().await
    })
    .await;
    match renewed {
        Ok(Ok(Some(RenewReply::Renewed(credential)))) => {
            let not_after = credential.membership.body.not_after;
            match membership.renewed(*credential).await {
                Ok(()) => {
                    tracing::info!(until_s = not_after.as_secs(), "membership renewed");
                    mesh.tell(MeshMessage::Renewed);
                }
                Err(refusal) => tracing::warn!(%refusal, "the renewed membership is not good"),
            }
        }
        Ok(Ok(Some(RenewReply::Refused(refusal)))) => {
            tracing::warn!(%refusal, "the steward did not renew this node's membership");
        }
        Ok(Ok(None)) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "renewal failed"),
    }
}

/// Shows a peer this node's new lease, so that it does not count the old one's end.
pub(crate) async fn show_lease(membership: Arc<Membership>, link: Link) {
    let Some(held) = membership.with(|roster| roster.own().cloned()) else { return };
    let shown = tokio::time::timeout(EXCHANGE_WITHIN.into(), async {
        let (mut sender, mut receiver) = link.open(CONTROL_PRIORITY).await?;
        begin(&mut sender, &Opening::Renew(Box::new(held))).await?;
        // The answer is another lease or a refusal; this node has what it needs.
        receiver.recv::<RenewReply>().await.map(drop)
    })
    .await;
    if let Ok(Err(error)) = shown {
        tracing::debug!(peer = %link.node().short(), %error, "the new lease was not shown");
    }
}

/// Answers a member that asks for a new lease.
pub(crate) async fn answer_renewal(
    membership: &Membership,
    from: NodeId,
    held: Credential,
    mut sender: FrameSender,
) -> Result<(), NetError> {
    // Whoever shows a newer lease is remembered by it; a steward is asked for one the same way.
    membership.remember(from, &held);
    let reply = match membership.renew(from, &held) {
        Ok(credential) => RenewReply::Renewed(Box::new(credential)),
        Err(error) => RenewReply::Refused(refused(&error)),
    };
    sender.send(&reply).await?;
    sender.finish();
    Ok(())
}

async fn take(membership: &Membership, mesh: &MeshLine, from: NodeId, message: SyncMessage) {
    let SyncMessage::Delta(delta) = message else { return };
    match membership.apply(delta).await {
        // Most exchanges bring nothing new: nobody needs to hear of those.
        Ok(taken) if taken == Taken::default() => {}
        Ok(taken) => mesh.tell_in_turn(MeshMessage::Synced { from, taken }).await,
        Err(error) => tracing::error!(%error, peer = %from.short(), "records were not stored"),
    }
}
