//! Language models of this node that jobs may tune.
//!
//! Owns how a job's base model is found: by the name that a job file says where the job is made,
//! and by its digest everywhere else, since names are each node's own.

use std::path::PathBuf;

use selvedge_train::{BaseShape, Tuner, Tuning};

use super::disk::hex;

/// A model file of this node, with the digest that was worked out of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseModel {
    /// What this node calls it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The digest of its bytes.
    pub digest: [u8; 32],
}

/// What a job has to say of a base model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseFacts {
    /// The digest of its file.
    pub digest: [u8; 32],
    /// Its matrices.
    pub shape: BaseShape,
}

impl BaseModel {
    /// What a job has to say of the model of this name. Reads the header of its file.
    ///
    /// # Errors
    /// Why it cannot be tuned, in words.
    pub fn facts(models: &[Self], name: &str) -> Result<BaseFacts, String> {
        let Some(model) = models.iter().find(|model| model.name == name) else {
            let names: Vec<&str> = models.iter().map(|model| &*model.name).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(format!(
                "this node has no such model (it has {names}); `selvedge models pull` fetches one, \
                 and a node that runs knows it from its next start on"
            ));
        };
        let shape = Tuner::shape_of(&model.path).map_err(|error| error.to_string())?;
        Ok(BaseFacts { digest: model.digest, shape })
    }

    /// The file with a tuning's digest.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(super) fn file_of(models: &[Self], tuning: &Tuning) -> Result<PathBuf, String> {
        let own = models.iter().find(|model| model.digest == tuning.digest);
        own.map(|model| model.path.clone()).ok_or_else(|| {
            format!(
                "it has no model with the digest {}, which the job calls '{}' and tunes: \
                 `selvedge models pull` fetches models, and a node knows them from its next start",
                hex(&tuning.digest),
                tuning.base.escape_debug()
            )
        })
    }
}
