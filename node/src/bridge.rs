//! The node behind the HTTP surface.
//!
//! Owns the translation between the surface's words (`http::Backend`, `http/wire.rs`, `record.rs`)
//! and the runtime's (`Gateway`, `Admin`). Decides nothing.

mod cache;
mod federated;
mod machine;
mod providers;
mod quota;
mod routes;
mod terms;

pub(crate) use federated::method;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use selvedge_base::{Code, Micros, ModelDigest, NodeId, Refusal, RequestId, Stage, TraceContext};
use selvedge_contract::carried::Carried;
use selvedge_contract::residence::Standing;
use selvedge_contract::{FinishReason, ModelState, ModelStatus};
use selvedge_dialect::chat::Failure;
use selvedge_dialect::embed::Embeddings;
use selvedge_dialect::inference::Makes;
use selvedge_dialect::inference::rows::{Card, Found};
use selvedge_engine::MemoryUse;
use selvedge_proto::swim::PeerState;
use selvedge_runtime::{
    Admin, Cached, Call, Came, ChatCall, ClassCall, EmbedCall, Gateway, Labeller, MeshView,
    NodeView, Outcome, Piece, Question, RequestRecord, Said, Sound, SpeechCall, TensorCall, Trace,
    Transcribed,
};
use serde::Serialize;
use serde_json::Value;

use crate::http::{Allowance, Backend, Holder, KeyRefused, Order, Stop, wire};
use crate::record::{Attempt, Candidate, Leg, Record};
use crate::unserved::{Unserved, short};

/// A running node, as the HTTP surface needs it.
pub(crate) struct Bridge {
    pub(crate) gateway: Gateway,
    pub(crate) admin: Admin,
    /// Asked for when the node has left its mesh.
    pub(crate) stop: Stop,
    /// Models of this node that its engine did not take.
    pub(crate) unserved: Unserved,
    /// What was chosen, when the node started, of models with several files.
    pub(crate) variants: Arc<[wire::VariantChoice]>,
}

