// SPDX-License-Identifier: GPL-2.0

//! The I/O APIC.

use crate::rust::{
    irqchip::ioapic::{
        Ended,
        Ioapic,
        Service,
        Written,
        DEFAULT_ADDRESS,
        PINS,
        RTC_PIN,
        SAVE_SIZE, //
    },
    lapic::{
        DeliveryMode,
        Message,
        Shorthand,
        Trigger, //
    }, //
};

const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const REMOTE_IRR: u32 = 1 << 14;

fn select(ioapic: &mut Ioapic, register: u32) {
    assert_eq!(ioapic.write(DEFAULT_ADDRESS, register), None);
}

fn set_register(ioapic: &mut Ioapic, register: u32, value: u32) -> Option<Written> {
    select(ioapic, register);
    ioapic.write(DEFAULT_ADDRESS + 0x10, value)
}

fn register(ioapic: &mut Ioapic, register: u32) -> u32 {
    select(ioapic, register);
    ioapic.read(DEFAULT_ADDRESS + 0x10)
}

/// Returns what a write to an entry asks for: nothing is as if nothing had changed.
fn set_entry(ioapic: &mut Ioapic, pin: u8, low: u32) -> Written {
    set_register(ioapic, 0x10 + 2 * u32::from(pin), low).unwrap_or(Written {
        pin,
        mask_changed: None,
        vector_changed: false,
        waits: false,
    })
}

fn entry(ioapic: &mut Ioapic, pin: u8) -> u32 {
    register(ioapic, 0x10 + 2 * u32::from(pin))
}

/// Raises a line; a message counts as accepted by one vCPU.
fn raise(ioapic: &mut Ioapic, pin: u8) -> Service {
    let service = ioapic.set_line(pin, 1, true, false);
    if let Service::Send(_) = service {
        ioapic.delivered(pin, Some(1));
    }
    service
}

fn lower(ioapic: &mut Ioapic, pin: u8) {
    let service = ioapic.set_line(pin, 1, false, false);
    assert_eq!(service, Service::Settled(Some(1)));
}

fn is_sent(service: Service) -> bool {
    matches!(service, Service::Send(_))
}

#[test]
fn messages_say_what_the_entry_says() {
    let mut ioapic = Ioapic::new();
    let _ = set_register(&mut ioapic, 0x10 + 2 * 5 + 1, 0xa5 << 24);
    let _ = set_entry(&mut ioapic, 5, 0x41 | 1 << 8 | 1 << 11 | 1 << 13 | LEVEL);
    let expected = Message {
        vector: 0x41,
        mode: DeliveryMode::LowestPriority,
        asserted: true,
        trigger: Trigger::Level,
        shorthand: Shorthand::None,
        destination: 0xa5,
        logical: true,
        redirectable: false,
    };
    assert_eq!(raise(&mut ioapic, 5), Service::Send(expected));
}

#[test]
fn edges() {
    let mut ioapic = Ioapic::new();
    assert_eq!(raise(&mut ioapic, 3), Service::Settled(None));
    // One that was masked is lost, and the line is up still.
    assert!(!set_entry(&mut ioapic, 3, 0x41).waits);
    assert_eq!(raise(&mut ioapic, 3), Service::Settled(Some(0)));
    for _ in 0..3 {
        lower(&mut ioapic, 3);
        assert!(is_sent(raise(&mut ioapic, 3)));
        assert_eq!(raise(&mut ioapic, 3), Service::Settled(Some(0)));
    }
    assert_eq!(entry(&mut ioapic, 3), 0x41);
    assert_eq!(
        ioapic.set_line(PINS, 1, true, false),
        Service::Settled(None)
    );
}

#[test]
fn levels() {
    let mut ioapic = Ioapic::new();
    let _ = set_entry(&mut ioapic, 3, 0x41 | LEVEL);
    assert!(is_sent(raise(&mut ioapic, 3)));
    assert_eq!(entry(&mut ioapic, 3), 0x41 | LEVEL | REMOTE_IRR);
    assert_eq!(raise(&mut ioapic, 3), Service::Settled(None));
    assert_eq!(ioapic.end(3), Ended::Again);
    assert!(is_sent(ioapic.service(3)));
    ioapic.delivered(3, Some(1));
    lower(&mut ioapic, 3);
    assert_eq!(ioapic.end(3), Ended::Quiet);
    assert_eq!(entry(&mut ioapic, 3), 0x41 | LEVEL);

    // Nobody who could end it accepted it.
    assert!(is_sent(ioapic.set_line(3, 1, true, false)));
    ioapic.delivered(3, Some(0));
    assert_eq!(entry(&mut ioapic, 3), 0x41 | LEVEL);
    // What the mask holds back comes when it goes.
    let _ = set_entry(&mut ioapic, 3, 0x41 | LEVEL | MASKED);
    assert_eq!(raise(&mut ioapic, 3), Service::Settled(None));
    let written = set_entry(&mut ioapic, 3, 0x41 | LEVEL);
    assert_eq!(written.mask_changed, Some(false));
    assert!(written.waits && !written.vector_changed);
    assert!(is_sent(ioapic.service(3)));
    ioapic.delivered(3, Some(1));
    // Not by a write while it is under way; but a write as an edge ends it.
    assert!(!set_entry(&mut ioapic, 3, 0x41 | LEVEL).waits);
    assert!(set_entry(&mut ioapic, 3, 0x42).vector_changed);
    assert_eq!(entry(&mut ioapic, 3), 0x42);
    assert!(set_entry(&mut ioapic, 3, 0x42 | LEVEL).waits);
    ioapic.forget(3);
    assert!(!ioapic.waits(3));
}

