//! What leaves a node that learns: every byte on its cable is opened and looked at.
//!
//! Not a byte may be left that nobody can read, and in none of them is anything of the node's
//! examples. Here they are rows of tables, as text and in Parquet; other kinds of data are in
//! `kinds`.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use selvedge_tests::parquet::{self, Values};
use selvedge_tests::{NodeSpec, scenario};

use super::overheard::{Forms, MODES, sent, watched};

/// Names that nothing else has: what is found is of the data.
const VALUES: [&str; 2] = ["heat-qzv31", "humidity-qzv32"];
const CLASSES: [&str; 2] = ["ok-qzv33", "worn-qzv34"];
const LABEL: &str = "state-qzv36";
/// What values are divided by before anything is trained on them.
const SCALE: f64 = 100.0;
/// Rounds of each job.
const ROUNDS: u64 = 4;

/// A table of each node.
#[derive(Clone, Copy)]
struct Table {
    /// What jobs call it.
    name: &'static str,
    /// Its form, and how its file's name ends.
    kind: &'static str,
    examples: u64,
    /// Its two columns, of all that there are: none has a value of another one.
    first: u64,
}

/// Rows enough that a part of them would be found.
const TEXT: Table = Table { name: "line3", kind: "csv", examples: 120, first: 1 };
/// Fewer: there is more to look for of each.
const PARQUET: Table = Table { name: "line4", kind: "parquet", examples: 40, first: 3 };

/// A rule that looks at every update, and a server that has moments.
const KRUM: &str = "[mode]\nkind = \"plain\"\nrule = { multi-krum = { byzantine = 0, keep = 2 } }\n\
                    [strategy]\nkind = \"fedadam\"\nrate = 0.01\ntau = 0.01\n";
/// Noise of a job with privacy, small beside what an update may be: so much of it that a model is
/// lost would end the training.
const PRIVACY: &str =
    "[privacy]\nnoise = 0.5\nnorm = 0.5\nhonest = 2\ndelta = 1e-5\nepsilon = 900.0\n";

/// One value of an example: six decimals, so that its digits are in nothing else.
fn value(node: u64, at: u64, column: u64) -> String {
    let millionths = (at * 37_199_813 + node * 11_317_171 + column * 29_640_307) % 100_000_000;
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

impl Table {
    fn row(self, node: u64, at: u64) -> [String; 2] {
        [value(node, at, self.first), value(node, at, self.first + 1)]
    }

    /// The bytes of its file.
    fn file(self, node: u64) -> Result<Vec<u8>> {
        let (mut columns, mut classes) = ([Vec::new(), Vec::new()], Vec::new());
        let mut text = format!("{},{},{LABEL}\n", VALUES[0], VALUES[1]);
        for at in 0..self.examples {
            let [heat, humidity] = self.row(node, at);
            let numbers: [f64; 2] = [heat.parse()?, humidity.parse()?];
            let class = CLASSES[usize::from(numbers[0] > numbers[1])];
            writeln!(text, "{heat},{humidity},{class}")?;
            columns.iter_mut().zip(numbers).for_each(|(column, number)| column.push(number));
            classes.push(class.to_owned());
        }
        if self.kind == TEXT.kind {
            return Ok(text.into_bytes());
        }
        let [heat, humidity] = columns.map(Values::Doubles);
        let label = (LABEL, Values::Texts(classes));
        Ok(parquet::table(&[(VALUES[0], heat), (VALUES[1], humidity), label]))
    }
}

fn with_data(spec: NodeSpec, node: u64) -> Result<NodeSpec> {
    fs::create_dir_all(&spec.home)?;
    let mut config = String::new();
    for table in [TEXT, PARQUET] {
        let Table { name, kind, .. } = table;
        let path = spec.home.join(format!("states-qzv35.{kind}"));
        fs::write(&path, table.file(node)?)?;
        writeln!(
            config,
            "[[data]]\nname = \"{name}\"\nkind = \"{kind}\"\npath = \"{}\"\n\
             label = \"{LABEL}\"\nvalues = {VALUES:?}\nclasses = {CLASSES:?}\nscale = {SCALE:?}",
            path.display()
        )?;
    }
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec)
}

fn job(name: &str, table: Table, mode: &str) -> String {
    format!(
        "name = \"{name}\"\ndata = \"{}\"\nrounds = {ROUNDS}\nmin_clients = 3\ntarget = 5\n\
         [model]\nshape = {{ flat = 2 }}\nclasses = 2\nhidden = [{{ dense = 512 }}]\n\
         [training]\nepochs = 2\nbatch = 1\nlearning_rate = 0.2\n{mode}\n\
         [pace]\ntick_ms = 50\nstagger_ms = 100\ngather_ms = 150\npatience_ms = 1500\n",
        table.name
    )
}

/// Values beside each other, as they are in a file and as they are trained on.
fn beside(all: &mut Forms, name: &str, texts: &[String; 2]) -> Result<()> {
    let parsed: Vec<f64> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    for (how, scale) in [("", 1.0), (" scaled", SCALE)] {
        let exact: Vec<f64> = parsed.iter().map(|value| value / scale).collect();
        #[allow(clippy::cast_possible_truncation, reason = "what the trainer computes with")]
        let single: Vec<f32> = exact.iter().map(|value| *value as f32).collect();
        all.run(&format!("{name}{how}"), &exact, &single);
        for (column, value) in exact.iter().enumerate() {
            all.number(&format!("{name}.{column}{how}"), *value);
        }
    }
    Ok(())
}

/// What would be an example, in any of the ways in which numbers are written.
fn of_examples(node: u64) -> Result<Forms> {
    let mut all = Forms::default();
    VALUES.iter().chain(&CLASSES).chain(&["states-qzv35", LABEL]).for_each(|word| all.text(word));
    for table in [TEXT, PARQUET] {
        for at in 0..table.examples {
            let (name, texts) = (format!("{} {at}", table.name), table.row(node, at));
            all.bytes(&format!("{name} row"), texts.join(",").as_bytes());
            beside(&mut all, &name, &texts)?;
            // A file in Parquet has one column after the other.
            if table.kind == PARQUET.kind && at > 0 {
                let column = [at - 1, at].map(|at| value(node, at, table.first));
                beside(&mut all, &format!("{name} column"), &column)?;
            }
            texts.iter().for_each(|text| all.text(text));
        }
    }
    Ok(all)
}

#[test]
fn nothing_of_a_nodes_examples_is_in_any_byte_that_leaves_it() {
    scenario(|s| {
        let all = watched(s, "cable", with_data)?;
        let [(closed, secure), (open, plain)] = MODES;
        let jobs = [
            (closed, TEXT, secure),
            (open, TEXT, plain),
            ("hidden", PARQUET, PRIVACY),
            ("shown", PARQUET, KRUM),
        ];
        let file = s.path("job.toml");
        let mut at_least = 0;
        for (name, table, mode) in jobs {
            s.step(&format!("a job on a table in {}: {name}", table.kind));
            fs::write(&file, job(name, table, mode))?;
            all.nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;
            at_least += sent(&all.nodes[0], name, ROUNDS)?;
        }
        let said = [TEXT.name, PARQUET.name, closed, open, "hidden", "shown"];
        all.holds(s, of_examples(0)?, &said, at_least)
    });
}
