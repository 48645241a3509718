// SPDX-License-Identifier: GPL-2.0

//! Counts of VM exits by reason, per vCPU and for all since the module was loaded.

use crate::vmx::exit::reason;
use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// One counter for each reason.
pub(crate) type Totals = [u64; reason::COUNT];

/// Something that is counted and is no VM exit of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A halted vCPU woke up.
    HaltWakeup,
    /// A fault brought in a page.
    FaultFixed,
    /// A fault found the page there.
    FaultSpurious,
    /// A fault had no page to bring in: the instruction is emulated.
    FaultEmulated,
    /// Translations were flushed at the request of the MMU.
    TlbFlush,
    /// The client was asked for memory-mapped I/O.
    MmioExit,
    /// KVM_RUN ended because a signal waits.
    SignalExit,
    /// A fault was resolved by giving back what had been taken from an entry.
    FaultFast,
    /// The guest was given a page fault of its own tables.
    FaultOfGuest,
    /// An instruction was executed in software, or tried to be.
    Emulated,
    /// An instruction could not be.
    EmulationFailed,
    /// An interrupt was injected.
    InterruptInjected,
    /// An NMI was injected.
    NmiInjected,
    /// Another thread may have made an interrupt or NMI deliverable.
    DeliveryRequested,
    /// The host's FPU state was brought back.
    FpuReloaded,
    /// The client was told that the guest takes interrupts.
    WindowToUser,
    /// A halted vCPU polled, and did not sleep.
    HaltSuccessfulPoll,
    /// A halted vCPU polled.
    HaltAttemptedPoll,
    /// Nanoseconds that it polled with success.
    HaltPollSuccessNs,
    /// Nanoseconds that it polled in vain.
    HaltPollFailNs,
    /// Nanoseconds that it slept.
    HaltWaitNs,
    /// The vCPU was to give its CPU to another one.
    DirectedYieldAttempted,
    /// It did.
    DirectedYieldSuccessful,
    /// A fault found no memory, which the tables remember.
    MmioRemembered,
    /// A translation was invalidated for an instruction that was executed in software.
    Invalidated,
}

impl Event {
    /// The number of events.
    const COUNT: usize = Self::Invalidated as usize + 1;
}

/// How long something about a halt took, counted by the power of two that bounds the nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Histogram {
    /// A halted vCPU polled with success.
    PollSuccess,
    /// It polled in vain.
    PollFail,
    /// It slept.
    Wait,
}

impl Histogram {
    /// The number of histograms.
    const COUNT: usize = Self::Wait as usize + 1;

    /// The number of buckets of each.
    pub(crate) const BUCKETS: usize = 32;

    /// Returns the bucket that counts this time: 0 for none, n for what is below 2^n; the last for all
    /// that is longer.
    const fn bucket(nanoseconds: u64) -> usize {
        // CAST: At most 64.
        let bits = (u64::BITS - nanoseconds.leading_zeros()) as usize;
        if bits < Self::BUCKETS {
            bits
        } else {
            Self::BUCKETS - 1
        }
    }
}

/// The exits of one vCPU. Only its own thread counts.
pub(crate) struct ExitCounts {
    by_reason: [Atomic<u64>; reason::COUNT],
    events: [Atomic<u64>; Event::COUNT],
    histograms: [[Atomic<u64>; Histogram::BUCKETS]; Histogram::COUNT],
    /// Counted by the world switch.
    l1d_flushes: Atomic<u64>,
    failed: Atomic<u64>,
}

/// The counts of all vCPUs.
struct All {
    /// Those of vCPUs that are gone.
    past: Totals,
    /// Those of vCPUs that are there, by address.
    live: RBTree<usize, Arc<ExitCounts>>,
}

kernel::sync::global_lock! {
    // SAFETY: Initialised in `init`, before any vCPU exists.
    unsafe(uninit) static ALL: SpinLock<Option<All>> = None;
}

/// Prepares the counters.
///
/// # Safety
///
/// Must be called exactly once, at module load, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: Called once.
    unsafe { ALL.init() };
    *ALL.lock() = Some(All {
        past: [0; reason::COUNT],
        live: RBTree::new(),
    });
}

/// Drops the counters at module unload.
pub(crate) fn exit() {
    let all = ALL.lock().take();
    drop(all);
}

