// SPDX-License-Identifier: GPL-2.0

//! The APIC base MSR: which transitions are allowed, and what they do to the IDs.

use super::{
    Apic,
    BASE,
    ENABLED,
    X2APIC, //
};
use crate::rust::lapic::{
    Config,
    Mode,
    Reset, //
};

const MODES: [(u64, Mode); 3] = [
    (BASE, Mode::Disabled),
    (BASE | ENABLED, Mode::Xapic),
    (BASE | ENABLED | X2APIC, Mode::X2apic),
];

#[test]
fn transitions() {
    for (from_value, from) in MODES {
        for (to_value, to) in MODES {
            let mut apic = Apic::reset(3, Config::default());
            let shared = &apic.shared;
            let _ = shared.set_base(&mut apic.owned, from_value, true).unwrap();
            let forbidden = matches!(
                (from, to),
                (Mode::X2apic, Mode::Xapic) | (Mode::Disabled, Mode::X2apic)
            );
            let guest = shared.set_base(&mut apic.owned, to_value, false);
            assert_eq!(guest.is_err(), forbidden, "{from:?} to {to:?}");
            let _ = shared.set_base(&mut apic.owned, to_value, true).unwrap();
            assert_eq!(shared.mode(), to);
            let invalid = shared.set_base(&mut apic.owned, BASE | X2APIC, true);
            assert!(invalid.is_err());
            assert_eq!(shared.base(), to_value);
        }
    }
}

#[test]
fn reserved_bits_fault() {
    let config = Config {
        physical_bits: 36,
        x2apic: false,
        ..Config::default()
    };
    let mut apic = Apic::reset(0, config);
    for bit in 0..64 {
        let value = (BASE | ENABLED) ^ 1 << bit;
        let allowed = matches!(bit, 8 | 11 | 12..=35);
        for from_host in [false, true] {
            let result = apic.shared.set_base(&mut apic.owned, value, from_host);
            assert_eq!(result.is_ok(), allowed, "bit {bit}");
        }
        apic.shared.reset(&mut apic.owned, Reset::PowerUp);
    }
}

#[test]
fn change_tells_mode_and_address() {
    let mut apic = Apic::reset(0, Config::default());
    let change =
        |apic: &mut Apic, value| apic.shared.set_base(&mut apic.owned, value, false).unwrap();
    let moved = change(&mut apic, 0x1000 | ENABLED);
    assert!(moved.moved && !moved.mode_changed());
    assert_eq!(apic.shared.address(), 0x1000);
    let switched = change(&mut apic, 0x1000 | ENABLED | X2APIC);
    assert!(!switched.moved && switched.mode_changed());
    assert_eq!((switched.from, switched.to), (Mode::Xapic, Mode::X2apic));
}

#[test]
fn ids_follow_the_mode() {
    let mut apic = Apic::reset(0x25, Config::default());
    assert_eq!(apic.read(0x20), 0x2500_0000);
    let _ = apic.write(0x20, 0x7700_0000);
    assert_eq!(apic.shared.xapic_id(), 0x77);
    let _ = apic.write(0x310, 0xff00_0000);
    apic.set_base(BASE | ENABLED | X2APIC);
    assert_eq!(apic.rdmsr(0x802), 0x25);
    assert_eq!(apic.rdmsr(0x830), 0);
    let _ = apic.wrmsr(0x830, 0xff_0000_4040);
    apic.set_base(BASE);
    apic.set_base(BASE | ENABLED);
    apic.set_base(BASE | ENABLED | X2APIC);
    assert_eq!(apic.rdmsr(0x830), 0x4040);
    assert_eq!(apic.rdmsr(0x80d), 0x2_0020);
    // KVM's interface lets the host go back directly.
    let _ = apic
        .shared
        .set_base(&mut apic.owned, BASE | ENABLED, true)
        .unwrap();
    assert_eq!(apic.read(0x20), 0x2500_0000);
}

#[test]
fn state_after_resets() {
    let config = Config {
        bootstrap: true,
        ..Config::default()
    };
    let mut apic = Apic::reset(1, config);
    assert_eq!(apic.shared.base(), BASE | ENABLED | 1 << 8);
    let expected = [
        (0x20, 0x0100_0000),
        (0x30, 0x0105_0014),
        (0x80, 0),
        (0xd0, 0),
        (0xe0, u32::MAX),
        (0xf0, 0xff),
        (0x300, 0),
        (0x320, 1 << 16),
        (0x350, 7 << 8),
        (0x360, 1 << 16),
        (0x370, 1 << 16),
        (0x380, 0),
        (0x390, 0),
        (0x3e0, 0),
    ];
    for (offset, value) in expected {
        assert_eq!(apic.read(offset), value, "{offset:#x}");
    }
    assert!(apic.shared.accepts_pic());
    let _ = apic.write(0xf0, 0x1ff);
    let _ = apic.shared.post(0x40, crate::rust::lapic::Trigger::Level);
    let _ = apic.write(0x20, 0x0900_0000);
    apic.shared.reset(&mut apic.owned, Reset::Init);
    assert_eq!(apic.shared.highest_request(), None);
    assert_eq!(apic.read(0x1a0), 0);
    assert_eq!(apic.read(0x20), 0x0900_0000, "INIT keeps the ID");
    assert!(!apic.shared.is_software_enabled());
}

#[test]
fn init_keeps_x2apic_mode() {
    let mut apic = Apic::x2apic(0x12);
    apic.shared.reset(&mut apic.owned, Reset::Init);
    assert_eq!(apic.shared.mode(), Mode::X2apic);
    assert_eq!(apic.rdmsr(0x802), 0x12);
    assert_eq!(apic.rdmsr(0x80d), 0x1_0004);
    apic.shared.reset(&mut apic.owned, Reset::PowerUp);
    assert_eq!(apic.shared.mode(), Mode::Xapic);
    assert_eq!(apic.read(0xd0), 0);
}

#[test]
fn version_follows_the_configuration() {
    use crate::rust::lapic::DirectedEoi;
    let mut apic = Apic::reset(0, Config::default());
    let config = Config {
        cmci: true,
        directed_eoi: DirectedEoi::Hidden,
        ..Config::default()
    };
    apic.shared.configure(&mut apic.owned, config);
    assert_eq!(apic.read(0x30), 0x0006_0014);
    assert_eq!(apic.read(0x2f0), 1 << 16);
}
