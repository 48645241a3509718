// SPDX-License-Identifier: GPL-2.0

//! The 8254 interval timer, and port 0x61, that gates its third channel and drives the speaker.
//!
//! A state machine that calls nobody: it is told the time, and says what the timer of channel 0 is to be.
//! It behaves as KVM's, where that differs from the chip: counts are binary always; a new count takes
//! effect at once; channel 0 counts on when its gate is low; modes 4 and 5 are no strobes of one clock.
//!
//! - *Access* (`rw`): which bytes of a count are read and written: low, high, or low then high.
//! - *Latched*: kept for the next read, from the moment of a latch or read-back command.
//!
//! This file depends on `core` only, so that its tests also run on the host.

/// Ticks of the chip's clock in a second, as KVM has it.
const FREQUENCY: u64 = 1_193_181;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The shortest period: a guest is not to keep the host busy with interrupts.
const MIN_PERIOD_NS: u64 = 200_000;

/// The mode of a channel that was not programmed.
const NO_MODE: u8 = 0xff;

/// Values of [`Channel::rw_mode`], `read_state`, `write_state` and `count_latched`. In the states,
/// `WORD` and `WORD_HIGH` are the two halves of an access to both bytes. All others, 1 among them, are
/// for the low byte only.
const HIGH: u8 = 2;
const WORD: u8 = 3;
const WORD_HIGH: u8 = 4;

/// Port 0x61: the gate of channel 2, and the speaker's data.
const GATE: u8 = 1;
const SPEAKER: u8 = 1 << 1;

/// Bits of [`Pit::flags`]: an HPET takes the place of channel 0, whose timer stands still; channel 2
/// drives the speaker.
const REPLACED: u32 = 1;
const SPEAKER_ON: u32 = 1 << 1;

/// A channel, as the client saves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Channel {
    /// The initial count, up to 65536.
    pub(crate) count: u32,
    /// What a latch command found.
    pub(crate) latched_count: u16,
    /// What of it is to be read yet; 0 if nothing.
    pub(crate) count_latched: u8,
    /// `status` is to be read yet.
    pub(crate) status_latched: u8,
    /// What a read-back command found.
    pub(crate) status: u8,
    /// The byte to be read next.
    pub(crate) read_state: u8,
    /// The byte to be written next.
    pub(crate) write_state: u8,
    /// The low byte of a count whose high byte is to be written yet.
    pub(crate) write_latch: u8,
    /// The access.
    pub(crate) rw_mode: u8,
    /// The mode, 0 to 5.
    pub(crate) mode: u8,
    /// Binary-coded decimal; without effect.
    pub(crate) bcd: u8,
    /// The gate input.
    pub(crate) gate: u8,
    /// When the count began, in nanoseconds; not that of channel 0.
    pub(crate) count_load_time: i64,
}

/// What the timer of channel 0 is to be from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arm {
    /// Off.
    Stop,
    /// To go off once, at this time in nanoseconds.
    Once(u64),
    /// To go off at this time, and then with this period.
    Periodic(u64, u64),
}

/// The timer of channel 0 as it was armed last; it may be off by now.
#[derive(Clone, Copy, Debug, Default)]
struct Timer {
    /// When it was armed.
    start: u64,
    /// When it goes off first.
    first: u64,
    /// Between the times that it goes off after that; 0 if it does not, or never was armed.
    period: u64,
}

impl Timer {
    /// Returns the nanoseconds since it was started or went off last.
    fn elapsed(&self, now: u64) -> u64 {
        let since_first = now.checked_sub(self.first);
        match since_first.and_then(|since| since.checked_rem(self.period)) {
            Some(in_period) => in_period,
            None if self.first == 0 => 0,
            None => now.saturating_sub(self.start),
        }
    }
}

/// The chip.
#[derive(Debug)]
pub(crate) struct Pit {
    channels: [Channel; 3],
    timer: Timer,
    flags: u32,
}

/// Returns `a * b / c`, saturated, for `b` and `c` of at most 2^31.
fn scale(a: u64, b: u64, c: u64) -> u64 {
    // In two steps, of which the second does not overflow.
    let (Some(whole), Some(rest)) = (a.checked_div(c), a.checked_rem(c)) else {
        return u64::MAX;
    };
    let rest = rest.saturating_mul(b).checked_div(c).unwrap_or(0);
    whole.saturating_mul(b).saturating_add(rest)
}

impl Channel {
    /// Returns the ticks since the count began, of which these are the nanoseconds.
    fn ticks(elapsed: u64) -> u64 {
        scale(elapsed, FREQUENCY, SECOND)
    }

