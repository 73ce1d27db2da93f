//! Whether the data that `[[data]]` tables name are there, which no form of a configuration says.
//!
//! Owns no rule of what data may be: looking is the trainer's. A node starts without them, since
//! they may come later, and follows jobs meanwhile.

use std::collections::BTreeMap;

use selvedge_runtime::DataParts;
use selvedge_train::glance;

/// What is wrong with a node's data, a line for each table that no job could be trained on as it
/// is. Touches the disk: of each file its beginning or end, never all of it.
pub(crate) fn data_problems(data: &BTreeMap<String, DataParts>) -> Vec<String> {
    let parts = data.iter().flat_map(|(name, parts)| parts.iter().map(move |part| (name, part)));
    let wrong = parts.filter_map(|(name, (part, own))| {
        let why = glance(&own.source).err()?;
        let part = part.as_ref().map_or_else(String::new, |part| format!(".{part}"));
        Some(format!("[[data]] '{name}{part}': {why}"))
    });
    wrong.collect()
}
