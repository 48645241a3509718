// SPDX-License-Identifier: GPL-2.0

//! Long random sequences of operations against a model that keeps sets of vectors.

use std::collections::BTreeSet;

use super::{
    Apic,
    Random, //
};
use crate::rust::lapic::{
    Action,
    Effect,
    Trigger, //
};

#[derive(Default)]
struct Model {
    tpr: u8,
    irr: BTreeSet<u8>,
    isr: BTreeSet<u8>,
    level: BTreeSet<u8>,
}

impl Model {
    fn ppr_class(&self) -> u8 {
        let service = self.isr.last().map_or(0, |vector| vector >> 4);
        service.max(self.tpr >> 4)
    }

    fn next(&self) -> Option<u8> {
        let ppr = self.ppr_class();
        self.irr.last().copied().filter(|vector| vector >> 4 > ppr)
    }
}

/// Returns the bits of a set as registers hold them.
fn bits(set: &BTreeSet<u8>, index: u16) -> u32 {
    set.iter()
        .filter(|&&vector| u16::from(vector >> 5) == index)
        .fold(0, |bits, vector| bits | 1 << (vector & 31))
}

fn compare(apic: &Apic, model: &Model) {
    assert_eq!(apic.shared.next_interrupt(), model.next());
    assert_eq!(apic.shared.highest_request(), model.irr.last().copied());
    assert_eq!(apic.shared.highest_in_service(), model.isr.last().copied());
    assert_eq!(apic.shared.ppr() >> 4, model.ppr_class());
    assert_eq!(apic.shared.cr8(), model.tpr >> 4);
    for index in 0..8 {
        assert_eq!(apic.read(0x100 + index * 16), bits(&model.isr, index));
        assert_eq!(apic.read(0x200 + index * 16), bits(&model.irr, index));
    }
}

fn step(apic: &mut Apic, model: &mut Model, random: &mut Random) {
    match random.below(6) {
        0 | 1 => {
            let vector = random.below(240) as u8 + 16;
            let trigger = [Trigger::Edge, Trigger::Level][random.below(2) as usize];
            let new = model.irr.insert(vector);
            if trigger == Trigger::Level {
                model.level.insert(vector);
            } else {
                model.level.remove(&vector);
            }
            let action = apic.shared.post(vector, trigger);
            assert_eq!(action, Action::Requested { new });
        }
        2 => {
            let tpr = random.next() as u8;
            model.tpr = tpr;
            let expected = match model.next() {
                Some(_) => Effect::Recheck,
                None => Effect::None,
            };
            assert_eq!(apic.write(0x80, u32::from(tpr)), expected);
        }
        3 => {
            let class = random.below(16) as u8;
            model.tpr = class << 4;
            assert_eq!(apic.shared.set_cr8(class), model.next().is_some());
        }
        4 => {
            if let Some(vector) = model.next() {
                model.irr.remove(&vector);
                model.isr.insert(vector);
                apic.shared.acknowledge(vector);
            }
        }
        _ => {
            let expected = match model.isr.pop_last() {
                Some(vector) => Effect::Eoi {
                    vector,
                    level: model.level.contains(&vector),
                    suppressed: false,
                },
                None => Effect::None,
            };
            assert_eq!(apic.write(0xb0, 0), expected);
        }
    }
}

#[test]
fn random_sequences_agree() {
    for seed in 1..=20 {
        let mut apic = Apic::xapic(0);
        let mut model = Model::default();
        let mut random = Random(seed);
        for _ in 0..2000 {
            step(&mut apic, &mut model, &mut random);
            compare(&apic, &model);
        }
    }
}
