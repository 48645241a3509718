// SPDX-License-Identifier: GPL-2.0

//! Values and changes of control registers that are allowed, and that are not.

use crate::x86::control_regs::{
    rules::{
        check_cr0,
        check_cr3,
        check_cr4,
        check_cr8,
        check_dr6,
        check_dr7,
        check_efer,
        check_efer_from_user,
        check_xcr0,
        cr0_loads_pdptes,
        cr4_loads_pdptes,
        efer_after_cr0,
        is_valid_cr0,
        Cr3Write,
        GpFault,
        Paging, //
    },
    Cr0,
    Cr4,
    Dr6,
    Dr7,
    Efer,
    Rflags,
    Xcr0, //
};

const PROTECTED: Cr0 = Cr0::PE.with(Cr0::ET);
const PAGED: Cr0 = PROTECTED.with(Cr0::PG).with(Cr0::WP);
const LONG: Efer = Efer::LME.with(Efer::LMA);

#[test]
fn sets_of_bits() {
    let set = Cr0::PE.with(Cr0::PG);
    assert_eq!(set.value(), 0x8000_0001);
    assert!(set.contains(Cr0::PG) && !set.contains(Cr0::PG.with(Cr0::WP)));
    assert!(set.intersects(Cr0::PG.with(Cr0::WP)) && !set.intersects(Cr0::WP));
    assert_eq!(set.without(Cr0::PE), Cr0::PG);
    assert_eq!(set.assign(Cr0::WP, true).assign(Cr0::WP, false), set);
    assert_eq!(set.difference(Cr0::PE), Cr0::PG);
    assert_eq!(set.common(PROTECTED), Cr0::PE);
    assert!(Cr0::NONE.is_empty() && !set.is_empty());
    assert_eq!(Cr0::DEFINED.value(), 0xe005_003f);
    assert_eq!(Cr0::RESET.value(), 0x6000_0010);
    assert_eq!(Rflags::RESET.value(), 2);
    assert_eq!(Rflags::IOPL.value(), 0x3000);
    assert_eq!(Xcr0::RESET, Xcr0::FP);
}

#[test]
fn cr0_by_itself() {
    for (value, ok) in [
        (0, true),
        (1 << 32, false),
        (1 << 63, false),
        (Cr0::NW.value(), false),
        (Cr0::CD.value(), true),
        (Cr0::NW.with(Cr0::CD).value(), true),
        (Cr0::PG.value(), false),
        (PAGED.value(), true),
        (1 << 6, true),
    ] {
        assert_eq!(is_valid_cr0(Cr0::new(value)), ok, "{value:#x}");
    }
}

#[test]
fn cr0_changes() {
    let none = (Cr4::NONE, Efer::NONE, false);
    let pae = (Cr4::PAE, Efer::LME, false);
    // Reserved bits are dropped and ET is stuck.
    let odd = Cr0::new(Cr0::PE.value() | (1 << 6));
    assert_eq!(
        check_cr0(PROTECTED, odd, none.0, none.1, none.2),
        Ok(PROTECTED)
    );
    for (old, new, (cr4, efer, cs_l), ok) in [
        (PROTECTED, PAGED, none, true),
        (PROTECTED, PAGED, pae, true),
        (PROTECTED, PAGED, (Cr4::NONE, Efer::LME, false), false),
        (PROTECTED, PAGED, (Cr4::PAE, Efer::LME, true), false),
        // Staying in long mode asks nothing; leaving it from 64-bit code is refused.
        (PAGED, PAGED, (Cr4::PAE, LONG, true), true),
        (PAGED, PROTECTED, (Cr4::PAE, LONG, true), false),
        (PAGED, PROTECTED, (Cr4::PAE, LONG, false), true),
        (
            PAGED,
            PROTECTED,
            (Cr4::PAE.with(Cr4::PCIDE), LONG, false),
            false,
        ),
        (PAGED, PAGED.without(Cr0::WP), (Cr4::CET, LONG, true), false),
    ] {
        let result = check_cr0(old, new, cr4, efer, cs_l);
        assert_eq!(result, if ok { Ok(new) } else { Err(GpFault) });
    }
    assert_eq!(efer_after_cr0(Efer::LME, PAGED), LONG);
    assert_eq!(efer_after_cr0(LONG, PROTECTED), Efer::LME);
    assert_eq!(efer_after_cr0(Efer::NX, PAGED), Efer::NX);
}

