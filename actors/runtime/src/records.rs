//! The last requests this node took, for `explain`.
//!
//! Owns a bounded ring: the newest records replace the oldest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use selvedge_base::RequestId;
use selvedge_core::RequestRecord;

/// Records kept: a busy hour on a small machine, a few megabytes.
const LIMIT: usize = 2_048;

/// The ring.
#[derive(Default)]
pub(crate) struct Records(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    order: VecDeque<RequestId>,
    records: BTreeMap<RequestId, Arc<RequestRecord>>,
}

impl Records {
    /// Keeps a record, replacing an earlier state of the same request.
    pub(crate) fn keep(&self, record: RequestRecord) -> Arc<RequestRecord> {
        let record = Arc::new(record);
        let mut ring = self.0.lock();
        let id = record.id;
        if ring.records.insert(id, Arc::clone(&record)).is_some() {
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
        self.0.lock().records.get(&id).map(Arc::clone)
    }
}
