//! One input, guarded: a bound on the time it may take, and on the memory of the process.
//!
//! Time is the thread's own on the CPU, so that a busy machine changes nothing. Memory is bounded
//! by the system for the whole process: an allocation over it ends the process, loudly.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::Target;

/// Address space of a process that replays or fuzzes: what it has without any input (threads, the
/// program itself) is well below half of it, and a frame is at most 9 MiB.
const MEMORY_BYTES: u64 = 1 << 30;
/// What one input may take, in milliseconds of a CPU: a thousand times what the largest takes in a
/// build without optimisation, and far from what would be noticed as quadratic.
const INPUT_MS: u64 = 1_000;

/// Bounds the memory of this process. Every target runs under it.
pub fn bound_memory() {
    let hard = getrlimit(Resource::As).maximum;
    let soft = hard.map_or(MEMORY_BYTES, |hard| hard.min(MEMORY_BYTES));
    // Where the system refuses, the bound on time still stands.
    let _ = setrlimit(Resource::As, Rlimit { current: Some(soft), maximum: hard });
}

/// Runs a target on an input.
///
/// # Panics
/// When what the target holds does not hold, or the input took too long.
pub fn check(target: &Target, input: &[u8]) {
    let before = cpu_ms();
    (target.check)(input);
    let took = cpu_ms().saturating_sub(before);
    assert!(took <= INPUT_MS, "{}: {} bytes took {took} ms", target.name, input.len());
}

fn cpu_ms() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn target(check: fn(&[u8])) -> Target {
        let (shares, seeds, words) = (&[][..], Vec::new as fn() -> _, &[][..]);
        Target { name: "test", holds: "", check, shares, seeds, words }
    }

    #[test]
    fn what_panics_or_takes_long_fails() {
        let sound = target(|_| {});
        assert!(catch_unwind(|| check(&sound, b"a")).is_ok());
        let broken = target(|input| assert!(input.is_empty()));
        assert!(catch_unwind(|| check(&broken, b"a")).is_err());
        let slow = target(|_| {
            let from = cpu_ms();
            while cpu_ms() <= from + INPUT_MS + 1 {}
        });
        assert!(catch_unwind(|| check(&slow, b"a")).is_err());
    }
}
