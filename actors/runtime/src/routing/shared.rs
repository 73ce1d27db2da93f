//! The routes of the mesh: what operators order about them, and what is shown.
//!
//! Owns that an order which would leave something unusable is refused here, before it is signed:
//! what other nodes cannot use of it later they leave out and tell.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_base::{NodeId, Refusal, Wall};
use selvedge_core::routes::{BOOK_VERSION, Item, RouteBook, RouteError, Trouble};
use selvedge_proto::settings::{Setting, SettingKey, SettingNotice, SettingsBook, Which};

use super::{MAX_TEXT_BYTES, Routing, refused};
use crate::federated::{is_job, is_seats};

/// One version of an entry of the mesh's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedEntry {
    /// `route`, `alias` or `model`; `unknown` for what this build does not understand.
    pub kind: &'static str,
    /// The name that clients ask for, or the model's `KIND/ID`.
    pub name: String,
    /// Counts the versions.
    pub version: u64,
    /// The version and the beginning of its hash.
    pub label: String,
    /// When it was signed.
    pub issued: Wall,
    /// Which node signed; none for the root key.
    pub signer: Option<NodeId>,
    /// Whether it says that the entry is removed.
    pub removed: bool,
    /// As an operator would write it, if it can be read here.
    pub text: Option<String>,
    /// Why it is not used as it is at this node; of the version that governs alone.
    pub trouble: Option<String>,
}

/// Whether a setting is of jobs, and no entry of routes.
const fn is_of_jobs(key: &SettingKey) -> bool {
    is_job(key) || is_seats(key)
}

/// The entries in a book, and what of it this build does not understand.
pub(super) fn entries_of(book: &SettingsBook) -> (Vec<Item>, BTreeMap<SettingKey, Trouble>) {
    let (mut items, mut unread) = (Vec::new(), BTreeMap::new());
    for (setting, content) in book.current().filter(|(setting, _)| !is_of_jobs(&setting.key)) {
        match Item::of_setting(&setting.key, content) {
            Ok(item) => items.push(item),
            Err(error) => {
                unread.insert(setting.key.clone(), Trouble::Out(error.to_string()));
            }
        }
    }
    (items, unread)
}

impl Routing {
    /// Signs the entries of a text for the whole mesh; others stay as they are. Those named in it.
    pub(crate) async fn share(&self, text: &str) -> Result<Vec<SharedEntry>, Refusal> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(refused(format!("the routes have more than {MAX_TEXT_BYTES} bytes")));
        }
        let unfit = |error: RouteError| refused(error.to_string());
        let book = RouteBook::from_toml(text).map_err(unfit)?;
        if book.version != BOOK_VERSION {
            return Err(unfit(RouteError::Version(book.version)));
        }
        let items = Item::all_of(&book);
        if items.is_empty() {
            let message = "the file says nothing: it may hold [[route]], [aliases] and [[model]]";
            return Err(refused(message.to_owned()));
        }
        let mut keys = BTreeSet::new();
        if let Some(twice) = items.iter().map(Item::key).find(|key| !keys.insert(key.clone())) {
            return Err(unfit(RouteError::Twice(twice.name)));
        }
        let contents = items.iter().map(|item| Ok((item.key(), Some(item.to_bytes()?))));
        let contents = contents.collect::<Result<Vec<_>, _>>().map_err(unfit)?;
        self.order(|_| Ok(contents)).await
    }

    /// Removes an entry from the whole mesh.
    pub(crate) async fn unshare(&self, key: SettingKey) -> Result<Vec<SharedEntry>, Refusal> {
        self.order(|_| Ok(vec![(key, None)])).await
    }

    /// Signs what an older version of an entry said as its next one.
    pub(crate) async fn go_back(
        &self,
        key: SettingKey,
        which: Which,
    ) -> Result<Vec<SharedEntry>, Refusal> {
        self.order(|book| {
            let content = book.content_of(&key, &which);
            Ok(vec![(key, content.map_err(|error| refused(error.to_string()))?)])
        })
        .await
    }

    /// The entries of the mesh that are not removed.
    pub(crate) fn shared(&self) -> Vec<SharedEntry> {
        let (book, force) = (self.settings.book(), self.force.load());
        let routes = book.current().filter(|(setting, _)| !is_of_jobs(&setting.key));
        let heads = routes.filter_map(|(setting, _)| book.head(&setting.key));
        heads
            .map(|notice| {
                let trouble = force.shared.get(&notice.signed.body.key);
                shown(notice, trouble.map(|trouble| trouble.as_str().to_owned()))
            })
            .collect()
    }

    /// The versions of an entry, the one that governs first.
    pub(crate) fn history(&self, key: &SettingKey) -> Vec<SharedEntry> {
        let (book, force) = (self.settings.book(), self.force.load());
        let governs = book.head(key).map(Setting::label);
        let of = |notice: &SettingNotice| {
            let governs = governs.as_ref() == Some(&Setting::label(notice));
            let trouble = force.shared.get(key).filter(|_| governs);
            shown(notice, trouble.map(|trouble| trouble.as_str().to_owned()))
        };
        book.history(key).map(of).collect()
    }

    /// Carries out an order, if nothing is worse afterwards.
    async fn order(
        &self,
        make: impl FnOnce(&SettingsBook) -> Result<super::settings::Contents, Refusal>,
    ) -> Result<Vec<SharedEntry>, Refusal> {
        let judge = |before: &SettingsBook, after: &SettingsBook, keys: &[SettingKey]| {
            self.judge(before, after, keys)
        };
        let keys = self.settings.change(make, judge).await?;
        self.rebuild();
        let newest = |key: &SettingKey| self.history(key).into_iter().next();
        Ok(keys.iter().filter_map(newest).collect())
    }

    /// Refuses what could not be used, and what takes the use of something else away.
    fn judge(
        &self,
        before: &SettingsBook,
        after: &SettingsBook,
        keys: &[SettingKey],
    ) -> Result<(), Refusal> {
        let (was, is) = (self.gathered(before), self.gathered(after));
        for (key, trouble) in &is.shared {
            let is_worse = keys.contains(key) || was.shared.get(key) != Some(trouble);
            if is_worse && !matches!(trouble, Trouble::Shadowed) {
                // Most reasons name the entry themselves.
                let why = trouble.as_str();
                let named = why.contains(&format!("'{}'", key.name));
                return Err(refused(match named {
                    true => why.to_owned(),
                    false => format!("'{}': {why}", key.name),
                }));
            }
        }
        Ok(())
    }
}

fn shown(notice: &SettingNotice, trouble: Option<String>) -> SharedEntry {
    let body = &notice.signed.body;
    let item = body.content.as_ref().map(|content| Item::of_setting(&body.key, content));
    let kind = match &item {
        Some(Ok(item)) => item.kind(),
        Some(Err(_)) => "unknown",
        None => "removed",
    };
    let text = item.and_then(Result::ok).and_then(|item| Item::to_toml(&[item]).ok());
    SharedEntry {
        kind,
        name: body.key.name.clone(),
        version: body.version,
        label: Setting::label(notice),
        issued: body.issued,
        signer: notice.steward.as_ref().map(|steward| steward.body.node),
        removed: body.content.is_none(),
        text,
        trouble,
    }
}
