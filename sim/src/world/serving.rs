//! The serving side: hand-offs taken, engines stepped, answers sent.

use std::sync::Arc;

use selvedge_base::{Blame, Code, Micros, Refusal, Retry, Stage};
use selvedge_contract::Answer;
use selvedge_core::{FlowInput, HandOffReply};
use selvedge_proto::policy::{AccountPath, Budget, Hardness};
use selvedge_proto::records::Signed;
use selvedge_proto::wire::{ALIVE_EVERY, Receipt};

use super::quota::QUOTA_VERSION;
use super::{Load, Own, Packet, World};
use crate::engine::Owner;
use crate::invariant::Invariant;
use crate::marks::Mark;
use crate::names::is_receipt_signed;
use crate::network::RETRANSMISSION;
use crate::node::{Opened, Outbox, Served, site_name};

/// Frames of a stream that wait for the network: an answer's worth.
pub(super) const MAX_UNSENT: usize = 4_096;

impl World<'_> {
    /// A hand-off came.
    pub(super) fn opened(
        &mut self,
        node: usize,
        from: usize,
        stream: u64,
        handed: Opened,
        receipt: Option<Box<Signed<Receipt>>>,
    ) {
        if handed.hop != 1 {
            self.broken(Invariant::RouteOneHop, format!("hop {} at node {node}", handed.hop));
        }
        let Some(link) = self.nodes[node].memory.link(from) else { return };
        let site = site_name(self.nodes[from].site);
        let memory = &self.nodes[node].memory;
        let running = memory.served.values().filter(|served| served.peer == from).count();
        let checked =
            memory.receive.check(self.names.id(from), Some(site.as_str()), running, &handed);
        let must = self.must_show(node, &handed.tenant);
        let between = (self.id(from), self.id(node));
        let now = self.now.0;
        let memory = &mut self.nodes[node].memory;
        let known = memory.served.contains_key(&stream);
        let checked = checked.and_then(|()| {
            let (shown, is_signed) = (receipt.as_deref(), is_receipt_signed);
            memory.receipts.check_by(now, between, &handed, shown, must, is_signed)
        });
        if known {
            // Somebody sends an old frame again: the stream is under way, nothing changes.
            return self.hit(Mark::ReplayIgnored);
        }
        if self.nodes[node].version < QUOTA_VERSION {
            self.hit(Mark::OldVersionServed);
        }
        let deadline = handed.deadline;
        let outbox = Outbox::default();
        let served = Served {
            peer: from,
            conn: link.conn,
            outbox,
            said_at: self.now.0,
            deadline_at: self.now.0.plus(deadline),
            has_ended: false,
        };
        self.nodes[node].memory.served.insert(stream, served);
        let started = checked.and_then(|()| {
            let engine = &mut self.nodes[node].memory.engine;
            engine.submit(now, Owner::Stream(stream), &handed.tenant, &handed.request)
        });
        match started {
            Ok(started) => {
                self.audit_reserved(node, handed.request.id.0 as u64);
                self.reply(node, stream, HandOffReply::Accepted);
                self.reply(node, stream, HandOffReply::Answer(started));
                self.later(node, self.now.0.plus(ALIVE_EVERY), Own::Alive { stream });
                self.later(node, self.now.0.plus(deadline), Own::ServeDeadline { stream });
                self.kick(node);
            }
            Err(refusal) => {
                self.hit(Mark::HandOffRefused);
                self.reply(node, stream, HandOffReply::Refused(refusal));
                self.retire(node, stream);
            }
        }
    }

    /// Whether a tenant has a hard budget here, so that peers must show receipts.
    fn must_show(&self, node: usize, tenant: &str) -> bool {
        let memory = &self.nodes[node].memory;
        let Ok(tenant) = tenant.parse::<AccountPath>() else { return false };
        let hard = |budget: &Arc<Budget>| {
            budget.level.account.tenant_path() == tenant && budget.spec.hardness == Hardness::Hard
        };
        memory.quota.is_some() && memory.book.budgets().any(hard)
    }

    /// The engine begins a step if there is anything to do.
    pub(super) fn kick(&mut self, node: usize) {
        if let Some(at) = self.nodes[node].memory.engine.begin(self.now.0) {
            self.later(node, at, Own::StepEnded);
        }
    }

    pub(super) fn step_ended(&mut self, node: usize) {
        let engine = &mut self.nodes[node].memory.engine;
        if engine.frozen {
            engine.stalled = true;
            return;
        }
        let mut answers = Vec::new();
        engine.end_step(&mut answers);
        if std::mem::take(&mut engine.paused) > 0 {
            self.hit(Mark::SequencePaused);
        }
        self.answer_all(node, answers);
        self.kick(node);
    }

    pub(super) fn fail_engine(&mut self, node: usize, failed: bool) {
        let mut answers = Vec::new();
        let now = self.now.0;
        self.nodes[node].memory.engine.fail(now, failed, &mut answers);
        if self.nodes[node].acts() {
            self.answer_all(node, answers);
        }
    }

    pub(super) fn answer_all(&mut self, node: usize, answers: Vec<(Owner, Answer)>) {
        for (owner, answer) in answers {
            match owner {
                Owner::Own { request, fence } => {
                    self.flow(node, request, FlowInput::Answered { fence, answer });
                }
                Owner::Stream(stream) => {
                    let last = matches!(answer, Answer::Finished { .. } | Answer::Failed(_));
                    self.reply(node, stream, HandOffReply::Answer(answer));
                    if last {
                        self.retire(node, stream);
                    }
                }
            }
        }
    }

    /// A stream has said its last; it is kept while something of it is unsent.
    fn retire(&mut self, node: usize, stream: u64) {
        let all = &mut self.nodes[node].memory.served;
        let Some(served) = all.get_mut(&stream) else { return };
        served.has_ended = true;
        if served.outbox.unsent.is_empty() {
            all.remove(&stream);
        }
    }

    /// Says something on a stream this node serves; in order, and again when the way was cut.
    fn reply(&mut self, node: usize, stream: u64, reply: HandOffReply) {
        let now = self.now.0;
        let Some(served) = self.nodes[node].memory.served.get_mut(&stream) else { return };
        served.said_at = now;
        if served.outbox.unsent.len() >= MAX_UNSENT {
            return;
        }
        served.outbox.unsent.push_back(reply);
        if served.outbox.unsent.len() == 1 {
            self.flush(node, stream);
        }
    }

    pub(super) fn flush(&mut self, node: usize, stream: u64) {
        let now = self.now.0;
        loop {
            let Some(served) = self.nodes[node].memory.served.get_mut(&stream) else { return };
            let (peer, conn) = (served.peer, served.conn);
            let Some(reply) = served.outbox.unsent.pop_front() else { break };
            let Some(delay) = self.network.reliable(now, node, peer) else {
                let served = self.nodes[node].memory.served.get_mut(&stream);
                if let Some(served) = served {
                    served.outbox.unsent.push_front(reply);
                }
                self.later(node, now.plus(RETRANSMISSION), Own::Flush { stream });
                return;
            };
            let served = self.nodes[node].memory.served.get_mut(&stream);
            let Some(served) = served else { return };
            let at = now.plus(delay).max(served.outbox.last_at.plus(Micros(1)));
            served.outbox.last_at = at;
            let packet = Packet { from: node, conn, load: Load::Reply { stream, reply } };
            self.deliver(peer, at.since(now), packet);
        }
        // What was said last may have been held back until now.
        let served = self.nodes[node].memory.served.get(&stream);
        if served.is_some_and(|served| served.has_ended) {
            self.nodes[node].memory.served.remove(&stream);
        }
    }

    /// Something came on a stream of a request this node took.
    pub(super) fn replied(&mut self, node: usize, from: usize, stream: u64, reply: HandOffReply) {
        let memory = &self.nodes[node].memory;
        let Some((request, fence)) = memory.streams.get(&stream).copied() else { return };
        let ended = matches!(
            reply,
            HandOffReply::Refused(_)
                | HandOffReply::Answer(Answer::Finished { .. } | Answer::Failed(_))
        );
        let input = match reply {
            HandOffReply::Accepted => FlowInput::Accepted { fence },
            HandOffReply::Refused(refusal) => FlowInput::Refused { fence, refusal },
            HandOffReply::Answer(answer) => FlowInput::Answered { fence, answer },
            HandOffReply::Alive(pulse) => {
                let peer = self.id(from);
                let seen = selvedge_proto::swim::SwimInput::PulseSeen { node: peer, pulse };
                self.step(node, seen);
                FlowInput::Pulsed { fence, pulse }
            }
        };
        if ended {
            self.nodes[node].memory.streams.remove(&stream);
        }
        self.flow(node, request, input);
    }

    /// The ingest node wants no more of a stream.
    pub(super) fn stopped(&mut self, node: usize, stream: u64) {
        if self.nodes[node].memory.served.remove(&stream).is_some() {
            self.nodes[node].memory.engine.cancel(Owner::Stream(stream));
        }
    }

    pub(super) fn say_alive(&mut self, node: usize, stream: u64) {
        let now = self.now.0;
        let served = self.nodes[node].memory.served.get(&stream);
        let Some(served) = served.filter(|served| !served.has_ended) else { return };
        let due = served.said_at.plus(ALIVE_EVERY);
        if due > now {
            self.later(node, due, Own::Alive { stream });
            return;
        }
        let pulse = self.nodes[node].memory.engine.pulse(now);
        self.reply(node, stream, HandOffReply::Alive(pulse));
        self.later(node, now.plus(ALIVE_EVERY), Own::Alive { stream });
    }

    pub(super) fn serve_deadline(&mut self, node: usize, stream: u64) {
        let served = self.nodes[node].memory.served.get(&stream);
        if served.is_none_or(|served| served.has_ended) {
            return;
        }
        self.nodes[node].memory.engine.cancel(Owner::Stream(stream));
        let message = "the request's deadline passed on the serving node";
        let late = Refusal::new(Stage::Execute, Blame::Peer, Retry::Never, Code::Timeout, message);
        self.reply(node, stream, HandOffReply::Answer(Answer::Failed(late)));
        self.retire(node, stream);
    }

    /// A connection ended: what was served over it is given up, what was asked for is lost.
    pub(super) fn lose_streams(&mut self, node: usize, peer: usize) {
        let memory = &mut self.nodes[node].memory;
        let of_peer = memory.served.iter().filter(|(_, served)| served.peer == peer);
        let served: Vec<u64> = of_peer.map(|(stream, _)| *stream).collect();
        for stream in served {
            self.stopped(node, stream);
        }
        let memory = &self.nodes[node].memory;
        let asked: Vec<(u64, u64)> = memory
            .taken
            .iter()
            .filter_map(|(request, taken)| {
                let attempt = taken.attempt.as_ref()?;
                let lost = attempt.to == peer && attempt.stream.is_some();
                lost.then_some((*request, attempt.fence))
            })
            .collect();
        for (request, fence) in asked {
            let why = "the connection ended".to_owned();
            self.flow(node, request, FlowInput::Lost { fence, why });
        }
    }
}
