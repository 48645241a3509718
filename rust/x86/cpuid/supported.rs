// SPDX-License-Identifier: GPL-2.0

//! What this host and this module can give to guests.
//!
//! Which features pass is data: [`PASSED`] from the host as they are, [`GATED`] from the host where
//! the module can handle them, [`EMULATED`] whatever the host has; [`NEED_STATE`] takes away those
//! whose registers guests cannot enable.

use super::{
    super::control_regs::Xcr0,
    feature::{
        Feature,
        Features,
        Word, //
    },
    xstate::XstateLayout,
    CpuidEntry,
    HostCpuid,
    Reg, //
};

/// What the module and its VMX controls can virtualise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Supported {
    /// Components that the host has enabled in XCR0; 0 without XSAVE.
    pub(crate) host_xcr0: u64,
    /// Guest-physical addresses are translated by EPT, not by shadow tables.
    pub(crate) ept: bool,
    /// EPT tables may have five levels.
    pub(crate) ept_five_levels: bool,
    /// Width of the host's physical addresses as the kernel counts it, in bits.
    pub(crate) host_physical_bits: u8,
    /// The local APIC offers x2APIC mode.
    pub(crate) x2apic: bool,
    /// The local APIC's timer offers TSC-deadline mode.
    pub(crate) tsc_deadline: bool,
    /// IA32_TSC_ADJUST is kept.
    pub(crate) tsc_adjust: bool,
    /// RDTSCP and RDPID run in the guest, with its IA32_TSC_AUX loaded.
    pub(crate) rdtscp: bool,
    /// INVPCID runs in the guest.
    pub(crate) invpcid: bool,
    /// UMIP is virtualised though the CPU lacks it.
    pub(crate) umip_emulated: bool,
    /// XSAVES runs in the guest.
    pub(crate) xsaves: bool,
    /// Protection keys: the guest's PKRU is loaded on entry.
    pub(crate) pku: bool,
    /// Five-level paging in the guest.
    pub(crate) la57: bool,
    /// UMWAIT and TPAUSE run in the guest.
    pub(crate) waitpkg: bool,
    /// IA32_SPEC_CTRL and IA32_PRED_CMD are virtualised.
    pub(crate) spec_ctrl: bool,
    /// The features of the two in the words of AMD's leaf 0x8000_0008, EBX.
    pub(crate) amd_speculation: u32,
    /// IA32_FLUSH_CMD is virtualised.
    pub(crate) flush_l1d: bool,
    /// IA32_ARCH_CAPABILITIES is kept.
    pub(crate) arch_capabilities: bool,
    /// The module runs guests that use VMX themselves.
    pub(crate) vmx: bool,
    /// Feature bits of leaf 0x4000_0001, EAX (KVM_FEATURE_*).
    pub(crate) kvm_features: u32,
}

/// Components of XCR0 that the module can switch if the kernel's FPU code does.
const XCR0: Xcr0 = Xcr0::FP
    .with(Xcr0::SSE)
    .with(Xcr0::YMM)
    .with(Xcr0::AVX512)
    .with(Xcr0::PKRU);

/// Features that a guest gets if the host has them and the kernel has not turned them off.
#[rustfmt::skip]
const PASSED: &[Feature] = &[
    Feature::SSE3, Feature::PCLMULQDQ, Feature::SSSE3, Feature::FMA, Feature::CX16, Feature::PCID,
    Feature::SSE4_1, Feature::SSE4_2, Feature::MOVBE, Feature::POPCNT, Feature::AES, Feature::AVX,
    Feature::F16C, Feature::RDRAND,

    Feature::FPU, Feature::VME, Feature::DE, Feature::PSE, Feature::TSC, Feature::MSR,
    Feature::PAE, Feature::MCE, Feature::CX8, Feature::APIC, Feature::SEP, Feature::MTRR,
    Feature::PGE, Feature::MCA, Feature::CMOV, Feature::PAT, Feature::PSE36, Feature::CLFLUSH,
    Feature::MMX, Feature::FXSR, Feature::SSE, Feature::SSE2, Feature::SELFSNOOP,

    Feature::FSGSBASE, Feature::BMI1, Feature::HLE, Feature::AVX2, Feature::FDP_EXCPTN_ONLY,
    Feature::SMEP, Feature::BMI2, Feature::ERMS, Feature::RTM, Feature::ZERO_FCS_FDS,
    Feature::AVX512F, Feature::AVX512DQ, Feature::RDSEED, Feature::ADX, Feature::SMAP,
    Feature::AVX512IFMA, Feature::CLFLUSHOPT, Feature::CLWB, Feature::AVX512PF, Feature::AVX512ER,
    Feature::AVX512CD, Feature::SHA, Feature::AVX512BW, Feature::AVX512VL,

    Feature::AVX512VBMI, Feature::UMIP, Feature::AVX512_VBMI2, Feature::GFNI, Feature::VAES,
    Feature::VPCLMULQDQ, Feature::AVX512_VNNI, Feature::AVX512_BITALG, Feature::AVX512_VPOPCNTDQ,
    Feature::CLDEMOTE, Feature::MOVDIRI, Feature::MOVDIR64B,

    Feature::AVX512_4VNNIW, Feature::AVX512_4FMAPS, Feature::FSRM, Feature::AVX512_VP2INTERSECT,
    Feature::MD_CLEAR, Feature::SERIALIZE, Feature::TSXLDTRK, Feature::AVX512_FP16,

    Feature::SHA512, Feature::SM3, Feature::SM4, Feature::AVX_VNNI, Feature::AVX512_BF16,
    Feature::CMPCCXADD, Feature::FZRM, Feature::FSRS, Feature::FSRC, Feature::AVX_IFMA,

    Feature::AVX_VNNI_INT8, Feature::AVX_NE_CONVERT, Feature::AVX_VNNI_INT16,
    Feature::PREFETCHITI,

    Feature::MCDT_NO,

    Feature::XSAVEOPT, Feature::XSAVEC, Feature::XGETBV1,

    Feature::LAHF_LM, Feature::ABM, Feature::PREFETCHW,
    Feature::SYSCALL, Feature::NX, Feature::FXSR_OPT, Feature::GBPAGES, Feature::LM,
    Feature::INVARIANT_TSC,
    Feature::WBNOINVD,
];

