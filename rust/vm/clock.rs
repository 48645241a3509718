// SPDX-License-Identifier: GPL-2.0

//! The VM's paravirtual clock: nanoseconds since the VM was created, or since what the client says.
//!
//! Where the host's clock runs on its time-stamp counter, all vCPUs compute the time from one pair of
//! counter and time, so that they agree to the nanosecond. Elsewhere each gets a new pair now and then.

use crate::linux::{
    clock::Snapshot,
    cpu_call::tsc_khz, //
};
use kernel::prelude::*;

/// Nanoseconds in a second.
const NS_PER_SEC: u64 = 1_000_000_000;

/// How to turn ticks into nanoseconds: shift left (or right, if negative), multiply, drop 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scale {
    /// The factor, with 32 bits behind the point.
    pub(crate) multiplier: u32,
    /// The shift.
    pub(crate) shift: i8,
}

impl Scale {
    /// Returns the scale of a counter of `khz` kHz, which is not 0.
    pub(crate) fn of_khz(khz: u32) -> Self {
        // As KVM does it, so that guests see the same numbers.
        let mut ticks = u64::from(khz.max(1)) * 1000;
        let mut target = NS_PER_SEC;
        let mut shift = 0i8;
        while ticks > target * 2 || ticks >> 32 != 0 {
            ticks >>= 1;
            shift -= 1;
        }
        while ticks <= target || target >> 32 != 0 {
            if target >> 32 != 0 || ticks & 1 << 31 != 0 {
                target >>= 1;
            } else {
                ticks <<= 1;
            }
            shift += 1;
        }
        Self {
            // CAST: The target is below the ticks, which have 32 bits.
            multiplier: (target << 32).checked_div(ticks).unwrap_or(0) as u32,
            shift,
        }
    }

    /// Returns how many nanoseconds `ticks` take.
    pub(crate) fn ns(self, ticks: u64) -> u64 {
        let by = u32::from(self.shift.unsigned_abs());
        let shifted = if self.shift < 0 {
            ticks.checked_shr(by)
        } else {
            ticks.checked_shl(by)
        };
        // CAST: The time wraps.
        (u128::from(shifted.unwrap_or(0)) * u128::from(self.multiplier) >> 32) as u64
    }
}

/// The clock of one VM.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    master: Snapshot,
    offset: u64,
}

/// What the clock tells.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    /// The VM's time in ns.
    pub(crate) ns: u64,
    /// The host's counter and wall-clock time then, if the clock runs on the counter.
    pub(crate) host: Option<Snapshot>,
}

impl Clock {
    /// Returns a clock that starts now, at 0.
    pub(super) fn new() -> Self {
        let master = Snapshot::take();
        Self {
            master,
            offset: 0u64.wrapping_sub(master.base_ns),
        }
    }

    /// Returns the pair of host counter and VM time that vCPUs start from, and whether it stays good.
    pub(crate) fn pair(&self) -> (u64, u64, bool) {
        let stable = self.master.tsc_based;
        let from = if stable {
            self.master
        } else {
            Snapshot::take()
        };
        (from.tsc, from.base_ns.wrapping_add(self.offset), stable)
    }

    /// Returns the time.
    pub(crate) fn read(&self) -> Reading {
        self.at(Snapshot::take(), tsc_khz())
    }

    fn at(&self, now: Snapshot, host_khz: u32) -> Reading {
        if self.master.tsc_based && now.tsc_based {
            let ticks = now.tsc.wrapping_sub(self.master.tsc);
            let start = self.master.base_ns.wrapping_add(self.offset);
            Reading {
                ns: start.wrapping_add(Scale::of_khz(host_khz).ns(ticks)),
                host: Some(now),
            }
        } else {
            Reading {
                ns: now.base_ns.wrapping_add(self.offset),
                host: None,
            }
        }
    }

    /// Returns the wall-clock time at which the clock was 0, in ns.
    pub(crate) fn epoch_ns(&self) -> u64 {
        let now = Snapshot::take();
        now.real_ns.wrapping_sub(self.at(now, tsc_khz()).ns)
    }

    /// Sets the time; with `realtime`, to what `ns` has become since that wall-clock time.
    pub(crate) fn set(&mut self, ns: u64, realtime: Option<u64>) {
        let now = Snapshot::take();
        let passed = realtime.map_or(0, |then| now.real_ns.saturating_sub(then));
        self.master = now;
        self.offset = ns.wrapping_add(passed).wrapping_sub(now.base_ns);
    }
}

#[kunit_tests(kvm_rs_clock)]
mod tests {
    use super::*;

    const START: Snapshot = Snapshot {
        base_ns: 5_000,
        real_ns: 1_000_000,
        tsc: 700,
        tsc_based: true,
    };

    #[test]
    fn scales() {
        for khz in [1, 100_017, 999_999, 1_000_000, 2_893_299, 4_294_967_295] {
            let scale = Scale::of_khz(khz);
            // A second is a second, to a few parts in a thousand million.
            let ns = scale.ns(u64::from(khz) * 1000);
            assert!(ns.abs_diff(NS_PER_SEC) < 8);
        }
        let scale = Scale::of_khz(1_000_000);
        assert_eq!(scale.ns(12_345), 12_345);
    }

    #[test]
    fn counter_decides() {
        let clock = Clock {
            master: START,
            offset: 0u64.wrapping_sub(5_000),
        };
        let later = Snapshot {
            tsc: 700 + 2_000,
            base_ns: 999_999,
            ..START
        };
        assert_eq!(clock.at(later, 1_000_000).ns, 2_000);
        let other = Snapshot {
            tsc_based: false,
            ..later
        };
        assert_eq!(clock.at(other, 1_000_000).ns, 994_999);
    }
}
