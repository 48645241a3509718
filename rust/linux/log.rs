// SPDX-License-Identifier: GPL-2.0

//! Messages that guests and clients can cause, at a limited rate.

use crate::bindings;

/// Tells that a guest without EPT has turned paging on.
pub(crate) fn note_paging_without_ept() {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::kvm_rs_note_paging_without_ept() };
}
