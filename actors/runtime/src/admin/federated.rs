//! Jobs of learning, as operators see them.

use selvedge_base::{NodeId, Refusal};
use selvedge_proto::policy::KeyId;
use selvedge_proto::records::Roster;
use tokio::sync::watch;

use super::Admin;
use crate::federated::{FitsReport, JobView};

impl Admin {
    /// Signs the job of a file for the whole mesh; its name. It runs as soon as nodes hear of it.
    /// Members are asked before whether their data fit, unless it is wanted `anyway`.
    ///
    /// # Errors
    /// A refusal with what is wrong with the file or the mesh, where no round of it could end with
    /// the members that are there, or when this node may not sign.
    pub async fn federated_submit(&self, text: &str, anyway: bool) -> Result<String, Refusal> {
        if !anyway {
            self.federated_check(text, true).await?.may_start()?;
        }
        self.shared.federation.submit(&self.shared, text).await
    }

    /// Asks all members whether their data fit the job of a file, before anybody is told of it;
    /// each has some seconds to say. With `starts` nobody is asked of a job that could not be
    /// signed.
    ///
    /// # Errors
    /// A refusal with what is wrong with the file or the mesh, or of a job that is to be started
    /// when this node may not sign.
    pub async fn federated_check(&self, text: &str, starts: bool) -> Result<FitsReport, Refusal> {
        let named = |roster: &Roster| {
            roster.members().map(|(node, member)| (*node, member.name.clone())).collect()
        };
        let members = self.membership.with(named);
        self.shared.federation.ask_all(&self.shared, members, (text, starts)).await
    }

    /// Takes a job away from the whole mesh. What data have spent on it stays spent.
    ///
    /// # Errors
    /// A refusal where there is no such job, or this node may not sign.
    pub async fn federated_cancel(&self, name: &str) -> Result<(), Refusal> {
        self.shared.federation.cancel(&self.shared, name).await
    }

    /// Asks the mesh for other anchors of a job, in place of those that cannot be reached from
    /// here; who they are to be. They take over with the next set that the anchors before them
    /// close.
    ///
    /// # Errors
    /// A refusal where there is no such job, none has to be replaced, too few can be reached, or
    /// this node may not sign.
    pub async fn federated_reseat(&self, name: &str) -> Result<Vec<NodeId>, Refusal> {
        self.shared.federation.reseat(&self.shared, name).await
    }

    /// The jobs of the mesh, by name.
    pub fn federated_jobs(&self) -> Vec<JobView> {
        self.shared.federation.views()
    }

    /// Tells whenever a job is shown otherwise.
    pub fn federated_changes(&self) -> watch::Receiver<()> {
        self.shared.federation.changes()
    }

    /// The file of this node's own model of a job, which epidemic mode made; none where there is
    /// none.
    ///
    /// # Errors
    /// A refusal where there is no such job, it does not run here, or the disk fails.
    pub async fn federated_personal(&self, name: &str) -> Result<Option<Vec<u8>>, Refusal> {
        self.shared.federation.personal(name).await
    }

    /// A piece of the chain of a job as a file, counted from 0; none behind the last one.
    ///
    /// # Errors
    /// A refusal where there is no such job, it does not run here, or the disk fails.
    pub async fn federated_piece(
        &self,
        name: &str,
        piece: u64,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        self.shared.federation.piece(name, piece).await
    }

    /// Forgets the labelled requests of a model at this node, and those that wait for labels; how
    /// many had some.
    ///
    /// # Errors
    /// A refusal where none are kept here, or the disk fails.
    pub async fn labelled_forget(&self, model: &str) -> Result<u64, Refusal> {
        self.shared.federation.log().forget(model).await
    }

    /// Forgets the labelled requests that came with a key, at this node; how many there were.
    ///
    /// # Errors
    /// A refusal where the disk fails.
    pub async fn labelled_forget_key(&self, key: KeyId) -> Result<u64, Refusal> {
        self.shared.federation.log().forget_key(key).await
    }
}
