//! Tables in Apache Parquet, as a test hands them to a node.
//!
//! Owns the smallest form of such a file: one group of rows, one page for each column, nothing
//! packed, nothing missing. Its notes are written in Thrift's compact protocol, with the fields of
//! parquet.thrift that a reader must have. Reading is the node's.

/// A file begins and ends with these letters.
const MAGIC: &[u8] = b"PAR1";
/// The version of the format: the first one has all that is written here.
const VERSION: i64 = 1;
/// The root of the columns is one element more than there are columns.
const ROOT: &[u8] = b"rows";

/// Types of Thrift's compact protocol.
const I32: u8 = 5;
/// See [`I32`].
const I64: u8 = 6;
/// See [`I32`].
const BINARY: u8 = 8;
/// See [`I32`].
const LIST: u8 = 9;
/// See [`I32`].
const STRUCT: u8 = 12;

/// What a column holds, one value in each row.
#[derive(Clone, Debug)]
pub enum Values {
    /// Numbers of eight bytes.
    Doubles(Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Doubles(all) => all.len(),
            Self::Texts(all) => all.len(),
        }
    }

    /// The physical type: `DOUBLE` or `BYTE_ARRAY`.
    const fn kind(&self) -> i64 {
        match self {
            Self::Doubles(_) => 5,
            Self::Texts(_) => 6,
        }
    }

    /// The encoding PLAIN.
    fn plain(&self) -> Vec<u8> {
        match self {
            Self::Doubles(all) => all.iter().flat_map(|one| one.to_le_bytes()).collect(),
            Self::Texts(all) => {
                let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
                let one =
                    |text: &String| [&length(text).to_le_bytes()[..], text.as_bytes()].concat();
                all.iter().flat_map(one).collect()
            }
        }
    }
}

/// The bytes of a file with these columns, which are of one length and fewer than 14.
pub fn table(columns: &[(&str, Values)]) -> Vec<u8> {
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    let mut file = MAGIC.to_vec();
    let mut chunks = Vec::new();
    let mut total = 0;
    for (name, values) in columns {
        let (at, page) = (file.len(), page(values));
        file.extend(&page);
        total += page.len();
        chunks.push(chunk(name, values, at, page.len()));
    }
    let group = Fields::default().list(1, STRUCT, &chunks).number(2, I64, total);
    let group = group.number(3, I64, rows).end();
    let notes = Fields::default()
        .signed(1, I32, VERSION)
        .list(2, STRUCT, &elements(columns))
        .number(3, I64, rows)
        .list(4, STRUCT, &[group])
        .end();
    let length = u32::try_from(notes.len()).unwrap_or(u32::MAX);
    file.extend(notes);
    file.extend(length.to_le_bytes());
    file.extend(MAGIC);
    file
}

/// The columns, each of which has a value in every row (`REQUIRED`), after their root.
fn elements(columns: &[(&str, Values)]) -> Vec<Vec<u8>> {
    let root = Fields::default().bytes(4, ROOT).number(5, I32, columns.len()).end();
    let column = |(name, values): &(&str, Values)| {
        let kind = Fields::default().signed(1, I32, values.kind()).signed(3, I32, 0);
        kind.bytes(4, name.as_bytes()).end()
    };
    std::iter::once(root).chain(columns.iter().map(column)).collect()
}

/// A column's one page: its head, and the values as they are.
fn page(values: &Values) -> Vec<u8> {
    let plain = values.plain();
    // PLAIN, and for the levels that are not there RLE.
    let data = Fields::default().number(1, I32, values.len()).signed(2, I32, 0);
    let data = data.signed(3, I32, 3).signed(4, I32, 3).end();
    let head = Fields::default().signed(1, I32, 0).number(2, I32, plain.len());
    let head = head.number(3, I32, plain.len()).inner(5, &data).end();
    [head, plain].concat()
}

/// What is told of a column whose page is at a place.
fn chunk(name: &str, values: &Values, at: usize, bytes: usize) -> Vec<u8> {
    let notes = Fields::default()
        .signed(1, I32, values.kind())
        .list(2, I32, &[vec![zigzag(0)], vec![zigzag(3)]])
        .list(3, BINARY, &[binary(name.as_bytes())])
        .signed(4, I32, 0)
        .number(5, I64, values.len())
        .number(6, I64, bytes)
        .number(7, I64, bytes)
        .number(9, I64, at)
        .end();
    Fields::default().number(2, I64, at).inner(3, &notes).end()
}

/// A structure of the compact protocol: fields by rising number.
#[derive(Default)]
struct Fields {
    last: u8,
    bytes: Vec<u8>,
}

impl Fields {
    fn head(mut self, field: u8, kind: u8) -> Self {
        self.bytes.push((field - self.last) << 4 | kind);
        self.last = field;
        self
    }

    fn signed(mut self, field: u8, kind: u8, value: i64) -> Self {
        self = self.head(field, kind);
        self.bytes.extend(varint((value.unsigned_abs() << 1) - u64::from(value < 0)));
        self
    }

    fn number(self, field: u8, kind: u8, value: usize) -> Self {
        self.signed(field, kind, i64::try_from(value).unwrap_or(i64::MAX))
    }

    fn bytes(mut self, field: u8, bytes: &[u8]) -> Self {
        self = self.head(field, BINARY);
        self.bytes.extend(binary(bytes));
        self
    }

    fn list(mut self, field: u8, kind: u8, all: &[Vec<u8>]) -> Self {
        self = self.head(field, LIST);
        // Fifteen and more would need another head.
        debug_assert!(all.len() < 15, "a list that is too long");
        self.bytes.push((all.len() as u8) << 4 | kind);
        self.bytes.extend(all.concat());
        self
    }

    fn inner(mut self, field: u8, fields: &[u8]) -> Self {
        self = self.head(field, STRUCT);
        self.bytes.extend(fields);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A small number of a list, its sign in the lowest bit.
const fn zigzag(value: u8) -> u8 {
    value << 1
}

/// Seven bits a byte.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use selvedge_train::{Schema, Shape, Table, read_parquet};

    use super::*;

    #[test]
    fn a_node_reads_what_is_written() {
        let rows = 200;
        let heat: Vec<f64> = (0..rows).map(|at| f64::from(at) / 4.0).collect();
        let soft: Vec<f64> = heat.iter().map(|heat| -heat).collect();
        let states = (0..rows).map(|at| if at % 3 == 0 { "worn" } else { "ok" }.to_owned());
        let file = table(&[
            ("heat", Values::Doubles(heat)),
            ("state", Values::Texts(states.collect())),
            ("soft", Values::Doubles(soft)),
        ]);
        let asked = Table {
            path: "line.parquet".into(),
            label: "state".to_owned(),
            values: vec!["soft".to_owned(), "heat".to_owned()],
            classes: vec!["ok".to_owned(), "worn".to_owned()],
            scale: 2.0,
        };
        let schema = Schema { shape: Shape::Flat(2), classes: 2 };
        let examples = read_parquet(&asked, file, &schema, 1_000).expect("a table");
        assert_eq!(examples.len(), 200);
        assert_eq!(examples.row(0), [0.0, 0.0]);
        assert_eq!(examples.row(199), [-24.875, 24.875]);
        assert_eq!(examples.labels()[..4], [1, 0, 0, 1]);
    }
}
