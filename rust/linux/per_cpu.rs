// SPDX-License-Identifier: GPL-2.0

//! Per-CPU variables, which Rust cannot define yet. Preemption must be off to use one.

use crate::bindings;
use core::ffi::c_void;
use kernel::types::Opaque;

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

/// A place in a CPU's list of the VMCSs that are active on it.
///
/// Only its own CPU changes a list, with interrupts off, and in an order that lets an NMI on that CPU walk
/// the list at any moment.
#[repr(transparent)]
pub(crate) struct Link(Opaque<kernel::bindings::list_head>);

// SAFETY: It is used by the CPU whose list it is in; its owner sees to that.
unsafe impl Send for Link {}
// SAFETY: As above.
unsafe impl Sync for Link {}

impl Link {
    /// Returns a place in no list.
    pub(crate) const fn new() -> Self {
        Self(Opaque::zeroed())
    }

    /// Puts it at the head of this CPU's list.
    ///
    /// # Safety
    ///
    /// Interrupts must be off. It must be in no list, and neither move nor end before it is removed.
    pub(crate) unsafe fn add(&self) {
        // SAFETY: By the requirement.
        unsafe { bindings::kvm_rs_active_vmcs_add(self.0.get()) };
    }

    /// Takes it out of this CPU's list.
    ///
    /// # Safety
    ///
    /// Interrupts must be off, and it must be in this CPU's list.
    pub(crate) unsafe fn remove(&self) {
        // SAFETY: By the requirement.
        unsafe { bindings::kvm_rs_active_vmcs_remove(self.0.get()) };
    }
}

/// Empties the lists of all CPUs.
///
/// # Safety
///
/// No link may be in a list.
pub(crate) unsafe fn init_active_vmcss() {
    // SAFETY: By the requirement.
    unsafe { bindings::kvm_rs_active_vmcs_init() };
}

/// Calls `f` with each link in this CPU's list; `f` may remove it.
///
/// Interrupts must be off, or this be an NMI, in which `f` must not remove any.
pub(crate) fn for_each_active_vmcs<F: FnMut(*const Link)>(mut f: F) {
    /// Calls the closure behind `data`.
    ///
    /// # Safety
    ///
    /// `data` must be a pointer to an `F` that nobody else uses during the call.
    unsafe extern "C" fn trampoline<F: FnMut(*const Link)>(
        link: *mut kernel::bindings::list_head,
        data: *mut c_void,
    ) {
        // SAFETY: `data` is the closure that `for_each_active_vmcs` owns.
        let f = unsafe { &mut *data.cast::<F>() };
        f(link.cast_const().cast());
    }
    let data: *mut F = &raw mut f;
    // SAFETY: Only links are in the list, and they stay until they are removed; the closure outlasts the
    // call.
    unsafe { bindings::kvm_rs_active_vmcs_for_each(Some(trampoline::<F>), data.cast()) };
}
