//! What stands at the end of a Parquet file, looked through before a parser makes anything of it.
//!
//! Owns bounds on the tree of columns: the parser descends it as deep as the file says and makes
//! room for as many children as it says. It also reads a field as what its number says, whatever
//! its head says, so every field that it knows must have its type (`notes`). The notation is
//! Thrift's compact protocol (thrift-compact-protocol.md of Apache Thrift); the places of fields
//! are parquet.thrift's.

use super::notes::{self, Fields, Holds};

/// Groups within groups: tables have a few, and the parser's stack holds many more.
const MAX_DEPTH: usize = 32;
/// Structures and lists within each other in the notes: the format has ten.
const MAX_NESTING: usize = 32;

/// `FileMetaData.schema`.
const SCHEMA_FIELD: i16 = 2;
/// `SchemaElement.num_children`.
const CHILDREN_FIELD: i16 = 5;

/// Types of the compact protocol.
mod kind {
    /// The end of a structure.
    pub(super) const STOP: u8 = 0;
    /// A truth value that is true; nothing follows.
    pub(super) const TRUE: u8 = 1;
    /// One that is false.
    pub(super) const FALSE: u8 = 2;
    /// One byte.
    pub(super) const BYTE: u8 = 3;
    /// A number of 16 bits, seven a byte.
    pub(super) const I16: u8 = 4;
    /// One of 32 bits.
    pub(super) const I32: u8 = 5;
    /// One of 64 bits.
    pub(super) const I64: u8 = 6;
    /// A float of eight bytes.
    pub(super) const DOUBLE: u8 = 7;
    /// A length and so many bytes.
    pub(super) const BINARY: u8 = 8;
    /// A head and its elements.
    pub(super) const LIST: u8 = 9;
    /// As a list.
    pub(super) const SET: u8 = 10;
    /// A length, two types, keys and values.
    pub(super) const MAP: u8 = 11;
    /// Fields up to the end.
    pub(super) const STRUCT: u8 = 12;
    /// Sixteen bytes.
    pub(super) const UUID: u8 = 13;
}

/// Refuses notes that are cut off, or whose tree of columns is deeper or wider than it is long.
pub(super) fn check(notes: &[u8]) -> Result<(), String> {
    let mut walk = Walk { rest: notes };
    walk.file().ok_or("its footer is damaged")?
}

struct Walk<'a> {
    rest: &'a [u8],
}

