//! What leaves a node that learns: every byte on its cable is opened and looked at.
//!
//! Not a byte may be left that nobody can read, and in none of them is anything of the node's
//! examples. Here they are rows of tables, as text and in Parquet, in two parts of one node too;
//! other kinds of data are in `kinds`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use selvedge_tests::parquet::{self, Values};
use selvedge_tests::{NodeSpec, Scenario, scenario};
use serde_json::Value;

use super::fits::line;
use super::overheard::{Forms, MODES, Watched, sent, until, watched};

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
    /// Which part of the data of this name.
    part: Option<&'static str>,
    examples: u64,
    /// Its two columns, of all that there are: none has a value of another one.
    first: u64,
}

/// Rows enough that a part of them would be found.
const TEXT: Table = Table { name: "line3", kind: "csv", part: None, examples: 120, first: 1 };
/// Fewer: there is more to look for of each.
const PARQUET: Table = Table { name: "line4", kind: "parquet", part: None, examples: 40, first: 3 };
/// Two parts, each a client of its own.
const EARLY: Table =
    Table { name: "line6", kind: "csv", part: Some("early-qzv37"), examples: 24, first: 5 };
const LATE: Table = Table { part: Some("late-qzv38"), first: 7, ..EARLY };
const TABLES: [Table; 4] = [TEXT, PARQUET, EARLY, LATE];
/// Data that every node has, and of which the first one's have a cell that is no number.
const WRONG: &str = "line5";
const CELL: &str = "cell-qzv39";
const WRONG_FILE: &str = "wrong-qzv40";

/// A rule that looks at every update, and a server that has moments.
const KRUM: &str = "[mode]\nkind = \"plain\"\nrule = { multi-krum = { byzantine = 0, keep = 2 } }\n\
                    [strategy]\nkind = \"fedadam\"\nrate = 0.01\ntau = 0.01\n";
/// Noise of a job with privacy, small beside what an update may be: so much of it that a model is
/// lost would end the training.
const PRIVACY: &str =
    "[privacy]\nnoise = 0.5\nnorm = 0.5\nhonest = 2\ndelta = 1e-5\nepsilon = 900.0\n";
/// An update has the change of a control variate beside that of the model.
const SCAFFOLD: &str = "[strategy]\nkind = \"scaffold\"\nclients = 5\n";
/// While no round ends, nodes tell each other models of their own.
const EPIDEMIC: &str = "[mode]\nkind = \"plain\"\nrule = \"mean\"\n\
                        [epidemic]\npeers = 4\nafter_ms = 1500\nevery_ms = 100\n";

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

/// A table of a node's configuration.
fn listed(name: &str, part: Option<&str>, kind: &str, path: &Path) -> String {
    let part = part.map_or(String::new(), |part| format!("part = \"{part}\"\n"));
    format!(
        "[[data]]\nname = \"{name}\"\n{part}kind = \"{kind}\"\npath = \"{}\"\n\
         label = \"{LABEL}\"\nvalues = {VALUES:?}\nclasses = {CLASSES:?}\nscale = {SCALE:?}\n",
        path.display()
    )
}

fn with_data(spec: NodeSpec, node: u64) -> Result<NodeSpec> {
    fs::create_dir_all(&spec.home)?;
    let mut config = String::new();
    for table in TABLES {
        let Table { name, kind, part, first, .. } = table;
        let path = spec.home.join(format!("states-qzv35-{first}.{kind}"));
        fs::write(&path, table.file(node)?)?;
        config.push_str(&listed(name, part, kind, &path));
    }
    let mut wrong = TEXT.file(node)?;
    if node == 0 {
        wrong.extend(format!("1.5,{CELL},{}\n", CLASSES[0]).bytes());
    }
    let path = spec.home.join(format!("{WRONG_FILE}.csv"));
    fs::write(&path, wrong)?;
    config.push_str(&listed(WRONG, None, TEXT.kind, &path));
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec)
}

