//! API keys: those of the mesh, which belong to accounts, and those of this node alone.
//!
//! Owns that both kinds look alike to operators and to the surface. A key of the mesh is a signed
//! record that every node knows; one of this node is a hash in its own store, and has no budget
//! besides that of callers without a key.

use selvedge_base::{Code, Refusal, Stage};
use selvedge_core::auth::{KeyError, KeyRing, NewKey};
use selvedge_net::{clock, entropy};
use selvedge_proto::policy::{self, AccountPath, KeyId, KeyProblem};
use serde::Serialize;

use super::{Admin, KEYS};
use crate::membership::broken;
use crate::policies::KeyDraft;

/// An API key, as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// When it was made, in seconds since the Unix epoch.
    pub created_s: u64,
    /// The account it belongs to; none for a key of this node alone.
    pub account: Option<AccountPath>,
    /// When it ends by itself, in seconds since the Unix epoch.
    pub expires_s: Option<u64>,
    /// Why it opens nothing now, if it does not.
    pub problem: Option<String>,
    /// Models it may use; empty: all.
    pub models: Vec<String>,
    /// Routes it may use; empty: all.
    pub routes: Vec<String>,
}

/// The caller behind a good API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key of the mesh; none for one of this node alone.
    pub key: Option<KeyId>,
    /// Whose budgets count.
    pub account: AccountPath,
    /// Who is named in records and to peers.
    pub tenant: String,
    /// Models it may use, by name or by prefix and `*`; empty: all.
    pub models: Vec<String>,
    /// Routes it may use; empty: all.
    pub routes: Vec<String>,
}

impl Admin {
    /// Makes an API key; its secret is in the answer and nowhere else. With an account it opens
    /// every node of the mesh that has heard of it, and this needs a steward or the root key.
    ///
    /// # Errors
    /// A refusal for an unusable name, or when the key cannot be signed or stored.
    pub async fn key_create(&self, draft: KeyDraft) -> Result<NewKey, Refusal> {
        let wall = clock::wall();
        let Some(account) = draft.account else {
            if draft.expires_in.is_some() || !draft.models.is_empty() || !draft.routes.is_empty() {
                let message = "only a key with an account can expire or be limited to models and \
                               routes: say which account it belongs to";
                return Err(Refusal::client(Stage::Validate, Code::InvalidRequest, message));
            }
            let _in_order = self.keys.lock().await;
            let mut ring = KeyRing::clone(&self.shared.keys.load());
            let made = ring.create(&draft.name, entropy::seed(), wall);
            let made = made.map_err(|error| no_key(&error))?;
            self.keep_keys(ring).await?;
            return Ok(made);
        };
        let draft = policy::KeyDraft {
            name: draft.name,
            account,
            models: draft.models,
            routes: draft.routes,
            not_after: draft.expires_in.map(|span| wall.plus(span)),
        };
        let (id, secret) = self.shared.policies.key_create(&self.shared.quota, draft).await?;
        Ok(NewKey { id: id.to_string(), secret })
    }

    /// The API keys, without their secrets: those of the mesh, then those of this node.
    pub fn key_list(&self) -> Vec<KeyView> {
        let (book, wall) = (self.shared.policies.book(), clock::wall());
        let of_mesh = book.keys().map(|grant| {
            let over = grant.not_after.is_some_and(|end| wall > end);
            let suspended = book.suspended(&grant.account);
            KeyView {
                id: grant.id.to_string(),
                name: grant.name.clone(),
                created_s: grant.issued.as_secs(),
                account: Some(grant.account.clone()),
                expires_s: grant.not_after.map(|end| end.as_secs()),
                problem: match suspended {
                    Some(account) => Some(format!("account '{account}' is suspended")),
                    None => over.then(|| "expired".to_owned()),
                },
                models: grant.models.clone(),
                routes: grant.routes.clone(),
            }
        });
        let ring = self.shared.keys.load();
        let of_node = ring.iter().map(|(id, key)| KeyView {
            id: id.clone(),
            name: key.name.clone(),
            created_s: key.created.as_secs(),
            account: None,
            expires_s: None,
            problem: None,
            models: Vec::new(),
            routes: Vec::new(),
        });
        of_mesh.chain(of_node).collect()
    }

    /// Revokes an API key at once; one of the mesh everywhere this is heard of, and its requests
    /// under way end.
    ///
    /// # Errors
    /// A refusal for an unknown id, or when the change cannot be signed or stored.
    pub async fn key_revoke(&self, id: &str) -> Result<(), Refusal> {
        if let Some(key) = self.shared.policies.book().key_named(id) {
            let order = self.shared.policies.book().close_key(key);
            let cut = self.shared.policies.cut(&self.shared.quota, order).await;
            // Other nodes learn from none of its requests any more, as soon as they hear of it.
            let forgotten = self.labelled_forget_key(key).await;
            cut?;
            return forgotten.map(drop).map_err(|why| still_kept(key, why));
        }
        let _in_order = self.keys.lock().await;
        let mut ring = KeyRing::clone(&self.shared.keys.load());
        if let Err(error) = ring.revoke(id) {
            return self.forget_gone(id, no_key(&error)).await;
        }
        self.keep_keys(ring).await
    }

    /// Forgets what a key of the mesh asked that is in the book no more: it was cut elsewhere, or
    /// the disk failed when it was cut. `unknown` where it left nothing here.
    async fn forget_gone(&self, id: &str, unknown: Refusal) -> Result<(), Refusal> {
        let Ok(key) = id.parse::<KeyId>() else { return Err(unknown) };
        match self.labelled_forget_key(key).await {
            Ok(0) => Err(unknown),
            Ok(_) => Ok(()),
            Err(why) => Err(still_kept(key, why)),
        }
    }

    /// The caller behind an API key's secret.
    ///
    /// # Errors
    /// Why it opens nothing.
    pub fn verify_key(&self, secret: &str) -> Result<Caller, KeyProblem> {
        let problem = match self.shared.policies.book().verify(secret, clock::wall()) {
            Ok(caller) => {
                return Ok(Caller {
                    key: Some(caller.key),
                    tenant: caller.account.tenant().to_owned(),
                    account: caller.account,
                    models: caller.models,
                    routes: caller.routes,
                });
            }
            Err(problem) => problem,
        };
        let ring = self.shared.keys.load();
        let (_, stored) = ring.verify(secret).ok_or(problem)?;
        Ok(Caller {
            key: None,
            account: AccountPath::local(),
            tenant: stored.name.clone(),
            models: Vec::new(),
            routes: Vec::new(),
        })
    }

    async fn keep_keys(&self, ring: KeyRing) -> Result<(), Refusal> {
        self.store.save(KEYS, &ring).await.map_err(|error| broken(&error))?;
        self.shared.keys.store(std::sync::Arc::new(ring));
        Ok(())
    }
}

/// The refusal where a key opens nothing any more and the disk still has what it asked.
fn still_kept(key: KeyId, why: Refusal) -> Refusal {
    let message = format!(
        "the key is revoked, but its labelled requests are still on the disk: {}; revoke it once \
         more by its whole id, {key}",
        why.message
    );
    Refusal { message, ..why }
}

fn no_key(error: &KeyError) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, error.to_string())
}
