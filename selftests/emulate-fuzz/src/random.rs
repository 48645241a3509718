// SPDX-License-Identifier: GPL-2.0

//! Random numbers that can be had again.

/// A generator (SplitMix64).
pub(super) struct Random(u64);

impl Random {
    /// Returns the generator that starts at `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a random byte.
    pub(super) fn byte(&mut self) -> u8 {
        self.bits() as u8
    }

    /// Returns a number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// Returns true once in `n` times.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Returns one of `choices`.
    pub(super) fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Returns a number that is likely to be at an edge: small, negative, all ones of some size.
    pub(super) fn edge(&mut self) -> u64 {
        let shift = self.choose(&[0, 1, 3, 7, 8, 15, 16, 31, 32, 63]);
        match self.below(6) {
            0 => (1 << shift) - 1,
            1 => 1 << shift,
            2 => !(1 << shift),
            3 => self.bits() % 20,
            _ => self.bits(),
        }
    }
}
