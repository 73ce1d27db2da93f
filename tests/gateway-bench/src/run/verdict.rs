//! Which targets hold.
//!
//! Owns the targets and the JSON line. They are about Selvedge; a run without it holds none of
//! them and says so, and so does a run whose floor is too slow to compare with.

use std::fmt;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::measure::STREAMS;
use super::{Findings, Options};
use crate::peers::Peer;
use crate::scenario::Scenario;

/// CPU time of a request as a multiple of the floor's.
const CPU_TO_FLOOR: f64 = 1.3;
/// Throughput as a multiple of every gateway that knows models: documents, streams.
const JSON_TO_AI: f64 = 3.0;
const SSE_TO_AI: f64 = 2.4;
/// Throughput of cached answers as a multiple of nginx's `proxy_cache`.
const CACHED_TO_NGINX: f64 = 1.0;
/// Microseconds a gateway may add at half of saturation: median, 99th percentile.
const ADDED_P50_US: f64 = 150.0;
const ADDED_P99_US: f64 = 300.0;
/// Memory without a model, and how much of it may be more after load.
const IDLE_MIB: f64 = 25.0;
const AFTER_TO_IDLE: f64 = 1.1;
/// Memory at the end of ten minutes of load as a multiple of that in their second one: samples of a
/// flat one lie so far apart.
const FLAT: f64 = 1.05;
/// From the start of the process to its first answer.
const START_MS: f64 = 100.0;
/// Below this share of nginx's throughput the floor is no floor and the run is void.
const FLOOR_TO_NGINX: f64 = 0.65;
/// Below this share of its core a gateway was not what limited the run.
const LIMITING: f64 = 0.85;
/// What the kernel leaves of a core to processes with real-time priority.
const CORE_US: f64 = 950_000.0;
/// Reads that must bring the 35 events of a paced stream: now and then two arrive together.
const PIECES: f64 = 34.0;

/// What is to be said at the end.
#[derive(Debug)]
pub(super) struct Verdict {
    scenarios: Vec<Scenario>,
    /// Selvedge was measured in some scenario.
    present: bool,
    checks: Vec<Check>,
    void: Option<String>,
    /// Targets that nothing was measured for, though it was asked for.
    unmeasured: Vec<String>,
}

#[derive(Debug)]
struct Check {
    name: String,
    value: f64,
    bound: Bound,
}

/// What a value must keep to.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Most(f64),
    Least(f64),
}

impl Check {
    fn holds(&self) -> bool {
        match self.bound {
            Bound::Most(most) => self.value <= most,
            Bound::Least(least) => self.value >= least,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Most(bound) => write!(f, "<= {bound}"),
            Self::Least(bound) => write!(f, ">= {bound}"),
        }
    }
}

impl Verdict {
    /// Judges a run.
    pub(super) fn of(findings: &Findings, options: &Options) -> Self {
        let ours = Peer::Selvedge.name();
        let mut verdict = Self {
            scenarios: options.scenarios.clone(),
            present: findings.figures.keys().any(|(name, _)| *name == ours),
            checks: Vec::new(),
            void: void(findings),
            unmeasured: Vec::new(),
        };
        verdict.work(findings);
        verdict.latency(findings);
        verdict.streams_and_memory(findings);
        verdict
    }

    /// CPU time and throughput, against those of others.
    fn work(&mut self, findings: &Findings) {
        for scenario in [Scenario::Json1k, Scenario::SseBurst, Scenario::Cached] {
            let ratio = ratio(findings, scenario, "cpu_us", Peer::Floor);
            self.check(scenario, "cpu_to_floor", ratio, Bound::Most(CPU_TO_FLOOR));
        }
        let mut others: Vec<(Peer, Scenario, f64)> =
            vec![(Peer::Nginx, Scenario::Cached, CACHED_TO_NGINX)];
        for peer in Peer::ALL.into_iter().filter(|peer| peer.is_ai_gateway()) {
            others.push((peer, Scenario::Json1k, JSON_TO_AI));
            others.push((peer, Scenario::SseBurst, SSE_TO_AI));
        }
        for (peer, scenario, times) in others {
            // An absent peer is no target missed: it is listed as absent.
            if let Some(theirs) = capacity(findings, peer, scenario) {
                let ours = capacity(findings, Peer::Selvedge, scenario);
                let name = format!("throughput_to_{}", peer.name());
                self.check(scenario, &name, ours.map(|ours| ours / theirs), Bound::Least(times));
            }
        }
    }

