// SPDX-License-Identifier: GPL-2.0

//! NMIs: those that wait, and what keeps them back while the handler of one runs.
//!
//! With virtual NMIs the CPU knows: an injected NMI blocks further ones until IRET. Without them
//! (`vnmi=0`, or a CPU that has none) nobody sees that IRET. Then, as with KVM, the handler is taken to be
//! over as soon as the guest takes interrupts; or, if another NMI waits for it, once the guest has run
//! for a second without taking any.

use super::state::State;
use crate::{
    linux::cpu_call,
    vmx::{
        field,
        guest_state::BLOCKING_BY_NMI,
        vmcs::CurrentVmcs, //
    }, //
};
use kernel::prelude::*;

/// The NMIs of a vCPU: how many wait, and whether software blocks them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Nmis(u8);

/// Software blocks them.
const BLOCKED: u8 = 1 << 7;

impl Nmis {
    /// Returns whether there is nothing to be looked at before an entry.
    #[inline]
    pub(crate) const fn is_quiet(self) -> bool {
        self.0 == 0
    }

    /// Returns how many wait.
    pub(crate) const fn waiting(self) -> u8 {
        self.0 & !BLOCKED
    }

    /// Sets how many wait, 127 at most.
    pub(crate) const fn set_waiting(&mut self, number: u8) {
        let number = if number < BLOCKED {
            number
        } else {
            BLOCKED - 1
        };
        self.0 = self.0 & BLOCKED | number;
    }

    const fn is_blocked(self) -> bool {
        self.0 & BLOCKED != 0
    }

    const fn set_blocked(&mut self, blocked: bool) {
        self.0 = self.waiting() | if blocked { BLOCKED } else { 0 };
    }
}

/// How long the guest has been in an NMI's handler, where the CPU does not know of it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct HandlerTime {
    /// Cycles of the host's TSC since the NMI, but for those outside the run loop.
    cycles: u64,
    /// When the time that is not counted yet began; 0 if it is not running.
    since: u64,
}

impl HandlerTime {
    /// Counts up to `now`, and from there on. Returns the cycles.
    const fn count(&mut self, now: u64) -> u64 {
        if self.since != 0 {
            self.cycles = self.cycles.wrapping_add(now.wrapping_sub(self.since));
        }
        self.since = now;
        self.cycles
    }

    /// Stops counting: what comes is not the guest's time.
    const fn stop(&mut self) {
        self.since = 0;
    }
}

impl State {
    /// Returns whether an NMI would have to wait for the end of another one's handler.
    pub(crate) fn blocks_nmis(&self, vmcs: &CurrentVmcs<'_>) -> bool {
        if self.nmi_handler.is_some() {
            self.events.nmis.is_blocked()
        } else {
            vmcs.read(field::GUEST_INTERRUPTIBILITY) & BLOCKING_BY_NMI != 0
        }
    }

    /// Has NMIs wait for the end of a handler, or no more.
    pub(crate) fn set_blocks_nmis(&mut self, vmcs: &CurrentVmcs<'_>, blocks: bool) {
        if let Some(time) = &mut self.nmi_handler {
            if blocks != self.events.nmis.is_blocked() {
                *time = HandlerTime::default();
            }
            self.events.nmis.set_blocked(blocks);
        } else if blocks {
            vmcs.set_bits(field::GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI);
        } else {
            vmcs.clear_bits(field::GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI);
        }
    }

    /// Notes that an NMI is injected, which the CPU does by itself if it has virtual NMIs.
    pub(crate) fn note_nmi(&mut self) {
        if let Some(time) = &mut self.nmi_handler {
            *time = HandlerTime::default();
            self.events.nmis.set_blocked(true);
        }
    }

    /// Has an IRET blocked again that had unblocked NMIs before it exited, and will be executed again.
    pub(crate) fn block_nmis_again(&self, vmcs: &CurrentVmcs<'_>) {
        if self.nmi_handler.is_none() {
            vmcs.set_bits(field::GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI);
        }
    }

    /// Unblocks NMIs where that is up to software, and it is time. Interrupts are off.
    pub(super) fn follow_nmi_handler(&mut self, vmcs: &CurrentVmcs<'_>) {
        if self.nmi_handler.is_none() || !self.events.nmis.is_blocked() {
            return;
        }
        // To the CPU, the injected NMI is one that blocks the host's own.
        vmcs.clear_bits(field::GUEST_INTERRUPTIBILITY, BLOCKING_BY_NMI);
        let over = self.takes_interrupts(vmcs);
        let waits = self.events.nmis.waiting() != 0;
        if let Some(time) = &mut self.nmi_handler {
            let second = u64::from(cpu_call::tsc_khz()).wrapping_mul(1000);
            let cycles = time.count(cpu_call::rdtsc());
            if over || waits && cycles > second {
                self.events.nmis.set_blocked(false);
            }
        }
    }

    /// Notes that the vCPU's thread leaves the run loop.
    #[inline]
    pub(super) fn leave_nmi_handler(&mut self) {
        if let Some(time) = &mut self.nmi_handler {
            time.stop();
        }
    }
}

#[kunit_tests(kvm_rs_nmi)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_blocked_are_apart() {
        let mut nmis = Nmis::default();
        assert!(nmis.is_quiet());
        nmis.set_waiting(2);
        nmis.set_blocked(true);
        assert!(nmis.is_blocked() && nmis.waiting() == 2);
        nmis.set_waiting(0);
        assert!(nmis.is_blocked() && !nmis.is_quiet());
        nmis.set_waiting(255);
        nmis.set_blocked(false);
        assert!(!nmis.is_blocked() && nmis.waiting() == 127);
    }

    #[test]
    fn only_time_in_the_run_loop_counts() {
        let mut time = HandlerTime::default();
        assert_eq!(time.count(1000), 0);
        assert_eq!(time.count(1500), 500);
        time.stop();
        assert_eq!(time.count(9000), 500);
        assert_eq!(time.count(9100), 600);
    }
}
