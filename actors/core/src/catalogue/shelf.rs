//! The catalogue as a whole: the built-in list, an operator's changes, and finding a model in it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use super::entry::is_date;
use super::{CatalogueError, Entry, MAX_MODELS, Model, ProviderKind};

/// The list that comes with the program.
const BUILT_IN: &str = include_str!("models.toml");

/// What is known of models, by provider and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    entries: BTreeMap<(ProviderKind, String), Entry>,
    shelves: BTreeMap<ProviderKind, BTreeMap<String, Arc<Model>>>,
}

/// How a name was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// As an id or alias.
    Exact(&'a Arc<Model>),
    /// By the rest of the name, after the mark of a version was taken off. What is known of the
    /// model is then taken to hold for this version too.
    Version {
        /// The model.
        model: &'a Arc<Model>,
        /// What was taken off, as it stands in the name.
        suffix: &'a str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    as_of: Option<String>,
    #[serde(default)]
    model: Vec<Entry>,
}

impl<'a> Found<'a> {
    /// The model.
    pub const fn model(self) -> &'a Arc<Model> {
        match self {
            Self::Exact(model) | Self::Version { model, .. } => model,
        }
    }
}

impl Catalogue {
    /// The list that comes with the program, read once.
    ///
    /// # Errors
    /// None in a build that passed its tests.
    pub fn built_in() -> Result<&'static Self, &'static CatalogueError> {
        static LIST: OnceLock<Result<Catalogue, CatalogueError>> = OnceLock::new();
        LIST.get_or_init(|| Self::default().with(&entries(BUILT_IN)?)).as_ref()
    }

    /// This catalogue with what `entries` say replaced or added; of two for one model both count,
    /// the later one last.
    ///
    /// # Errors
    /// [`CatalogueError`] with the first entry that is unusable.
    pub fn with(&self, entries: &[Entry]) -> Result<Self, CatalogueError> {
        let mut all = self.entries.clone();
        for entry in entries {
            let key = (entry.kind, entry.id.clone());
            let held = all.entry(key).or_insert_with(|| Entry::named(entry.kind, &entry.id));
            held.replace(entry);
            if all.len() > MAX_MODELS {
                return Err(CatalogueError::Full);
            }
        }
        let mut shelves: BTreeMap<ProviderKind, BTreeMap<String, Arc<Model>>> = BTreeMap::new();
        for ((kind, _), entry) in &all {
            let model = Arc::new(entry.check()?);
            let shelf = shelves.entry(*kind).or_default();
            let names = std::iter::once(&model.id).chain(&model.aliases);
            for name in names {
                if let Some(other) = shelf.insert(name.clone(), Arc::clone(&model)) {
                    let why = format!("'{name}' names '{}' too", other.id);
                    return Err(entry.refused(why));
                }
            }
        }
        Ok(Self { entries: all, shelves })
    }

    /// What is known of a model, by the provider's own name for it. The only names that are not
    /// taken as they stand are those of versions:
    ///
    /// | at the end | of | as in |
    /// |---|---|---|
    /// | `-YYYY-MM-DD`, `-YYYYMMDD`, `-latest` | any | `gpt-4o-2024-08-06` |
    /// | `-NNN` | Gemini | `gemini-2.0-flash-001` |
    /// | `:TAG` | Ollama | `llama3.1:8b` |
    ///
    /// A version with facts of its own has an entry of its own, which comes first. A region in
    /// front of a Bedrock id is never taken off: prices differ by region.
    pub fn find<'a>(&'a self, kind: ProviderKind, name: &'a str) -> Option<Found<'a>> {
        let shelf = self.shelves.get(&kind)?;
        if let Some(model) = shelf.get(name) {
            return Some(Found::Exact(model));
        }
        let (base, suffix) = split_version(kind, name)?;
        shelf.get(base).map(|model| Found::Version { model, suffix })
    }

    /// All models, by provider and id.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        let named = |(kind, id): &(ProviderKind, String)| self.shelves.get(kind)?.get(id);
        self.entries.keys().filter_map(named)
    }
}

/// The entries of a text in TOML: `[[model]]` tables, with one `as_of` for all that have none.
///
/// # Errors
/// [`CatalogueError::Text`] with line and column.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, CatalogueError> {
    let file: File =
        toml::from_str(text).map_err(|error| CatalogueError::Text(error.to_string()))?;
    let dated = |mut entry: Entry| {
        if entry.as_of.is_none() {
            entry.as_of.clone_from(&file.as_of);
        }
        entry
    };
    Ok(file.model.into_iter().map(dated).collect())
}

fn split_version(kind: ProviderKind, name: &str) -> Option<(&str, &str)> {
    if kind == ProviderKind::Ollama {
        let at = name.find(':')?;
        return Some(name.split_at(at));
    }
    let is_suffix = |suffix: &str| match suffix.strip_prefix('-') {
        Some("latest") => true,
        Some(date) if date.len() == 10 => is_date(date),
        Some(date) if date.len() == 8 && date.is_ascii() => {
            is_date(&format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]))
        }
        Some(number) if number.len() == 3 && kind == ProviderKind::Gemini => {
            number.bytes().all(|b| b.is_ascii_digit())
        }
        _ => false,
    };
    name.match_indices('-').map(|(at, _)| name.split_at(at)).find(|(_, end)| is_suffix(end))
}