/// Whether the module can give a feature.
type Condition = fn(&Supported) -> bool;

/// Features that a guest gets if the host has them, the kernel has not turned them off and the
/// condition holds.
const GATED: &[(Feature, Condition)] = &[
    (Feature::VMX, |s| s.vmx),
    (Feature::XSAVE, |s| s.xcr0() != 0),
    (Feature::INVPCID, |s| s.invpcid),
    (Feature::PKU, |s| s.pku && s.ept),
    (Feature::LA57, |s| s.la57),
    (Feature::RDPID, |s| s.rdtscp),
    (Feature::RDTSCP, |s| s.rdtscp),
    (Feature::WAITPKG, |s| s.waitpkg),
    (Feature::SPEC_CTRL, |s| s.spec_ctrl),
    (Feature::STIBP, |s| s.spec_ctrl),
    (Feature::SSBD, |s| s.spec_ctrl),
    (Feature::PSFD, |s| s.spec_ctrl),
    (Feature::IPRED_CTRL, |s| s.spec_ctrl),
    (Feature::RRSBA_CTRL, |s| s.spec_ctrl),
    (Feature::DDPD_U, |s| s.spec_ctrl),
    (Feature::BHI_CTRL, |s| s.spec_ctrl),
    (Feature::FLUSH_L1D, |s| s.flush_l1d),
    (Feature::XSAVES, |s| s.xsaves),
];

/// Features that a guest gets whatever the host has, if the condition holds.
const EMULATED: &[(Feature, Condition)] = &[
    (Feature::HYPERVISOR, |_| true),
    (Feature::X2APIC, |s| s.x2apic),
    (Feature::TSC_DEADLINE, |s| s.tsc_deadline),
    (Feature::TSC_ADJUST, |s| s.tsc_adjust),
    (Feature::UMIP, |s| s.umip_emulated),
    (Feature::ARCH_CAPABILITIES, |s| s.arch_capabilities),
    (Feature::AMD_IBPB, |s| s.has_amd(Feature::AMD_IBPB)),
    (Feature::AMD_IBRS, |s| s.has_amd(Feature::AMD_IBRS)),
    (Feature::AMD_STIBP, |s| s.has_amd(Feature::AMD_STIBP)),
    (Feature::AMD_SSBD, |s| s.has_amd(Feature::AMD_SSBD)),
    (Feature::AMD_SSB_NO, |s| s.has_amd(Feature::AMD_SSB_NO)),
    (Feature::AMD_IBPB_RET, |s| s.has_amd(Feature::AMD_IBPB_RET)),
    // Shadow tables hold 1 GiB pages as smaller ones.
    (Feature::GBPAGES, |s| !s.ept),
];

/// Features whose registers are components of XCR0, which go with them.
#[rustfmt::skip]
const NEED_STATE: &[(Xcr0, &[Feature])] = &[
    (Xcr0::SSE, &[
        Feature::XSAVEOPT, Feature::XSAVEC, Feature::XGETBV1, Feature::XSAVES,
    ]),
    (Xcr0::YMM, &[
        Feature::AVX, Feature::FMA, Feature::F16C, Feature::AVX2, Feature::VAES,
        Feature::VPCLMULQDQ, Feature::SHA512, Feature::SM3, Feature::SM4, Feature::AVX_VNNI,
        Feature::AVX_IFMA, Feature::AVX_VNNI_INT8, Feature::AVX_NE_CONVERT,
        Feature::AVX_VNNI_INT16,
    ]),
    (Xcr0::AVX512, &[
        Feature::AVX512F, Feature::AVX512DQ, Feature::AVX512IFMA, Feature::AVX512PF,
        Feature::AVX512ER, Feature::AVX512CD, Feature::AVX512BW, Feature::AVX512VL,
        Feature::AVX512VBMI, Feature::AVX512_VBMI2, Feature::AVX512_VNNI, Feature::AVX512_BITALG,
        Feature::AVX512_VPOPCNTDQ, Feature::AVX512_4VNNIW, Feature::AVX512_4FMAPS,
        Feature::AVX512_VP2INTERSECT, Feature::AVX512_FP16, Feature::AVX512_BF16,
    ]),
];

