// SPDX-License-Identifier: GPL-2.0

//! What a vCPU does while it has nothing to do: it polls for a while, and then sleeps.
//!
//! Who waits for an interrupt often gets it soon, and to sleep and to be woken takes long; so a halted
//! vCPU first looks by itself as long as nothing else wants the CPU. How long, each vCPU learns from how
//! its halts end. This is KVM's halt polling, see Documentation/virt/kvm/halt-polling.rst.

use super::{
    run::{
        handle_requests,
        Next, //
    },
    state::{
        MpState,
        State, //
    },
    stats::{
        Event,
        Histogram, //
    },
    Owned,
    Vcpu, //
};
use crate::{
    bindings,
    linux::{
        parameter::{
            self,
            HaltPolling, //
        },
        task,
        timer::now_ns, //
    },
    vm::Vm,
};
use kernel::prelude::*;

/// How long a vCPU polls, in nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct PollTime(u32);

impl PollTime {
    /// Learns from a halt of `halted_ns` nanoseconds; `limit` is the longest time to poll.
    fn learn(&mut self, halted_ns: u64, limit: u32, parameters: &HaltPolling) {
        if limit == 0 {
            self.0 = 0;
        } else if halted_ns <= u64::from(self.0) {
            // It was right.
        } else if self.0 != 0 && halted_ns > u64::from(limit) {
            let shrunk = self.0.checked_div(parameters.shrink).unwrap_or(0);
            self.0 = if shrunk < parameters.grow_start {
                0
            } else {
                shrunk
            };
        } else if self.0 < limit && halted_ns < u64::from(limit) && parameters.grow != 0 {
            let grown = self.0.saturating_mul(parameters.grow);
            self.0 = grown.max(parameters.grow_start);
        }
    }
}

/// Sleeps until a halted vCPU, or one that waits for its startup, has something to do.
pub(super) fn wait(vm: &Vm, vcpu: &Vcpu, owned: &mut Owned) -> Result<Next> {
    loop {
        handle_requests(vm, vcpu, owned);
        if owned.state.mp_state == MpState::Runnable {
            return Ok(Next::Resume);
        }
        let mp_state = owned.state.mp_state;
        let halted = matches!(mp_state, MpState::Halted | MpState::ApResetHold);
        if (halted || mp_state == MpState::AwaitsPage) && is_to_go_on(vcpu, owned) {
            if halted {
                vcpu.count_event(Event::HaltWakeup);
                vcpu.forget_unhalt();
            }
            owned.state.mp_state = MpState::Runnable;
            return Ok(Next::Resume);
        }
        if vcpu.leave_timer_to_host(&mut owned.state) {
            continue;
        }
        let interrupted = if owned.state.mp_state == MpState::Halted {
            poll_and_sleep(vm, vcpu, &mut owned.state)
        } else {
            vcpu.set_blocking(true);
            let interrupted = vcpu.doorbell().sleep();
            vcpu.set_blocking(false);
            interrupted
        };
        if interrupted {
            vcpu.count_event(Event::SignalExit);
            vcpu.run_page().set_exit_reason(bindings::KVM_EXIT_INTR);
            return Err(EINTR);
        }
    }
}

/// Returns whether something ends the vCPU's halt.
fn is_to_go_on(vcpu: &Vcpu, owned: &mut Owned) -> bool {
    let state = &owned.state;
    if state.events.exception.is_some()
        || state.events.are_for_client()
        || vcpu.is_unhalted()
        || vcpu.is_wakeable(state)
        || state.async_pages.has_ready()
    {
        return true;
    }
    // One that comes while another is handled waits for that one's end.
    state.events.nmis.waiting() > 0 && owned.with_vmcs(|vmcs, state| !state.blocks_nmis(vmcs))
}

