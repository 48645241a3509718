// SPDX-License-Identifier: GPL-2.0

//! Entering the guest, and handing what interrupted it to the kernel.

use crate::bindings;

pub(crate) use crate::bindings::kvm_rs_guest_regs as GuestRegs;

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

/// Starts to account the task's time as guest time. Interrupts must be off.
#[inline]
pub(crate) fn timing_enter() {
    // SAFETY: Interrupts are off.
    unsafe { bindings::kvm_rs_guest_timing_enter() };
}

/// Lets interrupts that came in guest time be handled, and then ends guest time. Interrupts must be off,
/// and are off on return.
#[inline]
pub(crate) fn interrupt_window_and_timing_exit() {
    // SAFETY: Interrupts are off, and no lock is held that an interrupt handler takes.
    unsafe { bindings::kvm_rs_guest_timing_exit() };
}
