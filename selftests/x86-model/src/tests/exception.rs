// SPDX-License-Identifier: GPL-2.0

//! The table of double faults, as the SDM has it.

use crate::x86::exception::{
    merge,
    Exception,
    Kind,
    Merge,
    Vector, //
};

/// Every pair of a benign exception, a contributory one, a page fault and a double fault.
#[test]
fn pairs_merge_as_the_table_says() {
    use Merge::{DoubleFault, Second, Shutdown};
    let kinds = [Vector::UD, Vector::GP, Vector::PF];
    let table = [
        (Vector::DB, [Second, Second, Second]),
        (Vector::NP, [Second, DoubleFault, Second]),
        (Vector::PF, [Second, DoubleFault, DoubleFault]),
        (Vector::DF, [Shutdown, Shutdown, Shutdown]),
    ];
    for (first, row) in table {
        for (second, expected) in kinds.into_iter().zip(row) {
            assert_eq!(merge(first, second), expected, "{first:?} then {second:?}");
        }
    }
}

/// The contributory exceptions are five classic ones and control protection.
#[test]
fn contributory_vectors_are_those_of_the_sdm() {
    let double = (0..=31)
        .filter(|&n| merge(Vector::GP, Vector::new(n)) == Merge::DoubleFault)
        .collect::<Vec<_>>();
    assert_eq!(double, [0, 10, 11, 12, 13, 21]);
}

#[test]
fn error_codes_go_with_the_vector_and_the_mode() {
    let with = (0..=31)
        .filter(|&n| Vector::new(n).has_error_code())
        .collect::<Vec<_>>();
    assert_eq!(with, [8, 10, 11, 12, 13, 14, 17, 21]);

    let gp = Exception::general_protection();
    assert_eq!(gp.for_mode(true), gp);
    assert_eq!(gp.for_mode(false), Exception::plain(Vector::GP));
    let plain = Exception::plain(Vector::GP);
    assert_eq!(plain.for_mode(true), gp);
    assert_eq!(Exception::invalid_opcode().for_mode(true).error_code, None);
    assert_eq!(Exception::page_fault(2, 0x1000).payload, Some(0x1000));
    assert_eq!(Exception::double_fault().error_code, Some(0));
}

#[test]
fn kinds_tell_where_rip_points() {
    assert_eq!(Vector::GP.kind(), Kind::Fault);
    assert_eq!(Vector::BP.kind(), Kind::Trap);
    assert_eq!(Vector::DB.kind(), Kind::FaultOrTrap);
    assert_eq!(Vector::MC.kind(), Kind::Abort);
    assert_eq!(Vector::NMI.kind(), Kind::Interrupt);
    assert!(Vector::BP.is_software() && Vector::OF.is_software() && !Vector::DB.is_software());
    assert_eq!(Vector::PF.number(), 14);
}
