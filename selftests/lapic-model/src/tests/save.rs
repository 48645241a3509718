// SPDX-License-Identifier: GPL-2.0

//! Save and restore in KVM's layout.

use super::{
    Apic,
    BASE,
    ENABLED,
    X2APIC, //
};
use crate::rust::lapic::{
    ArmTimer,
    IdMismatch,
    SaveArea,
    Trigger,
    SAVE_SIZE, //
};

fn save(apic: &Apic, wide: bool, now: u64) -> Box<SaveArea> {
    let mut area = Box::new([0; SAVE_SIZE]);
    apic.shared.get_lapic(&apic.owned, wide, now, &mut area);
    area
}

fn restore(apic: &mut Apic, wide: bool, now: u64, area: &SaveArea) -> Result<ArmTimer, IdMismatch> {
    apic.shared.set_lapic(&mut apic.owned, wide, now, area)
}

fn get(area: &SaveArea, offset: usize) -> u32 {
    u32::from_ne_bytes(area[offset..offset + 4].try_into().unwrap())
}

fn set(area: &mut SaveArea, offset: usize, value: u32) {
    area[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
}

#[test]
fn registers_survive() {
    let mut source = Apic::xapic(3);
    let _ = source.write(0x80, 0x25);
    let _ = source.write(0xd0, 0x0800_0000);
    let _ = source.write(0x310, 0x1100_0000);
    let _ = source.write(0x300, 0x4055);
    let _ = source.write(0x350, 0x8060);
    let _ = source.shared.post(0x91, Trigger::Level);
    let _ = source.shared.post(0x35, Trigger::Edge);
    source.shared.acknowledge(0x91);
    let area = save(&source, false, 0);
    assert_eq!(get(&area, 0x20), 0x0300_0000);
    assert_eq!(get(&area, 0x30), 0x0105_0014);
    assert_eq!(get(&area, 0x80), 0x25);
    assert_eq!(get(&area, 0xa0), 0x90);
    assert_eq!(get(&area, 0x140), 1 << 17);
    assert_eq!(get(&area, 0x1c0), 1 << 17);
    assert_eq!(get(&area, 0x210), 1 << 21);

    let mut target = Apic::xapic(3);
    assert_eq!(restore(&mut target, false, 0, &area), Ok(ArmTimer::Cancel));
    assert_eq!(*save(&target, false, 0), *area);
    assert_eq!(target.shared.highest_in_service(), Some(0x91));
    assert_eq!(target.shared.highest_request(), Some(0x35));
    assert_eq!(target.shared.next_interrupt(), None);
    let _ = target.write(0xb0, 0);
    assert_eq!(target.shared.next_interrupt(), Some(0x35));
}

#[test]
fn requests_below_16_are_held_but_not_delivered() {
    let mut apic = Apic::xapic(0);
    let mut area = save(&apic, false, 0);
    set(&mut area, 0x200, 0xffff);
    let _ = restore(&mut apic, false, 0, &area).unwrap();
    assert_eq!(apic.read(0x200), 0xffff);
    assert_eq!(apic.shared.next_interrupt(), None);
    assert_eq!(apic.shared.tpr_threshold(), 0);
}

#[test]
fn version_is_not_the_clients() {
    let mut apic = Apic::xapic(0);
    let mut area = save(&apic, false, 0);
    set(&mut area, 0x30, 0xffff_ffff);
    let _ = restore(&mut apic, false, 0, &area).unwrap();
    assert_eq!(apic.read(0x30), 0x0105_0014);
}

#[test]
fn x2apic_id_formats() {
    for wide in [false, true] {
        let mut apic = Apic::x2apic(0x12);
        let mut area = save(&apic, wide, 0);
        let expected = if wide { 0x12 } else { 0x1200_0000 };
        assert_eq!(get(&area, 0x20), expected);
        assert_eq!(get(&area, 0xd0), 0x1_0004);
        set(&mut area, 0x20, 0x5500_0000);
        set(&mut area, 0xd0, 0);
        let result = restore(&mut apic, wide, 0, &area);
        assert_eq!(result.is_err(), wide, "only wide IDs are checked");
        assert_eq!(apic.rdmsr(0x802), 0x12);
        assert_eq!(apic.rdmsr(0x80d), 0x1_0004);
    }
}

#[test]
fn x2apic_command_is_split() {
    let mut apic = Apic::x2apic(1);
    let _ = apic.wrmsr(0x830, 0x1234_5678_0000_4041);
    let mut area = save(&apic, false, 0);
    assert_eq!(get(&area, 0x300), 0x4041);
    assert_eq!(get(&area, 0x310), 0x1234_5678);
    set(&mut area, 0x310, 0x9abc_def0);
    let _ = restore(&mut apic, false, 0, &area).unwrap();
    assert_eq!(apic.rdmsr(0x830), 0x9abc_def0_0000_4041);
}

#[test]
fn base_is_restored_first() {
    let source = Apic::x2apic(0x300);
    let area = save(&source, true, 0);
    let mut target = Apic::xapic(0x300);
    let _ = target
        .shared
        .set_base(&mut target.owned, BASE | ENABLED | X2APIC, true)
        .unwrap();
    let _ = restore(&mut target, true, 0, &area).unwrap();
    assert_eq!(target.rdmsr(0x802), 0x300);
    assert!(target.shared.is_software_enabled());
}

#[test]
fn timers_go_on() {
    for entry in [0x40, 1 << 17 | 0x40] {
        let mut source = Apic::xapic(0);
        let _ = source.write(0x3e0, 0xb);
        let _ = source.write(0x320, entry);
        let _ = source.write_at(0x380, 1_000_000, 0);
        let area = save(&source, false, 400_000);
        assert_eq!(get(&area, 0x390), 600_000);
        let mut target = Apic::xapic(0);
        let armed = restore(&mut target, false, 7_000_000, &area);
        assert_eq!(armed, Ok(ArmTimer::At(7_600_000)));
        assert_eq!(target.read_at(0x390, 7_000_000), 600_000);
    }
}

#[test]
fn finished_timers() {
    let timer = |entry| {
        let mut apic = Apic::xapic(0);
        let mut area = save(&apic, false, 0);
        set(&mut area, 0x320, entry);
        set(&mut area, 0x3e0, 0xb);
        set(&mut area, 0x380, 1_000_000);
        set(&mut area, 0x390, 0);
        restore(&mut apic, false, 5000, &area).unwrap()
    };
    assert_eq!(timer(0x40), ArmTimer::At(5000));
    assert_eq!(timer(1 << 17 | 0x40), ArmTimer::At(1_005_000));
}

#[test]
fn a_count_above_the_initial_one_is_the_initial_one() {
    let mut apic = Apic::xapic(0);
    let mut area = save(&apic, false, 0);
    set(&mut area, 0x320, 0x40);
    set(&mut area, 0x3e0, 0xb);
    set(&mut area, 0x380, 1000);
    set(&mut area, 0x390, 2000);
    let armed = restore(&mut apic, false, 5000, &area);
    assert_eq!(armed, Ok(ArmTimer::At(6000)));
}

#[test]
fn deadline_follows_the_registers() {
    let mut source = Apic::xapic(0);
    let _ = source.write(0x320, 2 << 17 | 0x40);
    let _ = source.shared.set_tsc_deadline(&mut source.owned, 777);
    let area = save(&source, false, 0);
    let mut target = Apic::xapic(0);
    assert_eq!(restore(&mut target, false, 0, &area), Ok(ArmTimer::Cancel));
    let _ = target.shared.set_tsc_deadline(&mut target.owned, 777);
    // Setting the registers again leaves the deadline.
    let armed = restore(&mut target, false, 0, &area);
    assert_eq!(armed, Ok(ArmTimer::AtTsc(777)));
}

/// What a client sets is arbitrary; nothing may panic.
#[test]
fn garbage_does_no_harm() {
    let mut random = super::Random(99);
    for _ in 0..200 {
        let mut apic = Apic::xapic(0);
        let mut area = [0_u8; SAVE_SIZE];
        area.fill_with(|| random.next() as u8);
        let _ = restore(&mut apic, false, random.next(), &area);
        for _ in 0..100 {
            let now = random.next();
            let (offset, value) = (random.next() as u16 & 0xff0, random.next() as u32);
            let size = random.below(17) as u8;
            let _ = apic.shared.read(&apic.owned, offset | 3, size, now);
            let _ = apic.write_at(offset, value, now);
            if let Some(vector) = apic.shared.next_interrupt() {
                apic.shared.acknowledge(vector);
            }
            let guest_tsc = random.next();
            let now = crate::rust::lapic::Now { ns: now, guest_tsc };
            let _ = apic.shared.expire(&mut apic.owned, now);
        }
        let _ = save(&apic, true, random.next());
    }
}
