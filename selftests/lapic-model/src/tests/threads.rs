// SPDX-License-Identifier: GPL-2.0

//! Senders that race with the owner: no request is lost.

use std::{
    sync::atomic::{
        AtomicU32,
        Ordering, //
    },
    thread,
};

use super::Apic;
use crate::rust::lapic::{
    Action,
    Lapic,
    Trigger, //
};

const ROUNDS: u32 = 20_000;

/// Each sender posts its own vector again and again, and waits until the owner has taken it. The
/// vectors share registers, so that the summary's bits come and go while others post.
#[test]
fn each_request_is_taken_once() {
    let apic = Apic::xapic(0);
    let shared: &Lapic<_> = &apic.shared;
    let vectors = [0x31_u8, 0x32, 0x51];
    let taken = [const { AtomicU32::new(0) }; 256];
    thread::scope(|scope| {
        for vector in vectors {
            let count = &taken[usize::from(vector)];
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    assert_eq!(
                        shared.post(vector, Trigger::Edge),
                        Action::Requested { new: true }
                    );
                    while count.load(Ordering::Acquire) == round {
                        thread::yield_now();
                    }
                }
            });
        }
        let mut left = ROUNDS * 3;
        while left != 0 {
            let Some(vector) = shared.next_interrupt() else {
                thread::yield_now();
                continue;
            };
            shared.acknowledge(vector);
            let _ = shared.end_of_interrupt(&apic.owned);
            taken[usize::from(vector)].fetch_add(1, Ordering::Release);
            left -= 1;
        }
    });
    assert_eq!(shared.highest_request(), None);
}
