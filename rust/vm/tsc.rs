// SPDX-License-Identifier: GPL-2.0

//! Keeping the time-stamp counters of a VM's vCPUs equal though they are written one after the other.
//!
//! A client that creates or restores vCPUs writes each one's counter, and time passes between the
//! writes. A write that is within a second of what the last one has become is taken as the same, and so
//! is one of 0: the vCPU gets the offset that the others have.

/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// What is known of the last write to the counter of one of the vCPUs.
#[derive(Clone, Copy, Default)]
pub(crate) struct TscSync {
    value: u64,
    ns: u64,
    khz: u32,
    offset: u64,
    user_set: bool,
}

impl TscSync {
    /// Returns the state of a VM without vCPUs.
    pub(super) const fn new() -> Self {
        Self {
            value: 0,
            ns: 0,
            khz: 0,
            offset: 0,
            user_set: false,
        }
    }

    /// Returns the offset that a vCPU gets by a write of `value`, or by its creation.
    ///
    /// `khz` is the frequency of its counter, `ns` the time, and `offset` what would be exact.
    pub(crate) fn write(&mut self, value: Option<u64>, khz: u32, ns: u64, offset: u64) -> u64 {
        let data = value.unwrap_or(0);
        let matched = self.is_near(data, khz, ns) && khz == self.khz;
        self.user_set |= value.is_some();
        self.value = data;
        self.ns = ns;
        self.khz = khz;
        if !matched {
            self.offset = offset;
        }
        self.offset
    }

    /// Notes that the client gave a vCPU this offset, with which its counter is `value` at the time `ns`.
    pub(crate) fn note_offset(&mut self, value: u64, khz: u32, ns: u64, offset: u64) {
        *self = Self {
            value,
            ns,
            khz,
            offset,
            user_set: true,
        };
    }

    /// Returns whether the write is meant to make the counter that of the others.
    fn is_near(&self, data: u64, khz: u32, ns: u64) -> bool {
        if data == 0 {
            return khz != 0;
        }
        let hz = u64::from(khz).wrapping_mul(1000);
        let expected = self
            .value
            .wrapping_add(ns_to_ticks(ns.wrapping_sub(self.ns), khz));
        self.user_set && data < expected.wrapping_add(hz) && data.wrapping_add(hz) > expected
    }
}

/// Returns how often a clock of `khz` kHz ticks in `ns` nanoseconds.
pub(crate) fn ns_to_ticks(ns: u64, khz: u32) -> u64 {
    let khz = u64::from(khz);
    let rest = (ns % NS_PER_MS).wrapping_mul(khz) / NS_PER_MS;
    (ns / NS_PER_MS).wrapping_mul(khz).wrapping_add(rest)
}

#[kernel::macros::kunit_tests(kvm_rs_tsc_sync)]
mod tests {
    use super::*;

    #[test]
    fn created_together() {
        let mut sync = TscSync::new();
        assert_eq!(sync.write(None, 1000, 5, 100), 100);
        assert_eq!(sync.write(None, 1000, 50, 145), 100);
        assert_eq!(sync.write(None, 2000, 60, 160), 160);
    }

    #[test]
    fn restored_together() {
        let mut sync = TscSync::new();
        assert_eq!(sync.write(None, 1000, 0, 100), 100);
        // The first value of the client counts as it is, the next is near to it.
        assert_eq!(sync.write(Some(5_000_000), 1000, 0, 200), 200);
        assert_eq!(sync.write(Some(5_000_000), 1000, 1_000_000, 300), 200);
        assert_eq!(sync.write(Some(9_000_000), 1000, 2_000_000, 400), 400);
    }

    #[test]
    fn offset_given() {
        let mut sync = TscSync::new();
        assert_eq!(sync.write(None, 1000, 0, 100), 100);
        sync.note_offset(7_000_000, 1000, 0, 300);
        // A new vCPU, and one that is written with a near value, get the same.
        assert_eq!(sync.write(None, 1000, 0, 400), 300);
        sync.note_offset(7_000_000, 1000, 0, 300);
        assert_eq!(sync.write(Some(7_000_001), 1000, 0, 500), 300);
    }

    #[test]
    fn ticks() {
        assert_eq!(ns_to_ticks(1_500_000, 3), 4);
        assert_eq!(ns_to_ticks(2_000_000_000, 2_000_000), 4_000_000_000);
    }
}
