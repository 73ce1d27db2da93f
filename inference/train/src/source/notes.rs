//! Which types the fields of a Parquet file's notes have.
//!
//! Owns the tables of parquet.thrift (format 2.12) that the footer is held against: the parser
//! reads a field as what its number says and not as what its head says, so a head that says
//! something else would lead whoever looks first astray. Fields that are not listed here are newer;
//! both pass over them by their heads.

/// What a field holds.
pub(super) enum Holds {
    /// A truth value.
    Truth,
    /// One byte.
    Byte,
    /// A number of 16 bits.
    Short,
    /// A number of 32 bits, or one of an enumeration.
    Int,
    /// A number of 64 bits.
    Long,
    /// A float of eight bytes.
    Double,
    /// Bytes or text.
    Bytes,
    /// Any number of these.
    List(&'static Holds),
    /// A structure, or one of several.
    Fields(Fields),
}

/// The fields of a structure: their numbers, and what they hold.
pub(super) type Fields = &'static [(i16, Holds)];

use Holds::{Byte, Bytes, Double, Int, List, Long, Short, Truth};

/// A structure without fields: the numbers of its fields.
const NOTHING: Fields = &[];
/// `DecimalType`: the numbers of its fields.
const DECIMAL: Fields = &[(1, Int), (2, Int)];
/// `TimeUnit`: the numbers of its fields.
const UNIT: Fields =
    &[(1, Holds::Fields(NOTHING)), (2, Holds::Fields(NOTHING)), (3, Holds::Fields(NOTHING))];
/// `TimeType` and `TimestampType`: the numbers of its fields.
const TIME: Fields = &[(1, Truth), (2, Holds::Fields(UNIT))];
/// `IntType`: the numbers of its fields.
const INTEGER: Fields = &[(1, Byte), (2, Truth)];
/// `GeometryType` and `GeographyType`: the numbers of its fields.
const PLACE: Fields = &[(1, Bytes), (2, Int)];

/// `LogicalType`: the numbers of its fields.
const LOGICAL: Fields = &[
    (1, Holds::Fields(NOTHING)),
    (2, Holds::Fields(NOTHING)),
    (3, Holds::Fields(NOTHING)),
    (4, Holds::Fields(NOTHING)),
    (5, Holds::Fields(DECIMAL)),
    (6, Holds::Fields(NOTHING)),
    (7, Holds::Fields(TIME)),
    (8, Holds::Fields(TIME)),
    (10, Holds::Fields(INTEGER)),
    (11, Holds::Fields(NOTHING)),
    (12, Holds::Fields(NOTHING)),
    (13, Holds::Fields(NOTHING)),
    (14, Holds::Fields(NOTHING)),
    (15, Holds::Fields(NOTHING)),
    (16, Holds::Fields(&[(1, Byte)])),
    (17, Holds::Fields(PLACE)),
    (18, Holds::Fields(PLACE)),
];

/// `SchemaElement`, but for the number of its children.
pub(super) const ELEMENT: Fields = &[
    (1, Int),
    (2, Int),
    (3, Int),
    (4, Bytes),
    (6, Int),
    (7, Int),
    (8, Int),
    (9, Int),
    (10, Holds::Fields(LOGICAL)),
];

/// `KeyValue`: the numbers of its fields.
const PAIR: Fields = &[(1, Bytes), (2, Bytes)];
/// `Statistics`: the numbers of its fields.
const STATISTICS: Fields =
    &[(1, Bytes), (2, Bytes), (3, Long), (4, Long), (5, Bytes), (6, Bytes), (7, Truth), (8, Truth)];
/// `PageEncodingStats`: the numbers of its fields.
const ENCODING: Fields = &[(1, Int), (2, Int), (3, Int)];
/// `SizeStatistics`: the numbers of its fields.
const SIZES: Fields = &[(1, Long), (2, List(&Long)), (3, List(&Long))];
/// `BoundingBox`: the numbers of its fields.
const BOX: Fields = &[
    (1, Double),
    (2, Double),
    (3, Double),
    (4, Double),
    (5, Double),
    (6, Double),
    (7, Double),
    (8, Double),
];
/// `GeospatialStatistics`: the numbers of its fields.
const PLACES: Fields = &[(1, Holds::Fields(BOX)), (2, List(&Int))];

/// `ColumnMetaData`: the numbers of its fields.
const COLUMN: Fields = &[
    (1, Int),
    (2, List(&Int)),
    (3, List(&Bytes)),
    (4, Int),
    (5, Long),
    (6, Long),
    (7, Long),
    (8, List(&Holds::Fields(PAIR))),
    (9, Long),
    (10, Long),
    (11, Long),
    (12, Holds::Fields(STATISTICS)),
    (13, List(&Holds::Fields(ENCODING))),
    (14, Long),
    (15, Int),
    (16, Holds::Fields(SIZES)),
    (17, Holds::Fields(PLACES)),
];
/// `ColumnCryptoMetaData`: the numbers of its fields.
const SECRET: Fields =
    &[(1, Holds::Fields(NOTHING)), (2, Holds::Fields(&[(1, List(&Bytes)), (2, Bytes)]))];
/// `ColumnChunk`: the numbers of its fields.
const CHUNK: Fields = &[
    (1, Bytes),
    (2, Long),
    (3, Holds::Fields(COLUMN)),
    (4, Long),
    (5, Int),
    (6, Long),
    (7, Int),
    (8, Holds::Fields(SECRET)),
    (9, Bytes),
];
/// `SortingColumn`: the numbers of its fields.
const SORTED: Fields = &[(1, Int), (2, Truth), (3, Truth)];
/// `RowGroup`: the numbers of its fields.
const GROUP: Fields = &[
    (1, List(&Holds::Fields(CHUNK))),
    (2, Long),
    (3, Long),
    (4, List(&Holds::Fields(SORTED))),
    (5, Long),
    (6, Long),
    (7, Short),
];
/// `AesGcmV1` and `AesGcmCtrV1`: the numbers of its fields.
const CIPHER: Fields = &[(1, Bytes), (2, Bytes), (3, Truth)];

/// `FileMetaData`, but for the schema.
pub(super) const FILE: Fields = &[
    (1, Int),
    (3, Long),
    (4, List(&Holds::Fields(GROUP))),
    (5, List(&Holds::Fields(PAIR))),
    (6, Bytes),
    (7, List(&Holds::Fields(&[(1, Holds::Fields(NOTHING)), (2, Holds::Fields(NOTHING))]))),
    (8, Holds::Fields(&[(1, Holds::Fields(CIPHER)), (2, Holds::Fields(CIPHER))])),
    (9, Bytes),
];
