// SPDX-License-Identifier: GPL-2.0

//! The PICs against a model that keeps lists instead of bits.

use super::Random;
use crate::rust::irqchip::pic::{
    Pic,
    Which, //
};

/// One PIC as its priorities: pins from the highest to the lowest.
struct Model {
    order: Vec<u8>,
    requested: Vec<u8>,
    serving: Vec<u8>,
    masked: Vec<u8>,
    level: Vec<u8>,
    up: Vec<u8>,
}

fn put(list: &mut Vec<u8>, pin: u8, present: bool) {
    list.retain(|&other| other != pin);
    if present {
        list.push(pin);
    }
}

impl Model {
    fn new() -> Self {
        Self {
            order: (0..8).collect(),
            requested: Vec::new(),
            serving: Vec::new(),
            masked: Vec::new(),
            level: Vec::new(),
            up: Vec::new(),
        }
    }

    fn drive(&mut self, pin: u8, up: bool) {
        let was_up = self.up.contains(&pin);
        put(&mut self.up, pin, up);
        if self.level.contains(&pin) {
            put(&mut self.requested, pin, up);
        } else if up && !was_up {
            put(&mut self.requested, pin, true);
        }
    }

    fn first(&self, list: &[u8]) -> Option<u8> {
        self.order.iter().copied().find(|pin| list.contains(pin))
    }

    /// Returns the first pin that is requested and open, unless one in service comes no later.
    fn next(&self) -> Option<u8> {
        for &pin in &self.order {
            if self.serving.contains(&pin) {
                return None;
            }
            if self.requested.contains(&pin) && !self.masked.contains(&pin) {
                return Some(pin);
            }
        }
        None
    }

    fn acknowledge(&mut self, pin: u8) {
        put(&mut self.serving, pin, true);
        if !self.level.contains(&pin) {
            put(&mut self.requested, pin, false);
        }
    }

    fn lowest(&mut self, pin: u8) {
        while self.order.last() != Some(&pin) {
            self.order.rotate_left(1);
        }
    }
}

/// The pair.
struct Pair {
    master: Model,
    slave: Model,
}

impl Pair {
    fn chip(&mut self, which: Which) -> &mut Model {
        match which {
            Which::Master => &mut self.master,
            Which::Slave => &mut self.slave,
        }
    }

    fn output(&mut self) -> bool {
        if self.slave.next().is_some() {
            self.master.drive(2, true);
            self.master.drive(2, false);
        }
        self.master.next().is_some()
    }

    fn take(&mut self) -> u8 {
        let Some(pin) = self.master.next() else {
            return 0x27;
        };
        self.master.acknowledge(pin);
        if pin != 2 {
            return 0x20 + pin;
        }
        match self.slave.next() {
            Some(pin) => {
                self.slave.acknowledge(pin);
                0x28 + pin
            }
            None => 0x2f,
        }
    }
}

fn start() -> (Pic, Pair) {
    let mut pic = Pic::new();
    for (which, base) in [(Which::Master, 0x20), (Which::Slave, 0x28)] {
        let _ = pic.write_command(which, 0x11);
        for value in [base, 0, 1] {
            let _ = pic.write_data(which, value);
        }
    }
    let pair = Pair {
        master: Model::new(),
        slave: Model::new(),
    };
    (pic, pair)
}

#[test]
fn agrees_with_the_model() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..200 {
        let (mut pic, mut pair) = start();
        for step in 0..2000 {
            let which = if random.below(2) == 0 {
                Which::Master
            } else {
                Which::Slave
            };
            match random.below(8) {
                0..=2 => {
                    // The cascade has no line of its own.
                    let pin = random.below(16) as u8;
                    if pin != 2 {
                        let up = random.below(2) == 0;
                        pic.set_line(pin, 1, up);
                        let chip = if pin < 8 { Which::Master } else { Which::Slave };
                        pair.chip(chip).drive(pin & 7, up);
                        pic.update();
                    }
                }
                3 => {
                    if pic.output() {
                        let (vector, effects) = pic.acknowledge();
                        assert_eq!((vector, effects.acknowledged), (pair.take(), 0));
                        pic.update();
                    }
                }
                4 => {
                    let mask = random.byte() & random.byte();
                    let _ = pic.write_data(which, mask);
                    pair.chip(which).masked = (0..8).filter(|pin| mask >> pin & 1 != 0).collect();
                    pic.update();
                }
                5 => {
                    let rotate = random.below(2) == 0;
                    let effects = pic.write_command(which, if rotate { 0xa0 } else { 0x20 });
                    let chip = pair.chip(which);
                    let ended = chip.first(&chip.serving.clone());
                    if let Some(pin) = ended {
                        put(&mut chip.serving, pin, false);
                        if rotate {
                            chip.lowest(pin);
                        }
                    }
                    let shift = if which == Which::Master { 0 } else { 8 };
                    let expected = ended.map_or(0, |pin| 1 << (pin + shift));
                    assert_eq!(effects.acknowledged, expected);
                    pic.update();
                }
                6 => {
                    let pin = random.below(8) as u8;
                    let kind = [0x60, 0xc0, 0xe0][random.below(3) as usize];
                    let _ = pic.write_command(which, kind | pin);
                    let chip = pair.chip(which);
                    if kind != 0xc0 {
                        put(&mut chip.serving, pin, false);
                    }
                    if kind != 0x60 {
                        chip.lowest(pin);
                    }
                    pic.update();
                }
                _ => {
                    // Not while a line is up: what was an edge becomes no level by that.
                    let chip = pair.chip(which);
                    if chip.up.is_empty() && chip.requested.is_empty() {
                        let mask = [0xf8, 0xde][usize::from(which == Which::Slave)];
                        let level = random.byte() & mask;
                        pic.write_elcr(which, level);
                        chip.level = (0..8).filter(|pin| level >> pin & 1 != 0).collect();
                    }
                }
            }
            assert_eq!(pic.output(), pair.output(), "step {step}");
        }
    }
}
