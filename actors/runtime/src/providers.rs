//! The providers this node asks: who they are, and the keys they are asked with.
//!
//! Owns the list, the vault and that a change is durable before it counts. Requests look at a
//! snapshot. How a provider is asked is `selvedge-upstream`'s, what is said to it a dialect's.

mod disk;
pub(crate) mod embed;
mod prices;
pub(crate) mod speak;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use selvedge_base::{Blame, Code, Refusal, Retry, Stage};
use selvedge_core::catalogue::Model;
use selvedge_core::paid::Priced;
use selvedge_core::upstream::provider::Continues;
use selvedge_core::upstream::provider::{CostClass, check_all};
use selvedge_core::upstream::{ProviderSpec, RawProvider, Report};
use selvedge_dialect::chat::ChatRequest;
use selvedge_net::{Identity, clock, entropy};
use selvedge_upstream::{
    Clock, Credential, KeyListing, Provider, Proxy, Roots, Secret, SetupError, Shared, Target,
    TargetSettings, Vault, VaultError,
};
use thiserror::Error;

use crate::relay::Passable;
use crate::store::{Store, StoreError};

pub(crate) use prices::counts;

/// Store record: the providers, as JSON of their raw form.
const PROVIDERS: &str = "providers";
/// Providers of one node: more than there are kinds, with accounts of their own in several regions.
const MAX_PROVIDERS: usize = 64;

/// Why a change of the providers is not made.
#[derive(Debug, Error)]
pub enum ProvidersError {
    /// What was given is no provider.
    #[error("{0}")]
    Invalid(String),
    /// There is none of this name.
    #[error("no provider is called '{0}'; `selvedge provider list` shows them")]
    Unknown(String),
    /// It cannot be used as it is.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The keys.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ProvidersError {
    /// What whoever asked for the change is told.
    pub fn refusal(&self) -> Refusal {
        let message = self.to_string();
        match self {
            Self::Store(_) | Self::Vault(VaultError::Store(_) | VaultError::Seal) => {
                Refusal::new(Stage::Admit, Blame::Us, Retry::Never, Code::Internal, message)
            }
            Self::Invalid(_) | Self::Unknown(_) | Self::Setup(_) | Self::Vault(_) => {
                Refusal::client(Stage::Validate, Code::InvalidRequest, message)
            }
        }
    }
}

/// A provider, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderView {
    /// What is configured.
    pub raw: RawProvider,
    /// Where it is.
    pub address: String,
    /// Those of its keys that the vault does not have.
    pub missing_keys: Vec<String>,
    /// Requests under way.
    pub running: u32,
    /// Why it would not be asked now, if so.
    pub left_alone: Option<String>,
}

/// A provider that can be asked.
pub(crate) struct Open {
    raw: RawProvider,
    pub(crate) provider: Provider,
}

impl Open {
    pub(crate) fn spec(&self) -> &ProviderSpec {
        self.provider.shared().spec()
    }

    /// Whether asking it is paid for.
    pub(crate) fn costs_money(&self) -> bool {
        self.spec().cost != CostClass::Free
    }

    /// What a request for a model that is known so far can cost there. `usual` bounds an answer
    /// that nothing else does.
    pub(crate) fn price(
        &self,
        model: Option<Arc<Model>>,
        request: &ChatRequest,
        usual: u32,
    ) -> Priced {
        prices::priced(self.spec(), model, request, usual)
    }

    /// As [`Open::price`], for a body that passes as it came.
    pub(crate) fn price_passed(
        &self,
        model: Option<Arc<Model>>,
        asked: &Passable,
        usual: u32,
    ) -> Priced {
        Priced::new(self.spec(), model, prices::size_of_bytes(asked, usual))
    }
}

/// The providers of this node.
pub(crate) struct Providers {
    vault: Vault,
    store: Store,
    open: ArcSwap<BTreeMap<String, Arc<Open>>>,
    public: Roots,
    proxy: Option<Proxy>,
    /// Changes happen one after another.
    changes: tokio::sync::Mutex<()>,
}

