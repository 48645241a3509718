// SPDX-License-Identifier: GPL-2.0

//! The VPID allocator.
//!
//! A virtual-processor identifier tags the linear and combined translations that a logical processor
//! caches for a guest, so that neither VM entry nor VM exit has to flush them. Every vCPU of every VM
//! gets one of its own from one bitmap, first come, first served; it goes back with the vCPU. VPID 0 is
//! the host's and is never given out. When all are taken, a vCPU gets none and runs with VPIDs off in
//! its VMCS: slower, and as correct.
//!
//! A VPID that was used before may still tag its last owner's translations on any CPU. A [`Vpid`]
//! therefore says nothing about the TLB: a vCPU owes an INVVPID on its first entry on each CPU (see
//! [`tlb`](super::tlb)).

use kernel::{
    bitmap::BitmapVec,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// Number of VPIDs, the host's included.
const COUNT: usize = 1 << 16;

/// How many VPIDs are and were in use.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// VPIDs that vCPUs hold now.
    pub(crate) in_use: u32,
    /// The largest number of VPIDs that were held at one time.
    pub(crate) most_in_use: u32,
    /// vCPUs that were created when no VPID was left.
    pub(crate) refused: u32,
}

struct Inner {
    taken: BitmapVec,
    usage: Usage,
}

/// The pool of VPIDs.
#[pin_data]
pub(crate) struct VpidPool {
    #[pin]
    inner: SpinLock<Inner>,
}

impl VpidPool {
    /// Returns an initialiser for a pool with only the host's VPID taken.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(|| {
            let mut taken = BitmapVec::new(COUNT, GFP_KERNEL)?;
            taken.set_bit(0);
            Ok(try_pin_init!(Self {
                inner <- new_spinlock!(Inner {
                    taken,
                    usage: Usage::default(),
                }),
            }? Error))
        })
    }

    /// Returns the lowest free VPID, or `None` if all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Vpid> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let usage = &mut inner.usage;
        let Some(index) = inner.taken.next_zero_bit(0) else {
            usage.refused = usage.refused.wrapping_add(1);
            return None;
        };
        inner.taken.set_bit(index);
        usage.in_use = usage.in_use.wrapping_add(1);
        usage.most_in_use = usage.most_in_use.max(usage.in_use);
        // INVARIANT: The bit was clear and is set now; bit 0 was never clear.
        Some(Vpid {
            // CAST: The bitmap has 65,536 bits.
            number: index as u16,
            pool: self.clone(),
        })
    }

    /// Returns how many VPIDs are and were in use.
    pub(crate) fn usage(&self) -> Usage {
        self.inner.lock().usage
    }
}

/// A VPID that its holder alone uses.
///
/// # Invariants
///
/// `number` is not 0 and is marked as taken in `pool`; no other `Vpid` of the pool has it.
pub(crate) struct Vpid {
    number: u16,
    pool: Arc<VpidPool>,
}

impl Vpid {
    /// Returns the number for the VMCS, 1 to 65,535.
    pub(crate) const fn number(&self) -> u16 {
        self.number
    }
}

impl Drop for Vpid {
    fn drop(&mut self) {
        let mut inner = self.pool.inner.lock();
        inner.taken.clear_bit(usize::from(self.number));
        inner.usage.in_use = inner.usage.in_use.wrapping_sub(1);
    }
}

#[kunit_tests(kvm_rs_vpid)]
mod tests {
    use super::*;
    use kernel::{
        sync::{
            atomic::{
                Atomic,
                Full,
                Relaxed, //
            },
            Completion, //
        },
        workqueue, //
    };

    fn pool() -> Result<Arc<VpidPool>> {
        Arc::pin_init(VpidPool::new(), GFP_KERNEL)
    }

    #[test]
    fn first_come_first_served_and_never_zero() -> Result {
        let pool = pool()?;
        let first = pool.take().ok_or(ENOSPC)?;
        let second = pool.take().ok_or(ENOSPC)?;
        assert_eq!(first.number(), 1);
        assert_eq!(second.number(), 2);
        drop(first);
        assert_eq!(pool.take().map(|vpid| vpid.number()), Some(1));
        assert_eq!(pool.usage().in_use, 1);
        assert_eq!(pool.usage().most_in_use, 2);
        Ok(())
    }

    #[test]
    fn exhaustion_refuses_and_recovers() -> Result {
        let pool = pool()?;
        let mut held = KVVec::new();
        while let Some(vpid) = pool.take() {
            assert_ne!(vpid.number(), 0);
            held.push(vpid, GFP_KERNEL)?;
        }
        assert_eq!(held.len(), COUNT - 1);
        assert_eq!(pool.usage().refused, 1);
        let freed = held.pop().ok_or(EINVAL)?;
        let number = freed.number();
        drop(freed);
        assert_eq!(pool.take().map(|vpid| vpid.number()), Some(number));
        Ok(())
    }

    /// What the tasks of the concurrency test share.
    #[pin_data]
    struct Contest {
        pool: Arc<VpidPool>,
        /// The number of holders of each VPID.
        holders: KVVec<Atomic<u32>>,
        /// VPIDs that were given out while somebody had them, and the host's.
        wrong: Atomic<u32>,
        running: Atomic<u32>,
        #[pin]
        done: Completion,
    }

    impl Contest {
        /// Takes VPIDs in batches and gives them back, out of order; returns whether memory sufficed.
        fn compete(&self) -> Result {
            for round in 0..40usize {
                let mut held = KVec::new();
                for _ in 0..100 + round {
                    let vpid = self.pool.take().ok_or(ENOSPC)?;
                    let others = self
                        .holders
                        .get(usize::from(vpid.number()))
                        .map_or(1, |holders| holders.fetch_add(1, Full));
                    if others != 0 || vpid.number() == 0 {
                        self.wrong.fetch_add(1, Relaxed);
                    }
                    held.push(vpid, GFP_KERNEL)?;
                }
                while !held.is_empty() {
                    let index = (round * 31) % held.len();
                    let vpid = held.remove(index).map_err(|_| EINVAL)?;
                    if let Some(holders) = self.holders.get(usize::from(vpid.number())) {
                        holders.fetch_add(u32::MAX, Full);
                    }
                    drop(vpid);
                }
            }
            Ok(())
        }
    }

    #[test]
    fn concurrent_holders_never_share() -> Result {
        const TASKS: u32 = 4;
        let mut holders = KVVec::new();
        for _ in 0..COUNT {
            holders.push(Atomic::new(0), GFP_KERNEL)?;
        }
        let contest = Arc::pin_init(
            try_pin_init!(Contest {
                pool: pool()?,
                holders: holders,
                wrong: Atomic::new(0),
                running: Atomic::new(TASKS),
                done <- Completion::new(),
            }? Error),
            GFP_KERNEL,
        )?;
        for _ in 0..TASKS {
            let task = contest.clone();
            workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
                if task.compete().is_err() {
                    task.wrong.fetch_add(1, Relaxed);
                }
                if task.running.fetch_add(u32::MAX, Full) == 1 {
                    task.done.complete_all();
                }
            })?;
        }
        contest.done.wait_for_completion();
        assert_eq!(contest.wrong.load(Relaxed), 0);
        assert_eq!(contest.pool.usage().in_use, 0);
        assert_eq!(contest.pool.usage().refused, 0);
        assert_eq!(contest.pool.take().map(|vpid| vpid.number()), Some(1));
        Ok(())
    }
}
