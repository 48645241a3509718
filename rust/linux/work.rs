// SPDX-License-Identifier: GPL-2.0

//! Work that any context asks for and a kernel thread does, where sleeping is allowed.
//!
//! The kernel crate's `Work` keeps its object alive while queued, so that nobody can tell when the
//! last run is over. This one belongs to its owner, who can wait for it.

use kernel::{
    bindings,
    container_of,
    prelude::*,
    sync::LockClassKey,
    types::Opaque, //
};

/// What a thread is to do.
pub(crate) trait Job: Send + Sync {
    /// Called in process context, at most once at a time.
    fn run(&self);
}

/// Work that is done once for any number of times that it was asked for before that.
///
/// # Invariants
///
/// `raw` was set up with [`Work::run`] and lies in a pinned `Work<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct Work<T: Job> {
    #[pin]
    raw: Opaque<bindings::work_struct>,
    job: T,
}

// SAFETY: Work may be asked for from any thread, and `T` may be sent.
unsafe impl<T: Job> Send for Work<T> {}
// SAFETY: The kernel synchronises its work, and `T` is only shared.
unsafe impl<T: Job> Sync for Work<T> {}

/// Returns an initialiser for a [`Work`], with a lock class of its own.
macro_rules! new_work {
    ($job:expr, $name:literal) => {
        $crate::linux::work::Work::new($job, $name, ::kernel::static_lock_class!())
    };
}
pub(crate) use new_work;

impl<T: Job> Work<T> {
    /// Returns an initialiser for work that nobody has asked for; see [`new_work`].
    pub(crate) fn new(
        job: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            job,
            // INVARIANT: It is set up here, in its final place.
            raw <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is memory for work that stays where it is.
                unsafe {
                    bindings::init_work_with_key(
                        slot,
                        Some(Self::run),
                        false,
                        name.as_char_ptr(),
                        key.as_ptr(),
                    );
                }
            }),
        })
    }

    /// Asks for the work: it begins to run after this, soon. Any context.
    pub(crate) fn queue(&self) {
        // SAFETY: The queue is the kernel's own.
        let queue = unsafe { bindings::system_percpu_wq };
        // CAST: A small constant that stands for no CPU in particular.
        let any_cpu = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;
        // SAFETY: By the type invariant, the work is set up, and dropping waits for it.
        unsafe { bindings::queue_work_on(any_cpu, queue, self.raw.get()) };
    }

    /// Waits until the work has been done as often as it was asked for. Not to be called by the job.
    pub(crate) fn flush(&self) {
        // SAFETY: By the type invariant, the work is set up.
        unsafe { bindings::flush_work(self.raw.get()) };
    }

    /// Does the work that a thread was asked for.
    ///
    /// # Safety
    ///
    /// `raw` must be that of a pinned `Work<T>`.
    unsafe extern "C" fn run(raw: *mut bindings::work_struct) {
        let raw = Opaque::cast_from(raw).cast_mut();
        // SAFETY: By this function's contract, `raw` lies in a `Work<T>`.
        let work = unsafe { container_of!(raw, Self, raw) };
        // SAFETY: The job is in its place before the work is set up, and is only shared until
        // dropping has waited for this call.
        let job = unsafe { &(*work).job };
        job.run();
    }
}

#[pinned_drop]
impl<T: Job> PinnedDrop for Work<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant, the work is set up.
        unsafe { bindings::cancel_work_sync(self.raw.get()) };
    }
}
