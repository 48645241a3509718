// SPDX-License-Identifier: GPL-2.0

//! What this CPU's VMX offers, read once at load and immutable from then on.

use super::{
    apicv,
    controls::{
        self,
        negotiate,
        pin,
        primary,
        secondary,
        Allowed,
        Missing, //
    },
    flexpriority,
    instruction::Invalidate,
    perf,
    preemption_timer::Rate, //
};
use crate::{
    linux::cpu_call,
    x86::msr::rdmsr, //
};
use kernel::prelude::*;

/// VMX capability MSRs.
mod msr {
    pub(super) const FEATURE_CONTROL: u32 = 0x3a;
    pub(super) const BASIC: u32 = 0x480;
    pub(super) const PIN: u32 = 0x481;
    pub(super) const PRIMARY: u32 = 0x482;
    pub(super) const EXIT: u32 = 0x483;
    pub(super) const MISC: u32 = 0x485;
    pub(super) const ENTRY: u32 = 0x484;
    pub(super) const SECONDARY: u32 = 0x48b;
    pub(super) const EPT_VPID: u32 = 0x48c;
    pub(super) const TRUE_PIN: u32 = 0x48d;
    pub(super) const TRUE_PRIMARY: u32 = 0x48e;
    pub(super) const TRUE_EXIT: u32 = 0x48f;
    pub(super) const TRUE_ENTRY: u32 = 0x490;
}

/// IA32_FEATURE_CONTROL: the firmware locked the register.
const FEATURE_CONTROL_LOCKED: u64 = 1 << 0;
/// IA32_FEATURE_CONTROL: VMXON is allowed outside SMX.
const FEATURE_CONTROL_VMX_OUTSIDE_SMX: u64 = 1 << 2;

/// The features that a user can turn off by module parameter.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// Run guests on extended page tables.
    pub(crate) ept: bool,
    /// Run guests without paging, and in real mode, in hardware.
    pub(crate) unrestricted_guest: bool,
    /// Tag translations with VPIDs.
    pub(crate) vpid: bool,
    /// Have the CPU track whether the guest blocks NMIs.
    pub(crate) vnmi: bool,
    /// Use accessed and dirty bits in EPT entries.
    pub(crate) ept_ad: bool,
    /// Page-modification logging.
    pub(crate) pml: bool,
    /// Find pages that were written by their dirty bits, without such a log.
    pub(crate) dirty_bits: bool,
    /// Virtualise accesses to the local APIC's page.
    pub(crate) flexpriority: bool,
    /// Use the VMX-preemption timer.
    pub(crate) preemption_timer: bool,
    /// Virtualise the local APIC.
    pub(crate) apicv: bool,
}

/// Why the module cannot use this CPU.
pub(crate) enum Refusal {
    /// The firmware left VMX off.
    DisabledByFirmware,
    /// A required control is missing.
    Control(Missing),
    /// The VMCS cannot be used, for the reason named here.
    Vmcs(&'static str),
}

/// What IA32_VMX_EPT_VPID_CAP offers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct EptVpid(u64);

impl EptVpid {
    const fn has(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }

    /// Returns whether 2 MiB entries are allowed.
    pub(crate) const fn page_2m(self) -> bool {
        self.has(16)
    }

    /// Returns whether 1 GiB entries are allowed.
    pub(crate) const fn page_1g(self) -> bool {
        self.has(17)
    }

    /// Returns whether entries can have accessed and dirty bits.
    pub(crate) const fn accessed_dirty(self) -> bool {
        self.has(21)
    }

    /// Returns which INVEPT to use; `None` if EPT lacks something that the MMU counts on: tables of 4
    /// levels in write-back memory, or INVEPT.
    const fn usable(self) -> Option<Invalidate> {
        if self.has(6) && self.has(14) {
            self.invept()
        } else {
            None
        }
    }

    /// Returns the narrowest INVEPT that does for one EPTP.
    pub(crate) const fn invept(self) -> Option<Invalidate> {
        if !self.has(20) {
            None
        } else if self.has(25) {
            Some(Invalidate::SingleContext)
        } else if self.has(26) {
            Some(Invalidate::AllContext)
        } else {
            None
        }
    }