    /// Returns the value of the counter after that many ticks.
    fn counter(&self, ticks: u64) -> u16 {
        let count = u64::from(self.count);
        let value = match self.mode {
            // Goes on below 0.
            0 | 1 | 4 | 5 => count.wrapping_sub(ticks),
            // Counts by twos.
            3 => count.wrapping_sub(ticks.wrapping_mul(2).checked_rem(count).unwrap_or(0)),
            _ => count.wrapping_sub(ticks.checked_rem(count).unwrap_or(0)),
        };
        // CAST: The counter has 16 bits.
        value as u16
    }

    /// Returns the output after that many ticks.
    fn output(&self, ticks: u64) -> bool {
        let count = u64::from(self.count);
        let within = ticks.checked_rem(count).unwrap_or(0);
        match self.mode {
            1 => ticks < count,
            2 => within == 0 && ticks != 0,
            3 => within < count.div_ceil(2),
            4 | 5 => ticks == count,
            _ => ticks >= count,
        }
    }

    /// Keeps the counter for the next reads, unless one is kept.
    fn latch_count(&mut self, ticks: u64) {
        if self.count_latched == 0 {
            self.latched_count = self.counter(ticks);
            self.count_latched = self.rw_mode;
        }
    }

    /// Keeps the status for the next read, unless one is kept.
    fn latch_status(&mut self, ticks: u64) {
        if self.status_latched == 0 {
            self.status =
                u8::from(self.output(ticks)) << 7 | self.rw_mode << 4 | self.mode << 1 | self.bcd;
            self.status_latched = 1;
        }
    }

    /// Returns the byte that is to be read next.
    fn read(&mut self, ticks: u64) -> u8 {
        if self.status_latched != 0 {
            self.status_latched = 0;
            return self.status;
        }
        let [low, high] = self.latched_count.to_le_bytes();
        match self.count_latched {
            0 => {}
            HIGH => {
                self.count_latched = 0;
                return high;
            }
            WORD => {
                self.count_latched = HIGH;
                return low;
            }
            _ => {
                self.count_latched = 0;
                return low;
            }
        }
        let [low, high] = self.counter(ticks).to_le_bytes();
        match self.read_state {
            HIGH => high,
            WORD => {
                self.read_state = WORD_HIGH;
                low
            }
            WORD_HIGH => {
                self.read_state = WORD;
                high
            }
            _ => low,
        }
    }

    /// Takes a byte of a count; returns the count if it is complete.
    fn write(&mut self, value: u8) -> Option<u16> {
        match self.write_state {
            HIGH => Some(u16::from(value) << 8),
            WORD => {
                self.write_latch = value;
                self.write_state = WORD_HIGH;
                None
            }
            WORD_HIGH => {
                self.write_state = WORD;
                Some(u16::from_le_bytes([self.write_latch, value]))
            }
            _ => Some(u16::from(value)),
        }
    }

    /// Takes a control word that is not a latch command.
    fn control(&mut self, value: u8, access: u8) {
        self.rw_mode = access;
        self.read_state = access;
        self.write_state = access;
        self.mode = value >> 1 & 7;
        // Modes 2 and 3 have two encodings.
        if self.mode > 5 {
            self.mode -= 4;
        }
        self.bcd = value & 1;
    }

    /// Sets the gate.
    fn set_gate(&mut self, gate: u8, now: u64) {
        // A rising edge restarts the count, or in the other modes should stop and go on.
        if matches!(self.mode, 1 | 2 | 3 | 5) && self.gate < gate {
            self.count_load_time = load_time(now);
        }
        self.gate = gate;
    }
}

/// Returns a time as the client saves it.
fn load_time(now: u64) -> i64 {
    i64::try_from(now).unwrap_or(i64::MAX)
}

impl Pit {
    /// Returns the chip after power-up, at this time in nanoseconds.
    pub(crate) fn new(now: u64) -> Self {
        let channel = Channel {
            count: 1 << 16,
            mode: NO_MODE,
            gate: 1,
            ..Channel::default()
        };
        let timed = Channel {
            count_load_time: load_time(now),
            ..channel
        };
        let gated = Channel { gate: 0, ..timed };
        Self {
            channels: [channel, timed, gated],
            timer: Timer::default(),
            flags: 0,
        }
    }

    /// Returns the ticks since the count of a channel began.
    fn ticks(&self, index: usize, now: u64) -> u64 {
        let elapsed = match self.channels.get(index) {
            Some(_) if index == 0 => self.timer.elapsed(now),
            Some(channel) => {
                let started = channel.count_load_time;
                u64::try_from(i128::from(now) - i128::from(started)).unwrap_or(0)
            }
            None => 0,
        };
        Channel::ticks(elapsed)
    }