impl Supported {
    const fn has_amd(&self, feature: Feature) -> bool {
        self.amd_speculation & feature.mask() != 0
    }

    /// Returns the components of XCR0 that a guest may enable; 0 without XSAVE.
    #[must_use]
    pub(crate) const fn xcr0(&self) -> u64 {
        let pkru = if self.pku && self.ept {
            Xcr0::NONE
        } else {
            Xcr0::PKRU
        };
        let mask = XCR0.without(pkru).value() & self.host_xcr0;
        // Without the two that XSAVE cannot be without, there is nothing to offer.
        if mask & 3 == 3 {
            mask
        } else {
            0
        }
    }

    /// Returns the features that guests may have on `host`.
    #[must_use]
    pub(crate) fn features(&self, host: &impl HostCpuid) -> Features {
        let from_host = Features::from_words(|word| host_word(host, word));
        let mut features = Features::default();
        let gated = GATED
            .iter()
            .filter(|(_, condition)| condition(self))
            .map(|&(feature, _)| feature);
        for feature in PASSED.iter().copied().chain(gated) {
            features.set(feature, from_host.has(feature));
        }
        let xcr0 = Xcr0::new(self.xcr0());
        for (_, lost) in NEED_STATE
            .iter()
            .filter(|(state, _)| !xcr0.contains(*state))
        {
            for &feature in *lost {
                features.set(feature, false);
            }
        }
        for &(feature, condition) in EMULATED {
            if condition(self) {
                features.set(feature, true);
            }
        }
        features
    }

    /// Returns EAX of leaf 0x8000_0008: widths of physical, linear and guest-physical addresses.
    pub(super) fn address_widths(&self, host_eax: u32) -> u32 {
        let linear = if self.la57 { 57 } else { 48 };
        let (physical, guest_physical) = if self.ept {
            let physical = host_eax & 0xff;
            let reach = if self.ept_five_levels { 52 } else { 48 };
            (physical, physical.min(reach))
        } else {
            (u32::from(self.host_physical_bits), 0)
        };
        physical | (linear << 8) | (guest_physical << 16)
    }
}

/// What guests of this module on this host can have, found once at load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Model {
    /// What the module can virtualise.
    pub(crate) supported: Supported,
    /// The features that follow from that and from the host.
    pub(crate) features: Features,
    /// The host's XSAVE area.
    pub(crate) layout: XstateLayout,
}

impl Model {
    /// Returns the model for `host`.
    #[must_use]
    pub(crate) fn new(host: &impl HostCpuid, supported: Supported) -> Self {
        Self {
            supported,
            features: supported.features(host),
            layout: XstateLayout::read(host),
        }
    }
}

impl Model {
    /// Returns whether RDPID is executed in software where the CPU does not have it: the MSR that it
    /// reads must be kept.
    #[must_use]
    pub(crate) fn emulates_rdpid(&self) -> bool {
        self.features.has(Feature::RDTSCP)
    }

    /// Returns the features that the module executes in software, whatever the CPU has
    /// (KVM_GET_EMULATED_CPUID): leaves 0, 1 and 7.
    #[must_use]
    pub(crate) fn emulated(&self) -> [CpuidEntry; 3] {
        let rdpid = if self.emulates_rdpid() {
            Feature::RDPID.mask()
        } else {
            0
        };
        [
            CpuidEntry::new(0, 0, [7, 0, 0, 0]),
            CpuidEntry::new(1, 0, [0, 0, Feature::MOVBE.mask(), 0]),
            CpuidEntry::new(7, 0, [0, 0, rdpid, 0]),
        ]
    }
}

/// Returns the bits of `word` that the CPU has and the kernel has not turned off.
fn host_word(host: &impl HostCpuid, word: Word) -> u32 {
    let (leaf, index, reg) = word.location();
    let [max_leaf, ..] = host.cpuid(leaf & 0x8000_0000, 0);
    if leaf > max_leaf {
        return 0;
    }
    if leaf == 7 && index > 0 {
        let [max_index, ..] = host.cpuid(7, 0);
        if index > max_index {
            return 0;
        }
    }
    let [eax, ebx, ecx, edx] = host.cpuid(leaf, index);
    let raw = match reg {
        Reg::Eax => eax,
        Reg::Ebx => ebx,
        Reg::Ecx => ecx,
        Reg::Edx => edx,
    };
    if word.kernel_word() == Word::NO_KERNEL_WORD {
        raw
    } else {
        raw & host.kernel_word(word.kernel_word())
    }
}
