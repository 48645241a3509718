// SPDX-License-Identifier: GPL-2.0

//! The VMX controls and their negotiation with the CPU.
//!
//! Each control word has a capability MSR whose low half tells the bits that must be 1 and whose high
//! half the bits that may be 1. What this module cannot do without is `REQUIRED`, what it uses if
//! present is `OPTIONAL`; [`negotiate`] holds both against the MSR.

use kernel::{
    fmt,
    prelude::*, //
};

/// A control word's wishes: what the module needs and what it would like.
pub(super) struct Wishes {
    /// The word's name, for the log.
    pub(super) name: &'static str,
    /// Bits without which the module does not load.
    pub(super) required: u32,
    /// Bits that are set if the CPU allows them.
    pub(super) optional: u32,
}

/// A control word that a CPU does not offer in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Missing {
    /// The word's name.
    pub(crate) name: &'static str,
    /// The required bits that may not be set.
    pub(crate) bits: u32,
}

/// Controls that some generation of CPUs lacks, by word and bit, for the log.
const NAMES: &[(&str, u32, &str)] = &[
    (PRIMARY.name, primary::USE_MSR_BITMAPS, "MSR bitmaps"),
    (
        PRIMARY.name,
        primary::ACTIVATE_SECONDARY_CONTROLS,
        "secondary controls",
    ),
];

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} controls {:#x}", self.name, self.bits)?;
        let names = NAMES
            .iter()
            .filter(|(word, bit, _)| *word == self.name && self.bits & bit != 0);
        for (index, (_, _, name)) in names.enumerate() {
            let separator = if index == 0 { ": " } else { ", " };
            write!(f, "{separator}{name}")?;
        }
        Ok(())
    }
}

/// What a capability MSR allows in a control word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Allowed(pub(super) u64);

impl Allowed {
    /// Returns the bits that must be 1.
    const fn must_be_one(self) -> u32 {
        // CAST: The low half of the MSR.
        self.0 as u32
    }

    /// Returns the bits that may be 1.
    const fn may_be_one(self) -> u32 {
        // CAST: The high half of the MSR.
        (self.0 >> 32) as u32
    }
}

/// Returns the word to use: what must be set, all that is required and what is offered of the
/// optional bits.
pub(super) const fn negotiate(wishes: &Wishes, allowed: Allowed) -> Result<u32, Missing> {
    let missing = wishes.required & !allowed.may_be_one();
    if missing != 0 {
        return Err(Missing {
            name: wishes.name,
            bits: missing,
        });
    }
    Ok(allowed.must_be_one() | wishes.required | (wishes.optional & allowed.may_be_one()))
}

/// Pin-based VM-execution controls.
pub(crate) mod pin {
    /// External interrupts exit.
    pub(crate) const EXTERNAL_INTERRUPT_EXITING: u32 = 1 << 0;
    /// NMIs exit.
    pub(crate) const NMI_EXITING: u32 = 1 << 3;
    /// The CPU tracks whether the guest blocks NMIs.
    pub(crate) const VIRTUAL_NMIS: u32 = 1 << 5;
    /// The VMX-preemption timer counts while the guest runs, and exits.
    pub(crate) const VMX_PREEMPTION_TIMER: u32 = 1 << 6;
    /// The CPU takes interrupts that are posted to the guest.
    pub(crate) const PROCESS_POSTED_INTERRUPTS: u32 = 1 << 7;
}

/// Primary processor-based VM-execution controls.
pub(crate) mod primary {
    /// Exit as soon as the guest can take an interrupt.
    pub(crate) const INTERRUPT_WINDOW_EXITING: u32 = 1 << 2;
    /// `TSC_OFFSET` is added to the TSC that the guest reads.
    pub(crate) const USE_TSC_OFFSETTING: u32 = 1 << 3;
    /// HLT exits.
    pub(crate) const HLT_EXITING: u32 = 1 << 7;
    /// MWAIT exits.
    pub(crate) const MWAIT_EXITING: u32 = 1 << 10;
    /// RDPMC exits.
    pub(crate) const RDPMC_EXITING: u32 = 1 << 11;
    /// MOV to CR3 exits.
    pub(crate) const CR3_LOAD_EXITING: u32 = 1 << 15;
    /// MOV from CR3 exits.
    pub(crate) const CR3_STORE_EXITING: u32 = 1 << 16;
    /// MOV to CR8 exits.
    pub(crate) const CR8_LOAD_EXITING: u32 = 1 << 19;
    /// MOV from CR8 exits.
    pub(crate) const CR8_STORE_EXITING: u32 = 1 << 20;
    /// The guest's TPR is in the virtual-APIC page.
    pub(crate) const USE_TPR_SHADOW: u32 = 1 << 21;
    /// Exit as soon as the guest can take an NMI.
    pub(crate) const NMI_WINDOW_EXITING: u32 = 1 << 22;
    /// MOV DR exits.
    pub(crate) const MOV_DR_EXITING: u32 = 1 << 23;
    /// Every I/O instruction exits.
    pub(crate) const UNCONDITIONAL_IO_EXITING: u32 = 1 << 24;
    /// RDMSR and WRMSR exit where the bitmap says so.
    pub(crate) const USE_MSR_BITMAPS: u32 = 1 << 28;
    /// MONITOR exits.
    pub(crate) const MONITOR_EXITING: u32 = 1 << 29;
    /// The secondary controls count.
    pub(crate) const ACTIVATE_SECONDARY_CONTROLS: u32 = 1 << 31;
}

