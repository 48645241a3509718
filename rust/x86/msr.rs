// SPDX-License-Identifier: GPL-2.0

//! Model-specific registers of the host CPU that runs this code.

use core::arch::asm;

/// Returns the value of the host's MSR `index`.
///
/// # Safety
///
/// The MSR must exist on this CPU: reading one that does not exist faults.
#[inline(always)]
pub(crate) unsafe fn rdmsr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: By the function's requirement the MSR exists, so RDMSR cannot fault; it has no other
    // effect than to load EDX:EAX.
    unsafe {
        asm!(
            "rdmsr",
            in("ecx") index,
            out("eax") low,
            out("edx") high,
            options(nomem, nostack, preserves_flags),
        )
    };
    (u64::from(high) << 32) | u64::from(low)
}

/// Writes `value` to the host's MSR `index`.
///
/// # Safety
///
/// The MSR must exist on this CPU and accept `value`, and the host kernel must be able to go on with
/// it: either it does not depend on this MSR, or the caller restores it before the kernel does.
#[inline(always)]
pub(crate) unsafe fn wrmsr(index: u32, value: u64) {
    // CAST: EDX:EAX are the two halves of the value.
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: By the function's requirement the MSR exists and takes the value, and the kernel is
    // not disturbed by it. Memory is assumed clobbered, so that no access moves across the write.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") index,
            in("eax") low,
            in("edx") high,
            options(nostack, preserves_flags),
        )
    };
}
