//! What the surface needs from the node behind it.
//!
//! Owns the boundary: the surface speaks to this trait, the node's gateway implements it, and the
//! surface's tests script it. Every answer is a stream of pieces; dropping it cancels the work.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use selvedge_base::{Micros, ModelDigest, NodeId, Refusal, RequestId, TraceContext};
use selvedge_contract::carried::Carried;
use selvedge_core::Piece;
use selvedge_core::upstream::RawProvider;
use selvedge_dialect::chat::Failure;
use selvedge_dialect::embed::Embeddings;
use selvedge_dialect::inference::Makes;
use selvedge_dialect::inference::rows::{Card, Found};
use selvedge_engine::MemoryUse;
use selvedge_proto::policy::{AccountPath, KeyId};
use selvedge_proto::settings::{SettingKey, Which};
use selvedge_runtime::{
    Cached, Call, Came, ChatCall, ClassCall, EmbedCall, Question, Said, Sound, SpeechCall,
    TensorCall, Trace, Transcribed,
};
use serde_json::Value;

use super::wire::{self, Budget, Status};
use crate::amount::{Amount, Measure};
use crate::record::Record;

/// A node as the surface sees it.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Asks for one answer. [`Piece::Finished`] or [`Piece::Failed`] comes last.
    fn generate(&self, call: Call) -> BoxStream<'static, Piece>;

    /// Whether a model's name means something that a provider may answer.
    fn leaves_the_mesh(&self, model: &str) -> bool;

    /// The model of the mesh that continues a text under a name for which
    /// [`Backend::leaves_the_mesh`] holds.
    fn continues(&self, call: &ChatCall) -> Result<String, Refusal>;

    /// Asks for one answer that may come from outside the mesh. One for which [`Said::is_last`]
    /// holds comes last.
    fn chat(&self, call: ChatCall) -> BoxStream<'static, Said>;

    /// Whether answers are kept.
    fn caches(&self) -> bool;

    /// What the cache says to a chat; waits while somebody else asks the same.
    fn cached<'a>(&'a self, call: &'a ChatCall, question: Question<'a>) -> BoxFuture<'a, Cached>;

    /// What the cache says to a request for embeddings; waits while somebody else asks the same.
    fn cached_embeddings<'a>(
        &'a self,
        call: &'a EmbedCall,
        question: Question<'a>,
    ) -> BoxFuture<'a, Cached>;

    /// What the cache says to a request that a model of the mesh answers by itself.
    fn cached_in_mesh<'a>(
        &'a self,
        call: &'a Call,
        question: Question<'a>,
    ) -> BoxFuture<'a, Cached>;

    /// What is kept, if anything is.
    fn cache(&self) -> Option<wire::Cache>;

    /// The tokens a chat's prompt takes, without answering it.
    fn count_tokens(&self, call: ChatCall) -> BoxFuture<'_, Result<u64, Refusal>>;

    /// The vectors of a request's inputs. Dropping the future cancels the work.
    fn embed(&self, call: EmbedCall) -> BoxFuture<'_, Result<Embeddings, Failure>>;

    /// The sound in a file, of a request that may take so long.
    fn sound(&self, file: Bytes, within: Micros) -> BoxFuture<'_, Result<Sound, Refusal>>;

    /// What is said in sound. Dropping the future cancels the work.
    fn hear(&self, call: SpeechCall) -> BoxFuture<'_, Result<Transcribed, Refusal>>;

    /// The place of a request in a trace, which its caller may have begun; none where nobody traces
    /// it.
    fn trace(&self, caller: Option<TraceContext>, came: Came) -> Option<Arc<Trace>>;

    /// What a model makes of texts, as far as anything tells; none when there is no such model.
    fn makes(&self, model: &str) -> Option<Makes>;

    /// What is known of the model that a job of learning made, where there is one of this name;
    /// what [`Backend::makes`] knows comes first.
    fn learned(&self, model: &str) -> Option<Result<Card, Refusal>>;

    /// The classes of a request's examples. Dropping the future cancels the work.
    fn classify(&self, call: ClassCall) -> BoxFuture<'_, Result<Found, Refusal>>;

    /// Whether a name means a model of the mesh that is asked with tensors; comes before all else.
    fn takes_tensors(&self, model: &str) -> bool;

    /// What a model takes and gives, or the tensors that it gives. Dropping the future cancels the
    /// work.
    fn infer(&self, call: TensorCall) -> BoxFuture<'_, Result<Carried, Refusal>>;

    /// The models of providers, as clients name them.
    fn provided(&self) -> Vec<String>;

    /// The name people gave a node; its PeerId while unknown.
    fn name_of(&self, node: &NodeId) -> String;

    /// The file behind a model's name, if any node has it.
    fn digest_of(&self, model: &str) -> Option<ModelDigest>;

    /// Who an API key stands for, compared in constant time.
    fn holder_of(&self, key: &str) -> Result<Holder, KeyRefused>;

    /// Tells what an account may still do, as its budgets that are counted say; nothing without
    /// any. Requests wait for what is done with each, which must be short.
    fn allowances(&self, holder: &Holder, tell: &mut dyn FnMut(Allowance));

    /// The budgets, all or those of an account and the accounts under it.
    fn budgets(&self, path: Option<&str>) -> Vec<Budget>;

    /// The mesh as this node sees it.
    fn status(&self) -> Status;

    /// The mesh as this node sees it, now and again whenever it changed; never ends.
    fn watch(&self) -> BoxStream<'static, Status>;

    /// The jobs of learning at this node, now and again whenever they changed; never ends.
    fn federated_watch(&self) -> BoxStream<'static, wire::List<wire::FederatedJob>>;

    /// What models take of the engine's memory, and how often they came and went.
    fn memory(&self) -> Option<MemoryUse>;

    /// Running totals the node keeps itself: metric name, help, value.
    fn totals(&self) -> Vec<(&'static str, &'static str, u64)>;

    /// Tokens that this node's engine drafted and those of them that were then drawn, by model,
    /// since it was loaded.
    fn drafts(&self) -> Vec<(String, u64, u64)>;

    /// What is remembered of a request of the holder's account, or of one below it; of its key's
    /// own alone where [`Holder::reads_account`] does not hold.
    fn record_of(&self, id: RequestId, holder: &Holder) -> Option<Record>;

    /// Gives a request of the holder's own its labels.
    fn label<'a>(
        &'a self,
        id: RequestId,
        holder: &'a Holder,
        labels: Vec<u32>,
    ) -> BoxFuture<'a, Result<wire::Labelled, Refusal>>;

    /// Carries out an operator's order and returns its JSON.
    fn manage(&self, order: Order) -> BoxFuture<'_, Result<Value, Refusal>>;
}

