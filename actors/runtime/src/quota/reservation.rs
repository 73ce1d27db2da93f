//! One request's hold on its budgets, from the question to the settlement.
//!
//! Owns that a reservation is settled exactly once, however its request ends: finished, refused,
//! its caller gone, its task dropped or panicked. Dropping the reservation settles it by what its
//! meter counted, or its bill says.

use selvedge_base::{Blame, Code, Micros, Refusal, RequestId, Retry, Stage};
use selvedge_contract::Usage;
use selvedge_core::bill::{Bill, Took};
use selvedge_core::meter::Meter;
use selvedge_core::quota::{Charge, CostClass, QuotaInput, Verdict};
use selvedge_crdt::escrow::BudgetId;
use selvedge_proto::policy::{AccountPath, KeyId};
use tokio::sync::oneshot;

use super::{Answered, QuotaLine};

/// A verdict comes within the machine's own patience with peers and one write to the disk; a disk
/// that takes longer than this has failed.
const VERDICT_WITHIN: Micros = Micros::secs(5);
/// How much longer than the request's deadline its reservation is held: the request settles it at
/// its deadline, and only one that was forgotten is settled by its lease.
const LEASE_BEYOND: Micros = Micros::secs(5);

/// What a request wants to use.
pub(crate) struct Wanted {
    /// The request.
    pub(crate) id: RequestId,
    /// Whose budgets.
    pub(crate) account: AccountPath,
    /// Under which key.
    pub(crate) key: Option<KeyId>,
    /// The model's name, for budgets that count only some.
    pub(crate) model: String,
    /// What it may take.
    pub(crate) takes: Takes,
    /// When it must be over.
    pub(crate) deadline: Micros,
}

/// What a request takes, by who computes the answer.
#[derive(Clone, Debug)]
pub(crate) enum Takes {
    /// Tokens, counted as they come: the mesh computes it.
    Free(Meter),
    /// Tokens and money: a provider does, and is paid.
    Paid(Bill),
}

/// What was reserved.
pub(crate) struct Reservation {
    line: QuotaLine,
    id: RequestId,
    model: String,
    takes: Takes,
    /// Providers are paid out of no budget of this request.
    local_only: bool,
    /// The budgets it draws from.
    budgets: Vec<BudgetId>,
    /// Another model must answer.
    downgrade: Option<String>,
    /// More was asked for.
    asked: Option<oneshot::Receiver<Verdict>>,
    /// Tells when the budgets take back what they gave; `None` once they did, or when somebody
    /// else waits for that.
    lost: Option<oneshot::Receiver<Refusal>>,
    /// Somebody else waits for it.
    lent: bool,
    /// Why there is no more.
    refused: Option<Refusal>,
    /// Nothing was reserved: there is nothing to settle.
    void: bool,
}

impl QuotaLine {
    /// Reserves what a request may take, waiting while its budgets are asked.
    ///
    /// # Errors
    /// Why it may not run.
    pub(crate) async fn reserve(&self, wanted: Wanted) -> Result<Reservation, Refusal> {
        let mut held = Reservation {
            line: self.clone(),
            id: wanted.id,
            model: wanted.model,
            takes: wanted.takes,
            local_only: false,
            budgets: Vec::new(),
            downgrade: None,
            asked: None,
            lost: self.follow(wanted.id),
            lent: false,
            refused: None,
            void: false,
        };
        let asked = QuotaInput::Asked {
            id: wanted.id,
            account: wanted.account,
            key: wanted.key,
            worst: held.worst(),
            lease: wanted.deadline.plus(LEASE_BEYOND),
        };
        // From here on dropping `held` settles, also while this waits.
        let verdict = match self.ask(wanted.id, asked) {
            Answered::Now(verdict) => Some(verdict),
            // Larger than all else here, and most are answered at once.
            Answered::Later(later) => Box::pin(self.verdict(later)).await,
        };
        match verdict {
            Some(Verdict::Granted { budgets, downgrade, local_only }) => {
                held.budgets = budgets;
                held.downgrade = downgrade;
                held.local_only = local_only;
                Ok(held)
            }
            Some(Verdict::Refused(refusal)) => {
                held.void = true;
                Err(refusal.to_refusal())
            }
            Some(Verdict::Extended) | None => Err(no_verdict()),
        }
    }

    /// The answer that comes later, if it comes in time.
    async fn verdict(&self, later: oneshot::Receiver<Verdict>) -> Option<Verdict> {
        self.0.counters.budget_waits.bump();
        let waited = tokio::time::timeout(VERDICT_WITHIN.into(), later).await;
        waited.ok().and_then(Result::ok)
    }
}

impl Reservation {
    /// The budgets it draws from.
    pub(crate) fn budgets(&self) -> &[BudgetId] {
        &self.budgets
    }

    /// Tokens the node answers for: reserved at once, or piece by piece as the answer grows.
    pub(crate) fn answers_for(&self) -> u64 {
        match &self.takes {
            Takes::Free(meter) => meter.answers_for(),
            Takes::Paid(bill) => bill.reserved().tokens,
        }
    }

    /// The model that must answer instead of the one asked for.
    pub(crate) fn downgrade(&self) -> Option<&str> {
        self.downgrade.as_deref()
    }

    /// Whether the answer must be computed in the mesh, where it costs no money.
    pub(crate) const fn local_only(&self) -> bool {
        self.local_only
    }

    /// A node has read the prompt.
    pub(crate) fn started(&mut self, prompt_tokens: u32) {
        let more = self.meter().and_then(|meter| meter.started(prompt_tokens));
        self.extend(more);
    }

