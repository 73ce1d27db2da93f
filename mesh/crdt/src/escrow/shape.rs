//! How a row looks on the wire and on disk.
//!
//! Builds before witnessed ledgers know a row of eight fields of which the sixth, `sealed`, is a
//! byte of 0 or 1. Such a row keeps these very bytes. A row written under a ballot adds 2 to that
//! byte, which an older build refuses to read, and ends with the ballot. So an older build reads
//! all rows it could act on, and takes none for what it is not.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::row::EscrowRow;

/// Fields of a row without a ballot.
const FIELDS: usize = 8;
/// In the byte of flags: the holder spends no more.
const SEALED: u8 = 1;
/// In the byte of flags: a ballot follows.
const BALLOT: u8 = 2;

impl Serialize for EscrowRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { key, holder, seq, hw, out, sealed, demand, basis, ballot } = self;
        let with = if ballot.is_some() { BALLOT } else { 0 };
        let mut row = serializer.serialize_tuple(FIELDS + usize::from(ballot.is_some()))?;
        row.serialize_element(key)?;
        row.serialize_element(holder)?;
        row.serialize_element(seq)?;
        row.serialize_element(hw)?;
        row.serialize_element(out)?;
        row.serialize_element(&(u8::from(*sealed) | with))?;
        row.serialize_element(demand)?;
        row.serialize_element(basis)?;
        if let Some(ballot) = ballot {
            row.serialize_element(ballot)?;
        }
        row.end()
    }
}

impl<'de> Deserialize<'de> for EscrowRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(FIELDS + 1, Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = EscrowRow;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row of an escrow ledger")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<EscrowRow, A::Error> {
        let (key, holder) = (next(&mut fields)?, next(&mut fields)?);
        let (seq, hw, out) = (next(&mut fields)?, next(&mut fields)?, next(&mut fields)?);
        let flags: u8 = next(&mut fields)?;
        if flags > SEALED | BALLOT {
            return Err(A::Error::custom("a flag of a row that is not known here"));
        }
        let (demand, basis) = (next(&mut fields)?, next(&mut fields)?);
        let ballot = match flags & BALLOT {
            0 => None,
            _ => Some(next(&mut fields)?),
        };
        let sealed = flags & SEALED != 0;
        Ok(EscrowRow { key, holder, seq, hw, out, sealed, demand, basis, ballot })
    }
}

fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(fields: &mut A) -> Result<T, A::Error> {
    fields.next_element()?.ok_or_else(|| A::Error::custom("a row ends too early"))
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
