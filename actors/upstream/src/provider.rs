//! One provider, asked: the attempts of one request.
//!
//! Owns the loop: leave from the desk, one exchange, the ending told to the desk, and again if it
//! says so. Each attempt that was let through is accounted for once, also when nobody waits for it
//! any more. Decides nothing itself.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use selvedge_base::{Dice, Micros, Mono};
use selvedge_core::upstream::{
    Ask, Decision, Denied, Desk, Ending, ProviderSpec, Report, Ticket, Tries,
};

use crate::Clock;
use crate::auth::{Credential, Shown};
use crate::body::Answer;
use crate::call::Call;
use crate::error::{Failed, Lost};
use crate::target::Target;

/// Is told what an operator may want to know; must return at once.
pub type Watcher = Box<dyn Fn(&ProviderSpec, &Report) + Send + Sync>;

/// What all workers share of one provider.
pub struct Shared {
    spec: ProviderSpec,
    desk: Mutex<Desk>,
    /// One for each configured key, in that order; one [`Credential::None`] where none is.
    credentials: RwLock<Vec<Option<Arc<Shown>>>>,
    dice: Mutex<Dice>,
    clock: Clock,
    watcher: Watcher,
}

impl Shared {
    /// What is shared of a provider of which nothing is known yet. `credentials` are those of the
    /// configured keys, in that order; a key that the vault does not have is none.
    pub fn new(
        spec: ProviderSpec,
        credentials: Vec<Option<Credential>>,
        dice: Dice,
        clock: Clock,
        watcher: Watcher,
    ) -> Arc<Self> {
        let shown = |credential| Arc::new(Shown::new(spec.kind, credential));
        let credentials = match spec.keys.is_empty() {
            true => vec![Some(shown(Credential::None))],
            false => credentials.into_iter().map(|known| known.map(shown)).collect(),
        };
        let desk = Mutex::new(Desk::new(spec.desk));
        let credentials = RwLock::new(credentials);
        Arc::new(Self { spec, desk, credentials, dice: Mutex::new(dice), clock, watcher })
    }

    /// The provider.
    pub const fn spec(&self) -> &ProviderSpec {
        &self.spec
    }

    /// A key was added, replaced or removed in the vault.
    pub fn replace(&self, place: usize, credential: Option<Credential>) {
        if let Some(slot) = self.credentials.write().get_mut(place) {
            *slot = credential.map(|known| Arc::new(Shown::new(self.spec.kind, known)));
        }
        self.desk.lock().key_replaced(place);
    }

    /// Whether a request would be let through now, for routing.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn allows(&self, model: &str, tokens: u64) -> Result<(), Denied> {
        self.desk.lock().allows(self.now(), &Ask { model, tokens, tried: &[] })
    }

    /// Attempts under way.
    pub fn running(&self) -> u32 {
        self.desk.lock().running()
    }

    fn now(&self) -> Mono {
        (self.clock.mono)()
    }

    fn credential(&self, place: usize) -> Option<Arc<Shown>> {
        self.credentials.read().get(place).cloned().flatten()
    }
}

/// Leave for one attempt, given back once: with its ending, or as left when dropped.
pub(crate) struct Guard {
    shared: Arc<Shared>,
    ticket: Ticket,
    ended: bool,
    used: Option<u64>,
}

impl Guard {
    pub(crate) const fn key(&self) -> usize {
        self.ticket.key()
    }

    pub(crate) const fn used(&mut self, tokens: u64) {
        self.used = Some(tokens);
    }

    pub(crate) fn failed(&self, lost: Lost, attempts: u32) -> Failed {
        Failed::Attempt {
            provider: self.shared.spec.name.clone(),
            ending: lost.ending,
            why: lost.why,
            said: lost.said,
            attempts,
        }
    }

    pub(crate) fn end(&mut self, ending: Ending) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let shared = &self.shared;
        let mut reports = Vec::new();
        let now = shared.now();
        shared.desk.lock().ended(now, self.ticket, ending, self.used, &mut reports);
        for report in &reports {
            (shared.watcher)(&shared.spec, report);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(Ending::Left);
    }
}

/// One provider, as one worker asks it.
pub struct Provider {
    shared: Arc<Shared>,
    target: Target,
}

/// Why one attempt brought no answer.
enum Missed {
    Denied(Denied, Mono),
    Lost(Lost, usize),
}

impl Provider {
    /// A provider reached by a worker's own target.
    pub const fn new(shared: Arc<Shared>, target: Target) -> Self {
        Self { shared, target }
    }

