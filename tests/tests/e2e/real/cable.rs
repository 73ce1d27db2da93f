//! What leaves a node that learns: every byte on its cable is opened and looked at.
//!
//! The packets are caught in the node's network namespace and opened with the secrets that a debug
//! build writes down. Not a byte may be left that nobody can read, and in none of them is anything
//! of the node's examples.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use selvedge_tests::output::Source;
use selvedge_tests::{
    Bridge, Deadline, Host, Node, NodeSpec, Process, Scenario, places, process, scenario,
};
use serde_json::Value;

/// Names that nothing else has: what is found is of the data.
const VALUES: [&str; 2] = ["heat-qzv31", "humidity-qzv32"];
const CLASSES: [&str; 2] = ["ok-qzv33", "worn-qzv34"];
/// What values are divided by before anything is trained on them.
const SCALE: f64 = 100.0;
const EXAMPLES: u64 = 120;
/// Rounds of each job.
const ROUNDS: u64 = 4;
/// Opening some thousand packets, on a machine that is busy with other tests.
const READ_SECS: u64 = 120;

/// One value of an example: six decimals, so that its digits are in nothing else.
fn value(node: u64, at: u64, column: u64) -> String {
    let millionths = (at * 37_199_813 + node * 11_317_171 + column * 29_640_307) % 100_000_000;
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

fn row(node: u64, at: u64) -> [String; 2] {
    [value(node, at, 1), value(node, at, 2)]
}

fn with_data(mut spec: NodeSpec, node: u64) -> Result<NodeSpec> {
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
    spec.environment.push(("SSLKEYLOGFILE".to_owned(), keys(&spec.home)));
    Ok(spec)
}

fn keys(home: &Path) -> String {
    home.join("keys.log").display().to_string()
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
fn of_examples(node: u64) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for word in VALUES.iter().chain(&CLASSES).chain(&["states-qzv35", "state-qzv36"]) {
        all.insert((*word).to_owned(), word.as_bytes().to_vec());
    }
    for at in 0..EXAMPLES {
        let texts = row(node, at);
        let parsed: Vec<f64> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        for (column, (text, value)) in texts.iter().zip(&parsed).enumerate() {
            all.insert(format!("{at}.{column} text"), text.as_bytes().to_vec());
            for (how, value) in [("", *value), (" scaled", value / SCALE)] {
                all.insert(format!("{at}.{column} f64{how}"), value.to_le_bytes().to_vec());
                all.insert(format!("{at}.{column} f64 be{how}"), value.to_be_bytes().to_vec());
            }
        }
        for (how, scale) in [("", 1.0), (" scaled", SCALE)] {
            // As a model's weights are told, in units of 2^-20, each seven bits a byte. A single
            // one has a few bytes, which chance finds somewhere.
            let units = parsed.iter().map(|value| (value / scale * f64::from(1 << 20)).round());
            all.insert(format!("{at} units{how}"), units.flat_map(varint).collect());
            #[allow(clippy::cast_possible_truncation, reason = "what the trainer computes with")]
            let pair = parsed.iter().map(|value| (value / scale) as f32);
            all.insert(format!("{at} f32{how}"), pair.flat_map(f32::to_le_bytes).collect());
        }
    }
    Ok(all)
}

/// A whole number as it is written: its sign in the lowest bit, seven bits a byte.
fn varint(value: f64) -> Vec<u8> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 2^27")]
    let mut left = (value as u64) << 1;
    let mut bytes = Vec::new();
    while left > 0x7f {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push((left & 0x7f) as u8);
    bytes
}

/// Catches what passes a host's interface.
fn catch(host: &Host, file: &Path) -> Result<Process> {
    let words = [&cable(), "record", "eth0", &file.display().to_string()].map(str::to_owned);
    let python = places::python()?;
    let catching = Process::start("cable", &python, &words, Some(host.namespace()), &[])?;
    catching.output().wait(&mut 0, Deadline::patient(), "its first line", |line| {
        (line.source == Source::Out && line.text == "recording").then_some(())
    })?;
    Ok(catching)
}

fn cable() -> String {
    places::repository().join("tests/python/cable.py").display().to_string()
}

fn end(catching: &Process) -> Result<()> {
    catching.signal(Signal::TERM)?;
    catching.wait(Deadline::patient())?;
    catching.output().closed(Deadline::patient())?;
    let text = catching.output().text(Source::Out);
    let told: Value = serde_json::from_str(text.lines().last().context("nothing told")?)?;
    ensure!(told["dropped"] == 0 && told["packets"].as_u64() > Some(100), "{told}");
    Ok(())
}

/// Which of these bytes the node sent, when everything that it sent is opened.
fn seen(
    s: &Scenario,
    caught: &Path,
    keys: &str,
    wanted: &BTreeMap<String, Vec<u8>>,
) -> Result<Value> {
    let hex =
        |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let list: BTreeMap<&String, String> =
        wanted.iter().map(|(name, bytes)| (name, hex(bytes))).collect();
    let file = s.path("wanted.json");
    fs::write(&file, serde_json::to_string(&list)?)?;
    let caught = caught.display().to_string();
    let words = [&cable(), "read", &caught, keys, &file.display().to_string()].map(str::to_owned);
    let ran = process::run(&places::python()?, &words, None, &[], Deadline::secs(READ_SECS))?;
    let told = ran.success().context("cable.py read")?;
    Ok(serde_json::from_str(&told)?)
}

/// The bytes of updates and parts of sums that a node sent for a job, once that is over.
fn sent(node: &Node, name: &str) -> Result<u64> {
    Deadline::patient().until(&format!("the end of {name}"), || {
        let told = node.cli(&["fed", "status", "--json"])?.success()?;
        let jobs: Vec<Value> = serde_json::from_str(&told).with_context(|| told.clone())?;
        let over = |job: &Value| job["name"] == name && job["round"].as_u64() == Some(ROUNDS);
        Ok(jobs.iter().find(|job| over(job)).and_then(|job| job["sent_bytes"].as_u64()))
    })
}

#[test]
fn nothing_of_a_nodes_examples_is_in_any_byte_that_leaves_it() {
    scenario(|s| {
        let mut bridge = Bridge::new("cable")?;
        let hosts: Vec<Host> = (0..5).map(|_| bridge.host()).collect::<Result<_>>()?;
        let mut specs = Vec::new();
        for (node, host) in (0..).zip(&hosts) {
            specs.push(with_data(host.node(s, &format!("n{node}")), node)?);
        }
        s.step("everything is caught from before the first node starts");
        let caught = s.path("cable");
        let catching = catch(&hosts[0], &caught)?;
        let nodes = s.mesh(&specs)?;

        s.step("a job in shares, then one whose updates every anchor sees");
        let file = s.path("job.toml");
        let open = "[mode]\nkind = \"plain\"\nrule = \"mean\"";
        let mut at_least = 0;
        for (name, mode) in [("closed", ""), ("open", open)] {
            fs::write(&file, job(name, mode))?;
            nodes[0].cli(&["fed", "submit", &file.display().to_string()])?.success()?;
            at_least += sent(&nodes[0], name)?;
        }
        end(&catching)?;

        s.step("all of it can be read, and nothing of the examples is in it");
        let mut wanted = of_examples(0)?;
        let names = ["line3", "closed", "open"];
        wanted.extend(names.map(|name| (name.to_owned(), name.as_bytes().to_vec())));
        let told = seen(s, &caught, &keys(&specs[0].home), &wanted)?;
        s.say(&told.to_string());
        ensure!(told["unread"] == 0 && told["gaps"] == 0, "{told}");
        // The node counts four bytes for each level of an update; a small one takes two or less.
        let at_least = at_least / 2;
        ensure!(
            at_least > 0 && told["stream_bytes"].as_u64() > Some(at_least),
            "{told}, {at_least}"
        );
        let found = told["seen"].as_array().context("seen")?;
        // That is what it must say to the others; so the search does find.
        ensure!(names.iter().all(|name| found.contains(&Value::from(*name))), "{told}");
        ensure!(found.len() == names.len(), "{told}");
        Ok(())
    });
}
