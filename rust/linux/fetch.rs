// SPDX-License-Identifier: GPL-2.0

//! Pages of a process that a kernel thread brings in, so that the process's own threads need not wait.
//!
//! A fetch may take for ever, as where a handler in user space has to give the page, and its process may
//! end meanwhile. So nobody waits for one but who removes the module: the [`Queue`] does when it is dropped.
//! And only so many are under way at a time: who gets none waits for the page, as all did without.

use crate::{
    bindings,
    x86::addr::Hva, //
};
use core::ptr::NonNull;
use kernel::{
    alloc::Flags,
    current,
    mm::Mm,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc, //
    },
    workqueue::{
        self,
        impl_has_work,
        new_work,
        Work,
        WorkItem, //
    }, //
};

/// The most fetches that are not over, of all processes: fewer than a queue works on at a time, so that
/// those that take for ever keep no other from its turn.
const MOST: i32 = 256;

/// How many are not over.
static UNDER_WAY: Atomic<i32> = Atomic::new(0);

/// Kernel threads that fetch pages.
///
/// # Invariants
///
/// It is a workqueue of this object's own.
pub(crate) struct Queue(NonNull<kernel::bindings::workqueue_struct>);

// SAFETY: Work may be given to a workqueue by any thread, and any may destroy it.
unsafe impl Send for Queue {}
// SAFETY: As above; workqueues lock by themselves.
unsafe impl Sync for Queue {}

impl Queue {
    /// Returns a queue. Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name is a string.
        let queue = unsafe { bindings::kvm_rs_queue_create(name.as_char_ptr()) };
        // INVARIANT: The function makes a new one.
        Ok(Self(NonNull::new(queue.cast()).ok_or(ENOMEM)?))
    }

    /// Returns the workqueue.
    fn as_queue(&self) -> &workqueue::Queue {
        // SAFETY: By the type invariant, it is a workqueue, which lives as long as this object.
        unsafe { workqueue::Queue::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, it is this object's, and nobody else has it.
        unsafe { bindings::kvm_rs_queue_destroy(self.0.as_ptr().cast()) };
    }
}

/// Who hears that a fetch is over.
pub(crate) trait Fetched: Send + Sync + 'static {
    /// Called by the kernel thread, whether the page is there or cannot be had.
    fn fetched(&self);
}

/// A page on its way.
#[pin_data]
pub(crate) struct Fetch<T: Fetched> {
    mm: ARef<Mm>,
    hva: Hva,
    cancelled: Atomic<bool>,
    over: Atomic<bool>,
    listener: T,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl{T: Fetched} HasWork<Self> for Fetch<T> { self.work }
}

impl<T: Fetched> Fetch<T> {
    /// Has the page behind `hva` of the calling process brought in, to be written.
    ///
    /// Fails with `EBUSY` if too many fetches are under way, and with `ENOMEM`.
    pub(crate) fn start(queue: &Queue, hva: Hva, listener: T, flags: Flags) -> Result<Arc<Self>> {
        if UNDER_WAY.fetch_add(1, Relaxed) >= MOST {
            UNDER_WAY.add(-1, Relaxed);
            return Err(EBUSY);
        }
        let started = Self::enqueue(queue, hva, listener, flags);
        if started.is_err() {
            UNDER_WAY.add(-1, Relaxed);
        }
        started
    }

    fn enqueue(queue: &Queue, hva: Hva, listener: T, flags: Flags) -> Result<Arc<Self>> {
        let mm = ARef::from(&**current!().mm().ok_or(ESRCH)?);
        let fetch = Arc::pin_init(
            pin_init!(Self {
                mm,
                hva,
                cancelled: Atomic::new(false),
                over: Atomic::new(false),
                listener,
                work <- new_work!("kvm_rs Fetch::work"),
            }),
            flags,
        )?;
        // One that is new is in no queue.
        let _ = queue.as_queue().enqueue(fetch.clone());
        Ok(fetch)
    }

    /// Tells that the page is of no use any more: if nobody has begun with it, nobody will.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Returns whether the fetch is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Acquire)
    }
}

impl<T: Fetched> WorkItem for Fetch<T> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if !this.cancelled.load(Relaxed) {
            // A process that has ended has no pages.
            if let Some(mm) = this.mm.mmget_not_zero() {
                // CAST: The kernel runs in 64-bit mode only.
                let address = this.hva.value() as usize;
                // SAFETY: `mm` has a user, which keeps its tables, and no lock of it is held.
                unsafe { bindings::kvm_rs_fault_in(mm.as_raw().cast(), address) };
            }
        }
        UNDER_WAY.add(-1, Relaxed);
        this.over.store(true, Release);
        this.listener.fetched();
    }
}
