// SPDX-License-Identifier: GPL-2.0

//! Physical addresses of the kernel's own memory.

use crate::{
    bindings,
    x86::addr::Hpa, //
};

/// Returns the physical address of what `pointer` points to.
///
/// The memory must come from the slab or page allocator (`KBox`, a page), not from vmalloc.
pub(crate) fn physical_address<T: ?Sized>(pointer: *const T) -> Hpa {
    // SAFETY: The computation has no preconditions beyond the kind of memory.
    Hpa::new(unsafe { bindings::kvm_rs_virt_to_phys(pointer.cast()) } as u64)
}
