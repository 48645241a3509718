// SPDX-License-Identifier: GPL-2.0

//! A value that is replaced as a whole while readers, which may sleep, go on with the old one.

use kernel::{
    new_srcu,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full, //
        },
        srcu,
        Srcu, //
    },
};

use core::ops::Deref;

/// An owned value, read under SRCU and replaced by exchange.
///
/// # Invariants
///
/// `current` was made by [`KBox::into_raw`] and is owned by the cell. A value taken out of
/// `current` is freed only after an SRCU grace period.
#[pin_data(PinnedDrop)]
pub(crate) struct SrcuCell<T: Send + Sync> {
    #[pin]
    srcu: Srcu,
    current: Atomic<*mut T>,
}

// SAFETY: The cell owns its value, and a `T` may be sent.
unsafe impl<T: Send + Sync> Send for SrcuCell<T> {}
// SAFETY: Readers only get `&T`, which may be shared; exchange is atomic.
unsafe impl<T: Send + Sync> Sync for SrcuCell<T> {}

impl<T: Send + Sync> SrcuCell<T> {
    /// Returns an initialiser of a cell with `value` in it.
    pub(crate) fn new(value: KBox<T>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            srcu <- new_srcu!(),
            // INVARIANT: The value leaves its box, for the cell to own, where nothing fails any more.
            current: Atomic::new(KBox::into_raw(value)),
        })
    }

    /// Returns the current value, kept alive until the guard goes.
    ///
    /// The holder may sleep, but must not wait for whoever replaces the value.
    pub(crate) fn read(&self) -> Reader<'_, T> {
        let guard = self.srcu.read_lock();
        let value = self.current.load(Acquire);
        Reader {
            // SAFETY: By the type invariant, the pointer came from a box, and what it points to
            // is freed only after a grace period that cannot end before `guard` goes. Nobody
            // has `&mut` to it.
            value: unsafe { &*value },
            _guard: guard,
        }
    }

    /// Replaces the value by `new` and returns the old one, on which readers may still work.
    ///
    /// Does not sleep; dropping what it returns does.
    pub(crate) fn replace(&self, new: KBox<T>) -> Retired<'_, T> {
        let old = self.current.xchg(KBox::into_raw(new), Full);
        Retired { cell: self, old }
    }
}

#[pinned_drop]
impl<T: Send + Sync> PinnedDrop for SrcuCell<T> {
    fn drop(self: Pin<&mut Self>) {
        let current = self.current.load(Acquire);
        // SAFETY: By the type invariant, the pointer came from a box that the cell owns. Being
        // dropped, the cell is not borrowed, so there is no reader.
        drop(unsafe { KBox::from_raw(current) });
    }
}

/// The current value of a [`SrcuCell`], under its read-side guard.
pub(crate) struct Reader<'a, T> {
    value: &'a T,
    _guard: srcu::Guard<'a>,
}

impl<T> Deref for Reader<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

/// A value that was replaced. Dropping it waits for the readers and then frees it.
///
/// # Invariants
///
/// `old` was taken out of `cell` and is owned by this object.
#[must_use = "dropping it sleeps: choose the place"]
pub(crate) struct Retired<'a, T: Send + Sync> {
    cell: &'a SrcuCell<T>,
    old: *mut T,
}

impl<T: Send + Sync> Drop for Retired<'_, T> {
    fn drop(&mut self) {
        self.cell.srcu.synchronize_expedited();
        // SAFETY: By the type invariants, the pointer came from a box and this is its only owner;
        // the grace period that has just passed ended all readers that could have seen it.
        drop(unsafe { KBox::from_raw(self.old) });
    }
}
