// SPDX-License-Identifier: GPL-2.0

//! The race between a fault and the host's own changes to its page tables.
//!
//! A fault asks the host for a page and installs what it is told; in between, the host may take the
//! page away. The rule that makes it safe, and that KVM has too:
//!
//! - A fault takes a [`Sample`] of the sequence before it looks anything up. Under the tables' lock it
//!   checks that no change is in progress for the page's address and that none has ended since the
//!   sample; else it starts again.
//! - A change of the host's tables announces itself, then zaps under the tables' lock, and when it is
//!   over advances the sequence before it withdraws the announcement.
//! - A change of the slots advances the sequence and zaps in one critical section under that lock.
//!
//! Announcements are kept in the client's addresses, not in frames, so they do not depend on the slots:
//! slots may change while the host does. Why no translation slips through, for a fault and a change
//! that announces itself: if the fault's check does not see the announcement, the full barriers on
//! both sides order the check before it, so the change, which reads the slots after its announcement,
//! reads those that the fault used, or later ones whose publication zapped what the fault installed.
//! It then takes the lock after the fault's critical section and zaps the translation.

use crate::x86::addr::Hva;
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        barrier,
        SpinLock, //
    },
};

/// The sequence as it was before a look-up.
#[derive(Clone, Copy, Debug)]
#[must_use = "the look-up is worth nothing without the check"]
pub(crate) struct Sample(u64);

/// What is being changed, and how often something was.
#[pin_data]
pub(crate) struct Invalidation {
    /// Number of changes that have ended.
    sequence: Atomic<u64>,
    /// Number of changes in progress.
    in_progress: Atomic<u64>,
    /// First address of all changes in progress together.
    start: Atomic<u64>,
    /// End (exclusive) of all changes in progress together.
    end: Atomic<u64>,
    /// Held to change any of the above.
    #[pin]
    writers: SpinLock<()>,
}

impl Invalidation {
    /// Returns an initialiser of the state with nothing in progress.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            sequence: Atomic::new(0),
            in_progress: Atomic::new(0),
            start: Atomic::new(0),
            end: Atomic::new(0),
            writers <- new_spinlock!((), "Invalidation::writers"),
        })
    }

    /// Returns the sequence as it is now. Take it before slots or pages are looked up.
    pub(crate) fn sample(&self) -> Sample {
        Sample(self.sequence.load(Acquire))
    }

    /// Announces that the translations of `start..end` are about to change.
    pub(crate) fn begin(&self, start: Hva, end: Hva) {
        let _guard = self.writers.lock();
        let (mut first, mut last) = (start.value(), end.value());
        if self.in_progress.load(Relaxed) != 0 {
            // Ranges only grow until all changes are over: what a check sees of one covers all
            // those that it has seen announced.
            first = first.min(self.start.load(Relaxed));
            last = last.max(self.end.load(Relaxed));
        }
        self.start.store(first, Release);
        self.end.store(last, Release);
        // The full order is what the proof above rests on.
        self.in_progress.fetch_add(1_u64, Full);
    }

    /// Withdraws one announcement: its change is over.
    pub(crate) fn finish(&self) {
        let _guard = self.writers.lock();
        // Who sees nothing in progress any more must see the sequence advanced.
        self.sequence.fetch_add(1_u64, Full);
        let before = self.in_progress.load(Relaxed);
        if !kernel::warn_on!(before == 0) {
            self.in_progress.store(before.wrapping_sub(1), Release);
        }
    }

    /// Makes every fault that is under way start again. For changes of the slots, under the tables'
    /// lock held for writing.
    pub(crate) fn advance(&self) {
        let _guard = self.writers.lock();
        self.sequence.fetch_add(1_u64, Full);
    }

    /// Returns whether what was looked up since `sample` for `start..end` of the client's address
    /// space may be stale.
    ///
    /// The answer holds as long as the tables' lock does, if it was taken before this call. Without
    /// the lock it is a hint.
    pub(crate) fn must_retry(&self, sample: Sample, start: Hva, end: Hva) -> bool {
        // Order the check after the reads of the slots and pages, as the proof above demands.
        barrier::smp_mb(Full);
        if self.in_progress.load(Acquire) != 0 {
            let first = self.start.load(Acquire);
            let last = self.end.load(Acquire);
            if start.value() < last && first < end.value() {
                return true;
            }
        }
        self.sequence.load(Acquire) != sample.0
    }
}

#[kunit_tests(kvm_rs_invalidation)]
mod tests {
    use super::*;

    fn hva(value: u64) -> Hva {
        Hva::new(value)
    }

    #[test]
    fn only_overlap_blocks_while_in_progress() {
        let state = KBox::pin_init(Invalidation::new(), GFP_KERNEL).unwrap();
        let sample = state.sample();
        assert!(!state.must_retry(sample, hva(0x1000), hva(0x2000)));
        state.begin(hva(0x2000), hva(0x4000));
        assert!(!state.must_retry(sample, hva(0x1000), hva(0x2000)));
        assert!(state.must_retry(sample, hva(0x1000), hva(0x2001)));
        assert!(state.must_retry(sample, hva(0x3fff), hva(0x5000)));
        assert!(!state.must_retry(sample, hva(0x4000), hva(0x5000)));
        state.finish();
    }

    #[test]
    fn an_ended_change_stales_older_samples_only() {
        let state = KBox::pin_init(Invalidation::new(), GFP_KERNEL).unwrap();
        let old = state.sample();
        state.begin(hva(0x2000), hva(0x4000));
        let during = state.sample();
        state.finish();
        assert!(state.must_retry(old, hva(0x9000), hva(0xa000)));
        assert!(state.must_retry(during, hva(0x2000), hva(0x3000)));
        let sample = state.sample();
        assert!(!state.must_retry(sample, hva(0x2000), hva(0x3000)));
    }

    #[test]
    fn ranges_grow_until_all_are_over() {
        let state = KBox::pin_init(Invalidation::new(), GFP_KERNEL).unwrap();
        state.begin(hva(0x2000), hva(0x3000));
        state.begin(hva(0x8000), hva(0x9000));
        state.finish();
        let sample = state.sample();
        assert!(state.must_retry(sample, hva(0x2000), hva(0x3000)));
        assert!(state.must_retry(sample, hva(0x8000), hva(0x9000)));
        state.finish();
        state.begin(hva(0x8000), hva(0x9000));
        let sample = state.sample();
        assert!(!state.must_retry(sample, hva(0x2000), hva(0x3000)));
        state.finish();
    }

    #[test]
    fn slot_changes_stale_samples() {
        let state = KBox::pin_init(Invalidation::new(), GFP_KERNEL).unwrap();
        let sample = state.sample();
        state.advance();
        assert!(state.must_retry(sample, hva(0), hva(1)));
    }
}
