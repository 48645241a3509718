// SPDX-License-Identifier: GPL-2.0

//! Priorities against the SDM's words, over all classes of TPR, IRR and ISR.

use crate::rust::lapic::{
    tpr_threshold,
    Priorities, //
};

/// Returns whether a processor with these would accept its highest request, said slowly.
///
/// The processor-priority class is the maximum of the task-priority class and the in-service
/// class; a request is accepted if its class is greater.
fn accepts(tpr: u8, irr: Option<u8>, isr: Option<u8>) -> bool {
    let task = tpr / 16;
    let service = isr.map_or(0, |vector| vector / 16);
    let processor = if task > service { task } else { service };
    irr.is_some_and(|vector| vector / 16 > processor)
}

/// Returns PPR as the SDM's table of its two fields gives it.
fn ppr(tpr: u8, isr: Option<u8>) -> u8 {
    let (task, service) = (tpr / 16, isr.unwrap_or(0) / 16);
    let class = task.max(service);
    let sub_class = if task >= service { tpr % 16 } else { 0 };
    class * 16 + sub_class
}

/// Returns each class once as a vector or TPR, with low bits that must not matter.
fn classes() -> impl Iterator<Item = u8> {
    (0..16).flat_map(|class| [class * 16, class * 16 + 7, class * 16 + 15])
}

/// Returns no vector, and one of each class.
fn vectors() -> impl Iterator<Item = Option<u8>> {
    std::iter::once(None).chain(classes().map(Some))
}

#[test]
fn delivery_and_ppr_follow_the_rules() {
    for tpr in classes() {
        for irr in vectors() {
            for isr in vectors() {
                let priorities = Priorities { tpr, isr, irr };
                let expected = irr.filter(|_| accepts(tpr, irr, isr));
                assert_eq!(priorities.deliverable(), expected, "{priorities:?}");
                assert_eq!(priorities.processor(), ppr(tpr, isr), "{priorities:?}");
            }
        }
    }
}

/// A TPR write exits if the new class is below the threshold. That must happen for every write
/// that makes the request acceptable, and for no other.
#[test]
fn threshold_exits_exactly_when_a_write_unmasks() {
    for tpr in classes() {
        for irr in vectors() {
            for isr in vectors() {
                let priorities = Priorities { tpr, isr, irr };
                let threshold = priorities.tpr_threshold();
                assert!(
                    threshold <= tpr >> 4,
                    "entry would exit at once: {priorities:?}"
                );
                for new in classes() {
                    let exits = new >> 4 < threshold;
                    let unmasks = !accepts(tpr, irr, isr) && accepts(new, irr, isr);
                    assert_eq!(exits, unmasks, "{priorities:?} to {new:#x}");
                }
            }
        }
    }
}

#[test]
fn threshold_is_zero_or_the_smaller_class() {
    for tpr in classes() {
        assert_eq!(tpr_threshold(tpr, None), 0);
        for irr in classes() {
            let smaller = (tpr >> 4).min(irr >> 4);
            let expected = if irr >> 4 > tpr >> 4 { 0 } else { smaller };
            assert_eq!(tpr_threshold(tpr, Some(irr)), expected);
        }
    }
}
