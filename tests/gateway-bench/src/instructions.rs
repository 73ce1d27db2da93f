//! Instructions of a request, counted by callgrind: the same on a busy machine as on an idle one.
//!
//! Owns the runner and the comparison with the stored counts. A program runs twice under
//! callgrind, for few requests and for many, one after the other on one connection; the difference
//! by the difference is what one request costs in user space, without start and end. The kernel's
//! part is not in it, and nothing here depends on time.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::peers::{self, Peer, Setup};
use crate::process::{self, Starter};
use crate::run::probe_on;
use crate::scenario::Scenario;

/// Requests of the short and of the long run: the difference is large against what a background
/// thread does meanwhile, and a run still takes seconds.
const FEW: u64 = 200;
const MANY: u64 = 1_200;
/// More than this share over the stored count is a regression: between two runs of one build the
/// counts differ by less than a hundredth.
const TOLERANCE: f64 = 0.03;
/// Under callgrind everything is fifty times slower, starting too.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is counted.
const SCENARIOS: [Scenario; 5] = [
    Scenario::Json1k,
    Scenario::Json16k,
    Scenario::SseBurst,
    Scenario::Translate,
    Scenario::Cached,
];

/// Instructions for each request, by gateway and scenario.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Baseline(BTreeMap<String, BTreeMap<String, u64>>);

/// Counts, compares and, when told to, stores.
///
/// # Errors
/// When valgrind is missing, a gateway does not answer, or a count has grown.
pub fn main(words: &[String]) -> Result<()> {
    let (mut bless, mut json, mut only) = (false, false, vec![Peer::Floor]);
    let (mut keep, mut scenarios) = (None, SCENARIOS.to_vec());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bless" => bless = true,
            "--json" => json = true,
            "--only" => only = named(words.next().map_or("", String::as_str))?,
            "--keep" => keep = words.next().map(PathBuf::from),
            "--scenario" => {
                let name = words.next().map_or("", String::as_str);
                scenarios.retain(|scenario| scenario.name() == name);
                ensure!(!scenarios.is_empty(), "no scenario `{name}`");
            }
            other => bail!(
                "unknown option `{other}`; there are --json, --bless, --only NAME,..., --scenario \
                 NAME, and --keep DIR for callgrind's own files"
            ),
        }
    }
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    ensure!(
        valgrind.is_ok_and(|status| status.success()),
        "valgrind is missing: apt-get install valgrind"
    );
    process::raise_limits()?;
    let counted = count(&only, &scenarios, keep.as_deref())?;
    let stored: Baseline = toml::from_str(&fs::read_to_string(baseline()).unwrap_or_default())?;
    let grown = compare(&stored, &counted);
    if json {
        let missed: Vec<&String> = grown.iter().collect();
        println!("{}", serde_json::json!({"instructions": counted, "missed": missed}));
    }
    if bless {
        let mut stored = stored;
        stored.0.extend(counted.0);
        let text = format!(
            "# Instructions of one request in user space, counted by `cargo xtask bench \
             instructions`,\n# which compares with these and stores new ones with `--bless`. They \
             belong to the pinned\n# compiler and Cargo.lock.\n\n{}",
            toml::to_string(&stored)?
        );
        return fs::write(baseline(), text).context("cannot store the counts");
    }
    ensure!(grown.is_empty(), "more instructions than stored: {}", grown.join(", "));
    Ok(())
}

fn named(list: &str) -> Result<Vec<Peer>> {
    let peer = |name: &str| Peer::ALL.into_iter().find(|peer| peer.name() == name);
    list.split(',').map(|name| peer(name).with_context(|| format!("no gateway `{name}`"))).collect()
}

/// Where the stored counts are.
fn baseline() -> PathBuf {
    peers::repository().join("tests/gateway-bench/instructions.toml")
}

