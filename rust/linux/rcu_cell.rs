// SPDX-License-Identifier: GPL-2.0

//! A value that is replaced as a whole while readers, which do not sleep, go on with the old one.
//!
//! [`SrcuCell`](super::srcu_cell::SrcuCell) is for readers that sleep. Here a replaced value can be put
//! aside until its readers are gone, so that whoever replaces it need not wait.

use kernel::{
    bindings,
    ffi::c_ulong,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full, //
        },
        rcu, //
    },
};

/// An owned value, read under RCU and replaced by exchange.
///
/// # Invariants
///
/// `current` was made by [`KBox::into_raw`] and is owned by the cell. A value taken out of `current` is
/// freed only after an RCU grace period.
pub(crate) struct RcuCell<T: Send + Sync> {
    current: Atomic<*mut T>,
}

// SAFETY: The cell owns its value, and a `T` may be sent.
unsafe impl<T: Send + Sync> Send for RcuCell<T> {}
// SAFETY: Readers only get `&T`, which may be shared; exchange is atomic.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}

impl<T: Send + Sync> RcuCell<T> {
    /// Returns a cell with `value` in it.
    pub(crate) fn new(value: KBox<T>) -> Self {
        // INVARIANT: The value leaves its box, for the cell to own.
        Self {
            current: Atomic::new(KBox::into_raw(value)),
        }
    }

    /// Returns the current value, which stays as long as `guard` does. Any context.
    #[inline]
    pub(crate) fn read<'a>(&'a self, _guard: &'a rcu::Guard) -> &'a T {
        let value = self.current.load(Acquire);
        // SAFETY: By the type invariant, the pointer came from a box, and what it points to is freed
        // only after a grace period, which cannot end before the guard goes. Nobody has `&mut` to it.
        unsafe { &*value }
    }

    /// Replaces the value by `new` and returns the old one, on which readers may still work.
    pub(crate) fn replace(&self, new: KBox<T>) -> Retired<T> {
        let old = self.current.xchg(KBox::into_raw(new), Full);
        Retired {
            old,
            // SAFETY: It may be called in any context in which spinlocks may be taken.
            grace_period: unsafe { bindings::start_poll_synchronize_rcu() },
        }
    }
}

impl<T: Send + Sync> Drop for RcuCell<T> {
    fn drop(&mut self) {
        let current = self.current.load(Acquire);
        // SAFETY: By the type invariant, the pointer came from a box that the cell owns. Being
        // dropped, the cell is not borrowed, so there is no reader.
        drop(unsafe { KBox::from_raw(current) });
    }
}

/// A value that was replaced. Dropping it waits for the readers, if some may be left, and frees it.
///
/// # Invariants
///
/// `old` was taken out of an [`RcuCell`] before `grace_period` began, and is owned by this object.
#[must_use = "dropping it may sleep: choose the place"]
pub(crate) struct Retired<T: Send + Sync> {
    old: *mut T,
    grace_period: c_ulong,
}

// SAFETY: It owns its value, and a `T` may be sent.
unsafe impl<T: Send + Sync> Send for Retired<T> {}

impl<T: Send + Sync> Retired<T> {
    /// Returns whether all readers are gone, so that dropping does not wait.
    pub(crate) fn is_free(&self) -> bool {
        // SAFETY: The state comes from `start_poll_synchronize_rcu`.
        unsafe { bindings::poll_state_synchronize_rcu(self.grace_period) }
    }
}

impl<T: Send + Sync> Drop for Retired<T> {
    fn drop(&mut self) {
        // SAFETY: The state comes from `start_poll_synchronize_rcu`; values are dropped where sleeping
        // is allowed.
        unsafe { bindings::cond_synchronize_rcu_expedited(self.grace_period) };
        // SAFETY: By the type invariants, the pointer came from a box and this is its only owner; the
        // grace period that has passed ended all readers that could have seen it.
        drop(unsafe { KBox::from_raw(self.old) });
    }
}
