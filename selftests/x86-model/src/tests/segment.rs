// SPDX-License-Identifier: GPL-2.0

//! Segments through their four forms.

use crate::x86::segment::{
    Segment,
    SegmentFields, //
};

/// The code segment of a flat 64-bit guest.
const CODE64: SegmentFields = SegmentFields {
    base: 0,
    limit: 0xffff_ffff,
    selector: 8,
    type_: 0xb,
    present: 1,
    dpl: 0,
    db: 0,
    s: 1,
    l: 1,
    g: 1,
    avl: 0,
    unusable: 0,
};

/// Returns what GET_SREGS gives after SET_SREGS, through a VMCS.
fn through_vmcs(fields: &SegmentFields) -> SegmentFields {
    let set = Segment::from_fields(fields);
    Segment::from_vmcs(set.selector, set.base, set.limit, set.access_rights()).to_fields()
}

#[test]
fn a_usable_segment_survives_the_vmcs() {
    assert_eq!(Segment::from_fields(&CODE64).access_rights(), 0xa09b);
    assert_eq!(through_vmcs(&CODE64), CODE64);
    let reset = Segment::reset_code().to_fields();
    assert_eq!(through_vmcs(&reset), reset);
}

/// Every access-rights word of a usable segment comes back.
#[test]
fn every_access_rights_word_comes_back() {
    for access in (0..0x1_0000u32).filter(|access| access & 0xf00 == 0 && access & 0x80 != 0) {
        let segment = Segment::from_vmcs(3, 0, 0xffff, access);
        assert_eq!(segment.access_rights(), access);
        assert_eq!(segment.rpl(), 3);
    }
}

/// Unusable and not present are one to VM entry, and read back as both.
#[test]
fn a_segment_that_is_not_present_is_unusable() {
    let unusable = SegmentFields {
        unusable: 1,
        ..SegmentFields::default()
    };
    assert_eq!(Segment::from_fields(&unusable).access_rights(), 1 << 16);
    assert_eq!(through_vmcs(&unusable), unusable);

    let absent = SegmentFields::default();
    assert_eq!(Segment::from_fields(&absent).access_rights(), 1 << 16);
    assert_eq!(through_vmcs(&absent), unusable);

    // A client that kept `present` only.
    let odd = SegmentFields {
        unusable: 1,
        ..CODE64
    };
    assert_eq!(through_vmcs(&odd).present, 0);
}

#[test]
fn descriptors_decode() {
    let flat = Segment::from_descriptor(8, 0x00af_9b00_0000_ffff);
    assert_eq!(flat, Segment::from_fields(&CODE64));
    let odd = Segment::from_descriptor(0x10, 0x1240_f256_789a_bcde);
    assert_eq!((odd.base, odd.limit), (0x1256_789a, 0xbcde));
    assert_eq!((odd.kind, odd.dpl, odd.s, odd.present), (2, 3, true, true));
    assert!(odd.db && !odd.g && !odd.l);
    assert_eq!(Segment::reset_data().limit, 0xffff);
    assert_eq!(Segment::reset_ldt().kind, 2);
    assert_eq!(Segment::reset_tss().kind, 0xb);
}
