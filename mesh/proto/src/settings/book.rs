//! The verified settings of a mesh as one node knows them, with their history.
//!
//! Owns which versions are kept, which of them governs, and every look-up. All versions of one
//! setting are one *line*, taken and sent together, so that a forgotten removal cannot leave an
//! older version behind that would count again. Lines are shared: a clone copies a map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvedge_base::{MeshId, NodeId, Wall};
use serde::{Deserialize, Serialize};

use super::record::Rank;
use super::{
    MAX_HISTORY, MAX_SETTINGS, MAX_SETTINGS_BYTES, REMOVED_KEPT, Setting, SettingError, SettingKey,
    SettingNotice,
};
use crate::records::Roster;

/// The settings of a mesh.
#[derive(Clone, Debug)]
pub struct SettingsBook {
    mesh: MeshId,
    pub(super) lines: BTreeMap<SettingKey, Arc<Line>>,
    /// What the lines take together.
    bytes: usize,
    revision: u64,
    /// Whose signatures were looked at again since they were put out, and under which root key.
    heeded: (u32, BTreeSet<NodeId>),
}

/// The versions of one setting, the one that governs first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) versions: Vec<(Rank, SettingNotice)>,
    bytes: usize,
}

/// One line, for the disk; stored under a version byte and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingPart(Vec<SettingNotice>);

/// What a version takes besides its name and content: keys, signatures, a steward's record.
pub(super) const AROUND_BYTES: usize = 400;

impl Line {
    fn new(mut versions: Vec<(Rank, SettingNotice)>) -> Self {
        versions.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        versions.dedup_by_key(|(rank, _)| *rank);
        versions.truncate(MAX_HISTORY);
        let size = |(_, notice): &(Rank, SettingNotice)| AROUND_BYTES + notice.signed.body.size();
        let bytes = versions.iter().map(size).sum();
        Self { versions, bytes }
    }

    pub(super) fn head(&self) -> Option<&Setting> {
        self.versions.first().map(|(_, notice)| &notice.signed.body)
    }

    pub(super) fn notices(&self) -> impl Iterator<Item = &SettingNotice> {
        self.versions.iter().map(|(_, notice)| notice)
    }

    pub(super) const fn wire_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it was removed so long ago that nobody needs to know.
    fn is_over(&self, wall: Wall) -> bool {
        let removed = self.head().filter(|head| head.content.is_none());
        removed.is_some_and(|head| wall > head.issued.plus(REMOVED_KEPT))
    }
}

pub(super) fn rank(notice: &SettingNotice) -> Rank {
    let body = &notice.signed.body;
    (body.generation, body.version, Setting::id(notice))
}

#[cfg(test)]
impl SettingPart {
    pub(super) const fn of(line: Vec<SettingNotice>) -> Self {
        Self(line)
    }
}

#[cfg(test)]
impl SettingsBook {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl SettingsBook {
    /// A book without settings.
    pub const fn new(mesh: MeshId) -> Self {
        Self { mesh, lines: BTreeMap::new(), bytes: 0, revision: 0, heeded: (0, BTreeSet::new()) }
    }

    /// The mesh.
    pub const fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Changes when anything does.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// How many settings are held, removed ones that are remembered among them.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The settings that are in force, by kind and name.
    pub fn current(&self) -> impl Iterator<Item = (&Setting, &[u8])> {
        let heads = self.lines.values().filter_map(|line| line.head());
        heads.filter_map(|head| Some((head, head.content.as_deref()?)))
    }

    /// The version that governs, also one that says the setting was removed.
    pub fn head(&self, key: &SettingKey) -> Option<&SettingNotice> {
        self.history(key).next()
    }

    /// The versions of a setting, the one that governs first.
    pub fn history(&self, key: &SettingKey) -> impl Iterator<Item = &SettingNotice> {
        self.lines.get(key).into_iter().flat_map(|line| line.notices())
    }

