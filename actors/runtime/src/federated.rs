//! Federated rounds at this node: where the rounds' machines, the trainer, the disk and the mesh
//! meet.
//!
//! A job is a signed setting of the mesh, so every member comes to know it, at whichever side of a
//! cut, and a steward's word ends it. Each node follows every job; those that are anchors hold
//! shares, those that have the data train. Owns which jobs run here and that each is started again
//! after a failure, and the models that answer under the jobs' names (`served`, and `tuned` for
//! language models). Decides nothing of a round: [`selvedge_federated`] does; computes nothing:
//! [`selvedge_train`] does.

mod bases;
mod chain;
mod disk;
mod fits;
mod hints;
mod jobs;
mod labelled;
mod ledger;
mod member;
mod personal;
mod post;
mod refused;
mod rests;
mod runner;
mod seats;
mod served;
mod spec;
mod state;
mod task;
#[cfg(test)]
mod test_rounds;
mod trained;
mod trainer;
mod tries;
mod tuned;
#[cfg(test)]
mod tuning_tests;
mod verify;
mod view;

pub use bases::{BaseFacts, BaseModel};
pub use chain::{ChainError, ChainPart, ChainReader, ChainWriter};
pub use disk::RoundMeasured;
pub(crate) use fits::answer as answer_fits;
pub use fits::{FitsReport, NodeFits};
pub use jobs::name_taken;
pub use jobs::{DataParts, DataSource};
pub(crate) use jobs::{Federation, FederationParts, Learned, child};
pub(crate) use labelled::unknown as unknown_request;
pub use labelled::{Labelled, Labeller};
pub use personal::PersonalProgress;
pub(crate) use served::Served;
pub use spec::{Bases, JobSpec, SpecError, Training};
pub use state::{JobProgress, PartProgress};
pub use task::{Announced, AnnouncedError, Task};
pub(crate) use task::{is_job, is_seats, key_of, seats_of};
pub use trained::{TrainedError, TrainedModel};
pub(crate) use tuned::serving;
pub use verify::{Fate, Settled, Verified, VerifyError, verify_chain, verify_each, verify_model};
pub use view::{JobRun, JobView};