/// Waits for a request, at first by looking for it; returns whether a signal came instead.
fn poll_and_sleep(vm: &Vm, vcpu: &Vcpu, state: &mut State) -> bool {
    let parameters = parameter::halt_polling();
    let limit = vm.settings().halt_poll_ns().unwrap_or(parameters.ns);
    state.poll_time.0 = state.poll_time.0.min(limit);
    let polls = state.pv.host_polls();
    let start = now_ns();
    let mut polled_until = start;
    let mut came = false;
    if polls && state.poll_time.0 != 0 {
        let stop = start.saturating_add(u64::from(state.poll_time.0));
        loop {
            if vcpu.doorbell().is_pending() || task::signal_pending() {
                came = true;
                break;
            }
            if !task::may_poll() || polled_until >= stop {
                break;
            }
            polled_until = now_ns();
        }
        let polled_ns = polled_until.saturating_sub(start);
        vcpu.count_event(Event::HaltAttemptedPoll);
        // One that came between the last look and going to sleep counts too.
        came |= vcpu.doorbell().is_pending();
        if came {
            vcpu.count_event(Event::HaltSuccessfulPoll);
            vcpu.add_to_event(Event::HaltPollSuccessNs, polled_ns);
            vcpu.add_to_histogram(Histogram::PollSuccess, polled_ns);
        } else {
            vcpu.add_to_event(Event::HaltPollFailNs, polled_ns);
            vcpu.add_to_histogram(Histogram::PollFail, polled_ns);
        }
    }
    let mut interrupted = false;
    let mut end = polled_until;
    if came {
        interrupted = !vcpu.doorbell().is_pending() && task::signal_pending();
    } else {
        let waits = !vcpu.doorbell().is_pending();
        vcpu.set_blocking(true);
        interrupted = vcpu.doorbell().sleep() || interrupted;
        vcpu.set_blocking(false);
        end = now_ns();
        if waits {
            let waited_ns = end.saturating_sub(polled_until);
            vcpu.add_to_event(Event::HaltWaitNs, waited_ns);
            vcpu.add_to_histogram(Histogram::Wait, waited_ns);
        }
    }
    if polls {
        let halted_ns = end.saturating_sub(start);
        state.poll_time.learn(halted_ns, limit, &parameters);
    }
    interrupted
}

#[kunit_tests(kvm_rs_vcpu_halt)]
mod tests {
    use super::*;

    const PARAMETERS: HaltPolling = HaltPolling {
        ns: 200_000,
        grow: 2,
        grow_start: 10_000,
        shrink: 2,
    };

    fn after(start: u32, halted_ns: u64, parameters: &HaltPolling) -> u32 {
        let mut time = PollTime(start);
        time.learn(halted_ns, parameters.ns, parameters);
        time.0
    }

    #[test]
    fn learns_as_kvm_does() {
        // Short halts: it begins, and doubles while it is too short, also beyond the limit.
        assert_eq!(after(0, 5_000, &PARAMETERS), 10_000);
        assert_eq!(after(10_000, 30_000, &PARAMETERS), 20_000);
        assert_eq!(after(160_000, 170_000, &PARAMETERS), 320_000);
        // It was long enough.
        assert_eq!(after(20_000, 20_000, &PARAMETERS), 20_000);
        // Long halts: it halves, and ends below the least time.
        assert_eq!(after(160_000, 200_001, &PARAMETERS), 80_000);
        assert_eq!(after(10_000, 1 << 40, &PARAMETERS), 0);
        assert_eq!(after(0, 1 << 40, &PARAMETERS), 0);
    }

    #[test]
    fn parameters_turn_it_off() {
        let no_growth = HaltPolling {
            grow: 0,
            ..PARAMETERS
        };
        assert_eq!(after(0, 5_000, &no_growth), 0);
        let no_shrinking = HaltPolling {
            shrink: 0,
            ..PARAMETERS
        };
        assert_eq!(after(160_000, 1 << 40, &no_shrinking), 0);
        let off = HaltPolling {
            ns: 0,
            ..PARAMETERS
        };
        assert_eq!(after(20_000, 5_000, &off), 0);
    }
}
