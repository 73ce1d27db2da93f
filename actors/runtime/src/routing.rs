//! The routes of this node: which targets a model's name leads to.
//!
//! Owns this node's own book and the ones before it, the entries of the mesh, what of both is in
//! force, what was measured of targets, and the snapshot of facts that a decision looks at. Decides
//! nothing: [`selvedge_core::routes`] does. The own book stays here; entries of the mesh are signed
//! and every node has them.

mod jobs;
mod settings;
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use selvedge_base::{Blame, Code, Micros, Mono, NodeId, Refusal, Retry, Stage};
use selvedge_core::catalogue::{Catalogue, Model};
use selvedge_core::journey::Target;
use selvedge_core::paid::{self, list_of};
use selvedge_core::route::MeshView;
use selvedge_core::routes::{
    Decision, Facts, Gathered, Item, Latency, MAX_ROUTES, MeshFacts, Provider, ProviderFacts,
    Request, RouteBook, Routes, Saving, Trouble,
};
use selvedge_core::upstream::ProviderSpec;
use selvedge_net::clock;
use selvedge_proto::settings::{SettingKey, SettingsBook, SettingsMessage};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use settings::Settings;
pub(crate) use settings::{Place, SETTINGS};
pub use shared::SharedEntry;

use crate::providers::Providers;
use crate::store::{Store, StoreError};

/// Store record: the books, oldest first, the last one in force.
const ROUTES: &str = "routes";
/// Books kept: a working day's changes to go back over.
const MAX_BOOKS: usize = 16;
/// Targets whose times are kept: all of the largest book, several times over.
const MAX_MEASURED: usize = 4_096;
/// Routes whose savings are counted: all of one book and its predecessors of a working day.
const MAX_SAVINGS: usize = MAX_ROUTES * MAX_BOOKS;
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

/// What trying small models first came to at a route of this node, since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSaving {
    /// Answers.
    pub answers: u64,
    /// Those for which a larger model was asked, since a smaller one's was found wanting.
    pub escalated: u64,
    /// Paid for those whose largest model has a price, in millionths of a dollar.
    pub paid: u64,
    /// What that model alone would have cost for them.
    pub instead: u64,
}

/// The routes of this node.
pub(crate) struct Routing {
    store: Store,
    providers: Arc<Providers>,
    books: ArcSwap<Vec<StoredBook>>,
    settings: Settings,
    /// What is in force of both.
    force: ArcSwap<Gathered>,
    /// The last one who looks at both is the last one who says what is in force.
    gathering: Mutex<()>,
    measured: Mutex<BTreeMap<Target, Latency>>,
    savings: Mutex<BTreeMap<String, RouteSaving>>,
    /// Changes of the own book happen one after another.
    changes: tokio::sync::Mutex<()>,
}

impl Routing {
    /// What is on the disk. What of it cannot be used is told to the log.
    pub(crate) fn load(place: Place, providers: Arc<Providers>) -> Result<Self, StoreError> {
        let store = place.store.clone();
        let books: Vec<StoredBook> = store.load(ROUTES)?.unwrap_or_default();
        let this = Self {
            store,
            providers,
            books: ArcSwap::from_pointee(books),
            settings: Settings::load(place)?,
            force: ArcSwap::default(),
            gathering: Mutex::default(),
            measured: Mutex::default(),
            savings: Mutex::default(),
            changes: tokio::sync::Mutex::default(),
        };
        this.rebuild();
        Ok(this)
    }

    /// Puts in force what the own book, the mesh and the providers now make of the routes.
    pub(crate) fn rebuild(&self) {
        let _last = self.gathering.lock();
        let (before, now) = (self.force.load_full(), self.gathered(&self.settings.book()));
        tell(&before.own, &now.own, "this node's own routes");
        tell(&before.shared, &now.shared, "the mesh's routes");
        self.force.store(Arc::new(now));
    }

    /// What would be in force with these settings of the mesh.
    fn gathered(&self, settings: &SettingsBook) -> Gathered {
        let own = RouteBook::from_toml(&self.book().text).unwrap_or_else(|error| {
            tracing::warn!(%error, "this node's own routes are not used");
            RouteBook::default()
        });
        let (shared, unread) = shared::entries_of(settings);
        let providers = known(&self.providers);
        let base = match Catalogue::built_in() {
            Ok(base) => base,
            Err(error) => {
                tracing::error!(%error, "the program's own catalogue cannot be read");
                &Catalogue::default()
            }
        };
        let mut gathered = Routes::gather(&Item::all_of(&own), &shared, &providers, base);
        gathered.shared.extend(unread);
        gathered
    }

    /// Tells whenever the entries of the mesh changed.
    pub(crate) fn shared_changes(&self) -> watch::Receiver<()> {
        self.settings.changes()
    }

    /// What to tell a peer about the entries of the mesh from time to time.
    pub(crate) fn greeting(&self) -> SettingsMessage {
        self.settings.greeting()
    }

    /// Takes what a peer says about them; what to answer, if anything.
    pub(crate) async fn heard(
        &self,
        from: NodeId,
        message: SettingsMessage,
    ) -> Option<SettingsMessage> {
        let (is_new, answer) = self.settings.heard(from, message).await;
        if is_new {
            self.rebuild();
        }
        answer
    }

    /// What is done every second.
    pub(crate) async fn look(&self) {
        if self.settings.look().await {
            self.rebuild();
        }
    }

    /// The book in force; the empty one before there was any.
    pub(crate) fn book(&self) -> StoredBook {
        self.books.load().last().cloned().unwrap_or_default()
    }

