//! What the budgets' machine wants people to know: the log and the counters.

use selvedge_core::quota::QuotaEvent;

use crate::counters::Counters;

/// Writes an event down.
pub(super) fn report(counters: &Counters, event: &QuotaEvent) {
    match event {
        QuotaEvent::Gave { to, amount, .. } => {
            counters.budget_gifts.bump();
            tracing::debug!(peer = %to.node.short(), amount, "gave budget rights");
        }
        QuotaEvent::Got { from, amount, .. } => {
            counters.budget_receipts.bump();
            tracing::debug!(peer = %from.node.short(), amount, "got budget rights");
        }
        QuotaEvent::AskedPeer { peer, amount, urgent, .. } => {
            tracing::debug!(peer = %peer.short(), amount, urgent, "asked for budget rights");
        }
        QuotaEvent::Evidence(misdeed) => {
            tracing::error!(?misdeed, "a holder of budget rights lies, or its store was copied");
        }
        QuotaEvent::Overdrawn { holder, by, .. } => {
            tracing::error!(
                peer = %by.short(),
                row_of = %holder.node.short(),
                "a node gave away more of a budget than there was; nothing of it is counted"
            );
        }
        QuotaEvent::RowRefused { from, why } => {
            tracing::warn!(peer = %from.short(), ?why, "a row of a budget was refused");
        }
        QuotaEvent::RolledBack { ours, theirs, incarnation, .. } => {
            tracing::error!(
                ours,
                theirs,
                incarnation,
                "this node's store was rolled back or copied: it goes on without budget rights \
                 until peers or the next configuration give it some"
            );
        }
        QuotaEvent::Confirmed { by } => {
            tracing::info!(peer = %by.short(), "a peer confirmed this node's budget rows");
        }
        QuotaEvent::DebtBooked { amount, .. } => {
            tracing::warn!(amount, "more was used than a budget allows: the next window pays");
        }
        QuotaEvent::LeaseEnded { amount } => {
            tracing::warn!(amount, "a reservation was never settled: it counts in full");
        }
        QuotaEvent::StorageFailed { why } => {
            counters.budget_write_failures.bump();
            tracing::error!(%why, "budgets cannot be written; what needs a write is refused");
        }
        QuotaEvent::Reclaimed { from, amount, .. } => {
            tracing::info!(
                peer = %from.node.short(),
                amount,
                "took over what a node that is out of reach had left of a budget"
            );
        }
        QuotaEvent::TakenOver { by, .. } => {
            tracing::warn!(
                peer = %by.node.short(),
                "was thought to be out of reach: a peer took over what this node had left of a \
                 budget"
            );
        }
        QuotaEvent::Regained { .. } => tracing::info!("holds rights of a budget again"),
        QuotaEvent::Dropped { .. } => tracing::debug!("a budget's window was closed"),
        QuotaEvent::Retired => tracing::info!("all budget rights were given away"),
    }
}
