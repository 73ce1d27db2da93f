//! The routes of this node: which targets a model's name leads to.
//!
//! Owns the book that is in force and the ones before it, on the disk and in memory, what was
//! measured of targets, and the snapshot of facts that a decision looks at. Decides nothing:
//! [`selvedge_core::routes`] does. Each node has its own routes; nothing of them travels.

use std::collections::BTreeMap;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Micros, Mono, Refusal, Retry, Stage};
use selvedge_core::catalogue::Catalogue;
use selvedge_core::journey::Target;
use selvedge_core::paid::list_of;
use selvedge_core::route::MeshView;
use selvedge_core::routes::{
    Decision, Facts, Latency, MeshFacts, Provider, ProviderFacts, Request, RouteBook, Routes,
};
use selvedge_net::clock;
use serde::{Deserialize, Serialize};

use crate::providers::Providers;
use crate::store::{Store, StoreError};

/// Store record: the books, oldest first, the last one in force.
const ROUTES: &str = "routes";
/// Books kept: a working day's changes to go back over.
const MAX_BOOKS: usize = 16;
/// Targets whose times are kept: all of the largest book, several times over.
const MAX_MEASURED: usize = 4_096;
/// The longest text of a book: its largest form in bytes, written out.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// A book as it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBook {
    /// Counts the changes of this node, from 1.
    pub sequence: u64,
    /// What the operator wrote, in TOML.
    pub text: String,
}

/// The routes of this node.
pub(crate) struct Routing {
    store: Store,
    books: ArcSwap<Vec<StoredBook>>,
    routes: ArcSwap<Routes>,
    measured: Mutex<BTreeMap<Target, Latency>>,
    /// Changes happen one after another.
    changes: tokio::sync::Mutex<()>,
}

impl Routing {
    /// What is on the disk. A book that does not fit the providers any more is told to the log, and
    /// no route is in force until it is replaced.
    pub(crate) fn load(store: &Store, providers: &Providers) -> Result<Self, StoreError> {
        let books: Vec<StoredBook> = store.load(ROUTES)?.unwrap_or_default();
        let text = books.last().map_or("", |book| book.text.as_str());
        let routes = check(text, providers).unwrap_or_else(|error| {
            tracing::warn!(%error, "the routes are not used");
            Routes::default()
        });
        Ok(Self {
            store: store.clone(),
            books: ArcSwap::from_pointee(books),
            routes: ArcSwap::from_pointee(routes),
            measured: Mutex::default(),
            changes: tokio::sync::Mutex::default(),
        })
    }

    /// The book in force; the empty one before there was any.
    pub(crate) fn book(&self) -> StoredBook {
        self.books.load().last().cloned().unwrap_or_default()
    }

    /// The names that can be asked for exactly.
    pub(crate) fn names(&self) -> Vec<String> {
        self.routes.load().names().filter(|name| !name.ends_with('*')).collect()
    }

    /// Puts another book in force; done when it is on the disk.
    pub(crate) async fn set(&self, text: String, providers: &Providers) -> Result<u64, Refusal> {
        let _turn = self.changes.lock().await;
        self.publish(text, providers).await
    }

    /// Puts the book before the present one in force again, under a new number.
    pub(crate) async fn roll_back(&self, providers: &Providers) -> Result<u64, Refusal> {
        let _turn = self.changes.lock().await;
        let books = self.books.load_full();
        // Before the first book there were no routes.
        let before = match books.len() {
            0 => return Err(refused("there are no routes to take back".to_owned())),
            1 => String::new(),
            more => books[more - 2].text.clone(),
        };
        self.publish(before, providers).await
    }

    async fn publish(&self, text: String, providers: &Providers) -> Result<u64, Refusal> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(refused(format!("the routes have more than {MAX_TEXT_BYTES} bytes")));
        }
        let routes = check(&text, providers).map_err(refused)?;
        let mut books = Vec::clone(&self.books.load());
        let sequence = books.last().map_or(1, |last| last.sequence.saturating_add(1));
        books.push(StoredBook { sequence, text });
        let over = books.len().saturating_sub(MAX_BOOKS);
        books.drain(..over);
        self.store.save(ROUTES, &books).await.map_err(|error| {
            let message = error.to_string();
            Refusal::new(Stage::Admit, Blame::Us, Retry::Never, Code::Internal, message)
        })?;
        self.routes.store(routes.into());
        self.books.store(books.into());
        Ok(sequence)
    }

    /// Whether a route has this name.
    pub(crate) fn has(&self, model: &str) -> bool {
        self.routes.load().has(model)
    }

    /// Whether a request for this name is judged by its complexity.
    pub(crate) fn asks_complexity(&self, model: &str) -> bool {
        self.routes.load().asks_complexity(model)
    }

    /// What a route decides for a request; none where no route has the name.
    pub(crate) fn decide(
        &self,
        request: &Request,
        view: &MeshView,
        providers: &Providers,
    ) -> Option<Decision> {
        let now = clock::mono();
        self.routes.load().decide(request, &self.facts(view, providers, now), now)
    }

    /// Notes how fast a target answered.
    pub(crate) fn observe(&self, target: &Target, first: Micros, per_token: Micros) {
        let mut measured = self.measured.lock();
        if let Some(known) = measured.get_mut(target) {
            known.observe(first, per_token);
        } else if measured.len() < MAX_MEASURED {
            let new = Latency { first_token: first, per_token };
            measured.insert(target.clone(), new);
        }
    }

    fn facts(&self, view: &MeshView, providers: &Providers, now: Mono) -> Facts {
        let measured = self.measured.lock();
        let mut facts = Facts { mesh: MeshFacts::of(view, &measured), ..Facts::default() };
        for (name, open) in providers.all().iter() {
            let shared = open.provider.shared();
            let (allowed, running) = (shared.allows("", 0), shared.running());
            let known = ProviderFacts::of(name, allowed, running, &measured, now);
            facts.providers.insert(name.clone(), known);
        }
        facts
    }
}

fn check(text: &str, providers: &Providers) -> Result<Routes, String> {
    let book = RouteBook::from_toml(text).map_err(|error| error.to_string())?;
    let known = providers.all();
    let known = known.iter().map(|(name, open)| {
        let spec = open.spec();
        let region = Some(spec.label.clone()).filter(|label| !label.is_empty());
        (name.clone(), Provider { kind: list_of(spec), region, free: !open.costs_money() })
    });
    let base = Catalogue::built_in().map_err(ToString::to_string)?;
    Routes::check(&book, &known.collect(), base).map_err(|error| error.to_string())
}

fn refused(message: String) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, message)
}