#[test]
fn several_sources_hold_a_line() {
    let mut ioapic = Ioapic::new();
    let _ = set_entry(&mut ioapic, 7, 0x41 | LEVEL);
    assert!(is_sent(ioapic.set_line(7, 1, true, false)));
    ioapic.delivered(7, Some(1));
    let _ = ioapic.set_line(7, 2, true, false);
    let _ = ioapic.set_line(7, 1, false, false);
    assert_eq!(ioapic.end(7), Ended::Again);
    let _ = ioapic.set_line(7, 2, false, false);
    assert_eq!(ioapic.end(7), Ended::Quiet);
}

#[test]
fn a_line_that_stays_up_leaves_time() {
    let mut ioapic = Ioapic::new();
    let _ = set_entry(&mut ioapic, 7, 0x41 | LEVEL);
    assert!(is_sent(raise(&mut ioapic, 7)));
    for round in 0..2 {
        for turn in 1..10_000 {
            assert_eq!(ioapic.end(7), Ended::Again, "turn {turn} of round {round}");
        }
        assert_eq!(ioapic.end(7), Ended::Storm);
        assert!(ioapic.waits(7));
    }
    // A pause ends the count.
    assert_eq!(ioapic.end(7), Ended::Again);
    lower(&mut ioapic, 7);
    assert_eq!(ioapic.end(7), Ended::Quiet);
    assert!(is_sent(raise(&mut ioapic, 7)));
    for _ in 1..10_000 {
        assert_eq!(ioapic.end(7), Ended::Again);
    }
    assert_eq!(ioapic.end(7), Ended::Storm);
}

#[test]
fn clock_waits_for_its_end() {
    let mut ioapic = Ioapic::new();
    let _ = set_entry(&mut ioapic, RTC_PIN, 0x41);
    let ask = |ioapic: &mut Ioapic| {
        let service = ioapic.set_line(RTC_PIN, 1, true, true);
        let _ = ioapic.set_line(RTC_PIN, 1, false, true);
        service
    };
    assert!(is_sent(ask(&mut ioapic)));
    ioapic.set_rtc_waits(2);
    assert_eq!(ask(&mut ioapic), Service::Settled(Some(0)));
    ioapic.rtc_ended();
    assert_eq!(ask(&mut ioapic), Service::Settled(Some(0)));
    // Who does not ask is not held back.
    assert!(is_sent(raise(&mut ioapic, RTC_PIN)));
    lower(&mut ioapic, RTC_PIN);
    ioapic.rtc_ended();
    assert!(is_sent(ask(&mut ioapic)));
    ioapic.rtc_ended();
}

#[test]
fn registers() {
    let mut ioapic = Ioapic::new();
    assert!(ioapic.covers(DEFAULT_ADDRESS) && ioapic.covers(DEFAULT_ADDRESS + 0xff));
    assert!(!ioapic.covers(DEFAULT_ADDRESS + 0x100) && !ioapic.covers(DEFAULT_ADDRESS - 1));
    assert_eq!(register(&mut ioapic, 1), 0x0017_0011);
    for (number, value) in [(1, u32::MAX), (2, u32::MAX), (3, 1), (0xff, 1)] {
        assert_eq!(set_register(&mut ioapic, number, value), None);
    }
    assert_eq!(set_register(&mut ioapic, 0, u32::MAX), None);
    assert_eq!(register(&mut ioapic, 0), 0x0f00_0000);
    assert_eq!(register(&mut ioapic, 2), 0x0f00_0000);
    assert_eq!(register(&mut ioapic, 3), u32::MAX);
    assert_eq!(register(&mut ioapic, 0x10 + 2 * 24), u32::MAX);
    select(&mut ioapic, 0x1_0012);
    assert_eq!(ioapic.read(DEFAULT_ADDRESS), 0x12);
    assert_eq!(ioapic.read(DEFAULT_ADDRESS + 4), 0);
    // The two bits that only the controller sets.
    let _ = set_entry(&mut ioapic, 23, u32::MAX);
    assert_eq!(entry(&mut ioapic, 23), !(REMOTE_IRR | 1 << 12));
}

#[test]
fn state_is_what_was_set() {
    let mut ioapic = Ioapic::new();
    let _ = set_entry(&mut ioapic, 3, 0x41 | LEVEL);
    let _ = set_entry(&mut ioapic, 4, 0x42);
    let _ = raise(&mut ioapic, 3);
    let _ = raise(&mut ioapic, 4);
    let saved = ioapic.save();
    // Of edges, only those that were not sent.
    assert_eq!(saved[16..20], (1_u32 << 3).to_le_bytes());
    let mut other = Ioapic::new();
    assert_eq!(other.restore(&saved), 1 << 3);
    // The interrupt is under way: the end will find the line up.
    assert_eq!(other.request_again(3), Service::Settled(None));
    assert_eq!(other.save(), saved);
    assert_eq!(other.end(3), Ended::Again);

    // Whatever it is, it is kept.
    let saved: [u8; SAVE_SIZE] = core::array::from_fn(|index| index as u8 ^ 0xa5);
    let pins = other.restore(&saved);
    assert_eq!(pins >> PINS, 0);
    let again = other.save();
    assert_eq!(again[..16], saved[..16]);
    assert_eq!(again[20..], saved[20..]);
    assert!(!other.covers(DEFAULT_ADDRESS));
    for pin in 0..PINS {
        let _ = other.request_again(pin);
    }
}
