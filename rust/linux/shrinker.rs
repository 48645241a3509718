// SPDX-License-Identifier: GPL-2.0

//! Shrinkers: giving memory back when the host is short of it.
//!
//! C header: `include/linux/shrinker.h`

use crate::bindings;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use core::ptr::NonNull;

/// Something that holds objects which it can do without.
///
/// Calls come from any thread that needs memory, so neither may allocate any, nor take a lock under
/// which memory is allocated.
pub(crate) trait Shrink: Send + Sync + 'static {
    /// The name of the shrinker in debugfs.
    const NAME: &'static CStr;

    /// How dear an object is to make again; 2 for most that are read from a disk.
    const SEEKS: i32;

    /// The fewest objects that are worth a call.
    const BATCH: isize;

    /// Returns how many objects could be freed. Must not sleep.
    fn count(&self) -> usize;

    /// Frees about `wanted` objects and returns how many were freed. May sleep.
    fn shrink(&self, wanted: usize) -> usize;
}

/// A registration of `T`. Dropping it unregisters, and waits until no call runs.
///
/// # Invariants
///
/// `shrinker` is registered with the callbacks for this `T`, and with the address of `target`.
pub(crate) struct Registration<T: Shrink> {
    shrinker: NonNull<bindings::kvm_rs_shrinker>,
    _target: Arc<T>,
}

// SAFETY: Unregistering may happen on any thread, and `T` may be sent and shared.
unsafe impl<T: Shrink> Send for Registration<T> {}
// SAFETY: Nothing can be done to a registration through `&`.
unsafe impl<T: Shrink> Sync for Registration<T> {}

impl<T: Shrink> Registration<T> {
    /// Registers `target`; calls can come before this returns. Sleeps; fails with `ENOMEM`.
    pub(crate) fn new(target: Arc<T>) -> Result<Self> {
        let data: *const T = &*target;
        // SAFETY: The name is static, and the callbacks are for the type of `data`, which the new
        // object keeps alive until it has unregistered the shrinker.
        let shrinker = unsafe {
            bindings::kvm_rs_shrinker_register(
                T::NAME.as_char_ptr(),
                T::SEEKS,
                T::BATCH,
                Some(Self::count),
                Some(Self::scan),
                data.cast_mut().cast(),
            )
        };
        // INVARIANT: It was registered just so.
        Ok(Self {
            shrinker: NonNull::new(shrinker).ok_or(ENOMEM)?,
            _target: target,
        })
    }

    /// # Safety
    ///
    /// `data` must be what [`Self::new`] registered, and the registration must exist.
    unsafe extern "C" fn count(data: *mut c_void) -> c_ulong {
        // SAFETY: By this function's contract, this is the target, which the registration keeps.
        let target = unsafe { &*data.cast::<T>() };
        target.count()
    }

    /// # Safety
    ///
    /// `data` must be what [`Self::new`] registered, and the registration must exist.
    unsafe extern "C" fn scan(data: *mut c_void, wanted: c_ulong) -> c_ulong {
        // SAFETY: By this function's contract, this is the target, which the registration keeps.
        let target = unsafe { &*data.cast::<T>() };
        target.shrink(wanted)
    }
}

impl<T: Shrink> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the shrinker is registered, and nobody else unregisters it.
        unsafe { bindings::kvm_rs_shrinker_unregister(self.shrinker.as_ptr()) };
    }
}
