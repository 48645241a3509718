// SPDX-License-Identifier: GPL-2.0

//! Numbers of the model-specific registers that a guest meets, and the lists that user space asks
//! for.

use super::cpuid::{
    Feature,
    Features, //
};

/// Declares MSR numbers.
macro_rules! indices {
    ($($(#[$doc:meta])* $name:ident = $index:literal,)*) => {
        $(
            $(#[$doc])*
            #[allow(dead_code, reason = "a table of names; not each is used")]
            pub(crate) const $name: u32 = $index;
        )*
    };
}

indices! {
    /// KVM: where the guest wants the wall-clock time, by its old number.
    KVM_WALL_CLOCK = 0x11,
    /// KVM: where the guest has its clock, by its old number.
    KVM_SYSTEM_TIME = 0x12,
    /// First of KVM's own MSRs.
    KVM_FIRST = 0x4b56_4d00,
    /// KVM: where the guest wants the wall-clock time.
    KVM_WALL_CLOCK_NEW = 0x4b56_4d00,
    /// KVM: where the guest has its clock.
    KVM_SYSTEM_TIME_NEW = 0x4b56_4d01,
    /// KVM: where the guest is told of pages that are away, and how.
    KVM_ASYNC_PF_EN = 0x4b56_4d02,
    /// KVM: where the guest is told how much time was stolen from it.
    KVM_STEAL_TIME = 0x4b56_4d03,
    /// KVM: where the guest ends interrupts without an exit.
    KVM_PV_EOI = 0x4b56_4d04,
    /// KVM: whether a halted vCPU polls.
    KVM_POLL_CONTROL = 0x4b56_4d05,
    /// KVM: the vector by which the guest is told that a page is there.
    KVM_ASYNC_PF_INT = 0x4b56_4d06,
    /// KVM: the guest has read of a page that is there.
    KVM_ASYNC_PF_ACK = 0x4b56_4d07,
    /// Last of KVM's own MSRs.
    KVM_LAST = 0x4b56_4dff,
    /// Time-stamp counter.
    TSC = 0x10,
    /// Base address, mode and enabling of the local APIC.
    APIC_BASE = 0x1b,
    /// Locks and enables VMX, SGX and local machine checks.
    FEAT_CTL = 0x3a,
    /// What was added to the time-stamp counter.
    TSC_ADJUST = 0x3b,
    /// Speculation control.
    SPEC_CTRL = 0x48,
    /// Prediction commands: write-only.
    PRED_CMD = 0x49,
    /// Microcode revision, in the upper half.
    UCODE_REV = 0x8b,
    /// First of the four registers with the hash of the key that signs SGX's launch enclave.
    SGX_KEY_HASH0 = 0x8c,
    /// Last of them.
    SGX_KEY_HASH3 = 0x8f,
    /// Ratios of the platform, and whether CPUID can fault.
    PLATFORM_INFO = 0xce,
    /// What the memory-type range registers offer.
    MTRR_CAP = 0xfe,
    /// What UMWAIT and TPAUSE may do.
    UMWAIT_CONTROL = 0xe1,
    /// Which speculation flaws the CPU does not have.
    ARCH_CAPABILITIES = 0x10a,
    /// Flush commands: write-only.
    FLUSH_CMD = 0x10b,
    /// CPUID faulting.
    MISC_FEATURES_ENABLES = 0x140,
    /// Code selector of SYSENTER.
    SYSENTER_CS = 0x174,
    /// Stack pointer of SYSENTER.
    SYSENTER_ESP = 0x175,
    /// Entry point of SYSENTER.
    SYSENTER_EIP = 0x176,
    /// What machine checks offer.
    MCG_CAP = 0x179,
    /// State of the machine check in progress.
    MCG_STATUS = 0x17a,
    /// Enables all reporting of machine checks.
    MCG_CTL = 0x17b,
    /// Miscellaneous features.
    MISC_ENABLE = 0x1a0,
    /// Extended feature disable.
    XFD = 0x1c4,
    /// Which disabled feature raised #NM.
    XFD_ERR = 0x1c5,
    /// Debug control.
    DEBUGCTL = 0x1d9,
    /// Where the last branch came from.
    LAST_BRANCH_FROM = 0x1db,
    /// Where it went.
    LAST_BRANCH_TO = 0x1dc,
    /// Where the last interrupt came from.
    LAST_INTERRUPT_FROM = 0x1dd,
    /// Where it went.
    LAST_INTERRUPT_TO = 0x1de,
    /// Power control.
    POWER_CTL = 0x1fc,
    /// First of the variable-range MTRRs: base and mask in turn.
    MTRR_PHYS_BASE0 = 0x200,
    /// Fixed-range MTRR of the first 512 KiB.
    MTRR_FIX_64K = 0x250,
    /// First of the two fixed-range MTRRs from 512 KiB.
    MTRR_FIX_16K = 0x258,
    /// First of the eight fixed-range MTRRs from 768 KiB.
    MTRR_FIX_4K = 0x268,
    /// Page-attribute table.
    PAT = 0x277,
    /// First of the corrected-error controls of machine checks.
    MC0_CTL2 = 0x280,
    /// Memory type outside all ranges, and enabling of the MTRRs.
    MTRR_DEF_TYPE = 0x2ff,
    /// First of the machine-check banks, four registers each.
    MC0_CTL = 0x400,
    /// Whether machine checks may be local.
    MCG_EXT_CTL = 0x4d0,
    /// Deadline of the local APIC's timer.
    TSC_DEADLINE = 0x6e0,
    /// Number of system-management interrupts.
    SMI_COUNT = 0x34,
    /// First register of the local APIC in x2APIC mode.
    X2APIC_FIRST = 0x800,
    /// Last register of the local APIC in x2APIC mode.
    X2APIC_LAST = 0x8ff,
    /// Supervisor components that XSAVES handles.
    XSS = 0xda0,
    /// Extended features.
    EFER = 0xc000_0080,
    /// Selectors of SYSCALL.
    STAR = 0xc000_0081,
    /// Entry point of SYSCALL from 64-bit code.
    LSTAR = 0xc000_0082,
    /// Entry point of SYSCALL from compatibility mode.
    CSTAR = 0xc000_0083,
    /// Flags that SYSCALL clears.
    SYSCALL_MASK = 0xc000_0084,
    /// Base of FS.
    FS_BASE = 0xc000_0100,
    /// Base of GS.
    GS_BASE = 0xc000_0101,
    /// What SWAPGS swaps with the base of GS.
    KERNEL_GS_BASE = 0xc000_0102,
    /// What RDTSCP and RDPID return.
    TSC_AUX = 0xc000_0103,
    /// Hardware configuration (AMD); kept for guests that look whatever the vendor.
    HWCR = 0xc001_0015,
}

/// Number of pairs of variable-range MTRRs.
pub(crate) const VARIABLE_MTRRS: u32 = 8;

/// The most MSRs that one KVM_GET_MSRS or KVM_SET_MSRS handles; more are E2BIG.
pub(crate) const MAX_ACCESSES: u32 = 255;

/// Whether the module keeps an MSR for guests.
type Condition = fn(&Features) -> bool;

/// MSRs that a client must save and restore to move a vCPU: KVM_GET_MSR_INDEX_LIST.
///
/// EFER, FS and GS bases and IA32_APIC_BASE are not among them: they are in KVM_GET_SREGS.
const SAVED: &[(u32, Condition)] = &[
    (SYSENTER_CS, always),
    (SYSENTER_ESP, always),
    (SYSENTER_EIP, always),
    (STAR, always),
    (CSTAR, always),
    (KERNEL_GS_BASE, always),
    (SYSCALL_MASK, always),
    (LSTAR, always),
    (TSC, always),
    (PAT, always),
    (FEAT_CTL, always),
    (TSC_AUX, |f| f.has(Feature::RDTSCP) || f.has(Feature::RDPID)),
    (SPEC_CTRL, |f| {
        f.has(Feature::SPEC_CTRL) || f.has(Feature::AMD_IBRS)
    }),
    (DEBUGCTL, always),
    (LAST_BRANCH_FROM, always),
    (LAST_BRANCH_TO, always),
    (LAST_INTERRUPT_FROM, always),
    (LAST_INTERRUPT_TO, always),
    (KVM_SYSTEM_TIME, always),
    (KVM_WALL_CLOCK, always),
    (KVM_SYSTEM_TIME_NEW, always),
    (KVM_WALL_CLOCK_NEW, always),
    (KVM_ASYNC_PF_EN, always),
    (KVM_STEAL_TIME, always),
    (KVM_PV_EOI, always),
    (KVM_ASYNC_PF_INT, always),
    (KVM_ASYNC_PF_ACK, always),
    (KVM_POLL_CONTROL, always),
    (TSC_ADJUST, |f| f.has(Feature::TSC_ADJUST)),
    (TSC_DEADLINE, |f| f.has(Feature::TSC_DEADLINE)),
    (ARCH_CAPABILITIES, |f| f.has(Feature::ARCH_CAPABILITIES)),
    (MISC_ENABLE, always),
    (MCG_STATUS, always),
    (MCG_CTL, always),
    (MCG_EXT_CTL, always),
    (SMI_COUNT, always),
    (PLATFORM_INFO, always),
    (MISC_FEATURES_ENABLES, always),
    (POWER_CTL, always),
    (UCODE_REV, always),
    (HWCR, always),
    (UMWAIT_CONTROL, |f| f.has(Feature::WAITPKG)),
    (MTRR_DEF_TYPE, always),
    (MTRR_FIX_64K, always),
];

/// Ranges of MSRs (first, number) that belong to the same list.
const SAVED_RANGES: &[(u32, u32)] = &[
    (MTRR_FIX_16K, 2),
    (MTRR_FIX_4K, 8),
    (MTRR_PHYS_BASE0, 2 * VARIABLE_MTRRS),
];

/// MSRs that tell features, as CPUID does: KVM_GET_MSR_FEATURE_INDEX_LIST.
const FEATURE_MSRS: &[(u32, Condition)] = &[
    (UCODE_REV, always),
    (ARCH_CAPABILITIES, |f| f.has(Feature::ARCH_CAPABILITIES)),
    (PLATFORM_INFO, always),
];

/// Holds for every module.
fn always(_: &Features) -> bool {
    true
}

/// Iterates over the MSRs of `list` that a module with these features keeps.
fn kept<'a>(
    list: &'static [(u32, Condition)],
    features: &'a Features,
) -> impl Iterator<Item = u32> + 'a {
    list.iter()
        .filter(|(_, condition)| condition(features))
        .map(|&(index, _)| index)
}

/// Iterates over the MSRs of KVM_GET_MSR_INDEX_LIST, in its order.
///
/// `features` are what the module supports.
pub(crate) fn saved(features: &Features) -> impl Iterator<Item = u32> + '_ {
    let ranges = SAVED_RANGES
        .iter()
        .flat_map(|&(first, number)| first..first.saturating_add(number));
    kept(SAVED, features).chain(ranges)
}

/// Iterates over the MSRs of KVM_GET_MSR_FEATURE_INDEX_LIST, in its order.
pub(crate) fn feature_msrs(features: &Features) -> impl Iterator<Item = u32> + '_ {
    kept(FEATURE_MSRS, features)
}

/// Returns whether user space's access to an MSR succeeds though the vCPU does not have the MSR:
/// what [`saved`] names can be read as 0, and 0 can be written to it.
///
/// `value` is what is written, 0 for a read.
#[must_use]
pub(crate) fn is_forgiven(index: u32, value: u64, features: &Features) -> bool {
    value == 0 && saved(features).any(|saved| saved == index)
}

/// Returns whether the MSR is part of the CPU model: once the vCPU has run, user space may write
/// only the value that it has.
#[must_use]
pub(crate) const fn is_immutable(index: u32) -> bool {
    matches!(index, ARCH_CAPABILITIES | PLATFORM_INFO)
}
