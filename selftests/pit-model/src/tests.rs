// SPDX-License-Identifier: GPL-2.0

use crate::pit::{
    Arm,
    Channel,
    Pit, //
};

/// The chip's clock in Hz.
const CLOCK: u64 = 1_193_181;

/// A time at which `ticks` have passed since 0, and no more.
fn at(ticks: u64) -> u64 {
    (ticks * 1_000_000_000).div_ceil(CLOCK)
}

/// Programs a channel: mode, both bytes of the count, at time 0.
fn program(pit: &mut Pit, channel: u8, mode: u8, count: u16, now: u64) -> Option<Arm> {
    assert_eq!(pit.write(3, channel << 6 | 3 << 4 | mode << 1, now), None);
    let [low, high] = count.to_le_bytes();
    assert_eq!(pit.write(channel, low, now), None);
    pit.write(channel, high, now)
}

fn read_word(pit: &mut Pit, channel: u8, now: u64) -> u16 {
    let low = pit.read(channel, now);
    u16::from_le_bytes([low, pit.read(channel, now)])
}

/// The output pin of a channel, by a read-back command of the status.
fn output(pit: &mut Pit, channel: u8, now: u64) -> bool {
    pit.write(3, 0xe0 | 2 << channel, now);
    pit.read(channel, now) & 0x80 != 0
}

/// A channel that counts a tick at a time.
struct Slow {
    mode: u8,
    initial: u32,
    counter: u32,
    output: bool,
}

impl Slow {
    fn new(mode: u8, count: u16) -> Self {
        let initial = if count == 0 { 0x1_0000 } else { count.into() };
        Self {
            mode,
            initial,
            counter: initial,
            output: matches!(mode, 1 | 3),
        }
    }

    fn tick(&mut self) {
        match self.mode {
            // Down to 0, where the output changes, and on from the top.
            0 | 1 => {
                self.counter = self.counter.wrapping_sub(1) & 0xffff;
                if self.counter == 0 {
                    self.output = self.mode == 0;
                }
            }
            // A pulse as the counter is loaded again.
            2 => {
                self.counter -= 1;
                self.output = self.counter == 0;
                if self.counter == 0 {
                    self.counter = self.initial;
                }
            }
            // By twos, and the output turns at each end; here for even counts.
            3 => {
                self.counter -= 2;
                if self.counter == 0 {
                    self.counter = self.initial;
                    self.output = !self.output;
                }
            }
            _ => unreachable!(),
        }
    }
}

#[test]
fn counts_as_a_chip_that_counts_ticks() {
    for mode in 0..4 {
        for count in [2_u16, 4, 10, 1000, 0x8000, 0xfffe, 0] {
            // Channel 0 runs on its timer, which has a shortest period.
            for channel in 0..3 {
                let mut pit = Pit::new(0);
                pit.write_speaker(1, 0);
                program(&mut pit, channel, mode, count, 0);
                let mut slow = Slow::new(mode, count);
                for ticks in 0..200_000_u64 {
                    if ticks > 0 {
                        slow.tick();
                    }
                    let near_end = ticks % u64::from(slow.initial) < 3
                        || ticks % u64::from(slow.initial) + 3 > u64::from(slow.initial);
                    if ticks > 50 && !near_end && ticks % 997 != 0 {
                        continue;
                    }
                    // The timer of channel 0 forgets parts of a tick at each of its periods.
                    if channel == 0 && ticks > u64::from(slow.initial) {
                        break;
                    }
                    let now = at(ticks) + 100;
                    let what = format!("mode {mode}, count {count}, channel {channel}, {ticks}");
                    let counter = read_word(&mut pit, channel, now);
                    assert_eq!(counter, slow.counter as u16, "{what}");
                    if channel == 0 && ticks == u64::from(slow.initial) {
                        break;
                    }
                    assert_eq!(output(&mut pit, channel, now), slow.output, "{what}");
                }
            }
        }
    }
}

#[test]
fn timer_is_armed_by_mode() {
    let arm = |mode, count| program(&mut Pit::new(5), 0, mode, count, 5);
    let late = |count: u64| 5 + count * 1_000_000_000 / CLOCK;
    for mode in [0, 1, 4] {
        assert_eq!(arm(mode, 1000), Some(Arm::Once(late(1000))));
        assert_eq!(arm(mode, 0), Some(Arm::Once(late(0x1_0000))));
    }
    for mode in [2, 3, 6, 7] {
        let period = late(1000) - 5;
        assert_eq!(arm(mode, 1000), Some(Arm::Periodic(late(1000), period)));
        // The period has a lower bound, the first time has none.
        assert_eq!(arm(mode, 1), Some(Arm::Periodic(late(1), 200_000)));
    }
    assert_eq!(arm(5, 1000), Some(Arm::Stop));
    // Nobody programmed a mode.
    assert_eq!(Pit::new(0).write(0, 1, 0), Some(Arm::Stop));
    // The other channels have no timer.
    for channel in 1..3 {
        assert_eq!(program(&mut Pit::new(0), channel, 2, 1000, 0), None);
    }
}