impl Backend for Bridge {
    fn generate(&self, call: Call) -> BoxStream<'static, Piece> {
        let stream = self.gateway.generate(call);
        futures::stream::unfold(stream, |mut stream| async move {
            stream.next().await.map(|piece| (piece, stream))
        })
        .boxed()
    }

    fn continues(&self, call: &ChatCall) -> Result<String, Refusal> {
        self.gateway.continues(call)
    }

    fn leaves_the_mesh(&self, model: &str) -> bool {
        self.gateway.leaves_the_mesh(model)
    }

    fn chat(&self, call: ChatCall) -> BoxStream<'static, Said> {
        self.gateway.chat(call).boxed()
    }

    fn caches(&self) -> bool {
        self.gateway.caches()
    }

    fn cached<'a>(&'a self, call: &'a ChatCall, question: Question<'a>) -> BoxFuture<'a, Cached> {
        Box::pin(self.gateway.cached(call, question))
    }

    fn cached_in_mesh<'a>(
        &'a self,
        call: &'a Call,
        question: Question<'a>,
    ) -> BoxFuture<'a, Cached> {
        Box::pin(self.gateway.cached_in_mesh(call, question))
    }

    fn cached_embeddings<'a>(
        &'a self,
        call: &'a EmbedCall,
        question: Question<'a>,
    ) -> BoxFuture<'a, Cached> {
        Box::pin(self.gateway.cached_embeddings(call, question))
    }

    fn record_of(&self, id: RequestId, holder: &Holder) -> Option<Record> {
        let key = match (holder.reads_account(), holder.key) {
            (true, _) => None,
            (false, Some(own)) => Some(own),
            (false, None) => return None,
        };
        let record = self.gateway.own_record(id, &holder.account, key)?;
        Some(told(&record, &self.gateway.view()))
    }

    fn label<'a>(
        &'a self,
        id: RequestId,
        holder: &'a Holder,
        labels: Vec<u32>,
    ) -> BoxFuture<'a, Result<wire::Labelled, Refusal>> {
        let by = Labeller::Own(holder.account.clone(), holder.key);
        Box::pin(self.labelled(id, by, labels))
    }

    fn cache(&self) -> Option<wire::Cache> {
        self.cache_told()
    }

    fn count_tokens(&self, call: ChatCall) -> BoxFuture<'_, Result<u64, Refusal>> {
        Box::pin(self.gateway.count_tokens(call))
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embeddings, Failure>> {
        Box::pin(self.gateway.embed(call))
    }

    fn sound(&self, file: Bytes, within: Micros) -> BoxFuture<'_, Result<Sound, Refusal>> {
        Box::pin(self.gateway.sound(file, within))
    }

    fn hear(&self, call: SpeechCall) -> BoxFuture<'_, Result<Transcribed, Refusal>> {
        Box::pin(self.gateway.hear(call))
    }

    fn trace(&self, caller: Option<TraceContext>, came: Came) -> Option<Arc<Trace>> {
        self.gateway.trace(caller, || came)
    }

    fn makes(&self, model: &str) -> Option<Makes> {
        self.gateway.makes(model)
    }

    fn learned(&self, model: &str) -> Option<Result<Card, Refusal>> {
        self.gateway.learned(model)
    }

    fn classify(&self, call: ClassCall) -> BoxFuture<'_, Result<Found, Refusal>> {
        Box::pin(self.gateway.classify(call))
    }

    fn takes_tensors(&self, model: &str) -> bool {
        self.gateway.takes_tensors(model)
    }

    fn infer(&self, call: TensorCall) -> BoxFuture<'_, Result<Carried, Refusal>> {
        Box::pin(self.gateway.infer(call))
    }

    fn provided(&self) -> Vec<String> {
        self.gateway.provided()
    }

    fn name_of(&self, node: &NodeId) -> String {
        self.gateway.view().name_of(node)
    }

    fn digest_of(&self, model: &str) -> Option<ModelDigest> {
        let models = self.gateway.view().models();
        models.into_iter().find(|found| found.card.name == model).map(|found| found.card.digest)
    }

    fn holder_of(&self, key: &str) -> Result<Holder, KeyRefused> {
        self.holder(key)
    }

    fn allowances(&self, holder: &Holder, tell: &mut dyn FnMut(Allowance)) {
        self.left_of(holder, tell);
    }

    fn budgets(&self, path: Option<&str>) -> Vec<wire::Budget> {
        self.budgets_of(path)
    }

    fn status(&self) -> wire::Status {
        Own::of(self).status(&self.gateway.view())
    }

    fn watch(&self) -> BoxStream<'static, wire::Status> {
        let mut changes = self.gateway.view_changes();
        // The first look is due at once.
        changes.mark_changed();
        let (gateway, own) = (self.gateway.clone(), Own::of(self));
        futures::stream::unfold((gateway, own, changes), |(gateway, own, mut changes)| async move {
            // Fails only when the node is gone; then the stream ends.
            changes.changed().await.ok()?;
            let now = own.status(&gateway.view());
            Some((now, (gateway, own, changes)))
        })
        .boxed()
    }

    fn federated_watch(&self) -> BoxStream<'static, wire::List<wire::FederatedJob>> {
        self.federated_changes()
    }

    fn memory(&self) -> Option<MemoryUse> {
        Some(self.admin.memory())
    }

    fn totals(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counters = self.gateway.counters();
        let mut totals = vec![
            ("admitted", "Answers begun at this node", counters.admitted.value()),
            ("turned_away", "Requests refused because full", counters.turned_away.value()),
            ("finished", "Answers completed", counters.finished.value()),
            ("failed", "Answers that ended in a refusal", counters.failed.value()),
            ("cancelled", "Answers whose caller went away", counters.cancelled.value()),
            ("handed_off", "Requests handed to peers", counters.handed_off.value()),
            ("provided", "Requests sent to providers", counters.provided.value()),
            (
                "provided_micro_dollars",
                "Millionths of a dollar that providers billed, by the catalogue in force",
                counters.billed_micro_dollars.value(),
            ),
            ("taken", "Requests taken from peers", counters.taken.value()),
            ("refused", "Requests of peers refused here", counters.refused.value()),
            (
                "continued",
                "Times an answer that broke off at a provider was gone on with",
                counters.continued.value(),
            ),
            (
                "escalated",
                "Answers of small models that were found wanting, so that a larger one was asked",
                counters.escalated.value(),
            ),
            (
                "small_first_paid_micro_dollars",
                "Millionths of a dollar paid where small models come first and the largest has a \
                 price",
                counters.small_first_paid.value(),
            ),
            (
                "small_first_instead_micro_dollars",
                "What the largest model alone would have cost for the same answers",
                counters.small_first_instead.value(),
            ),
            ("resumed", "Answers that went on elsewhere", counters.resumed.value()),
            (
                "budget_refusals",
                "Requests no budget had enough for",
                counters.budget_refusals.value(),
            ),
            ("budget_waits", "Requests that waited for a budget", counters.budget_waits.value()),
            ("budget_ends", "Answers that ended with a budget", counters.budget_ends.value()),
            ("budget_gifts", "Times rights went to a peer", counters.budget_gifts.value()),
            ("budget_receipts", "Times rights came from a peer", counters.budget_receipts.value()),
            ("budget_writes", "Writes of budget rows", counters.budget_writes.value()),
            (
                "budget_write_failures",
                "Writes of them that failed",
                counters.budget_write_failures.value(),
            ),
        ];
        if let Some(tracer) = self.gateway.tracer() {
            totals.extend([
                ("telemetry_sent", "Requests a collector was told of", tracer.sent.value()),
                ("telemetry_dropped", "Requests not told of: queue full", tracer.dropped.value()),
                ("telemetry_lost", "Requests no collector took", tracer.lost.value()),
            ]);
        }
        totals
    }

    fn drafts(&self) -> Vec<(String, u64, u64)> {
        let all = self.admin.drafts().into_iter();
        all.map(|(model, drafts)| (model, drafts.drafted, drafts.accepted)).collect()
    }

    fn manage(&self, order: Order) -> BoxFuture<'_, Result<Value, Refusal>> {
        Box::pin(self.carry_out(order))
    }
}

