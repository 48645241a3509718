// SPDX-License-Identifier: GPL-2.0

//! Memory of a process that the kernel maps for it.

use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// Zeroed memory in the address space of the process that made it.
///
/// It goes with this object, if that is dropped by the process, and else with the process. The process
/// itself can unmap it or map something else in its place at any time.
///
/// # Invariants
///
/// `mm` is an address space of which this object holds a count.
pub(crate) struct UserMap {
    mm: NonNull<core::ffi::c_void>,
    address: u64,
    size: u64,
}

// SAFETY: The count can be given back by any thread.
unsafe impl Send for UserMap {}
// SAFETY: All that others see are numbers.
unsafe impl Sync for UserMap {}

impl UserMap {
    /// Maps `size` bytes into the current process. Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(size: u64) -> Result<Self> {
        let mut mm = core::ptr::null_mut();
        // SAFETY: The function writes its second result to a local.
        let address = unsafe { bindings::kvm_rs_user_map(size as usize, &raw mut mm) };
        // INVARIANT: The function took a count, if it succeeded.
        Ok(Self {
            mm: NonNull::new(mm).ok_or(ENOMEM)?,
            address: address as u64,
            size,
        })
    }

    /// Returns the address of the first byte.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for UserMap {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant, the count is this object's to give back.
        unsafe {
            bindings::kvm_rs_user_unmap(self.mm.as_ptr(), self.address as usize, self.size as usize)
        };
    }
}
