//! Who signs at this node: it as a steward, or the root key where it is kept.
//!
//! Owns the choice. What is signed, and whether it holds, is the records'.

use std::path::Path;

use selvedge_base::{Code, NodeId, Refusal, Stage};
use selvedge_net::{Identity, clock};
use selvedge_proto::records::{Signed, Steward};

use crate::custody;
use crate::membership::{Key, Membership, custody_refusal};

/// A key that may sign, and what shows its right.
pub(crate) enum Signing<'a> {
    Steward(&'a Identity, Box<Signed<Steward>>),
    Root(Box<Identity>),
}

impl<'a> Signing<'a> {
    /// Who signs here: with `as_root` the root key when it is at hand, else this node as a steward.
    pub(crate) fn here(
        membership: &Membership,
        identity: &'a Identity,
        home: &Path,
        as_root: bool,
    ) -> Result<Self, Refusal> {
        let steward = membership.with(|roster| roster.own_steward(clock::wall()).cloned());
        let has_root = custody::root_key_path(home).exists();
        match steward {
            Some(steward) if !(as_root && has_root) => {
                Ok(Self::Steward(identity, Box::new(steward)))
            }
            None if !has_root => Err(no_steward(identity.node_id())),
            Some(_) | None => {
                let root = custody::load_root(home);
                Ok(Self::Root(Box::new(root.map_err(|error| custody_refusal(&error))?)))
            }
        }
    }

    /// The generation of the root key that the right to sign stems from.
    pub(crate) fn generation(&self, membership: &Membership) -> u32 {
        match self {
            Self::Steward(_, steward) => steward.body.generation,
            Self::Root(_) => membership.with(|roster| roster.generation()),
        }
    }

    /// Signs with it.
    pub(crate) fn sign<T, E: std::error::Error>(
        &self,
        sign: impl FnOnce(&Key<'_>, Option<Signed<Steward>>) -> Result<T, E>,
    ) -> Result<T, Refusal> {
        let signed = match self {
            Self::Steward(identity, steward) => sign(&Key(identity), Some((**steward).clone())),
            Self::Root(root) => sign(&Key(root), None),
        };
        signed.map_err(|error| {
            Refusal::client(Stage::Validate, Code::InvalidRequest, error.to_string())
        })
    }
}

/// What to do at a node that may not sign. It is seldom to bring the root key to it.
fn no_steward(node: NodeId) -> Refusal {
    let message = format!(
        "only a steward may do this, and this node is none: do it at a steward (`selvedge mesh \
         members` lists them), or make this node one with `selvedge mesh promote {}` on the node \
         that holds the mesh's root key, where the mesh was made",
        node.short()
    );
    Refusal::client(Stage::Authenticate, Code::Forbidden, message)
}
