//! What a GGUF file says of its model, as it is written (gguf.md, "gguf_metadata_kv_t").
//!
//! Owns the bytes of entries. Which there are is for others to say.

/// Type numbers of values.
const NUMBER: u32 = 4;
const WHOLE: u32 = 5;
const REAL: u32 = 6;
const FLAG: u32 = 7;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Entries in the making.
#[derive(Default)]
pub(super) struct Entries(Vec<(String, Vec<u8>)>);

impl Entries {
    pub(super) fn number(&mut self, key: &str, number: u32) {
        self.entry(key, NUMBER, &number.to_le_bytes());
    }

    pub(super) fn real(&mut self, key: &str, number: f32) {
        self.entry(key, REAL, &number.to_le_bytes());
    }

    pub(super) fn flag(&mut self, key: &str, flag: bool) {
        self.entry(key, FLAG, &[u8::from(flag)]);
    }

    pub(super) fn text(&mut self, key: &str, text: &str) {
        let mut value = Vec::with_capacity(8 + text.len());
        push(&mut value, text);
        self.entry(key, TEXT, &value);
    }

    pub(super) fn texts<'a>(&mut self, key: &str, texts: impl ExactSizeIterator<Item = &'a str>) {
        let mut value = TEXT.to_le_bytes().to_vec();
        value.extend((texts.len() as u64).to_le_bytes());
        texts.for_each(|text| push(&mut value, text));
        self.entry(key, LIST, &value);
    }

    pub(super) fn wholes(&mut self, key: &str, numbers: &[i32]) {
        let mut value = WHOLE.to_le_bytes().to_vec();
        value.extend((numbers.len() as u64).to_le_bytes());
        numbers.iter().for_each(|number| value.extend(number.to_le_bytes()));
        self.entry(key, LIST, &value);
    }

    pub(super) fn reals(&mut self, key: &str, numbers: &[f32]) {
        let mut value = REAL.to_le_bytes().to_vec();
        value.extend((numbers.len() as u64).to_le_bytes());
        numbers.iter().for_each(|number| value.extend(number.to_le_bytes()));
        self.entry(key, LIST, &value);
    }

    /// Key and bytes of each, in the order in which they were said.
    pub(super) fn into_all(self) -> Vec<(String, Vec<u8>)> {
        self.0
    }

    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        let mut bytes = Vec::with_capacity(12 + key.len() + value.len());
        push(&mut bytes, key);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
        self.0.push((key.to_owned(), bytes));
    }
}

fn push(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
