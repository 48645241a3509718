// SPDX-License-Identifier: GPL-2.0

//! The local APIC's timer on the CPU's and on the host's.
//!
//! The counter modes run on the host's monotonic clock as they are, and a TSC deadline on the host's
//! time-stamp counter. While the guest runs, the CPU's VMX-preemption timer tells that the time has come; no
//! timer does while the vCPU's thread does something else, since it looks before the next VM entry. For a
//! halted vCPU, and where the CPU's timer cannot be used, the host's does. Each takes a time of the
//! other's clock too; since the two clocks drift apart, it may go off early, and is then armed again for what
//! is left.

use crate::{
    lapic::{
        ArmTimer,
        Now, //
    },
    linux::{
        cpu_call::rdtsc,
        timer::{
            now_ns,
            Expire, //
        }, //
    },
    vcpu::{
        request::{
            Doorbell,
            Request, //
        },
        state::State,
        tsc::{
            ns_to_host_ticks,
            ticks_to_ns, //
        },
        Vcpu, //
    }, //
};
use kernel::sync::Arc;

/// Has the vCPU's thread look at the timer.
pub(super) struct Ring(Arc<Doorbell>);

impl Ring {
    /// Returns what rings `doorbell`.
    pub(super) fn new(doorbell: Arc<Doorbell>) -> Self {
        Self(doorbell)
    }
}

impl Expire for Ring {
    const HARD: bool = true;

    fn expired(&self, _ticks: u64) {
        self.0.ring(Request::Timer);
    }
}

/// Which timer is to tell that the local APIC's time has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The CPU's, if the vCPU has it: it counts while the guest runs.
    Cpu,
    /// The host's, for a vCPU that is halted.
    Host,
}

impl Vcpu {
    /// Makes the timer stand as `wanted`; if that time is past, the guest's expires now.
    pub(super) fn arm_timer(&self, state: &mut State, wanted: ArmTimer) {
        self.arm_timer_by(state, wanted, By::Cpu);
    }

    /// Brings the local APIC's timer up to date: it expires if its time has come, and what tells of the next
    /// time is armed. Returns whether it expired.
    ///
    /// To be called when [`Request::Timer`] was taken, when the CPU's timer ended the stay in the guest, and
    /// after the guest's TSC was set.
    pub(crate) fn on_timer(&self, state: &mut State) -> bool {
        match &state.lapic {
            Some(owned) => {
                let wanted = owned.timer().armed();
                self.arm_timer_by(state, wanted, By::Cpu)
            }
            None => false,
        }
    }

    /// Notes that the host's timer went off.
    pub(crate) fn on_host_timer(&self, state: &mut State) {
        state.host_timer = false;
        self.on_timer(state);
    }

    /// Has the host's timer tell what the CPU's would tell in the guest, as the vCPU is halted; returns
    /// whether the time has come.
    pub(crate) fn leave_timer_to_host(&self, state: &mut State) -> bool {
        match &state.lapic {
            Some(owned) if state.timer.is_set() => {
                let wanted = owned.timer().armed();
                self.arm_timer_by(state, wanted, By::Host)
            }
            _ => false,
        }
    }

    /// Stops the timer.
    pub(super) fn stop_timer(&self, state: &mut State) {
        if state.timer.is_set() {
            state.set_timer(None);
        }
        if let Some(controller) = self.controller() {
            controller.timer.cancel();
            state.host_timer = false;
        }
    }

    /// See [`Self::arm_timer`]; returns whether the guest's expired.
    fn arm_timer_by(&self, state: &mut State, wanted: ArmTimer, by: By) -> bool {
        let (Some(controller), Some(owned)) = (self.controller(), state.lapic.as_mut()) else {
            return false;
        };
        let tsc = state.tsc;
        let host_tsc = rdtsc();
        let guest_tsc = tsc.at(host_tsc);
        let due = match wanted {
            ArmTimer::Cancel => false,
            ArmTimer::At(ns) => ns <= now_ns(),
            ArmTimer::AtTsc(deadline) => deadline <= guest_tsc,
        };
        let wanted = if due {
            let now = Now {
                ns: now_ns(),
                guest_tsc,
            };
            // Its interrupt is seen before the next VM entry, like all that this thread posts.
            controller.lapic().expire(owned, now).arm
        } else {
            wanted
        };
        if by == By::Cpu && state.timer.is_usable() && !tsc.catches_up() {
            if core::mem::take(&mut state.host_timer) {
                controller.timer.cancel();
            }
            let left = match wanted {
                ArmTimer::Cancel => None,
                ArmTimer::At(ns) => Some(ns_to_host_ticks(ns.saturating_sub(now_ns()))),
                ArmTimer::AtTsc(deadline) => {
                    Some(tsc.host_ticks(deadline.saturating_sub(guest_tsc)))
                }
            };
            if left.is_some() || state.timer.is_set() {
                state.set_timer(left.map(|left| host_tsc.saturating_add(left)));
            }
            return due;
        }
        if state.timer.is_set() {
            state.set_timer(None);
        }
        let at = match wanted {
            ArmTimer::Cancel => {
                if core::mem::take(&mut state.host_timer) {
                    controller.timer.cancel();
                }
                return due;
            }
            ArmTimer::At(ns) => ns,
            ArmTimer::AtTsc(deadline) => {
                let left = ticks_to_ns(deadline.saturating_sub(guest_tsc), tsc.khz);
                now_ns().saturating_add(left)
            }
        };
        state.host_timer = true;
        controller.timer.arm(at);
        due
    }
}