#[test]
fn channel_0_starts_over_when_its_timer_does() {
    let mut pit = Pit::new(0);
    let Some(Arm::Periodic(first, period)) = program(&mut pit, 0, 2, 10_000, 0) else {
        panic!("no timer");
    };
    for round in 0..1000 {
        let start = first + round * period;
        assert_eq!(read_word(&mut pit, 0, start), 10_000);
        assert_eq!(read_word(&mut pit, 0, start + at(1234)), 10_000 - 1234);
        assert_eq!(read_word(&mut pit, 0, start + period - 1), 1);
    }
    // Once it was stopped, it counts on.
    assert_eq!(program(&mut pit, 0, 5, 0, first), Some(Arm::Stop));
    assert_eq!(read_word(&mut pit, 0, first + at(5)), 0_u16.wrapping_sub(5));
}

#[test]
fn bytes_are_read_and_written_as_asked() {
    let mut pit = Pit::new(0);
    // Low only.
    pit.write(3, 2 << 6 | 1 << 4, 0);
    assert_eq!(pit.write(2, 0x34, 0), None);
    assert_eq!(pit.channels()[2].count, 0x34);
    assert_eq!([pit.read(2, 0), pit.read(2, 0)], [0x34, 0x34]);
    // High only.
    pit.write(3, 2 << 6 | 2 << 4, 0);
    pit.write(2, 0x12, 0);
    assert_eq!(pit.channels()[2].count, 0x1200);
    assert_eq!([pit.read(2, 0), pit.read(2, 0)], [0x12, 0x12]);
    // Both, of which the first alone does nothing.
    pit.write(3, 2 << 6 | 3 << 4, 0);
    pit.write(2, 0xcd, 0);
    assert_eq!(pit.channels()[2].count, 0x1200);
    pit.write(2, 0xab, 0);
    assert_eq!(pit.channels()[2].count, 0xabcd);
    assert_eq!(read_word(&mut pit, 2, 0), 0xabcd);
    // Binary-coded decimal is kept, and no more.
    pit.write(3, 2 << 6 | 3 << 4 | 1, 0);
    pit.write(2, 0x00, 0);
    pit.write(2, 0x10, 0);
    assert_eq!(read_word(&mut pit, 2, at(1)), 0x0fff);
    // A control word cannot be read.
    assert_eq!(pit.read(3, 0), 0);
}

#[test]
fn latches_are_kept_until_read() {
    let mut pit = Pit::new(0);
    program(&mut pit, 2, 0, 0x2000, 0);
    pit.write(3, 2 << 6, at(0x10));
    // A second one has no effect.
    pit.write(3, 2 << 6, at(0x20));
    assert_eq!(read_word(&mut pit, 2, at(0x30)), 0x1ff0);
    assert_eq!(read_word(&mut pit, 2, at(0x30)), 0x1fd0);
    // Between the two bytes of a read without a latch.
    assert_eq!(pit.read(2, at(0x30)), 0xd0);
    pit.write(3, 2 << 6, at(0x40));
    assert_eq!(read_word(&mut pit, 2, at(0x50)), 0x1fc0);
    assert_eq!(pit.read(2, at(0x50)), 0x1f);
    // Read-back of status and count: the status comes first.
    pit.write(3, 0xc0 | 2 << 2, at(0x60));
    assert_eq!(pit.read(2, at(0x70)), 3 << 4);
    assert_eq!(read_word(&mut pit, 2, at(0x70)), 0x1fa0);
    // Of several channels, and of one only.
    program(&mut pit, 1, 2, 0x100, 0);
    pit.write(3, 0xd0 | 2 << 1 | 2 << 2, at(0x60));
    pit.write(3, 0xe0 | 2 << 1, at(0x60));
    assert_eq!(pit.read(1, at(0x80)), 3 << 4 | 2 << 1);
    assert_eq!(read_word(&mut pit, 1, at(0x80)), 0xa0);
    assert_eq!(read_word(&mut pit, 2, at(0x80)), 0x1fa0);
    assert_eq!(read_word(&mut pit, 2, at(0x80)), 0x1f80);
}

