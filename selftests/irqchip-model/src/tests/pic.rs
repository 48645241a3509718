// SPDX-License-Identifier: GPL-2.0

//! Each mode of the PICs by itself.

use crate::rust::irqchip::pic::{
    Effects,
    Pic,
    Which, //
};
use Which::{
    Master,
    Slave, //
};

/// Does what a caller does after an access.
fn settle(pic: &mut Pic, effects: Effects) -> u16 {
    if effects.update {
        pic.update();
    }
    effects.acknowledged
}

fn command(pic: &mut Pic, which: Which, value: u8) -> u16 {
    let effects = pic.write_command(which, value);
    settle(pic, effects)
}

fn data(pic: &mut Pic, which: Which, value: u8) {
    let effects = pic.write_data(which, value);
    settle(pic, effects);
}

fn raise(pic: &mut Pic, pin: u8, up: bool) -> Option<usize> {
    let delivered = pic.set_line(pin, 1, up);
    pic.update();
    delivered
}

fn edge(pic: &mut Pic, pin: u8) -> Option<usize> {
    let delivered = raise(pic, pin, true);
    raise(pic, pin, false);
    delivered
}

fn take(pic: &mut Pic) -> u8 {
    assert!(pic.output());
    let (vector, effects) = pic.acknowledge();
    settle(pic, effects);
    vector
}

/// Returns PICs with vectors from 0x20 on and the fourth initialisation command `icw4`.
fn initialized(icw4: u8) -> Pic {
    let mut pic = Pic::new();
    for (which, base, icw3) in [(Master, 0x20, 4), (Slave, 0x28, 2)] {
        command(&mut pic, which, 0x11);
        data(&mut pic, which, base | 5);
        data(&mut pic, which, icw3);
        data(&mut pic, which, icw4);
        data(&mut pic, which, 0);
    }
    pic
}

#[test]
fn priorities_nest() {
    let mut pic = initialized(1);
    assert_eq!(edge(&mut pic, 5), Some(1));
    assert_eq!(edge(&mut pic, 5), Some(0));
    assert_eq!(take(&mut pic), 0x25);
    assert_eq!(edge(&mut pic, 6), Some(1));
    assert!(!pic.output());
    // A pin of the slave comes in as pin 2 of the master.
    assert_eq!(edge(&mut pic, 12), Some(1));
    assert_eq!(take(&mut pic), 0x2c);
    assert_eq!(edge(&mut pic, 11), Some(1));
    assert!(!pic.output());
    assert_eq!(command(&mut pic, Slave, 0x20), 1 << 12);
    assert_eq!(command(&mut pic, Master, 0x20), 1 << 2);
    assert_eq!(take(&mut pic), 0x2b);
    command(&mut pic, Slave, 0x63);
    command(&mut pic, Master, 0x62);
    assert_eq!(command(&mut pic, Master, 0x20), 1 << 5);
    assert_eq!(take(&mut pic), 0x26);
    assert_eq!(command(&mut pic, Master, 0x66), 1 << 6);
    assert_eq!(command(&mut pic, Master, 0x20), 0);
}

#[test]
fn masks_hold_back() {
    let mut pic = initialized(1);
    data(&mut pic, Master, 1 << 3);
    assert_eq!(edge(&mut pic, 3), None);
    assert!(!pic.output());
    let effects = pic.write_data(Master, 1 << 4);
    assert_eq!(effects.mask_changed, 1 << 3 | 1 << 4);
    settle(&mut pic, effects);
    assert_eq!(pic.masked(), 1 << 4);
    assert_eq!(take(&mut pic), 0x23);
    assert_eq!(pic.read_data(Master).0, 1 << 4);
}

#[test]
fn levels_come_again() {
    let mut pic = initialized(1);
    // Pins 0, 1, 2, 8 and 13 cannot be level-triggered.
    pic.write_elcr(Master, 0xff);
    pic.write_elcr(Slave, 0xff);
    assert_eq!(pic.read_elcr(Master), 0xf8);
    assert_eq!(pic.read_elcr(Slave), 0xde);
    assert_eq!(raise(&mut pic, 4, true), Some(1));
    assert_eq!(raise(&mut pic, 4, true), Some(0));
    for _ in 0..3 {
        assert_eq!(take(&mut pic), 0x24);
        assert!(!pic.output());
        assert_eq!(command(&mut pic, Master, 0x20), 1 << 4);
    }
    raise(&mut pic, 4, false);
    assert!(!pic.output());
}

#[test]
fn several_sources_hold_a_line() {
    let mut pic = initialized(1);
    pic.write_elcr(Master, 1 << 4);
    for (source, up, output) in [
        (1, true, true),
        (4, true, true),
        (1, false, true),
        (4, false, false),
    ] {
        pic.set_line(4, source, up);
        pic.update();
        assert_eq!(pic.output(), output);
    }
}

