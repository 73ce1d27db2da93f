//! The life of a request, as one machine: route → dispatch → tokens → (resume) → settle.
//!
//! A newcomer starts here. The stages before it (admit, authenticate, validate, reserve) are single
//! decisions in `auth`, in the HTTP surface and in `quota`; from routing on, a request has a life
//! of its own, and all of it is decided in this file:
//!
//! ```text
//! Arrived ─▶ Route ─▶ Dispatch ─▶ Answered… ─▶ Finished ─▶ Close
//!              ▲          │
//!              └── lost, frozen, refused: try another node, from the token log
//! ```
//!
//! Owns the token log (what the caller already has), the fence (which attempt may still speak) and
//! the patience with a node. Does not own bytes, timers or the choice itself: the shell evaluates
//! [`crate::route`] when asked to and feeds the result back.

use selvedge_base::plant::{self, Plant};
use selvedge_base::{
    Blame, Code, Machine, Micros, Mono, NodeId, Now, Refusal, RequestId, Retry, Stage,
};
use selvedge_contract::{Answer, Emitted, FinishReason, TokenEvent, Usage};
use selvedge_proto::choice::Choice;
use selvedge_proto::swim::Pulse;

use crate::receive::MAX_DEADLINE;
use crate::record::{Attempt, Outcome, RequestRecord};

/// A peer must accept or refuse a hand-off within this: a round trip on a LAN is under 1 ms, and a
/// busy machine schedules within a few hundred.
pub const ACCEPT_WITHIN: Micros = Micros::millis(1_000);
/// A serving peer sends a frame at least every 150 ms; four missed ones mean that it is gone. With
/// a re-dispatch this keeps the caller's pause under one second.
pub const SILENT_AFTER: Micros = Micros::millis(600);
/// A computing engine advances its counter with every layer, which takes milliseconds even on a
/// slow machine; one that stands still for this long while it computes is frozen.
pub const FROZEN_AFTER: Micros = Micros::millis(1_500);
/// A wake-up this much later than asked for means that this node stood still itself (a suspended
/// laptop, a starved process), and so could not hear the peer either. It is also how long such a
/// node then listens before it judges: frames that came meanwhile are read within a few
/// milliseconds, and a serving peer sends the next one within 150 ms.
pub const STALL_GRACE: Micros = Micros::millis(150);
/// Graces per attempt. A node whose every wake-up is late must not wait for a dead peer for ever:
/// three cost half a second at most, and three stalls within one attempt are one too many.
const MAX_GRACES: u8 = 3;
/// Attempts per request: enough to walk past several full or dead nodes, few enough that a poisoned
/// request cannot visit a whole mesh.
pub const MAX_ATTEMPTS: u32 = 6;
/// Fences of one target: well above its attempts.
const FENCES: u64 = 1 << 10;