impl Providers {
    /// Opens what is on the disk. What cannot be used is told to the log and stays on the disk.
    pub(crate) async fn open(identity: &Identity, store: &Store) -> Result<Self, ProvidersError> {
        let key = identity.derive(selvedge_upstream::vault::CONTEXT);
        let (vault, closed) = Vault::open(key, Arc::new(disk::Keys(store.clone())))?;
        for error in closed {
            tracing::warn!(%error, "a provider's key is not used");
        }
        let proxy = Proxy::of_environment(|name| std::env::var(name).ok())?;
        let this = Self {
            vault,
            store: store.clone(),
            open: ArcSwap::default(),
            public: Roots::public()?,
            proxy,
            changes: tokio::sync::Mutex::new(()),
        };
        let mut open = BTreeMap::new();
        for raw in this.stored()? {
            let name = raw.name.clone();
            match this.make(raw).await {
                Ok(provider) => {
                    open.insert(name, Arc::new(provider));
                }
                Err(error) => tracing::warn!(provider = %name, %error, "a provider is not used"),
            }
        }
        this.open.store(Arc::new(open));
        Ok(this)
    }

    /// The provider of a name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Open>> {
        self.open.load().get(name).map(Arc::clone)
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Arc<BTreeMap<String, Arc<Open>>> {
        self.open.load_full()
    }

    /// All of them, for operators.
    pub(crate) fn list(&self) -> Vec<ProviderView> {
        let view = |open: &Arc<Open>| {
            let spec = open.spec();
            let lacks = |name: &&String| self.vault.secret(name).is_none();
            let now = clock::mono();
            let shared = open.provider.shared();
            let denied = shared.allows("", 0).err();
            ProviderView {
                raw: open.raw.clone(),
                address: spec.base.to_string(),
                missing_keys: spec.keys.iter().filter(lacks).cloned().collect(),
                running: shared.running(),
                left_alone: denied.map(|denied| denied.refusal(&spec.name, now).message),
            }
        };
        self.open.load().values().map(view).collect()
    }

