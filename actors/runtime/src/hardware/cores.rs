//! The processor: its name, what it can, and how much of it this process may use.
//!
//! Owns the reading of `/proc/cpuinfo`, the topology, the set of processors that are allowed, and
//! the quotas of control groups.

use std::collections::BTreeSet;

use super::files::Root;

/// Processors looked at: Linux is built for up to 8,192, machines at the edge have a few.
const MAX_PROCESSORS: u32 = 1_024;
/// Features that kernels of models use or could use, as Linux calls them on x86 and on ARM.
const NOTABLE: [&str; 22] = [
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
];
/// What a quota is a share of, in microseconds, where nothing else is said.
const USUAL_PERIOD: u64 = 100_000;

/// What is known of the processor.
#[derive(Debug, Default)]
pub(super) struct Cores {
    pub(super) model: String,
    pub(super) features: Vec<String>,
    pub(super) physical: Option<u32>,
    pub(super) logical: Option<u32>,
    pub(super) usable_millicores: Option<u32>,
}

pub(super) fn read(root: &Root) -> Cores {
    let info = root.text("proc/cpuinfo").unwrap_or_default();
    let allowed = allowed(root);
    let logical = match &allowed {
        Some(allowed) => u32::try_from(allowed.len()).ok(),
        None if root.is_system => std::thread::available_parallelism()
            .ok()
            .and_then(|threads| u32::try_from(threads.get()).ok()),
        None => None,
    };
    let whole = logical.map(|threads| threads.saturating_mul(1_000));
    let usable_millicores = match (whole, quota(root)) {
        (Some(whole), Some(quota)) => Some(whole.min(quota)),
        (whole, quota) => whole.or(quota),
    };
    Cores {
        model: model(root, &info),
        features: features(&info),
        physical: allowed.as_ref().and_then(|allowed| physical(root, allowed)),
        logical,
        usable_millicores,
    }
}

/// The processor's name; of a board, whose processor has none there, the board's.
fn model(root: &Root, info: &str) -> String {
    let named = field(info, "model name").filter(|name| !name.starts_with("ARMv"));
    let board = || {
        let path = "proc/device-tree/model";
        root.text(path).map(|text| text.trim_matches(['\0', '\n', ' ']).to_owned())
    };
    let tree = named.map(str::to_owned).or_else(board).filter(|name| !name.is_empty());
    let other = || field(info, "Model").or_else(|| field(info, "Hardware")).map(str::to_owned);
    tree.or_else(other).unwrap_or_default()
}

fn features(info: &str) -> Vec<String> {
    let listed = field(info, "flags").or_else(|| field(info, "Features")).unwrap_or_default();
    let listed: BTreeSet<&str> = listed.split_ascii_whitespace().collect();
    NOTABLE.iter().filter(|one| listed.contains(*one)).map(|one| (*one).to_owned()).collect()
}

/// The first value of a name in `/proc/cpuinfo`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim()).filter(|value| !value.is_empty())
    })
}

/// The processors that this process may run on, of those that are there.
fn allowed(root: &Root) -> Option<BTreeSet<u32>> {
    let online = root.word("sys/devices/system/cpu/online").and_then(|text| list(&text));
    let status = root.text("proc/self/status");
    let own = status.as_deref().and_then(|text| field(text, "Cpus_allowed_list")).and_then(list);
    match (online, own) {
        (Some(online), Some(own)) => {
            let both: BTreeSet<u32> = online.intersection(&own).copied().collect();
            (!both.is_empty()).then_some(both)
        }
        (online, own) => own.or(online),
    }
}

/// Numbers as Linux lists them: `0-3,8`.
fn list(text: &str) -> Option<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for part in text.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        all.extend(from..to.saturating_add(1).min(MAX_PROCESSORS));
    }
    (!all.is_empty()).then_some(all)
}

/// The cores that these processors are threads of; none where one does not say its core.
fn physical(root: &Root, processors: &BTreeSet<u32>) -> Option<u32> {
    let core = |processor: &u32| {
        let of = |what: &str| {
            root.number(format!("sys/devices/system/cpu/cpu{processor}/topology/{what}"))
        };
        Some((of("physical_package_id")?, of("core_id")?))
    };
    let cores: Option<BTreeSet<(i64, i64)>> = processors.iter().map(core).collect();
    let cores = cores?;
    // Boards without packages number each cluster's cores from 0 and say -1 for its package.
    let sure = cores.iter().all(|(package, core)| *package >= 0 && *core >= 0);
    sure.then(|| u32::try_from(cores.len()).ok()).flatten()
}

/// Thousandths of a processor that control groups allow; none where there is no quota.
fn quota(root: &Root) -> Option<u32> {
    let unified = root.group_of(None).map(|path| root.group("sys/fs/cgroup", &path));
    let v2 = unified.into_iter().flatten().filter_map(|level| {
        let text = root.word(level.join("cpu.max"))?;
        let mut words = text.split_ascii_whitespace();
        let (quota, period) = (words.next()?.parse().ok()?, words.next());
        share(quota, period.map_or(Some(USUAL_PERIOD), |text| text.parse().ok())?)
    });
    let group = root.group_of(Some("cpu"));
    let mounts = ["sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpu"];
    let levels = group.iter().flat_map(|path| mounts.map(|mount| root.group(mount, path)));
    let v1 = levels.flatten().filter_map(|level| {
        let quota = u64::try_from(root.number(level.join("cpu.cfs_quota_us"))?).ok()?;
        share(quota, u64::try_from(root.number(level.join("cpu.cfs_period_us"))?).ok()?)
    });
    v2.chain(v1).min()
}

fn share(quota: u64, period: u64) -> Option<u32> {
    let share = quota.checked_mul(1_000)?.checked_div(period)?;
    u32::try_from(share).ok().filter(|share| *share > 0)
}