/// What happened.
#[derive(Clone, Debug)]
pub enum FlowInput {
    /// The request was admitted.
    Arrived,
    /// The answer to [`FlowEffect::Route`].
    Routed(Result<Choice, Refusal>),
    /// The node of this attempt took the request.
    Accepted {
        /// Which attempt.
        fence: u64,
    },
    /// The node of this attempt refused it, before or after accepting.
    Refused {
        /// Which attempt.
        fence: u64,
        /// Why.
        refusal: Refusal,
    },
    /// The node of this attempt sent part of the answer.
    Answered {
        /// Which attempt.
        fence: u64,
        /// The part.
        answer: Answer,
    },
    /// The node of this attempt reported what it is doing.
    Pulsed {
        /// Which attempt.
        fence: u64,
        /// What it is doing.
        pulse: Pulse,
    },
    /// The connection of this attempt broke.
    Lost {
        /// Which attempt.
        fence: u64,
        /// How.
        why: String,
    },
    /// No budget allows the request: it was not reserved for, and goes nowhere.
    NotReserved(Refusal),
    /// The budget has no more for an answer that has begun.
    QuotaEnded(Refusal),
    /// The caller may not go on: its key was revoked or its account suspended.
    Barred(Refusal),
    /// The caller went away.
    CallerLeft,
    /// Time passed.
    Ticked,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum FlowEffect {
    /// Choose a node, none of `exclude`, and feed back [`FlowInput::Routed`].
    Route {
        /// Nodes that have already failed this request.
        exclude: Vec<NodeId>,
    },
    /// Hand the request to a node.
    Dispatch {
        /// Names the attempt in everything that comes back.
        fence: u64,
        /// The node, which may be this one.
        to: NodeId,
        /// What the caller already has.
        emitted: Option<Emitted>,
        /// Time left.
        deadline: Micros,
    },
    /// Stop the work of an attempt and ignore what it still says.
    Cancel {
        /// Which attempt.
        fence: u64,
    },
    /// Give this to the caller.
    Deliver(Piece),
    /// The request is over; nothing follows.
    Close,
}

/// What the caller gets. [`Piece::Finished`] or [`Piece::Failed`] is always the last.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// A node took the request and read the prompt.
    Started {
        /// Tokens in the prompt.
        prompt_tokens: u32,
        /// The node that answers.
        served_by: NodeId,
    },
    /// The next token; indexes are contiguous from 0, whatever happens behind.
    Token(TokenEvent),
    /// Another node goes on with the answer.
    Moved {
        /// The node that failed.
        from: NodeId,
        /// The node that goes on.
        to: NodeId,
        /// What happened to the first.
        why: String,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Text held back until now.
        text: String,
        /// What it took.
        usage: Usage,
        /// The node that answered last.
        served_by: NodeId,
    },
    /// There will be no (more) answer.
    Failed(Refusal),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Flow {
    arrived: Mono,
    deadline: Mono,
    state: State,
    fence: u64,
    tokens: Vec<u32>,
    prompt_digest: Option<[u8; 32]>,
    prompt_tokens: u32,
    started: bool,
    failed: Vec<NodeId>,
    /// Of `failed`, those that may only have been slow to answer: they get one more chance when
    /// nobody else is left.
    doubtful: Vec<NodeId>,
    last_refusal: Option<Refusal>,
    /// The node that failed and why, until another goes on.
    moving: Option<(NodeId, String)>,
    last_token_at: Option<Mono>,
    record: RequestRecord,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waiting for `Routed`.
    Routing,
    /// An attempt is under way.
    Waiting(Turn),
    /// Over.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    node: NodeId,
    accepted: bool,
    heard_at: Mono,
    /// When the engine last moved or was last seen not computing.
    moved_at: Mono,
    progress: u64,
    computing: bool,
    /// Not judged before this, since this node itself stood still.
    spared_until: Mono,
    graces: u8,
}

impl Flow {
    /// A request that just arrived and must be over by `deadline`.
    pub fn new(now: Now, id: RequestId, model: String, tenant: String, deadline: Micros) -> Self {
        let longer = if plant::is_on(Plant::DeadlineIgnored) { 8 } else { 1 };
        Self {
            arrived: now.mono,
            deadline: now.mono.plus(deadline.times(longer)),
            state: State::Routing,
            fence: 0,
            tokens: Vec::new(),
            prompt_digest: None,
            prompt_tokens: 0,
            started: false,
            failed: Vec::new(),
            doubtful: Vec::new(),
            last_refusal: None,
            moving: None,
            last_token_at: None,
            record: RequestRecord {
                id,
                model,
                downgraded_to: None,
                tenant,
                legs: Vec::new(),
                attempts: Vec::new(),
                outcome: Outcome::Running,
                took: Micros::ZERO,
                first_token: None,
                longest_gap: None,
                saving: None,
            },
        }
    }

    /// The same for a later target of the request, after so many others: a peer that had a turn
    /// for one of them takes no receipt with a fence that it has seen.
    #[must_use]
    pub const fn after(mut self, targets: usize) -> Self {
        self.fence = targets as u64 * FENCES;
        self
    }

    /// What there is to say about the request so far.
    pub const fn record(&self) -> &RequestRecord {
        &self.record
    }

    /// Another model answers instead of the one asked for, as the budget is used up.
    pub fn downgraded(&mut self, model: &str) {
        self.record.downgraded_to = Some(model.to_owned());
    }

