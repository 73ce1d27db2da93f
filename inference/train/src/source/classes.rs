//! Names of classes and their numbers, the same for every kind of source.
//!
//! Owns what a label may be: one of the names that are listed, or without a list a number from 0.
//! A list is the same at all nodes, whatever a node's own files hold: one that lacks a class must
//! not number the others differently.

use std::path::Path;

use crate::{Schema, TrainError, Wrong};

/// Refuses a list that is not the job's: another number of names, or one of them twice.
pub(super) fn check(path: &Path, classes: &[String], schema: &Schema) -> Result<(), TrainError> {
    if classes.is_empty() {
        return Ok(());
    }
    if classes.len() != schema.classes {
        let (named, wanted) = (classes.len(), schema.classes);
        let reason = format!("{named} classes are named, and the job has {wanted}");
        return Err(TrainError::wrong(Wrong::Classes, path, reason));
    }
    let mut sorted: Vec<&String> = classes.iter().collect();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        let reason = format!("the class '{}' is named twice", short(pair[0]));
        return Err(TrainError::wrong(Wrong::Classes, path, reason));
    }
    Ok(())
}

/// The number of a class by what a file calls it.
pub(super) fn number(classes: &[String], called: &str, schema: &Schema) -> Option<u32> {
    let at = if classes.is_empty() {
        called.parse::<usize>().ok()?
    } else {
        classes.iter().position(|class| class == called)?
    };
    u32::try_from(at).ok().filter(|_| at < schema.classes)
}

/// What is wrong with a label of a table that has no number, as a message goes on that named it.
pub(super) fn unknown(classes: &[String], schema: &Schema) -> String {
    if classes.is_empty() {
        return format!(
            "is no class of the job: without `classes` in [[data]] labels are numbers from 0 to \
             {}; with it, the names it lists, in the same order at all nodes",
            schema.classes - 1
        );
    }
    "is no class of the job: `classes` in [[data]] does not list it; add it there, and to the \
     job's number of classes, or leave the row out"
        .to_owned()
}

/// A text of a file as it may stand in a message: its first characters, without controls.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(24).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shape;

    const SCHEMA: Schema = Schema { shape: Shape::Flat(1), classes: 2 };

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn lists_are_as_long_as_the_job_says_and_name_nothing_twice() {
        let said = |names: &[&str]| {
            let checked = check(Path::new("x"), &list(names), &SCHEMA);
            checked.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(said(&[]), "");
        assert_eq!(said(&["ok", "worn"]), "");
        assert!(said(&["ok"]).contains("1 classes are named, and the job has 2"));
        assert!(said(&["ok", "ok"]).contains("'ok' is named twice"));
    }

    #[test]
    fn a_class_has_the_number_of_its_place_in_the_list() {
        let names = list(&["worn", "ok"]);
        assert_eq!(number(&names, "ok", &SCHEMA), Some(1));
        assert_eq!(number(&names, "1", &SCHEMA), None);
        assert_eq!(number(&[], "1", &SCHEMA), Some(1));
        assert_eq!(number(&[], "2", &SCHEMA), None);
        assert_eq!(number(&[], "-1", &SCHEMA), None);
    }
}
