// SPDX-License-Identifier: GPL-2.0

//! The host's own CPU state, as VM exit must restore it.

use crate::bindings;

pub(crate) use crate::bindings::{
    kvm_rs_host_constants as HostConstants,
    kvm_rs_host_percpu as HostPerCpu,
    kvm_rs_host_segments as HostSegments,
    kvm_rs_xstate as Xstate, //
};

use super::preempt::PreemptGuard;

/// Returns the host state that is the same on every CPU for as long as the system runs.
pub(crate) fn constants() -> HostConstants {
    let mut host = HostConstants::default();
    // SAFETY: `host` is ours to write.
    unsafe { bindings::kvm_rs_host_constants(&mut host) };
    host
}

/// Returns the host state of this CPU.
pub(crate) fn per_cpu(_preempt: &PreemptGuard) -> HostPerCpu {
    let mut host = HostPerCpu::default();
    // SAFETY: `host` is ours to write, and preemption is off.
    unsafe { bindings::kvm_rs_host_percpu(&mut host) };
    host
}

/// Returns the current task's segment state.
pub(crate) fn save_segments(_preempt: &PreemptGuard) -> HostSegments {
    let mut segments = HostSegments::default();
    // SAFETY: `segments` is ours to write, and preemption is off.
    unsafe { bindings::kvm_rs_save_host_segments(&mut segments) };
    segments
}

/// Restores the current task's segment state after VM exits.
///
/// Preemption must be off since [`save_segments`] gave `segments` to this task on this CPU, or the task
/// must be in the middle of being scheduled out.
pub(crate) fn restore_segments(segments: &HostSegments) {
    // SAFETY: The segments are the current task's own.
    unsafe { bindings::kvm_rs_restore_host_segments(segments) };
}

/// Returns the CR3 that the current task runs on, with its PCID. Preemption must be off.
#[inline]
pub(crate) fn cr3() -> u64 {
    // SAFETY: Reading it has no preconditions but preemption off.
    unsafe { bindings::kvm_rs_current_cr3() as u64 }
}

/// Returns CR4 of this CPU. Interrupts must be off for the value to stay right.
#[inline]
pub(crate) fn cr4() -> u64 {
    // SAFETY: Reading it has no preconditions.
    unsafe { bindings::kvm_rs_current_cr4() as u64 }
}

/// Changes XCR0 and IA32_XSS from what they are to something else.
///
/// # Safety
///
/// The CPU must support XSAVE and all of `to`, `from` must be what is there, and interrupts must stay off
/// until the host's own values are back.
pub(crate) unsafe fn load_xstate(from: &Xstate, to: &Xstate) {
    // SAFETY: By the function's requirement.
    unsafe { bindings::kvm_rs_load_xstate(from, to) };
}

/// Loads PKRU if the host uses protection keys, and returns what was there. Interrupts must stay off until
/// the host's own value is back.
#[inline]
pub(crate) fn swap_pkru(pkru: u32) -> u32 {
    // SAFETY: The shim looks whether the register is there, which takes any value.
    unsafe { bindings::kvm_rs_swap_pkru(pkru) }
}

/// Loads DR0 to DR3 with the guest's addresses, the host's breakpoints disarmed.
///
/// Interrupts must stay off until the guest has been entered, which brings the host's back afterwards.
pub(crate) fn load_debug_registers(addresses: &[u64; 4]) {
    // SAFETY: The array has four elements; DR7 is 0 until VM entry, so that no address can trap.
    unsafe { bindings::kvm_rs_load_debug_registers(addresses.as_ptr().cast()) };
}

/// Loads DR6, whose upper half must be 0. Interrupts must stay off until [`take_debug_registers`].
pub(crate) fn load_debug_status(dr6: u64) {
    // CAST: A register's width. The upper half would fault.
    let dr6 = (dr6 & 0xffff_ffff) as kernel::ffi::c_ulong;
    // SAFETY: The register takes any lower half, and only tells about exceptions that were.
    unsafe { bindings::kvm_rs_load_debug_status(dr6) };
}

/// Returns DR0 to DR3, and DR6 as a VM exit left them, and gives DR6 the value that the kernel expects.
///
/// Interrupts must be off since the exit.
pub(crate) fn take_debug_registers() -> ([u64; 4], u64) {
    let mut addresses = [0; 4];
    // SAFETY: The array has four elements.
    let dr6 = unsafe { bindings::kvm_rs_take_debug_registers(addresses.as_mut_ptr().cast()) };
    // CAST: A register's width.
    (addresses, dr6 as u64)
}
