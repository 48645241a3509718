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

impl GuestFpu {
    /// Returns the size in bytes of an image of the whole state, in the standard form of XSAVE.
    pub(crate) fn image_size(&self) -> usize {
        // SAFETY: By the type's invariant the FPU is valid.
        unsafe { bindings::kvm_rs_fpu_uabi_size(self.0.as_ptr()) as usize }
    }

    /// Fills `image` with the state components of the mask `components`, as far as they fit, in the
    /// standard form of XSAVE; not to be called while loaded.
    ///
    /// PKRU, which the kernel does not keep with the rest, is `pkru`.
    pub(crate) fn image(&self, image: &mut [u8], components: u64, pkru: u32) {
        let size = u32::try_from(image.len()).unwrap_or(u32::MAX);
        let buffer = image.as_mut_ptr().cast();
        // SAFETY: `image` has at least the `size` bytes that may be written.
        unsafe { bindings::kvm_rs_fpu_to_uabi(self.0.as_ptr(), buffer, size, components, pkru) };
    }

    /// Replaces the state by `image`, as [`GuestFpu::image`] gives it, and `pkru` by what it has of that;
    /// not to be called while loaded.
    ///
    /// `EINVAL` for one that is too short or has components that are not in the mask `components`.
    pub(crate) fn set_image(&mut self, image: &[u8], components: u64, pkru: &mut u32) -> Result {
        if image.len() < self.image_size() {
            return Err(EINVAL);
        }
        let buffer = image.as_ptr().cast();
        // SAFETY: `image` has all the bytes that may be read, as was just checked.
        let result =
            unsafe { bindings::kvm_rs_fpu_from_uabi(self.0.as_ptr(), buffer, components, pkru) };
        kernel::error::to_result(result)
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

/// Returns the vector register `index`, 0 to 15, of the guest's FPU, which must be loaded: YMM, or with
/// its upper half 0 on a host that has none.
pub(crate) fn read_vector(index: u8) -> [u8; 32] {
    let mut data = [0; 32];
    // SAFETY: `data` has the 32 bytes that are written.
    unsafe { bindings::kvm_rs_fpu_read_vector(u32::from(index), data.as_mut_ptr().cast()) };
    data
}

/// Sets the lower half of the vector register `index`, 0 to 15, of the guest's FPU, which must be
/// loaded, or with `wide` all 32 bytes.
pub(crate) fn write_vector(index: u8, data: &[u8; 32], wide: bool) {
    // SAFETY: `data` has the 32 bytes that are read.
    unsafe { bindings::kvm_rs_fpu_write_vector(u32::from(index), data.as_ptr().cast(), wide) };
}
