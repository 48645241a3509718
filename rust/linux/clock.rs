// SPDX-License-Identifier: GPL-2.0

//! The host's clocks, read at one moment.

use crate::bindings;

/// The host's clocks at one moment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Snapshot {
    /// Nanoseconds since boot, suspended time included, at the rate of the hardware.
    pub(crate) base_ns: u64,
    /// Nanoseconds since 1970.
    pub(crate) real_ns: u64,
    /// The time-stamp counter; of about then, unless `tsc_based`.
    pub(crate) tsc: u64,
    /// The clocks run on the time-stamp counter.
    pub(crate) tsc_based: bool,
}

impl Snapshot {
    /// Returns the clocks now.
    pub(crate) fn take() -> Self {
        let mut raw = bindings::kvm_rs_clock_snapshot::default();
        // SAFETY: `raw` is ours to write, and the clocks may be read in any context.
        unsafe { bindings::kvm_rs_take_clock_snapshot(&mut raw) };
        Self {
            base_ns: raw.base_ns,
            real_ns: raw.real_ns,
            tsc: raw.tsc,
            tsc_based: raw.tsc_based,
        }
    }
}

/// Returns for how many nanoseconds the current task was ready and did not run.
#[inline]
pub(crate) fn run_delay() -> u64 {
    // SAFETY: It is the current task's own.
    unsafe { bindings::kvm_rs_run_delay() }
}
