//! Bringing two nodes' state together: rows and membership records in one exchange of three
//! frames.
//!
//! The opener sends what it has ([`SyncMessage::Digest`]); the other side answers what the opener
//! lacks and what it has itself; the opener answers what was lacking there. Owns the frames and
//! their budget. Who syncs with whom and when is the shell's business.

use selvedge_base::{NodeId, Wall};
use selvedge_crdt::{Digest, Merged, Row, RowMap};
use serde::{Deserialize, Serialize};

use crate::records::{Known, Roster, RosterDelta, RosterDigest};
use crate::seal::verify_row;

/// Bytes of rows in one delta: at one exchange a second and peer this is 2 % of a 25 Mbit/s line,
/// and carries 300 rows of 200 bytes.
pub const ROW_BUDGET_BYTES: usize = 64 << 10;
/// Membership records in one delta, of each kind.
pub const RECORD_BUDGET: usize = 64;
/// Rows taken from one delta; each may cost the check of a signature, about 50 µs, while nobody
/// else reads the state. The smallest rows fit [`ROW_BUDGET_BYTES`] 532 times.
pub const MAX_DELTA_ROWS: usize = 1_024;
/// How far over the sender's budgets a delta may be before the rest of it is left: another
/// version's budgets may be larger, but not without limit. What is left is lacking next time too.
const TOLERANCE: usize = 2;
/// Rows a node keeps: one per member, with room for members that are gone but not yet forgotten.
pub const MAX_ROWS: usize = 2_048;

/// What crosses a sync stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncMessage {
    /// What the sender has.
    Digest(SyncDigest),
    /// What the receiver lacks.
    Delta(SyncDelta),
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDigest {
    /// Rows.
    pub rows: Digest,
    /// Membership records.
    pub roster: RosterDigest,
}

/// What a node lacked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDelta {
    /// Rows.
    pub rows: Vec<Row>,
    /// Membership records.
    pub roster: RosterDelta,
    /// What the sender has; in the second frame only, none in the third.
    pub digest: Option<SyncDigest>,
}

/// What taking a delta changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Writers whose rows are new: decode and act on them.
    pub rows: Vec<NodeId>,
    /// What changed in the roster.
    pub known: Known,
    /// Rows that were refused or in conflict, by writer.
    pub suspicious: Vec<NodeId>,
}

/// What this node has.
pub fn digest(rows: &RowMap, roster: &Roster) -> SyncDigest {
    SyncDigest { rows: rows.digest(), roster: roster.digest() }
}

/// What the holder of `theirs` lacks, and the cursor to keep for that peer once it was sent.
/// `reply` adds what this node has, which asks the other side to answer in turn.
pub fn delta(
    rows: &RowMap,
    roster: &Roster,
    theirs: &SyncDigest,
    cursor: Option<NodeId>,
    reply: bool,
) -> (SyncDelta, Option<NodeId>) {
    delta_within(rows, roster, theirs, cursor, reply, ROW_BUDGET_BYTES)
}

/// As [`delta`], with another budget for rows: a simulated mesh is small, and its rows must take
/// turns all the same.
pub fn delta_within(
    rows: &RowMap,
    roster: &Roster,
    theirs: &SyncDigest,
    cursor: Option<NodeId>,
    reply: bool,
    row_budget: usize,
) -> (SyncDelta, Option<NodeId>) {
    let lacking = rows.delta(&theirs.rows, cursor, row_budget);
    let roster_delta = roster.delta(&theirs.roster, RECORD_BUDGET);
    let own = reply.then(|| digest(rows, roster));
    (SyncDelta { rows: lacking.rows, roster: roster_delta, digest: own }, lacking.next)
}

/// Takes what this node lacked. Rows must be signed by their writer, who must not be revoked; the
/// records come first, so that a revocation keeps out the rows it travels with.
///
/// A writer whose credential was never seen here is not turned away: its row is often the first
/// this node hears of a member, and tells where to dial it; the credential is shown there. Nobody
/// acts for a writer on its row alone. But invented writers must not use up the places, so the row
/// of a known member takes that of a stranger.
pub fn apply(rows: &mut RowMap, roster: &mut Roster, delta: SyncDelta, wall: Wall) -> Taken {
    apply_checked(rows, roster, delta, wall, verify_row)
}

/// As [`apply`], with another check of rows' signatures: a simulated mesh seals rows with a
/// stand-in.
pub fn apply_checked(
    rows: &mut RowMap,
    roster: &mut Roster,
    mut delta: SyncDelta,
    wall: Wall,
    is_signed: fn(&Row) -> bool,
) -> Taken {
    delta.roster.stewards.truncate(TOLERANCE * RECORD_BUDGET);
    delta.roster.revocations.truncate(TOLERANCE * RECORD_BUDGET);
    let mut taken = Taken { known: roster.apply(delta.roster, wall), ..Taken::default() };
    for node in &taken.known.revoked {
        rows.forget(node);
    }
    let mut left = TOLERANCE * ROW_BUDGET_BYTES;
    for row in delta.rows.into_iter().take(MAX_DELTA_ROWS) {
        let (writer, size) = (row.writer, row.wire_bytes());
        if size > left {
            break;
        }
        left -= size;
        if roster.is_revoked(&writer) {
            continue;
        }
        if rows.len() >= MAX_ROWS && rows.get(&writer).is_none() && roster.is_member(&writer) {
            make_room(rows, roster);
        }
        match rows.merge(row, is_signed) {
            Merged::Newer => taken.rows.push(writer),
            Merged::Known => {}
            Merged::Conflict(_) => {
                taken.rows.push(writer);
                taken.suspicious.push(writer);
            }
            Merged::Refused(_) => taken.suspicious.push(writer),
        }
    }
    taken
}

/// Forgets the row of a writer that never showed a credential here, if there is one.
fn make_room(rows: &mut RowMap, roster: &Roster) {
    let stranger = rows.iter().map(|row| row.writer).find(|writer| !roster.is_member(writer));
    if let Some(writer) = stranger {
        rows.forget(&writer);
    }
}

#[cfg(test)]
mod tests;
