// SPDX-License-Identifier: GPL-2.0

//! x2APIC mode: 64-bit commands, self-IPIs and faults on reserved bits.

use super::Apic;
use crate::rust::lapic::{
    Config,
    DirectedEoi,
    Effect,
    Message,
    Shorthand,
    Trigger, //
};

#[test]
fn command_is_one_register() {
    let mut apic = Apic::x2apic(0);
    let Effect::Ipi(message) = apic.wrmsr(0x830, 0x1234_5678_0000_4041) else {
        panic!("no message");
    };
    assert_eq!((message.destination, message.vector), (0x1234_5678, 0x41));
    assert_eq!(apic.rdmsr(0x830), 0x1234_5678_0000_4041);
    // "Delivery pending" is ignored.
    let _ = apic.wrmsr(0x830, 0x5041);
    assert_eq!(apic.rdmsr(0x830), 0x4041);
}

#[test]
fn command_faults_on_reserved_bits() {
    let reserved = 0xfff3_2000_u64;
    for bit in 0..64 {
        let mut apic = Apic::x2apic(0);
        let value = 0x80 | 1 << bit;
        assert_eq!(apic.wrmsr_faults(0x830, value), reserved >> bit & 1 != 0);
    }
}

#[test]
fn reserved_bits_fault() {
    let cases = [
        (0x808, 0xff),
        (0x80b, 0),
        (0x80f, 0x13ff),
        (0x828, 0),
        (0x832, 0x0007_50ff),
        (0x834, 0x0001_57ff),
        (0x835, 0x0001_f7ff),
        (0x837, 0x0001_50ff),
        (0x838, 0xffff_ffff),
        (0x83e, 0xb),
        (0x83f, 0xff),
    ];
    for (msr, allowed) in cases {
        for bit in 0..64 {
            let mut apic = Apic::x2apic(0);
            let faults = apic.wrmsr_faults(msr, 1 << bit);
            assert_eq!(faults, allowed >> bit & 1_u64 == 0, "{msr:#x} bit {bit}");
        }
    }
}

#[test]
fn tsc_deadline_bit_is_reserved_without_the_feature() {
    let mut apic = Apic::x2apic(0);
    let config = Config {
        tsc_deadline: false,
        ..Config::default()
    };
    apic.shared.configure(&mut apic.owned, config);
    assert!(apic.wrmsr_faults(0x832, 2 << 17));
    assert!(!apic.wrmsr_faults(0x832, 1 << 17));
}

#[test]
fn self_ipi() {
    let mut apic = Apic::x2apic(0);
    let expected = Message {
        shorthand: Shorthand::Myself,
        ..Message::from_command(0x4000 | 0x91, 0)
    };
    assert_eq!(apic.wrmsr(0x83f, 0x91), Effect::Ipi(expected));
    assert_eq!(apic.wrmsr(0x83f, 0x0f), Effect::None);
    let _ = apic.wrmsr(0x828, 0);
    assert_eq!(apic.rdmsr(0x828), 1 << 5);
}

#[test]
fn end_of_interrupt() {
    for directed_eoi in [DirectedEoi::Ignored, DirectedEoi::Honoured] {
        let mut apic = Apic::x2apic(0);
        let config = Config {
            directed_eoi,
            ..Config::default()
        };
        apic.shared.configure(&mut apic.owned, config);
        let _ = apic.wrmsr(0x80f, 0x11ff);
        for trigger in [Trigger::Level, Trigger::Edge] {
            let _ = apic.shared.post(0x60, trigger);
            apic.shared.acknowledge(0x60);
            let expected = Effect::Eoi {
                vector: 0x60,
                level: trigger == Trigger::Level,
                suppressed: directed_eoi == DirectedEoi::Honoured,
            };
            assert_eq!(apic.wrmsr(0x80b, 0), expected);
        }
        assert_eq!(apic.wrmsr(0x80b, 0), Effect::None);
    }
}
