// SPDX-License-Identifier: GPL-2.0

//! A PC's real-time clock (MC146818): the time of day, and no alarms.
//!
//! The guest writes a register's number to the first port, and reads its value from the second.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Registers of the time, in binary-coded decimal.
const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const DAY_OF_WEEK: u8 = 6;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;

/// Registers of state, and the only values that they have: no update in progress; hours to 24, no
/// interrupts; the battery is well.
const STATE_A: (u8, u8) = (0x0a, 0x26);
const STATE_B: (u8, u8) = (0x0b, 0x02);
const STATE_D: (u8, u8) = (0x0d, 0x80);

/// Seconds of a day.
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// The clock.
#[derive(Default)]
pub struct Clock {
    selected: u8,
}

impl Clock {
    /// Chooses a register.
    pub fn select(&mut self, register: u8) {
        // The highest bit masks NMIs, of which there are none.
        self.selected = register & 0x7f;
    }

    /// Returns the chosen register's value.
    pub fn read(&self) -> u8 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        register(self.selected, now.map_or(0, |now| now.as_secs()))
    }
}

/// Returns the value of a register, `time` seconds after the start of 1970.
fn register(register: u8, time: u64) -> u8 {
    let days = time / DAY_SECONDS;
    let (year, month, day) = date(days);
    let value = match register {
        SECONDS => time % 60,
        MINUTES => time / 60 % 60,
        HOURS => time / 3600 % 24,
        // It was a Thursday, and Sunday is 1.
        DAY_OF_WEEK => (days + 4) % 7 + 1,
        DAY => day,
        MONTH => month,
        YEAR => year % 100,
        _ => {
            let states = [STATE_A, STATE_B, STATE_D];
            let state = states.iter().find(|state| state.0 == register);
            return state.map_or(0, |state| state.1);
        }
    };
    // Two decimal digits, each in four bits.
    (value / 10 * 16 + value % 10) as u8
}

/// Returns year, month and day (from 1) of the day that is `days` after the first of 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    loop {
        let leap = u64::from(is_leap(year));
        if days < 365 + leap {
            break;
        }
        days -= 365 + leap;
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

/// Returns true for years of 366 days.
fn is_leap(year: u64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(364), (1970, 12, 31));
        assert_eq!(date(789), (1972, 2, 29));
        assert_eq!(date(11016), (2000, 2, 29));
        assert_eq!(date(20782), (2026, 11, 25));
    }

    #[test]
    fn registers_are_decimal() {
        // Wednesday, 25 November 2026, 17:46:25
        let time = 20782 * DAY_SECONDS + 17 * 3600 + 46 * 60 + 25;
        let read = |number| register(number, time);
        assert_eq!([read(4), read(2), read(0)], [0x17, 0x46, 0x25]);
        assert_eq!([read(9), read(8), read(7)], [0x26, 0x11, 0x25]);
        assert_eq!(read(6), 4);
        assert_eq!(read(0x0a) & 0x80, 0, "no update in progress");
        assert_eq!(read(0x0c), 0);
    }
}
