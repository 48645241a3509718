// SPDX-License-Identifier: GPL-2.0

//! Sets of 256 vectors in eight registers: IRR, ISR and TMR.

use super::{
    page::ApicPage,
    register::Register,
    word::Word, //
};

/// Returns the word and the bit that stand for `vector` in the set that starts at `first`.
#[inline]
fn locate(page: &ApicPage, first: Register, vector: u8) -> (&Word, u32) {
    let number = first.number().wrapping_add(vector >> 5);
    (page.word(number, 0), 1 << (vector & 31))
}

/// Returns whether the set that starts at `first` holds `vector`.
#[inline]
pub(crate) fn contains(page: &ApicPage, first: Register, vector: u8) -> bool {
    let (word, bit) = locate(page, first, vector);
    word.get() & bit != 0
}

/// Puts `vector` into the set that starts at `first`, or takes it out; writes only on a change.
#[inline]
pub(crate) fn assign(page: &ApicPage, first: Register, vector: u8, present: bool) {
    let (word, bit) = locate(page, first, vector);
    if (word.get() & bit != 0) == present {
        return;
    }
    if present {
        word.set_bits(bit);
    } else {
        word.clear_bits(bit);
    }
}

/// A set of vectors with a summary, so that the highest one is found without a scan.
///
/// Bit N of the summary is set if register N may hold a vector. Whoever adds a vector sets its
/// bit before the summary's; whoever empties a register clears the summary's bit and looks again.
/// So a vector may be missed only until its sender sets the summary, which is before it kicks.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<'a> {
    page: &'a ApicPage,
    first: Register,
    summary: &'a Word,
}

impl<'a> Vectors<'a> {
    /// Returns the set in `page` that starts at `first` and is summed up in `summary`.
    #[inline]
    pub(crate) fn new(page: &'a ApicPage, first: Register, summary: &'a Word) -> Self {
        Self {
            page,
            first,
            summary,
        }
    }

    /// Returns whether the set holds `vector`.
    #[inline]
    pub(crate) fn contains(self, vector: u8) -> bool {
        contains(self.page, self.first, vector)
    }

    /// Returns whether `vector` was not in the set before it was put there.
    #[inline]
    pub(crate) fn insert(self, vector: u8) -> bool {
        let (word, bit) = locate(self.page, self.first, vector);
        let old = word.set_bits(bit);
        let summary_bit = 1 << (vector >> 5);
        if self.summary.get() & summary_bit == 0 {
            self.summary.set_bits(summary_bit);
        }
        old & bit == 0
    }

    /// Adds the vectors that `bits` stand for in register `index` (0 to 7).
    pub(crate) fn insert_all(self, index: u8, bits: u32) {
        self.word(index & 7).set_bits(bits);
        self.summary.set_bits(1 << (index & 7));
    }

    /// Has every register looked at from now on, until the summary is computed anew: the processor
    /// adds vectors by itself.
    #[inline]
    pub(crate) fn look_at_all(self) {
        self.summary.set(0xff);
    }

    /// Returns whether `vector` was in the set before it was taken out.
    #[inline]
    pub(crate) fn remove(self, vector: u8) -> bool {
        let (word, bit) = locate(self.page, self.first, vector);
        let old = word.clear_bits(bit);
        if word.get() == 0 {
            self.refresh_word(vector >> 5);
        }
        old & bit != 0
    }

    /// Returns the highest vector in the set.
    #[inline]
    pub(crate) fn highest(self) -> Option<u8> {
        let mut left = self.summary.get() & 0xff;
        while let Some(index) = left.checked_ilog2() {
            // CAST: `index` is at most 7, and `bit` at most 31.
            let index = index as u8;
            let word = self.word(index).get();
            if let Some(bit) = word.checked_ilog2() {
                return Some(index << 5 | bit as u8);
            }
            left &= !(1 << (index & 7));
        }
        None
    }

    /// Returns whether the set holds nothing but `vector`, which it holds.
    pub(crate) fn is_only(self, vector: u8) -> bool {
        let (_, bit) = locate(self.page, self.first, vector);
        (0..8).all(|index| {
            let others = if index == vector >> 5 { !bit } else { u32::MAX };
            self.word(index).get() & others == 0
        })
    }

    /// Empties the set.
    pub(crate) fn clear(self) {
        for index in 0..8 {
            self.word(index).set(0);
            self.refresh_word(index);
        }
    }

    /// Computes the summary anew, after the registers were written from elsewhere.
    pub(crate) fn refresh(self) {
        for index in 0..8 {
            self.refresh_word(index);
        }
    }

    /// Returns register `index` (0 to 7).
    #[inline]
    fn word(self, index: u8) -> &'a Word {
        let number = self.first.number().wrapping_add(index);
        self.page.word(number, 0)
    }

    /// Makes the summary's bit of register `index` right.
    fn refresh_word(self, index: u8) {
        let bit = 1 << (index & 7);
        self.summary.clear_bits(bit);
        // A vector that came in between has its bit in the register already.
        if self.word(index).get() != 0 {
            self.summary.set_bits(bit);
        }
    }
}
