//! What the machine runs on: mains or a battery, and how full that is.
//!
//! Owns the reading of `/sys/class/power_supply`. Batteries of mice and headsets carry nothing.

use super::files::Root;

/// What is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Power {
    pub(super) has_battery: Option<bool>,
    pub(super) percent: Option<u8>,
    pub(super) on_battery: Option<bool>,
}

/// One battery.
struct Battery {
    /// How full, in thousandths, and of how much, where it says so.
    permille: Option<u64>,
    full: Option<u64>,
    discharges: Option<bool>,
}

pub(super) fn read(root: &Root) -> Power {
    let Some(names) = root.names("sys/class/power_supply") else { return Power::default() };
    let (mut batteries, mut mains) = (Vec::new(), Vec::new());
    for name in names {
        let of = |what: &str| format!("sys/class/power_supply/{name}/{what}");
        if root.word(of("scope")).is_some_and(|scope| scope == "Device") {
            continue;
        }
        match root.word(of("type")).as_deref() {
            Some("Battery" | "UPS") => batteries.extend(battery(root, &name)),
            Some(_) => mains.extend(root.number(of("online"))),
            None => {}
        }
    }
    let has_battery = !batteries.is_empty();
    let plugged = mains.iter().any(|online| *online > 0);
    let discharges = batteries.iter().filter_map(|battery| battery.discharges);
    let on_battery = match (has_battery, plugged) {
        // Machines without a battery run on mains, but a container is not told of either.
        (false, _) => plugged.then_some(false),
        (true, true) => Some(false),
        (true, false) => discharges.reduce(|one, other| one || other),
    };
    Power { has_battery: Some(has_battery), percent: percent(&batteries), on_battery }
}

fn battery(root: &Root, name: &str) -> Option<Battery> {
    let of = |what: &str| format!("sys/class/power_supply/{name}/{what}");
    if root.number(of("present")) == Some(0) {
        return None;
    }
    let number = |what: &str| root.number(of(what)).and_then(|value| u64::try_from(value).ok());
    let pair = |now: &str, full: &str| Some((number(now)?, number(full).filter(|full| *full > 0)?));
    let exact = pair("energy_now", "energy_full").or_else(|| pair("charge_now", "charge_full"));
    let capacity = number("capacity").filter(|percent| *percent <= 100);
    let measured = exact.map(|(now, full)| now.saturating_mul(1_000) / full);
    let permille = capacity.map(|percent| percent * 10).or(measured.map(|share| share.min(1_000)));
    let discharges = match root.word(of("status")).as_deref() {
        Some("Discharging") => Some(true),
        Some("Charging" | "Full" | "Not charging") => Some(false),
        Some(_) | None => None,
    };
    Some(Battery { permille, full: exact.map(|(_, full)| full), discharges })
}

/// How full all are together: each by what it holds where all say so, else each alike.
fn percent(batteries: &[Battery]) -> Option<u8> {
    let known: Option<Vec<u64>> = batteries.iter().map(|battery| battery.permille).collect();
    let known = known.filter(|known| !known.is_empty())?;
    let sizes: Option<Vec<u64>> = batteries.iter().map(|battery| battery.full).collect();
    let sizes = sizes.unwrap_or_else(|| vec![1; known.len()]);
    let all: u128 = sizes.iter().map(|size| u128::from(*size)).sum();
    let parts =
        known.iter().zip(&sizes).map(|(share, size)| u128::from(*share) * u128::from(*size));
    let permille = parts.sum::<u128>().checked_div(all)?;
    u8::try_from((permille + 5) / 10).ok().filter(|percent| *percent <= 100)
}
