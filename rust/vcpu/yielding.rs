// SPDX-License-Identifier: GPL-2.0

//! Giving the CPU to the thread of another vCPU, which is what this one waits for.
//!
//! A guest that knows of its hypervisor says whom it waits for. Of others a loop of PAUSE that lasts
//! tells that they wait, where the CPU can look for such loops: it compares the cycles between two
//! executions, and those since the first, with `PLE_GAP` and `PLE_WINDOW` of the VMCS.

use super::{
    request::Doorbell,
    stats::Event,
    Owned,
    Vcpu, //
};
use crate::{
    linux::task::{
        self,
        SchedOut,
        ThreadId, //
    },
    vm::Vm,
    vmx::{
        field,
        host_state::HostSwitch,
        vmcs::CurrentVmcs, //
    }, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// Cycles between two PAUSEs of one loop, at most; as KVM's.
pub(super) const PAUSE_GAP: u32 = 128;

/// Cycles that such a loop may last at first; as KVM's.
pub(super) const PAUSE_WINDOW: u32 = 4096;

/// How many vCPUs' threads are offered the CPU that a guest's loop wastes.
const OFFERS: usize = 3;

/// Lets a loop of PAUSE last longer if nobody wanted the CPU, else as long as at first.
pub(super) fn adapt_window(vmcs: &CurrentVmcs<'_>, yielded: bool) {
    let window = if yielded {
        PAUSE_WINDOW
    } else {
        vmcs.read(field::PLE_WINDOW).saturating_mul(2)
    };
    vmcs.write(field::PLE_WINDOW, window);
}

/// What is to be done when a vCPU's thread loses its CPU and gets one.
pub(crate) struct Scheduling {
    /// The lazily switched state.
    pub(super) host: HostSwitch,
    doorbell: Arc<Doorbell>,
}

impl Scheduling {
    /// Returns what is to be done for the vCPU with this doorbell.
    pub(super) fn new(doorbell: Arc<Doorbell>) -> Self {
        Self {
            host: HostSwitch::new(),
            doorbell,
        }
    }
}

impl SchedOut for Scheduling {
    fn sched_out(&self) {
        self.host.to_host();
        if task::is_runnable() {
            self.doorbell.set_ready(true);
        }
    }

    fn sched_in(&self) {
        self.doorbell.set_ready(false);
    }
}

/// The thread that ran a vCPU last, as other threads see it.
#[pin_data]
pub(crate) struct Runner {
    #[pin]
    thread: SpinLock<Option<ThreadId>>,
}

impl Runner {
    /// Returns an initialiser for that of a vCPU that has not run.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            thread <- new_spinlock!(None),
        })
    }
}

impl Vcpu {
    /// Notes that the current thread runs the vCPU.
    #[inline]
    pub(super) fn note_runner(&self, owned: &mut Owned) {
        if !owned.runner.as_ref().is_some_and(ThreadId::is_current) {
            self.change_runner(owned);
        }
    }

    #[cold]
    fn change_runner(&self, owned: &mut Owned) {
        self.view.set_pid(kernel::current!().pid());
        owned.runner = ThreadId::current();
        let old = core::mem::replace(&mut *self.runner.thread.lock(), owned.runner.clone());
        // Dropped outside the spinlock.
        drop(old);
    }

    /// Gives the CPU to the thread of another vCPU that waits for one, if there is any; returns whether
    /// there was. May schedule.
    pub(super) fn yield_to_any(&self, vm: &Vm) -> bool {
        for _ in 0..OFFERS {
            let waiting = vm.vcpus().find_next(|other| {
                if core::ptr::eq(other, self) || !other.doorbell().is_ready() {
                    return None;
                }
                other.runner.thread.lock().clone()
            });
            let Some(thread) = waiting else {
                return false;
            };
            self.count_event(Event::DirectedYieldAttempted);
            if thread.yield_to() {
                self.count_event(Event::DirectedYieldSuccessful);
                return true;
            }
        }
        false
    }

    /// Gives the CPU to the thread of the vCPU with the physical APIC ID `id`, if it waits for one. May
    /// schedule.
    pub(super) fn yield_to(&self, vm: &Vm, id: u32) {
        self.count_event(Event::DirectedYieldAttempted);
        // With nobody else on this CPU the other one has better ones to run on.
        if task::is_alone() {
            return;
        }
        let target = vm.vcpus().destinations().with_ids(|vcpus| {
            let target = vcpus.find(id)?;
            if core::ptr::eq(target, self) || !target.doorbell().is_ready() {
                return None;
            }
            target.runner.thread.lock().clone()
        });
        if target.flatten().is_some_and(|thread| thread.yield_to()) {
            self.count_event(Event::DirectedYieldSuccessful);
        }
    }
}