    /// A token was given out.
    pub(crate) fn token(&mut self) {
        let more = self.meter().and_then(Meter::token);
        self.extend(more);
    }

    /// The answer is complete.
    pub(crate) fn finished(&mut self, usage: &Usage) {
        if let Some(meter) = self.meter() {
            meter.finished(usage);
        }
    }

    /// What a provider's answer took so far.
    pub(crate) const fn billed(&mut self, took: Took) {
        if let Takes::Paid(bill) = &mut self.takes {
            bill.told(took);
        }
    }

    /// Waits for the budgets' next word: the answer to the last wish for more, which it takes, or
    /// why the request must end at once, which it returns. Never comes back while there is none.
    /// May be dropped and called again.
    pub(crate) async fn answer(&mut self) -> Option<Refusal> {
        tokio::select! {
            biased;
            answered = word(&mut self.asked) => match answered {
                Some(verdict) => self.answered(verdict),
                // The line is gone, and the node with it.
                None => self.refused = Some(no_verdict()),
            },
            lost = word(&mut self.lost) => return lost,
        }
        None
    }

    fn answered(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Extended => {
                if let Some(meter) = self.meter() {
                    meter.extended();
                }
            }
            Verdict::Refused(refusal) => self.refused = Some(refusal.to_refusal()),
            Verdict::Granted { .. } => {}
        }
    }

    /// Why no token more may be given out, waiting for an answer that is due; `None` while some
    /// may.
    pub(crate) async fn ended(&mut self) -> Option<Refusal> {
        if let Some(lost) = self.taken_back() {
            return Some(lost);
        }
        if !self.is_used_up() {
            return None;
        }
        if self.asked.is_some() {
            // Without an answer in time there is none to wait for.
            let word = tokio::time::timeout(VERDICT_WITHIN.into(), self.answer()).await;
            if let Ok(Some(lost)) = word {
                return Some(lost);
            }
        }
        if !self.is_used_up() {
            return None;
        }
        Some(self.refused.clone().unwrap_or_else(no_verdict))
    }

    /// What tells when the budgets take back what they gave, for whoever waits for that beside this
    /// reservation, which then does not tell any more.
    pub(crate) fn loss(&mut self) -> Option<oneshot::Receiver<Refusal>> {
        let lost = self.lost.take();
        self.lent |= lost.is_some();
        lost
    }

    /// Why the request must end, if the budgets took back what they gave: a look, without waiting.
    pub(crate) fn taken_back(&mut self) -> Option<Refusal> {
        let lost = self.lost.as_mut()?.try_recv().ok()?;
        self.lost = None;
        Some(lost)
    }

    fn extend(&mut self, more: Option<u64>) {
        let Some(more) = more else { return };
        let more = Charge { tokens: more, ..self.charge() };
        let input = QuotaInput::Extended { id: self.id, more };
        match self.line.ask(self.id, input) {
            Answered::Now(verdict) => self.answered(verdict),
            Answered::Later(later) => self.asked = Some(later),
        }
    }

    const fn meter(&mut self) -> Option<&mut Meter> {
        match &mut self.takes {
            Takes::Free(meter) => Some(meter),
            Takes::Paid(_) => None,
        }
    }

    /// Whether nothing more may be given out. A paid answer was reserved for whole.
    fn is_used_up(&self) -> bool {
        match &self.takes {
            Takes::Free(meter) => meter.is_used_up(),
            Takes::Paid(_) => false,
        }
    }

    /// What is reserved before anything is computed.
    fn worst(&self) -> Charge {
        let took = match &self.takes {
            Takes::Free(meter) => Took { tokens: meter.reserved(), micro_dollars: 0 },
            Takes::Paid(bill) => bill.reserved(),
        };
        let Took { tokens, micro_dollars } = took;
        Charge { tokens, micro_dollars, requests: 1, ..self.charge() }
    }

    /// What is settled when the request ends now.
    fn actual(&self) -> Charge {
        let (took, begun) = match &self.takes {
            Takes::Free(meter) => {
                (Took { tokens: meter.used(), micro_dollars: 0 }, meter.has_begun())
            }
            Takes::Paid(bill) => (bill.used(), bill.has_begun()),
        };
        let Took { tokens, micro_dollars } = took;
        Charge { tokens, micro_dollars, requests: u64::from(begun), ..self.charge() }
    }

    /// Nothing yet, of this request's model and class.
    fn charge(&self) -> Charge {
        let class = match &self.takes {
            Takes::Free(_) => CostClass::Local,
            Takes::Paid(_) => CostClass::Cloud,
        };
        Charge { class, model: self.model.clone(), ..Charge::default() }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.lost.is_some() || self.lent {
            self.line.unfollow(self.id);
        }
        if self.void {
            return;
        }
        self.line.forget(self.id);
        let actual = self.actual();
        self.line.tell(QuotaInput::Settled { id: self.id, actual });
    }
}

/// The one word that comes by a channel, then nothing ever; `None` when none can come.
pub(crate) async fn word<T>(from: &mut Option<oneshot::Receiver<T>>) -> Option<T> {
    let Some(receiver) = from else { return std::future::pending().await };
    let word = receiver.await.ok();
    *from = None;
    word
}

fn no_verdict() -> Refusal {
    let message = "the budgets did not answer in time; the disk of this node may be stuck";
    let retry = Retry::After(Micros::secs(1));
    Refusal::new(Stage::Reserve, Blame::Us, retry, Code::Overloaded, message)
}
