// SPDX-License-Identifier: GPL-2.0

//! A spinning reader-writer lock.
//!
//! C header: `include/linux/rwlock.h`
//!
//! Holders must not sleep. The lock must never be taken with interrupts off or in an interrupt:
//! its writers wait for other CPUs to answer an inter-processor interrupt.

use crate::bindings;
use kernel::{
    prelude::*,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

/// A `rwlock_t` that guards data it does not hold.
///
/// The holder of what it guards keeps the lock beside the data and asks for a guard as evidence.
///
/// # Invariants
///
/// `inner` is an initialised `rwlock_t` that does not move.
#[pin_data]
pub(crate) struct RwLock {
    #[pin]
    inner: Opaque<kernel::bindings::rwlock_t>,
}

// SAFETY: A `rwlock_t` may be used by any thread.
unsafe impl Send for RwLock {}
// SAFETY: A `rwlock_t` may be used by several threads at once.
unsafe impl Sync for RwLock {}

impl RwLock {
    /// Returns an initialiser of an unlocked lock.
    ///
    /// All locks made here are of one lockdep class.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: The C function initialises the lock in its pinned place.
            inner <- Opaque::ffi_init(|lock| {
                // SAFETY: `lock` points to memory for a `rwlock_t`, valid for writes.
                unsafe { bindings::kvm_rs_mmu_lock_init(lock) }
            }),
        })
    }

    /// Returns evidence that the lock is held for reading, once it is.
    pub(crate) fn read(&self) -> ReadGuard<'_> {
        // SAFETY: By the type invariant, this is an initialised lock.
        unsafe { bindings::kvm_rs_read_lock(self.inner.get()) };
        ReadGuard {
            lock: self,
            _not_send: NotThreadSafe,
        }
    }

    /// Returns evidence that the lock is held for writing, once it is.
    pub(crate) fn write(&self) -> WriteGuard<'_> {
        // SAFETY: By the type invariant, this is an initialised lock.
        unsafe { bindings::kvm_rs_write_lock(self.inner.get()) };
        WriteGuard {
            lock: self,
            _not_send: NotThreadSafe,
        }
    }
}

/// Evidence that a [`RwLock`] is held for reading.
#[must_use = "the lock is released when the guard goes"]
pub(crate) struct ReadGuard<'a> {
    lock: &'a RwLock,
    _not_send: NotThreadSafe,
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: The guard exists, so this thread holds the lock for reading.
        unsafe { bindings::kvm_rs_read_unlock(self.lock.inner.get()) };
    }
}

/// Evidence that a [`RwLock`] is held for writing.
#[must_use = "the lock is released when the guard goes"]
pub(crate) struct WriteGuard<'a> {
    lock: &'a RwLock,
    _not_send: NotThreadSafe,
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: The guard exists, so this thread holds the lock for writing.
        unsafe { bindings::kvm_rs_write_unlock(self.lock.inner.get()) };
    }
}