impl Walk<'_> {
    /// The whole footer; none where it is cut off or not in the notation.
    fn file(&mut self) -> Option<Result<(), String>> {
        let mut last = 0;
        while let Some((field, kind)) = self.field(last)? {
            last = field;
            if field != SCHEMA_FIELD {
                self.listed(notes::FILE, field, kind, MAX_NESTING)?;
            } else if kind != kind::LIST {
                return None;
            } else if let Err(why) = self.schema()? {
                return Some(Err(why));
            }
        }
        Some(Ok(()))
    }

    /// The list of columns: each says how many of those after it are its children.
    fn schema(&mut self) -> Option<Result<(), String>> {
        let (kind, count) = self.list()?;
        if kind != kind::STRUCT && count > 0 {
            return None;
        }
        // Children that are still to come, from the root down.
        let mut open: Vec<usize> = Vec::new();
        for at in 0..count {
            let children = self.element()?;
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(parent) = open.last_mut() {
                *parent -= 1;
            }
            if children > count - at - 1 {
                return Some(Err("its columns are more than it lists".to_owned()));
            }
            if children > 0 {
                open.push(children);
            }
            if open.len() > MAX_DEPTH {
                return Some(Err(format!("columns nested deeper than {MAX_DEPTH}")));
            }
        }
        Some(Ok(()))
    }

    /// An element of the list; how many children it has.
    fn element(&mut self) -> Option<usize> {
        let (mut last, mut children) = (0, 0);
        while let Some((field, kind)) = self.field(last)? {
            last = field;
            match (field, kind) {
                // Told twice, the larger one is what room may be made for.
                (CHILDREN_FIELD, kind::I32) => {
                    children = children.max(usize::try_from(self.signed()?).ok()?);
                }
                (CHILDREN_FIELD, _) => return None,
                _ => self.listed(notes::ELEMENT, field, kind, MAX_NESTING)?,
            }
        }
        Some(children)
    }

    /// The head of the next field of a structure; inner none at the end of the structure.
    fn field(&mut self, last: i16) -> Option<Option<(i16, u8)>> {
        let head = self.byte()?;
        if head == kind::STOP {
            return Some(None);
        }
        let field = match head >> 4 {
            0 => i16::try_from(self.signed()?).ok()?,
            step => last.checked_add(i16::from(step))?,
        };
        Some(Some((field, head & 0x0f)))
    }

    /// The head of a list: the type of its elements and how many there are. Each has a byte at
    /// least.
    fn list(&mut self) -> Option<(u8, usize)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => usize::try_from(self.number()?).ok()?,
            count => usize::from(count),
        };
        (count <= self.rest.len()).then_some((head & 0x0f, count))
    }

    /// A field of a structure whose fields are known; one that is not listed is passed over.
    fn listed(&mut self, fields: Fields, field: i16, kind: u8, nesting: usize) -> Option<()> {
        match fields.iter().find(|(number, _)| *number == field) {
            Some((_, holds)) => self.typed(holds, kind, nesting.checked_sub(1)?),
            None => self.skip(kind, nesting),
        }
    }

    /// What must be of a type, and says which it is.
    fn typed(&mut self, holds: &Holds, kind: u8, nesting: usize) -> Option<()> {
        match (holds, kind) {
            (Holds::Truth, kind::TRUE | kind::FALSE) => Some(()),
            (Holds::Byte, kind::BYTE)
            | (Holds::Short, kind::I16)
            | (Holds::Int, kind::I32)
            | (Holds::Long, kind::I64)
            | (Holds::Double, kind::DOUBLE)
            | (Holds::Bytes, kind::BINARY) => self.skip(kind, nesting),
            (Holds::List(holds), kind::LIST) => {
                let (kind, count) = self.list()?;
                let nesting = nesting.checked_sub(1)?;
                (0..count).try_for_each(|_| self.typed(holds, kind, nesting))
            }
            (Holds::Fields(fields), kind::STRUCT) => {
                let mut last = 0;
                while let Some((field, kind)) = self.field(last)? {
                    last = field;
                    self.listed(fields, field, kind, nesting)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    fn skip(&mut self, kind: u8, nesting: usize) -> Option<()> {
        let nesting = nesting.checked_sub(1)?;
        match kind {
            kind::TRUE | kind::FALSE => Some(()),
            kind::BYTE => self.byte().map(drop),
            kind::I16 | kind::I32 | kind::I64 => self.number().map(drop),
            kind::DOUBLE => self.take(8),
            kind::UUID => self.take(16),
            kind::BINARY => {
                let length = usize::try_from(self.number()?).ok()?;
                self.take(length)
            }
            kind::LIST | kind::SET => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip_element(kind, nesting))
            }
            kind::MAP => {
                let count = usize::try_from(self.number()?).ok()?;
                if count == 0 {
                    return Some(());
                }
                let kinds = self.byte()?;
                (0..count).try_for_each(|_| {
                    self.skip_element(kinds >> 4, nesting)?;
                    self.skip_element(kinds & 0x0f, nesting)
                })
            }
            kind::STRUCT => {
                let mut last = 0;
                while let Some((field, kind)) = self.field(last)? {
                    last = field;
                    self.skip(kind, nesting)?;
                }
                Some(())
            }
            _ => None,
        }
    }

    /// Truth values in lists, which the format has none of, take a byte by the notation and none by
    /// the parser: where it would go on is not known.
    fn skip_element(&mut self, kind: u8, nesting: usize) -> Option<()> {
        match kind {
            kind::TRUE | kind::FALSE => None,
            other => self.skip(other, nesting),
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> Option<()> {
        self.rest = self.rest.get(length..)?;
        Some(())
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Signs are in the lowest bit.
    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer whose columns have so many children.
    fn footer(children: &[u32]) -> Vec<u8> {
        // Version 1, then a list of structures.
        let mut bytes = vec![0x15, 2, 0x19, 0xfc];
        let varint = |mut value: u32, bytes: &mut Vec<u8>| {
            while value > 0x7f {
                bytes.push(value as u8 & 0x7f | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
        };
        varint(children.len() as u32, &mut bytes);
        for &count in children {
            // A name of one letter, and the number of children.
            bytes.extend([0x48, 1, b'a', 0x15]);
            varint(count * 2, &mut bytes);
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn trees_within_bounds_pass() {
        assert_eq!(check(&footer(&[3, 0, 1, 0, 0])), Ok(()));
        assert_eq!(check(&footer(&[0])), Ok(()));
        let deep: Vec<u32> = (0..=MAX_DEPTH as u32).map(|at| u32::from(at < 32)).collect();
        assert_eq!(check(&footer(&deep)), Ok(()));
    }

    #[test]
    fn trees_that_are_deeper_or_wider_than_they_are_long_are_refused() {
        let said = |children: &[u32]| check(&footer(children)).err().unwrap_or_default();
        assert!(said(&[1 << 30, 0]).contains("more than it lists"));
        let mut deep = vec![1; 100_000];
        deep.push(0);
        assert!(said(&deep).contains("nested deeper"));
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = footer(&[2, 0, 0]);
        for cut in 0..whole.len() {
            assert!(check(&whole[..cut]).is_err(), "the first {cut} bytes passed");
        }
        // A list that says it is longer than the file.
        assert!(check(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07]).is_err());
        // Two fields that say they are text, where the parser takes a number and then a tree.
        let hidden = footer(&[1; 40]);
        let mut disguised = vec![0x18, hidden.len() as u8];
        disguised.extend(&hidden);
        disguised.push(0);
        assert!(check(&disguised).is_err());
        let child = vec![0x15, 2, 0x19, 0x1c, 0x18, 3, 0x55, 0xfe, 1, 0x38, 1, b'a', 0, 0];
        assert!(check(&child).is_err());
        // Truth values in a list that nobody knows.
        assert!(check(&[0x15, 2, 0x19, 0x0c, 0x89, 0x11, 1, 0]).is_err());
        // Structures within structures, without end.
        assert!(check(&[0x1c; 100_000]).is_err());
    }
}