    /// Returns the narrowest INVVPID that does for one VPID.
    pub(crate) const fn invvpid(self) -> Option<Invalidate> {
        if !self.has(32) {
            None
        } else if self.has(41) {
            Some(Invalidate::SingleContext)
        } else if self.has(42) {
            Some(Invalidate::AllContext)
        } else {
            None
        }
    }
}

/// The outcome of the negotiation.
#[derive(Clone, Copy)]
pub(crate) struct Capabilities {
    revision: u32,
    pin: u32,
    primary: u32,
    secondary: u32,
    exit: u32,
    entry: u32,
    ept_vpid: EptVpid,
    invept: Option<Invalidate>,
    invvpid: Option<Invalidate>,
    ept_ad: bool,
    dirty_bits: bool,
    tpr_shadow: bool,
    perf_global_ctrl: bool,
    preemption_timer: Option<Rate>,
    apicv: bool,
}

/// Returns the allowed settings, from the "true" MSR where the CPU has it.
///
/// The caller has checked that the CPU has VMX.
fn allowed(basic: u64, plain: u32, true_msr: u32) -> Allowed {
    let has_true_controls = basic & (1 << 55) != 0;
    let index = if has_true_controls { true_msr } else { plain };
    // SAFETY: Every CPU with VMX has the plain MSRs, and IA32_VMX_BASIC told of the true ones.
    Allowed(unsafe { rdmsr(index) })
}

impl Capabilities {
    /// Reads the CPU's capability MSRs and negotiates all controls.
    ///
    /// # Safety
    ///
    /// The CPU must have VMX (CPUID.1:ECX.VMX).
    pub(crate) unsafe fn probe(wanted: Wanted) -> Result<Self, Refusal> {
        // SAFETY: Every CPU with VMX has IA32_FEATURE_CONTROL.
        let feature_control = unsafe { rdmsr(msr::FEATURE_CONTROL) };
        let needed = FEATURE_CONTROL_LOCKED | FEATURE_CONTROL_VMX_OUTSIDE_SMX;
        if feature_control & needed != needed {
            return Err(Refusal::DisabledByFirmware);
        }
        // SAFETY: Every CPU with VMX has IA32_VMX_BASIC.
        let basic = unsafe { rdmsr(msr::BASIC) };
        Self::check_vmcs(basic)?;

        let mut pin = negotiate(&controls::PIN, allowed(basic, msr::PIN, msr::TRUE_PIN))
            .map_err(Refusal::Control)?;
        if !wanted.vnmi {
            pin &= !pin::VIRTUAL_NMIS;
        }
        let timer_wanted = wanted.preemption_timer && pin & pin::VMX_PREEMPTION_TIMER != 0;
        // SAFETY: Every CPU with VMX has IA32_VMX_MISC.
        let preemption_timer = Rate::of_cpu(unsafe { rdmsr(msr::MISC) }).filter(|_| timer_wanted);
        // A vCPU whose local APIC is in the kernel turns it on.
        pin &= !pin::VMX_PREEMPTION_TIMER;
        let mut primary = negotiate(
            &controls::PRIMARY,
            allowed(basic, msr::PRIMARY, msr::TRUE_PRIMARY),
        )
        .map_err(Refusal::Control)?;
        // SAFETY: The primary controls' negotiation succeeded, so secondary controls exist, and with
        // them their MSR.
        let secondary_allowed = Allowed(unsafe { rdmsr(msr::SECONDARY) });
        let mut secondary_controls =
            negotiate(&controls::SECONDARY, secondary_allowed).map_err(Refusal::Control)?;
        let mut exit = negotiate(&controls::EXIT, allowed(basic, msr::EXIT, msr::TRUE_EXIT))
            .map_err(Refusal::Control)?;
        let mut entry = negotiate(
            &controls::ENTRY,
            allowed(basic, msr::ENTRY, msr::TRUE_ENTRY),
        )
        .map_err(Refusal::Control)?;

        let [signature, ..] = cpu_call::cpuid(1, 0);
        let perf_global_ctrl = exit & controls::exit::LOAD_PERF_GLOBAL_CTRL != 0
            && entry & controls::entry::LOAD_PERF_GLOBAL_CTRL != 0
            && !perf::loses_global_ctrl(signature);
        // On only while perf has something to switch.
        exit &= !controls::exit::LOAD_PERF_GLOBAL_CTRL;
        entry &= !controls::entry::LOAD_PERF_GLOBAL_CTRL;

        let ept_vpid = if secondary_controls & (secondary::ENABLE_EPT | secondary::ENABLE_VPID) != 0
        {
            // SAFETY: A CPU with one of the two has their capability MSR.
            EptVpid(unsafe { rdmsr(msr::EPT_VPID) })
        } else {
            EptVpid(0)
        };
        let invvpid = ept_vpid.invvpid();
        if !wanted.vpid || invvpid.is_none() {
            secondary_controls &= !secondary::ENABLE_VPID;
        }
        let invept = ept_vpid.usable().filter(|_| {
            wanted.ept
                && secondary_controls & secondary::ENABLE_EPT != 0
                && exit & controls::EXIT_MSRS == controls::EXIT_MSRS
                && entry & controls::ENTRY_MSRS == controls::ENTRY_MSRS
        });
        let tpr_shadow = primary & primary::USE_TPR_SHADOW != 0;
        // A vCPU whose local APIC is in the kernel turns it on.
        primary &= !primary::USE_TPR_SHADOW;
        secondary_controls =
            flexpriority::restrict(secondary_controls, tpr_shadow, wanted.flexpriority);
        if invept.is_some() {
            // Who needs them turns them on.
            primary &= !controls::CR3_EXITING;
        } else {
            // The guest does not page, and its memory types are those of the entries: it runs with the
            // host's IA32_EFER but for the bits of IA-32e mode, and with the host's IA32_PAT.
            secondary_controls &= !secondary::ENABLE_EPT;
            exit &= !controls::EXIT_MSRS;
            entry &= !controls::ENTRY_MSRS;
        }
        if invept.is_none() || !wanted.unrestricted_guest {
            secondary_controls &= !secondary::UNRESTRICTED_GUEST;
        }

        // Interrupts of a guest in real mode are not the processor's to deliver where that runs in
        // virtual-8086 mode.
        let apicv = wanted.apicv
            && secondary_controls & secondary::UNRESTRICTED_GUEST != 0
            && apicv::is_offered(pin, secondary_controls, tpr_shadow);
        // A vCPU whose local APIC is in the kernel turns them on.
        pin &= !pin::PROCESS_POSTED_INTERRUPTS;
        secondary_controls &= !apicv::SECONDARY;

        let ept_ad = wanted.ept_ad && invept.is_some() && ept_vpid.accessed_dirty();
        if !wanted.pml || !ept_ad {
            secondary_controls &= !secondary::ENABLE_PML;
        }

        Ok(Self {
            // CAST: Bits 30:0 of the MSR are the revision identifier.
            revision: (basic & 0x7fff_ffff) as u32,
            pin,
            primary,
            secondary: secondary_controls,
            exit,
            entry,
            ept_vpid,
            invept,
            invvpid,
            ept_ad,
            dirty_bits: wanted.dirty_bits
                && ept_ad
                && secondary_controls & secondary::ENABLE_PML == 0,
            tpr_shadow,
            perf_global_ctrl,
            preemption_timer,
            apicv,
        })
    }

