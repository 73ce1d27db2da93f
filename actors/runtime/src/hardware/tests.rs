#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use selvedge_contract::{Card, Condition};
use selvedge_engine::EngineConfig;

use super::*;

/// A directory with a made-up `/proc` and `/sys`, gone when it is dropped.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        // A leftover in the system's folder for such hurts nobody.
        let _left = fs::remove_dir_all(&self.0);
    }
}

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (id, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("selvedge-machine-{id}-{number}"));
        fs::create_dir_all(&path).unwrap();
        Self(path).with(files)
    }

    fn with(self, files: &[(&str, &str)]) -> Self {
        for (path, text) in files {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn probe(&self) -> Probe {
        Probe::under(&self.0, None)
    }
}

const LAPTOP: [(&str, &str); 27] = [
    (
        "proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Intel(R) Core(TM)  i5-1235U\nflags\t\t: fpu sse4_2 avx avx2 \
         fma avx_vnni\n\nprocessor\t: 1\nmodel name\t: other\n",
    ),
    ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-3\n"),
    ("proc/self/cgroup", "0::/user.slice\n"),
    ("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 5 kB\nMemAvailable:    9000000 kB\n"),
    ("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n"),
    ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n"),
    ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
    ("sys/devices/system/cpu/cpu1/topology/physical_package_id", "0\n"),
    ("sys/devices/system/cpu/cpu1/topology/core_id", "0\n"),
    ("sys/devices/system/cpu/cpu2/topology/physical_package_id", "0\n"),
    ("sys/devices/system/cpu/cpu2/topology/core_id", "1\n"),
    ("sys/devices/system/cpu/cpu3/topology/physical_package_id", "0\n"),
    ("sys/devices/system/cpu/cpu3/topology/core_id", "1\n"),
    ("sys/class/power_supply/AC/type", "Mains\n"),
    ("sys/class/power_supply/AC/online", "0\n"),
    ("sys/class/power_supply/BAT0/type", "Battery\n"),
    ("sys/class/power_supply/BAT0/present", "1\n"),
    ("sys/class/power_supply/BAT0/capacity", "14\n"),
    ("sys/class/power_supply/BAT0/status", "Discharging\n"),
    ("sys/class/power_supply/mouse/type", "Battery\n"),
    ("sys/class/power_supply/mouse/scope", "Device\n"),
    ("sys/class/power_supply/mouse/capacity", "90\n"),
    ("sys/class/hwmon/hwmon0/name", "coretemp\n"),
    ("sys/class/hwmon/hwmon0/temp1_input", "71000\n"),
    ("sys/class/hwmon/hwmon0/temp1_crit", "100000\n"),
];

#[test]
fn a_laptop_on_its_battery() {
    let tree = Tree::new(&LAPTOP).with(&[
        // Disks and radios are hot in their own right.
        ("sys/class/hwmon/hwmon1/name", "nvme\n"),
        ("sys/class/hwmon/hwmon1/temp1_input", "84000\n"),
        ("sys/class/hwmon/hwmon1/temp1_crit", "85000\n"),
        ("sys/class/drm/card0/device/vendor", "0x8086\n"),
        ("sys/class/drm/card0/device/device", "0x46a8\n"),
        ("sys/class/drm/card0-eDP-1/status", "connected\n"),
    ]);
    let made = tree.probe().hardware();
    assert_eq!(made.processor, "Intel(R) Core(TM) i5-1235U");
    assert_eq!(made.features, ["sse4_2", "avx", "avx2", "fma", "avx_vnni"]);
    let cores = (made.physical_cores, made.logical_cores, made.usable_millicores);
    assert_eq!(cores, (Some(2), Some(4), Some(4_000)));
    assert_eq!(made.memory, Some(16_000_000 * 1_024));
    assert_eq!(made.cards, [Card { name: "Intel 0x46a8".to_owned(), memory: None }]);
    let now = Condition {
        memory_available: Some(9_000_000 * 1_024),
        temperature: Some(710),
        headroom: Some(290),
        has_battery: Some(true),
        battery_percent: Some(14),
        on_battery: Some(true),
    };
    assert_eq!(tree.probe().condition(), now);
    let plugged = tree.with(&[
        ("sys/class/power_supply/AC/online", "1\n"),
        ("sys/class/power_supply/BAT0/status", "Charging\n"),
    ]);
    assert_eq!(plugged.probe().condition(), Condition { on_battery: Some(false), ..now });
}

#[test]
fn batteries_are_counted_together_by_what_they_hold() {
    let tree = Tree::new(&[
        ("sys/class/power_supply/BAT0/type", "Battery"),
        ("sys/class/power_supply/BAT0/energy_now", "10000000"),
        ("sys/class/power_supply/BAT0/energy_full", "40000000"),
        ("sys/class/power_supply/BAT0/status", "Not charging"),
        ("sys/class/power_supply/BAT1/type", "Battery"),
        ("sys/class/power_supply/BAT1/energy_now", "5000000"),
        ("sys/class/power_supply/BAT1/energy_full", "10000000"),
        ("sys/class/power_supply/BAT1/status", "Discharging"),
    ]);
    let now = tree.probe().condition();
    assert_eq!((now.battery_percent, now.on_battery), (Some(30), Some(true)));
}

#[test]
fn a_server_with_two_sockets_and_cards() {
    let mut files = vec![
        ("proc/cpuinfo".to_owned(), "model name : A Server\nflags : avx512f avx512_vnni\n".into()),
        ("proc/self/status".to_owned(), "Cpus_allowed_list:\t0-1,8-9,70\n".to_owned()),
        ("sys/devices/system/cpu/online".to_owned(), "0-63\n".to_owned()),
        ("proc/meminfo".to_owned(), "MemTotal: 268435456 kB\nMemAvailable: 1 kB\n".to_owned()),
    ];
    for (cpu, package) in [(0, 0), (1, 0), (8, 1), (9, 1)] {
        let of = |what: &str| format!("sys/devices/system/cpu/cpu{cpu}/topology/{what}");
        files.push((of("physical_package_id"), package.to_string()));
        files.push((of("core_id"), (cpu % 8).to_string()));
    }
    for card in ["0000:01:00.0", "0000:02:00.0"] {
        let path = format!("proc/driver/nvidia/gpus/{card}/information");
        files.push((path, "Model: \t\t NVIDIA A10\nIRQ: 5\n".to_owned()));
    }
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let tree = Tree::new(&files).with(&[
        ("sys/class/drm/card0/device/vendor", "0x1a03\n"),
        ("sys/class/drm/card1/device/vendor", "0x10de\n"),
        ("sys/class/drm/card2/device/vendor", "0x1002\n"),
        ("sys/class/drm/card2/device/device", "0x740f\n"),
        ("sys/class/drm/card2/device/mem_info_vram_total", "68702699520\n"),
    ]);
    let made = tree.probe().hardware();
    // Each socket has a core 0 and a core 1; what is not online does not count.
    assert_eq!((made.physical_cores, made.logical_cores), (Some(4), Some(4)));
    let named = |name: &str, memory| Card { name: name.to_owned(), memory };
    let amd = named("AMD 0x740f", Some(68_702_699_520));
    let nvidia = named("NVIDIA A10", None);
    assert_eq!(made.cards, [nvidia.clone(), nvidia, amd.clone()]);

    let driver = script(&tree, "echo 'NVIDIA A10, 23028'; echo 'NVIDIA \x1b[31m, x, 5'; echo odd");
    let made = Probe::under(&tree.0, Some(driver)).hardware();
    let told =
        [named("NVIDIA A10", Some(23_028 << 20)), named("NVIDIA [31m, x", Some(5 << 20)), amd];
    assert_eq!(made.cards, told);
    assert_eq!(tree.probe().condition().on_battery, None, "nobody said");
}

fn script(tree: &Tree, body: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = tree.path("driver");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_driver_that_floods_or_fails_is_done_without() {
    let tree = Tree::new(&[("proc/driver/nvidia/gpus/0/information", "Model: NVIDIA T4\n")]);
    let plain = [Card { name: "NVIDIA T4".to_owned(), memory: None }];
    let flood = script(&tree, "yes 'x' 2>/dev/null");
    assert_eq!(Probe::under(&tree.0, Some(flood)).hardware().cards, plain);
    let missing = tree.path("nothing");
    assert_eq!(Probe::under(&tree.0, Some(missing)).hardware().cards, plain);
}

#[test]
fn a_container_has_what_its_groups_allow() {
    let tree = Tree::new(&[
        ("proc/self/status", "Cpus_allowed_list:\t0-7\n"),
        ("proc/self/cgroup", "0::/app/web\n"),
        ("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n"),
        ("sys/fs/cgroup/app/cpu.max", "150000 100000\n"),
        ("sys/fs/cgroup/app/web/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/app/web/memory.max", "1073741824\n"),
        ("sys/fs/cgroup/app/web/memory.current", "805306368\n"),
        ("sys/fs/cgroup/app/web/memory.stat", "anon 5\ninactive_file 268435456\n"),
        ("sys/fs/cgroup/app/memory.max", "2147483648\n"),
    ]);
    let made = tree.probe().hardware();
    assert_eq!((made.logical_cores, made.usable_millicores), (Some(8), Some(1_500)));
    assert_eq!(made.physical_cores, None, "no topology is shown");
    assert_eq!(made.memory, Some(1 << 30));
    assert_eq!(tree.probe().condition().memory_available, Some(512 << 20));
    // What others in the group above have taken is not there for this one.
    let tree = tree.with(&[("sys/fs/cgroup/app/memory.current", "2013265920\n")]);
    assert_eq!(tree.probe().hardware().memory, Some(1 << 30));
    assert_eq!(tree.probe().condition().memory_available, Some(128 << 20));
    // In a group's own namespace its path is not below the mount; what is set is at the mount.
    let apart = Tree::new(&[
        ("proc/self/status", "Cpus_allowed_list:\t0-7\n"),
        ("proc/self/cgroup", "0::/../../elsewhere\n"),
        ("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n"),
        ("sys/fs/cgroup/cpu.max", "50000\n"),
        ("sys/fs/cgroup/memory.max", "536870912\n"),
    ]);
    let made = apart.probe().hardware();
    assert_eq!((made.usable_millicores, made.memory), (Some(500), Some(512 << 20)));
    assert_eq!(apart.probe().condition().memory_available, Some(512 << 20));
}

#[test]
fn models_get_half_of_what_a_group_allows() {
    let tree = Tree::new(&[
        ("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 60000000 kB\n"),
        ("proc/self/cgroup", "0::/board\n"),
    ]);
    let usual = |tree: &Tree| EngineConfig::usual_budget(tree.probe().memory());
    assert_eq!(usual(&tree), 4 << 30, "of a large machine not half");
    let tree = tree.with(&[("sys/fs/cgroup/board/memory.max", "1073741824\n")]);
    assert_eq!(usual(&tree), 512 << 20);
    assert_eq!(tree.probe().memory(), tree.probe().hardware().memory);
    assert_eq!(usual(&Tree::new(&[])), 4 << 30, "nothing is known");
}

#[test]
fn groups_of_version_1_bound_too() {
    let tree = Tree::new(&[
        ("proc/self/status", "Cpus_allowed_list:\t0-3\n"),
        ("proc/self/cgroup", "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n"),
        ("proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "200000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n"),
        ("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "1073741824\n"),
        ("sys/fs/cgroup/memory/docker/abc/memory.stat", "total_inactive_file 4096\n"),
    ]);
    let made = tree.probe().hardware();
    assert_eq!((made.usable_millicores, made.memory), (Some(2_000), Some(1 << 30)));
    assert_eq!(tree.probe().condition().memory_available, Some(4_096));
}

#[test]
fn a_board_with_thermal_zones() {
    let tree = Tree::new(&[
        ("proc/cpuinfo", "processor : 0\nFeatures : fp asimd asimddp\nHardware : BCM2835\n"),
        ("proc/device-tree/model", "Raspberry Pi 5 Model B\0"),
        ("sys/devices/system/cpu/online", "0-3\n"),
        ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "-1\n"),
        ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
        ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
        ("sys/class/thermal/thermal_zone0/temp", "81250\n"),
        ("sys/class/thermal/thermal_zone0/trip_point_0_type", "passive\n"),
        ("sys/class/thermal/thermal_zone0/trip_point_0_temp", "80000\n"),
        ("sys/class/thermal/thermal_zone0/trip_point_1_type", "critical\n"),
        ("sys/class/thermal/thermal_zone0/trip_point_1_temp", "85000\n"),
        ("sys/class/thermal/thermal_zone1/type", "gpu-thermal\n"),
        ("sys/class/thermal/thermal_zone1/temp", "83000\n"),
        ("sys/class/thermal/cooling_device0/type", "fan\n"),
    ]);
    let made = tree.probe().hardware();
    assert_eq!(made.processor, "Raspberry Pi 5 Model B");
    assert_eq!(made.features, ["asimd", "asimddp"]);
    assert_eq!((made.physical_cores, made.logical_cores), (None, Some(4)));
    let now = tree.probe().condition();
    assert_eq!((now.temperature, now.headroom), (Some(830), Some(37)));
    assert_eq!((now.has_battery, now.memory_available), (None, None));
}

#[test]
fn sensors_that_always_say_the_same_spare_no_machine() {
    let zone = |what: &'static str, text: &'static str| -> (String, &'static str) {
        (format!("sys/class/thermal/thermal_zone0/{what}"), text)
    };
    let monitor = |what: &'static str, text: &'static str| -> (String, &'static str) {
        (format!("sys/class/hwmon/hwmon0/{what}"), text)
    };
    let beside = |files: &[(String, &'static str)]| {
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, *text)).collect();
        let tree = Tree::new(&files).with(&[
            ("sys/class/hwmon/hwmon9/name", "coretemp\n"),
            ("sys/class/hwmon/hwmon9/temp1_input", "60000\n"),
            ("sys/class/hwmon/hwmon9/temp1_crit", "100000\n"),
        ]);
        let now = tree.probe().condition();
        (now.temperature, now.headroom)
    };
    let honest = (Some(600), Some(400));
    let critical = |most| [zone("trip_point_0_type", "critical"), zone("trip_point_0_temp", most)];
    for reads in ["0", "-273000", "-263200", "127000", "127500", "128000"] {
        let mut files = vec![zone("type", "acpitz"), zone("temp", reads)];
        assert_eq!(beside(&files), honest, "{reads}");
        for most in ["0", "-274000", "16800"] {
            files.truncate(2);
            files.extend(critical(most));
            assert_eq!(beside(&files), honest, "{reads} of {most}");
        }
    }
    // Above its critical point nothing runs on; at it a processor throttles.
    let mut files = vec![zone("type", "acpitz"), zone("temp", "105100")];
    files.extend(critical("100000"));
    assert_eq!(beside(&files), honest);
    files[1] = zone("temp", "100000");
    assert_eq!(beside(&files), (Some(1_000), Some(0)));
    // What is connected to nothing.
    let open = |chip| [monitor("name", chip), monitor("temp3_input", "110000")];
    for chip in ["nct6798", "it8728", "w83627ehf", "f71882fg"] {
        assert_eq!(beside(&open(chip)), honest, "{chip}");
    }
    assert_eq!(beside(&open("k10temp")), (Some(1_100), Some(400)), "a processor's counts");
}

#[test]
fn hostile_files_are_not_there() {
    let long = "9".repeat(3 << 20);
    let cpuinfo = format!("model name : {long}\nflags : avx2\n");
    let groups = format!("garbage\n0::/\n4:cpu:{}\n", "/a".repeat(20_000));
    let tree = Tree::new(&[
        ("proc/cpuinfo", cpuinfo.as_str()),
        ("proc/meminfo", "MemTotal: -5 kB\nMemAvailable: 99999999999999999999 kB\n"),
        ("proc/self/status", "Cpus_allowed_list:\t0-4294967295\n"),
        ("proc/self/cgroup", groups.as_str()),
        ("sys/fs/cgroup/cpu.max", "100000 0\n"),
        ("sys/fs/cgroup/memory.max", "-1\n"),
        ("sys/devices/system/cpu/online", "9-1,,\n"),
        ("sys/class/thermal/thermal_zone0/type", "cpu\n"),
        ("sys/class/thermal/thermal_zone0/temp", "-273000\n"),
        ("sys/class/thermal/thermal_zone1/type", "cpu\n"),
        ("sys/class/thermal/thermal_zone1/temp", long.as_str()),
        ("sys/class/hwmon/hwmon0/name", "k10temp\n"),
        ("sys/class/hwmon/hwmon0/temp1_input", "\u{fffd}\0\n"),
        ("sys/class/hwmon/hwmon0/temp1_crit", "5\n"),
        ("sys/class/power_supply/BAT0/type", "Battery\n"),
        ("sys/class/power_supply/BAT0/capacity", "-7\n"),
        ("sys/class/power_supply/BAT0/energy_now", "9223372036854775807\n"),
        ("sys/class/power_supply/BAT0/energy_full", "0\n"),
        ("sys/class/power_supply/BAT0/status", "\x1b[2J\n"),
        ("proc/driver/nvidia/gpus/0/information", "Model:\t\x1b]0;evil\x07\u{9b}31m card\n"),
    ]);
    // What leads to itself, and a directory where a file should be.
    fs::create_dir_all(tree.path("sys/class/hwmon/hwmon1")).unwrap();
    loops(&tree.path("sys/class/hwmon/hwmon1/name"));
    fs::create_dir_all(tree.path("sys/class/thermal/thermal_zone2/temp")).unwrap();
    loops(&tree.path("sys/class/drm"));
    let made = tree.probe().hardware();
    assert!(made.processor.len() <= MAX_NAME && made.processor.starts_with("999"), "{made:?}");
    assert_eq!(made.memory, None);
    assert!(made.logical_cores.is_none_or(|cores| cores <= 1_024), "{made:?}");
    assert_eq!(made.cards, [Card { name: "]0;evil31m card".to_owned(), memory: None }]);
    let now = tree.probe().condition();
    let unknown = Condition { has_battery: Some(true), ..Condition::default() };
    assert_eq!(now, unknown);
    let told = selvedge_contract::Machine { made, now };
    assert_eq!(told.clone().received(), Some(told), "what is read is what peers take");
}

fn loops(path: &Path) {
    symlink(path, path).unwrap();
}

#[test]
fn nothing_is_known_of_a_machine_that_shows_nothing() {
    let made = Tree::new(&[]).probe().hardware();
    assert_eq!((made.memory, made.logical_cores, made.physical_cores), (None, None, None));
    assert_eq!(made.usable_millicores, None);
    assert!(made.processor.is_empty() && made.cards.is_empty() && made.features.is_empty());
    assert_eq!(Tree::new(&[]).probe().condition(), Condition::default());
    // This one shows something, wherever the test runs.
    assert!(Probe::here("scalar").hardware().logical_cores.is_some());
}
