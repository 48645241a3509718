// SPDX-License-Identifier: GPL-2.0

//! A mutex whose waiters a fatal signal can end.
//!
//! The kernel crate's `Mutex` waits uninterruptibly. A vCPU's mutex is held for as long as its guest
//! runs, so a second thread that waits for it must be killable.

use crate::bindings;
use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    },
    pin::Pin, //
};
use kernel::{
    prelude::*,
    sync::LockClassKey,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// Mutual exclusion around a `T`, with killable waiting.
#[pin_data(PinnedDrop)]
pub(crate) struct KillableMutex<T> {
    #[pin]
    raw: Opaque<kernel::bindings::mutex>,
    data: UnsafeCell<T>,
}

// SAFETY: Moving the mutex moves the `T`, which may be sent.
unsafe impl<T: Send> Send for KillableMutex<T> {}
// SAFETY: The mutex gives access to the `T` to one thread at a time.
unsafe impl<T: Send> Sync for KillableMutex<T> {}

impl<T> KillableMutex<T> {
    /// Returns an initialiser for an unlocked mutex around `data`, in the lock class of `key`.
    pub(crate) fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            raw <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is memory for a mutex that stays where it is, name and key are
                // static.
                unsafe { kernel::bindings::__mutex_init(slot, name.as_char_ptr(), key.as_ptr()) }
            }),
            data: UnsafeCell::new(data),
        })
    }

    /// Waits for the mutex; `EINTR` if a fatal signal came first.
    pub(crate) fn lock_killable(&self) -> Result<KillableGuard<'_, T>> {
        // SAFETY: The mutex was initialised by `new` and stays so.
        let ret = unsafe { bindings::kvm_rs_mutex_lock_killable(self.raw.get()) };
        kernel::error::to_result(ret)?;
        Ok(KillableGuard {
            mutex: self,
            _not_send: NotThreadSafe,
        })
    }
}

#[pinned_drop]
impl<T> PinnedDrop for KillableMutex<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Nobody can hold or wait for the mutex, as we have it exclusively.
        unsafe { bindings::kvm_rs_mutex_destroy(self.raw.get()) };
    }
}

/// The holder of a [`KillableMutex`].
#[must_use = "the mutex unlocks when the guard is dropped"]
pub(crate) struct KillableGuard<'a, T> {
    mutex: &'a KillableMutex<T>,
    _not_send: NotThreadSafe,
}

impl<T> Deref for KillableGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: The guard holds the mutex, so nobody writes meanwhile.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T> DerefMut for KillableGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The guard holds the mutex and is borrowed exclusively.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T> Drop for KillableGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: The guard holds the mutex, in the task that locked it.
        unsafe { bindings::kvm_rs_mutex_unlock(self.mutex.raw.get()) };
    }
}
