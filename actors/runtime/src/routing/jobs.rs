//! Jobs of learning among the settings of the mesh: who knows of which, and who may tell of one.
//!
//! Owns the passage. What a job is, and whether it can be run, is [`crate::federated`]'s; that a
//! steward signed it, and that all nodes come to hold the same, is the settings' book's.

use selvedge_base::Refusal;
use selvedge_proto::settings::{SettingKey, SettingsBook};
use tokio::sync::watch;

use super::{Routing, refused};
use crate::federated::{is_job, is_seats, seats_of};

/// What was ever said under a name and is remembered, the version that governs at the end.
fn versions(book: &SettingsBook, key: &SettingKey) -> Vec<Vec<u8>> {
    let contents = book.history(key).filter_map(|one| one.signed.body.content.clone());
    let mut contents: Vec<Vec<u8>> = contents.collect();
    contents.reverse();
    contents
}

/// Refuses a name that a job has.
fn has_no_job(book: &SettingsBook, key: &SettingKey) -> Result<(), Refusal> {
    if book.head(key).is_none_or(|head| head.signed.body.content.is_none()) {
        return Ok(());
    }
    let name = &key.name;
    Err(refused(format!(
        "there is a job '{name}': cancel it with `selvedge fed cancel {name}`, or give this one \
         another name"
    )))
}

impl Routing {
    /// The jobs of the mesh: names and contents.
    pub(crate) fn jobs(&self) -> Vec<(String, Vec<u8>)> {
        let book = self.settings.book();
        let jobs = book.current().filter(|(setting, _)| is_job(&setting.key));
        jobs.map(|(setting, content)| (setting.key.name.clone(), content.to_vec())).collect()
    }

    /// What the mesh says of anchors of jobs: names of jobs, and contents, the one that governs at
    /// the end. Those before it are of stewards who did not know of each other, too.
    pub(crate) fn seats(&self) -> Vec<(String, Vec<Vec<u8>>)> {
        let book = self.settings.book();
        let seats = book.current().filter(|(setting, _)| is_seats(&setting.key));
        seats
            .map(|(setting, _)| (setting.key.name.clone(), versions(&book, &setting.key)))
            .collect()
    }

    /// Tells the mesh who is to be the anchors of a job, by what was told of that before.
    ///
    /// # Errors
    /// A refusal where the job is gone, `make` refuses, this node may not sign, or it cannot be
    /// stored.
    pub(crate) async fn tell_seats(
        &self,
        job: SettingKey,
        make: impl FnOnce(&[Vec<u8>]) -> Result<Vec<u8>, Refusal>,
    ) -> Result<(), Refusal> {
        let seats = seats_of(&job.name);
        let make = |book: &SettingsBook| {
            let head = book.head(&job).and_then(|head| head.signed.body.content.as_ref());
            if head.is_none() {
                return Err(refused(format!("the job '{}' was cancelled", job.name)));
            }
            let told = make(&versions(book, &seats))?;
            Ok(vec![(seats.clone(), Some(told))])
        };
        self.settings.change(make, |_, _, _| Ok(())).await.map(drop)
    }

    /// Tells whenever settings of the mesh changed.
    pub(crate) fn job_changes(&self) -> watch::Receiver<()> {
        self.settings.changes()
    }

    /// Whether this node could tell the mesh of a job, before it is made.
    ///
    /// # Errors
    /// A refusal where a job has the name, or this node may not sign.
    pub(crate) fn may_tell_job(&self, key: &SettingKey) -> Result<(), Refusal> {
        self.settings.may_sign()?;
        has_no_job(&self.settings.book(), key)
    }

    /// Tells the mesh of a job.
    ///
    /// # Errors
    /// A refusal where a job has the name, this node may not sign, or it cannot be stored.
    pub(crate) async fn tell_job(&self, key: SettingKey, content: Vec<u8>) -> Result<(), Refusal> {
        let make = |book: &SettingsBook| {
            has_no_job(book, &key)?;
            Ok(vec![(key.clone(), Some(content))])
        };
        self.settings.change(make, |_, _, _| Ok(())).await.map(drop)
    }

    /// Takes a job away from the whole mesh, and what was said of its anchors.
    ///
    /// # Errors
    /// A refusal where there is none, this node may not sign, or it cannot be stored.
    pub(crate) async fn take_job_away(&self, key: SettingKey) -> Result<(), Refusal> {
        let seats = seats_of(&key.name);
        let make = |book: &SettingsBook| {
            let head = book.head(&seats).and_then(|head| head.signed.body.content.as_ref());
            let more = head.is_some().then(|| (seats.clone(), None));
            Ok(std::iter::once((key.clone(), None)).chain(more).collect())
        };
        self.settings.change(make, |_, _, _| Ok(())).await.map(drop)
    }
}
