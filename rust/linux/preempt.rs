// SPDX-License-Identifier: GPL-2.0

//! Preemption and interrupts as guards.

use crate::bindings;
use kernel::types::NotThreadSafe;

/// Proof that preemption is off: the current task stays on this CPU.
#[must_use = "preemption is on again when the guard is dropped"]
pub(crate) struct PreemptGuard {
    _not_send: NotThreadSafe,
}

impl PreemptGuard {
    /// Disables preemption.
    #[inline]
    pub(crate) fn new() -> Self {
        // SAFETY: Preemption may be disabled in any context; the guard's drop enables it again.
        unsafe { bindings::kvm_rs_preempt_disable() };
        Self {
            _not_send: NotThreadSafe,
        }
    }

    /// Returns the CPU that the task stays on, below `nr_cpu_ids`.
    #[inline]
    pub(crate) fn cpu(&self) -> u32 {
        // SAFETY: Reading the CPU's number has no preconditions.
        unsafe { bindings::kvm_rs_this_cpu() }
    }
}

impl Drop for PreemptGuard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: The guard's existence shows that preemption was disabled by `new`.
        unsafe { bindings::kvm_rs_preempt_enable() };
    }
}

/// Proof that interrupts are off on this CPU.
#[must_use = "interrupts are as they were before when the guard is dropped"]
pub(crate) struct IrqGuard {
    flags: kernel::ffi::c_ulong,
    _not_send: NotThreadSafe,
}

impl IrqGuard {
    /// Disables interrupts, if they are not off already.
    #[inline]
    pub(crate) fn new() -> Self {
        Self {
            // SAFETY: Interrupts may be disabled in any context; the guard's drop restores them.
            flags: unsafe { bindings::kvm_rs_irq_save() },
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for IrqGuard {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `flags` comes from `new`, on this CPU: with interrupts off nothing moves us.
        unsafe { bindings::kvm_rs_irq_restore(self.flags) };
    }
}

/// Runs `f` with interrupts off, whether they were on or not.
pub(crate) fn with_irqs_off<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: Interrupts may be disabled in any context; they are restored below.
    let flags = unsafe { bindings::kvm_rs_irq_save() };
    let result = f();
    // SAFETY: `flags` comes from the save above, on this CPU.
    unsafe { bindings::kvm_rs_irq_restore(flags) };
    result
}

/// Orders all earlier memory accesses before all later ones, for every CPU.
#[inline]
pub(crate) fn full_barrier() {
    // SAFETY: A memory barrier has no preconditions.
    unsafe { bindings::kvm_rs_smp_mb() };
}
