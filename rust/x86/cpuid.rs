// SPDX-License-Identifier: GPL-2.0

//! CPUID: what the host offers, what the module can give to guests, and what one guest has.
//!
//! # Vocabulary
//!
//! - **Leaf**, or function: the value of EAX. **Subleaf**, or index: the value of ECX, which counts
//!   only for some leaves.
//! - **Word**: one of the four registers of one (sub)leaf, 32 feature bits.
//! - **Supported**: what this host and this module can give to a guest. **Guest**: what user space
//!   chose for one vCPU with KVM_SET_CPUID2, which may claim more than is supported.
//! - **Runtime bits**: bits of the guest's table that follow its own registers, as OSXSAVE follows
//!   CR4.OSXSAVE.
//!
//! ```text
//!   HostCpuid, Supported --> Model --> fill()             KVM_GET_SUPPORTED_CPUID
//!                              |
//!                              v
//!   KVM_SET_CPUID2 ------> GuestCpuid --> GuestFeatures   what the rest of the module asks
//! ```

mod feature;
mod guest;
mod guest_features;
mod leaves;
mod supported;
mod xstate;

pub(crate) use self::{
    feature::{
        Feature,
        Features, //
    },
    guest::{
        GuestCpuid,
        Runtime, //
    },
    guest_features::{
        hide_kvm_feature,
        GuestFeatures, //
    },
    leaves::fill,
    supported::{
        Model,
        Supported, //
    }, //
};

#[allow(unused_imports, reason = "named by the tests on the host")]
pub(crate) use self::{
    guest::Refused,
    leaves::fill_emulated, //
};

/// The most entries that a vCPU's table holds.
pub(crate) const MAX_ENTRIES: usize = 256;

/// One row of a CPUID table, laid out as `struct kvm_cpuid_entry2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub(crate) struct CpuidEntry {
    /// The leaf.
    pub(crate) function: u32,
    /// The subleaf, if [`Self::SIGNIFICANT_INDEX`] is set in `flags`.
    pub(crate) index: u32,
    /// [`Self::SIGNIFICANT_INDEX`]; other bits are kept and mean nothing.
    pub(crate) flags: u32,
    /// What CPUID returns in EAX.
    pub(crate) eax: u32,
    /// What CPUID returns in EBX.
    pub(crate) ebx: u32,
    /// What CPUID returns in ECX.
    pub(crate) ecx: u32,
    /// What CPUID returns in EDX.
    pub(crate) edx: u32,
    /// Unused.
    pub(crate) padding: [u32; 3],
}

const _: () = assert!(core::mem::size_of::<CpuidEntry>() == 40);

impl CpuidEntry {
    /// Flag: the entry is for one subleaf only.
    pub(crate) const SIGNIFICANT_INDEX: u32 = 1;

    /// Returns the entry that answers `regs` (EAX, EBX, ECX, EDX) for this (sub)leaf.
    #[must_use]
    pub(crate) const fn new(function: u32, index: u32, regs: [u32; 4]) -> Self {
        let [eax, ebx, ecx, edx] = regs;
        Self {
            function,
            index,
            flags: if is_indexed(function) {
                Self::SIGNIFICANT_INDEX
            } else {
                0
            },
            eax,
            ebx,
            ecx,
            edx,
            padding: [0; 3],
        }
    }

    /// Returns EAX, EBX, ECX and EDX.
    #[must_use]
    pub(crate) const fn regs(&self) -> [u32; 4] {
        [self.eax, self.ebx, self.ecx, self.edx]
    }

    /// Returns one register.
    #[must_use]
    pub(crate) const fn get(&self, reg: Reg) -> u32 {
        match reg {
            Reg::Eax => self.eax,
            Reg::Ebx => self.ebx,
            Reg::Ecx => self.ecx,
            Reg::Edx => self.edx,
        }
    }

    /// Returns one register, to be changed.
    #[must_use]
    pub(crate) fn get_mut(&mut self, reg: Reg) -> &mut u32 {
        match reg {
            Reg::Eax => &mut self.eax,
            Reg::Ebx => &mut self.ebx,
            Reg::Ecx => &mut self.ecx,
            Reg::Edx => &mut self.edx,
        }
    }

    /// Returns whether the entry answers CPUID for this leaf and subleaf.
    #[must_use]
    pub(crate) const fn answers(&self, function: u32, index: u32) -> bool {
        self.function == function
            && (self.flags & Self::SIGNIFICANT_INDEX == 0 || self.index == index)
    }
}

/// A register in which CPUID returns something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reg {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// The CPU under the module, and the kernel's view of it.
pub(crate) trait HostCpuid {
    /// Returns what CPUID answers on this CPU, as EAX, EBX, ECX, EDX.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];

    /// Returns word `index` of the kernel's feature bits (`boot_cpu_data.x86_capability`, numbered
    /// by `enum cpuid_leafs`), in which features that the kernel turned off are 0.
    ///
    /// All ones for a word that the kernel does not have.
    fn kernel_word(&self, index: usize) -> u32;
}

/// A table was too small for what it had to hold: E2BIG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooBig;

/// Returns whether the architecture defines subleaves for this leaf.
#[must_use]
pub(crate) const fn is_indexed(function: u32) -> bool {
    matches!(
        function,
        4 | 7
            | 0xb
            | 0xd
            | 0xf
            | 0x10
            | 0x12
            | 0x14
            | 0x17
            | 0x18
            | 0x1d
            | 0x1e
            | 0x1f
            | 0x23
            | 0x24
            | 0x8000_001d
    )
}

/// Returns the first entry that answers CPUID for this leaf and subleaf.
#[must_use]
pub(crate) fn find(entries: &[CpuidEntry], function: u32, index: u32) -> Option<&CpuidEntry> {
    entries.iter().find(|entry| entry.answers(function, index))
}

/// Returns the first entry that answers CPUID for this leaf and subleaf, to be changed.
#[must_use]
pub(crate) fn find_mut(
    entries: &mut [CpuidEntry],
    function: u32,
    index: u32,
) -> Option<&mut CpuidEntry> {
    entries
        .iter_mut()
        .find(|entry| entry.answers(function, index))
}