    /// What all workers share of it.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The worker's own connections.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Asks, and again where that makes sense, until the first byte of an answer comes. Dropping
    /// this cancels what is under way.
    ///
    /// # Errors
    /// [`Failed`], with the ending of the last attempt.
    pub async fn ask(&self, call: &Call, deadline: Mono) -> Result<Answer, Failed> {
        self.shared.desk.lock().requested();
        let provider = || self.shared.spec.name.clone();
        let mut tries = Tries::default();
        let mut last: Option<Failed> = None;
        loop {
            if let Some(ending) = Tries::late(self.shared.now(), deadline) {
                let lost = Lost::late(ending);
                let attempts = tries.made();
                let (ending, why, said) = (lost.ending, lost.why, lost.said);
                return Err(Failed::Attempt { provider: provider(), ending, why, said, attempts });
            }
            let hedge = self.shared.desk.lock().hedge_after().filter(|_| call.idempotent);
            let round = match hedge {
                None => self.attempt(call, deadline, tries.tried()).await,
                // Twice the size of an attempt, for the few that need it.
                Some(after) => Box::pin(self.hedged(call, deadline, tries.tried(), after)).await,
            };
            let (lost, key) = match round {
                Ok(answer) => return Ok(answer.after(tries.made() + 1)),
                Err(Missed::Lost(lost, key)) => (lost, key),
                Err(Missed::Denied(denied, now)) => {
                    let denied = Failed::Denied { provider: provider(), denied, now };
                    // What an earlier attempt met says more than that there is no further one.
                    return Err(last.unwrap_or(denied));
                }
            };
            let ending = lost.ending;
            let decision = {
                let (mut dice, mut desk) = (self.shared.dice.lock(), self.shared.desk.lock());
                let until = (self.shared.now(), deadline);
                tries.ended(&mut desk, until, &call.model, (key, ending), &mut dice)
            };
            last = Some(Failed::Attempt {
                provider: provider(),
                ending,
                why: lost.why,
                said: lost.said,
                attempts: tries.made(),
            });
            match (decision, last.take()) {
                (Decision::Again { after }, kept) => {
                    last = kept;
                    tokio::time::sleep(after.into()).await;
                }
                (Decision::Final | Decision::Elsewhere, Some(failed)) => return Err(failed),
                (Decision::Final | Decision::Elsewhere, None) => {}
            }
        }
    }

    /// One attempt, and beside it a second one when the first is silent for longer than `after`.
    async fn hedged(
        &self,
        call: &Call,
        deadline: Mono,
        tried: &[usize],
        after: Micros,
    ) -> Result<Answer, Missed> {
        let mut first = std::pin::pin!(self.attempt(call, deadline, tried));
        tokio::select! {
            biased;
            ended = &mut first => return ended,
            () = tokio::time::sleep(after.into()) => {}
        }
        if !self.shared.desk.lock().hedge(true) {
            return first.await;
        }
        let mut second = std::pin::pin!(self.attempt(call, deadline, tried));
        // One answer is enough; where one fails, the other's word counts.
        tokio::select! {
            biased;
            ended = &mut first => match ended {
                Ok(answer) => Ok(answer),
                Err(_) => second.await,
            },
            ended = &mut second => match ended {
                Ok(answer) => Ok(answer),
                Err(Missed::Lost(..)) => first.await,
                Err(Missed::Denied(..)) => {
                    self.shared.desk.lock().not_hedged();
                    first.await
                }
            },
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        deadline: Mono,
        tried: &[usize],
    ) -> Result<Answer, Missed> {
        let shared = &self.shared;
        let now = shared.now();
        let ask = Ask { model: &call.model, tokens: call.tokens, tried };
        let ticket =
            shared.desk.lock().admit(now, &ask).map_err(|denied| Missed::Denied(denied, now))?;
        let key = ticket.key();
        let mut guard = Guard { shared: Arc::clone(shared), ticket, ended: false, used: None };
        let exchanged = match shared.credential(key) {
            Some(credential) => {
                self.target.exchange(&shared.spec, call, &credential, deadline).await
            }
            None => Err(Lost::new(Ending::Unsent, "its key is not in the vault of this node")),
        };
        match exchanged {
            Ok((flow, head)) => Ok(Answer::new(flow, head, guard)),
            Err(lost) => {
                guard.end(lost.ending);
                Err(Missed::Lost(lost, key))
            }
        }
    }
}
