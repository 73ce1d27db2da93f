//! The actors of a node: thin shells that feed machines and carry out what they order.
//!
//! [`Node`] starts everything; [`Gateway`] is the way in for requests, [`Admin`] for operators.
//! Two supervised sides: a failed mesh or discovery actor is started again while requests go on.
//! Deliberately decides nothing: `actors/core` and `mesh/proto` do. Speaks no HTTP: `node` does.

mod admin;
mod answers;
mod config;
mod contacts;
mod counters;
pub mod custody;
mod discover;
mod federated;
mod gate;
mod gateway;
mod handoff;
mod hardware;
mod ingress;
mod join;
mod line;
mod membership;
mod mesh;
mod node;
mod policies;
mod policy_sync;
mod providers;
mod quota;
mod records;
mod relay;
mod routing;
mod serve;
mod shared;
mod signing;
mod stepper;
mod store;
mod supervise;
mod sync;
mod task;
mod trace;
mod view;

pub use admin::{Admin, BudgetView, Caller, KeyView, MemberView};
pub use answers::Purged;
pub use config::{CacheConfig, NodeConfig};
pub use counters::{Count, Counters, FIRST_TOKEN_BOUNDS_MS};
pub use federated::{
    Announced, AnnouncedError, BaseFacts, BaseModel, Bases, ChainError, ChainPart, ChainReader,
    ChainWriter, DataParts, DataSource, Fate, FitsReport, JobProgress, JobRun, JobSpec, JobView,
    Labelled, Labeller, NodeFits, PartProgress, PersonalProgress, RoundMeasured, Settled,
    SpecError, Task, TrainedError, TrainedModel, Training, Verified, VerifyError, name_taken,
    verify_chain, verify_each, verify_model,
};
pub use gateway::{AnswerStream, Call, Gateway};
pub use hardware::{Probe, read_rate};
pub use join::JoinFailed;
pub use node::{Node, Replay, StartError};
pub use policies::{BudgetDraft, BudgetSet, KeyDraft, TenantView};
pub use providers::{ProviderView, ProvidersError};
pub use relay::{
    Asked, CacheView, Cached, ChatCall, ChatStream, ClassCall, EmbedCall, Keeper, Kept, Question,
    Said, Sound, SpeechCall, TensorCall, Transcribed, Wish, check_version, tells_classes,
};
pub use routing::{RouteSaving, SharedEntry, StoredBook};
pub use selvedge_core::auth::NewKey;
pub use selvedge_core::cache::{Bounds, Scope};
pub use selvedge_core::quota::{BudgetStatus, HolderStatus, Remaining};
pub use selvedge_core::{MeshView, ModelSummary, NodeView, Outcome, Piece, RequestRecord};
pub use selvedge_upstream::KeyListing;
pub use stepper::{Clock, Recorded, Stepper, system_clock};
pub use store::{Store, StoreError};
pub use task::{Finished, Run};
pub use trace::{
    CHAT, CLASSES, COMPLETION, Came, EMBEDDINGS, INFERENCE, Story, TRANSCRIPTION, Told, Trace,
    Tracer, Turn, Whom,
};
