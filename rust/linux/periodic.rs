// SPDX-License-Identifier: GPL-2.0

//! Work that is done again and again, by a thread of the kernel.
//!
//! C header: `include/linux/workqueue.h`

use crate::bindings;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use core::ptr::NonNull;

/// Something that has work to do from time to time. May sleep; there is no user memory.
pub(crate) trait Periodic: Send + Sync + 'static {
    /// Does the work, and returns after how many milliseconds to do it again.
    fn run(&self) -> u32;
}

/// Work of a `T` that goes on until this is dropped, which waits until it does not run.
///
/// # Invariants
///
/// `work` was started with the callback for this `T` and the address of `target`.
pub(crate) struct Registration<T: Periodic> {
    work: NonNull<bindings::kvm_rs_periodic>,
    _target: Arc<T>,
}

// SAFETY: Stopping may happen on any thread, and `T` may be sent and shared.
unsafe impl<T: Periodic> Send for Registration<T> {}
// SAFETY: Nothing can be done to a registration through `&`.
unsafe impl<T: Periodic> Sync for Registration<T> {}

impl<T: Periodic> Registration<T> {
    /// Has `target` run for the first time after `delay_ms` milliseconds. Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(target: Arc<T>, delay_ms: u32) -> Result<Self> {
        let data: *const T = &*target;
        // SAFETY: The callback is for the type of `data`, which the new object keeps alive until it has
        // stopped the work.
        let work = unsafe {
            bindings::kvm_rs_periodic_start(delay_ms, Some(Self::run), data.cast_mut().cast())
        };
        // INVARIANT: It was started just so.
        Ok(Self {
            work: NonNull::new(work).ok_or(ENOMEM)?,
            _target: target,
        })
    }

    /// # Safety
    ///
    /// `data` must be what [`Self::new`] started the work with, and the registration must exist.
    unsafe extern "C" fn run(data: *mut c_void) -> c_uint {
        // SAFETY: By this function's contract, this is the target, which the registration keeps.
        let target = unsafe { &*data.cast::<T>() };
        target.run()
    }
}

impl<T: Periodic> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the work was started, and nobody else stops it.
        unsafe { bindings::kvm_rs_periodic_stop(self.work.as_ptr()) };
    }
}
