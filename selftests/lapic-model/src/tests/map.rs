// SPDX-License-Identifier: GPL-2.0

//! The table of destinations answers as the APICs themselves do.

use super::{
    Apic,
    Random,
    BASE,
    ENABLED,
    X2APIC, //
};
use crate::rust::lapic::{
    DestinationMap,
    Found,
    Message,
    Sender,
    Shorthand,
    MIN_IDS, //
};

/// Returns an APIC in a state that a guest may bring it to.
fn random_apic(random: &mut Random, id: u32, mixed: bool, aliased: bool) -> Apic {
    let kind = if mixed { random.below(8) } else { 0 };
    let mut apic = Apic::xapic(id);
    match kind {
        1..=3 => {
            apic.set_base(BASE | ENABLED | X2APIC);
            return apic;
        }
        4 => {
            apic.set_base(BASE);
            return apic;
        }
        _ => {}
    }
    if random.below(2) == 0 && aliased {
        let _ = apic.write(0x20, (random.below(12) as u32) << 24);
    }
    apic
}

/// Gives an APIC in xAPIC mode a logical ID.
fn random_logical(random: &mut Random, apic: &mut Apic, index: u32, cluster: bool, clean: bool) {
    if cluster {
        let _ = apic.write(0xe0, 0);
    }
    let logical = match (clean, cluster) {
        (true, false) if index < 8 => 1 << index,
        (true, true) => (index / 4) << 4 | 1 << (index % 4),
        (true, false) => 0,
        (false, _) => random.below(0x100) as u32,
    };
    let _ = apic.write(0xd0, logical << 24);
}

fn map_of(apics: &[Apic]) -> DestinationMap<Vec<u16>> {
    let last = apics.iter().map(|apic| apic.shared.id()).max().unwrap_or(0);
    let mut map = DestinationMap::new(vec![0; MIN_IDS.max(last as usize + 1)]);
    for (number, apic) in apics.iter().enumerate() {
        map.add(number, &apic.shared.identity());
    }
    map
}

fn message(destination: u32, logical: bool) -> Message {
    Message {
        shorthand: Shorthand::None,
        destination,
        logical,
        ..Message::to_self(0x40)
    }
}

/// Returns whether the table answered, having held its answer against the APICs'.
fn check(apics: &[Apic], map: &DestinationMap<Vec<u16>>, message: &Message, quirk: bool) -> bool {
    let sender = Sender::Device {
        broadcast_quirk: quirk,
    };
    let asked: Vec<usize> = (0..apics.len())
        .filter(|&number| apics[number].shared.receives(message, sender))
        .collect();
    match map.find(message, quirk) {
        Found::Unclear => false,
        Found::Receivers(receivers) => {
            let mut found: Vec<usize> = receivers.iter().collect();
            found.sort_unstable();
            assert_eq!(found, asked, "{message:?}");
            true
        }
    }
}

#[test]
fn answers_as_the_apics_do() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut answered, mut clear) = (0, 0);
    for round in 0..600 {
        let (mixed, aliased) = (round % 2 == 1, round % 3 == 1);
        let (cluster, clean) = (round % 5 < 2, round % 4 != 3);
        let count = 1 + random.below(12) as u32;
        let stride = [1, 1, 3, 29][random.below(4) as usize];
        let mut apics: Vec<Apic> = (0..count)
            .map(|index| random_apic(&mut random, index * stride, mixed, aliased))
            .collect();
        for (index, apic) in apics.iter_mut().enumerate() {
            if apic.shared.base() & (ENABLED | X2APIC) == ENABLED {
                random_logical(&mut random, apic, index as u32, cluster, clean);
            }
        }
        let map = map_of(&apics);
        let high = [
            0x1_0000,
            0x1_0001,
            0x2_0003,
            0x1f_ffff,
            0xff00_00ff,
            u32::MAX,
        ];
        for destination in (0..0x180).chain(high) {
            for bits in 0..4 {
                let (logical, quirk) = (bits & 1 != 0, bits & 2 != 0);
                answered += 1;
                clear += u32::from(check(&apics, &map, &message(destination, logical), quirk));
            }
        }
    }
    // Else it would be of no use.
    assert!(clear > answered / 2, "{clear} of {answered}");
}

#[test]
fn tells_all_of_ordinary_guests() {
    let xapic: Vec<Apic> = (0..8)
        .map(|id| {
            let mut apic = Apic::xapic(id);
            let _ = apic.write(0xd0, 1 << (24 + id));
            apic
        })
        .collect();
    let x2apic: Vec<Apic> = (0..300).map(Apic::x2apic).collect();
    let (xapic_map, x2apic_map) = (map_of(&xapic), map_of(&x2apic));
    for destination in 0..0xff {
        for logical in [false, true] {
            assert!(check(
                &xapic,
                &xapic_map,
                &message(destination, logical),
                true
            ));
        }
    }
    for destination in (0..300).chain([0x12_ffff, 0x13_0001]) {
        for logical in [false, true] {
            assert!(check(
                &x2apic,
                &x2apic_map,
                &message(destination, logical),
                false
            ));
        }
    }
}

#[test]
fn does_not_tell_what_it_has_no_room_for() {
    let apics = [Apic::x2apic(0x200)];
    let mut map = DestinationMap::new(vec![0; MIN_IDS]);
    map.add(0, &apics[0].shared.identity());
    assert!(matches!(
        map.find(&message(3, false), false),
        Found::Unclear
    ));
}
