// SPDX-License-Identifier: GPL-2.0

//! Sleeping until others have done something, where these may be interrupt handlers.
//!
//! The kernel crate's `CondVar` needs a lock around the condition, which a handler that runs with
//! interrupts off cannot take.

use crate::bindings;
use core::{
    ffi::c_void,
    ptr, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// A place for one task at a time to sleep at, and for any context to wake it.
pub(crate) struct TaskWait(Opaque<kernel::bindings::rcuwait>);

// SAFETY: It refers to a task only while that task borrows it.
unsafe impl Send for TaskWait {}
// SAFETY: The waiting task is published by an RCU pointer.
unsafe impl Sync for TaskWait {}

impl TaskWait {
    /// Returns a place at which nobody sleeps.
    pub(crate) const fn new() -> Self {
        Self(Opaque::new(kernel::bindings::rcuwait {
            task: ptr::null_mut(),
        }))
    }

    /// Sleeps until `ready` returns true; `EINTR` if a signal came first.
    ///
    /// `ready` must not sleep. It is called again after each [`TaskWait::wake`], and sees what was
    /// stored before that. If two tasks came to sleep at once, one would miss wake-ups.
    pub(crate) fn wait_interruptible<F: Fn() -> bool>(&self, ready: &F) -> Result {
        /// Calls the closure behind `data`.
        ///
        /// # Safety
        ///
        /// `data` must be a pointer to an `F` that is valid for the duration of the call.
        unsafe extern "C" fn trampoline<F: Fn() -> bool>(data: *const c_void) -> bool {
            // SAFETY: `data` is the reference that `wait_interruptible` passed and keeps borrowed.
            let ready = unsafe { &*data.cast::<F>() };
            ready()
        }
        let data: *const F = ready;
        // SAFETY: The place is valid, and `data` is what the trampoline expects. The current task
        // is taken off the place again before the call returns.
        let ret = unsafe {
            bindings::kvm_rs_wait_interruptible(self.0.get(), Some(trampoline::<F>), data.cast())
        };
        kernel::error::to_result(ret)
    }

    /// Wakes the task that sleeps here, if one does. Any context.
    #[inline]
    pub(crate) fn wake(&self) {
        // SAFETY: The place is valid; the task that it names is protected by RCU.
        unsafe { kernel::bindings::rcuwait_wake_up(self.0.get()) };
    }
}