#[test]
fn cr4_changes() {
    let reserved = Cr4::new(!Cr4::ALWAYS.with(Cr4::PCIDE).with(Cr4::LA57).value());
    let check = |old, new, cr3, efer| check_cr4(old, new, PAGED, cr3, efer, reserved);
    let pcid = Cr4::PAE.with(Cr4::PCIDE);
    assert_eq!(check(Cr4::NONE, Cr4::PGE, 0, Efer::NONE), Ok(Cr4::PGE));
    assert_eq!(check(Cr4::NONE, Cr4::SMEP, 0, Efer::NONE), Err(GpFault));
    assert_eq!(
        check(Cr4::NONE, Cr4::new(1 << 40), 0, Efer::NONE),
        Err(GpFault)
    );
    assert_eq!(check(Cr4::PAE, Cr4::NONE, 0, LONG), Err(GpFault));
    assert_eq!(
        check(Cr4::PAE, Cr4::PAE.with(Cr4::LA57), 0, LONG),
        Err(GpFault)
    );
    assert_eq!(check(Cr4::PAE, pcid, 0x1000, LONG), Ok(pcid));
    assert_eq!(check(Cr4::PAE, pcid, 0x1001, LONG), Err(GpFault));
    assert_eq!(check(pcid, pcid, 0x1001, LONG), Ok(pcid));
    assert_eq!(check(Cr4::PAE, pcid, 0, Efer::NONE), Err(GpFault));
    let cet = Cr4::PAE.with(Cr4::CET);
    assert_eq!(
        check_cr4(Cr4::PAE, cet, PROTECTED, 0, LONG, Cr4::NONE),
        Err(GpFault)
    );
}

#[test]
fn paging_modes_and_pdptes() {
    let level5 = Cr4::PAE.with(Cr4::LA57);
    for (cr0, cr4, efer, mode) in [
        (PROTECTED, Cr4::PAE, Efer::LME, Paging::Off),
        (PAGED, Cr4::PSE, Efer::NONE, Paging::Bits32),
        (PAGED, Cr4::PAE, Efer::NONE, Paging::Pae),
        (PAGED, Cr4::PAE, LONG, Paging::Level4),
        (PAGED, level5, LONG, Paging::Level5),
    ] {
        assert_eq!(Paging::of(cr0, cr4, efer), mode);
    }
    assert!(cr0_loads_pdptes(PROTECTED, PAGED, Cr4::PAE, Efer::NONE));
    assert!(!cr0_loads_pdptes(PROTECTED, PAGED, Cr4::PAE, Efer::LME));
    assert!(!cr0_loads_pdptes(PAGED, PAGED, Cr4::PAE, Efer::NONE));
    let pge = Cr4::PAE.with(Cr4::PGE);
    assert!(cr4_loads_pdptes(Cr4::PAE, pge, PAGED, Efer::NONE));
    assert!(!cr4_loads_pdptes(Cr4::PAE, pge, PAGED, LONG));
    assert!(!cr4_loads_pdptes(pge, pge.with(Cr4::DE), PAGED, Efer::NONE));
}

#[test]
fn cr3_and_cr8() {
    let reserved = u64::MAX << 39;
    let keep = 1 << 63;
    let write = |value, flush| Ok(Cr3Write { value, flush });
    assert_eq!(check_cr3(0x1000, Cr4::NONE, reserved), write(0x1000, true));
    assert_eq!(
        check_cr3(0x1005 | keep, Cr4::PCIDE, reserved),
        write(0x1005, false)
    );
    assert_eq!(check_cr3(0x1000 | keep, Cr4::NONE, reserved), Err(GpFault));
    assert_eq!(check_cr3(1 << 39, Cr4::NONE, reserved), Err(GpFault));
    assert_eq!(check_cr8(15), Ok(15));
    assert_eq!(check_cr8(16), Err(GpFault));
    assert_eq!(check_cr8(1 << 40), Err(GpFault));
}

