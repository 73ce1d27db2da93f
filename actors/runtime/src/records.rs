//! The last requests this node took, for `explain`.
//!
//! Owns a bounded ring, in which the newest records replace the oldest, and who may read one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::RequestId;
use selvedge_core::RequestRecord;
use selvedge_proto::policy::{AccountPath, KeyId};

/// Records kept: a busy hour on a small machine, a few megabytes.
const LIMIT: usize = 2_048;

/// The ring.
#[derive(Default)]
pub(crate) struct Records(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    order: VecDeque<RequestId>,
    records: BTreeMap<RequestId, Kept>,
}

struct Kept {
    /// Whose request it was.
    account: AccountPath,
    /// The key of the mesh it came with.
    key: Option<KeyId>,
    record: Arc<RequestRecord>,
}

impl Records {
    /// Keeps a record of an account's request, which came with this key, replacing an earlier state
    /// of the same request.
    pub(crate) fn keep(
        &self,
        (account, key): (&AccountPath, Option<KeyId>),
        record: RequestRecord,
    ) -> Arc<RequestRecord> {
        let record = Arc::new(record);
        let mut ring = self.0.lock();
        let id = record.id;
        let kept = Kept { account: account.clone(), key, record: Arc::clone(&record) };
        if ring.records.insert(id, kept).is_some() {
            return record;
        }
        ring.order.push_back(id);
        if ring.order.len() > LIMIT
            && let Some(oldest) = ring.order.pop_front()
        {
            ring.records.remove(&oldest);
        }
        record
    }

    /// The record of a request.
    pub(crate) fn find(&self, id: RequestId) -> Option<Arc<RequestRecord>> {
        self.0.lock().records.get(&id).map(|kept| Arc::clone(&kept.record))
    }

    /// The record of a request, for an account that made it or lies above the one that did; with a
    /// key, only if it came with that.
    pub(crate) fn find_of(
        &self,
        id: RequestId,
        reader: &AccountPath,
        key: Option<KeyId>,
    ) -> Option<Arc<RequestRecord>> {
        let ring = self.0.lock();
        let may = |kept: &&Kept| {
            reader.covers(&kept.account) && key.is_none_or(|key| kept.key == Some(key))
        };
        Some(Arc::clone(&ring.records.get(&id).filter(may)?.record))
    }
}

#[cfg(test)]
mod tests {
    use selvedge_base::Micros;
    use selvedge_core::Outcome;

    use super::*;

    #[test]
    fn a_record_is_for_its_account_and_those_above() {
        let records = Records::default();
        let account = |path: &str| path.parse::<AccountPath>().expect("a path");
        let record = RequestRecord {
            id: RequestId(7),
            model: "m".to_owned(),
            downgraded_to: None,
            tenant: "acme".to_owned(),
            legs: Vec::new(),
            attempts: Vec::new(),
            outcome: Outcome::Running,
            took: Micros(0),
            first_token: None,
            longest_gap: None,
            saving: None,
        };
        let key = |byte| Some(KeyId([byte; 8]));
        records.keep((&account("acme/line3"), key(1)), record);
        let seen = |path: &str| records.find_of(RequestId(7), &account(path), None).is_some();
        assert!(seen("acme/line3") && seen("acme"));
        for other in ["acme/line3/chat", "acme/line4", "acme/line33", "other", "local"] {
            assert!(!seen(other), "{other}");
        }
        let own = |path: &str, key| records.find_of(RequestId(7), &account(path), key).is_some();
        assert!(own("acme/line3", key(1)) && !own("acme/line3", key(2)) && !own("other", key(1)));
        assert!(records.find_of(RequestId(8), &account("acme"), None).is_none());
        assert!(records.find(RequestId(7)).is_some());
    }
}
