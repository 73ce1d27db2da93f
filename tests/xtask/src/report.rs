//! How findings of a check are shown.
//!
//! Owns the wording of the last line; the findings come from the checks.

/// Prints the findings of the check `name`; true when there are none.
pub(crate) fn show(name: &str, findings: &[String]) -> bool {
    for finding in findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => println!("{name}: holds"),
        1 => println!("{name}: 1 finding"),
        many => println!("{name}: {many} findings"),
    }
    findings.is_empty()
}
