// SPDX-License-Identifier: GPL-2.0

//! Delivery by message, pin and mode.

use super::{
    Apic,
    BASE, //
};
use crate::rust::lapic::{
    Action,
    DeliveryMode,
    Lvt,
    Message,
    Trigger, //
};

fn message(mode: DeliveryMode, vector: u8) -> Message {
    Message {
        mode,
        ..Message::to_self(vector)
    }
}

#[test]
fn modes() {
    let apic = Apic::xapic(0);
    let accept = |mode| apic.shared.accept(&message(mode, 0x44));
    assert_eq!(accept(DeliveryMode::Fixed), Action::Requested { new: true });
    assert_eq!(
        accept(DeliveryMode::LowestPriority),
        Action::Requested { new: false }
    );
    assert_eq!(accept(DeliveryMode::Smi), Action::Smi);
    assert_eq!(accept(DeliveryMode::Nmi), Action::Nmi);
    assert_eq!(accept(DeliveryMode::RemoteRead), Action::Unhalt);
    assert_eq!(accept(DeliveryMode::ExtInt), Action::Discarded);
    assert_eq!(apic.shared.next_interrupt(), Some(0x44));
    assert!(apic.shared.is_pending(0x44) && !apic.shared.is_pending(0x45));
}

#[test]
fn level_must_be_asserted() {
    let apic = Apic::xapic(0);
    for mode in [DeliveryMode::Fixed, DeliveryMode::Init] {
        let lowered = Message {
            asserted: false,
            trigger: Trigger::Level,
            ..message(mode, 0x44)
        };
        assert_eq!(apic.shared.accept(&lowered), Action::Discarded);
    }
    assert!(!apic.shared.is_signalled());
}

#[test]
fn disabled_apics_take_no_vectors() {
    let mut apic = Apic::xapic(0);
    let _ = apic.write(0xf0, 0xff);
    let fixed = message(DeliveryMode::Fixed, 0x44);
    assert_eq!(apic.shared.accept(&fixed), Action::Discarded);
    let nmi = message(DeliveryMode::Nmi, 0);
    assert_eq!(apic.shared.accept(&nmi), Action::Nmi);
    let _ = apic.write(0xf0, 0x1ff);
    let _ = apic.shared.accept(&fixed);
    apic.set_base(BASE);
    assert_eq!(apic.shared.next_interrupt(), None);
    assert_eq!(apic.shared.accept(&fixed), Action::Discarded);
}

#[test]
fn illegal_vectors_are_logged() {
    let mut apic = Apic::xapic(0);
    for vector in 0..16 {
        let fixed = message(DeliveryMode::Fixed, vector);
        assert_eq!(apic.shared.accept(&fixed), Action::Discarded);
    }
    let _ = apic.write(0x280, 0);
    assert_eq!(apic.read(0x280), 1 << 6);
}

#[test]
fn trigger_mode_is_the_last_ones() {
    let apic = Apic::xapic(0);
    let _ = apic.shared.post(0x44, Trigger::Level);
    assert_eq!(apic.read(0x1a0), 1 << 4);
    let _ = apic.shared.post(0x44, Trigger::Edge);
    assert_eq!(apic.read(0x1a0), 0);
}

#[test]
fn init_forgets_earlier_start_ups() {
    let apic = Apic::xapic(0);
    let init = message(DeliveryMode::Init, 0);
    let startup = |vector| message(DeliveryMode::Startup, vector);
    assert_eq!(apic.shared.accept(&startup(8)), Action::Signalled);
    assert_eq!(apic.shared.accept(&init), Action::Signalled);
    assert!(apic.shared.take_init() && !apic.shared.take_init());
    assert_eq!(apic.shared.take_startup(), None);

    let _ = apic.shared.accept(&init);
    let _ = apic.shared.accept(&startup(9));
    let _ = apic.shared.accept(&startup(0x9a));
    assert!(apic.shared.is_signalled());
    assert!(apic.shared.take_init());
    assert_eq!(apic.shared.take_startup(), Some(0x9a));
    assert_eq!(apic.shared.take_startup(), None);
    assert!(!apic.shared.is_signalled());
}

#[test]
fn pins() {
    let mut apic = Apic::xapic(0);
    let pin = |apic: &Apic, entry| apic.shared.deliver_local(entry);
    assert_eq!(pin(&apic, Lvt::Lint1), Action::Discarded, "masked");
    let _ = apic.write(0x360, 4 << 8);
    assert_eq!(pin(&apic, Lvt::Lint1), Action::Nmi);
    let _ = apic.write(0x350, 0x8055);
    assert_eq!(pin(&apic, Lvt::Lint0), Action::Requested { new: true });
    assert_eq!(apic.read(0x1a0), 1 << 21, "level-triggered");
    assert!(!apic.shared.accepts_pic());
    let _ = apic.write(0x350, 7 << 8);
    assert!(apic.shared.accepts_pic());
    assert_eq!(pin(&apic, Lvt::Lint0), Action::Discarded);
    let _ = apic.write(0x350, 1 << 16 | 7 << 8);
    assert!(!apic.shared.accepts_pic());
    apic.set_base(BASE);
    assert!(apic.shared.accepts_pic(), "as if there was no APIC");
}

#[test]
fn counters_are_masked_by_their_interrupt() {
    let mut apic = Apic::xapic(0);
    let _ = apic.write(0x340, 0x400);
    assert_eq!(apic.shared.deliver_local(Lvt::Performance), Action::Nmi);
    assert_eq!(apic.read(0x340), 0x1_0400);
    assert_eq!(
        apic.shared.deliver_local(Lvt::Performance),
        Action::Discarded
    );
}
