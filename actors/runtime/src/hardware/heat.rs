//! How hot the machine is: thermal zones and hardware monitors.
//!
//! Owns which sensors count: those of processors, cards and boards. Disks, radios, batteries and
//! memory modules have limits of their own, which say nothing of whether the machine can compute.

use super::files::Root;

/// Parts of the names of sensors that do not count.
const OTHERS: [&str; 18] = [
    "nvme",
    "drivetemp",
    "iwlwifi",
    "wifi",
    "wlan",
    "ath1",
    "mt76",
    "modem",
    "mdmss",
    "bat",
    "charg",
    "usb",
    "ucsi",
    "jc42",
    "spd5118",
    "phy",
    "r8169",
    "pch",
];
/// Sensors of one monitor: the largest boards have some thirty.
const MAX_SENSORS: u32 = 64;
/// Trip points of a zone: ACPI has at most a dozen.
const MAX_TRIPS: u32 = 12;
/// What a sensor may say, in thousandths of a degree; one that is not connected says less or more.
const SENSIBLE: std::ops::RangeInclusive<i64> = -40_000..=150_000;
/// Where a critical point may lie: nothing is cooled below the one or works above the other.
const CRITICAL: std::ops::RangeInclusive<i64> = 40_000..=150_000;

/// What is known, in tenths of a degree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heat {
    pub(super) temperature: Option<i16>,
    pub(super) headroom: Option<i16>,
}

/// One sensor, in thousandths of a degree.
struct Sensor {
    reads: i64,
    critical: Option<i64>,
}

pub(super) fn read(root: &Root) -> Heat {
    let mut sensors = zones(root);
    sensors.extend(monitors(root));
    let tenths = |milli: i64| i16::try_from(milli / 100).ok();
    let hottest = sensors.iter().map(|sensor| sensor.reads).max();
    let left = sensors.iter().filter_map(|sensor| Some(sensor.critical? - sensor.reads)).min();
    Heat { temperature: hottest.and_then(tenths), headroom: left.and_then(tenths) }
}

fn counts(name: &str) -> bool {
    let name = name.to_lowercase();
    !OTHERS.iter().any(|other| name.contains(other))
}

fn zones(root: &Root) -> Vec<Sensor> {
    let names = root.names("sys/class/thermal").unwrap_or_default().into_iter();
    let zones = names.filter(|name| name.starts_with("thermal_zone"));
    zones
        .filter_map(|name| {
            let zone = |what: &str| format!("sys/class/thermal/{name}/{what}");
            root.word(zone("type")).filter(|kind| counts(kind))?;
            let reads = root.number(zone("temp")).filter(|reads| SENSIBLE.contains(reads))?;
            let trip = (0..MAX_TRIPS).find_map(|at| {
                let kind = root.word(zone(&format!("trip_point_{at}_type")))?;
                (kind == "critical").then(|| root.number(zone(&format!("trip_point_{at}_temp"))))?
            });
            Some(Sensor { reads, critical: trip.filter(|trip| CRITICAL.contains(trip)) })
        })
        .collect()
}

fn monitors(root: &Root) -> Vec<Sensor> {
    let mut sensors = Vec::new();
    for name in root.names("sys/class/hwmon").unwrap_or_default() {
        let monitor = |what: &str| format!("sys/class/hwmon/{name}/{what}");
        if root.word(monitor("name")).is_none_or(|kind| !counts(&kind)) {
            continue;
        }
        // They are numbered from 1, with gaps.
        let there = root.names(monitor("")).unwrap_or_default();
        let numbers = there.iter().filter_map(|file| {
            file.strip_prefix("temp")?.strip_suffix("_input")?.parse::<u32>().ok()
        });
        sensors.extend(numbers.filter(|number| *number <= MAX_SENSORS).filter_map(|number| {
            let of = |what: &str| root.number(monitor(&format!("temp{number}_{what}")));
            let reads = of("input").filter(|reads| SENSIBLE.contains(reads))?;
            Some(Sensor { reads, critical: of("crit").filter(|crit| CRITICAL.contains(crit)) })
        }));
    }
    sensors
}
