// SPDX-License-Identifier: GPL-2.0

//! The guest's x87, SSE and extended state, swapped by the kernel's own FPU code.

use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// Size in bytes of an FXSAVE image.
pub(crate) const FXSAVE_SIZE: usize = 512;

/// A guest's FPU.
///
/// # Invariants
///
/// The pointer is to a guest FPU that this value owns, and that is in the registers only while the
/// vCPU's thread is between [`GuestFpu::load`] and [`GuestFpu::unload`].
pub(crate) struct GuestFpu(NonNull<kernel::bindings::fpu_guest>);

// SAFETY: It owns what it points to, and nothing in it is bound to a thread while not loaded.
unsafe impl Send for GuestFpu {}

impl GuestFpu {
    /// Returns a guest FPU in its reset state.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The shim has no preconditions.
        let fpu = unsafe { bindings::kvm_rs_fpu_alloc() };
        // INVARIANT: The shim gives the FPU to us.
        NonNull::new(fpu).map(Self).ok_or(ENOMEM)
    }

    /// Makes the guest's state the current task's; the kernel switches it with the task from then on.
    pub(crate) fn load(&mut self) {
        // SAFETY: By the type's invariant the FPU is valid and not loaded.
        unsafe { bindings::kvm_rs_fpu_load_guest(self.0.as_ptr()) };
    }

    /// Gives the current task its own state back.
    pub(crate) fn unload(&mut self) {
        // SAFETY: By the type's invariant the FPU is valid; `load` preceded.
        unsafe { bindings::kvm_rs_fpu_load_host(self.0.as_ptr()) };
    }

    /// Returns x87 and SSE state as an FXSAVE image; not to be called while loaded.
    pub(crate) fn fxsave(&self) -> [u8; FXSAVE_SIZE] {
        let mut image = [0; FXSAVE_SIZE];
        // SAFETY: `image` has the 512 bytes that are written.
        unsafe { bindings::kvm_rs_fpu_get(self.0.as_ptr(), image.as_mut_ptr().cast()) };
        image
    }

    /// Replaces x87 and SSE state by an FXSAVE image; not to be called while loaded.
    pub(crate) fn set_fxsave(&mut self, image: &[u8; FXSAVE_SIZE]) {
        // SAFETY: `image` has the 512 bytes that are read.
        unsafe { bindings::kvm_rs_fpu_set(self.0.as_ptr(), image.as_ptr().cast()) };
    }
}

impl Drop for GuestFpu {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the FPU is ours, and it is not loaded.
        unsafe { bindings::kvm_rs_fpu_free(self.0.as_ptr()) };
    }
}

/// Loads the current task's FPU state into the registers if the kernel has put it aside.
///
/// Interrupts must be off, so that it stays there until VM entry.
#[inline]
pub(crate) fn sync() {
    // SAFETY: The shim only completes the task's own switch.
    unsafe { bindings::kvm_rs_fpu_sync() };
}
