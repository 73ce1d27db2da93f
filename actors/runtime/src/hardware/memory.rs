//! Memory: how much there is for this process, and how much of it could still be taken.
//!
//! Owns the reading of `/proc/meminfo` and of the limits of control groups, of which the tightest
//! holds.

use std::path::Path;

use super::files::Root;

/// What is known of memory, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: Option<u64>,
    pub(super) available: Option<u64>,
}

/// How a version of control groups calls what is looked for.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` with pages of files that can be dropped at once.
    reclaimable: &'static str,
}

const V2: Names =
    Names { limit: "memory.max", used: "memory.current", reclaimable: "inactive_file" };
const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

pub(super) fn read(root: &Root) -> Memory {
    let info = root.text("proc/meminfo").unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        number.checked_mul(1_024)
    };
    let (mut total, mut available) = (kilobytes("MemTotal"), kilobytes("MemAvailable"));
    let unified = root.group_of(None).map(|path| (root.group("sys/fs/cgroup", &path), &V2));
    let group = root.group_of(Some("memory"));
    let old = group.map(|path| (root.group("sys/fs/cgroup/memory", &path), &V1));
    for (levels, names) in unified.into_iter().chain(old) {
        for level in levels {
            limit(root, &level, names, &mut total, &mut available);
        }
    }
    Memory { total, available }
}

/// Lowers what there is to what a group may have, if that is less.
fn limit(
    root: &Root,
    level: &Path,
    names: &Names,
    total: &mut Option<u64>,
    available: &mut Option<u64>,
) {
    let number = |name: &str| u64::try_from(root.number(level.join(name))?).ok();
    // Version 2 says `max` where there is none, version 1 a number beyond any machine.
    let Some(most) = number(names.limit).filter(|most| total.is_none_or(|all| *most < all)) else {
        return;
    };
    *total = Some(most);
    let Some(used) = number(names.used) else {
        *available = available.map(|left| left.min(most));
        return;
    };
    let stat = root.text(level.join("memory.stat")).unwrap_or_default();
    let spare = stat.lines().find_map(|line| {
        line.strip_prefix(names.reclaimable)?.strip_prefix(' ')?.trim().parse::<u64>().ok()
    });
    let left = most.saturating_sub(used.saturating_sub(spare.unwrap_or(0)));
    *available = Some(available.map_or(left, |known| known.min(left)));
}