    /// Takes versions of one setting. True when something changed.
    ///
    /// What is kept is the same whatever came first: the union of what is good, the
    /// [`MAX_HISTORY`] highest of it.
    ///
    /// # Errors
    /// What is wrong with the first version that does not hold; the others are taken.
    pub fn apply(
        &mut self,
        line: Vec<SettingNotice>,
        roster: &Roster,
        wall: Wall,
    ) -> Result<bool, SettingError> {
        let Some(key) = line.first().map(|notice| notice.signed.body.key.clone()) else {
            return Ok(false);
        };
        if line.iter().any(|notice| notice.signed.body.key != key) {
            return Err(SettingError::Mixed(key.name));
        }
        let held = self.lines.get(&key).cloned().unwrap_or_default();
        let (mut versions, mut wrong) = (held.versions.clone(), None);
        for notice in line.into_iter().take(MAX_HISTORY) {
            let rank = rank(&notice);
            if versions.iter().any(|(known, _)| *known == rank) {
                continue;
            }
            match check(&notice, roster, wall) {
                Ok(()) => versions.push((rank, notice)),
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        let line = Line::new(versions);
        let changed = if line.is_over(wall) {
            self.forget(&key)
        } else if line.versions == held.versions {
            false
        } else {
            self.put(key, line)?;
            true
        };
        wrong.map_or(Ok(changed), Err)
    }

    /// Puts a line in the place of the one before, if there is room.
    fn put(&mut self, key: SettingKey, line: Line) -> Result<(), SettingError> {
        let held = self.lines.get(&key);
        if held.is_none() && self.lines.len() >= MAX_SETTINGS {
            return Err(SettingError::Full { what: "settings", limit: MAX_SETTINGS });
        }
        let bytes = self.bytes - held.map_or(0, |held| held.bytes) + line.bytes;
        if bytes > MAX_SETTINGS_BYTES {
            return Err(SettingError::Full { what: "bytes", limit: MAX_SETTINGS_BYTES });
        }
        self.bytes = bytes;
        self.lines.insert(key, Arc::new(line));
        self.revision += 1;
        Ok(())
    }

    fn forget(&mut self, key: &SettingKey) -> bool {
        let Some(line) = self.lines.remove(key) else { return false };
        self.bytes -= line.bytes;
        self.revision += 1;
        true
    }

    /// Forgets settings that were removed long ago. True when there were any.
    pub fn tick(&mut self, wall: Wall) -> bool {
        self.keep_lines(|line| !line.is_over(wall))
    }

    /// Heeds who was put out and which root key there is: what a steward signed after it was put
    /// out counts nowhere, also where it came before the news. True when something changed.
    pub fn heed(&mut self, roster: &Roster) -> bool {
        let out = roster.revocations().map(|notice| notice.revocation.body.node).collect();
        let now = (roster.generation(), out);
        if now == self.heeded {
            return false;
        }
        self.heeded = now;
        let good =
            |(_, notice): &(Rank, SettingNotice)| Setting::check_right(notice, roster).is_ok();
        let mut changed = false;
        for line in self.lines.values_mut() {
            if !line.versions.iter().all(good) {
                let left = line.versions.iter().filter(|version| good(version)).cloned();
                *line = Arc::new(Line::new(left.collect()));
                changed = true;
            }
        }
        self.keep_lines(|line| !line.versions.is_empty());
        self.revision += u64::from(changed);
        changed
    }

    fn keep_lines(&mut self, is_kept: impl Fn(&Line) -> bool) -> bool {
        let before = self.lines.len();
        self.lines.retain(|_, line| is_kept(line));
        self.bytes = self.lines.values().map(|line| line.bytes).sum();
        let changed = self.lines.len() < before;
        self.revision += u64::from(changed);
        changed
    }

    /// What to store, by names of at most 80 bytes.
    pub fn parts(&self) -> BTreeMap<String, SettingPart> {
        let part = |(key, line): (&SettingKey, &Arc<Line>)| {
            let name = blake3::hash(key.name.as_bytes()).to_hex();
            let name = format!("{} {}", key.kind, name.as_str());
            (name, SettingPart(line.notices().cloned().collect()))
        };
        self.lines.iter().map(part).collect()
    }

    /// The book of stored parts, and what of them was left out. Signatures are checked again: a
    /// damaged store must not route anything.
    pub fn from_parts(
        parts: impl IntoIterator<Item = SettingPart>,
        roster: &Roster,
        wall: Wall,
    ) -> (Self, Vec<SettingError>) {
        let mut book = Self::new(roster.mesh());
        let mut left_out = Vec::new();
        for SettingPart(line) in parts.into_iter().take(MAX_SETTINGS) {
            // They were taken once, whatever this node's clock says now.
            let latest = line.iter().map(|notice| notice.signed.body.issued).max();
            let at = latest.unwrap_or(wall).max(wall);
            left_out.extend(book.apply(line, roster, at).err());
        }
        book.heed(roster);
        (book, left_out)
    }
}

fn check(notice: &SettingNotice, roster: &Roster, wall: Wall) -> Result<(), SettingError> {
    notice.signed.body.check()?;
    notice.signed.body.check_date(wall)?;
    Ok(Setting::check_right(notice, roster)?)
}
