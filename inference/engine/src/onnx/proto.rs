//! The encoding of ONNX files, protocol buffers, read field by field within bounds (source: the
//! "Encoding" page of Protocol Buffers).
//!
//! Owns the walk over bytes. Nothing is copied and nothing is allocated: what a file claims costs
//! nothing until it is looked at. Which fields mean what is `header`'s.

use crate::error::EngineError;

/// A field's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// A whole number.
    Number(u64),
    /// Four bytes.
    Four,
    /// Eight bytes.
    Eight,
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message, in order.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for at in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds the one bit that is left.
            if at == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.number()?;
        let value = match tag & 7 {
            0 => Value::Number(self.number()?),
            1 => {
                (_, self.0) = self.0.split_at_checked(8)?;
                Value::Eight
            }
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => {
                (_, self.0) = self.0.split_at_checked(4)?;
                Value::Four
            }
            // Groups are not in any file of this format.
            _ => return None,
        };
        (tag >> 3 != 0).then_some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            // Nothing more comes of what cannot be read.
            self.0 = &[];
        }
        Some(
            field.ok_or_else(|| EngineError::corrupt("the file ends within a field or is no ONNX")),
        )
    }
}

impl<'a> Value<'a> {
    /// The bytes, where it is some.
    pub(super) fn bytes(self) -> Result<&'a [u8], EngineError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Four | Self::Eight => Err(wrong("bytes")),
        }
    }

    /// The fields of the message that it is.
    pub(super) fn fields(self) -> Result<Fields<'a>, EngineError> {
        self.bytes().map(Fields::of)
    }

    /// The text that it is.
    pub(super) fn text(self) -> Result<&'a str, EngineError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| EngineError::corrupt("a name is no UTF-8"))
    }

    /// The number that it is, as the signed one that it stands for.
    pub(super) fn whole(self) -> Result<i64, EngineError> {
        match self {
            Self::Number(number) => Ok(number.cast_signed()),
            Self::Bytes(_) | Self::Four | Self::Eight => Err(wrong("a number")),
        }
    }

    /// Whether each of the numbers that it is, one or several that are packed, is as wanted.
    pub(super) fn all(self, is_wanted: impl Fn(i64) -> bool) -> Result<bool, EngineError> {
        match self {
            Self::Number(number) => Ok(is_wanted(number.cast_signed())),
            Self::Bytes(bytes) => {
                let (mut fields, mut all) = (Fields::of(bytes), true);
                while !fields.0.is_empty() {
                    let number = fields.number().ok_or_else(|| wrong("packed numbers"))?;
                    all &= is_wanted(number.cast_signed());
                }
                Ok(all)
            }
            Self::Four | Self::Eight => Err(wrong("numbers")),
        }
    }

    /// Adds the numbers that it is: one, or several that are packed.
    pub(super) fn wholes(self, into: &mut Vec<i64>, most: usize) -> Result<(), EngineError> {
        let mut push = |number: u64| {
            if into.len() == most {
                return Err(EngineError::corrupt(format!("a list of more than {most} numbers")));
            }
            into.push(number.cast_signed());
            Ok(())
        };
        match self {
            Self::Number(number) => push(number),
            Self::Bytes(bytes) => {
                let mut fields = Fields::of(bytes);
                while !fields.0.is_empty() {
                    push(fields.number().ok_or_else(|| wrong("packed numbers"))?)?;
                }
                Ok(())
            }
            Self::Four | Self::Eight => Err(wrong("numbers")),
        }
    }
}

fn wrong(what: &str) -> EngineError {
    EngineError::corrupt(format!("a field holds something else than {what}"))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_cut_ones_are_refused() {
        // 1: 150, 2: "hi", 3: four bytes, 4: eight.
        let bytes =
            b"\x08\x96\x01\x12\x02hi\x1d\x01\x02\x03\x04\x21\x01\x02\x03\x04\x05\x06\x07\x08";
        let all: Vec<_> = Fields::of(bytes).collect::<Result<_, _>>().expect("whole");
        assert_eq!(all.len(), 4);
        assert_eq!(all[0].1.whole().expect("a number"), 150);
        assert_eq!(all[1].1.text().expect("a text"), "hi");
        assert!(all[1].1.whole().is_err() && all[2].1.bytes().is_err());
        // Where a field ends the rest is a message too.
        for end in (1..bytes.len()).filter(|end| ![3, 7, 12].contains(end)) {
            assert!(Fields::of(&bytes[..end]).any(|field| field.is_err()), "{end}");
        }
        for bad in [&b"\x0b"[..], b"\x00\x00", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"] {
            assert!(Fields::of(bad).any(|field| field.is_err()), "{bad:?}");
        }
        assert!(Fields::of(b"\x12\xff\xff\xff\xff\x0fab").next().expect("one").is_err());
    }

    #[test]
    fn numbers_come_alone_or_packed_and_are_bounded() {
        let mut numbers = Vec::new();
        Value::Number(u64::MAX).wholes(&mut numbers, 3).expect("one");
        Value::Bytes(b"\x01\x96\x01").wholes(&mut numbers, 3).expect("two");
        assert_eq!(numbers, [-1, 1, 150]);
        assert!(Value::Bytes(b"\x01\x96\x01").all(|number| number > 0).expect("two"));
        assert!(!Value::Bytes(b"\x01\x96\x01").all(|number| number > 1).expect("two"));
        assert!(Value::Bytes(b"\x96").all(|_| true).is_err());
        assert!(Value::Bytes(b"\x01").wholes(&mut numbers, 3).is_err());
        assert!(Value::Bytes(b"\x96").wholes(&mut Vec::new(), 3).is_err());
    }
}