    /// Reads port `0x40 + register`, with `register` 0 to 3.
    pub(crate) fn read(&mut self, register: u8, now: u64) -> u8 {
        let index = usize::from(register & 3);
        let ticks = self.ticks(index, now);
        self.channels
            .get_mut(index)
            .map_or(0, |channel| channel.read(ticks))
    }

    /// Writes port `0x40 + register`, with `register` 0 to 3. Returns what the timer is to be, if that
    /// changes.
    pub(crate) fn write(&mut self, register: u8, value: u8, now: u64) -> Option<Arm> {
        let index = usize::from(register & 3);
        if index == 3 {
            self.command(value, now);
            return None;
        }
        let count = self.channels.get_mut(index)?.write(value)?;
        self.load(index, u32::from(count), now, false)
    }

    /// Takes a control word or a command.
    fn command(&mut self, value: u8, now: u64) {
        let selected = usize::from(value >> 6);
        let (access, read_back) = (value >> 4 & 3, selected == 3);
        for index in 0..3 {
            let ticks = self.ticks(index, now);
            let Some(channel) = self.channels.get_mut(index) else {
                continue;
            };
            if read_back && value & 2 << index != 0 {
                // Zeroes say what is wanted.
                if value & 0x20 == 0 {
                    channel.latch_count(ticks);
                }
                if value & 0x10 == 0 {
                    channel.latch_status(ticks);
                }
            } else if index == selected {
                match access {
                    0 => channel.latch_count(ticks),
                    _ => channel.control(value, access),
                }
            }
        }
    }

    /// Starts a count. `off` tells that channel 0 stops all the same.
    fn load(&mut self, index: usize, count: u32, now: u64, off: bool) -> Option<Arm> {
        let count = if count == 0 { 1 << 16 } else { count };
        let channel = self.channels.get_mut(index)?;
        channel.count = count;
        if index != 0 {
            channel.count_load_time = load_time(now);
            return None;
        }
        let periodic = match channel.mode {
            _ if off => return Some(Arm::Stop),
            0 | 1 | 4 => false,
            2 | 3 => true,
            _ => return Some(Arm::Stop),
        };
        if self.flags & REPLACED != 0 {
            return None;
        }
        let interval = scale(count.into(), SECOND, FREQUENCY);
        let first = now.saturating_add(interval);
        self.timer = Timer {
            start: now,
            first,
            period: 0,
        };
        if !periodic {
            return Some(Arm::Once(first));
        }
        let period = interval.max(MIN_PERIOD_NS);
        self.timer.period = period;
        Some(Arm::Periodic(first, period))
    }

    /// Reads port 0x61. Bit 4 is the refresh of memory, which toggles every 16 microseconds or so.
    pub(crate) fn read_speaker(&self, now: u64) -> u8 {
        let [_, _, channel] = &self.channels;
        let output = channel.output(self.ticks(2, now));
        // CAST: One bit.
        let refresh = (now >> 14 & 1) as u8;
        let speaker = u8::from(self.flags & SPEAKER_ON != 0) << 1;
        speaker | channel.gate | refresh << 4 | u8::from(output) << 5
    }

    /// Writes port 0x61.
    pub(crate) fn write_speaker(&mut self, value: u8, now: u64) {
        let [_, _, channel] = &mut self.channels;
        channel.set_gate(value & GATE, now);
        if value & SPEAKER != 0 {
            self.flags |= SPEAKER_ON;
        } else {
            self.flags &= !SPEAKER_ON;
        }
    }

    /// Returns the channels as the client saves them.
    pub(crate) fn channels(&self) -> [Channel; 3] {
        self.channels
    }

    /// Returns the flags as the client saves them.
    pub(crate) fn flags(&self) -> u32 {
        self.flags
    }

    /// Takes the channels as the client saved them, and the flags if they are given: all counts start
    /// anew. Returns what the timer is to be, if that changes.
    pub(crate) fn restore(
        &mut self,
        channels: [Channel; 3],
        flags: Option<u32>,
        now: u64,
    ) -> Option<Arm> {
        let old = self.flags;
        self.flags = flags.unwrap_or(old);
        self.channels = channels;
        let mut arm = None;
        for (index, channel) in channels.iter().enumerate() {
            let off = index == 0 && self.flags & !old & REPLACED != 0;
            arm = self.load(index, channel.count, now, off).or(arm);
        }
        arm
    }
}
