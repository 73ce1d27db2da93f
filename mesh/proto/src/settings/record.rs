//! One version of a setting: its fields, its signed bytes, its place among others.

use selvedge_base::{MeshId, Wall};
use serde::{Deserialize, Serialize};

use super::{MAX_CONTENT_BYTES, MAX_SETTING_NAME, SettingError};
use crate::policy::GrantNotice;
use crate::records::{CLOCK_SKEW, Record, RecordError, Roster};

/// What is set: the kind says what the content means, the name which one of that kind it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SettingKey {
    /// The kind; those that a build does not know it keeps and passes on.
    pub kind: u8,
    /// The name.
    pub name: String,
}

/// One version of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The mesh.
    pub mesh: MeshId,
    /// Which.
    pub key: SettingKey,
    /// The generation of the root key that the signer's right stems from.
    pub generation: u32,
    /// Counts the versions from 1.
    pub version: u64,
    /// What it says, after a byte for the version of its shape; none when it was removed.
    pub content: Option<Vec<u8>>,
    /// When it was signed.
    pub issued: Wall,
}

/// A version of a setting with its signer's right.
pub type SettingNotice = GrantNotice<Setting>;

/// What decides between two versions: the later root key, the higher version, the larger name.
pub(super) type Rank = (u32, u64, [u8; 32]);

impl Setting {
    /// The name of a version: a hash over all it says and who says it.
    pub fn id(notice: &SettingNotice) -> [u8; 32] {
        let mut bytes = notice.signed.signer.to_vec();
        notice.signed.body.write(&mut bytes);
        let mut hasher = blake3::Hasher::new_derive_key("selvedge 2026 version of a setting");
        hasher.update(&bytes);
        *hasher.finalize().as_bytes()
    }

    /// How people name a version: its number, and where two sides of a cut made the same number the
    /// beginning of its hash tells them apart.
    pub fn label(notice: &SettingNotice) -> String {
        let id: String = Self::id(notice)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{id}", notice.signed.body.version)
    }

    /// Everything that needs no other record.
    ///
    /// # Errors
    /// [`SettingError`] with what is allowed.
    pub fn check(&self) -> Result<(), SettingError> {
        let name = &self.key.name;
        let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=MAX_SETTING_NAME).contains(&name.len()) || !plain {
            return Err(SettingError::Name);
        }
        if self.version == 0 {
            return Err(SettingError::Version(name.clone()));
        }
        match &self.content {
            Some(content) if !(1..=MAX_CONTENT_BYTES).contains(&content.len()) => {
                Err(SettingError::Content { name: name.clone(), bytes: content.len() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a version was signed by who may: the root key of its generation, or a steward of it.
    pub(super) fn check_right(notice: &SettingNotice, roster: &Roster) -> Result<(), RecordError> {
        let body = &notice.signed.body;
        let (mesh, at) = (body.mesh, body.issued);
        let Some(steward) = &notice.steward else {
            return roster.check_root(&notice.signed, mesh, body.generation, at);
        };
        if steward.body.generation != body.generation {
            let (theirs, ours) = (body.generation, steward.body.generation);
            return Err(RecordError::Generation { record: Self::KIND, theirs, ours });
        }
        roster.check_right(&notice.signed, Some(steward), mesh, at)
    }

    /// A date far ahead would keep a removed setting in mind for as long.
    pub(super) fn check_date(&self, wall: Wall) -> Result<(), RecordError> {
        match self.issued.since(wall) {
            ahead if ahead > CLOCK_SKEW => {
                Err(RecordError::NotYet { record: Self::KIND, ahead_s: ahead.0 / 1_000_000 })
            }
            _ => Ok(()),
        }
    }

    /// The bytes it takes in memory and on a stream, about.
    pub(super) fn size(&self) -> usize {
        self.key.name.len() + self.content.as_ref().map_or(0, Vec::len)
    }
}

impl Record for Setting {
    const KIND: &'static str = "setting";

    fn write(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>, bytes: &[u8]| {
            out.extend((bytes.len() as u64).to_be_bytes());
            out.extend(bytes);
        };
        out.extend(self.mesh.0);
        out.push(self.key.kind);
        put(out, self.key.name.as_bytes());
        out.extend(self.generation.to_be_bytes());
        out.extend(self.version.to_be_bytes());
        match &self.content {
            None => out.push(0),
            Some(content) => {
                out.push(1);
                put(out, content);
            }
        }
        out.extend(self.issued.0.to_be_bytes());
    }
}
