//! `selvedge infer`: rows of numbers to a learned model, and their classes; or pictures to one, or
//! to a model that sees (`pictures`).

mod pictures;

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context as _, Result, anyhow, bail};
use selvedge_train::{Reading, Unlabelled, UnlabelledError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::keys::escaped;
use crate::cli;
use crate::client::Client;
use crate::home::Home;
use crate::ui::{self, Ink, paint_err};

/// The longest input: four million values in a dozen letters each.
const MAX_INPUT_BYTES: u64 = 48 << 20;
/// Values of one request: in JSON twenty letters each at most, half of what a body may hold.
const REQUEST_VALUES: usize = 200_000;
/// Rows of one request, as the node takes them.
const REQUEST_ROWS: usize = 1_024;

/// An answer, as far as it is read.
#[derive(Deserialize)]
struct Answer {
    model_version: String,
    outputs: Vec<Tensor>,
}

#[derive(Deserialize)]
struct Tensor {
    name: String,
    data: Vec<f64>,
}

/// Asks about every row, and says on standard error which version answered.
pub(crate) fn infer(home: &Home, options: &cli::Infer) -> Result<()> {
    let contact = match &options.api {
        Some(_) => None,
        None => Some(home.running()?),
    };
    let base = options.api.as_deref().or(contact.as_ref().map(|contact| contact.api.as_str()));
    let client = Client::new(base.unwrap_or_default(), options.key.clone());
    let rows = match &options.input {
        Some(input) => read(input, options)?,
        None => match pictures::rows(&client, options)? {
            Some(rows) => rows,
            None => return pictures::infer(&client, options),
        },
    };
    ask(&client, options, &rows)
}

/// The rows of a file.
fn read(input: &str, options: &cli::Infer) -> Result<Unlabelled> {
    let how = Reading { columns: options.columns.clone(), scale: options.scale };
    Unlabelled::read(&text_of(input)?, &how).map_err(|error| {
        let hint = hint(&error, options.columns.is_empty());
        anyhow!("{input} holds no rows of numbers: {error}{hint}")
    })
}

/// What to do about a text that holds no rows, where the command has something for it.
fn hint(error: &UnlabelledError, takes_all: bool) -> &'static str {
    match error {
        UnlabelledError::Cell { cell, .. } if cell.contains([';', '\t']) => {
            "; columns are separated by commas"
        }
        UnlabelledError::Cell { .. } if takes_all => {
            "; --columns lists the columns to take, by the names in the first line"
        }
        UnlabelledError::Cell { .. }
        | UnlabelledError::Form(_)
        | UnlabelledError::Width { .. }
        | UnlabelledError::Empty
        | UnlabelledError::TooLarge => "",
    }
}

/// Asks about rows in parts. Those of pictures are told by their files, others by their number.
fn ask(client: &Client, options: &cli::Infer, rows: &Unlabelled) -> Result<()> {
    let version = options.version.map(|version| format!("/versions/{version}"));
    let version = version.unwrap_or_default();
    let path = format!("/v2/models/{}{version}/infer", escaped(&options.name));
    let at_once = (REQUEST_VALUES / rows.width).clamp(1, REQUEST_ROWS);
    let (mut told, mut answered) = (Vec::new(), String::new());
    let mut row = 0;
    for part in rows.values.chunks(at_once * rows.width) {
        let count = part.len() / rows.width;
        let (answer, request): (Answer, String) = client.ask(&path, &body_of(part, rows.width))?;
        let all = examples(&answer, count)?;
        check_names(&options.classes, &all)?;
        for one in all {
            let file = options.image.get(row);
            row += 1;
            if options.json {
                let mut one = as_json(row, &one, &answer.model_version, &options.classes);
                if let Some(file) = file {
                    one["image"] = json!(file);
                }
                told.push(one);
            } else {
                let which = file.cloned().unwrap_or_else(|| row.to_string());
                ui::out(line(&which, &one, &options.classes));
            }
        }
        if answered != answer.model_version {
            let said = format!("— {} version {}; {request}", options.name, answer.model_version);
            ui::note(paint_err(Ink::Dim, said));
            answered = answer.model_version;
        }
    }
    if options.json {
        ui::out(format_args!("{:#}", Value::Array(told)));
    }
    Ok(())
}

/// Refuses names that are not those of a model's classes: some would go without, or by another's.
fn check_names(names: &[String], all: &[Example<'_>]) -> Result<()> {
    let Some(classes) = all.first().map(|one| one.probabilities.len()) else { return Ok(()) };
    if names.is_empty() || names.len() == classes {
        return Ok(());
    }
    bail!(
        "the model has {classes} classes, and --classes names {}: give all of them, in the order \
         of the job's data",
        names.len()
    );
}

/// The class of each row of so many numbers and how likely the model finds it, and the version
/// that answered; one request, which waits no longer than a command to the node does.
pub(crate) fn classes_of(
    client: &Client,
    model: &str,
    values: &[f32],
    width: usize,
) -> Result<(Vec<(usize, f64)>, String)> {
    let path = format!("/v2/models/{}/infer", escaped(model));
    let answer: Answer = client.post(&path, &body_of(values, width))?;
    let all = examples(&answer, values.len() / width.max(1))?;
    let told = all.iter().map(|one| (one.class, one.probabilities[one.class])).collect();
    Ok((told, answer.model_version))
}

/// What asks for the classes of rows.
fn body_of(values: &[f32], width: usize) -> Value {
    let shape = [values.len() / width.max(1), width];
    let input = json!({ "name": "input", "datatype": "FP32", "shape": shape, "data": values });
    json!({ "inputs": [input] })
}

/// One example's answer.
struct Example<'a> {
    class: usize,
    probabilities: &'a [f64],
}