    /// What of it is not used as it is.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let force = self.force.load();
        let line = |(key, trouble): (&SettingKey, &Trouble)| {
            format!("'{}': {}", key.name, trouble.as_str())
        };
        force.own.iter().map(line).collect()
    }

    /// The names that can be asked for exactly.
    pub(crate) fn names(&self) -> Vec<String> {
        self.force.load().routes.names().filter(|name| !name.ends_with('*')).collect()
    }

    /// Puts another book in force; done when it is on the disk.
    pub(crate) async fn set(&self, text: String) -> Result<u64, Refusal> {
        let _turn = self.changes.lock().await;
        self.publish(text).await
    }

    /// Puts the book before the present one in force again, under a new number.
    pub(crate) async fn roll_back(&self) -> Result<u64, Refusal> {
        let _turn = self.changes.lock().await;
        let books = self.books.load_full();
        // Before the first book there were no routes.
        let before = match books.len() {
            0 => return Err(refused("there are no routes to take back".to_owned())),
            1 => String::new(),
            more => books[more - 2].text.clone(),
        };
        self.publish(before).await
    }

    async fn publish(&self, text: String) -> Result<u64, Refusal> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(refused(format!("the routes have more than {MAX_TEXT_BYTES} bytes")));
        }
        check(&text, &self.providers).map_err(refused)?;
        let mut books = Vec::clone(&self.books.load());
        let sequence = books.last().map_or(1, |last| last.sequence.saturating_add(1));
        books.push(StoredBook { sequence, text });
        let over = books.len().saturating_sub(MAX_BOOKS);
        books.drain(..over);
        self.store.save(ROUTES, &books).await.map_err(|error| {
            let message = error.to_string();
            Refusal::new(Stage::Admit, Blame::Us, Retry::Never, Code::Internal, message)
        })?;
        self.books.store(books.into());
        self.rebuild();
        Ok(sequence)
    }

    /// Whether a route has this name.
    pub(crate) fn has(&self, model: &str) -> bool {
        self.force.load().routes.has(model)
    }

    /// Whether a request for this name is judged by its complexity.
    pub(crate) fn asks_complexity(&self, model: &str) -> bool {
        self.force.load().routes.asks_complexity(model)
    }

    /// What the catalogue in force here knows of a provider's model, by the provider's own name.
    pub(crate) fn model_of(&self, spec: &ProviderSpec, model: &str) -> Option<Arc<Model>> {
        paid::known(self.force.load().routes.catalogue(), spec, model)
    }

    /// What a route decides for a request; none where no route has the name.
    pub(crate) fn decide(&self, request: &Request, view: &MeshView) -> Option<Decision> {
        let now = clock::mono();
        self.force.load().routes.decide(request, &self.facts(view, now), now)
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

    /// Notes an answer of a route that tries small models first.
    pub(crate) fn note_saving(&self, route: &str, escalated: bool, saving: Option<Saving>) {
        let mut savings = self.savings.lock();
        if savings.len() >= MAX_SAVINGS && !savings.contains_key(route) {
            return;
        }
        let known = savings.entry(route.to_owned()).or_default();
        known.answers += 1;
        known.escalated += u64::from(escalated);
        if let Some(Saving { paid, instead }) = saving {
            known.paid = known.paid.saturating_add(paid);
            known.instead = known.instead.saturating_add(instead);
        }
    }

    /// What trying small models first came to, by route.
    pub(crate) fn savings(&self) -> BTreeMap<String, RouteSaving> {
        self.savings.lock().clone()
    }

    fn facts(&self, view: &MeshView, now: Mono) -> Facts {
        let measured = self.measured.lock();
        let mut facts = Facts { mesh: MeshFacts::of(view, &measured), ..Facts::default() };
        for (name, open) in self.providers.all().iter() {
            let shared = open.provider.shared();
            let (allowed, running) = (shared.allows("", 0), shared.running());
            let known = ProviderFacts::of(name, allowed, running, &measured, now);
            facts.providers.insert(name.clone(), known);
        }
        facts
    }
}

/// A book that somebody hands in holds as a whole or not at all.
fn check(text: &str, providers: &Providers) -> Result<(), String> {
    let book = RouteBook::from_toml(text).map_err(|error| error.to_string())?;
    let base = Catalogue::built_in().map_err(ToString::to_string)?;
    Routes::check(&book, &known(providers), base).map(drop).map_err(|error| error.to_string())
}

/// The providers as routing knows them.
fn known(providers: &Providers) -> BTreeMap<String, Provider> {
    let all = providers.all();
    let known = all.iter().map(|(name, open)| {
        let spec = open.spec();
        let region = Some(spec.label.clone()).filter(|label| !label.is_empty());
        (name.clone(), Provider { kind: list_of(spec), region, free: !open.costs_money() })
    });
    known.collect()
}

/// Tells of what is not used as it is and was not told before.
fn tell(
    before: &BTreeMap<SettingKey, Trouble>,
    now: &BTreeMap<SettingKey, Trouble>,
    whose: &'static str,
) {
    for (key, trouble) in now.iter().filter(|(key, trouble)| before.get(*key) != Some(*trouble)) {
        let (name, why) = (&key.name, trouble.as_str());
        match trouble {
            Trouble::Shadowed => tracing::info!(name, why, "an entry of {whose} is not used"),
            Trouble::Partly(_) => tracing::warn!(name, why, "part of {whose} is not used"),
            Trouble::Out(_) => tracing::warn!(name, why, "an entry of {whose} is not used"),
        }
    }
}

fn refused(message: String) -> Refusal {
    Refusal::client(Stage::Validate, Code::InvalidRequest, message)
}