/// The node's view is made anew several times a second; beyond this something is wrong, and
/// requests are still answered once it is right.
const SEEN: Duration = Duration::from_secs(3);
/// How often that is looked at.
const GLANCE: Duration = Duration::from_millis(10);

impl Bridge {
    /// Takes a model from service, also one that could not be served.
    fn model_remove(&self, name: &str) -> Result<(), Refusal> {
        let noted = self.unserved.forget(name);
        if self.admin.model_remove(name) || noted {
            return Ok(());
        }
        let message =
            format!("this node serves no model '{name}'; `selvedge models list` shows what it has");
        Err(Refusal::client(Stage::Validate, Code::ModelNotFound, message))
    }

    /// Waits until the node's own view has a model, or no longer has it: who was told so must not
    /// find it otherwise.
    pub(crate) async fn until_served(&self, name: &str, served: bool) {
        let seen = async {
            let has = |view: &MeshView| {
                let models = view.myself().map(|me| me.engine.models.as_slice());
                models.unwrap_or_default().iter().any(|model| model.card.name == name)
            };
            while has(&self.gateway.view()) != served {
                tokio::time::sleep(GLANCE).await;
            }
        };
        if tokio::time::timeout(SEEN, seen).await.is_err() {
            tracing::warn!(model = name, "the node's view of its models lags behind");
        }
    }

