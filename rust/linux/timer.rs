// SPDX-License-Identifier: GPL-2.0

//! A timer of the host that goes off once, or again and again, and the clock that it runs on.
//!
//! The kernel crate's `HrTimer` is armed by a handle that cancels it when dropped. A timer that is
//! armed again and again by its owner, and at times that a guest chose, is better off without.

use core::pin::Pin;
use kernel::{
    bindings,
    container_of,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    types::Opaque, //
};

/// What a timer tells that its time has come.
pub(crate) trait Expire: Send + Sync {
    /// Whether it is told with interrupts off even on a real-time kernel: then only atomics, raw
    /// spinlocks and wake-ups may be used.
    const HARD: bool;

    /// Called in an interrupt handler. `ticks` is how many times have come since the call before, of
    /// which there are more than one if the timer is periodic and the host was late.
    fn expired(&self, ticks: u64);
}

/// A timer on the monotonic clock that tells a `T` when its time has come.
///
/// # Invariants
///
/// `raw` was set up by `hrtimer_setup` with [`HostTimer::run`] and lies in a pinned `HostTimer<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct HostTimer<T: Expire> {
    #[pin]
    raw: Opaque<bindings::hrtimer>,
    /// Nanoseconds between ticks; 0 for one tick only.
    period: Atomic<u64>,
    target: T,
}

// SAFETY: A timer may be used from any thread, and `T` may be sent.
unsafe impl<T: Expire> Send for HostTimer<T> {}
// SAFETY: The kernel locks its timers, and `T` is shared with the handler only.
unsafe impl<T: Expire> Sync for HostTimer<T> {}

impl<T: Expire> HostTimer<T> {
    /// What its times mean, and where its target is called.
    const MODE: bindings::hrtimer_mode = if T::HARD {
        bindings::hrtimer_mode_HRTIMER_MODE_ABS_HARD
    } else {
        bindings::hrtimer_mode_HRTIMER_MODE_ABS
    };

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
                        Self::MODE,
                    );
                }
            }),
            period: Atomic::new(0),
            target,
        })
    }

    /// Arms the timer for a time of [`now_ns`]'s clock, in place of what it was armed for; not to be mixed
    /// with [`HostTimer::start`].
    ///
    /// A time that is past makes it go off at once; one too late for the kernel's clock, never.
    pub(crate) fn arm(&self, expires_ns: u64) {
        let expires = bindings::ktime_t::try_from(expires_ns).unwrap_or(bindings::ktime_t::MAX);
        // SAFETY: By the type's invariant the timer is set up; its mode is that of the set-up.
        unsafe {
            bindings::hrtimer_start_range_ns(self.raw.get(), expires, 0, Self::MODE);
        }
    }

    /// Has the timer go off at `first` on [`now_ns`]'s clock, and then with a period if that is not 0.
    ///
    /// What it was set to before no longer counts: its last call has returned. Callers exclude one
    /// another. Not to be called by the target.
    pub(crate) fn start(&self, first: u64, period: u64) {
        self.cancel();
        self.period.store(period, Relaxed);
        self.arm(first);
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
        let timer = Opaque::cast_from(raw).cast_mut();
        // SAFETY: By the function's precondition `raw` lies in a `HostTimer<T>`.
        let timer = unsafe { container_of!(timer, Self, raw) };
        // SAFETY: The timer is cancelled before the rest of the object is dropped, and that is only
        // shared meanwhile.
        let this = unsafe { &*timer };
        // CAST: An interval fits, or the timer would not have been started.
        let period = this.period.load(Relaxed) as bindings::ktime_t;
        if period <= 0 {
            this.target.expired(1);
            return bindings::hrtimer_restart::HRTIMER_NORESTART;
        }
        // CAST: The clock's values are positive.
        let now = now_ns() as bindings::ktime_t;
        // SAFETY: The timer is valid, and this is its handler.
        let ticks = unsafe { bindings::hrtimer_forward(raw, now, period) };
        this.target.expired(ticks);
        bindings::hrtimer_restart::HRTIMER_RESTART
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
