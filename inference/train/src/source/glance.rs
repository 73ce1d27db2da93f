//! Whether a source is there and looks as its kind promises, before any job asks for it.
//!
//! Owns what can be said without a job and without reading it all: that files are there, their
//! lines of names and headers. Values and labels are looked at with a job's shape and classes.

use std::fs::File;
use std::path::Path;

use super::{Source, Texts, csv, idx, images, parquet};
use crate::TrainError;

/// Looks at the beginning of a source.
///
/// # Errors
/// [`TrainError`] for what no job could be trained on as it is.
pub fn glance(source: &Source) -> Result<(), TrainError> {
    match source {
        Source::Csv(table) => csv::glance(table, file(&table.path)?),
        Source::Parquet(table) => parquet::glance(table, file(&table.path)?),
        Source::Idx(pair) => idx::glance(pair, file(&pair.images)?, file(&pair.labels)?),
        Source::Images(folder) => images::glance(folder),
        Source::Text(texts) => glance_texts(texts),
        // The running node has them.
        Source::Requests(_) => Ok(()),
    }
}

fn glance_texts(Texts { path }: &Texts) -> Result<(), TrainError> {
    let failed = |source| TrainError::Io { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        return std::fs::read_dir(path).map(drop).map_err(failed);
    }
    file(path).map(drop)
}

/// Opens what has to be a file: who opens a pipe waits for its other end.
fn file(path: &Path) -> Result<File, TrainError> {
    let failed = |source| TrainError::Io { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(TrainError::malformed(path, "not a file"));
    }
    File::open(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use crate::{Idx, Images, Table};

    const PARQUET: &[u8] = include_bytes!("../../samples/snappy.parquet");

    fn said(source: &Source) -> String {
        glance(source).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn table(path: &Path, value: &str) -> Table {
        Table {
            path: path.to_owned(),
            label: "state".to_owned(),
            values: vec![value.to_owned()],
            classes: Vec::new(),
            scale: 1.0,
        }
    }

    #[test]
    fn tables_are_there_and_have_the_columns_that_are_named() {
        let folder = Folder::new();
        let csv = |text: &[u8]| said(&Source::Csv(table(&folder.write("a.csv", text), "heat")));
        assert_eq!(csv(b"heat,state\n1,ok\n"), "");
        assert!(csv(b"wet,state\n1,ok\n").contains("a.csv: no column 'heat'"));
        assert!(csv(b"").contains("a.csv: the file is empty"));
        assert!(csv(b"heat,state\n").contains("a.csv: no rows"));
        assert!(csv(b"heat;state\n1;ok\n").contains("separated by commas"));
        let none = folder.path().join("none.csv");
        assert!(said(&Source::Csv(table(&none, "heat"))).contains("none.csv"));
        assert!(said(&Source::Csv(table(folder.path(), "heat"))).contains("not a file"));
        let path = folder.write("a.parquet", PARQUET);
        assert_eq!(said(&Source::Parquet(table(&path, "heat"))), "");
        assert!(said(&Source::Parquet(table(&path, "when"))).contains("column 'when'"));
        assert!(said(&Source::Parquet(table(&path, "wet"))).contains("no column 'wet'"));
        let still = Table { scale: 0.0, ..table(&path, "heat") };
        assert!(said(&Source::Parquet(still)).contains("a scale of 0"));
    }

    #[test]
    fn pictures_and_texts_are_there() {
        let folder = Folder::new();
        let images = folder.write("images", &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2]);
        let labels = folder.write("labels", &[0, 0, 8, 1, 0, 0, 0, 2, 7, 3]);
        let pair = |images: &Path, labels: &Path| {
            said(&Source::Idx(Idx { images: images.to_owned(), labels: labels.to_owned() }))
        };
        assert_eq!(pair(&images, &labels), "");
        assert!(pair(&labels, &images).contains("swapped"));
        assert!(pair(&images, &images).contains("labels of [2, 2, 2]"));
        let few = folder.write("few", &[0, 0, 8, 1, 0, 0, 0, 1, 7]);
        assert!(pair(&images, &few).contains("labels of [1] for 2 examples"));
        let one = Folder::new();
        std::fs::create_dir(one.path().join("good")).expect("a folder");
        let classes = |names: &[&str]| {
            let classes = names.iter().map(|&name| name.to_owned()).collect();
            said(&Source::Images(Images { path: one.path().to_owned(), classes, resize: false }))
        };
        assert_eq!(classes(&["bad", "good"]), "");
        assert!(classes(&["bad", "worse"]).contains("does not list it"));
        assert!(classes(&[]).contains("no class of the job"));
        let texts = |path: &Path| said(&Source::Text(Texts { path: path.to_owned() }));
        assert_eq!((texts(folder.path()), texts(&labels)), (String::new(), String::new()));
        assert!(texts(&folder.path().join("none")).contains("cannot read"));
    }
}
