//! A node's cable: all that the node sends is caught, opened and searched.
//!
//! The packets are caught in the node's network namespace and opened with the secrets that a debug
//! build writes down. Owns that, and the forms in which something could leave; what it is that must
//! not is the tests'.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use selvedge_tests::output::Source;
use selvedge_tests::{Bridge, Deadline, Host, Node, NodeSpec, Process, Scenario, places, process};
use serde_json::Value;

/// Opening some thousand packets, on a machine that is busy with other tests.
const READ_SECS: u64 = 120;
/// What writes bytes down as text in other programs.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Five machines, each with a node that has data of its own. The first one's cable is watched.
pub(super) struct Watched {
    /// The first node is the one.
    pub(super) nodes: Vec<Node>,
    catching: Process,
    caught: PathBuf,
    keys: String,
    // The last to go.
    _hosts: (Vec<Host>, Bridge),
}

/// Everything is caught from before the first node starts.
pub(super) fn watched(
    s: &Scenario,
    label: &str,
    with_data: impl Fn(NodeSpec, u64) -> Result<NodeSpec>,
) -> Result<Watched> {
    let mut bridge = Bridge::new(label)?;
    let hosts: Vec<Host> = (0..5).map(|_| bridge.host()).collect::<Result<_>>()?;
    let (mut specs, mut keys) = (Vec::new(), String::new());
    for (node, host) in (0..).zip(&hosts) {
        let mut spec = with_data(host.node(s, &format!("n{node}")), node)?;
        if node == 0 {
            keys = spec.home.join("keys.log").display().to_string();
            spec.environment.push(("SSLKEYLOGFILE".to_owned(), keys.clone()));
        }
        specs.push(spec);
    }
    s.step("everything is caught from before the first node starts");
    let caught = s.path("cable");
    let words = [&cable(), "record", "eth0", &caught.display().to_string()].map(str::to_owned);
    let namespace = hosts.first().map(Host::namespace);
    let catching = Process::start("cable", &places::python()?, &words, namespace, &[])?;
    catching.output().wait(&mut 0, Deadline::patient(), "its first line", |line| {
        (line.source == Source::Out && line.text == "recording").then_some(())
    })?;
    let nodes = s.mesh(&specs)?;
    Ok(Watched { nodes, catching, caught, keys, _hosts: (hosts, bridge) })
}

fn cable() -> String {
    places::repository().join("tests/python/cable.py").display().to_string()
}

impl Watched {
    /// All that left can be read, more than `at_least` bytes of it in streams; of what is searched
    /// `said` is found, which the nodes must say to each other, and nothing else.
    pub(super) fn holds(
        &self,
        s: &Scenario,
        mut forms: Forms,
        said: &[&str],
        at_least: u64,
    ) -> Result<()> {
        self.catching.signal(Signal::TERM)?;
        self.catching.wait(Deadline::patient())?;
        self.catching.output().closed(Deadline::patient())?;
        let text = self.catching.output().text(Source::Out);
        let told: Value = serde_json::from_str(text.lines().last().context("nothing told")?)?;
        ensure!(told["dropped"] == 0 && told["packets"].as_u64() > Some(100), "{told}");

        s.step("all of it can be read, and nothing of the examples is in it");
        let searched = forms.0.len();
        forms.0.extend(said.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())));
        ensure!(forms.0.len() == searched + said.len(), "a name is among what must not leave");
        let told = self.search(s, &forms)?;
        s.say(&format!("{searched} forms: {told}"));
        ensure!(told["unread"] == 0 && told["gaps"] == 0, "{told}");
        ensure!(
            at_least > 0 && told["stream_bytes"].as_u64() > Some(at_least),
            "{told}, {at_least}"
        );
        let found = told["seen"].as_array().context("seen")?;
        // So the search does find.
        ensure!(said.iter().all(|name| found.contains(&Value::from(*name))), "{told}");
        ensure!(found.len() == said.len(), "{told}");
        Ok(())
    }

    fn search(&self, s: &Scenario, forms: &Forms) -> Result<Value> {
        let list: BTreeMap<&String, String> =
            forms.0.iter().map(|(name, bytes)| (name, hex(bytes))).collect();
        let file = s.path("wanted.json");
        fs::write(&file, serde_json::to_string(&list)?)?;
        let caught = self.caught.display().to_string();
        let wanted = file.display().to_string();
        let words = [&cable(), "read", &caught, &self.keys, &wanted].map(str::to_owned);
        let ran = process::run(&places::python()?, &words, None, &[], Deadline::secs(READ_SECS))?;
        Ok(serde_json::from_str(&ran.success().context("cable.py read")?)?)
    }
}

