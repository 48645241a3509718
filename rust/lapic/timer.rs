// SPDX-License-Identifier: GPL-2.0

//! The timer's arithmetic: counts from times, and the next time from a count.
//!
//! Two clocks come in: the host's monotonic clock in nanoseconds, on which the counter modes run,
//! and the guest's TSC, on which a deadline stands. No host timer is touched; each change says
//! how the caller's one should be armed.

use core::num::NonZeroU64;

/// Shortest period of a periodic timer in nanoseconds, so that a guest cannot flood the host.
pub(crate) const MIN_PERIOD_NS: u64 = 200_000;

/// The present, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// The host's monotonic clock in nanoseconds.
    pub(crate) ns: u64,
    /// The guest's TSC.
    pub(crate) guest_tsc: u64,
}

/// How the host timer should stand; it replaces what was armed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum ArmTimer {
    /// Not armed.
    Cancel,
    /// At this time of the host's monotonic clock in nanoseconds; it may be past already.
    At(u64),
    /// When the guest's TSC reaches this value; it may be past already.
    AtTsc(u64),
}

/// What the timer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerMode {
    /// Down from the initial count, once.
    OneShot,
    /// Down from the initial count, again and again.
    Periodic,
    /// Nothing; it waits for a value of the TSC.
    TscDeadline,
    /// The reserved encoding: nothing.
    Reserved,
}

impl TimerMode {
    /// Returns the mode in bits 18:17 of the timer's LVT entry.
    pub(crate) const fn from_lvt(value: u32) -> Self {
        match value >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }

    /// Returns whether the initial count starts the timer.
    const fn counts(self) -> bool {
        matches!(self, Self::OneShot | Self::Periodic)
    }
}

/// The timer of one local APIC.
#[derive(Debug)]
pub(crate) struct Timer {
    mode: TimerMode,
    /// Nanoseconds that one undivided count takes.
    bus_cycle_ns: NonZeroU64,
    /// Binary logarithm of the divisor, 0 to 7.
    divide_shift: u8,
    /// What the initial count lasts; `None` if the counter stands.
    period_ns: Option<NonZeroU64>,
    /// When the counter reaches zero next; `None` after a single shot.
    target_ns: Option<u64>,
    /// The TSC-deadline MSR; 0 if it is not armed.
    deadline: u64,
}

impl Timer {
    /// Returns a stopped timer in one-shot mode.
    pub(crate) const fn new(bus_cycle_ns: NonZeroU64) -> Self {
        Self {
            mode: TimerMode::OneShot,
            bus_cycle_ns,
            divide_shift: 1,
            period_ns: None,
            target_ns: None,
            deadline: 0,
        }
    }

    /// Returns the mode.
    pub(crate) const fn mode(&self) -> TimerMode {
        self.mode
    }

    /// Returns the TSC deadline; 0 if none is armed or in another mode.
    pub(crate) const fn deadline(&self) -> u64 {
        match self.mode {
            TimerMode::TscDeadline => self.deadline,
            _ => 0,
        }
    }

    /// Returns how the host timer should stand, for instance after it was lost.
    pub(crate) const fn armed(&self) -> ArmTimer {
        match (self.mode, self.target_ns, self.deadline) {
            (TimerMode::OneShot | TimerMode::Periodic, Some(ns), _) => ArmTimer::At(ns),
            (TimerMode::TscDeadline, _, 1..) => ArmTimer::AtTsc(self.deadline),
            _ => ArmTimer::Cancel,
        }
    }

    /// Sets how many nanoseconds an undivided count takes; the next start uses it.
    pub(crate) fn set_bus_cycle(&mut self, ns: NonZeroU64) {
        self.bus_cycle_ns = ns;
    }

    /// Stops the timer and forgets what it counted.
    pub(crate) fn stop(&mut self) {
        self.period_ns = None;
        self.target_ns = None;
        self.deadline = 0;
    }

    /// Returns whether the timer was stopped because TSC-deadline mode was entered or left.
    ///
    /// Between the two counter modes it goes on.
    pub(crate) fn set_mode(&mut self, mode: TimerMode) -> bool {
        let stops = (mode == TimerMode::TscDeadline) != (self.mode == TimerMode::TscDeadline);
        if stops {
            self.stop();
        }
        self.mode = mode;
        self.period_ns = self.period_ns.map(|period| self.limit(period));
        stops
    }

    /// Sets the divisor, and returns how to arm the host timer if it runs.
    ///
    /// What is left of the count is kept, so the time that is left changes.
    pub(crate) fn set_divide(&mut self, register: u32, initial: u32, now: u64) -> Option<ArmTimer> {
        let old_shift = self.divide_shift;
        let new_shift = divide_shift(register);
        if old_shift == new_shift {
            return None;
        }
        self.divide_shift = new_shift;
        self.period_ns?;
        self.period_ns = self.period(initial);
        if let Some(target) = self.target_ns {
            let left = target.saturating_sub(now);
            let left = match new_shift.checked_sub(old_shift) {
                Some(up) => left.saturating_mul(1 << (up & 7)),
                None => left >> (old_shift.wrapping_sub(new_shift) & 7),
            };
            self.target_ns = Some(now.saturating_add(left));
        }
        Some(self.armed())
    }

