// SPDX-License-Identifier: GPL-2.0

//! The timer: counts over time, divisors, modes and expiry.

use std::num::NonZeroU64;

use super::{
    Apic,
    BASE,
    ENABLED, //
};
use crate::rust::lapic::{
    Action,
    ArmTimer,
    Config,
    Effect,
    Now,
    TimerMode, //
};

const ONE_SHOT: u32 = 0x40;
const PERIODIC: u32 = 1 << 17 | 0x40;
const DEADLINE: u32 = 2 << 17 | 0x40;
/// The divide configuration for a divisor of 1.
const DIVIDE_BY_1: u32 = 0xb;

/// Returns an enabled APIC whose timer has `entry` in the vector table and a divisor of 1.
fn apic(entry: u32) -> Apic {
    let mut apic = Apic::xapic(0);
    let _ = apic.write(0x3e0, DIVIDE_BY_1);
    let _ = apic.write(0x320, entry);
    apic
}

fn at(ns: u64) -> Now {
    Now { ns, guest_tsc: 0 }
}

impl Apic {
    fn expire(&mut self, now: Now) -> (Action, ArmTimer) {
        let expired = self.shared.expire(&mut self.owned, now);
        (expired.action, expired.arm)
    }
}

const NEW: Action = Action::Requested { new: true };

#[test]
fn divisors() {
    let codes = [
        (0x0, 2),
        (0x1, 4),
        (0x2, 8),
        (0x3, 16),
        (0x8, 32),
        (0x9, 64),
        (0xa, 128),
        (0xb, 1),
    ];
    for (code, divisor) in codes {
        let mut apic = apic(ONE_SHOT);
        let _ = apic.write(0x3e0, code);
        let armed = apic.write_at(0x380, 1000, 5000);
        assert_eq!(armed, Effect::Timer(ArmTimer::At(5000 + 1000 * divisor)));
        assert_eq!(apic.read_at(0x390, 5000), 1000);
        assert_eq!(apic.read_at(0x390, 5000 + 300 * divisor), 700);
        assert_eq!(apic.read_at(0x390, 5000 + 1000 * divisor - 1), 1);
        assert_eq!(apic.read_at(0x390, 5000 + 1000 * divisor), 0);
        assert_eq!(apic.read_at(0x390, u64::MAX), 0);
    }
}

#[test]
fn one_shot_goes_off_once() {
    let mut apic = apic(ONE_SHOT);
    let _ = apic.write_at(0x380, 1000, 0);
    assert_eq!(
        apic.expire(at(999)),
        (Action::Discarded, ArmTimer::At(1000))
    );
    assert_eq!(apic.expire(at(1000)), (NEW, ArmTimer::Cancel));
    assert_eq!(apic.expire(at(9999)), (Action::Discarded, ArmTimer::Cancel));
    assert_eq!(apic.shared.next_interrupt(), Some(0x40));
}

#[test]
fn zero_stops() {
    let mut apic = apic(ONE_SHOT);
    let _ = apic.write_at(0x380, 1000, 0);
    let stopped = apic.write_at(0x380, 0, 500);
    assert_eq!(stopped, Effect::Timer(ArmTimer::Cancel));
    assert_eq!(apic.read_at(0x390, 600), 0);
    assert_eq!(apic.expire(at(1000)), (Action::Discarded, ArmTimer::Cancel));
}

#[test]
fn periodic_keeps_its_phase() {
    let mut apic = apic(PERIODIC);
    let _ = apic.write_at(0x380, 1_000_000, 100);
    assert_eq!(apic.read_at(0x390, 600_100), 400_000);
    assert_eq!(apic.read_at(0x390, 1_000_100), 1_000_000);
    assert_eq!(apic.read_at(0x390, 1_000_101), 999_999);
    let (action, arm) = apic.expire(at(1_000_100));
    assert_eq!((action, arm), (NEW, ArmTimer::At(2_000_100)));
    // Late by two and a half rounds: one interrupt, and the next when it always was due.
    let (action, arm) = apic.expire(at(4_500_100));
    assert_eq!(action, Action::Requested { new: false });
    assert_eq!(arm, ArmTimer::At(5_000_100));
    assert_eq!(apic.read_at(0x390, 4_500_100), 500_000);
}

#[test]
fn short_periods_are_stretched() {
    let mut apic = apic(PERIODIC);
    let armed = apic.write_at(0x380, 10, 0);
    assert_eq!(armed, Effect::Timer(ArmTimer::At(200_000)));
    assert!(apic.read_at(0x390, 1) <= 10);
    let mut one_shot = self::apic(ONE_SHOT);
    let armed = one_shot.write_at(0x380, 10, 0);
    assert_eq!(armed, Effect::Timer(ArmTimer::At(10)));
}

#[test]
fn change_of_divisor_keeps_the_count() {
    let mut apic = apic(ONE_SHOT);
    let _ = apic.write_at(0x380, 1000, 0);
    let slower = apic.write_at(0x3e0, 0x0, 400);
    assert_eq!(slower, Effect::Timer(ArmTimer::At(400 + 1200)));
    assert_eq!(apic.read_at(0x390, 400), 600);
    assert_eq!(apic.read_at(0x390, 1000), 300);
    let faster = apic.write_at(0x3e0, DIVIDE_BY_1, 1000);
    assert_eq!(faster, Effect::Timer(ArmTimer::At(1300)));
    assert_eq!(apic.write_at(0x3e0, DIVIDE_BY_1, 1000), Effect::None);
    assert_eq!(apic.expire(at(1300)), (NEW, ArmTimer::Cancel));
    let stopped = apic.write_at(0x3e0, 0, 1400);
    assert_eq!(stopped, Effect::Timer(ArmTimer::Cancel));
}