/// A job as a node shows it, once this is true of it.
pub(super) fn until(
    node: &Node,
    name: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Result<Value> {
    Deadline::patient().until(&format!("{what} of {name} at {}", node.name()), || {
        let told = node.cli(&["fed", "status", "--json"])?.success()?;
        let jobs: Vec<Value> = serde_json::from_str(&told).with_context(|| told.clone())?;
        Ok(jobs.into_iter().find(|job| job["name"] == name && is_so(job)))
    })
}

/// Fewer bytes than a node's updates and parts of sums took on the cable, once a job is over. The
/// node counts of shares what they take; of open updates it counts four bytes for each level and
/// five for each value of a sum, of which small ones take three or one.
pub(super) fn sent(node: &Node, name: &str, rounds: u64) -> Result<u64> {
    let job = until(node, name, "the end", |job| job["round"].as_u64() == Some(rounds))?;
    Ok(job["sent_bytes"].as_u64().context("bytes")? / 2)
}

/// The job file's words for a job in shares, and for one whose updates every anchor sees.
pub(super) const MODES: [(&str, &str); 2] =
    [("closed", ""), ("open", "[mode]\nkind = \"plain\"\nrule = \"mean\"\n")];

/// What is searched: names, and for each the bytes.
#[derive(Default)]
pub(super) struct Forms(BTreeMap<String, Vec<u8>>);

impl Forms {
    fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.0.insert(name, bytes);
    }

    /// Bytes as they are, in hexadecimal, and as base64 writes them, wherever in it they begin.
    pub(super) fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.add(format!("{name} bytes"), bytes.to_vec());
        self.add(format!("{name} hex"), hex(bytes).into_bytes());
        for from in 0..3 {
            let own = bytes.get(from..).unwrap_or_default();
            let whole = own.get(..own.len() / 3 * 3).unwrap_or_default();
            if !whole.is_empty() {
                self.add(format!("{name} base64 {from}"), base64(whole));
            }
        }
    }

    /// A text as it is written, and nothing else: a short one.
    pub(super) fn text(&mut self, text: &str) {
        self.add(format!("{text} text"), text.as_bytes().to_vec());
    }

    /// One number that is in nothing else: a short one would be found somewhere.
    pub(super) fn number(&mut self, name: &str, value: f64) {
        self.add(format!("{name} f64"), value.to_le_bytes().to_vec());
        self.add(format!("{name} f64 be"), value.to_be_bytes().to_vec());
    }

    /// Numbers beside each other, as programs hold them, as models' weights are told (whole units
    /// of 2^-20, seven bits a byte), and as people and JSON write them. `exact` is what they were
    /// before they became what a trainer computes with.
    pub(super) fn run(&mut self, name: &str, exact: &[f64], single: &[f32]) {
        self.add(format!("{name} f32"), single.iter().flat_map(|one| one.to_le_bytes()).collect());
        self.add(
            format!("{name} f32 be"),
            single.iter().flat_map(|one| one.to_be_bytes()).collect(),
        );
        let wide: Vec<f64> = single.iter().copied().map(f64::from).collect();
        for (how, values) in [("", exact), (" of f32", wide.as_slice())] {
            let bytes = |to: fn(f64) -> [u8; 8]| values.iter().copied().flat_map(to).collect();
            self.add(format!("{name} f64{how}"), bytes(f64::to_le_bytes));
            self.add(format!("{name} f64 be{how}"), bytes(f64::to_be_bytes));
            let units = values.iter().map(|value| (value * f64::from(1 << 20)).round());
            self.add(format!("{name} units{how}"), units.flat_map(varint).collect());
        }
        for between in [",", ", ", " ", "\n"] {
            let written: Vec<String> = exact.iter().map(f64::to_string).collect();
            self.add(format!("{name} by {between:?}"), written.join(between).into_bytes());
            let written: Vec<String> = single.iter().map(f32::to_string).collect();
            self.add(format!("{name} f32 by {between:?}"), written.join(between).into_bytes());
        }
    }

    /// Whole numbers beside each other, in the widths that programs have for them.
    pub(super) fn whole(&mut self, name: &str, values: &[u8]) {
        let all = || values.iter().copied();
        self.add(
            format!("{name} u16"),
            all().flat_map(|one| u16::from(one).to_le_bytes()).collect(),
        );
        self.add(
            format!("{name} u32"),
            all().flat_map(|one| u32::from(one).to_le_bytes()).collect(),
        );
        self.add(
            format!("{name} u32 be"),
            all().flat_map(|one| u32::from(one).to_be_bytes()).collect(),
        );
        self.add(
            format!("{name} u64"),
            all().flat_map(|one| u64::from(one).to_le_bytes()).collect(),
        );
        self.add(
            format!("{name} f32"),
            all().flat_map(|one| f32::from(one).to_le_bytes()).collect(),
        );
        self.add(format!("{name} zigzag"), all().flat_map(|one| varint(one.into())).collect());
        let written: Vec<String> = all().map(|one| one.to_string()).collect();
        for between in [",", ", ", " "] {
            self.add(format!("{name} by {between:?}"), written.join(between).into_bytes());
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Base64 of bytes that come by threes.
fn base64(bytes: &[u8]) -> Vec<u8> {
    let letters = |three: &[u8]| {
        let all = three.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|shift| LETTERS[(all >> shift) as usize & 63])
    };
    bytes.chunks(3).flat_map(letters).collect()
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

#[test]
fn what_is_searched_is_written_as_others_write_it() {
    assert_eq!(base64(b"Man"), b"TWFu");
    assert_eq!(base64(&[0xff, 0xfe, 0xfd]), b"//79");
    assert_eq!(varint(0.0), [0]);
    assert_eq!(varint(64.0), [0x80, 0x01]);
    let mut forms = Forms::default();
    forms.bytes("a", b"abcdefg");
    // Whatever stands before it, some of its letters are in the whole's.
    for before in 0..3 {
        let mut whole = [vec![b'-'; before], b"abcdefg".to_vec(), vec![b'-'; 9]].concat();
        whole.truncate(whole.len() / 3 * 3);
        let whole = base64(&whole);
        let found = forms.0.iter().filter(|(name, _)| name.contains("base64"));
        let found = found.filter(|(_, own)| whole.windows(own.len()).any(|part| part == *own));
        assert_eq!(found.count(), 1, "{before}");
    }
}
