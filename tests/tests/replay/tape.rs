//! What the machines of one simulated node were told, and what they ordered.

use selvedge_base::Now;
use selvedge_core::quota::{QuotaEffect, QuotaInput};
use selvedge_proto::swim::{Swim, SwimEffect, SwimInput};
use selvedge_sim::watch::{QuotaOrigin, Watch};

/// Steps kept of one machine: minutes of a node's life, replayed in seconds.
const MAX_STEPS: usize = 20_000;

/// A step of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Step<I, E> {
    pub(crate) at: Now,
    pub(crate) input: I,
    pub(crate) orders: Vec<E>,
}

/// The first life of one node's process, up to its first crash.
pub(crate) struct Tape {
    node: usize,
    /// The failure detector before its first step.
    pub(crate) detector: Option<Swim>,
    pub(crate) detector_steps: Vec<Step<SwimInput, SwimEffect>>,
    /// What the quota machine is made of; none in a mesh without budgets.
    pub(crate) quota: Option<QuotaOrigin>,
    pub(crate) quota_steps: Vec<Step<QuotaInput, QuotaEffect>>,
    ended: bool,
}

impl Tape {
    pub(crate) const fn of(node: usize) -> Self {
        Self {
            node,
            detector: None,
            detector_steps: Vec::new(),
            quota: None,
            quota_steps: Vec::new(),
            ended: false,
        }
    }
}

impl Watch for Tape {
    fn wants_steps(&self, node: usize) -> bool {
        self.node == node && !self.ended
    }

    fn detector_made(&mut self, _node: usize, detector: &Swim) {
        if self.detector.is_some() {
            self.ended = true;
        } else {
            self.detector = Some(detector.clone());
        }
    }

    fn detector_stepped(&mut self, _: usize, at: Now, input: SwimInput, orders: &[SwimEffect]) {
        if !self.ended && self.detector_steps.len() < MAX_STEPS {
            self.detector_steps.push(Step { at, input, orders: orders.to_vec() });
        }
    }

    fn quota_made(&mut self, _node: usize, origin: QuotaOrigin) {
        if !self.ended {
            self.quota = Some(origin);
        }
    }

    fn quota_stepped(&mut self, _: usize, at: Now, input: QuotaInput, orders: &[QuotaEffect]) {
        if !self.ended && self.quota_steps.len() < MAX_STEPS {
            self.quota_steps.push(Step { at, input, orders: orders.to_vec() });
        }
    }
}
