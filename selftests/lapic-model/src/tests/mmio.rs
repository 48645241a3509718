// SPDX-License-Identifier: GPL-2.0

//! Memory-mapped accesses and what they ask for.

use super::Apic;
use crate::rust::lapic::{
    DeliveryMode,
    Effect,
    Message,
    Shorthand,
    Trigger, //
};

#[test]
fn parts_of_a_register_are_read() {
    let mut apic = Apic::xapic(0x12);
    let _ = apic.write(0x310, 0xab00_0000);
    let read = |offset, size| apic.shared.read(&apic.owned, offset, size, 0).value;
    assert_eq!(read(0x20, 4), 0x1200_0000);
    assert_eq!(read(0x23, 1), 0x12);
    assert_eq!(read(0x22, 2), 0x1200);
    assert_eq!(read(0x312, 2), 0xab00);
    // Beyond the 32 bits of a register is nothing.
    for (offset, size) in [(0x24, 4), (0x22, 4), (0x23, 2), (0x2c, 1), (0x20, 8)] {
        assert_eq!(read(offset, size), 0, "{size} at {offset:#x}");
    }
}

#[test]
fn only_aligned_writes_of_32_bits_count() {
    let mut apic = Apic::xapic(0);
    for (offset, size) in [(0x80, 1), (0x80, 2), (0x80, 8), (0x84, 4), (0x81, 4)] {
        let effect = apic.shared.write(&mut apic.owned, offset, size, 0x50, 0);
        assert_eq!(effect, Effect::None);
    }
    assert_eq!(apic.read(0x80), 0);
}

#[test]
fn commands_become_messages() {
    let mut apic = Apic::xapic(0);
    assert_eq!(apic.write(0x310, 0x4200_0000), Effect::None);
    let expected = Message {
        vector: 0x99,
        mode: DeliveryMode::LowestPriority,
        asserted: true,
        trigger: Trigger::Level,
        shorthand: Shorthand::None,
        destination: 0x42,
        logical: true,
        redirectable: false,
    };
    assert_eq!(apic.write(0x300, 0xd999), Effect::Ipi(expected));
    assert_eq!(apic.read(0x300), 0xc999, "it is never pending");
    for (bits, shorthand) in [
        (1 << 18, Shorthand::Myself),
        (2 << 18, Shorthand::All),
        (3 << 18, Shorthand::Others),
    ] {
        let Effect::Ipi(message) = apic.write(0x300, bits | 0x4030) else {
            panic!("no message");
        };
        assert_eq!((message.shorthand, message.vector), (shorthand, 0x30));
    }
}

#[test]
fn all_delivery_modes() {
    use DeliveryMode::*;
    let modes = [
        Fixed,
        LowestPriority,
        Smi,
        RemoteRead,
        Nmi,
        Init,
        Startup,
        ExtInt,
    ];
    let mut apic = Apic::xapic(0);
    for (code, mode) in (0..).zip(modes) {
        let Effect::Ipi(message) = apic.write(0x300, 0x40ff | code << 8) else {
            panic!("no message");
        };
        assert_eq!(message.mode, mode);
    }
}

#[test]
fn illegal_vector_is_an_error_not_a_message() {
    let mut apic = Apic::xapic(0);
    for vector in 0..16 {
        assert_eq!(apic.write(0x300, 0x4_4000 | vector), Effect::None);
        assert_eq!(apic.read(0x300), 0x4_4000 | vector);
    }
    let _ = apic.write(0x280, 0);
    assert_eq!(apic.read(0x280), 1 << 5);
    let _ = apic.write(0x280, 0);
    assert_eq!(apic.read(0x280), 0, "logged once");
    // A start-up at a low page and an NMI are fine.
    assert!(matches!(apic.write(0x300, 0x4601), Effect::Ipi(_)));
    assert!(matches!(apic.write(0x300, 0x4400), Effect::Ipi(_)));
}

#[test]
fn error_interrupt() {
    let mut apic = Apic::xapic(0);
    let _ = apic.write(0x370, 0xe1);
    assert_eq!(apic.write(0x300, 0x4001), Effect::Recheck);
    assert_eq!(apic.shared.next_interrupt(), Some(0xe1));
    apic.shared.acknowledge(0xe1);
    assert_eq!(
        apic.write(0x300, 0x4001),
        Effect::None,
        "not again until ESR"
    );
    let _ = apic.write(0x280, 0);
    let read = apic.shared.read(&apic.owned, 0x40, 4, 0);
    assert_eq!((read.value, read.effect), (0, Effect::Recheck));
    // An error vector that is itself illegal leads nowhere.
    let _ = apic.write(0x280, 0);
    let _ = apic.write(0x370, 0x01);
    assert_eq!(apic.write(0x300, 0x4001), Effect::None);
}

#[test]
fn software_disable_masks_the_vector_table() {
    let mut apic = Apic::xapic(0);
    let entries = [0x320, 0x330, 0x340, 0x350, 0x360, 0x370];
    for offset in entries {
        let _ = apic.write(offset, 0x40);
        assert_eq!(apic.read(offset), 0x40);
    }
    let _ = apic.shared.post(0x77, Trigger::Edge);
    assert_eq!(apic.write(0xf0, 0x0ff), Effect::Identity);
    for offset in entries {
        assert_eq!(apic.read(offset), 0x1_0040);
        let _ = apic.write(offset, 0x41);
        assert_eq!(apic.read(offset), 0x1_0041, "stays masked");
    }
    assert_eq!(
        apic.shared.next_interrupt(),
        Some(0x77),
        "requests are held"
    );
    assert!(!apic.shared.post(0x78, Trigger::Edge).is_delivered());
    assert_eq!(apic.write(0xf0, 0x1ff), Effect::Identity);
    assert_eq!(apic.write(0xf0, 0x1ef), Effect::None);
    assert_eq!(apic.shared.spurious_vector(), 0xef);
    assert_eq!(apic.read(0x320), 0x1_0041);
}

#[test]
fn identity_changes_are_told() {
    let mut apic = Apic::xapic(0);
    for (offset, value) in [(0x20, 1 << 24), (0xd0, 2 << 24), (0xe0, 0)] {
        assert_eq!(apic.write(offset, value), Effect::Identity);
    }
}

#[test]
fn cr8_is_the_class_of_the_task_priority() {
    let mut apic = Apic::xapic(0);
    let _ = apic.write(0x80, 0x5a);
    assert_eq!(apic.shared.cr8(), 5);
    assert_eq!(apic.read(0xa0), 0x5a);
    let _ = apic.shared.post(0x68, Trigger::Edge);
    assert_eq!(apic.shared.tpr_threshold(), 0);
    assert!(!apic.shared.set_cr8(6));
    assert_eq!(apic.read(0x80), 0x60);
    assert_eq!(apic.shared.tpr_threshold(), 6);
    assert!(apic.shared.set_cr8(5));
    apic.shared.acknowledge(0x68);
    assert_eq!(apic.read(0xa0), 0x60);
    assert_eq!(apic.shared.tpr_threshold(), 0);
}
