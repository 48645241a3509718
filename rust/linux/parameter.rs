// SPDX-License-Identifier: GPL-2.0

//! The module's parameters, which `/sys/module/kvm_rs/parameters` shows.

use crate::bindings;

pub(crate) use crate::bindings::kvm_rs_parameters as Parameters;

/// Returns what the user asked for. To be called before [`report`].
pub(crate) fn wanted() -> Parameters {
    // SAFETY: The module loader has set the parameters, and nothing changes them but `report`.
    unsafe { (&raw const bindings::kvm_rs_parameters).read() }
}

/// Makes sysfs show what is in use.
pub(crate) fn report(parameters: &Parameters) {
    // SAFETY: Each member is one byte that sysfs reads whole; only module loading writes them.
    unsafe { (&raw const *parameters).copy_to(&raw mut bindings::kvm_rs_parameters, 1) };
}

pub(crate) use crate::bindings::kvm_rs_halt_polling as HaltPolling;

/// Returns how long halted vCPUs poll, which the user may change at any time.
pub(crate) fn halt_polling() -> HaltPolling {
    let mut polling = HaltPolling {
        ns: 0,
        grow: 0,
        grow_start: 0,
        shrink: 0,
    };
    // SAFETY: It fills the members.
    unsafe { bindings::kvm_rs_halt_polling(&mut polling) };
    polling
}

/// Returns whether to print the VMCS of an entry that failed; if not, tells the user how to have it.
pub(crate) fn wants_vmcs_dump() -> bool {
    // SAFETY: It has no requirements.
    unsafe { bindings::kvm_rs_wants_vmcs_dump() }
}

/// Returns whether large pages are to be split when writes begin to be logged.
pub(crate) fn eager_page_split() -> bool {
    // SAFETY: It has no requirements.
    unsafe { bindings::kvm_rs_eager_page_split() }
}

/// Returns whether new VMs are to execute small pages only.
pub(crate) fn nx_huge_pages() -> bool {
    // SAFETY: It has no requirements.
    unsafe { bindings::kvm_rs_nx_huge_pages() }
}

/// How large pages are rejoined that were split for execution.
pub(crate) struct Recovery {
    /// One in so many at a time, 0 for none.
    pub(crate) ratio: u32,
    /// Milliseconds from one time to the next.
    pub(crate) period_ms: u32,
}

/// Returns how large pages are rejoined that were split for execution.
pub(crate) fn nx_recovery() -> Recovery {
    let mut period_ms = 0;
    // SAFETY: The reference is valid.
    let ratio = unsafe { bindings::kvm_rs_nx_recovery(&mut period_ms) };
    Recovery { ratio, period_ms }
}