impl Registered {
    /// Returns counters that are part of the totals.
    pub(super) fn new() -> Result<Self> {
        let counts = Arc::new(
            ExitCounts {
                by_reason: [const { Atomic::new(0) }; reason::COUNT],
                events: [const { Atomic::new(0) }; Event::COUNT],
                histograms: [const { [const { Atomic::new(0) }; Histogram::BUCKETS] };
                    Histogram::COUNT],
                l1d_flushes: Atomic::new(0),
                failed: Atomic::new(0),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let key = Arc::as_ptr(&counts) as usize;
        let node = RBTreeNode::new(key, counts.clone(), GFP_KERNEL_ACCOUNT)?;
        let replaced = ALL.lock().as_mut().and_then(|all| all.live.insert(node));
        drop(replaced);
        Ok(Self { counts, key })
    }
}

impl ExitCounts {
    /// Counts an exit; a number that is no reason counts as a failed entry.
    #[inline]
    pub(super) fn count(&self, reason: usize) {
        let counter = self.by_reason.get(reason).unwrap_or(&self.failed);
        counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts an event.
    pub(super) fn count_event(&self, event: Event) {
        self.add_to_event(event, 1);
    }

    /// Adds to what an event counts.
    pub(super) fn add_to_event(&self, event: Event, number: u64) {
        if let Some(counter) = self.events.get(event as usize) {
            counter.store(counter.load(Relaxed).wrapping_add(number), Relaxed);
        }
    }

    /// Returns how often an event was counted.
    pub(super) fn events(&self, event: Event) -> u64 {
        self.events
            .get(event as usize)
            .map_or(0, |counter| counter.load(Relaxed))
    }

    /// Counts a time.
    pub(super) fn add_to_histogram(&self, histogram: Histogram, nanoseconds: u64) {
        let buckets = self.histograms.get(histogram as usize);
        if let Some(counter) = buckets.and_then(|all| all.get(Histogram::bucket(nanoseconds))) {
            counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// Returns a bucket of a histogram.
    pub(super) fn bucket(&self, histogram: Histogram, bucket: usize) -> u64 {
        let buckets = self.histograms.get(histogram as usize);
        buckets
            .and_then(|all| all.get(bucket))
            .map_or(0, |counter| counter.load(Relaxed))
    }

    /// Returns how often the L1 data cache was flushed.
    pub(super) fn l1d_flushes(&self) -> u64 {
        self.l1d_flushes.load(Relaxed)
    }

    /// Returns the address of what the world switch counts flushes of the L1 data cache in, valid as long
    /// as the counters.
    pub(super) fn l1d_flush_counter(&self) -> usize {
        (&raw const self.l1d_flushes) as usize
    }

    /// Returns the exits with this basic reason.
    pub(super) fn exits(&self, reason: u16) -> u64 {
        self.by_reason
            .get(usize::from(reason))
            .map_or(0, |counter| counter.load(Relaxed))
    }

    /// Returns the exits with any reason.
    pub(super) fn all_exits(&self) -> u64 {
        self.by_reason
            .iter()
            .fold(0, |sum, counter| sum.wrapping_add(counter.load(Relaxed)))
    }

    fn add_to(&self, totals: &mut Totals) {
        for (total, counter) in totals.iter_mut().zip(&self.by_reason) {
            *total = total.wrapping_add(counter.load(Relaxed));
        }
    }
}

/// Counters in the list of all; they are folded into the past when dropped.
pub(super) struct Registered {
    counts: Arc<ExitCounts>,
    key: usize,
}

impl core::ops::Deref for Registered {
    type Target = ExitCounts;

    #[inline]
    fn deref(&self) -> &ExitCounts {
        &self.counts
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let node = {
            let mut guard = ALL.lock();
            guard.as_mut().and_then(|all| {
                self.counts.add_to(&mut all.past);
                all.live.remove_node(&self.key)
            })
        };
        drop(node);
    }
}

/// Returns the exits of all vCPUs since the module was loaded.
pub(crate) fn totals() -> Totals {
    let guard = ALL.lock();
    let Some(all) = guard.as_ref() else {
        return [0; reason::COUNT];
    };
    let mut totals = all.past;
    for counts in all.live.values() {
        counts.add_to(&mut totals);
    }
    totals
}

#[kunit_tests(kvm_rs_vcpu_stats)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        assert_eq!(Histogram::bucket(0), 0);
        assert_eq!(Histogram::bucket(1), 1);
        assert_eq!(Histogram::bucket(7), 3);
        assert_eq!(Histogram::bucket(8), 4);
        assert_eq!(Histogram::bucket((1 << 30) - 1), 30);
        assert_eq!(Histogram::bucket(1 << 30), 31);
        assert_eq!(Histogram::bucket(u64::MAX), 31);
    }
}
