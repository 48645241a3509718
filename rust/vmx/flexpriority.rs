// SPDX-License-Identifier: GPL-2.0

//! FlexPriority: the processor keeps the guest's task-priority register (TPR).
//!
//! Some guests write their TPR before and after every spinlock and interrupt handler. All that a
//! hypervisor has to know of it is when a write lets an interrupt through that waits. So the processor
//! gets the register and a *threshold*, and exits only for a write that goes below the threshold:
//!
//! ```text
//!   MOV from CR8     -------.                       .--- reads:  no exit
//!   MOV to CR8       -------+--> TPR, at 0x80 of ---+
//!   access to 0x80 of the   |    the virtual-APIC   '--- writes: an exit after the instruction, if
//!     APIC-access page -----+    page                            TPR[7:4] < threshold
//!   RDMSR, WRMSR 0x808 -----'
//!
//!   access to the rest of the APIC-access page ---> an exit before the instruction
//! ```
//!
//! - The **TPR shadow** is the virtual-APIC page and the threshold, and serves CR8 ([`TprShadow`]). The
//!   page is that of the local APIC's registers, so that both have the same TPR at any time.
//! - Which accesses to the local APIC reach it besides depends on the mode that the guest's APIC is in
//!   ([`Accesses`]): in xAPIC mode those to the **APIC-access page**, a page of memory that the guest's
//!   tables of this module map where the guest believes its registers; in x2APIC mode those to the MSR
//!   of the TPR, as far as the MSR bitmap lets them pass.
//!
//! What the threshold should be is not known here: see `lapic/priority.rs`.

use super::{
    controls::{
        primary,
        secondary, //
    },
    field,
    vmcs::CurrentVmcs, //
};
use crate::x86::addr::Hpa;
use kernel::prelude::*;

/// Exits for CR8, which the TPR shadow replaces.
const CR8_EXITING: u32 = primary::CR8_LOAD_EXITING | primary::CR8_STORE_EXITING;

/// The controls that say which accesses are virtualised; at most one of them is on.
const ACCESSES: u32 = secondary::VIRTUALIZE_APIC_ACCESSES | secondary::VIRTUALIZE_X2APIC_MODE;

/// Returns the secondary controls `offered` without what has no meaning on this CPU or is not `wanted`.
pub(super) const fn restrict(offered: u32, tpr_shadow: bool, wanted: bool) -> u32 {
    if !tpr_shadow {
        offered & !ACCESSES
    } else if !wanted {
        offered & !secondary::VIRTUALIZE_APIC_ACCESSES
    } else {
        offered
    }
}

/// The TPR shadow of a vCPU, which is on if the vCPU's local APIC is in the kernel and the CPU has it.
pub(crate) struct TprShadow {
    on: bool,
    /// The threshold as the VMCS has it, 0 if the shadow is off, and [`ALWAYS_LOOK`].
    watch: u16,
}

/// There is more to be looked at before each VM entry than the threshold.
const ALWAYS_LOOK: u16 = 1 << 8;

impl TprShadow {
    /// Returns a shadow that is off: every access to CR8 exits.
    pub(crate) const fn off() -> Self {
        Self {
            on: false,
            watch: 0,
        }
    }

    /// Returns a shadow on the virtual-APIC page at `page`, which must live as long as the VMCS is used.
    pub(crate) fn attach(vmcs: &CurrentVmcs<'_>, page: Hpa) -> Self {
        vmcs.write(field::VIRTUAL_APIC_PAGE_ADDRESS, page.value());
        vmcs.write(field::TPR_THRESHOLD, 0);
        Self { on: true, watch: 0 }
    }

    /// Returns the primary controls that go with the shadow.
    pub(crate) const fn primary(&self, controls: u32) -> u32 {
        if self.on {
            (controls & !CR8_EXITING) | primary::USE_TPR_SHADOW
        } else {
            controls
        }
    }

    /// Has the local APIC looked at before each VM entry.
    pub(crate) fn look_always(&mut self) {
        self.watch |= ALWAYS_LOOK;
    }

    /// Returns whether the local APIC is to be looked at before the next VM entry: some writes to the TPR
    /// exit, or it always is.
    #[inline]
    pub(crate) const fn is_to_look(&self) -> bool {
        self.watch != 0
    }

    /// Returns whether the local APIC is looked at before each VM entry.
    #[inline]
    pub(crate) const fn always_looks(&self) -> bool {
        self.watch & ALWAYS_LOOK != 0
    }

    /// Has writes exit that make the class of the TPR fall below `class`, for the next VM entry.
    ///
    /// The class of the TPR must not be below it: VM entry fails, or exits at once.
    #[inline]
    pub(crate) fn set_threshold(&mut self, vmcs: &CurrentVmcs<'_>, class: u8) {
        // CAST: The threshold is the low byte.
        if self.on && class != self.watch as u8 {
            vmcs.write(field::TPR_THRESHOLD, u32::from(class));
            self.watch = self.watch & ALWAYS_LOOK | u16::from(class);
        }
    }
}

/// Which accesses to a local APIC the processor virtualises, besides those to CR8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accesses {
    /// None: each exits in its own way, or is one to plain memory.
    None,
    /// Those to the page at this address.
    Page(Hpa),
    /// Those to MSR 0x808, of which none exits that the MSR bitmap lets pass.
    X2apic,
}

impl Accesses {
    /// Returns the secondary controls that go with this.
    pub(crate) const fn secondary(self, controls: u32) -> u32 {
        let controls = controls & !ACCESSES;
        match self {
            Self::None => controls,
            Self::Page(_) => controls | secondary::VIRTUALIZE_APIC_ACCESSES,
            Self::X2apic => controls | secondary::VIRTUALIZE_X2APIC_MODE,
        }
    }

    /// Tells the VMCS the address of the APIC-access page.
    pub(crate) fn write_page(self, vmcs: &CurrentVmcs<'_>) {
        if let Self::Page(page) = self {
            vmcs.write(field::APIC_ACCESS_ADDRESS, page.value());
        }
    }
}

#[kunit_tests(kvm_rs_flexpriority)]
mod tests {
    use super::*;

    #[test]
    fn the_shadow_replaces_exits_for_cr8() {
        let plain = CR8_EXITING | primary::HLT_EXITING;
        assert_eq!(TprShadow::off().primary(plain), plain);
        let on = TprShadow { on: true, watch: 0 };
        assert_eq!(
            on.primary(plain),
            primary::HLT_EXITING | primary::USE_TPR_SHADOW
        );
    }

    #[test]
    fn at_most_one_way_is_on() {
        let all = ACCESSES | secondary::ENABLE_EPT;
        let none = secondary::ENABLE_EPT;
        let page = Accesses::Page(Hpa::new(0x1000));
        assert_eq!(Accesses::None.secondary(all), none);
        assert_eq!(
            page.secondary(all),
            none | secondary::VIRTUALIZE_APIC_ACCESSES
        );
        assert_eq!(
            Accesses::X2apic.secondary(all),
            none | secondary::VIRTUALIZE_X2APIC_MODE
        );
    }

    #[test]
    fn nothing_is_virtualised_without_shadow() {
        let all = ACCESSES | secondary::ENABLE_EPT;
        assert_eq!(restrict(all, false, true), secondary::ENABLE_EPT);
        assert_eq!(restrict(all, true, true), all);
        // As in KVM, the parameter is about memory.
        assert_eq!(
            restrict(all, true, false),
            secondary::ENABLE_EPT | secondary::VIRTUALIZE_X2APIC_MODE
        );
    }
}
