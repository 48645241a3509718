// SPDX-License-Identifier: GPL-2.0

//! Pages of the kernel's own memory, and their physical addresses.

use crate::{
    bindings,
    x86::addr::Hpa, //
};
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::atomic::Atomic, //
};

/// Bytes of a page.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Returns the physical address of what `pointer` points to.
///
/// The memory must come from the slab or page allocator (`KBox`, a page), not from vmalloc.
pub(crate) fn physical_address<T: ?Sized>(pointer: *const T) -> Hpa {
    // SAFETY: The computation has no preconditions beyond the kind of memory.
    Hpa::new(unsafe { bindings::kvm_rs_virt_to_phys(pointer.cast()) } as u64)
}

/// A zeroed page of kernel memory that may be mapped into user space.
///
/// # Invariants
///
/// The pointer is to a page that this value owns a reference to.
pub(crate) struct KernelPage(NonNull<u8>);

// SAFETY: It owns plain memory.
unsafe impl Send for KernelPage {}
// SAFETY: Only the address is given out.
unsafe impl Sync for KernelPage {}

impl KernelPage {
    /// Allocates a page.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Allocation in process context has no other precondition.
        let page = unsafe { bindings::kvm_rs_page_alloc() };
        // INVARIANT: The page is ours.
        NonNull::new(page.cast()).map(Self).ok_or(ENOMEM)
    }

    /// Number of 32-bit words of a page.
    pub(crate) const WORDS: usize = 1024;

    /// Returns the page as words. User space may change them at any time.
    pub(crate) fn words(&self) -> &[Atomic<u32>; Self::WORDS] {
        // SAFETY: By the type's invariant, the page lives as long as `self`. It is aligned, all its
        // bytes are initialised, and whoever else accesses it does so as from another CPU, which is
        // what atomics are for.
        unsafe { self.0.cast().as_ref() }
    }

    /// Returns the address of the page, valid as long as `self`.
    #[inline]
    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        self.0
    }
}

impl Drop for KernelPage {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the reference is ours to give back.
        unsafe { bindings::kvm_rs_page_free(self.0.as_ptr().cast()) };
    }
}