    /// Checks that a VMCS region is a page of ordinary write-back memory at any address.
    fn check_vmcs(basic: u64) -> Result<(), Refusal> {
        let size = (basic >> 32) & 0x1fff;
        let memory_type = (basic >> 50) & 0xf;
        if size > 4096 {
            Err(Refusal::Vmcs("its region is larger than a page"))
        } else if basic & (1 << 48) != 0 {
            Err(Refusal::Vmcs("it must lie below 4 GiB"))
        } else if memory_type != 6 {
            Err(Refusal::Vmcs("its memory type is not write-back"))
        } else {
            Ok(())
        }
    }

    /// Returns the VMCS revision identifier.
    pub(crate) const fn revision(&self) -> u32 {
        self.revision
    }

    /// Returns the pin-based controls, without APICv.
    pub(crate) const fn pin(&self) -> u32 {
        self.pin
    }

    /// Returns the primary controls, with no window exiting and without TPR shadow.
    pub(crate) const fn primary(&self) -> u32 {
        self.primary
    }

    /// Returns the secondary controls, with both ways to virtualise accesses to a local APIC, of which a
    /// vCPU has one at most, and without APICv.
    pub(crate) const fn secondary(&self) -> u32 {
        self.secondary
    }

    /// Returns the VM-exit controls.
    pub(crate) const fn exit(&self) -> u32 {
        self.exit
    }

    /// Returns the VM-entry controls for a guest outside IA-32e mode.
    pub(crate) const fn entry(&self) -> u32 {
        self.entry
    }

