//! Which pages of keys and values are kept, shared and forgotten.
//!
//! Owns the tree of whole pages that a model has computed: who uses them, which one begins with
//! the tokens of a new request, which one goes first when memory is short. It is a pure policy
//! over names of pages; their numbers belong to the engine.
//!
//! A page is found by its own tokens behind the page before it, compared one by one, and never by
//! a digest: what a page holds is a function of all tokens up to its end, so equal tokens are equal
//! numbers, and no collision can show one prompt another's. The first page of a prompt belongs to a
//! [`Scope`]: requests of other scopes do not find it, and cannot tell by the time whether it is
//! there. A scope is of one version of the weights, too: what is tuned shares a base and no pages.
//!
//! A page in use keeps all pages before it in use. Of the others the one that was left longest ago
//! goes first, and never one that another page follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_base::ModelDigest;

use crate::schedule::PAGE_TOKENS;

/// Within what pages are shared: a tenant's name, and what the model's weights are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    tenant: Arc<str>,
    tuned: Option<ModelDigest>,
}

impl Scope {
    /// The scope of a tenant.
    pub fn new(tenant: &str) -> Self {
        Self { tenant: Arc::from(tenant), tuned: None }
    }

    /// The same tenant's with a version of a tuned model, of which equal tokens are other numbers
    /// than of its base or of another version.
    pub fn tuned(tenant: &str, version: ModelDigest) -> Self {
        Self { tuned: Some(version), ..Self::new(tenant) }
    }
}

/// A whole page in memory; names are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageId(pub u64);

/// A page that a sequence has computed to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub page: PageId,
    /// Whether the sequence's own numbers are kept under it. If not they are there already, bit
    /// for bit, and the sequence goes on with those.
    pub is_new: bool,
}

/// Where a page stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// At the beginning of prompts of a scope.
    First(Scope),
    /// Behind another page.
    After(PageId),
}

#[derive(Clone, Debug)]
struct Page {
    place: Place,
    tokens: Box<[u32]>,
    /// Sequences that hold it.
    users: u32,
    /// When it was left, counted in events.
    left: u64,
}

/// The whole pages of one model.
#[derive(Clone, Debug, Default)]
pub struct Prefixes {
    pages: BTreeMap<PageId, Page>,
    followers: BTreeMap<Place, BTreeMap<Box<[u32]>, PageId>>,
    /// Pages that nobody holds and no other follows, the one left longest ago first.
    leaves: BTreeSet<(u64, PageId)>,
    /// Pages that somebody holds.
    used: u64,
    next: u64,
    now: u64,
}

impl Prefixes {
    /// The pages that hold the beginning of these tokens, at most so many, in order. The first ones
    /// of them are known: `chain`.
    pub fn find(
        &self,
        scope: &Scope,
        chain: &[PageId],
        tokens: &[u32],
        most: usize,
    ) -> Vec<PageId> {
        let mut found = Vec::new();
        let mut place = place(scope, chain);
        let whole = tokens.chunks_exact(PAGE_TOKENS as usize);
        for tokens in whole.take(most).skip(chain.len()) {
            let followers = self.followers.get(&place);
            let Some(&page) = followers.and_then(|pages| pages.get(tokens)) else { break };
            found.push(page);
            place = Place::After(page);
        }
        found
    }

    /// How many of some pages somebody holds.
    pub fn held_of(&self, chain: &[PageId]) -> u64 {
        let held = |page: &&PageId| self.pages.get(page).is_some_and(|page| page.users > 0);
        chain.iter().filter(held).count() as u64
    }

    /// A sequence begins to hold pages.
    pub fn hold(&mut self, chain: &[PageId]) {
        for id in chain {
            let Some(page) = self.pages.get_mut(id) else { continue };
            self.leaves.remove(&(page.left, *id));
            self.used += u64::from(page.users == 0);
            page.users = page.users.saturating_add(1);
        }
    }

    /// A sequence has computed a page behind those of `chain`, and holds it from now on.
    pub fn keep(&mut self, scope: &Scope, chain: &[PageId], tokens: &[u32]) -> Kept {
        let place = place(scope, chain);
        if let Some(&page) = self.followers.get(&place).and_then(|pages| pages.get(tokens)) {
            self.hold(&[page]);
            return Kept { page, is_new: false };
        }
        let id = PageId(self.next);
        self.next += 1;
        let tokens: Box<[u32]> = tokens.into();
        self.followers.entry(place.clone()).or_default().insert(tokens.clone(), id);
        self.pages.insert(id, Page { place, tokens, users: 1, left: 0 });
        self.used += 1;
        Kept { page: id, is_new: true }
    }

    /// A sequence holds its pages no longer.
    pub fn release(&mut self, chain: &[PageId]) {
        self.now += 1;
        for id in chain {
            let Some(page) = self.pages.get_mut(id) else { continue };
            page.users = page.users.saturating_sub(1);
            page.left = self.now;
            if page.users == 0 {
                self.used = self.used.saturating_sub(1);
                self.settle(*id);
            }
        }
    }

    /// Forgets the page that was left longest ago; `None` when all are held.
    pub fn evict(&mut self) -> Option<PageId> {
        let (_, id) = self.leaves.pop_first()?;
        let page = self.pages.remove(&id)?;
        if let Some(followers) = self.followers.get_mut(&page.place) {
            followers.remove(&page.tokens);
            if followers.is_empty() {
                self.followers.remove(&page.place);
            }
        }
        if let Place::After(before) = page.place {
            self.settle(before);
        }
        Some(id)
    }

    /// Pages that somebody holds.
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// All pages.
    pub fn len(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Lists a page among those that may go, if it may.
    fn settle(&mut self, id: PageId) {
        if let Some(page) = self.pages.get(&id)
            && page.users == 0
            && !self.followers.contains_key(&Place::After(id))
        {
            self.leaves.insert((page.left, id));
        }
    }
}

fn place(scope: &Scope, chain: &[PageId]) -> Place {
    chain.last().map_or_else(|| Place::First(scope.clone()), |page| Place::After(*page))
}

#[cfg(test)]
#[path = "prefix_tests.rs"]
mod tests;
