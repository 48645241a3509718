// SPDX-License-Identifier: GPL-2.0

//! What follows from a guest's CPUID table for the rest of the module.

use super::{
    super::control_regs::{
        Cr4,
        Efer,
        Xcr0, //
    },
    feature::{
        Feature,
        Features, //
    },
    find,
    find_mut,
    supported::Model,
    CpuidEntry, //
};

/// Width in bits of physical addresses for a guest whose CPUID does not tell it.
const DEFAULT_PHYSICAL_BITS: u8 = 36;

/// A feature that a guest may be told of though KVM_GET_SUPPORTED_CPUID does not offer it: MONITOR
/// and MWAIT do nothing.
const UNADVERTISED: Feature = Feature::MWAIT;

/// Facts about one vCPU, found anew whenever its CPUID table is replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GuestFeatures {
    /// The features that the table claims and the module supports.
    pub(crate) features: Features,
    /// Bits of CR4 that must be 0.
    pub(crate) cr4_reserved: Cr4,
    /// Bits of EFER that the guest may set.
    pub(crate) efer_allowed: Efer,
    /// Bits of EFER that user space may set with KVM_SET_MSRS, whatever CPUID says.
    pub(crate) efer_supported: Efer,
    /// Components that the guest may set in XCR0.
    pub(crate) xcr0: Xcr0,
    /// Width of guest-physical addresses in bits.
    pub(crate) physical_bits: u8,
    /// Bits of a guest-physical address that must be 0.
    pub(crate) reserved_gpa: u64,
    /// Width in bits of linear addresses that MSRs may hold. The CPU checks these by what it
    /// supports itself, not by what the guest was told.
    pub(crate) msr_linear_bits: u8,
    /// Paravirtual features that the guest was told of (KVM_FEATURE_*).
    pub(crate) kvm_features: u32,
}

impl GuestFeatures {
    /// Returns what the table `entries` means; an empty one is that of a new vCPU.
    #[must_use]
    pub(crate) fn derive(entries: &[CpuidEntry], model: &Model) -> Self {
        let features = guest_features(entries, model);
        let physical_bits = physical_bits(entries);
        Self {
            features,
            cr4_reserved: cr4_reserved(&features),
            efer_allowed: efer_allowed(&features),
            efer_supported: efer_supported(&model.features),
            xcr0: xcr0(entries, model),
            physical_bits,
            reserved_gpa: u64::MAX.checked_shl(u32::from(physical_bits)).unwrap_or(0),
            msr_linear_bits: if model.features.has(Feature::LA57) {
                57
            } else {
                48
            },
            kvm_features: kvm_features(entries),
        }
    }

    /// Returns whether the guest has the feature.
    #[must_use]
    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// Returns whether a guest-physical address of this value can exist.
    #[must_use]
    pub(crate) const fn is_legal_gpa(&self, gpa: u64) -> bool {
        gpa & self.reserved_gpa == 0
    }
}

/// Returns the features that the table claims and the module supports.
fn guest_features(entries: &[CpuidEntry], model: &Model) -> Features {
    let mut known = model.features;
    known.set(UNADVERTISED, true);
    let mut features = Features::from_words(|word| {
        let (leaf, index, reg) = word.location();
        find(entries, leaf, index).map_or(0, |entry| entry.get(reg) & known.word(word))
    });
    // Who has no CR4.OSXSAVE cannot be kept from XSAVES by it.
    if !features.has(Feature::XSAVE) {
        features.set(Feature::XSAVES, false);
    }
    // The CPU walks the guest's tables under EPT and takes 1 GiB pages if it has them itself.
    if model.supported.ept {
        features.set(Feature::GBPAGES, model.features.has(Feature::GBPAGES));
    }
    features
}

/// Returns the bits of CR4 that must be 0 without the features that they belong to.
fn cr4_reserved(features: &Features) -> Cr4 {
    const OPTIONAL: &[(Feature, Cr4)] = &[
        (Feature::XSAVE, Cr4::OSXSAVE),
        (Feature::SMEP, Cr4::SMEP),
        (Feature::SMAP, Cr4::SMAP),
        (Feature::FSGSBASE, Cr4::FSGSBASE),
        (Feature::PKU, Cr4::PKE),
        (Feature::LA57, Cr4::LA57),
        (Feature::UMIP, Cr4::UMIP),
        (Feature::VMX, Cr4::VMXE),
        (Feature::PCID, Cr4::PCIDE),
    ];
    let allowed = OPTIONAL
        .iter()
        .filter(|&&(feature, _)| features.has(feature))
        .fold(Cr4::ALWAYS, |bits, &(_, bit)| bits.with(bit));
    Cr4::new(!allowed.value())
}

/// Returns the bits of EFER that a guest with these features may set.
fn efer_allowed(features: &Features) -> Efer {
    const OPTIONAL: &[(Feature, Efer)] = &[
        (Feature::LM, Efer::LME.with(Efer::LMA)),
        (Feature::NX, Efer::NX),
        (Feature::FXSR_OPT, Efer::FFXSR),
    ];
    OPTIONAL
        .iter()
        .filter(|&&(feature, _)| features.has(feature))
        .fold(Efer::SCE, |bits, &(_, bit)| bits.with(bit))
}

/// Returns the bits of EFER that the module can load.
fn efer_supported(host: &Features) -> Efer {
    efer_allowed(host).with(Efer::LME).with(Efer::LMA)
}

/// Returns the components of XCR0 that the table claims and the module supports.
fn xcr0(entries: &[CpuidEntry], model: &Model) -> Xcr0 {
    let claimed = find(entries, 0xd, 0).map_or(0, |entry| {
        u64::from(entry.eax) | (u64::from(entry.edx) << 32)
    });
    Xcr0::new(claimed & model.supported.xcr0())
}

/// Returns the width of guest-physical addresses that the table tells.
fn physical_bits(entries: &[CpuidEntry]) -> u8 {
    let told = find(entries, 0x8000_0000, 0)
        .filter(|entry| entry.eax >= 0x8000_0008)
        .and_then(|_| find(entries, 0x8000_0008, 0));
    told.map_or(DEFAULT_PHYSICAL_BITS, |entry| {
        let [bits, ..] = entry.eax.to_le_bytes();
        bits
    })
}

/// Returns the KVM_FEATURE_* bits of the leaf after the one with KVM's signature.
///
/// User space may move KVM's leaves up, to make room for those of another hypervisor.
fn kvm_features(entries: &[CpuidEntry]) -> u32 {
    kvm_leaf(entries)
        .and_then(|leaf| find(entries, leaf, 0))
        .map_or(0, |entry| entry.eax)
}

/// Returns the number of the leaf with the KVM_FEATURE_* bits.
fn kvm_leaf(entries: &[CpuidEntry]) -> Option<u32> {
    const SIGNATURE: [[u8; 4]; 3] = [*b"KVMK", *b"VMKV", *b"M\0\0\0"];
    entries
        .iter()
        .filter(|entry| entry.function & 0xffff_00ff == 0x4000_0000)
        .find(|entry| SIGNATURE == [entry.ebx, entry.ecx, entry.edx].map(u32::to_le_bytes))
        .map(|entry| entry.function | 1)
}

/// Takes a KVM_FEATURE_* bit out of a guest's CPUID.
pub(crate) fn hide_kvm_feature(entries: &mut [CpuidEntry], bit: u32) {
    if let Some(entry) = kvm_leaf(entries).and_then(|leaf| find_mut(entries, leaf, 0)) {
        entry.eax &= !bit;
    }
}
