use bytes::Bytes;

use super::*;
use crate::Shape;

const NONE: &[u8] = include_bytes!("../../samples/none.parquet");
const SNAPPY: &[u8] = include_bytes!("../../samples/snappy.parquet");
const GZIP: &[u8] = include_bytes!("../../samples/gzip.parquet");
const ZSTD: &[u8] = include_bytes!("../../samples/zstd.parquet");
const SECOND: &[u8] = include_bytes!("../../samples/second.parquet");
const DELTA: &[u8] = include_bytes!("../../samples/delta.parquet");
const PLAIN: &[u8] = include_bytes!("../../samples/plain.parquet");
/// Rows of all but the last.
const ROWS: usize = 300;

fn table(label: &str, values: &[&str], classes: &[&str]) -> Table {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Table {
        path: "line3.parquet".into(),
        label: label.to_owned(),
        values: owned(values),
        classes: owned(classes),
        scale: 2.0,
    }
}

fn told(table: &Table, bytes: &[u8]) -> Result<Examples, TrainError> {
    let width = if table.values.is_empty() { 1 } else { table.values.len() };
    let schema = Schema { shape: Shape::Flat(width), classes: 2 };
    read(table, Bytes::copy_from_slice(bytes), &schema)
}

fn said(table: &Table, bytes: &[u8]) -> String {
    told(table, bytes).err().map(|error| error.to_string()).unwrap_or_default()
}

const STATES: &[&str] = &["ok", "worn"];

#[test]
fn a_table_is_the_same_however_it_is_packed() -> Result<(), TrainError> {
    let table = table("state", &["hum", "heat"], STATES);
    for bytes in [NONE, SNAPPY, GZIP, SECOND] {
        let examples = told(&table, bytes)?;
        assert_eq!(examples.len(), ROWS);
        for at in 0..ROWS {
            let drawn = [(at % 7) as f32 / 2.0, at as f32 / 8.0];
            assert_eq!(examples.row(at), drawn);
            assert_eq!(examples.labels()[at], u32::from(at % 3 == 0));
        }
    }
    Ok(())
}

#[test]
fn numbers_of_every_width_are_read() -> Result<(), TrainError> {
    let all = ["fan", "count", "short", "long", "soft"];
    // A power of two, which changes no digit.
    let scale = 8_589_934_592.0;
    for bytes in [SNAPPY, SECOND] {
        let examples = told(&Table { scale, ..table("grade", &all, &[]) }, bytes)?;
        for at in [0, 1, 127, 128, 299] {
            let long = ((at as u64) << 33) as f32;
            let count = (u32::MAX - at as u32) as f32;
            let fan = u8::from(at % 2 == 0).into();
            let short = -((at % 100) as f32);
            let drawn = [fan, count, short, long, at as f32 / 4.0].map(|value| value / scale);
            assert_eq!(examples.row(at), drawn);
            assert_eq!(examples.labels()[at], at as u32 % 2);
        }
    }
    Ok(())
}

#[test]
fn labels_may_be_truth_values_and_named_numbers() -> Result<(), TrainError> {
    assert_eq!(told(&table("fan", &["heat"], &[]), SNAPPY)?.labels()[..3], [1, 0, 1]);
    let named = told(&table("fan", &["heat"], &["true", "false"]), SNAPPY)?;
    assert_eq!(named.labels()[..3], [0, 1, 0]);
    let named = told(&table("grade", &["heat"], &["1", "0"]), SNAPPY)?;
    assert_eq!(named.labels()[..3], [1, 0, 1]);
    let rest = told(&table("state", &[], &[]), PLAIN)?;
    assert_eq!((rest.values(), rest.labels()), (&[0.25, 1.0][..], &[1, 0][..]));
    Ok(())
}

#[test]
fn what_cannot_be_learned_from_is_told_by_row_and_column() {
    let gaps = said(&table("state", &["gaps"], STATES), SNAPPY);
    assert!(gaps.contains("row 212, column 'gaps': has no value (null)"), "{gaps}");
    let odd = said(&table("state", &["odd"], STATES), SNAPPY);
    assert!(odd.contains("row 6, column 'odd': 'NaN' cannot be learned from"), "{odd}");
    let long = said(&table("state", &["long"], STATES), SNAPPY);
    assert!(long.contains("row 2, column 'long': '8589934592' is too large"), "{long}");
    assert!(long.contains("use a larger `scale`"), "{long}");
    let class = said(&table("state", &["heat"], &["ok", "broken"]), SNAPPY);
    assert!(class.contains("row 1, column 'state': 'worn' is no class of the job"), "{class}");
    assert!(said(&table("hum", &["heat"], &[]), SNAPPY).contains("row 3, column 'hum': '2' is no"));
}

#[test]
fn columns_that_hold_no_numbers_are_refused_before_a_row_is_read() {
    let column = |name: &str| said(&table("state", &[name], STATES), SNAPPY);
    for (name, why) in [
        ("state", "numbers and truth values are read"),
        ("when", "Timestamp"),
        ("price", "Decimal"),
        ("tags.list.element", "nested"),
        ("inner.x", "nested"),
        ("nowhere", "no column 'nowhere'; the first are: state, heat"),
    ] {
        assert!(column(name).contains(why), "{}", column(name));
    }
    let all = said(&table("state", &[], STATES), SNAPPY);
    assert!(all.contains("14 columns of values, and the job's examples have 1"), "{all}");
}

#[test]
fn packings_that_are_not_read_are_named() {
    let plain = table("state", &["heat"], STATES);
    let zstd = said(&plain, ZSTD);
    assert!(zstd.contains("packed with ZSTD") && zstd.contains("SNAPPY"), "{zstd}");
    let delta = said(&table("state", &["hum"], STATES), DELTA);
    assert!(delta.contains("DELTA_BINARY_PACKED") && delta.contains("PLAIN"), "{delta}");
}

#[test]
fn what_is_cut_or_no_table_is_refused() {
    let plain = table("state", &["heat"], STATES);
    for cut in [0, 4, 8, 12, SNAPPY.len() / 2, SNAPPY.len() - 1] {
        assert!(told(&plain, &SNAPPY[..cut]).is_err(), "the first {cut} bytes were read");
    }
    // Without its beginning everything stands elsewhere than it says.
    assert!(told(&plain, &SNAPPY[SNAPPY.len() / 2..]).is_err());
    let mut long = SNAPPY.to_vec();
    let at = long.len() - 8;
    long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(told(&plain, &long), Err(TrainError::TooLarge { .. })));
}

#[test]
fn more_rows_than_fit_are_refused_by_their_promise() {
    let plain = table("state", &["heat"], STATES);
    let schema = Schema { shape: Shape::Flat(1), classes: 2 };
    let within = |most| read_within(&plain, Bytes::from_static(SNAPPY), &schema, most);
    assert!(within(ROWS).is_ok());
    assert!(matches!(within(ROWS - 1), Err(TrainError::TooLarge { .. })));
}
