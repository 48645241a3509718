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
    ApicPage,
    Config,
    Lapic,
    Owned,
    Page,
    PostedInterrupts,
    Reset,
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

/// Registers, and where requests are posted.
struct Posting(ApicPage, PostedInterrupts);

impl Page for Posting {
    fn page(&self) -> &ApicPage {
        &self.0
    }

    fn posted(&self) -> Option<&PostedInterrupts> {
        Some(&self.1)
    }
}

/// The same by the descriptor. The owner looks only when a sender notifies it, as one does that sleeps.
#[test]
fn each_posted_request_is_taken_once() {
    let shared = Lapic::new(Posting(ApicPage::new(), PostedInterrupts::new()), 0);
    let mut owned = Owned::new(Config::default());
    shared.reset(&mut owned, Reset::PowerUp);
    let _ = shared.write(&mut owned, 0xf0, 4, 0x1ff, 0);
    let (shared, owned) = (&shared, &owned);
    let vectors = [0x31_u8, 0x32, 0x51, 0xf1];
    let taken = [const { AtomicU32::new(0) }; 256];
    let notified = &AtomicU32::new(0);
    thread::scope(|scope| {
        for vector in vectors {
            let count = &taken[usize::from(vector)];
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    match shared.post(vector, Trigger::Edge) {
                        Action::Posted { notify: true } => {
                            notified.fetch_add(1, Ordering::Release);
                        }
                        action => assert_eq!(action, Action::Posted { notify: false }),
                    }
                    while count.load(Ordering::Acquire) == round {
                        thread::yield_now();
                    }
                }
            });
        }
        let mut left = ROUNDS * 4;
        while left != 0 {
            if notified.swap(0, Ordering::Acquire) == 0 {
                thread::yield_now();
                continue;
            }
            shared.take_posted();
            while let Some(vector) = shared.next_interrupt() {
                shared.acknowledge(vector);
                let _ = shared.end_of_interrupt(owned);
                taken[usize::from(vector)].fetch_add(1, Ordering::Release);
                left -= 1;
            }
        }
    });
    assert!(!shared.take_posted());
    assert_eq!(shared.highest_request(), None);
}
