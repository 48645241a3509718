// SPDX-License-Identifier: GPL-2.0

//! Entering the guest, and handing what interrupted it to the kernel.

use crate::bindings;

use super::preempt::IrqGuard;

pub(crate) use crate::bindings::{
    kvm_rs_guest_regs as GuestRegs,
    perf_guest_switch_msr as PerfMsr, //
};

/// Enters the guest of the current VMCS and returns `true` after a VM exit, `false` if VMLAUNCH or
/// VMRESUME failed.
///
/// # Safety
///
/// Interrupts must be off, a VMCS with complete and valid host state must be current on this CPU, it
/// must belong to `regs`, and `launched` must be its launch state.
#[inline(always)]
pub(crate) unsafe fn enter(regs: &mut GuestRegs, launched: bool) -> bool {
    // SAFETY: By the function's requirement.
    unsafe { bindings::kvm_rs_guest_enter(regs, u64::from(launched) as usize) == 0 }
}

/// Gives an interrupt that a VM exit acknowledged to its handler. Interrupts must be off.
pub(crate) fn handle_external_interrupt(vector: u8) {
    // SAFETY: The vector was acknowledged by this CPU and has not been handled.
    unsafe { bindings::kvm_rs_handle_external_interrupt(u32::from(vector)) };
}

/// Tells the host's machine-check handler of a machine check in the guest. Interrupts must be off.
pub(crate) fn handle_machine_check() {
    // SAFETY: Called directly after the exit that reported it.
    unsafe { bindings::kvm_rs_machine_check() };
}

/// Starts to account the task's time as guest time, and returns whether perf has to be asked what to
/// switch (see [`perf_msrs`]). Interrupts must be off.
#[inline]
pub(crate) fn timing_enter() -> bool {
    // SAFETY: Interrupts are off.
    unsafe { bindings::kvm_rs_guest_timing_enter() }
}

/// Looks, once at load, whether the host's perf drives performance counters.
pub(crate) fn perf_setup() -> bool {
    // SAFETY: It is called in the module's initialisation, where it may sleep.
    unsafe { bindings::kvm_rs_perf_setup() }
}

/// Returns the MSRs with which perf counts, or does not count, in guests on this CPU now.
pub(crate) fn perf_msrs(_irqs_off: &IrqGuard) -> &[PerfMsr] {
    let mut count = 0;
    // SAFETY: Interrupts are off.
    let msrs = unsafe { bindings::kvm_rs_perf_msrs(&mut count) };
    if msrs.is_null() {
        return &[];
    }
    // SAFETY: The shim returned the address of so many, which belong to this CPU and do not change as
    // long as interrupts are off.
    unsafe { core::slice::from_raw_parts(msrs, count as usize) }
}

/// Lets interrupts that came in guest time be handled, and then ends guest time. Interrupts must be off,
/// and are off on return.
#[inline]
pub(crate) fn interrupt_window_and_timing_exit() {
    // SAFETY: Interrupts are off, and no lock is held that an interrupt handler takes.
    unsafe { bindings::kvm_rs_guest_timing_exit() };
}
