// SPDX-License-Identifier: GPL-2.0

//! Layout and the SDM's tables of registers.

use super::Apic;
use crate::rust::lapic::{
    Lvt,
    Register, //
};

/// Registers that can be read in xAPIC mode, by offset.
fn readable_xapic(offset: u16) -> bool {
    matches!(
        offset,
        0x20 | 0x30 | 0x80 | 0x90 | 0xa0 | 0xd0..=0xf0 | 0x100..=0x280 | 0x300..=0x390 | 0x3e0
    )
}

/// Registers that can be read in x2APIC mode, by MSR.
fn readable_x2apic(msr: u32) -> bool {
    matches!(
        msr,
        0x802 | 0x803 | 0x808 | 0x80a | 0x80d | 0x80f..=0x828 | 0x830 | 0x832..=0x839 | 0x83e
    )
}

/// Registers that take a write of zero in x2APIC mode, by MSR.
fn writable_x2apic(msr: u32) -> bool {
    matches!(
        msr,
        0x808 | 0x80b | 0x80f | 0x828 | 0x830 | 0x832..=0x838 | 0x83e | 0x83f
    )
}

#[test]
fn x2apic_validity() {
    for msr in 0x7f0..0x910 {
        let mut apic = Apic::x2apic(0);
        assert_eq!(apic.rdmsr_faults(msr), !readable_x2apic(msr), "{msr:#x}");
        assert_eq!(apic.wrmsr_faults(msr, 0), !writable_x2apic(msr), "{msr:#x}");
        let mut apic = Apic::xapic(0);
        assert!(apic.rdmsr_faults(msr) && apic.wrmsr_faults(msr, 0));
    }
}

#[test]
fn xapic_validity_shows_in_the_error_status() {
    for offset in (0..0x1000).step_by(16) {
        let mut apic = Apic::xapic(0);
        let _ = apic.read(offset);
        let _ = apic.write(0x280, 0);
        let expected = if readable_xapic(offset) { 0 } else { 1 << 7 };
        assert_eq!(apic.read(0x280), expected, "{offset:#x}");
    }
}

#[test]
fn xapic_writes_to_reserved_registers_are_errors() {
    for offset in (0..0x1000).step_by(16) {
        let mut apic = Apic::xapic(0);
        // Enabled, and with a vector that is legal as a command.
        let _ = apic.write(offset, 0x1ff);
        let _ = apic.write(0x280, 0);
        let allowed = matches!(
            offset,
            0x20 | 0x80 | 0xb0 | 0xd0..=0xf0 | 0x280 | 0x300..=0x380 | 0x3e0
        );
        assert_eq!(apic.read(0x280) == 0, allowed, "{offset:#x}");
    }
}

#[test]
fn offsets_and_msrs_agree() {
    assert_eq!(Register::TPR.offset(), 0x80);
    assert_eq!(Register::SELF_IPI.number(), 0x3f);
    for entry in Lvt::ALL {
        assert_eq!(Lvt::of(entry.register()), Some(entry));
    }
}

#[test]
fn bits_that_a_write_changes() {
    let expected = [
        (0x20, 0xff00_0000),
        (0x80, 0xff),
        (0xd0, 0xff00_0000),
        (0xe0, u32::MAX),
        (0xf0, 0x13ff),
        (0x300, 0xffff_efff),
        (0x310, 0xff00_0000),
        (0x320, 0x0007_00ff),
        (0x330, 0x0001_07ff),
        (0x340, 0x0001_07ff),
        (0x350, 0x0001_a7ff),
        (0x360, 0x0001_a7ff),
        (0x370, 0x0001_00ff),
        (0x3e0, 0xb),
    ];
    for (offset, value) in expected {
        let mut apic = Apic::xapic(0);
        let _ = apic.write(offset, u32::MAX);
        assert_eq!(apic.read(offset), value, "{offset:#x}");
    }
}

#[test]
fn destination_format_keeps_its_ones() {
    let mut apic = Apic::xapic(0);
    let _ = apic.write(0xe0, 0);
    assert_eq!(apic.read(0xe0), 0x0fff_ffff);
}