/// Secondary processor-based VM-execution controls.
pub(crate) mod secondary {
    /// Accesses to the APIC-access page are the processor's to virtualise, or exit.
    pub(crate) const VIRTUALIZE_APIC_ACCESSES: u32 = 1 << 0;
    /// Guest-physical addresses are translated by EPT.
    pub(crate) const ENABLE_EPT: u32 = 1 << 1;
    /// The guest may use RDTSCP.
    pub(crate) const ENABLE_RDTSCP: u32 = 1 << 3;
    /// RDMSR and WRMSR of the x2APIC's TPR are on the virtual-APIC page, if they do not exit.
    pub(crate) const VIRTUALIZE_X2APIC_MODE: u32 = 1 << 4;
    /// Translations are tagged with a VPID.
    pub(crate) const ENABLE_VPID: u32 = 1 << 5;
    /// WBINVD exits.
    pub(crate) const WBINVD_EXITING: u32 = 1 << 6;
    /// The guest may run without paging or in real mode.
    pub(crate) const UNRESTRICTED_GUEST: u32 = 1 << 7;
    /// Most registers of the local APIC are read on the virtual-APIC page, and written there.
    pub(crate) const APIC_REGISTER_VIRTUALIZATION: u32 = 1 << 8;
    /// The CPU keeps the guest's IRR and ISR, and delivers interrupts from there.
    pub(crate) const VIRTUAL_INTERRUPT_DELIVERY: u32 = 1 << 9;
    /// PAUSE exits where it is part of a loop that lasts.
    pub(crate) const PAUSE_LOOP_EXITING: u32 = 1 << 10;
    /// RDRAND exits.
    pub(crate) const RDRAND_EXITING: u32 = 1 << 11;
    /// The guest may use INVPCID.
    pub(crate) const ENABLE_INVPCID: u32 = 1 << 12;
    /// ENCLS exits where its bitmap says so.
    pub(crate) const ENCLS_EXITING: u32 = 1 << 15;
    /// RDSEED exits.
    pub(crate) const RDSEED_EXITING: u32 = 1 << 16;
    /// The guest may use XSAVES and XRSTORS.
    pub(crate) const ENABLE_XSAVES: u32 = 1 << 20;
    /// The TSC that the guest reads is multiplied by `TSC_MULTIPLIER` first.
    pub(crate) const USE_TSC_SCALING: u32 = 1 << 25;
    /// Written pages are logged.
    pub(crate) const ENABLE_PML: u32 = 1 << 17;
    /// The guest may use TPAUSE, UMONITOR and UMWAIT.
    pub(crate) const ENABLE_USER_WAIT_PAUSE: u32 = 1 << 26;
}

/// VM-exit controls.
pub(crate) mod exit {
    /// The host is a 64-bit one.
    pub(crate) const HOST_ADDRESS_SPACE_SIZE: u32 = 1 << 9;
    /// An external interrupt is acknowledged and its vector reported.
    pub(crate) const ACKNOWLEDGE_INTERRUPT: u32 = 1 << 15;
    /// Load the host's IA32_PERF_GLOBAL_CTRL.
    pub(crate) const LOAD_PERF_GLOBAL_CTRL: u32 = 1 << 12;
    /// Save the guest's IA32_PAT.
    pub(crate) const SAVE_PAT: u32 = 1 << 18;
    /// Load the host's IA32_PAT.
    pub(crate) const LOAD_PAT: u32 = 1 << 19;
    /// Save the guest's IA32_EFER.
    pub(crate) const SAVE_EFER: u32 = 1 << 20;
    /// Load the host's IA32_EFER.
    pub(crate) const LOAD_EFER: u32 = 1 << 21;
    /// Save the guest's DR7 and IA32_DEBUGCTL.
    pub(crate) const SAVE_DEBUG_CONTROLS: u32 = 1 << 2;
}

