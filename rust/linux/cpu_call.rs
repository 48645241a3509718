// SPDX-License-Identifier: GPL-2.0

//! Calls to other CPUs, and what this module learns of CPUs.

use super::preempt::PreemptGuard;
use crate::{
    bindings,
    x86::cpuid::Feature, //
};
use core::ffi::c_void;
use kernel::prelude::*;

/// Runs `f` on `cpu` with interrupts off and waits until it is done.
///
/// Interrupts must be on. Fails with `ENXIO` if the CPU is offline.
pub(crate) fn call_on_cpu<F: Fn() + Sync>(cpu: u32, f: &F) -> Result {
    /// Calls the closure behind `data`.
    ///
    /// # Safety
    ///
    /// `data` must be a pointer to an `F` that is valid for the duration of the call.
    unsafe extern "C" fn trampoline<F: Fn() + Sync>(data: *mut c_void) {
        // SAFETY: `data` is the reference that `call_on_cpu` passed and keeps borrowed.
        let f = unsafe { &*data.cast::<F>() };
        f();
    }
    let data: *const F = f;
    // SAFETY: The call is waited for, so the borrow of `f` outlasts it; `F` is `Sync`, so it may be
    // used from another CPU.
    let ret = unsafe {
        kernel::bindings::smp_call_function_single(
            // CAST: CPU numbers are small.
            cpu as i32,
            Some(trampoline::<F>),
            data.cast_mut().cast(),
            true,
        )
    };
    kernel::error::to_result(ret)
}

/// Asks `cpu` to leave its guest, without waiting. Preemption must be off.
pub(crate) fn send_reschedule(cpu: u32) {
    // SAFETY: The shim checks the CPU's number and that it is online.
    unsafe { bindings::kvm_rs_send_reschedule(cpu) };
}

/// The vector that the kernel sets aside for interrupts that are posted to guests.
// CAST: A vector.
pub(crate) const POSTED_INTERRUPT_VECTOR: u8 = bindings::KVM_RS_POSTED_INTERRUPT_VECTOR as u8;

/// Sends `cpu` an interrupt with [`POSTED_INTERRUPT_VECTOR`]. Preemption must be off.
pub(crate) fn send_posted_interrupt(cpu: u32) {
    // SAFETY: The shim checks the CPU's number and that it is online.
    unsafe { bindings::kvm_rs_send_posted_interrupt(cpu) };
}

/// Number of words of a [`CpuSet`].
const CPU_SET_WORDS: usize = (kernel::bindings::NR_CPUS as usize).div_ceil(usize::BITS as usize);

/// A set of CPUs, small enough for the stack.
pub(crate) struct CpuSet([usize; CPU_SET_WORDS]);

impl CpuSet {
    /// Returns the empty set.
    pub(crate) const fn new() -> Self {
        Self([0; CPU_SET_WORDS])
    }

    /// Adds a CPU; a number that no CPU has is ignored.
    pub(crate) fn insert(&mut self, cpu: u32) {
        // CAST: CPU numbers fit.
        let (word, bit) = (cpu / usize::BITS, cpu % usize::BITS);
        if let Some(word) = self.0.get_mut(word as usize) {
            *word |= 1 << bit;
        }
    }

    /// Makes the CPUs of the set leave their guests, and waits until each has.
    ///
    /// Interrupts must be on; this CPU is left out.
    pub(crate) fn kick_and_wait(&self, _preempt: &PreemptGuard) {
        // SAFETY: The set has a bit for each possible CPU, and preemption is off.
        unsafe { bindings::kvm_rs_kick_cpus_and_wait(self.0.as_ptr().cast()) };
    }
}

/// Returns the frequency of the host's time-stamp counter in kHz.
pub(crate) fn tsc_khz() -> u32 {
    // SAFETY: Reading it has no preconditions.
    unsafe { bindings::kvm_rs_tsc_khz() }
}

/// Returns the host's time-stamp counter.
#[inline]
pub(crate) fn rdtsc() -> u64 {
    // SAFETY: Every x86-64 CPU has a time-stamp counter.
    unsafe { bindings::kvm_rs_rdtsc() }
}

/// Returns EAX, EBX, ECX and EDX of the host's CPUID.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let mut out = [0; 4];
    // SAFETY: CPUID has no preconditions; `out` has the four elements that are written.
    unsafe { bindings::kvm_rs_cpuid(leaf, subleaf, out.as_mut_ptr()) };
    out
}

/// Returns the number of CPUs that are online.
pub(crate) fn online_cpus() -> u32 {
    // SAFETY: Reading it has no preconditions.
    unsafe { bindings::kvm_rs_online_cpus() }
}

/// Returns whether the boot CPU has VMX.
pub(crate) fn has_vmx() -> bool {
    // SAFETY: Reading it has no preconditions.
    unsafe { bindings::kvm_rs_cpu_has_vmx() }
}

/// Returns the exits that guests can do without on this CPU, as KVM_X86_DISABLE_EXITS_*.
pub(crate) fn exits_to_disable() -> u32 {
    // SAFETY: Reading what the kernel knows of the CPU has no preconditions.
    unsafe { bindings::kvm_rs_exits_to_disable() }
}

/// Returns whether the kernel knows and uses the feature.
pub(crate) fn has(feature: Feature) -> bool {
    feature_word(feature.word().kernel_word()) & feature.mask() != 0
}

/// Returns word `index` of the kernel's own feature bits; all ones for a word that it does not have.
pub(crate) fn feature_word(index: usize) -> u32 {
    // SAFETY: The shim checks the range.
    unsafe { bindings::kvm_rs_feature_word(index as kernel::ffi::c_ulong) }
}