    /// Whether the request is over.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    fn routed(&mut self, now: Now, choice: Choice, effects: &mut Vec<FlowEffect>) {
        let Some(node) = choice.chosen else {
            if !self.doubtful.is_empty() {
                // A busy node looks like a dead one for a moment. The failure detector tells them
                // apart soon; until then trying again is better than giving up.
                let again = std::mem::take(&mut self.doubtful);
                self.failed.retain(|node| !again.contains(node));
                return effects.push(FlowEffect::Route { exclude: self.failed.clone() });
            }
            let refusal = self.last_refusal.take().unwrap_or_else(|| nobody_left(&self.record));
            return self.fail(now, refusal, effects);
        };
        self.fence += 1;
        let from_index = u32::try_from(self.tokens.len()).unwrap_or(u32::MAX);
        self.record.attempts.push(Attempt { node, choice, from_index, ended: None });
        self.state = State::Waiting(Turn {
            node,
            accepted: false,
            heard_at: now.mono,
            moved_at: now.mono,
            progress: 0,
            computing: false,
            spared_until: now.mono,
            graces: 0,
        });
        let emitted = match (self.prompt_digest, self.tokens.is_empty()) {
            (Some(prompt_digest), false) => {
                let mut tokens = self.tokens.clone();
                if plant::is_on(Plant::ResumeRepeatsToken) {
                    tokens.pop();
                }
                Some(Emitted { tokens, prompt_digest })
            }
            _ => None,
        };
        effects.push(FlowEffect::Dispatch {
            fence: self.fence,
            to: node,
            emitted,
            // What is over the receiver's limit would be refused by every peer.
            deadline: self.deadline.since(now.mono).min(MAX_DEADLINE),
        });
    }

    /// The present attempt is over without an answer: try elsewhere or give up.
    fn turn_failed(
        &mut self,
        now: Now,
        node: NodeId,
        why: String,
        refusal: Refusal,
        effects: &mut Vec<FlowEffect>,
    ) {
        if !plant::is_on(Plant::FailedNotStopped) {
            effects.push(FlowEffect::Cancel { fence: self.fence });
        }
        if let Some(attempt) = self.record.attempts.last_mut() {
            attempt.ended = Some(why.clone());
        }
        if refusal.retry == Retry::Never || self.record.attempts.len() as u32 >= MAX_ATTEMPTS {
            return self.fail(now, refusal, effects);
        }
        self.failed.push(node);
        self.last_refusal = Some(refusal);
        if self.started && self.moving.is_none() {
            self.moving = Some((node, why));
        }
        self.state = State::Routing;
        effects.push(FlowEffect::Route { exclude: self.failed.clone() });
    }

    fn lost(&mut self, now: Now, node: NodeId, why: String, effects: &mut Vec<FlowEffect>) {
        let message = format!("node {} was lost while answering: {why}", node.short());
        let stage = if self.started { Stage::Resume } else { Stage::HandOff };
        let refusal = Refusal::new(stage, Blame::Peer, Retry::Elsewhere, Code::PeerLost, message);
        self.turn_failed(now, node, why, refusal, effects);
    }

    fn answered(&mut self, now: Now, turn: Turn, answer: Answer, effects: &mut Vec<FlowEffect>) {
        match answer {
            Answer::Started { prompt_tokens, prompt_digest } => {
                if self.prompt_digest.is_some_and(|known| known != prompt_digest) {
                    let why = "it reads the prompt differently".to_owned();
                    return self.lost(now, turn.node, why, effects);
                }
                self.prompt_digest = Some(prompt_digest);
                self.prompt_tokens = prompt_tokens;
                if let Some((from, why)) = self.moving.take() {
                    effects.push(FlowEffect::Deliver(Piece::Moved { from, to: turn.node, why }));
                } else if !self.started {
                    let served_by = turn.node;
                    effects.push(FlowEffect::Deliver(Piece::Started { prompt_tokens, served_by }));
                }
                self.started = true;
            }
            Answer::Token(token) => self.token(now, turn, token, effects),
            Answer::Finished { reason, text, usage } => {
                self.record.outcome = Outcome::Finished { reason, usage };
                let served_by = turn.node;
                let piece = Piece::Finished { reason, text, usage, served_by };
                effects.push(FlowEffect::Deliver(piece));
                if !plant::is_on(Plant::FinishedStaysOpen) {
                    self.close(now, effects);
                }
            }
            Answer::Failed(refusal) => {
                self.turn_failed(now, turn.node, refusal.message.clone(), refusal, effects);
            }
        }
    }

    fn token(&mut self, now: Now, turn: Turn, token: TokenEvent, effects: &mut Vec<FlowEffect>) {
        let next = self.tokens.len() as u64;
        let in_order = u64::from(token.index) == next || plant::is_on(Plant::ResumeRepeatsToken);
        if self.prompt_digest.is_none() || !in_order {
            let why = format!("it sent token {} where {next} was due", token.index);
            return self.lost(now, turn.node, why, effects);
        }
        self.tokens.push(token.token);
        match self.last_token_at.replace(now.mono) {
            None => self.record.first_token = Some(now.mono.since(self.arrived)),
            Some(before) => {
                // Only the first token after a change of node measures the change.
                let resumed_here = self.record.attempts.last().is_some_and(|attempt| {
                    attempt.from_index > 0 && attempt.from_index == token.index
                });
                if resumed_here {
                    let gap = now.mono.since(before);
                    self.record.longest_gap = self.record.longest_gap.max(Some(gap));
                }
            }
        }
        effects.push(FlowEffect::Deliver(Piece::Token(token)));
    }

