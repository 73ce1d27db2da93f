//! What the store keeps of budgets: one record per row, so that a write costs what changed.
//!
//! Owns the names of the records. A write of the machine becomes one batch, which reaches the disk
//! as a whole or not at all.

use std::fmt::Write as _;

use selvedge_core::quota::{Kept, QuotaHeader, QuotaStored, QuotaWrite, StoredRow};
use selvedge_crdt::escrow::{Holder, LedgerKey};

use crate::store::{Batch, Store, StoreError};

/// What is not about one ledger.
const HEADER: &str = "escrow/header";
/// Before every row: ledger, then holder.
const ROWS: &str = "escrow/row/";
/// Before every row that is kept as its witness: ledger, then holder.
const KEPT: &str = "escrow/kept/";

/// Everything the disk holds of budgets.
///
/// # Errors
/// A damaged record: a node that cannot tell what it spent must not spend.
pub(crate) fn load(store: &Store) -> Result<QuotaStored, StoreError> {
    let header = store.load::<QuotaHeader>(HEADER)?;
    let rows = store.load_all::<StoredRow>(ROWS)?;
    let rows = rows.into_iter().map(|(_, stored)| ((stored.row.key, stored.row.holder), stored));
    let kept = store.load_all::<Kept>(KEPT)?;
    let kept = kept.into_iter().map(|(_, kept)| ((kept.key, kept.of), kept.register));
    Ok(QuotaStored { header, rows: rows.collect(), kept: kept.collect() })
}

/// The batch of a write.
pub(super) fn batch(write: &QuotaWrite) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    if let Some(header) = &write.header {
        batch.put(HEADER, header)?;
    }
    for stored in &write.rows {
        batch.put(&record_name(ROWS, &stored.row.key, &stored.row.holder), stored)?;
    }
    for kept in &write.kept {
        batch.put(&record_name(KEPT, &kept.key, &kept.of), kept)?;
    }
    for key in &write.dropped {
        batch.remove_all(ledger_name(ROWS, key));
        batch.remove_all(ledger_name(KEPT, key));
    }
    Ok(batch)
}

fn ledger_name(kind: &str, key: &LedgerKey) -> String {
    let mut name = kind.to_owned();
    put_hex(&mut name, &key.budget.0);
    put_hex(&mut name, &key.window.to_be_bytes());
    name.push('/');
    name
}

fn record_name(kind: &str, key: &LedgerKey, holder: &Holder) -> String {
    let mut name = ledger_name(kind, key);
    put_hex(&mut name, &holder.node.0);
    put_hex(&mut name, &holder.incarnation.to_be_bytes());
    name
}

fn put_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _written = write!(out, "{byte:02x}");
    }
}
