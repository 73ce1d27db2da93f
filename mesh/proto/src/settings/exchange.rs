//! How settings spread: what a node has, what another lacks, what taking it changed.
//!
//! As for the records of [`crate::policy`]: a fingerprint, then those of 256 groups, then the lines
//! of groups that differ, as many as fit; the rest follows in later exchanges, beginning elsewhere.
//! Every message may be lost or doubled.

use std::sync::Arc;

use selvedge_base::Wall;
use serde::{Deserialize, Serialize};

use super::book::Line;
use super::{SettingError, SettingKey, SettingNotice, SettingsBook};
use crate::records::Roster;

/// Groups that settings are compared in: of 2,048 of them eight lie in one.
const GROUPS: usize = 256;
/// Bytes of records in one message: as rows of a sync. One line may be larger and goes alone.
pub const SETTINGS_BUDGET_BYTES: usize = 64 << 10;
/// Versions taken from one message; each costs the check of up to two signatures, 100 µs.
const MAX_TAKEN: usize = 1_024;

/// Between two members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettingsMessage {
    /// The fingerprint of all the sender has.
    Brief([u8; 16]),
    /// What the sender has.
    Digest(SettingsDigest),
    /// What the receiver lacks.
    Delta(SettingsDelta),
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsDigest {
    /// Fingerprints of the groups; empty when there is nothing.
    pub groups: Vec<u64>,
    /// Moves where an answer begins that does not fit.
    pub turn: u64,
}

/// What a node lacked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsDelta {
    /// The versions of each setting, the one that governs first.
    pub lines: Vec<Vec<SettingNotice>>,
    /// What the sender has, when it may lack something too.
    pub digest: Option<SettingsDigest>,
}

/// What taking a delta changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChanged {
    /// Settings of which something is new.
    pub keys: Vec<SettingKey>,
    /// Records that were refused, and why.
    pub refused: Vec<SettingError>,
}

impl SettingsDelta {
    /// The question at its end alone, for when the lines were taken already.
    #[must_use]
    pub fn question(&self) -> Self {
        Self { lines: Vec::new(), digest: self.digest.clone() }
    }
}

/// The group of a setting, by its name, so that its versions lie together.
fn group_of(key: &SettingKey) -> usize {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[key.kind]);
    hasher.update(key.name.as_bytes());
    usize::from(hasher.finalize().as_bytes()[0])
}

/// The fingerprint of a line: names of versions are as good as random.
fn print(line: &Line) -> u64 {
    line.versions.iter().fold(0, |print, ((_, _, id), _)| {
        print ^ id[..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    })
}

impl SettingsBook {
    /// What to send to a peer from time to time, and when something changed.
    pub fn greeting(&self) -> SettingsMessage {
        SettingsMessage::Brief(fingerprint(&self.groups()))
    }

    /// What to answer to a peer, if anything; the lines of a delta are for
    /// [`SettingsBook::apply_all`] first. `turn` is any number that differs between exchanges.
    pub fn answer(&self, message: &SettingsMessage, turn: u64) -> Option<SettingsMessage> {
        let ours = || SettingsDigest { groups: self.groups(), turn };
        match message {
            SettingsMessage::Brief(theirs) => {
                let ours = ours();
                (*theirs != fingerprint(&ours.groups)).then_some(SettingsMessage::Digest(ours))
            }
            SettingsMessage::Digest(theirs) => {
                let ours = ours();
                let differs = ours.groups != theirs.groups;
                let lines = self.lacking(theirs);
                let delta = SettingsDelta { lines, digest: Some(ours) };
                differs.then_some(SettingsMessage::Delta(delta))
            }
            SettingsMessage::Delta(delta) => {
                let lines = self.lacking(delta.digest.as_ref()?);
                let delta = SettingsDelta { lines, digest: None };
                (!delta.lines.is_empty()).then_some(SettingsMessage::Delta(delta))
            }
        }
    }

    /// Takes what a peer says this node lacks; what does not hold is refused line by line.
    pub fn apply_all(
        &mut self,
        delta: SettingsDelta,
        roster: &Roster,
        wall: Wall,
    ) -> SettingsChanged {
        let mut changed = SettingsChanged::default();
        let mut left = MAX_TAKEN;
        for line in delta.lines {
            let Some(key) = line.first().map(|notice| notice.signed.body.key.clone()) else {
                continue;
            };
            if line.len() > left {
                break;
            }
            left -= line.len();
            let before = self.revision();
            changed.refused.extend(self.apply(line, roster, wall).err());
            if self.revision() != before {
                changed.keys.push(key);
            }
        }
        changed
    }

    fn groups(&self) -> Vec<u64> {
        let mut groups = Vec::new();
        for (key, line) in &self.lines {
            groups.resize(GROUPS, 0);
            groups[group_of(key)] ^= print(line);
        }
        groups
    }

    /// Lines of the groups that differ, as many as fit and never none, beginning at the turn's
    /// place.
    fn lacking(&self, theirs: &SettingsDigest) -> Vec<Vec<SettingNotice>> {
        let ours = self.groups();
        let group = |groups: &[u64], at: usize| groups.get(at).copied().unwrap_or(0);
        let differs = |key: &SettingKey| {
            let at = group_of(key);
            group(&ours, at) != group(&theirs.groups, at)
        };
        let all: Vec<&Arc<Line>> =
            self.lines.iter().filter(|(key, _)| differs(key)).map(|(_, line)| line).collect();
        let place = (theirs.turn % all.len().max(1) as u64) as usize;
        let (mut lines, mut used) = (Vec::new(), 0);
        for line in all[place..].iter().chain(&all[..place]) {
            used += line.wire_bytes();
            if used > SETTINGS_BUDGET_BYTES && !lines.is_empty() {
                break;
            }
            lines.push(line.notices().cloned().collect());
        }
        lines
    }
}

fn fingerprint(groups: &[u64]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 fingerprint of settings");
    for group in groups {
        hasher.update(&group.to_be_bytes());
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}
