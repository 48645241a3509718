// SPDX-License-Identifier: GPL-2.0

//! A timer of the host that goes off once or again and again, until it is told otherwise.

use super::timer::now_ns;
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

/// What is told that a time has come.
pub(crate) trait Tick: Send + Sync {
    /// Called in an interrupt handler. `ticks` is how many times have come since the call before, of
    /// which there are more than one if the host was late.
    fn tick(&self, ticks: u64);
}

/// A timer on the monotonic clock that tells a `T`.
///
/// # Invariants
///
/// `raw` was set up by `hrtimer_setup` with [`Ticker::run`] and lies in a pinned `Ticker<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct Ticker<T: Tick> {
    #[pin]
    raw: Opaque<bindings::hrtimer>,
    /// Nanoseconds between ticks; 0 for one tick only.
    period: Atomic<u64>,
    target: T,
}

// SAFETY: A timer may be used from any thread, and `T` may be sent.
unsafe impl<T: Tick> Send for Ticker<T> {}
// SAFETY: The kernel locks its timers, and `T` is shared with the handler only.
unsafe impl<T: Tick> Sync for Ticker<T> {}

impl<T: Tick> Ticker<T> {
    /// Returns an initialiser for a timer that is off.
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
                        bindings::hrtimer_mode_HRTIMER_MODE_ABS,
                    );
                }
            }),
            period: Atomic::new(0),
            target,
        })
    }

    /// Has the timer go off at `first` on [`now_ns`]'s clock, and then with a period if that is not 0.
    ///
    /// What it was set to before no longer counts: its last call has returned. Callers exclude one
    /// another. Not to be called by the target.
    pub(crate) fn start(&self, first: u64, period: u64) {
        self.stop();
        self.period.store(period, Relaxed);
        let first = bindings::ktime_t::try_from(first).unwrap_or(bindings::ktime_t::MAX);
        // SAFETY: By the type invariant, the timer is set up; its mode is that of the set-up.
        unsafe {
            bindings::hrtimer_start_range_ns(
                self.raw.get(),
                first,
                0,
                bindings::hrtimer_mode_HRTIMER_MODE_ABS,
            );
        }
    }

    /// Has the timer not go off any more: its last call has returned. Not to be called by the target.
    pub(crate) fn stop(&self) {
        // SAFETY: By the type invariant, the timer is set up.
        unsafe { bindings::hrtimer_cancel(self.raw.get()) };
    }

    /// The handler.
    ///
    /// # Safety
    ///
    /// `raw` must be that of a pinned `Ticker<T>`.
    unsafe extern "C" fn run(raw: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        let timer = Opaque::cast_from(raw).cast_mut();
        // SAFETY: By this function's contract, `raw` lies in a `Ticker<T>`.
        let timer = unsafe { container_of!(timer, Self, raw) };
        // SAFETY: The timer is stopped before the rest of the object is dropped, and that is only
        // shared meanwhile.
        let this = unsafe { &*timer };
        // CAST: An interval fits, or the timer would not have been started.
        let period = this.period.load(Relaxed) as bindings::ktime_t;
        if period <= 0 {
            this.target.tick(1);
            return bindings::hrtimer_restart::HRTIMER_NORESTART;
        }
        // CAST: The clock's values are positive.
        let now = now_ns() as bindings::ktime_t;
        // SAFETY: The timer is valid, and this is its handler.
        let ticks = unsafe { bindings::hrtimer_forward(raw, now, period) };
        this.target.tick(ticks);
        bindings::hrtimer_restart::HRTIMER_RESTART
    }
}

#[pinned_drop]
impl<T: Tick> PinnedDrop for Ticker<T> {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}
