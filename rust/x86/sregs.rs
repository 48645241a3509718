// SPDX-License-Identifier: GPL-2.0

//! Whether a whole set of special registers makes sense together: KVM_SET_SREGS.
//!
//! User space may go from any state to any other, so the rules of
//! [`transitions`](super::control_regs::rules) do not hold here; only the result must be a state
//! that this guest can be in. The value of IA32_APIC_BASE is checked with the local APIC.

use super::{
    control_regs::{
        rules::is_valid_cr0,
        Cr0,
        Cr4,
        Efer, //
    },
    cpuid::GuestFeatures, //
};

/// The special registers that depend on each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SpecialRegs {
    /// CR0.
    pub(crate) cr0: Cr0,
    /// CR3.
    pub(crate) cr3: u64,
    /// CR4.
    pub(crate) cr4: Cr4,
    /// EFER, with LMA.
    pub(crate) efer: Efer,
    /// The L bit of CS.
    pub(crate) cs_l: bool,
}

/// Returns whether a guest with `features` can be in the state `regs`.
#[must_use]
pub(crate) fn is_valid(regs: &SpecialRegs, features: &GuestFeatures) -> bool {
    let long_mode = regs.efer.contains(Efer::LME) && regs.cr0.contains(Cr0::PG);
    let consistent = if long_mode {
        regs.cr4.contains(Cr4::PAE)
            && regs.efer.contains(Efer::LMA)
            && features.is_legal_gpa(regs.cr3)
    } else {
        !regs.efer.contains(Efer::LMA) && !regs.cs_l
    };
    consistent
        && is_valid_cr0(regs.cr0)
        && !regs.cr4.intersects(features.cr4_reserved)
        && features.efer_allowed.contains(regs.efer)
}
