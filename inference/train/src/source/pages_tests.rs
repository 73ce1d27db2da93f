use std::io::Write as _;

use super::*;

fn pages(packed: Packed) -> Pages<Bytes> {
    let file = Arc::new(Within::new(Bytes::from_static(SNAPPY)));
    let notes = parquet::file::metadata::ParquetMetaDataReader::new();
    let notes = notes.parse_and_finish(&Bytes::from_static(SNAPPY)).expect("notes");
    let chunk = notes.row_group(0).column(1);
    let mut pages = Pages::new(file, chunk, 128).expect("pages");
    pages.packed = packed;
    pages
}

const SNAPPY: &[u8] = include_bytes!("../../samples/snappy.parquet");

fn said<T>(result: Result<T>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn what_unfolds_beyond_the_bound_is_refused() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..65 {
        bomb.write_all(&zeros).expect("packed");
    }
    let bomb = bomb.finish().expect("packed");
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    assert!(said(pages(Packed::Gzip).unpack(bomb.into())).contains("more than 67108864 bytes"));
    // Five bytes that say they are four billion.
    let lie = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]);
    assert!(said(pages(Packed::Snappy).unpack(lie)).contains("longer than it can be"));
}

#[test]
fn a_list_of_values_has_no_more_than_it_has_room_for() {
    let listed = |num_values, length| Page::DictionaryPage {
        buf: Bytes::from(vec![0; length]),
        num_values,
        encoding: Encoding::PLAIN,
        is_sorted: false,
    };
    let mut sound = pages(Packed::Not);
    assert!(said(sound.sound(listed(u32::MAX, 8))).contains("more different values"));
    assert!(said(sound.sound(listed(2, 15))).contains("more different values"));
    assert!(sound.sound(listed(2, 16)).is_ok());
    assert!(said(sound.sound(listed(2, 16))).contains("twice"));
}

#[test]
fn a_page_has_no_more_values_than_its_group_has_rows() {
    let page = |num_values, encoding| Page::DataPage {
        buf: Bytes::new(),
        num_values,
        encoding,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    };
    let mut sound = pages(Packed::Not);
    assert!(sound.sound(page(128, Encoding::PLAIN)).is_ok());
    assert!(said(sound.sound(page(129, Encoding::PLAIN))).contains("more values than"));
    let refers = said(sound.sound(page(1, Encoding::RLE_DICTIONARY)));
    assert!(refers.contains("lists no different values"), "{refers}");
}
