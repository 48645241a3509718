// SPDX-License-Identifier: GPL-2.0

//! The vCPUs of a VM, and what is asked of all of them.

use super::destinations::Destinations;
use crate::{
    linux::{
        cpu_call::CpuSet,
        preempt::{
            full_barrier,
            PreemptGuard, //
        }, //
    },
    mmu::RemoteFlush,
    vcpu::{
        request::Request,
        Vcpu, //
    }, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    }, //
};

/// The vCPUs of a VM, and how to make them all forget translations.
#[pin_data]
pub(crate) struct Vcpus {
    #[pin]
    list: SpinLock<KVVec<Arc<Vcpu>>>,
    #[pin]
    destinations: Destinations,
    /// Which vCPU was given the CPU of one that waits for others.
    boosted: Atomic<usize>,
    flushes: Atomic<u64>,
    flush_kicks: Atomic<u64>,
}

/// How often all vCPUs of a VM were made to forget translations.
#[derive(Clone, Copy)]
pub(crate) struct RemoteFlushes {
    /// All times.
    pub(crate) requested: u64,
    /// Those when one of them was in its guest.
    pub(crate) kicked: u64,
}

impl Vcpus {
    /// Returns how often all vCPUs were made to forget translations.
    pub(crate) fn flushes(&self) -> RemoteFlushes {
        RemoteFlushes {
            requested: self.flushes.load(Relaxed),
            kicked: self.flush_kicks.load(Relaxed),
        }
    }

    pub(super) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            list <- new_spinlock!(KVVec::new()),
            destinations <- Destinations::new(),
            boosted: Atomic::new(0),
            flushes: Atomic::new(0),
            flush_kicks: Atomic::new(0),
        })
    }

    /// Returns the table of destinations.
    #[inline]
    pub(crate) fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// Adds a vCPU; the caller holds the VM's configuration lock.
    pub(super) fn push(&self, vcpu: Arc<Vcpu>) -> Result {
        // Room is made outside the spinlock; only this function adds.
        let len = self.list.lock().len();
        if len == self.list.lock().capacity() {
            let mut larger = KVVec::with_capacity(len.max(4) * 2, GFP_KERNEL_ACCOUNT)?;
            let old = {
                let mut list = self.list.lock();
                for vcpu in &*list {
                    // There is room.
                    let _ = larger.push_within_capacity(vcpu.clone());
                }
                core::mem::replace(&mut *list, larger)
            };
            drop(old);
        }
        self.list
            .lock()
            .push_within_capacity(vcpu)
            .map_err(|_| ENOMEM)
    }

    /// Returns all vCPUs as they are now.
    pub(crate) fn all(&self) -> Result<KVVec<Arc<Vcpu>>> {
        let len = self.list.lock().len();
        let mut all = KVVec::with_capacity(len, GFP_KERNEL_ACCOUNT)?;
        for vcpu in &*self.list.lock() {
            // One that came meanwhile is left out; that counts as a change.
            let _ = all.push_within_capacity(vcpu.clone());
        }
        Ok(all)
    }

    /// Removes a vCPU; returns whether it was there.
    pub(super) fn remove(&self, vcpu: &Arc<Vcpu>) -> bool {
        let removed = {
            let mut list = self.list.lock();
            let index = list.iter().position(|other| Arc::ptr_eq(other, vcpu));
            index.map(|index| list.remove(index))
        };
        // Dropped outside the spinlock.
        matches!(removed, Some(Ok(_)))
    }

    /// Calls `f` for each vCPU; it must not sleep.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&Vcpu)) {
        for vcpu in &*self.list.lock() {
            f(vcpu);
        }
    }

    /// Calls `f` with all vCPUs; it must not sleep.
    pub(crate) fn with_list<R>(&self, f: impl FnOnce(&[Arc<Vcpu>]) -> R) -> R {
        f(&self.list.lock())
    }

    /// Returns what `f` finds in one vCPU, which are asked from the one behind that which it last found
    /// something in; it must not sleep.
    pub(crate) fn find_next<R>(&self, f: impl Fn(&Vcpu) -> Option<R>) -> Option<R> {
        let list = self.list.lock();
        let start = self.boosted.load(Relaxed).wrapping_add(1);
        let (before, behind) = list.split_at(start.min(list.len()));
        for (index, vcpu) in Iterator::chain((start..).zip(behind), (0..).zip(before)) {
            if let Some(found) = f(vcpu) {
                self.boosted.store(index, Relaxed);
                return Some(found);
            }
        }
        None
    }

    /// As [`Vcpus::with_list`], but in any context save an NMI; `None` if somebody else looks at them.
    ///
    /// That may be who was interrupted on this CPU, so there is no waiting.
    pub(crate) fn try_with_list<R>(&self, f: impl FnOnce(&[Arc<Vcpu>]) -> R) -> Option<R> {
        Some(f(&self.list.try_lock()?))
    }
}

impl Vcpus {
    /// Sets a request of all vCPUs, if one is given, and returns when none of them is in its guest that
    /// was; returns whether there was any.
    fn kick_all(&self, request: Option<Request>) -> bool {
        let preempt = PreemptGuard::new();
        let mut running = CpuSet::new();
        let mut any = false;
        // As setting a request does: a vCPU that is not seen in its guest sees what was done before.
        full_barrier();
        self.for_each(|vcpu| {
            if let Some(request) = request {
                vcpu.doorbell().set(request);
            }
            if let Some(cpu) = vcpu.doorbell().guest_cpu() {
                running.insert(cpu);
                any = true;
            }
        });
        // Not under the spinlock: who waits for it may have interrupts off.
        if any {
            running.kick_and_wait(&preempt);
        }
        any
    }
}

impl RemoteFlush for Vcpus {
    fn flush_remote(&self) {
        let kicked = self.kick_all(Some(Request::TlbFlush));
        self.flushes.add(1, Relaxed);
        if kicked {
            self.flush_kicks.add(1, Relaxed);
        }
    }

    fn gather_writes(&self) {
        // An exit empties the vCPU's log.
        self.kick_all(None);
    }

    fn logging_changed(&self) {
        self.kick_all(Some(Request::DirtyLogging));
    }

    fn apic_access_changed(&self) {
        self.kick_all(Some(Request::ApicAccess));
    }
}
