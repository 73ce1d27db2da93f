//! Models that are on the disk and not served, and why.
//!
//! Owns what the engine never took: a file that is no model, or not the one that was pulled. Why a
//! model that was taken could not be loaded is the engine's to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::http::wire;

/// Models remembered: as many as an engine takes.
const MODELS: usize = 256;
/// The longest reason shown: three lines of a terminal.
const REASON_CHARS: usize = 240;

/// The models by name, each with the reason. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unserved(Arc<Mutex<BTreeMap<String, String>>>);

impl Unserved {
    /// Remembers why a model is not served.
    pub(crate) fn note(&self, name: &str, reason: &str) {
        let mut models = self.0.lock();
        if models.len() < MODELS || models.contains_key(name) {
            models.insert(name.to_owned(), short(reason));
        }
    }

    /// Forgets a model that is served now, or gone. Whether it was one of these.
    pub(crate) fn forget(&self, name: &str) -> bool {
        self.0.lock().remove(name).is_some()
    }

    /// The models as a node tells of them.
    pub(crate) fn models(&self) -> Vec<wire::Model> {
        let models = self.0.lock();
        let failed = |(name, reason): (&String, &String)| wire::Model {
            name: name.clone(),
            state: "failed".to_owned(),
            failure: Some(reason.clone()),
            ..wire::Model::default()
        };
        models.iter().map(failed).collect()
    }
}

/// A reason on one line and of a bounded length: it may quote a hostile file.
pub(crate) fn short(reason: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = reason.chars().take(REASON_CHARS).map(plain).collect();
    if short.len() < reason.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short_and_the_list_is_bounded() {
        let unserved = Unserved::default();
        for n in 0..2 * MODELS {
            unserved.note(&format!("model-{n}"), &"no\n".repeat(1_000));
        }
        let models = unserved.models();
        assert_eq!(models.len(), MODELS);
        let reason = models[0].failure.clone().unwrap_or_default();
        assert_eq!(reason.chars().count(), REASON_CHARS + 1);
        assert!(!reason.contains('\n'));
        unserved.forget(&models[0].name);
        assert_eq!(unserved.models().len(), MODELS - 1);
    }
}
