// SPDX-License-Identifier: GPL-2.0

//! Giving the CPU to the thread of another vCPU, which is what this one waits for.

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
    vmx::host_state::HostSwitch, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

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
        owned.runner = ThreadId::current();
        let old = core::mem::replace(&mut *self.runner.thread.lock(), owned.runner.clone());
        // Dropped outside the spinlock.
        drop(old);
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