    /// Returns what EPT and VPID offer.
    pub(crate) const fn ept_vpid(&self) -> EptVpid {
        self.ept_vpid
    }

    /// Returns whether this secondary control is on.
    pub(crate) const fn has_secondary(&self, bit: u32) -> bool {
        self.secondary & bit != 0
    }

    /// Returns whether entries and exits can switch IA32_PERF_GLOBAL_CTRL by controls of their own.
    pub(crate) const fn perf_global_ctrl(&self) -> bool {
        self.perf_global_ctrl
    }

    /// Returns whether the CPU tracks if the guest blocks NMIs.
    pub(crate) const fn virtual_nmis(&self) -> bool {
        self.pin & pin::VIRTUAL_NMIS != 0
    }

    /// Returns whether vCPUs get a VPID.
    pub(crate) const fn vpid(&self) -> bool {
        self.has_secondary(secondary::ENABLE_VPID)
    }

    /// Returns whether the CPU keeps the guest's TPR in the virtual-APIC page.
    pub(crate) const fn tpr_shadow(&self) -> bool {
        self.tpr_shadow
    }

    /// Returns whether the CPU virtualises accesses to the local APIC's page.
    pub(crate) const fn flexpriority(&self) -> bool {
        self.has_secondary(secondary::VIRTUALIZE_APIC_ACCESSES)
    }

    /// Returns whether the CPU virtualises the TPR of the x2APIC.
    pub(crate) const fn virtualizes_x2apic(&self) -> bool {
        self.has_secondary(secondary::VIRTUALIZE_X2APIC_MODE)
    }

    /// Returns whether the CPU virtualises local APICs, and is to.
    pub(crate) const fn apicv(&self) -> bool {
        self.apicv
    }

    /// Returns whether guests run on extended page tables.
    pub(crate) const fn ept(&self) -> bool {
        self.has_secondary(secondary::ENABLE_EPT)
    }

    /// Returns whether the CPU runs guests without paging, and in real mode.
    pub(crate) const fn unrestricted_guest(&self) -> bool {
        self.has_secondary(secondary::UNRESTRICTED_GUEST)
    }

    /// Returns whether a VMCS has a place for the guest's IA32_EFER and IA32_PAT and the host's.
    pub(crate) const fn swaps_msrs(&self) -> bool {
        self.entry & controls::ENTRY_MSRS != 0
    }

    /// Returns which INVEPT to use for one EPTP; `None` if EPT is not used.
    pub(crate) const fn invept(&self) -> Option<Invalidate> {
        self.invept
    }

    /// Returns which INVVPID to use for one VPID; `None` if VPIDs are not used.
    pub(crate) const fn invvpid(&self) -> Option<Invalidate> {
        if self.vpid() {
            self.invvpid
        } else {
            None
        }
    }

    /// Returns whether the CPU logs which pages are written.
    pub(crate) const fn pml(&self) -> bool {
        self.secondary & secondary::ENABLE_PML != 0
    }

    /// Returns whether pages that were written are found by their dirty bits.
    pub(crate) const fn dirty_bits(&self) -> bool {
        self.dirty_bits
    }

    /// Returns how the VMX-preemption timer counts, if it is used.
    pub(crate) const fn preemption_timer(&self) -> Option<Rate> {
        self.preemption_timer
    }

    /// Returns whether EPT entries have accessed and dirty bits.
    pub(crate) const fn ept_ad(&self) -> bool {
        self.ept_ad
    }
}

#[kunit_tests(kvm_rs_capability)]
mod tests {
    use super::*;

    #[test]
    fn narrowest_invalidation() {
        assert!(EptVpid(0).invept().is_none());
        assert!(EptVpid(1 << 20 | 1 << 26 | 1 << 6).usable().is_none());
        assert!(EptVpid(1 << 20 | 1 << 26 | 1 << 6 | 1 << 14)
            .usable()
            .is_some());
        assert!(EptVpid(1 << 20).invept().is_none());
        assert!(EptVpid(1 << 20 | 1 << 26).invept() == Some(Invalidate::AllContext));
        assert!(EptVpid(1 << 20 | 3 << 25).invept() == Some(Invalidate::SingleContext));
        assert!(EptVpid(1 << 41).invvpid().is_none());
        assert!(EptVpid(1 << 32 | 1 << 42).invvpid() == Some(Invalidate::AllContext));
        assert!(EptVpid(1 << 32 | 3 << 41).invvpid() == Some(Invalidate::SingleContext));
    }
}
