// SPDX-License-Identifier: GPL-2.0

//! What the tests share.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics has found something"
)]

mod ioapic;
mod pic;
mod pic_model;

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    /// Returns a number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Returns a byte.
    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }
}