    /// Sets the divisor of a timer that does not run.
    pub(crate) fn load_divide(&mut self, register: u32) {
        self.divide_shift = divide_shift(register);
    }

    /// Starts to count down from `initial`, where 0 stops, and returns how to arm the host timer.
    ///
    /// Outside the counter modes the initial count means nothing.
    pub(crate) fn start(&mut self, initial: u32, now: u64) -> ArmTimer {
        self.restore(initial, initial, now)
    }

    /// Starts to count down with `current` of `initial` left, as saved state has it.
    ///
    /// A periodic timer that has nothing left starts over; a single shot goes off at once, since
    /// it cannot be told whether its interrupt was delivered before the state was saved.
    pub(crate) fn restore(&mut self, initial: u32, current: u32, now: u64) -> ArmTimer {
        if self.mode.counts() {
            self.period_ns = self.period(initial);
            self.target_ns = self.period_ns.map(|period| {
                let left = match self.duration(current) {
                    Some(left) => left.get(),
                    None if self.mode == TimerMode::Periodic => period.get(),
                    None => 0,
                };
                // The whole count may have been stretched to the shortest period.
                let left = if current >= initial {
                    period.get()
                } else {
                    left
                };
                now.saturating_add(left)
            });
        }
        self.armed()
    }

    /// Returns the current count.
    pub(crate) fn current(&self, initial: u32, now: u64) -> u32 {
        let (true, Some(period), Some(target)) =
            (self.mode.counts(), self.period_ns, self.target_ns)
        else {
            return 0;
        };
        let left = match target.checked_sub(now) {
            Some(left @ 1..) => left.min(period.get()),
            // The owner has not dealt with the expiry yet, but the counter is in its next round.
            _ if self.mode == TimerMode::Periodic => {
                let late = now.saturating_sub(target) % period;
                period.get().saturating_sub(late)
            }
            _ => 0,
        };
        // A count lasts until its time is over, so a part of it counts whole.
        let tick = self.tick_ns();
        let partial = u64::from(left % tick != 0);
        let count = (left / tick).saturating_add(partial);
        u32::try_from(count).unwrap_or(u32::MAX).min(initial)
    }

    /// Sets the TSC deadline, where 0 disarms, and returns how to arm the host timer.
    ///
    /// Outside TSC-deadline mode it is ignored.
    pub(crate) fn set_deadline(&mut self, deadline: u64) -> Option<ArmTimer> {
        if self.mode != TimerMode::TscDeadline {
            return None;
        }
        self.deadline = deadline;
        Some(self.armed())
    }

    /// Returns whether the timer went off by `now`, and moves it to its next round.
    ///
    /// Missed rounds of a periodic timer count as one; the next keeps the phase.
    pub(crate) fn expire(&mut self, now: Now) -> bool {
        match (self.mode, self.target_ns) {
            (TimerMode::TscDeadline, _) => {
                let over = self.deadline != 0 && now.guest_tsc >= self.deadline;
                if over {
                    self.deadline = 0;
                }
                over
            }
            (TimerMode::OneShot, Some(target)) if now.ns >= target => {
                self.target_ns = None;
                true
            }
            (TimerMode::Periodic, Some(target)) if now.ns >= target => {
                self.target_ns = self.period_ns.map(|period| {
                    let into_round = now.ns.saturating_sub(target) % period;
                    let left = period.get().saturating_sub(into_round);
                    now.ns.saturating_add(left)
                });
                true
            }
            _ => false,
        }
    }

    /// Returns the nanoseconds of one divided count.
    fn tick_ns(&self) -> NonZeroU64 {
        let divisor = NonZeroU64::MIN.saturating_add((1 << (self.divide_shift & 7)) - 1);
        self.bus_cycle_ns.saturating_mul(divisor)
    }

    /// Returns the nanoseconds that `count` lasts.
    fn duration(&self, count: u32) -> Option<NonZeroU64> {
        let count = NonZeroU64::new(u64::from(count))?;
        Some(count.saturating_mul(self.tick_ns()))
    }

    /// Returns the nanoseconds of a whole round from `initial`.
    fn period(&self, initial: u32) -> Option<NonZeroU64> {
        self.duration(initial).map(|period| self.limit(period))
    }

    /// Returns `period`, made as long as the mode demands.
    fn limit(&self, period: NonZeroU64) -> NonZeroU64 {
        match (self.mode, NonZeroU64::new(MIN_PERIOD_NS)) {
            (TimerMode::Periodic, Some(shortest)) => period.max(shortest),
            _ => period,
        }
    }
}

/// Returns the binary logarithm of the divisor in the divide configuration register.
///
/// Its bits 3, 1 and 0 count from 2 up to 128, and then comes 1.
const fn divide_shift(register: u32) -> u8 {
    let code = register & 3 | (register & 8) >> 1;
    // CAST: at most 7.
    (code.wrapping_add(1) & 7) as u8
}
