//! Peers that have a model which this node does not: asked one after the other.
//!
//! Owns the walk. A peer that refuses, is lost or takes too long is followed by the next one, but
//! where the refusal says that it would be the same anywhere. The time is the request's; there is
//! no answer to go on from, so each peer begins anew.

use std::sync::Arc;

use selvedge_base::{Blame, Code, ModelDigest, NodeId, Refusal, Retry, Stage};
use selvedge_contract::Answer;
use selvedge_contract::carried::{self, Carried, Gathering, MAX_CARRIED_BYTES};
use selvedge_core::flow::FlowInput;
use selvedge_dialect::inference::tensors::Asked;
use selvedge_net::clock;
use selvedge_proto::wire::{Label, MAX_RECEIPT_BUDGETS, Receipt};
use tokio::sync::mpsc;

use super::{Errand, errand, late, lost};
use crate::handoff::{self, Handed};
use crate::quota::Reservation;
use crate::trace::{INFERENCE, Trace, Whom};

/// Events of a peer that wait to be read: an answer is a handful.
const EVENTS: usize = 16;
/// What a receipt covers: such a request has no tokens, and says one.
const TOKENS: u64 = 1;

impl Errand {
    /// What a peer's model gives, or what it takes and gives.
    pub(super) async fn elsewhere(
        &self,
        digest: ModelDigest,
        holders: &[NodeId],
        asked: Option<Asked>,
        reservation: &mut Option<Reservation>,
    ) -> Result<Carried, Refusal> {
        let wants_signature = asked.is_none();
        let asked = asked.unwrap_or_default();
        let outputs = asked.outputs();
        let request = carried::to_hand_off(self.call.id, digest, asked.inputs, outputs);
        let request = request.map_err(|_| too_large(&self.call.model))?;
        let mut last = nobody(&self.call.model);
        for (fence, peer) in (1..).zip(holders.iter().filter(|node| **node != self.shared.me)) {
            let mut asking = Trace::ask(self.call.trace.as_ref(), &self.call.model, || {
                Whom::Peer { node: self.shared.view.load().name_of(peer) }
            });
            asking.note(|turn| turn.operation = INFERENCE);
            let deadline = self.deadline.since(clock::mono());
            let handed = Handed {
                fence,
                to: *peer,
                tenant: self.call.tenant.clone(),
                label: self.call.label.unwrap_or(Label::Mesh),
                deadline,
                receipt: self.receipt(fence, *peer, reservation.as_ref()),
                trace: asking.context(),
                request: request.clone(),
            };
            self.shared.counters.handed_off.bump();
            let (events, mut heard) = mpsc::channel(EVENTS);
            let _outbound = handoff::send(Arc::clone(&self.shared), handed, events);
            let told = tokio::select! {
                biased;
                lost = lost(reservation) => return Err(lost),
                barred = errand::barred(&self.shared, self.payer()) => return Err(barred),
                told = tokio::time::timeout(deadline.into(), answer(&mut heard)) => told,
            };
            let told = told.unwrap_or_else(|_| Err(late()));
            let fits =
                |carried: &Carried| matches!(carried, Carried::Signature(_)) == wants_signature;
            match told {
                Ok(carried) if fits(&carried) => {
                    asking.finished(None);
                    return Ok(carried);
                }
                Ok(_) => last = no_answer("with something else"),
                Err(refusal) => last = refusal,
            }
            asking.failed(last.code.as_str());
            if matches!(last.retry, Retry::Never) || last.blame == Blame::Client {
                break;
            }
        }
        Err(last)
    }

    /// What a serving peer is shown of the reservation.
    fn receipt(
        &self,
        fence: u64,
        serving: NodeId,
        reservation: Option<&Reservation>,
    ) -> Option<Receipt> {
        let budgets = match reservation {
            Some(reservation) => reservation.budgets(),
            None if self.shared.policies.is_hard(self.call.account.tenant()) => &[][..],
            None => return None,
        };
        Some(Receipt {
            request: self.call.id,
            ingest: self.shared.me,
            serving,
            account: self.call.account.to_string(),
            key: self.call.key.map(|key| key.to_string()),
            tokens: TOKENS,
            not_after_in: self.call.deadline,
            fence,
            budgets: budgets.iter().take(MAX_RECEIPT_BUDGETS).map(|budget| budget.0).collect(),
        })
    }
}

/// One peer's answer.
async fn answer(heard: &mut mpsc::Receiver<FlowInput>) -> Result<Carried, Refusal> {
    let mut gathering = Gathering::default();
    while let Some(input) = heard.recv().await {
        match input {
            FlowInput::Refused { refusal, .. } => return Err(refusal),
            FlowInput::Answered { answer: Answer::Failed(refusal), .. } => return Err(refusal),
            FlowInput::Answered { answer: Answer::Token(event), .. } if gathering.take(&event) => {}
            FlowInput::Answered { answer: Answer::Token(_), .. } => {
                return Err(no_answer("with more than it may"));
            }
            FlowInput::Answered { answer: Answer::Finished { .. }, .. } => {
                return gathering.finish().ok_or_else(|| no_answer("with what is no answer"));
            }
            FlowInput::Lost { why, .. } => return Err(no_answer(&format!("no more: {why}"))),
            _ => {}
        }
    }
    Err(no_answer("no more"))
}

fn no_answer(how: &str) -> Refusal {
    let message = format!("the node that has the model answers {how}");
    Refusal::new(Stage::HandOff, Blame::Peer, Retry::Elsewhere, Code::PeerLost, message)
}

fn nobody(model: &str) -> Refusal {
    let message = format!(
        "no node that can be reached has model '{model}'; `selvedge models list` shows what is here"
    );
    let (blame, retry) = (Blame::Us, Retry::Elsewhere);
    Refusal::new(Stage::Route, blame, retry, Code::ModelUnavailable, message).param("model")
}

fn too_large(model: &str) -> Refusal {
    let message = format!(
        "model '{model}' is on other nodes, which take inputs of up to {} MiB: ask such a node \
         itself, or fetch the model here with `selvedge models pull`",
        MAX_CARRIED_BYTES >> 20
    );
    Refusal::client(Stage::Route, Code::TooLarge, message).param("inputs")
}
