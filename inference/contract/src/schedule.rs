//! Placeholder replaced by the scheduler.
