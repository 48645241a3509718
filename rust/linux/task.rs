// SPDX-License-Identifier: GPL-2.0

//! The current task: its signals, and the news when it is scheduled out.

use crate::bindings;
use core::{
    marker::PhantomPinned,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Returns whether a signal waits for the current task.
pub(crate) fn signal_pending() -> bool {
    // SAFETY: Looking at the current task's flags has no preconditions.
    unsafe { bindings::kvm_rs_signal_pending() }
}

/// Returns whether a signal, a reschedule or other work keeps the task from entering a guest.
#[inline]
pub(crate) fn work_pending() -> bool {
    // SAFETY: Looking at the current task's flags has no preconditions.
    unsafe { bindings::kvm_rs_guest_work_pending() }
}

/// Returns whether the current process may reboot the system.
pub(crate) fn may_reboot() -> bool {
    // SAFETY: Looking at the current task's credentials has no preconditions.
    unsafe { bindings::kvm_rs_may_reboot() }
}

/// Does the work that waits for the task, rescheduling if asked to; `EINTR` if a signal waits.
pub(crate) fn handle_work() -> Result {
    // SAFETY: Called in process context with interrupts on.
    kernel::error::to_result(unsafe { bindings::kvm_rs_handle_guest_work() })
}

/// Returns whether nothing else wants this CPU.
pub(crate) fn is_alone() -> bool {
    // SAFETY: Looking at the run queue's length has no preconditions.
    unsafe { bindings::kvm_rs_single_task_running() }
}

/// Relaxes the CPU once; returns whether the task may go on polling, as nothing else wants the CPU.
#[inline]
pub(crate) fn may_poll() -> bool {
    // SAFETY: It has no preconditions.
    unsafe { bindings::kvm_rs_may_poll() }
}

/// Returns whether the current task is about to lose its CPU to another one.
#[inline]
pub(crate) fn is_to_give_way() -> bool {
    // SAFETY: Looking at the current task's flags has no preconditions.
    unsafe { bindings::kvm_rs_is_to_give_way() }
}

/// A thread, which may be gone.
///
/// # Invariants
///
/// It owns a count of the identifier.
pub(crate) struct ThreadId(NonNull<kernel::bindings::pid>);

// SAFETY: An identifier is counted and may be used from any thread.
unsafe impl Send for ThreadId {}
// SAFETY: As above.
unsafe impl Sync for ThreadId {}

impl ThreadId {
    /// Returns the current thread.
    pub(crate) fn current() -> Option<Self> {
        // SAFETY: The current task has an identifier.
        let pid = unsafe { bindings::kvm_rs_current_pid_get() };
        // INVARIANT: The count was taken for this object.
        NonNull::new(pid).map(Self)
    }

    /// Returns whether this is the current thread.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        // SAFETY: The current task has an identifier.
        self.0.as_ptr() == unsafe { bindings::kvm_rs_current_pid() }
    }

    /// Gives the thread the CPU, if the scheduler agrees; returns whether it does. May schedule.
    pub(crate) fn yield_to(&self) -> bool {
        // SAFETY: By the type's invariant the identifier is there.
        unsafe { bindings::kvm_rs_yield_to(self.0.as_ptr()) }
    }
}

impl Clone for ThreadId {
    fn clone(&self) -> Self {
        // SAFETY: By the type's invariant the identifier is there.
        unsafe { bindings::kvm_rs_pid_get(self.0.as_ptr()) };
        // INVARIANT: The count was taken for the new object.
        Self(self.0)
    }
}

impl Drop for ThreadId {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the count is this object's.
        unsafe { bindings::kvm_rs_pid_put(self.0.as_ptr()) };
    }
}

/// Returns whether the current task, which is scheduled out, goes on as soon as it gets a CPU.
pub(crate) fn is_runnable() -> bool {
    // SAFETY: Looking at the current task's state has no preconditions.
    unsafe { bindings::kvm_rs_is_runnable() }
}

/// What wants to know that its task is scheduled out and in.
pub(crate) trait SchedOut {
    /// Called on the CPU that the task leaves, with preemption off.
    fn sched_out(&self);

    /// Called on the CPU that the task comes to, with preemption off.
    fn sched_in(&self) {}
}

