// SPDX-License-Identifier: GPL-2.0

//! How a guest's page is cached.
//!
//! As in KVM, the host decides by what the page is: memory of the host is write-back, and device
//! memory uncached, as anything else would end in machine checks. The guest's MTRRs are registers
//! without effect. Its CR0.CD has none either, as VM entry leaves the processor's own CD as it is. Its
//! PAT is the processor's while it runs; whether it decides about memory is the VM's
//! [`Policy`]. It never decides about device memory: uncached is what all of its types come to there,
//! but for write combining, which is harmless.
//!
//! The guest's PAT is ignored by default, since some guests map what they take for device memory as
//! uncached, slowly. Only where the processor snoops its own caches for accesses of all types
//! (CPUID's self-snoop) may a client have it otherwise, by turning KVM's quirk off: elsewhere the
//! guest could see memory that other users of the page have in their caches. No device of the host
//! reads guest memory behind the caches.

use kernel::prelude::*;

/// How the processor caches a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MemoryType {
    /// As memory is, whatever the guest's PAT says.
    WriteBack,
    /// As memory is, unless the guest's PAT says otherwise.
    GuestPat,
    /// As devices need it.
    Uncached,
}

/// What decides about the type of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    /// The host alone.
    IgnoreGuestPat,
    /// The guest's PAT.
    HonorGuestPat,
}

impl MemoryType {
    /// Returns the type of a host page, which is device memory or not.
    pub(super) const fn of(is_mmio: bool, policy: Policy) -> Self {
        match (is_mmio, policy) {
            (true, _) => Self::Uncached,
            (false, Policy::IgnoreGuestPat) => Self::WriteBack,
            (false, Policy::HonorGuestPat) => Self::GuestPat,
        }
    }
}

#[kunit_tests(kvm_rs_memory_type)]
mod tests {
    use super::*;
    use crate::{
        mmu::{
            entry::{
                Access,
                Entry,
                EntryFormat,
                Leaf, //
            },
            ept::{
                Ept,
                EptVariant, //
            },
            level::Level,
        },
        x86::addr::Pfn,
    };

    #[test]
    fn ept_bits_are_kvms() {
        // The type in bits 5 to 3 (0 uncached, 6 write-back), and bit 6 to ignore the guest's PAT.
        let table = [
            (true, Policy::IgnoreGuestPat, 0x00),
            (true, Policy::HonorGuestPat, 0x00),
            (false, Policy::IgnoreGuestPat, 0x70),
            (false, Policy::HonorGuestPat, 0x30),
        ];
        for (is_mmio, policy, expected) in table {
            for level in Level::SIZES {
                let leaf = Leaf {
                    host_writable: true,
                    pfn: Pfn::new(1 << 18),
                    access: Access::ALL,
                    memory_type: MemoryType::of(is_mmio, policy),
                    accessed: true,
                    dirty: true,
                };
                let bits = Ept::leaf(EptVariant { a_d: true }, &leaf, level);
                assert_eq!(bits & 0x78, expected);
                assert_eq!(Ept::decode(bits, level), Entry::Leaf(leaf));
            }
        }
    }
}