fn count(peers: &[Peer], scenarios: &[Scenario], keep: Option<&Path>) -> Result<Baseline> {
    let starter = Starter { first: false };
    let (mock, _mock) = starter.part(process::LOAD_CORE, &["mock"])?;
    let upstream: SocketAddr = mock.parse().context("the mock's address")?;
    let dir = std::env::temp_dir().join(format!("selvedge-instructions-{}", std::process::id()));
    let mut counted = Baseline::default();
    for peer in peers {
        let program = peer.program().map_err(|absent| {
            anyhow::anyhow!("{}: {} ({:?})", peer.name(), absent.reason, absent.command)
        })?;
        let counts = counted.0.entry(peer.name().to_owned()).or_default();
        for scenario in scenarios.iter().copied().filter(|scenario| peer.serves(*scenario)) {
            let total = |requests: u64| {
                let dir = dir.join(format!("{}-{scenario}-{requests}", peer.name()));
                fs::create_dir_all(&dir)?;
                let listen = peers::free_address()?;
                let setup = Setup { starter: starter.clone(), upstream, dir, listen };
                peer.prepare(&setup)?;
                let total = run(*peer, &program, &setup, scenario, requests)?;
                if let Some(keep) = keep {
                    fs::create_dir_all(keep)?;
                    let name = format!("{}-{scenario}-{requests}.callgrind", peer.name());
                    fs::copy(setup.dir.join("callgrind.out"), keep.join(name))?;
                }
                anyhow::Ok(total)
            };
            let each = (total(MANY)?.saturating_sub(total(FEW)?)) / (MANY - FEW);
            counts.insert(scenario.name().to_owned(), each);
        }
    }
    fs::remove_dir_all(&dir)?;
    Ok(counted)
}

/// All instructions of a gateway that answers so many requests.
fn run(
    peer: Peer,
    program: &Path,
    setup: &Setup,
    scenario: Scenario,
    requests: u64,
) -> Result<u64> {
    // A script in place of the program: callgrind runs it with the arguments the peer is given.
    let out = setup.dir.join("callgrind.out");
    let script = setup.dir.join("counted");
    let line = format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --callgrind-out-file='{}' '{}' \"$@\"\n",
        out.display(),
        program.display()
    );
    fs::write(&script, line)?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let gateway = peer.start(&script, setup, scenario)?;
    let mut template = gateway.template(scenario);
    let expected = gateway.expected(scenario);
    let connect = || TcpStream::connect(gateway.addr).ok();
    let mut stream = crate::clock::poll(PATIENCE, Duration::from_millis(20), connect)
        .with_context(|| format!("{} does not listen: {}", peer.name(), gateway.process.said()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    for number in 0..requests {
        template.number(number);
        let (status, body) = probe_on(&mut stream, &template)?;
        expected.check(status, &body)?;
    }
    // The counts are written at its end.
    gateway.process.end_within(PATIENCE);
    total(&out)
}

/// The sum in a file of callgrind's.
fn total(path: &Path) -> Result<u64> {
    let mut text = String::new();
    fs::File::open(path).context("callgrind left no counts")?.read_to_string(&mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
    line.and_then(|line| line.trim().parse().ok()).context("callgrind's counts have no total")
}

/// Prints both counts side by side; the names of those that have grown too much.
fn compare(stored: &Baseline, counted: &Baseline) -> Vec<String> {
    let mut grown = Vec::new();
    for (peer, counts) in &counted.0 {
        for (scenario, count) in counts {
            let before = stored.0.get(peer).and_then(|counts| counts.get(scenario));
            let verdict = match before {
                None => "not stored yet".to_owned(),
                Some(before) => {
                    let change = *count as f64 / (*before).max(1) as f64 - 1.0;
                    if change > TOLERANCE {
                        grown.push(format!("{peer}_{scenario}"));
                    }
                    format!("stored {before}, {:+.1} %", change * 100.0)
                }
            };
            let _ = writeln!(std::io::stdout(), "{peer:<10} {scenario:<10} {count:>9}   {verdict}");
        }
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_the_tolerance_is_named() {
        let counts = |count| {
            let counts = BTreeMap::from([("json_1k".to_owned(), count)]);
            Baseline(BTreeMap::from([("floor".to_owned(), counts)]))
        };
        assert!(compare(&counts(10_000), &counts(10_200)).is_empty());
        assert!(compare(&counts(10_000), &counts(9_000)).is_empty());
        assert_eq!(compare(&counts(10_000), &counts(10_400)), ["floor_json_1k"]);
        assert!(compare(&Baseline::default(), &counts(1)).is_empty());
    }

    #[test]
    fn the_stored_counts_can_be_read() {
        let text = fs::read_to_string(baseline()).unwrap();
        let stored: Baseline = toml::from_str(&text).unwrap();
        for peer in ["floor", "selvedge"] {
            assert_eq!(stored.0[peer].len(), SCENARIOS.len(), "{peer}");
        }
    }
}
