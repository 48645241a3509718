// SPDX-License-Identifier: GPL-2.0

//! Sets of special registers, in the manner of set_sregs_test.

use super::host::{
    model,
    Host, //
};
use crate::x86::{
    control_regs::{
        Cr0,
        Cr4,
        Efer, //
    },
    cpuid::{
        fill,
        CpuidEntry,
        GuestFeatures, //
    },
    sregs::{
        is_valid,
        SpecialRegs, //
    },
};

/// Returns the features of a guest with everything that is supported.
fn full() -> GuestFeatures {
    let mut entries = [CpuidEntry::default(); 64];
    let len = fill(&Host::default(), &model(), &mut entries).expect("64 rows are enough");
    GuestFeatures::derive(entries.get(..len).expect("the rows are there"), &model())
}

/// Returns the features of a vCPU whose CPUID was never set.
fn none() -> GuestFeatures {
    GuestFeatures::derive(&[], &model())
}

const REAL: SpecialRegs = SpecialRegs {
    cr0: Cr0::ET,
    cr3: 0,
    cr4: Cr4::NONE,
    efer: Efer::NONE,
    cs_l: false,
};

const LONG: SpecialRegs = SpecialRegs {
    cr0: Cr0::PE.with(Cr0::NE).with(Cr0::PG),
    cr3: 0x1000,
    cr4: Cr4::PAE.with(Cr4::OSFXSR).with(Cr4::OSXSAVE),
    efer: Efer::LME.with(Efer::LMA).with(Efer::NX),
    cs_l: true,
};

#[test]
fn without_cpuid_only_the_oldest_bits_are_allowed() {
    let features = none();
    assert!(is_valid(&REAL, &features));
    let cr4 = SpecialRegs {
        cr4: Cr4::ALWAYS,
        efer: Efer::SCE,
        ..REAL
    };
    assert!(is_valid(&cr4, &features));
    assert_eq!(Cr4::ALWAYS.value(), 0x7ff);
    for bit in 11..64 {
        let regs = SpecialRegs {
            cr4: Cr4::new(1 << bit),
            ..REAL
        };
        assert!(!is_valid(&regs, &features), "CR4 bit {bit}");
    }
    for bit in 1..64 {
        let regs = SpecialRegs {
            efer: Efer::new(1 << bit),
            ..REAL
        };
        assert!(!is_valid(&regs, &features), "EFER bit {bit}");
    }
    for bit in 32..64 {
        let regs = SpecialRegs {
            cr0: Cr0::ET.with(Cr0::new(1 << bit)),
            ..REAL
        };
        assert!(!is_valid(&regs, &features), "CR0 bit {bit}");
    }
}

#[test]
fn all_supported_bits_at_once_are_allowed() {
    let features = full();
    assert!(is_valid(&LONG, &features));
    let supported = Cr4::new(!features.cr4_reserved.value());
    assert_eq!(
        supported,
        Cr4::ALWAYS
            .with(Cr4::OSXSAVE)
            .with(Cr4::SMEP)
            .with(Cr4::FSGSBASE)
            .with(Cr4::PCIDE)
    );
    let regs = SpecialRegs {
        cr4: supported,
        efer: features.efer_allowed,
        ..LONG
    };
    assert!(is_valid(&regs, &features));
    for bit in [
        Cr4::UMIP,
        Cr4::LA57,
        Cr4::VMXE,
        Cr4::SMXE,
        Cr4::SMAP,
        Cr4::PKE,
    ] {
        let regs = SpecialRegs {
            cr4: regs.cr4.with(bit),
            ..regs
        };
        assert!(!is_valid(&regs, &features), "{bit:?}");
    }
}

#[test]
fn modes_must_be_consistent() {
    let features = full();
    let cases = [
        SpecialRegs {
            cr4: Cr4::OSFXSR,
            ..LONG
        },
        SpecialRegs {
            efer: Efer::LME,
            ..LONG
        },
        SpecialRegs {
            efer: Efer::LMA,
            ..LONG
        },
        SpecialRegs {
            cr0: Cr0::PE,
            ..LONG
        },
        SpecialRegs {
            cr3: 1 << 39,
            ..LONG
        },
        SpecialRegs { cs_l: true, ..REAL },
        SpecialRegs {
            cr0: Cr0::PG,
            ..REAL
        },
        SpecialRegs {
            cr0: Cr0::NW,
            ..REAL
        },
    ];
    for regs in cases {
        assert!(!is_valid(&regs, &features), "{regs:?}");
    }
    // Compatibility mode, and LME before paging.
    for regs in [
        SpecialRegs {
            cs_l: false,
            ..LONG
        },
        SpecialRegs {
            efer: Efer::LME,
            ..REAL
        },
    ] {
        assert!(is_valid(&regs, &features), "{regs:?}");
    }
}
