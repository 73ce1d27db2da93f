//! What may be spent: reservations and settlements against budgets that no partition, crash or
//! clock can overspend.

mod event;
mod message;
mod stored;

pub use event::QuotaEvent;
pub use message::{Ask, MAX_HEADS, MAX_PAYLOAD_BYTES, QuotaDigest, QuotaMessage, Testimony};
pub use stored::{QuotaHeader, QuotaStored, QuotaWrite, StoredRow};