    /// The answer ends where its budget does: what the caller has is what it gets.
    fn quota_ended(&mut self, now: Now, refusal: Refusal, effects: &mut Vec<FlowEffect>) {
        if matches!(self.state, State::Waiting(_)) {
            effects.push(FlowEffect::Cancel { fence: self.fence });
            if let Some(attempt) = self.record.attempts.last_mut() {
                attempt.ended = Some(refusal.message.clone());
            }
        }
        let last = self.record.attempts.last().map(|attempt| attempt.node);
        let (true, Some(served_by)) = (self.started, last) else {
            return self.fail(now, refusal, effects);
        };
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: u32::try_from(self.tokens.len()).unwrap_or(u32::MAX),
            first_token: self.record.first_token.unwrap_or_default(),
            total: now.mono.since(self.arrived),
            ..Usage::default()
        };
        let reason = FinishReason::Quota;
        self.record.outcome = Outcome::Finished { reason, usage };
        let text = String::new();
        effects.push(FlowEffect::Deliver(Piece::Finished { reason, text, usage, served_by }));
        self.close(now, effects);
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<FlowEffect>) {
        if now.mono >= self.deadline {
            if let State::Waiting(turn) = self.state {
                effects.push(FlowEffect::Cancel { fence: self.fence });
                if let Some(attempt) = self.record.attempts.last_mut() {
                    attempt.ended = Some(format!("deadline passed at {}", turn.node.short()));
                }
            }
            return self.fail(now, deadline_passed(), effects);
        }
        let State::Waiting(turn) = self.state else { return };
        if now.mono < turn.patience_ends() {
            return;
        }
        if let Some(spared) = turn.spared(now.mono) {
            self.state = State::Waiting(spared);
            return;
        }
        let why = if !turn.accepted {
            self.doubtful.push(turn.node);
            format!("no answer to the hand-off within {} ms", ACCEPT_WITHIN.as_millis())
        } else if now.mono >= turn.heard_at.plus(SILENT_AFTER) {
            self.doubtful.push(turn.node);
            format!("silent for {} ms", now.mono.since(turn.heard_at).as_millis())
        } else {
            format!("frozen: no progress for {} ms", now.mono.since(turn.moved_at).as_millis())
        };
        self.lost(now, turn.node, why, effects);
    }

    fn fail(&mut self, now: Now, refusal: Refusal, effects: &mut Vec<FlowEffect>) {
        self.record.outcome = Outcome::Failed(refusal.clone());
        if !plant::is_on(Plant::FailureSwallowed) {
            effects.push(FlowEffect::Deliver(Piece::Failed(refusal)));
        }
        self.close(now, effects);
    }

    fn close(&mut self, now: Now, effects: &mut Vec<FlowEffect>) {
        self.record.took = now.mono.since(self.arrived);
        self.state = State::Closed;
        effects.push(FlowEffect::Close);
    }

    /// The turn that may speak under `fence`; anything else is a voice from the past.
    fn speaking(&self, fence: u64) -> Option<Turn> {
        match self.state {
            State::Waiting(turn) if fence == self.fence => Some(turn),
            State::Waiting(turn) if plant::is_on(Plant::FenceUnchecked) => Some(turn),
            State::Waiting(_) | State::Routing | State::Closed => None,
        }
    }

    fn heard(&mut self, now: Now, fence: u64, note: impl FnOnce(&mut Turn)) -> Option<Turn> {
        let mut turn = self.speaking(fence)?;
        turn.heard_at = now.mono;
        note(&mut turn);
        self.state = State::Waiting(turn);
        Some(turn)
    }
}

impl Machine for Flow {
    type Input = FlowInput;
    type Effect = FlowEffect;