fn job(name: &str, data: &str, mode: &str) -> String {
    format!(
        "name = \"{name}\"\ndata = \"{data}\"\nrounds = {ROUNDS}\nmin_clients = 3\ntarget = 5\n\
         [model]\nshape = {{ flat = 2 }}\nclasses = 2\nhidden = [{{ dense = 512 }}]\n\
         [training]\nepochs = 2\nbatch = 1\nlearning_rate = 0.2\n{mode}\n\
         [pace]\ntick_ms = 50\nstagger_ms = 100\ngather_ms = 150\npatience_ms = 1500\n"
    )
}

/// The same with a smaller model and shorter steps, for jobs that run at once.
fn small(name: &str, data: &str, mode: &str) -> String {
    let job = job(name, data, mode).replace("dense = 512", "dense = 32");
    job.replace("learning_rate = 0.2", "learning_rate = 0.05")
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
    [CELL, WRONG_FILE].iter().for_each(|word| all.text(word));
    all.bytes("wrong cell", CELL.as_bytes());
    for table in TABLES {
        table.part.iter().for_each(|part| all.text(part));
        for at in 0..table.examples {
            let (name, texts) =
                (format!("{}.{} {at}", table.name, table.first), table.row(node, at));
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
            fs::write(&file, job(name, table.name, mode))?;
            all.nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;
            at_least += sent(&all.nodes[0], name, ROUNDS)?;
        }
        at_least += other_strategies(s, &all)?;
        another_one_asks(s, &all)?;
        let jobs = [closed, open, "hidden", "shown", "variates", "norms", "parted", "alone"];
        let said = [&[TEXT.name, PARQUET.name, EARLY.name][..], &jobs[..]].concat();
        all.holds(s, of_examples(0)?, &said, at_least)
    });
}

/// What leaves a node beside updates: changes of a control variate, votes for a norm, the updates
/// of two clients, and models of its own.
fn other_strategies(s: &Scenario, all: &Watched) -> Result<u64> {
    s.step("jobs with SCAFFOLD, with a norm that follows, and with data in parts");
    let node = &all.nodes[0];
    let file = s.path("job.toml");
    let words = file.display().to_string();
    let submit = |text: &str| {
        fs::write(&file, text)?;
        node.cli(&["fed", "submit", &words, "--anyway"])?.success()
    };
    let parted = small("parted", EARLY.name, "");
    submit(&parted.replace("target = 5", "target = 10\nclients_per_node = 2"))?;
    submit(&small("variates", TEXT.name, SCAFFOLD))?;
    submit(&small("norms", PARQUET.name, &format!("{PRIVACY}quantile = 0.5\n")))?;
    let mut at_least = 0;
    for name in ["parted", "variates", "norms"] {
        at_least += sent(node, name, ROUNDS)?;
        until(node, name, "what counts", |job| job["counted"].as_u64() >= Some(1))?;
    }
    until(node, "parted", "that both parts are held", |job| {
        let held = |one: &Value| one["receipted"].as_u64() >= Some(1);
        job["clients"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(held))
    })?;

    s.step("a job none of whose rounds ends, as there are no six nodes: they mix");
    let alone = small("alone", TEXT.name, EPIDEMIC);
    submit(&alone.replace("min_clients = 3\ntarget = 5", "min_clients = 6\ntarget = 6"))?;
    for node in &all.nodes[..2] {
        let has_mixed = |job: &Value| job["personal"]["mixed"].as_u64() >= Some(8);
        let job = until(node, "alone", "models of all others", has_mixed)?;
        ensure!(job["round"] == 0 && job["personal"]["age"].as_u64() > Some(1), "{job}");
    }
    node.cli(&["fed", "cancel", "alone"])?.success()?;
    Ok(at_least)
}

/// Of the other jobs the watched node is the one that asks. Here it answers: that its data fit, and
/// that others do not, for a cell that its own log has.
fn another_one_asks(s: &Scenario, all: &Watched) -> Result<()> {
    s.step("another node asks whether this one's data fit");
    let file = s.path("asked.toml");
    let words = file.display().to_string();
    for (data, says) in [(TEXT.name, "fits"), (WRONG, "something in its data")] {
        fs::write(&file, job("asked", data, ""))?;
        let told = all.nodes[1].cli(&["fed", "check", &words])?.success()?;
        let own = line(&told, "n0")?;
        let fits = !own.contains("does not fit");
        ensure!(own.contains(says) && fits == (data == TEXT.name), "{told}");
    }
    Ok(())
}
