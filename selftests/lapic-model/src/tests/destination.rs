// SPDX-License-Identifier: GPL-2.0

//! Whom messages concern, in each mode and model.

use super::{
    Apic,
    BASE, //
};
use crate::rust::lapic::{
    lowest_priority_index,
    DeliveryMode,
    Message,
    Sender,
    Shorthand,
    Trigger, //
};

fn to(destination: u32, logical: bool) -> Message {
    Message {
        shorthand: Shorthand::None,
        destination,
        logical,
        ..Message::to_self(0x40)
    }
}

#[test]
fn physical() {
    let mut apic = Apic::xapic(5);
    for destination in 0..0x200 {
        let expected = matches!(destination, 5 | 0xff);
        assert_eq!(apic.shared.matches(destination, false), expected);
    }
    let _ = apic.write(0x20, 7 << 24);
    assert!(apic.shared.matches(7, false) && !apic.shared.matches(5, false));
    assert!(!apic.shared.matches(u32::MAX, false));

    let apic = Apic::x2apic(0x1ff);
    assert!(apic.shared.matches(0x1ff, false) && apic.shared.matches(u32::MAX, false));
    assert!(!apic.shared.matches(0xff, false));
}

#[test]
fn wide_id_in_xapic_mode() {
    let apic = Apic::xapic(0x123);
    assert!(apic.shared.matches(0x123, false));
    assert!(apic.shared.matches(0x23, false));
    assert!(!apic.shared.matches(0x223, false));
}

#[test]
fn logical_flat_and_cluster() {
    for id in 0..=0xff_u32 {
        let mut apic = Apic::xapic(0);
        let _ = apic.write(0xd0, id << 24);
        for destination in 0..=0xff_u32 {
            let everyone = destination == 0xff;
            let flat = id & destination != 0;
            assert_eq!(apic.shared.matches(destination, true), everyone || flat);
        }
        let _ = apic.write(0xe0, 0);
        for destination in 0..=0xff_u32 {
            let everyone = destination == 0xff;
            let cluster = id / 16 == destination / 16 && id & destination & 15 != 0;
            assert_eq!(apic.shared.matches(destination, true), everyone || cluster);
        }
        let _ = apic.write(0xe0, 0x7000_0000);
        assert!(!apic.shared.matches(id & 0xfe, true), "no such model");
    }
}

#[test]
fn logical_x2apic() {
    let apic = Apic::x2apic(0x35);
    assert!(apic.shared.matches(0x3_0020, true));
    assert!(apic.shared.matches(0x3_ffff, true));
    assert!(apic.shared.matches(u32::MAX, true));
    assert!(!apic.shared.matches(0x3_ffdf, true));
    assert!(!apic.shared.matches(0x2_0020, true));
    assert!(!apic.shared.matches(0x35, true));
}

#[test]
fn shorthands() {
    let apic = Apic::xapic(0);
    let device = Sender::Device {
        broadcast_quirk: true,
    };
    let expected = [
        (Shorthand::Myself, Sender::Myself, true),
        (Shorthand::Myself, Sender::Other, false),
        (Shorthand::All, Sender::Myself, true),
        (Shorthand::All, Sender::Other, true),
        (Shorthand::Others, Sender::Myself, false),
        (Shorthand::Others, Sender::Other, true),
        (Shorthand::None, Sender::Other, false),
        (Shorthand::None, device, false),
    ];
    for (shorthand, sender, received) in expected {
        let message = Message {
            shorthand,
            ..to(9, false)
        };
        assert_eq!(apic.shared.receives(&message, sender), received);
    }
}

#[test]
fn devices_reach_everyone_at_0xff() {
    let apic = Apic::x2apic(1);
    for broadcast_quirk in [false, true] {
        let sender = Sender::Device { broadcast_quirk };
        assert_eq!(
            apic.shared.receives(&to(0xff, false), sender),
            broadcast_quirk
        );
    }
    assert!(!apic.shared.receives(&to(0xff, false), Sender::Other));
}

#[test]
fn disabled_apics_are_nobody() {
    let mut apic = Apic::xapic(0);
    apic.set_base(BASE);
    assert!(!apic.shared.receives(&to(0xff, false), Sender::Other));
}

#[test]
fn choice_of_one() {
    assert_eq!(lowest_priority_index(0x41, 0), None);
    for candidates in 1..8 {
        for vector in 16..=255 {
            let index = lowest_priority_index(vector, candidates).unwrap();
            assert_eq!(index, usize::from(vector) % candidates);
        }
    }
    let lowest = Message {
        mode: DeliveryMode::LowestPriority,
        ..to(0x03, true)
    };
    assert!(lowest.is_for_one());
    assert!(!Message {
        logical: false,
        destination: 0xff,
        ..lowest
    }
    .is_for_one());
    assert!(!to(3, true).is_for_one());
}

#[test]
fn messages_of_devices() {
    let msi = Message::from_msi(0xfee0_500c, 0x100, 0x8141, true);
    let expected = Message {
        vector: 0x41,
        mode: DeliveryMode::LowestPriority,
        asserted: true,
        trigger: Trigger::Level,
        shorthand: Shorthand::None,
        destination: 0x105,
        logical: true,
        redirectable: true,
    };
    assert_eq!(msi, expected);
    let narrow = Message::from_msi(0xfee0_5000, 0x100, 0x41, false);
    assert_eq!((narrow.destination, narrow.logical), (5, false));
    assert!(!narrow.is_for_one());
}