/// A registration for news of the current task's scheduling.
#[pin_data]
pub(crate) struct PreemptNotifier<T: SchedOut> {
    #[pin]
    raw: Opaque<bindings::preempt_notifier>,
    /// What to call; the registration is alive only while this is.
    #[pin]
    pub(crate) inner: T,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: Registration is bound to a thread only while `with_registered` runs in it.
unsafe impl<T: SchedOut + Send> Send for PreemptNotifier<T> {}
// SAFETY: `with_registered` is called by one thread at a time, and `inner` may be shared.
unsafe impl<T: SchedOut + Sync> Sync for PreemptNotifier<T> {}

impl<T: SchedOut> PreemptNotifier<T> {
    const OPERATIONS: bindings::preempt_ops = bindings::preempt_ops {
        sched_in: Some(Self::sched_in),
        sched_out: Some(Self::sched_out),
    };

    /// Tells `inner` that the task is scheduled in.
    ///
    /// # Safety
    ///
    /// As for [`Self::sched_out`].
    unsafe extern "C" fn sched_in(notifier: *mut bindings::preempt_notifier, _cpu: i32) {
        let raw: *const Opaque<bindings::preempt_notifier> = notifier.cast();
        // SAFETY: As in `sched_out`.
        let this = unsafe { kernel::container_of!(raw, Self, raw) };
        // SAFETY: As in `sched_out`.
        unsafe { &*this }.inner.sched_in();
    }

    /// Tells `inner` that the task is scheduled out.
    ///
    /// # Safety
    ///
    /// `notifier` must be the field `raw` of a pinned `PreemptNotifier<T>` that is registered for the
    /// current task.
    unsafe extern "C" fn sched_out(
        notifier: *mut bindings::preempt_notifier,
        _next: *mut kernel::bindings::task_struct,
    ) {
        let raw: *const Opaque<bindings::preempt_notifier> = notifier.cast();
        // SAFETY: The notifier is the field `raw` of a `PreemptNotifier<T>`, which is pinned and
        // outlives its registration.
        let this = unsafe { kernel::container_of!(raw, Self, raw) };
        // SAFETY: As above; the callback runs in the registered task, which only holds shared
        // references to it.
        unsafe { &*this }.inner.sched_out();
    }

    /// Returns an initialiser for an unregistered notifier around `inner`.
    pub(crate) fn new<E>(inner: impl PinInit<T, E>) -> impl PinInit<Self, Error>
    where
        Error: From<E>,
    {
        try_pin_init!(Self {
            raw <- Opaque::ffi_init(|slot| {
                let operations: &'static bindings::preempt_ops = &Self::OPERATIONS;
                // SAFETY: `slot` is memory for a notifier; the operations are static and are only
                // read through the pointer.
                unsafe {
                    bindings::kvm_rs_preempt_notifier_init(
                        slot,
                        (&raw const *operations).cast_mut(),
                    )
                };
            }),
            inner <- inner,
            _pin: PhantomPinned,
        }? Error)
    }

    /// Calls `f` with the notifier registered for the current task.
    ///
    /// Must not be called again on the same notifier from inside `f` or from another thread: the
    /// vCPU's mutex, which the caller holds, sees to that.
    pub(crate) fn with_registered<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: The notifier is initialised and pinned, as it can be made by pinned initialisation
        // only, and it is not registered (see above).
        unsafe { bindings::preempt_notifier_register(self.raw.get()) };
        let result = f();
        // SAFETY: It was registered above, for the current task.
        unsafe { bindings::preempt_notifier_unregister(self.raw.get()) };
        result
    }
}

/// Preempt notifiers are possible, for as long as this exists.
///
/// While there is none, the scheduler does not look for them.
pub(crate) struct PreemptNotifiers(());

impl PreemptNotifiers {
    /// Makes notifiers possible. May sleep.
    pub(crate) fn enable() -> Self {
        // SAFETY: It has no preconditions; the drop undoes it.
        unsafe { bindings::preempt_notifier_inc() };
        Self(())
    }
}

impl Drop for PreemptNotifiers {
    fn drop(&mut self) {
        // SAFETY: The value's existence shows that `enable` was called.
        unsafe { bindings::preempt_notifier_dec() };
    }
}
