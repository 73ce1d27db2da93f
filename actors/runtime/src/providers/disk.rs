//! Where sealed keys lie: one record each in the node's store.

use selvedge_upstream::VaultStore;
use selvedge_upstream::vault::Pending;

use crate::store::Store;

/// What the names of their records begin with.
const PREFIX: &str = "provider-key/";

/// The store, as the vault sees it.
pub(super) struct Keys(pub(super) Store);

impl VaultStore for Keys {
    fn load(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        let all = self.0.load_all::<Vec<u8>>(PREFIX).map_err(|error| error.to_string())?;
        let name = |record: String| record.trim_start_matches(PREFIX).to_owned();
        Ok(all.into_iter().map(|(record, sealed)| (name(record), sealed)).collect())
    }

    fn save(&self, name: &str, sealed: Vec<u8>) -> Pending<'_> {
        let record = format!("{PREFIX}{name}");
        Box::pin(
            async move { self.0.save(&record, &sealed).await.map_err(|error| error.to_string()) },
        )
    }

    fn remove(&self, name: &str) -> Pending<'_> {
        let record = format!("{PREFIX}{name}");
        Box::pin(async move { self.0.remove(&record).await.map_err(|error| error.to_string()) })
    }
}