    /// Adds a provider or replaces the one of that name; done when it is on the disk.
    pub(crate) async fn add(&self, raw: RawProvider) -> Result<(), ProvidersError> {
        let _turn = self.changes.lock().await;
        let mut stored = self.stored()?;
        stored.retain(|known| known.name != raw.name);
        stored.push(raw.clone());
        if stored.len() > MAX_PROVIDERS {
            let message =
                format!("{MAX_PROVIDERS} providers are configured, which is all there is room for");
            return Err(ProvidersError::Invalid(message));
        }
        check_all(&stored).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            ProvidersError::Invalid(errors.join("; "))
        })?;
        let name = raw.name.clone();
        let open = Arc::new(self.make(raw).await?);
        self.save(&stored).await?;
        self.replace(|known| {
            known.insert(name.clone(), Arc::clone(&open));
        });
        Ok(())
    }

    /// Removes a provider; requests under way at it go on.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), ProvidersError> {
        let _turn = self.changes.lock().await;
        let mut stored = self.stored()?;
        let before = stored.len();
        stored.retain(|known| known.name != name);
        if stored.len() == before {
            return Err(ProvidersError::Unknown(name.to_owned()));
        }
        self.save(&stored).await?;
        self.replace(|known| {
            known.remove(name);
        });
        Ok(())
    }

    /// The keys, as far as people may see them.
    pub(crate) fn keys(&self) -> Vec<KeyListing> {
        self.vault.list()
    }

    /// Stores a key; providers that name it use it from now on.
    pub(crate) async fn key_add(&self, name: &str, key: String) -> Result<(), ProvidersError> {
        let mut nonce = [0; 24];
        entropy::fill(&mut nonce);
        self.vault.add(name, Secret::new(key), clock::wall(), nonce).await?;
        self.key_changed(name)
    }

    /// Removes a key.
    pub(crate) async fn key_remove(&self, name: &str) -> Result<(), ProvidersError> {
        self.vault.remove(name).await?;
        self.key_changed(name)
    }

    fn key_changed(&self, name: &str) -> Result<(), ProvidersError> {
        for open in self.open.load().values() {
            let spec = open.spec();
            for (place, _) in spec.keys.iter().enumerate().filter(|(_, known)| *known == name) {
                open.provider.shared().replace(place, self.credential(spec, name)?);
            }
        }
        Ok(())
    }

    fn credential(
        &self,
        spec: &ProviderSpec,
        name: &str,
    ) -> Result<Option<Credential>, ProvidersError> {
        let secret = self.vault.secret(name);
        Ok(secret.map(|secret| Credential::of(spec.kind, name, &secret)).transpose()?)
    }

    async fn make(&self, raw: RawProvider) -> Result<Open, ProvidersError> {
        let spec = raw.checked().map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            ProvidersError::Invalid(errors.join("; "))
        })?;
        let roots = match spec.extra_ca.clone().map(PathBuf::from) {
            None => self.public.clone(),
            Some(path) => {
                tokio::task::spawn_blocking(move || Roots::with_file(&path)).await.map_err(
                    |_| ProvidersError::Invalid("reading the authorities failed".to_owned()),
                )??
            }
        };
        let credentials = spec.keys.iter().map(|name| self.credential(&spec, name));
        let credentials = credentials.collect::<Result<Vec<_>, _>>()?;
        let settings = TargetSettings::default();
        let clock = Clock { mono: clock::mono, wall: clock::wall };
        let target = Target::new(&spec, roots, self.proxy.clone(), settings, clock)?;
        let shared = Shared::new(spec, credentials, entropy::dice(), clock, Box::new(told));
        Ok(Open { raw, provider: Provider::new(shared, target) })
    }

    fn replace(&self, change: impl Fn(&mut BTreeMap<String, Arc<Open>>)) {
        let mut open = BTreeMap::clone(&self.open.load());
        change(&mut open);
        self.open.store(Arc::new(open));
    }

    fn stored(&self) -> Result<Vec<RawProvider>, ProvidersError> {
        let Some(json) = self.store.load::<String>(PROVIDERS)? else { return Ok(Vec::new()) };
        serde_json::from_str(&json).map_err(|error| {
            let message = format!("the stored providers cannot be read by this build: {error}");
            ProvidersError::Invalid(message)
        })
    }

    async fn save(&self, providers: &[RawProvider]) -> Result<(), ProvidersError> {
        let json =
            written(providers).map_err(|error| ProvidersError::Invalid(error.to_string()))?;
        Ok(self.store.save(PROVIDERS, &json).await?)
    }
}

/// Providers as they are stored. The version before refuses a field that it does not know, so that
/// `continues` is only written where it says something.
fn written(providers: &[RawProvider]) -> serde_json::Result<String> {
    let mut values = Vec::with_capacity(providers.len());
    for provider in providers {
        let mut value = serde_json::to_value(provider)?;
        if provider.continues == Continues::No
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove("continues");
        }
        values.push(value);
    }
    serde_json::to_string(&values)
}

/// What an operator may want to know of a provider goes to the log. Nothing in it is secret.
fn told(spec: &ProviderSpec, report: &Report) {
    match report {
        Report::Closed { .. } => {
            tracing::info!(provider = %spec.name, ?report, "a provider is asked again");
        }
        Report::Opened { .. } | Report::Key { .. } => {
            tracing::warn!(provider = %spec.name, ?report, "a provider or its key is left alone");
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_core::upstream::ProviderKind;

    use super::*;

    #[test]
    fn a_provider_that_continues_nothing_is_stored_as_the_version_before_reads_it() {
        let stored = |continues| {
            let raw = RawProvider { continues, ..RawProvider::named("p", ProviderKind::OpenAi) };
            let json = written(std::slice::from_ref(&raw)).unwrap();
            assert_eq!(serde_json::from_str::<Vec<RawProvider>>(&json).unwrap(), [raw]);
            json.contains("continues")
        };
        assert!(!stored(Continues::No));
        assert!(stored(Continues::Prefix));
    }
}