    async fn carry_out(&self, order: Order) -> Result<Value, Refusal> {
        match order {
            Order::Invite { ttl } => self.invite(ttl).await,
            Order::Members => said(&wire::List { data: self.members() }),
            Order::Revoke(node) => {
                let name = self.name_of(&node);
                self.admin.revoke(node).await?;
                done(format!("revoked {name}; its connections are closed"))
            }
            Order::Promote(node) => {
                self.admin.promote(node).await?;
                done(format!("{} may now admit others and renew leases", self.name_of(&node)))
            }
            Order::RotateRoot => {
                self.admin.rotate_root().await?;
                done(format!("rotated the root key of mesh {}", self.admin.fingerprint()))
            }
            Order::Leave => {
                self.admin.leave().await?;
                self.stop.request();
                done("left the mesh".to_owned())
            }
            Order::KeyCreate(request) => self.key_create(request).await,
            Order::Keys => said(&wire::List { data: self.keys() }),
            Order::KeyRevoke(id) => {
                self.admin.key_revoke(&id).await?;
                done(format!("revoked key {id}"))
            }
            Order::ModelAdd { path, name, digest } => self.model_add(&path, &name, digest).await,
            Order::ModelRemove(name) => {
                self.model_remove(&name)?;
                self.until_served(&name, false).await;
                done(format!("no longer serving {name}"))
            }
            Order::TenantCreate(request) => self.tenant_create(&request).await,
            Order::Tenants => said(&wire::List { data: self.tenants() }),
            Order::TenantSuspend(path) => self.tenant_suspend(&path).await,
            Order::BudgetSet { request, amount } => self.budget_set(request, amount).await,
            Order::BudgetLower(request) => self.budget_lower(request).await,
            Order::BudgetRemove(request) => self.budget_remove(request).await,
            Order::BudgetRenew => self.budget_renew().await,
            Order::ProviderAdd(provider) => self.provider_add(*provider).await,
            Order::Providers => self.providers(),
            Order::ProviderRemove(name) => self.provider_remove(&name).await,
            Order::ProviderKeyAdd(key) => self.provider_key_add(key).await,
            Order::ProviderKeys => self.provider_keys(),
            Order::ProviderKeyRemove(name) => self.provider_key_remove(&name).await,
            Order::Routes => self.routes(),
            Order::RoutesSet(text) => self.routes_set(text).await,
            Order::RoutesRollBack => self.routes_roll_back().await,
            Order::MeshRoutes => self.mesh_routes(),
            Order::MeshRoutesSet(text) => self.mesh_routes_set(&text).await,
            Order::MeshRouteHistory(key) => self.mesh_route_history(&key),
            Order::MeshRouteRemove(key) => self.mesh_route_remove(key).await,
            Order::MeshRouteRollBack(key, which) => self.mesh_route_roll_back(key, which).await,
            Order::Federated(order) => self.federated(order).await,
            Order::Cache => self.cache_show(),
            Order::CachePurge(purge) => self.cache_purge(purge).await,
            Order::Variants => said(&wire::List { data: self.variants.to_vec() }),
            Order::Record(id) => self.record(id),
        }
    }

    async fn model_add(
        &self,
        path: &str,
        name: &str,
        digest: ModelDigest,
    ) -> Result<Value, Refusal> {
        let added = self.admin.model_add(Path::new(path), name, digest).await;
        if let Err(refusal) = &added {
            self.unserved.note(name, &refusal.message);
        }
        let card = added?;
        self.unserved.forget(name);
        self.until_served(name, true).await;
        done(format!("serving {} ({})", card.name, card.quantization))
    }

    async fn invite(&self, ttl: Micros) -> Result<Value, Refusal> {
        let code = self.admin.invite(ttl).await?;
        said(&wire::Invite { code: code.to_string(), ttl_s: ttl.0 / 1_000_000 })
    }

    fn members(&self) -> Vec<wire::Member> {
        let members = self.admin.members().into_iter();
        members
            .map(|member| wire::Member {
                not_after_ms: Some(member.lapses_s.saturating_mul(1_000)),
                node: member.node,
                name: member.name,
                steward: member.steward,
                revoked: member.revoked,
            })
            .collect()
    }

    fn record(&self, id: RequestId) -> Result<Value, Refusal> {
        let Some(record) = self.gateway.request_record(id) else {
            let message = format!(
                "{id} is not remembered here: a node keeps its latest records, and only of the \
                 requests that were sent to it"
            );
            return Err(Refusal::client(Stage::Validate, Code::InvalidRequest, message));
        };
        said(&told(&record, &self.gateway.view()))
    }
}

fn said(value: &impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(value).map_err(|error| {
        Refusal::client(Stage::Validate, Code::Internal, format!("unwritable answer: {error}"))
    })
}

fn done(what: String) -> Result<Value, Refusal> {
    said(&wire::Done { done: what })
}

/// What only this node knows of its models: why some of them failed, what they take of its memory.
struct Own {
    admin: Admin,
    unserved: Unserved,
}

impl Own {
    fn of(bridge: &Bridge) -> Self {
        Self { admin: bridge.admin.clone(), unserved: bridge.unserved.clone() }
    }