    fn step(&mut self, now: Now, input: FlowInput, effects: &mut Vec<FlowEffect>) {
        if self.is_closed() {
            return;
        }
        // A process that was stopped finds what came meanwhile before its own late tick.
        if now.mono >= self.deadline && !matches!(input, FlowInput::CallerLeft) {
            return self.tick(now, effects);
        }
        match input {
            FlowInput::Arrived => effects.push(FlowEffect::Route { exclude: Vec::new() }),
            FlowInput::NotReserved(_) if plant::is_on(Plant::RefusalIgnored) => {
                effects.push(FlowEffect::Route { exclude: Vec::new() });
            }
            FlowInput::Routed(_) if self.state != State::Routing => {}
            FlowInput::Routed(Ok(choice)) => self.routed(now, choice, effects),
            FlowInput::Routed(Err(refusal)) => {
                let refusal = self.last_refusal.take().unwrap_or(refusal);
                self.fail(now, refusal, effects);
            }
            FlowInput::Accepted { fence } => {
                self.heard(now, fence, |turn| {
                    turn.accepted = true;
                    turn.moved_at = now.mono;
                });
            }
            FlowInput::Refused { fence, refusal } => {
                if let Some(turn) = self.speaking(fence) {
                    self.turn_failed(now, turn.node, refusal.message.clone(), refusal, effects);
                }
            }
            FlowInput::Answered { fence, answer } => {
                let heard = self.heard(now, fence, |turn| {
                    turn.accepted = true;
                    turn.moved_at = now.mono;
                });
                if let Some(turn) = heard {
                    self.answered(now, turn, answer, effects);
                }
            }
            FlowInput::Pulsed { fence, pulse } => {
                self.heard(now, fence, |turn| turn.pulsed(now, pulse));
            }
            FlowInput::Lost { fence, why } => {
                if let Some(turn) = self.speaking(fence) {
                    self.lost(now, turn.node, why, effects);
                }
            }
            FlowInput::NotReserved(refusal) | FlowInput::Barred(refusal) => {
                if matches!(self.state, State::Waiting(_)) {
                    effects.push(FlowEffect::Cancel { fence: self.fence });
                }
                self.fail(now, refusal, effects);
            }
            FlowInput::QuotaEnded(refusal) => self.quota_ended(now, refusal, effects),
            FlowInput::CallerLeft => {
                if matches!(self.state, State::Waiting(_)) {
                    effects.push(FlowEffect::Cancel { fence: self.fence });
                }
                self.record.outcome = Outcome::Cancelled;
                self.close(now, effects);
            }
            FlowInput::Ticked => self.tick(now, effects),
        }
    }

    fn wake_at(&self) -> Option<Mono> {
        match self.state {
            State::Closed => None,
            State::Routing => Some(self.deadline),
            State::Waiting(turn) => Some(turn.patience_ends().min(self.deadline)),
        }
    }
}

impl Turn {
    fn pulsed(&mut self, now: Now, pulse: Pulse) {
        let moved = pulse.progress != self.progress || !pulse.computing || pulse.loading;
        if moved {
            self.moved_at = now.mono;
        }
        self.progress = pulse.progress;
        self.computing = pulse.computing && !pulse.loading;
    }

    /// When the node of this turn is judged, unless it is heard of before.
    fn patience_ends(&self) -> Mono {
        let silence = if self.accepted { SILENT_AFTER } else { ACCEPT_WITHIN };
        let silent = self.heard_at.plus(silence);
        let frozen = self.moved_at.plus(FROZEN_AFTER);
        let ends = if self.accepted && self.computing { silent.min(frozen) } else { silent };
        ends.max(self.spared_until)
    }

    /// This turn with a grace, when the wake-up came so late that the silence may be this node's
    /// own.
    fn spared(self, now: Mono) -> Option<Self> {
        let late = now.since(self.patience_ends()) >= STALL_GRACE;
        (late && self.graces < MAX_GRACES).then(|| Self {
            spared_until: now.plus(STALL_GRACE),
            graces: self.graces + 1,
            ..self
        })
    }
}

fn nobody_left(record: &RequestRecord) -> Refusal {
    let message = if record.attempts.is_empty() {
        format!("no node of the mesh can answer for model '{}' now", record.model)
    } else {
        format!("every node with model '{}' was tried and none could answer", record.model)
    };
    let retry = Retry::After(Micros::secs(1));
    Refusal::new(Stage::Route, Blame::Us, retry, Code::ModelUnavailable, message)
}

fn deadline_passed() -> Refusal {
    let message = "the request's deadline passed; ask for fewer tokens or allow more time";
    Refusal::new(Stage::Execute, Blame::Us, Retry::After(Micros::secs(1)), Code::Timeout, message)
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
