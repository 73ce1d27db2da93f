//! Making the next version of a setting: what the holder of the root key or a steward signs.

use selvedge_base::Wall;

use super::{Setting, SettingError, SettingKey, SettingNotice, SettingsBook};
use crate::policy::GrantNotice;
use crate::records::{Signed, Signer, Steward};

/// Which version to go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one before the present one.
    Before,
    /// The one of this number, or of this number and the beginning of its hash, as
    /// [`Setting::label`] says it.
    Labelled(String),
}

/// Signs a version.
pub fn sign_setting(
    signer: &impl Signer,
    steward: Option<Signed<Steward>>,
    setting: Setting,
) -> SettingNotice {
    GrantNotice { signed: Signed::seal(setting, signer), steward }
}

impl SettingsBook {
    /// The next version of a setting, to be signed under root key `generation`; no content removes
    /// it.
    ///
    /// # Errors
    /// [`SettingError`] with what is wrong.
    pub fn next(
        &self,
        key: SettingKey,
        content: Option<Vec<u8>>,
        generation: u32,
        wall: Wall,
    ) -> Result<Setting, SettingError> {
        let head = self.head(&key).map(|notice| &notice.signed.body);
        if content.is_none() && head.is_none_or(|head| head.content.is_none()) {
            return Err(SettingError::Unknown(key.name));
        }
        if let Some(theirs) = head.map(|head| head.generation).filter(|g| *g > generation) {
            return Err(SettingError::OldRoot { name: key.name, theirs, ours: generation });
        }
        // A newer root key outranks all versions of the one before, also the last number there is.
        let before = head.filter(|head| head.generation == generation);
        let version = before.map_or(0, |head| head.version).checked_add(1);
        let version = version.ok_or_else(|| SettingError::LastVersion(key.name.clone()))?;
        let next = Setting { mesh: self.mesh(), key, generation, version, content, issued: wall };
        next.check()?;
        Ok(next)
    }

    /// What an older version said; none when it said that the setting is removed.
    ///
    /// # Errors
    /// [`SettingError::Unknown`] and [`SettingError::NoVersion`].
    pub fn content_of(
        &self,
        key: &SettingKey,
        which: &Which,
    ) -> Result<Option<Vec<u8>>, SettingError> {
        let name = || key.name.clone();
        if self.head(key).is_none() {
            return Err(SettingError::Unknown(name()));
        }
        let found = match which {
            Which::Before => self.history(key).nth(1),
            Which::Labelled(label) => self.history(key).find(|notice| {
                *label == notice.signed.body.version.to_string() || *label == Setting::label(notice)
            }),
        };
        let which = match which {
            Which::Before => "before the present one".to_owned(),
            Which::Labelled(label) => label.chars().take(40).collect(),
        };
        let found = found.ok_or_else(|| SettingError::NoVersion { name: name(), which })?;
        Ok(found.signed.body.content.clone())
    }
}