#[test]
fn priorities_rotate() {
    let mut pic = initialized(1);
    for pin in 0..8 {
        if pin != 2 {
            edge(&mut pic, pin);
        }
    }
    // Pin 4 gets the lowest one.
    command(&mut pic, Master, 0xc4);
    for vector in [0x25, 0x26, 0x27] {
        assert_eq!(take(&mut pic), vector);
        command(&mut pic, Master, 0x20);
    }
    assert_eq!(take(&mut pic), 0x20);
    // Its end makes it the lowest.
    assert_eq!(command(&mut pic, Master, 0xa0), 1);
    edge(&mut pic, 0);
    for vector in [0x21, 0x23, 0x24, 0x20] {
        assert_eq!(take(&mut pic), vector);
        command(&mut pic, Master, 0x20);
    }
    // So does a named end.
    edge(&mut pic, 6);
    assert_eq!(take(&mut pic), 0x26);
    assert_eq!(command(&mut pic, Master, 0xe6), 1 << 6);
    edge(&mut pic, 6);
    edge(&mut pic, 7);
    assert_eq!(take(&mut pic), 0x27);
}

#[test]
fn automatic_ends() {
    let mut pic = initialized(3);
    edge(&mut pic, 12);
    let (vector, effects) = pic.acknowledge();
    assert_eq!(vector, 0x2c);
    assert_eq!(effects.acknowledged, 1 << 12 | 1 << 2);
    settle(&mut pic, effects);
    assert_eq!((pic.save(Master)[3], pic.save(Slave)[3]), (0, 0));
    // With rotation, whoever was served has the lowest priority.
    command(&mut pic, Master, 0x80);
    edge(&mut pic, 3);
    assert_eq!(take(&mut pic), 0x23);
    edge(&mut pic, 3);
    edge(&mut pic, 5);
    assert_eq!(take(&mut pic), 0x25);
    assert_eq!(take(&mut pic), 0x23);
}

#[test]
fn polling_takes_and_ends() {
    let mut pic = initialized(1);
    command(&mut pic, Master, 0x0c);
    assert_eq!(pic.read_command(Master).0, 7);
    edge(&mut pic, 12);
    command(&mut pic, Master, 0x0c);
    let (value, effects) = pic.read_command(Master);
    assert_eq!((value, effects.acknowledged), (0x82, 1 << 2));
    assert!(!effects.update);
    command(&mut pic, Slave, 0x0c);
    let (value, effects) = pic.read_data(Slave);
    assert_eq!((value, effects.acknowledged), (0x84, 1 << 12));
    settle(&mut pic, effects);
    assert!(!pic.output());
    // One read each.
    assert_eq!(pic.read_command(Slave).0, 0);
}

#[test]
fn spurious_interrupts() {
    let mut pic = initialized(1);
    pic.write_elcr(Slave, 1 << 4);
    raise(&mut pic, 12, true);
    // The slave's request goes away after it has come to the master.
    pic.set_line(12, 1, false);
    let (vector, effects) = pic.acknowledge();
    settle(&mut pic, effects);
    assert_eq!(vector, 0x2f);
    command(&mut pic, Master, 0x20);
    let (vector, _) = pic.acknowledge();
    assert_eq!(vector, 0x27);
    assert_eq!(pic.save(Master)[3], 0);
}

#[test]
fn registers_read() {
    let mut pic = initialized(1);
    edge(&mut pic, 1);
    edge(&mut pic, 3);
    assert_eq!(pic.read_command(Master).0, 0xa);
    take(&mut pic);
    assert_eq!(pic.read_command(Master).0, 8);
    command(&mut pic, Master, 0x0b);
    assert_eq!(pic.read_command(Master).0, 2);
    command(&mut pic, Master, 0x0a);
    assert_eq!(pic.read_command(Master).0, 8);
}

#[test]
fn nested_slave() {
    // Special fully nested mode: a higher pin of the slave interrupts a lower one.
    for (icw4, comes) in [(1, false), (0x11, true)] {
        let mut pic = initialized(icw4);
        edge(&mut pic, 12);
        assert_eq!(take(&mut pic), 0x2c);
        edge(&mut pic, 9);
        assert_eq!(pic.output(), comes);
    }
}

#[test]
fn initialization_forgets_edges() {
    let mut pic = initialized(1);
    pic.write_elcr(Master, 1 << 4);
    raise(&mut pic, 4, true);
    edge(&mut pic, 3);
    edge(&mut pic, 9);
    let effects = pic.write_command(Master, 0x11);
    // The slave's edge stands at pin 2.
    assert_eq!(effects.forgotten, 1 << 3 | 1 << 2);
    assert!(!effects.update);
    assert_eq!(pic.read_command(Master).0, 1 << 4);
    // The mask of interrupts is that of none, and data is the second command.
    assert_eq!(pic.read_data(Master).0, 0);
    data(&mut pic, Master, 0x47);
    assert_eq!(pic.save(Master)[5], 0x40);
}

#[test]
fn state_is_what_was_set() {
    let mut pic = Pic::new();
    let saved = core::array::from_fn(|index| 0xf0 | index as u8);
    pic.restore(Slave, saved);
    assert_eq!(pic.save(Slave), saved);
    assert_ne!(pic.save(Master), saved);
    // Whatever it is, nothing goes wrong.
    pic.update();
    let _ = pic.acknowledge();
    for value in 0..=255 {
        let _ = pic.write_command(Slave, value);
        let _ = pic.write_data(Slave, value);
        let _ = pic.read_command(Slave);
        let _ = pic.acknowledge();
    }
}