    fn status(&self, view: &MeshView) -> wire::Status {
        let mut status = status(view);
        let own = view.myself().into_iter().flat_map(|me| &me.engine.models);
        for node in status.nodes.iter_mut().filter(|node| node.me) {
            node.machine.memory_budget_bytes = Some(self.admin.memory().budget);
            for model in own.clone() {
                let listed = node.models.iter_mut().find(|m| m.name == model.card.name);
                if let Some(listed) = listed {
                    self.tells(listed, model);
                }
            }
            for standing in &self.admin.model_standings() {
                let digest = standing.model.to_string();
                if let Some(listed) = node.models.iter_mut().find(|m| m.digest == digest) {
                    stands(listed, standing);
                }
            }
            let known = |name: &str| node.models.iter().any(|model| model.name == name);
            let mut unserved = self.unserved.models();
            unserved.retain(|model| !known(&model.name));
            node.models.append(&mut unserved);
        }
        status
    }

    /// Adds why a model failed, or how far its load has come.
    fn tells(&self, listed: &mut wire::Model, model: &ModelStatus) {
        let digest = model.card.digest;
        match model.state {
            ModelState::Failed => {
                listed.failure = self.admin.model_failure(digest).map(|reason| short(&reason));
            }
            ModelState::Loading => listed.loading_percent = self.admin.model_loading(digest),
            ModelState::Cold | ModelState::Ready => {}
        }
    }
}

/// Adds what only this node knows of its memory.
fn stands(model: &mut wire::Model, standing: &Standing) {
    let seconds = |span: Micros| span.0 / 1_000_000;
    model.memory_bytes = Some(standing.bytes);
    model.idle_s = standing.idle.map(seconds);
    model.stays_loaded = standing.pinned;
    model.evicted = standing.evicted.as_ref().map(|(why, comes, ago)| wire::Evicted {
        reason: why.as_str().to_owned(),
        comes: comes.clone(),
        ago_s: seconds(*ago),
    });
}