/// The answers of so many examples.
fn examples(answer: &Answer, count: usize) -> Result<Vec<Example<'_>>> {
    let tensor = |name: &str| answer.outputs.iter().find(|tensor| tensor.name == name);
    let (Some(shares), Some(classes)) = (tensor("probabilities"), tensor("class")) else {
        bail!("the node's answer is not what this version expects");
    };
    let width = shares.data.len() / count.max(1);
    let of = |(class, shares)| Example { class: whole(class), probabilities: shares };
    let all: Vec<_> = classes.data.iter().zip(shares.data.chunks(width.max(1))).map(of).collect();
    let good = |one: &Example<'_>| one.class < one.probabilities.len();
    if all.len() != count || !all.iter().all(good) {
        bail!("the node's answer does not fit the {count} rows it was asked about");
    }
    Ok(all)
}

/// A class as a place; what is none is beyond every class.
fn whole(class: &f64) -> usize {
    if *class >= 0.0 && class.fract() == 0.0 { *class as usize } else { usize::MAX }
}

fn name(class: usize, names: &[String]) -> String {
    names.get(class).cloned().unwrap_or_else(|| class.to_string())
}

fn line(which: &str, one: &Example<'_>, names: &[String]) -> String {
    let class = name(one.class, names);
    format!("{which:>6}  {class:<12}  {:.4}", one.probabilities[one.class])
}

fn as_json(row: usize, one: &Example<'_>, version: &str, names: &[String]) -> Value {
    let mut told = json!({
        "row": row,
        "class": one.class,
        "probability": one.probabilities[one.class],
        "probabilities": one.probabilities,
        "version": version,
    });
    if let Some(name) = names.get(one.class) {
        told["name"] = json!(name);
    }
    told
}

fn text_of(input: &str) -> Result<String> {
    let mut text = String::new();
    let failed = || format!("cannot read {input} as text");
    let mut bounded: Box<dyn std::io::Read> = match input {
        "-" => Box::new(std::io::stdin().take(MAX_INPUT_BYTES + 1)),
        path => Box::new(File::open(path).with_context(failed)?.take(MAX_INPUT_BYTES + 1)),
    };
    bounded.read_to_string(&mut text).with_context(failed)?;
    if text.len() as u64 > MAX_INPUT_BYTES {
        bail!("{input} has more than {} MiB; ask in parts", MAX_INPUT_BYTES >> 20);
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(classes: &[f64], shares: &[f64]) -> Answer {
        let tensor = |name: &str, data: &[f64]| Tensor { name: name.to_owned(), data: data.into() };
        let outputs = vec![tensor("probabilities", shares), tensor("class", classes)];
        Answer { model_version: "3".to_owned(), outputs }
    }

    #[test]
    fn an_answer_is_told_row_by_row() {
        let answer = answer(&[1.0, 0.0], &[0.25, 0.75, 0.9, 0.1]);
        let all = examples(&answer, 2).unwrap();
        let names = ["ok".to_owned(), "worn".to_owned()];
        assert_eq!(line("1", &all[0], &names), "     1  worn          0.7500");
        assert_eq!(line("2", &all[1], &[]), "     2  0             0.9000");
        assert_eq!(line("d/a.png", &all[1], &[]), "d/a.png  0             0.9000");
        let told = as_json(1, &all[0], "3", &names);
        assert_eq!((&told["name"], &told["class"]), (&json!("worn"), &json!(1)));
    }

    #[test]
    fn a_column_of_text_is_told_how_to_leave_it_out() {
        let said = |text: &str, takes_all: bool| {
            let how = Reading { columns: Vec::new(), scale: 1.0 };
            hint(&Unlabelled::read(text, &how).unwrap_err(), takes_all)
        };
        assert!(said("heat,state\n1,ok\n", true).contains("--columns lists"));
        assert_eq!(said("heat,state\n1,ok\n", false), "");
        assert!(said("heat;state\n1;2\n", true).contains("separated by commas"));
        assert_eq!(said("", true), "");
    }

    #[test]
    fn some_of_the_classes_are_not_all_of_them() {
        let answer = answer(&[1.0], &[0.25, 0.75]);
        let all = examples(&answer, 1).unwrap();
        let said = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            check_names(&names, &all).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!((said(&[]), said(&["ok", "worn"])), (String::new(), String::new()));
        let few = said(&["ok"]);
        assert!(few.contains("has 2 classes, and --classes names 1"), "{few}");
        assert!(said(&["ok", "worn", "new"]).contains("names 3"));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_refused() {
        for (classes, shares) in [
            (&[1.0][..], &[0.5, 0.5, 0.5, 0.5][..]),
            (&[1.0, 2.0], &[0.5, 0.5, 0.5, 0.5]),
            (&[1.0, 0.5], &[0.5, 0.5, 0.5, 0.5]),
            (&[1.0, -1.0], &[0.5, 0.5, 0.5, 0.5]),
            (&[], &[]),
        ] {
            assert!(examples(&answer(classes, shares), 2).is_err(), "{classes:?}");
        }
    }
}