#[test]
fn port_61_gates_and_shows_channel_2() {
    let mut pit = Pit::new(0);
    assert_eq!(pit.read_speaker(0) & 0x0f, 0);
    pit.write_speaker(2, 0);
    assert_eq!(pit.read_speaker(0) & 0x0f, 2);
    assert_eq!(pit.flags(), 2);
    // Mode 0: the output rises in the end. The gate does not hold it.
    program(&mut pit, 2, 0, 100, 0);
    assert_eq!(pit.read_speaker(at(99)) & 0x20, 0);
    assert_eq!(pit.read_speaker(at(100)) & 0x20, 0x20);
    // Mode 1: a rising edge of the gate starts it, and it goes down for that long.
    program(&mut pit, 2, 1, 100, 0);
    pit.write_speaker(1, at(1000));
    assert_eq!(pit.flags(), 0);
    assert_eq!(pit.read_speaker(at(1099)) & 0x2f, 0x21);
    assert_eq!(pit.read_speaker(at(1101)) & 0x2f, 0x01);
    // No edge.
    pit.write_speaker(1, at(1200));
    assert_eq!(pit.read_speaker(at(1201)) & 0x20, 0);
    pit.write_speaker(0, at(1300));
    pit.write_speaker(3, at(1400));
    assert_eq!(pit.read_speaker(at(1401)) & 0x2f, 0x23);
    // The refresh toggles.
    let toggles = (0..1000).filter(|i| pit.read_speaker(i << 14) & 0x10 != 0);
    assert_eq!(toggles.count(), 500);
}

#[test]
fn restored_channels_start_anew() {
    let mut pit = Pit::new(0);
    program(&mut pit, 0, 2, 1000, 0);
    program(&mut pit, 2, 3, 2000, 0);
    pit.write_speaker(3, 0);
    pit.write(3, 0xc0 | 2 << 2, at(500));
    let (channels, flags) = (pit.channels(), pit.flags());
    let mut other = Pit::new(0);
    let now = 1_000_000_000;
    let period = 1000 * 1_000_000_000 / CLOCK;
    let arm = other.restore(channels, Some(flags), now);
    assert_eq!(arm, Some(Arm::Periodic(now + period, period)));
    // What was latched is there yet.
    assert_eq!(other.read(2, now), pit.read(2, at(500)));
    assert_eq!(read_word(&mut other, 2, now), 2000 - 1000);
    assert_eq!(read_word(&mut other, 2, now + at(1)), 2000 - 2);
    assert_eq!(other.flags(), 2);
    let restored = other.channels();
    assert_eq!(restored[0], pit.channels()[0]);
    assert_eq!(restored[2].count_load_time, now as i64);
    // Without flags, they stay.
    other.restore(channels, None, now);
    assert_eq!(other.flags(), 2);

    // An HPET stops the timer once, and keeps it from being armed.
    assert_eq!(other.restore(channels, Some(1), now), Some(Arm::Stop));
    assert_eq!(other.restore(channels, Some(1), now), None);
    assert_eq!(program(&mut other, 0, 2, 5000, now), None);
    assert!(other.restore(channels, Some(0), now).is_some());
}

/// Numbers that look random, the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Nothing that a guest or a client does makes it panic, and no timer is early or has a period below
/// the shortest one.
#[test]
fn nonsense_is_survived() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut pit = Pit::new(0);
    let mut now = 0;
    for _ in 0..500_000 {
        now = match random.next() % 1000 {
            0 => random.next(),
            n => now.saturating_add(n * n),
        };
        let value = random.next() as u8;
        let arm = match random.next() % 100 {
            0 => {
                let channels = [(); 3].map(|()| Channel {
                    count: random.next() as u32,
                    latched_count: random.next() as u16,
                    count_latched: random.next() as u8,
                    status_latched: random.next() as u8,
                    status: random.next() as u8,
                    read_state: random.next() as u8,
                    write_state: random.next() as u8,
                    write_latch: random.next() as u8,
                    rw_mode: random.next() as u8,
                    mode: random.next() as u8,
                    bcd: random.next() as u8,
                    gate: random.next() as u8,
                    count_load_time: random.next() as i64,
                });
                pit.restore(channels, Some(random.next() as u32), now)
            }
            1..=40 => {
                pit.read(value, now);
                None
            }
            41..=50 => {
                pit.read_speaker(now);
                None
            }
            51..=60 => {
                pit.write_speaker(value, now);
                None
            }
            _ => pit.write(random.next() as u8, value, now),
        };
        match arm {
            None | Some(Arm::Stop) => {}
            Some(Arm::Once(first)) => assert!(first >= now),
            Some(Arm::Periodic(first, period)) => assert!(first >= now && period >= 200_000),
        }
    }
}