/// VM-entry controls.
pub(crate) mod entry {
    /// Load the guest's DR7 and IA32_DEBUGCTL.
    pub(crate) const LOAD_DEBUG_CONTROLS: u32 = 1 << 2;
    /// The guest is in IA-32e mode.
    pub(crate) const IA32E_MODE_GUEST: u32 = 1 << 9;
    /// Load the guest's IA32_PERF_GLOBAL_CTRL.
    pub(crate) const LOAD_PERF_GLOBAL_CTRL: u32 = 1 << 13;
    /// Load the guest's IA32_PAT.
    pub(crate) const LOAD_PAT: u32 = 1 << 14;
    /// Load the guest's IA32_EFER.
    pub(crate) const LOAD_EFER: u32 = 1 << 15;
}

pub(super) const PIN: Wishes = Wishes {
    name: "pin-based VM-execution",
    required: pin::EXTERNAL_INTERRUPT_EXITING | pin::NMI_EXITING,
    optional: pin::VIRTUAL_NMIS | pin::VMX_PREEMPTION_TIMER | pin::PROCESS_POSTED_INTERRUPTS,
};

pub(super) const PRIMARY: Wishes = Wishes {
    name: "primary processor-based VM-execution",
    required: primary::USE_TSC_OFFSETTING
        | primary::HLT_EXITING
        | primary::CR3_LOAD_EXITING
        | primary::CR3_STORE_EXITING
        | primary::MWAIT_EXITING
        | primary::MONITOR_EXITING
        | primary::RDPMC_EXITING
        | primary::CR8_LOAD_EXITING
        | primary::CR8_STORE_EXITING
        | primary::MOV_DR_EXITING
        | primary::UNCONDITIONAL_IO_EXITING
        | primary::USE_MSR_BITMAPS
        | primary::ACTIVATE_SECONDARY_CONTROLS,
    optional: primary::USE_TPR_SHADOW,
};

/// Bits of the primary controls with which CR3 of the VMCS is the module's and not the guest's.
///
/// Some CPUs force them to 1 by default; EPT lets them be 0.
pub(crate) const CR3_EXITING: u32 = primary::CR3_LOAD_EXITING | primary::CR3_STORE_EXITING;

pub(super) const SECONDARY: Wishes = Wishes {
    name: "secondary processor-based VM-execution",
    required: 0,
    optional: secondary::VIRTUALIZE_APIC_ACCESSES
        | secondary::VIRTUALIZE_X2APIC_MODE
        | secondary::ENABLE_EPT
        | secondary::UNRESTRICTED_GUEST
        | secondary::APIC_REGISTER_VIRTUALIZATION
        | secondary::VIRTUAL_INTERRUPT_DELIVERY
        | secondary::ENABLE_VPID
        | secondary::ENABLE_RDTSCP
        | secondary::ENABLE_INVPCID
        | secondary::ENABLE_XSAVES
        | secondary::ENABLE_PML
        | secondary::ENABLE_USER_WAIT_PAUSE
        | secondary::USE_TSC_SCALING
        | secondary::PAUSE_LOOP_EXITING
        | secondary::RDRAND_EXITING
        | secondary::RDSEED_EXITING
        | secondary::ENCLS_EXITING
        | secondary::WBINVD_EXITING,
};

pub(super) const EXIT: Wishes = Wishes {
    name: "VM-exit",
    required: exit::HOST_ADDRESS_SPACE_SIZE
        | exit::ACKNOWLEDGE_INTERRUPT
        | exit::SAVE_DEBUG_CONTROLS,
    optional: EXIT_MSRS | exit::LOAD_PERF_GLOBAL_CTRL,
};

/// Exit controls without which the guest has the host's IA32_EFER and IA32_PAT.
pub(super) const EXIT_MSRS: u32 =
    exit::SAVE_EFER | exit::LOAD_EFER | exit::SAVE_PAT | exit::LOAD_PAT;

/// Entry controls without which the guest has the host's IA32_EFER and IA32_PAT.
pub(super) const ENTRY_MSRS: u32 = entry::LOAD_EFER | entry::LOAD_PAT;

pub(super) const ENTRY: Wishes = Wishes {
    name: "VM-entry",
    required: entry::LOAD_DEBUG_CONTROLS,
    optional: ENTRY_MSRS | entry::LOAD_PERF_GLOBAL_CTRL,
};

#[kunit_tests(kvm_rs_controls)]
mod tests {
    use super::*;

    const WISHES: Wishes = Wishes {
        name: "test",
        required: 0b0011,
        optional: 0b1100,
    };

    #[test]
    fn takes_what_is_offered() {
        // Bit 4 must be one, bit 3 is not offered.
        let allowed = Allowed((0b1_0111 << 32) | 0b1_0000);
        assert_eq!(negotiate(&WISHES, allowed), Ok(0b1_0111));
    }

    #[test]
    fn names_what_is_missing() {
        let allowed = Allowed(0b1101 << 32);
        assert_eq!(
            negotiate(&WISHES, allowed),
            Err(Missing {
                name: "test",
                bits: 0b0010
            })
        );
    }
}
