// SPDX-License-Identifier: GPL-2.0

//! A timer of the host that goes off once, and the clock that it runs on.
//!
//! The kernel crate's `HrTimer` is armed by a handle that cancels it when dropped. A timer that is
//! armed again and again by its owner, and at times that a guest chose, is better off without.

use core::pin::Pin;
use kernel::{
    bindings,
    container_of,
    prelude::*,
    types::Opaque, //
};

/// What a timer tells that its time has come.
pub(crate) trait Expire: Send + Sync {
    /// Called in an interrupt handler, with interrupts off, even on a preemptible kernel: only
    /// atomics, raw spinlocks and wake-ups may be used.
    fn expired(&self);
}

/// A timer that tells a `T` once when its time has come, and stands still until armed again.
///
/// # Invariants
///
/// `raw` was set up by `hrtimer_setup` with [`HostTimer::run`] and lies in a pinned `HostTimer<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct HostTimer<T: Expire> {
    #[pin]
    raw: Opaque<bindings::hrtimer>,
    target: T,
}

// SAFETY: A timer may be used from any thread, and `T` may be sent.
unsafe impl<T: Expire> Send for HostTimer<T> {}
// SAFETY: The kernel locks its timers, and `T` is shared with the handler only.
unsafe impl<T: Expire> Sync for HostTimer<T> {}

impl<T: Expire> HostTimer<T> {
    /// Returns an initialiser for a timer that is not armed.
    pub(crate) fn new(target: T) -> impl PinInit<Self> {
        pin_init!(Self {
            // INVARIANT: It is set up here, in its final place.
            raw <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is memory for a timer that stays where it is.
                unsafe {
                    bindings::hrtimer_setup(
                        slot,
                        Some(Self::run),
                        // CAST: The clock's number is 1.
                        bindings::CLOCK_MONOTONIC as bindings::clockid_t,
                        bindings::hrtimer_mode_HRTIMER_MODE_ABS_HARD,
                    );
                }
            }),
            target,
        })
    }

    /// Arms the timer for a time of [`now_ns`]'s clock, in place of what it was armed for.
    ///
    /// A time that is past makes it go off at once; one too late for the kernel's clock, never.
    pub(crate) fn arm(&self, expires_ns: u64) {
        let expires = bindings::ktime_t::try_from(expires_ns).unwrap_or(bindings::ktime_t::MAX);
        // SAFETY: By the type's invariant the timer is set up; its mode is that of the set-up.
        unsafe {
            bindings::hrtimer_start_range_ns(
                self.raw.get(),
                expires,
                0,
                bindings::hrtimer_mode_HRTIMER_MODE_ABS_HARD,
            );
        }
    }

    /// Disarms the timer, and waits until a handler that runs already has returned.
    ///
    /// It may be called with preemption off, but not by the handler.
    pub(crate) fn cancel(&self) {
        // SAFETY: By the type's invariant the timer is set up.
        unsafe { bindings::hrtimer_cancel(self.raw.get()) };
    }

    /// The handler.
    ///
    /// # Safety
    ///
    /// `raw` must be that of a pinned `HostTimer<T>`.
    unsafe extern "C" fn run(raw: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        let raw = Opaque::cast_from(raw).cast_mut();
        // SAFETY: By the function's precondition `raw` lies in a `HostTimer<T>`.
        let timer = unsafe { container_of!(raw, Self, raw) };
        // SAFETY: The timer is cancelled before `target` is dropped, and is only shared meanwhile.
        let target = unsafe { &(*timer).target };
        target.expired();
        bindings::hrtimer_restart::HRTIMER_NORESTART
    }
}

#[pinned_drop]
impl<T: Expire> PinnedDrop for HostTimer<T> {
    fn drop(self: Pin<&mut Self>) {
        self.cancel();
    }
}

/// Returns the time of the host's monotonic clock in nanoseconds.
#[inline]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: The clock may be read in any context, once the kernel is up.
    let now = unsafe { bindings::ktime_get() };
    // CAST: The clock starts at 0 and does not go back.
    now as u64
}
