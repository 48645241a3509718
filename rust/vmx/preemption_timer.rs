// SPDX-License-Identifier: GPL-2.0

//! The VMX-preemption timer, which ends a stay in the guest when its time has come.
//!
//! It counts while the guest runs and no longer, from the value that the VMCS has at each entry, down by
//! one each time that a certain bit of the time-stamp counter changes. So what is left is written before
//! each entry while there is a deadline, and only then.

use super::{
    capability::Capabilities,
    controls::pin,
    field,
    vmcs::CurrentVmcs, //
};
use crate::{
    linux::cpu_call,
    x86::cpuid::Feature, //
};
use kernel::prelude::*;

/// How a CPU's timer counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rate {
    /// The bit of the time-stamp counter whose changes it counts.
    bit: u8,
    /// The largest value to use.
    longest: u32,
}

/// CPUs whose VMX-preemption timer does not count as it should, as leaf 1 of CPUID tells them in EAX.
///
/// From Intel's specification updates: BA86, AAX65, AAT59, AAU65, AAO95, AAN92, AAP86, AAM126, AAJ124 and
/// AAK139; and a Xeon E3 of the third generation.
const BROKEN: &[u32] = &[
    0x0002_06e6,
    0x0002_0652,
    0x0002_0655,
    0x0001_06e5,
    0x0001_06a0,
    0x0001_06a1,
    0x0001_06a4,
    0x0001_06a5,
    0x0003_06a8,
];

/// Returns whether the timer of the CPU is broken whose leaf 1 of CPUID has `signature` in EAX.
fn is_broken(signature: u32) -> bool {
    const RESERVED: u32 = 3 << 14 | 0xf << 28;
    BROKEN.contains(&(signature & !RESERVED))
}

/// Returns the largest value with which the timer is not early, as leaf 0x15 of CPUID has it: an erratum of
/// many CPUs (EMR158) allows only what is below 2^25 times the ratio of the time-stamp counter to the
/// crystal.
fn longest(leaf_15: [u32; 4]) -> u32 {
    let [denominator, numerator, ..] = leaf_15;
    let limit = (u64::from(numerator) << 25).checked_div(u64::from(denominator));
    match limit.and_then(|limit| limit.checked_sub(1)) {
        None => u32::MAX,
        Some(limit) => u32::try_from(limit).unwrap_or(u32::MAX),
    }
}

impl Rate {
    /// Returns how the timer of this CPU counts, whose IA32_VMX_MISC is `misc`; `None` if it is broken.
    pub(super) fn of_cpu(misc: u64) -> Option<Self> {
        let [last_leaf, ..] = cpu_call::cpuid(0, 0);
        let [signature, ..] = cpu_call::cpuid(1, 0);
        let tells = last_leaf >= 0x15 && !cpu_call::has(Feature::HYPERVISOR);
        (!is_broken(signature)).then(|| Self {
            // CAST: Five bits.
            bit: (misc & 0x1f) as u8,
            longest: if tells {
                longest(cpu_call::cpuid(0x15, 0))
            } else {
                u32::MAX
            },
        })
    }

    /// Returns the value with which a timer that starts at `now` goes off at `deadline`, both in ticks of
    /// the time-stamp counter: not before it, if the value is not the largest.
    fn count(self, deadline: u64, now: u64) -> u32 {
        let bit = u32::from(self.bit & 31);
        let round_up = (1_u64 << bit).wrapping_sub(1);
        let changes = (deadline.saturating_add(round_up) >> bit).saturating_sub(now >> bit);
        u32::try_from(changes).map_or(self.longest, |changes| changes.min(self.longest))
    }
}

/// No deadline.
const NEVER: u64 = u64::MAX;

/// The timer of a vCPU.
pub(crate) struct PreemptionTimer {
    /// `None` if the vCPU does not use it.
    rate: Option<Rate>,
    /// When it is to go off, by the host's time-stamp counter.
    deadline: u64,
}

impl PreemptionTimer {
    /// Returns one that is not used.
    pub(crate) const fn off() -> Self {
        Self {
            rate: None,
            deadline: NEVER,
        }
    }

    /// Returns that of the VMCS, if the CPU has one.
    pub(crate) fn attach(vmcs: &CurrentVmcs<'_>, capabilities: &Capabilities) -> Self {
        let rate = capabilities.preemption_timer();
        if let Some(rate) = rate {
            vmcs.set_bits(field::PIN_BASED_CONTROLS, pin::VMX_PREEMPTION_TIMER);
            vmcs.write(field::PREEMPTION_TIMER_VALUE, rate.longest);
        }
        Self {
            rate,
            deadline: NEVER,
        }
    }

    /// Returns whether it can be used.
    pub(crate) const fn is_usable(&self) -> bool {
        self.rate.is_some()
    }

    /// Returns whether there is a deadline.
    pub(crate) const fn is_set(&self) -> bool {
        self.deadline != NEVER
    }

    /// Sets the deadline, by the host's time-stamp counter, or takes it away; it is to be [loaded](Self::load).
    pub(crate) fn set(&mut self, deadline: Option<u64>) {
        self.deadline = deadline.unwrap_or(NEVER);
    }

    /// Writes what is left for the next entry, `now` by the host's time-stamp counter.
    ///
    /// Returns whether this is to be done before the entry after that too. What is too far away goes off
    /// early, as does one without a deadline.
    pub(crate) fn load(&self, vmcs: &CurrentVmcs<'_>, now: u64) -> bool {
        if let Some(rate) = self.rate {
            let value = if self.is_set() {
                rate.count(self.deadline, now)
            } else {
                rate.longest
            };
            vmcs.write(field::PREEMPTION_TIMER_VALUE, value);
        }
        self.is_set()
    }
}

#[kunit_tests(kvm_rs_preemption_timer)]
mod tests {
    use super::*;

    #[test]
    fn is_not_early() {
        for bit in [0, 1, 5] {
            let rate = Rate { bit, longest: 1000 };
            for now in 100..200_u64 {
                for deadline in now..now + 100 {
                    let value = u64::from(rate.count(deadline, now));
                    let fires = if value == 0 {
                        now
                    } else {
                        ((now >> bit) + value) << bit
                    };
                    assert!(fires >= deadline);
                    assert!(fires < deadline + (1 << bit));
                }
            }
        }
    }

    #[test]
    fn knows_errata() {
        assert!(is_broken(0x1_06e5));
        assert!(is_broken(0xf001_c6a0));
        assert!(!is_broken(0x3_06c3));
        assert_eq!(longest([0; 4]), u32::MAX);
        assert_eq!(longest([2, 168, 0, 0]), 0xa7ff_ffff);
        assert_eq!(longest([2, 1000, 0, 0]), u32::MAX);
    }

    #[test]
    fn has_limits() {
        let rate = Rate {
            bit: 5,
            longest: 1000,
        };
        assert_eq!(rate.count(7, 1 << 20), 0);
        assert_eq!(rate.count(1 << 60, 1 << 20), 1000);
        assert_eq!(rate.count(NEVER, 0), 1000);
    }
}
