//! Cards: what draws or computes beside the processor.
//!
//! Owns the reading of NVIDIA's driver, and of the kernel's list of cards for all others. The
//! driver's own program is asked for the memory of its cards, for a bounded time.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use selvedge_contract::Card;
use selvedge_contract::hardware::{MAX_CARDS, MAX_NAME, clean};

use super::files::Root;

/// How long the driver's program may take: it wakes cards that sleep, which takes a second or two.
const WITHIN: Duration = Duration::from_secs(4);
/// Bytes taken of what it says: a line of some fifty for each card.
const MAX_ANSWER: u64 = 16 << 10;
/// NVIDIA's number among makers of cards.
const NVIDIA: &str = "0x10de";

pub(super) fn read(root: &Root, driver: Option<&Path>) -> Vec<Card> {
    let by_driver = root.names("proc/driver/nvidia/gpus").unwrap_or_default();
    let mut cards: Vec<Card> = by_driver
        .iter()
        .take(MAX_CARDS)
        .map(|name| {
            let text = root.text(format!("proc/driver/nvidia/gpus/{name}/information"));
            let text = text.unwrap_or_default();
            let model = text.lines().find_map(|line| line.strip_prefix("Model:"));
            let model = clean(model.unwrap_or("NVIDIA"), MAX_NAME);
            Card { name: model, memory: None }
        })
        .collect();
    let asked = driver.filter(|_| !cards.is_empty()).and_then(ask);
    if let Some(told) = asked.map(|text| told(&text)).filter(|told| !told.is_empty()) {
        cards = told;
    }
    let has_nvidia = !cards.is_empty();
    cards.extend(listed(root, has_nvidia));
    cards
}

/// What the kernel lists. Cards of servers' remote consoles and of virtual machines compute
/// nothing and are left out, as are all of makers not known here.
fn listed(root: &Root, has_nvidia: bool) -> Vec<Card> {
    let names = root.names("sys/class/drm").unwrap_or_default().into_iter();
    // Connectors are listed beside their cards: `card0-HDMI-A-1`.
    let is_card = |name: &String| {
        name.strip_prefix("card").is_some_and(|number| number.parse::<u16>().is_ok())
    };
    let cards = names.filter(is_card).take(MAX_CARDS);
    cards
        .filter_map(|name| {
            let of = |what: &str| format!("sys/class/drm/{name}/device/{what}");
            let vendor = root.word(of("vendor"))?;
            let maker = match vendor.as_str() {
                "0x1002" | "0x1022" => "AMD",
                "0x8086" => "Intel",
                NVIDIA if !has_nvidia => "NVIDIA",
                "0x5143" => "Qualcomm",
                "0x13b5" => "ARM",
                _ => return None,
            };
            let device = root.word(of("device")).unwrap_or_default();
            let memory = root.number(of("mem_info_vram_total"));
            let memory = memory.and_then(|bytes| u64::try_from(bytes).ok());
            Some(Card { name: clean(&format!("{maker} {device}"), MAX_NAME), memory })
        })
        .collect()
}

/// Asks the driver's program; none where it does not answer in time.
fn ask(program: &Path) -> Option<String> {
    let mut child = Command::new(program)
        .args(["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let output = child.stdout.take();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.map(|output| output.take(MAX_ANSWER).read_to_end(&mut bytes));
        // Whoever asked may have given up.
        let _late = tell.send(matches!(read, Some(Ok(_))).then_some(bytes));
    });
    let answer = told.recv_timeout(WITHIN).ok().flatten();
    // It has said enough, or too late. One that hangs in the driver does not even die: nobody
    // waits for it but this thread.
    let _ended = child.kill();
    std::thread::spawn(move || child.wait());
    answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Lines of `NAME, MEBIBYTES`.
fn told(text: &str) -> Vec<Card> {
    let lines = text.lines().take(MAX_CARDS).filter_map(|line| {
        let (name, memory) = line.rsplit_once(',')?;
        let name = clean(name, MAX_NAME);
        let mebibytes: Option<u64> = memory.trim().parse().ok();
        let memory = mebibytes.and_then(|mebibytes| mebibytes.checked_mul(1 << 20));
        (!name.is_empty()).then_some(Card { name, memory })
    });
    lines.collect()
}