    /// What is added at half of saturation.
    fn latency(&mut self, findings: &Findings) {
        let without = [Scenario::Streams, Scenario::Soak];
        for scenario in Scenario::ALL.into_iter().filter(|one| !without.contains(one)) {
            for (quantile, bound) in [("p50", ADDED_P50_US), ("p99", ADDED_P99_US)] {
                let name = format!("half_added_{quantile}_us");
                let value = figure(findings, Peer::Selvedge, scenario, &name);
                self.check(scenario, &name, value, Bound::Most(bound));
            }
        }
    }

    fn streams_and_memory(&mut self, findings: &Findings) {
        let own = |scenario: Scenario, name: &str| figure(findings, Peer::Selvedge, scenario, name);
        let (paced, streams, json) = (Scenario::SsePaced, Scenario::Streams, Scenario::Json1k);
        self.check(paced, "pieces", own(paced, "pieces"), Bound::Least(PIECES));
        for name in ["whole", "at_once"] {
            self.check(streams, name, own(streams, name), Bound::Least(STREAMS as f64));
        }
        for scenario in [streams, Scenario::Soak] {
            let after = own(scenario, "after_mib").zip(own(scenario, "idle_mib"));
            let after = after.map(|(after, idle)| after / idle);
            self.check(scenario, "after_to_idle", after, Bound::Most(AFTER_TO_IDLE));
        }
        let growth = own(Scenario::Soak, "growth");
        self.check(Scenario::Soak, "growth", growth, Bound::Most(FLAT));
        self.check(json, "idle_mib", own(json, "idle_mib"), Bound::Most(IDLE_MIB));
        self.check(json, "start_ms", own(json, "start_ms"), Bound::Most(START_MS));
    }

    fn check(&mut self, scenario: Scenario, name: &str, value: Option<f64>, bound: Bound) {
        if !self.scenarios.contains(&scenario) {
            return;
        }
        let name = format!("target_{scenario}_{name}");
        match value {
            Some(value) => self.checks.push(Check { name, value, bound }),
            None => self.unmeasured.push(name),
        }
    }

    /// Prints it, and the JSON line if asked for.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub(super) fn end(self, findings: &Findings, json: bool) -> Result<()> {
        println!("\ntargets");
        for check in &self.checks {
            let Check { name, value, bound } = check;
            let verdict = if check.holds() { "held" } else { "MISSED" };
            println!("{name:<44} {value:>10.2}   target {bound:<10} {verdict}");
        }
        if let Some(reason) = &self.void {
            println!("THE RUN IS VOID: {reason}");
        }
        if !self.present {
            println!("selvedge was not measured: no target holds");
        }
        let missed = self.missed();
        match missed.as_slice() {
            [] => println!("all targets held"),
            names => println!("missed: {}", names.join(", ")),
        }
        if json {
            println!("{}", serde_json::to_string(&self.document(findings, &missed))?);
        }
        Ok(())
    }

    /// Targets that do not hold; one that was asked for and not measured does not.
    fn missed(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| !check.holds());
        let mut missed: Vec<String> = failed.map(|check| check.name.clone()).collect();
        missed.extend(self.void.iter().map(|_| "run_void".to_owned()));
        if self.present {
            missed.extend(self.unmeasured.iter().cloned());
        } else {
            missed.push("selvedge_not_measured".to_owned());
        }
        missed
    }

    fn document(&self, findings: &Findings, missed: &[String]) -> Value {
        // Two decimals: the rest is noise.
        let round = |value: f64| json!((value * 100.0).round() / 100.0);
        let mut object = Map::new();
        for ((peer, scenario), figures) in &findings.figures {
            for (name, value) in figures {
                object.insert(format!("{peer}_{scenario}_{name}"), round(*value));
            }
        }
        for check in &self.checks {
            object.insert(check.name.clone(), round(check.value));
        }
        for scenario in Scenario::ALL {
            for other in [Peer::Floor, Peer::Nginx] {
                // The aim: ahead of nginx in every column.
                let name = format!("{scenario}_cpu_to_{}", other.name());
                if let Some(ratio) = ratio(findings, scenario, "cpu_us", other) {
                    object.insert(name, round(ratio));
                }
            }
        }
        let absent: Map<String, Value> = findings
            .absent
            .iter()
            .map(|(name, absent)| {
                let said = json!({"reason": absent.reason, "command": absent.command});
                ((*name).to_owned(), said)
            })
            .collect();
        object.insert("absent".to_owned(), Value::Object(absent));
        let refused: Map<String, Value> = findings
            .refused
            .iter()
            .map(|((peer, scenario), said)| (format!("{peer}_{scenario}"), json!(said)))
            .collect();
        object.insert("refused".to_owned(), Value::Object(refused));
        object.insert("unmeasured".to_owned(), json!(self.unmeasured));
        object.insert("void".to_owned(), json!(self.void));
        object.insert("missed".to_owned(), json!(missed));
        Value::Object(object)
    }
}

