//! When would a request finish here? An online model of two measured rates.
//!
//! Owns the arithmetic; the engine feeds it measurements, routing asks it. Integers only, so that
//! the simulator and production agree to the microsecond.

use selvedge_base::Micros;

/// Weight of a new measurement in the moving averages: 1/8 follows a change within about ten steps
/// and is not thrown by one slow step.
const SHIFT: u32 = 3;

/// Assumed prefill microseconds per token before anything was measured: a slow small machine, so
/// that measured nodes are preferred to unknown ones.
const UNKNOWN_PREFILL_US: u64 = 10_000;
/// Assumed microseconds per decode step before anything was measured.
const UNKNOWN_STEP_US: u64 = 50_000;

/// Measured rates of one model on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostModel {
    /// Nanoseconds per prompt token; 0 = unknown.
    prefill_ns: u64,
    /// Nanoseconds per decode step; 0 = unknown.
    step_ns: u64,
}

impl CostModel {
    /// Notes that `tokens` prompt tokens took `took`.
    pub fn prefilled(&mut self, tokens: u32, took: Micros) {
        if tokens > 0 {
            let sample = took.0.saturating_mul(1_000) / u64::from(tokens);
            self.prefill_ns = blend(self.prefill_ns, sample);
        }
    }

    /// Notes that one decode step took `took`.
    pub fn stepped(&mut self, took: Micros) {
        self.step_ns = blend(self.step_ns, took.0.saturating_mul(1_000));
    }

    /// Prompt tokens per second; 0 = unknown.
    pub fn prefill_rate(&self) -> u32 {
        1_000_000_000u64.checked_div(self.prefill_ns).map_or(0, |rate| rate as u32)
    }

    /// Microseconds per decode step; 0 = unknown.
    pub fn step_us(&self) -> u32 {
        (self.step_ns / 1_000).min(u64::from(u32::MAX)) as u32
    }
}

/// Estimated time to compute `prompt_tokens` (queued ones included) at `prefill_rate` tokens/s and
/// then `answer_tokens` steps of `step_us`; a rate of 0 is unknown and assumed slow.
pub fn completion_time(
    prompt_tokens: u64,
    prefill_rate: u32,
    answer_tokens: u64,
    step_us: u32,
) -> Micros {
    let prefill = match prefill_rate {
        0 => prompt_tokens.saturating_mul(UNKNOWN_PREFILL_US),
        rate => prompt_tokens.saturating_mul(1_000_000) / u64::from(rate),
    };
    let step = if step_us == 0 { UNKNOWN_STEP_US } else { u64::from(step_us) };
    Micros(prefill.saturating_add(answer_tokens.saturating_mul(step)))
}

fn blend(average: u64, sample: u64) -> u64 {
    if average == 0 {
        return sample.max(1);
    }
    (average - (average >> SHIFT)).saturating_add(sample >> SHIFT).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_measurements() {
        let mut cost = CostModel::default();
        assert_eq!((cost.prefill_rate(), cost.step_us()), (0, 0));
        cost.prefilled(100, Micros::millis(100));
        cost.stepped(Micros::millis(20));
        assert_eq!((cost.prefill_rate(), cost.step_us()), (1_000, 20_000));
        for _ in 0..100 {
            cost.stepped(Micros::millis(40));
        }
        assert!((39_000..=40_000).contains(&cost.step_us()));
    }

    #[test]
    fn more_work_never_finishes_sooner() {
        let base = completion_time(100, 1_000, 50, 20_000);
        assert_eq!(base, Micros(1_100_000));
        assert!(completion_time(200, 1_000, 50, 20_000) > base);
        assert!(completion_time(100, 0, 50, 20_000) > base, "unknown is assumed slow");
        completion_time(u64::MAX, 1, u64::MAX, u32::MAX);
    }
}