#[test]
fn bus_clock_scales() {
    let mut apic = apic(ONE_SHOT);
    let config = Config {
        bus_cycle_ns: NonZeroU64::new(40).unwrap(),
        ..Config::default()
    };
    apic.shared.configure(&mut apic.owned, config);
    let armed = apic.write_at(0x380, 100, 0);
    assert_eq!(armed, Effect::Timer(ArmTimer::At(4000)));
    assert_eq!(apic.read_at(0x390, 1000), 75);
}

#[test]
fn masked_timer_counts_silently() {
    let mut apic = apic(1 << 16 | ONE_SHOT);
    let _ = apic.write_at(0x380, 1000, 0);
    assert_eq!(apic.read_at(0x390, 300), 700);
    assert_eq!(apic.expire(at(1000)), (Action::Discarded, ArmTimer::Cancel));
    assert_eq!(apic.shared.highest_request(), None);
}

#[test]
fn counter_modes_share_the_count() {
    let mut apic = apic(ONE_SHOT);
    let _ = apic.write_at(0x380, 1_000_000, 0);
    let changed = apic.write_at(0x320, PERIODIC, 1000);
    assert_eq!(changed, Effect::Timer(ArmTimer::At(1_000_000)));
    assert_eq!(apic.read_at(0x390, 1000), 999_000);
    let (_, arm) = apic.expire(at(1_000_000));
    assert_eq!(arm, ArmTimer::At(2_000_000));
}

#[test]
fn tsc_deadline() {
    let mut apic = apic(DEADLINE);
    assert_eq!(apic.owned.timer().mode(), TimerMode::TscDeadline);
    let now = |guest_tsc| Now { ns: 0, guest_tsc };
    let set = |apic: &mut Apic, value| apic.shared.set_tsc_deadline(&mut apic.owned, value);
    assert_eq!(set(&mut apic, 5000), Effect::Timer(ArmTimer::AtTsc(5000)));
    assert_eq!(apic.shared.tsc_deadline(&apic.owned), 5000);
    assert_eq!(apic.write_at(0x380, 77, 0), Effect::None, "no counter here");
    assert_eq!(apic.read(0x380), 0);
    assert_eq!(apic.read(0x390), 0);
    assert_eq!(
        apic.expire(now(4999)),
        (Action::Discarded, ArmTimer::AtTsc(5000))
    );
    assert_eq!(apic.expire(now(5000)), (NEW, ArmTimer::Cancel));
    assert_eq!(apic.shared.tsc_deadline(&apic.owned), 0);
    let _ = set(&mut apic, 9000);
    assert_eq!(set(&mut apic, 0), Effect::Timer(ArmTimer::Cancel));
    assert_eq!(
        apic.expire(now(9999)),
        (Action::Discarded, ArmTimer::Cancel)
    );
}

#[test]
fn entering_and_leaving_deadline_mode_stops() {
    let mut apic = apic(PERIODIC);
    let _ = apic.write_at(0x380, 1_000_000, 0);
    let entered = apic.write_at(0x320, DEADLINE, 10);
    assert_eq!(entered, Effect::Timer(ArmTimer::Cancel));
    assert_eq!(apic.read(0x380), 0);
    let _ = apic.shared.set_tsc_deadline(&mut apic.owned, 5000);
    let left = apic.write_at(0x320, ONE_SHOT, 20);
    assert_eq!(left, Effect::Timer(ArmTimer::Cancel));
    assert_eq!(apic.shared.tsc_deadline(&apic.owned), 0);
    let ignored = apic.shared.set_tsc_deadline(&mut apic.owned, 5000);
    assert_eq!(ignored, Effect::None);
}

#[test]
fn reserved_mode_does_nothing() {
    let mut apic = apic(3 << 17 | 0x40);
    let armed = apic.write_at(0x380, 1000, 0);
    assert_eq!(armed, Effect::Timer(ArmTimer::Cancel));
    assert_eq!(apic.expire(at(5000)), (Action::Discarded, ArmTimer::Cancel));
}

#[test]
fn reset_stops() {
    let mut apic = apic(PERIODIC);
    let _ = apic.write_at(0x380, 1_000_000, 0);
    let cause = crate::rust::lapic::Reset::Init;
    apic.shared.reset(&mut apic.owned, cause);
    assert_eq!(apic.owned.timer().armed(), ArmTimer::Cancel);
    assert_eq!(apic.owned.timer().mode(), TimerMode::OneShot);
}

#[test]
fn no_deadline_while_disabled() {
    let mut apic = apic(DEADLINE);
    apic.set_base(BASE);
    let ignored = apic.shared.set_tsc_deadline(&mut apic.owned, 5000);
    assert_eq!(ignored, Effect::None);
    apic.set_base(BASE | ENABLED);
    assert_eq!(apic.shared.tsc_deadline(&apic.owned), 0);
}

/// Nothing overflows at the ends of all ranges.
#[test]
fn extremes() {
    for entry in [ONE_SHOT, PERIODIC] {
        for bus in [1, 1 << 20, u64::MAX] {
            let mut apic = apic(entry);
            let config = Config {
                bus_cycle_ns: NonZeroU64::new(bus).unwrap(),
                ..Config::default()
            };
            apic.shared.configure(&mut apic.owned, config);
            for now in [0, 1, u64::MAX - 1, u64::MAX] {
                let _ = apic.write_at(0x380, u32::MAX, now);
                let _ = apic.write_at(0x3e0, 0xa, now);
                let _ = apic.write_at(0x3e0, 0xb, u64::MAX);
                let _ = apic.expire(at(u64::MAX));
                let _ = apic.read_at(0x390, now);
            }
        }
    }
}
