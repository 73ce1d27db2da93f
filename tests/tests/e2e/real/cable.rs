//! What leaves a node that learns: every byte on its cable is opened and looked at.
//!
//! Not a byte may be left that nobody can read, and in none of them is anything of the node's
//! examples. Here they are rows of a table; other kinds of data are in `kinds`.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use selvedge_tests::{NodeSpec, scenario};

use super::overheard::{Forms, MODES, sent, watched};

/// Names that nothing else has: what is found is of the data.
const VALUES: [&str; 2] = ["heat-qzv31", "humidity-qzv32"];
const CLASSES: [&str; 2] = ["ok-qzv33", "worn-qzv34"];
/// What values are divided by before anything is trained on them.
const SCALE: f64 = 100.0;
const EXAMPLES: u64 = 120;
/// Rounds of each job.
const ROUNDS: u64 = 4;

/// One value of an example: six decimals, so that its digits are in nothing else.
fn value(node: u64, at: u64, column: u64) -> String {
    let millionths = (at * 37_199_813 + node * 11_317_171 + column * 29_640_307) % 100_000_000;
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

fn row(node: u64, at: u64) -> [String; 2] {
    [value(node, at, 1), value(node, at, 2)]
}

fn with_data(spec: NodeSpec, node: u64) -> Result<NodeSpec> {
    fs::create_dir_all(&spec.home)?;
    let path = spec.home.join("states-qzv35.csv");
    let mut text = format!("{},{},state-qzv36\n", VALUES[0], VALUES[1]);
    for at in 0..EXAMPLES {
        let [heat, humidity] = row(node, at);
        let worn = heat.parse::<f64>()? > humidity.parse::<f64>()?;
        writeln!(text, "{heat},{humidity},{}", CLASSES[usize::from(worn)])?;
    }
    fs::write(&path, text)?;
    let config = format!(
        "[[data]]\nname = \"line3\"\nkind = \"csv\"\npath = \"{}\"\nlabel = \"state-qzv36\"\n\
         values = {VALUES:?}\nclasses = {CLASSES:?}\nscale = {SCALE:?}\n",
        path.display()
    );
    fs::write(spec.home.join("config.toml"), config)?;
    Ok(spec)
}

fn job(name: &str, mode: &str) -> String {
    format!(
        "name = \"{name}\"\ndata = \"line3\"\nrounds = {ROUNDS}\nmin_clients = 3\ntarget = 5\n\
         [model]\nshape = {{ flat = 2 }}\nclasses = 2\nhidden = [{{ dense = 512 }}]\n\
         [training]\nepochs = 2\nbatch = 1\nlearning_rate = 0.2\n{mode}\n\
         [pace]\ntick_ms = 50\nstagger_ms = 100\ngather_ms = 150\npatience_ms = 1500\n"
    )
}

/// What would be an example, in any of the ways in which numbers are written.
fn of_examples(node: u64) -> Result<Forms> {
    let mut all = Forms::default();
    for word in VALUES.iter().chain(&CLASSES).chain(&["states-qzv35", "state-qzv36"]) {
        all.text(word);
    }
    for at in 0..EXAMPLES {
        let texts = row(node, at);
        let parsed: Vec<f64> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        all.bytes(&format!("{at} row"), texts.join(",").as_bytes());
        for (how, scale) in [("", 1.0), (" scaled", SCALE)] {
            let exact: Vec<f64> = parsed.iter().map(|value| value / scale).collect();
            #[allow(clippy::cast_possible_truncation, reason = "what the trainer computes with")]
            let single: Vec<f32> = exact.iter().map(|value| *value as f32).collect();
            all.run(&format!("{at}{how}"), &exact, &single);
            for (column, value) in exact.iter().enumerate() {
                all.number(&format!("{at}.{column}{how}"), *value);
            }
        }
        texts.iter().for_each(|text| all.text(text));
    }
    Ok(all)
}

#[test]
fn nothing_of_a_nodes_examples_is_in_any_byte_that_leaves_it() {
    scenario(|s| {
        let all = watched(s, "cable", with_data)?;
        s.step("a job in shares, then one whose updates every anchor sees");
        let file = s.path("job.toml");
        let mut at_least = 0;
        for (name, mode) in MODES {
            fs::write(&file, job(name, mode))?;
            all.nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;
            at_least += sent(&all.nodes[0], name, ROUNDS)?;
        }
        all.holds(s, of_examples(0)?, &["line3", "closed", "open"], at_least)
    });
}