#[test]
fn efer_changes() {
    let allowed = Efer::SCE.with(LONG).with(Efer::NX);
    assert_eq!(
        check_efer(Efer::NONE, Efer::LME, PROTECTED, allowed),
        Ok(Efer::LME)
    );
    assert_eq!(
        check_efer(LONG, Efer::NX, PAGED, allowed),
        Err(GpFault),
        "LME cannot change while paging is on"
    );
    // LMA follows LME and PG alone.
    assert_eq!(
        check_efer(LONG, Efer::LME.with(Efer::NX), PAGED, allowed),
        Ok(LONG.with(Efer::NX))
    );
    assert_eq!(
        check_efer(Efer::NONE, Efer::LMA, PROTECTED, allowed),
        Ok(Efer::NONE)
    );
    assert_eq!(
        check_efer(Efer::NONE, Efer::SVME, PROTECTED, allowed),
        Err(GpFault)
    );
    assert_eq!(
        check_efer_from_user(LONG, Efer::NX, allowed),
        Ok(Efer::NX.with(Efer::LMA))
    );
    assert_eq!(
        check_efer_from_user(LONG, Efer::new(1 << 20), allowed),
        Err(GpFault)
    );
}

/// As xcr0_cpuid_test does: each unsupported bit faults beside all supported ones.
#[test]
fn xcr0_values() {
    let avx = Xcr0::FP.with(Xcr0::SSE).with(Xcr0::YMM);
    let all = avx
        .with(Xcr0::MPX)
        .with(Xcr0::AVX512)
        .with(Xcr0::PKRU)
        .with(Xcr0::XTILE);
    assert_eq!(check_xcr0(Xcr0::FP, avx), Ok(Xcr0::FP));
    assert_eq!(check_xcr0(avx, avx), Ok(avx));
    for bit in (0..64).filter(|bit| (avx.value() >> bit) & 1 == 0) {
        let value = avx.with(Xcr0::new(1 << bit));
        assert_eq!(check_xcr0(value, avx), Err(GpFault), "bit {bit}");
    }
    assert_eq!(check_xcr0(all, all), Ok(all));
    for missing in [
        Xcr0::FP,
        Xcr0::SSE,
        Xcr0::YMM,
        Xcr0::BNDREGS,
        Xcr0::BNDCSR,
        Xcr0::OPMASK,
        Xcr0::ZMM_HI256,
        Xcr0::HI16_ZMM,
        Xcr0::XTILE_CFG,
        Xcr0::XTILE_DATA,
    ] {
        let value = all.without(missing);
        assert_eq!(check_xcr0(value, all), Err(GpFault), "{missing:?}");
    }
    assert!(check_xcr0(all.without(Xcr0::PKRU), all).is_ok());
    // A guest without XSAVE still holds bit 0.
    assert_eq!(check_xcr0(Xcr0::FP, Xcr0::NONE), Ok(Xcr0::FP));
}

#[test]
fn debug_registers() {
    assert_eq!(
        check_dr6(Dr6::NONE, Dr6::NONE).map(Dr6::value),
        Ok(0xffff_0ff0)
    );
    assert_eq!(
        check_dr6(Dr6::NONE, Dr6::RTM).map(Dr6::value),
        Ok(0xfffe_0ff0)
    );
    assert_eq!(
        check_dr6(Dr6::new(0xffff_ffff), Dr6::NONE).map(Dr6::value),
        Ok(0xffff_efff)
    );
    assert_eq!(check_dr6(Dr6::new(1 << 32), Dr6::NONE), Err(GpFault));
    assert_eq!(check_dr7(Dr7::NONE).map(Dr7::value), Ok(0x400));
    assert_eq!(
        check_dr7(Dr7::new(0xffff_ffff)).map(Dr7::value),
        Ok(0xffff_2fff)
    );
    assert_eq!(check_dr7(Dr7::new(1 << 40)), Err(GpFault));
}