fn status(view: &MeshView) -> wire::Status {
    let myself = view.myself();
    wire::Status {
        name: myself.map(|me| me.name.clone()).unwrap_or_default(),
        node: view.me.to_string(),
        mesh: view.mesh.map(|mesh| mesh.to_string()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes: view.nodes.iter().map(node).collect(),
    }
}

fn node(node: &NodeView) -> wire::Node {
    let state = match node.state {
        PeerState::Alive => "alive",
        PeerState::Suspect => "suspect",
        PeerState::Frozen => "frozen",
        PeerState::Dead => "dead",
    };
    wire::Node {
        node: node.node.to_string(),
        name: node.name.clone(),
        me: node.me,
        state: state.to_owned(),
        why: node.why.clone(),
        rtt_us: node.rtt.map(|rtt| rtt.0),
        addrs: node.addrs.iter().map(ToString::to_string).collect(),
        version: node.version.clone(),
        computing: node.engine.computing,
        loading: node.engine.loading,
        models: node.engine.models.iter().map(model).collect(),
        machine: machine::told(&node.machine),
    }
}

fn model(model: &ModelStatus) -> wire::Model {
    let state = match model.state {
        ModelState::Cold => "cold",
        ModelState::Loading => "loading",
        ModelState::Ready => "ready",
        ModelState::Failed => "failed",
    };
    wire::Model {
        name: model.card.name.clone(),
        digest: model.card.digest.to_string(),
        bytes: model.card.bytes,
        architecture: model.card.architecture.clone(),
        quantization: model.card.quantization.clone(),
        parameters: model.card.parameters,
        context_length: model.card.context_length,
        chat: model.card.chat,
        state: state.to_owned(),
        loading_percent: None,
        failure: None,
        memory_bytes: None,
        idle_s: None,
        stays_loaded: false,
        evicted: None,
        running: model.running,
        queued: model.queued,
        prefill_rate: model.prefill_rate,
        step_us: model.step_us,
    }
}

fn told(record: &RequestRecord, view: &MeshView) -> Record {
    let (outcome, reason) = match &record.outcome {
        Outcome::Running => ("running", "still being answered".to_owned()),
        Outcome::Finished { reason: FinishReason::Stop, .. } => {
            ("finished", "the model ended it, or a stop text was met".to_owned())
        }
        Outcome::Finished { reason: FinishReason::Length, .. } => {
            ("finished", "the token limit was reached".to_owned())
        }
        Outcome::Finished { reason: FinishReason::Quota, .. } => {
            ("finished", "a budget was used up while the answer grew".to_owned())
        }
        Outcome::Failed(refusal) => ("failed", refusal.to_string()),
        Outcome::Cancelled => ("cancelled", "the caller went away".to_owned()),
    };
    let usage = match &record.outcome {
        Outcome::Finished { usage, .. } => *usage,
        Outcome::Running | Outcome::Failed(_) | Outcome::Cancelled => Default::default(),
    };
    let attempts = record.attempts.iter().map(|attempt| Attempt {
        node: attempt.node.to_string(),
        name: view.name_of(&attempt.node),
        from_index: attempt.from_index,
        ended: attempt.ended.clone(),
        candidates: attempt
            .choice
            .ranked
            .iter()
            .map(|scored| Candidate {
                node: scored.node.to_string(),
                name: view.name_of(&scored.node),
                estimate_us: scored.estimate.0,
                verdict: scored.verdict.to_string(),
            })
            .collect(),
    });
    Record {
        id: record.id.to_string(),
        model: record.model.clone(),
        downgraded_to: record.downgraded_to.clone(),
        tenant: record.tenant.clone(),
        outcome: outcome.to_owned(),
        reason,
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        took_us: record.took.0,
        first_token_us: record.first_token.map(|span| span.0),
        longest_gap_us: record.longest_gap.map(|span| span.0),
        legs: record.legs.iter().map(leg).collect(),
        attempts: attempts.collect(),
        saved_micro_dollars: record
            .saving
            .map(|saving| i64::try_from(saving.saved()).unwrap_or(i64::MAX)),
        saving: record.saving.map(|saving| saving.to_string()),
        micro_dollars: record.legs.iter().map(|leg| leg.took.micro_dollars).sum(),
    }
}

fn leg(leg: &selvedge_core::journey::Leg) -> Leg {
    Leg {
        target: leg.target.to_string(),
        why: leg.why.clone(),
        asked: leg.asked,
        ended: leg.ended.clone(),
        judged: leg.judged.map(|judged| judged.to_string()),
        tokens: leg.took.tokens,
        micro_dollars: leg.took.micro_dollars,
    }
}

#[cfg(test)]
mod tests {
    use selvedge_proto::choice::{Choice, Scored, Strain, Verdict};
    use selvedge_runtime::RequestRecord;

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 32])
    }

    fn scored(byte: u8, verdict: Verdict) -> Scored {
        Scored { node: node(byte), estimate: Micros::millis(5), verdict }
    }

    #[test]
    fn a_record_is_told_with_every_turn_and_candidate() {
        let choice = Choice {
            ranked: vec![
                scored(1, Verdict::Fastest),
                scored(2, Verdict::Slower),
                scored(3, Verdict::Spared(Strain::Battery { percent: 14 })),
            ],
            chosen: Some(node(1)),
        };
        let attempt = |byte, from_index, ended: Option<&str>| selvedge_core::Attempt {
            node: node(byte),
            choice: choice.clone(),
            from_index,
            ended: ended.map(ToOwned::to_owned),
        };
        let record = RequestRecord {
            id: RequestId(7),
            model: "m".to_owned(),
            downgraded_to: None,
            tenant: "t".to_owned(),
            legs: Vec::new(),
            attempts: vec![attempt(1, 0, Some("gone")), attempt(2, 9, None)],
            outcome: Outcome::Failed(Refusal::client(
                Stage::Resume,
                Code::PeerLost,
                "no node left",
            )),
            took: Micros::millis(40),
            first_token: None,
            longest_gap: Some(Micros::millis(12)),
            saving: None,
        };
        let view = MeshView { me: node(1), mesh: None, nodes: Vec::new() };
        let told = told(&record, &view);
        assert_eq!(told.outcome, "failed");
        assert!(told.reason.contains("no node left"), "{}", told.reason);
        assert_eq!(told.longest_gap_us, Some(12_000));
        assert_eq!(told.attempts.len(), 2);
        assert_eq!(told.attempts[0].ended.as_deref(), Some("gone"));
        assert_eq!((told.attempts[1].from_index, told.attempts[1].candidates.len()), (9, 3));
        assert_eq!(told.attempts[0].candidates[1].verdict, "slower");
        let spared = &told.attempts[0].candidates[2].verdict;
        assert_eq!(spared, "on battery at 14 %: after others");
    }
}