fn figure(findings: &Findings, peer: Peer, scenario: Scenario, name: &str) -> Option<f64> {
    findings.figures.get(&(peer.name(), scenario.name()))?.get(name).copied()
}

/// Selvedge's figure as a multiple of another's.
fn ratio(findings: &Findings, scenario: Scenario, name: &str, other: Peer) -> Option<f64> {
    let ours = figure(findings, Peer::Selvedge, scenario, name)?;
    Some(ours / figure(findings, other, scenario, name)?)
}

/// Requests a second on one core: as measured where the gateway was the limit, else what its CPU
/// time allows.
fn capacity(findings: &Findings, peer: Peer, scenario: Scenario) -> Option<f64> {
    let core = figure(findings, peer, scenario, "core")?;
    if core >= LIMITING {
        return figure(findings, peer, scenario, "per_s");
    }
    Some(CORE_US / figure(findings, peer, scenario, "cpu_us")?)
}

/// Why the run proves nothing.
fn void(findings: &Findings) -> Option<String> {
    let floor = capacity(findings, Peer::Floor, Scenario::Json1k);
    let nginx = capacity(findings, Peer::Nginx, Scenario::Json1k);
    let (Some(floor), Some(nginx)) = (floor, nginx) else {
        return Some("the floor and nginx were not both measured in json_1k".to_owned());
    };
    (floor < FLOOR_TO_NGINX * nginx).then(|| {
        format!(
            "the floor reaches {:.2} of nginx's throughput, not {FLOOR_TO_NGINX}",
            floor / nginx
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(rows: &[(Peer, Scenario, f64, f64)]) -> Findings {
        let mut findings = Findings::default();
        for (peer, scenario, per_s, cpu_us) in rows {
            let core = per_s * cpu_us / 1e6;
            let figures = [("per_s", *per_s), ("cpu_us", *cpu_us), ("core", core)];
            let figures = figures.map(|(name, value)| (name.to_owned(), value)).into();
            findings.figures.insert((peer.name(), scenario.name()), figures);
        }
        findings
    }

    fn missed(findings: &Findings) -> Vec<String> {
        Verdict::of(findings, &Options::read(&[]).unwrap()).missed()
    }

    #[test]
    fn nothing_measured_is_nothing_held() {
        let missed = missed(&Findings::default());
        assert!(missed.contains(&"run_void".to_owned()));
        assert!(missed.contains(&"selvedge_not_measured".to_owned()));
    }

    #[test]
    fn a_slow_floor_makes_a_run_void() {
        let row = |floor: f64| {
            findings(&[
                (Peer::Floor, Scenario::Json1k, floor, 0.95e6 / floor),
                (Peer::Nginx, Scenario::Json1k, 80_000.0, 11.0),
            ])
        };
        assert!(void(&row(40_000.0)).is_some());
        assert!(void(&row(60_000.0)).is_none());
    }

    #[test]
    fn targets_are_judged_by_their_ratios() {
        let at = |selvedge: f64| {
            findings(&[
                (Peer::Selvedge, Scenario::Json1k, 0.95e6 / selvedge, selvedge),
                (Peer::Floor, Scenario::Json1k, 63_000.0, 15.0),
                (Peer::LiteLlm, Scenario::Json1k, 100.0, 9_000.0),
            ])
        };
        let name = "target_json_1k_cpu_to_floor".to_owned();
        assert!(!missed(&at(19.0)).contains(&name));
        assert!(missed(&at(20.0)).contains(&name));
        let throughput = "target_json_1k_throughput_to_litellm".to_owned();
        assert!(!missed(&at(19.0)).contains(&throughput));
        assert!(missed(&at(5_000.0)).contains(&throughput));
    }

    #[test]
    fn a_gateway_that_was_not_the_limit_is_judged_by_its_cpu_time() {
        let found = findings(&[(Peer::Nginx, Scenario::SsePaced, 2_000.0, 200.0)]);
        assert_eq!(capacity(&found, Peer::Nginx, Scenario::SsePaced), Some(4_750.0));
    }
}