/// Who calls, as their key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The name the request runs under, in records and at peers.
    pub(crate) tenant: String,
    /// Whose budgets it counts against.
    pub(crate) account: AccountPath,
    /// The key of the mesh, if there is one.
    pub(crate) key: Option<KeyId>,
    /// Whether a key was shown at all; without one nothing that costs money is done.
    pub(crate) keyed: bool,
    /// Models it may ask, by name or by its beginning and `*`; empty: all.
    pub(crate) models: Vec<String>,
    /// Endpoints it may use; empty: all.
    pub(crate) routes: Vec<String>,
}

/// Why a key opens nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyRefused {
    /// Nobody made it, or a node that this one has not heard of.
    Unknown,
    /// It was good once, or will be: it expired or was revoked, as the text says.
    Over(String),
    /// It is good, but its account is not, as the text says.
    Barred(String),
}

/// What is left of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// What it counts.
    pub(crate) measure: Measure,
    /// The limit per window.
    pub(crate) limit: u64,
    /// What is left in the mesh, as known here.
    pub(crate) remaining: u64,
    /// Until the window ends.
    pub(crate) reset: Micros,
}

/// What an operator can order through the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Makes a join code.
    Invite {
        /// How long it works.
        ttl: Micros,
    },
    /// Lists members.
    Members,
    /// What was chosen of models with several files.
    Variants,
    /// Shuts a node out.
    Revoke(NodeId),
    /// Lets a node admit others.
    Promote(NodeId),
    /// Replaces the mesh's root key.
    RotateRoot,
    /// Leaves the mesh.
    Leave,
    /// Makes an API key.
    KeyCreate(wire::KeyRequest),
    /// Lists API keys.
    Keys,
    /// Removes an API key.
    KeyRevoke(String),
    /// Makes an account known.
    TenantCreate(wire::TenantRequest),
    /// Lists accounts.
    Tenants,
    /// Refuses an account from now on.
    TenantSuspend(String),
    /// Gives an account a budget, or changes it.
    BudgetSet {
        /// The account and the options.
        request: wire::BudgetRequest,
        /// Its amount, understood.
        amount: Amount,
    },
    /// Lowers a budget at once.
    BudgetLower(wire::LowerRequest),
    /// Takes a budget away.
    BudgetRemove(wire::RemoveRequest),
    /// Prolongs the validity of all budgets.
    BudgetRenew,
    /// Adds a model from this node's disk.
    ModelAdd {
        /// The file.
        path: String,
        /// The name people will use.
        name: String,
        /// BLAKE3 of the file.
        digest: ModelDigest,
    },
    /// Removes a model from service.
    ModelRemove(String),
    /// Adds a provider or replaces the one of that name.
    ProviderAdd(Box<RawProvider>),
    /// Lists providers.
    Providers,
    /// Removes a provider.
    ProviderRemove(String),
    /// Stores a provider's key in this node's vault.
    ProviderKeyAdd(wire::ProviderKey),
    /// Lists the vault's keys, without the keys.
    ProviderKeys,
    /// Removes a key from the vault.
    ProviderKeyRemove(String),
    /// Shows this node's own routes.
    Routes,
    /// Puts other own routes in force.
    RoutesSet(String),
    /// Puts the own routes before them in force again.
    RoutesRollBack,
    /// Lists the entries of the mesh's routes.
    MeshRoutes,
    /// Signs the entries of a text for the mesh.
    MeshRoutesSet(String),
    /// Shows the versions of an entry.
    MeshRouteHistory(SettingKey),
    /// Removes an entry from the mesh.
    MeshRouteRemove(SettingKey),
    /// Signs what an older version said.
    MeshRouteRollBack(SettingKey, Which),
    /// About jobs of learning.
    Federated(FederatedOrder),
    /// Shows the cache of answers.
    Cache,
    /// Removes answers that are kept.
    CachePurge(wire::CachePurge),
    /// What is remembered of a request.
    Record(RequestId),
}

/// What an operator can order about jobs of learning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FederatedOrder {
    /// Lists them.
    List,
    /// Signs the job of a file for the mesh; with `true` without asking the members first whether
    /// their data fit.
    Submit(String, bool),
    /// Asks all members whether their data fit the job of a file; of one that is to be started
    /// only where it could be signed.
    Check(String, bool),
    /// Whether a job could have a name.
    Name(String),
    /// Takes a job away from the mesh.
    Cancel(String),
    /// Asks for other anchors of a job in place of those that are lost.
    Reseat(String),
    /// Shows a piece of the chain of a job.
    Piece(String, u64),
    /// Shows this node's own model of a job.
    Personal(String),
    /// Gives a request to a learned model its labels.
    Label(RequestId, Vec<u32>),
    /// Forgets the labelled requests of a model.
    Forget(String),
}
