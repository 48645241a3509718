// SPDX-License-Identifier: GPL-2.0

//! Per-CPU variables, which Rust cannot define yet. Preemption must be off to use one.

use crate::bindings;

/// Returns the address that [`set_current_vmcs`] was last given on this CPU, `u64::MAX` at first.
#[inline]
pub(crate) fn current_vmcs() -> u64 {
    // SAFETY: Reading a per-CPU variable has no preconditions.
    unsafe { bindings::kvm_rs_current_vmcs() }
}

/// Notes which VMCS is current on this CPU.
pub(crate) fn set_current_vmcs(address: u64) {
    // SAFETY: Writing this per-CPU variable has no preconditions; it is only compared.
    unsafe { bindings::kvm_rs_set_current_vmcs(address) };
}
