// SPDX-License-Identifier: GPL-2.0

//! The local APIC's timer on the host's.
//!
//! The counter modes run on the host's monotonic clock as they are. A TSC deadline is turned into a
//! time of that clock; since the two clocks drift apart, the host's timer may go off early, and is then
//! armed again for what is left.

use super::InterruptController;
use crate::{
    lapic::{
        ArmTimer,
        Now,
        Owned, //
    },
    linux::timer::{
        now_ns,
        Expire, //
    },
    vcpu::{
        request::{
            Doorbell,
            Request, //
        },
        state::State,
        tsc::GuestTsc,
        Vcpu, //
    }, //
};
use kernel::sync::Arc;

/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;

/// Has the vCPU's thread look at the timer.
pub(super) struct Ring(Arc<Doorbell>);

impl Ring {
    /// Returns what rings `doorbell`.
    pub(super) fn new(doorbell: Arc<Doorbell>) -> Self {
        Self(doorbell)
    }
}

impl Expire for Ring {
    fn expired(&self) {
        self.0.ring(Request::Timer);
    }
}

impl InterruptController {
    /// Makes the host's timer stand as `wanted`; if that time is past, the guest's expires now.
    pub(super) fn arm(&self, owned: &mut Owned, tsc: GuestTsc, wanted: ArmTimer) {
        let now = Now {
            ns: now_ns(),
            guest_tsc: tsc.now(),
        };
        let due = match wanted {
            ArmTimer::Cancel => false,
            ArmTimer::At(ns) => ns <= now.ns,
            ArmTimer::AtTsc(deadline) => deadline <= now.guest_tsc,
        };
        let wanted = if due {
            // Its interrupt is seen before the next VM entry, like all that this thread posts.
            self.lapic().expire(owned, now).arm
        } else {
            wanted
        };
        match wanted {
            ArmTimer::Cancel => self.timer.cancel(),
            ArmTimer::At(ns) => self.timer.arm(ns),
            ArmTimer::AtTsc(deadline) => {
                let left = ticks_to_ns(deadline.saturating_sub(now.guest_tsc), tsc.khz);
                self.timer.arm(now.ns.saturating_add(left));
            }
        }
    }
}

impl Vcpu {
    /// Brings the local APIC's timer up to date: it expires if its time has come, and the host's timer
    /// is armed for what comes next.
    ///
    /// To be called when [`Request::Timer`] was taken, and after the guest's TSC was set.
    pub(crate) fn on_timer(&self, state: &mut State) {
        if let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_mut()) {
            let wanted = owned.timer().armed();
            controller.arm(owned, state.tsc, wanted);
        }
    }
}

/// Returns how many nanoseconds `ticks` of a clock of `khz` kHz take, rounded up.
fn ticks_to_ns(ticks: u64, khz: u32) -> u64 {
    // A clock that stands never gets there.
    let khz = u64::from(khz);
    let (Some(ms), Some(rest)) = (ticks.checked_div(khz), ticks.checked_rem(khz)) else {
        return u64::MAX;
    };
    // The rest is below 2^32, so that its product fits.
    let rest_ns = rest.saturating_mul(NS_PER_MS).div_ceil(khz);
    ms.saturating_mul(NS_PER_MS).saturating_add(rest_ns)
}
