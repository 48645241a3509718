// SPDX-License-Identifier: GPL-2.0

//! The log of written pages: one bit a page, shared by all snapshots in which its slot logs.
//!
//! Whoever writes marks after the write; whoever takes bits out looks at the memory later. So a bit
//! that is taken too early is at worst set again, and no write goes without one.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// How a client wants writes to be logged (`KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Logging {
    /// Asking for the log takes nothing out of it: that is an ioctl of its own.
    pub(crate) manual: bool,
    /// A log starts with all pages in it.
    pub(crate) initially_set: bool,
}

impl Logging {
    const MANUAL: u32 = 1 << 0;
    const INITIALLY_SET: u32 = 1 << 1;

    /// Returns the bits of the capability's argument.
    pub(super) fn to_bits(self) -> u32 {
        let bit = |on, bit| if on { bit } else { 0 };
        bit(self.manual, Self::MANUAL) | bit(self.initially_set, Self::INITIALLY_SET)
    }

    /// Returns what the bits of the capability's argument say.
    pub(super) fn from_bits(bits: u32) -> Self {
        Self {
            manual: bits & Self::MANUAL != 0,
            initially_set: bits & Self::INITIALLY_SET != 0,
        }
    }
}

/// Pages of a word of the log.
pub(crate) const WORD_PAGES: u64 = 64;

/// Words of a piece of the log, for which it is known whether there may be a bit.
pub(crate) const PIECE_WORDS: usize = 512;

/// Which pages of a slot were written. A clone is the same log.
#[derive(Clone)]
pub(crate) struct DirtyBitmap(Arc<Bits>);

struct Bits {
    words: KVVec<Atomic<u64>>,
    /// Whether a bit was set in each piece since this was last taken out. It is set after the bit, and
    /// taken out before the words are looked at.
    pieces: KVVec<Atomic<u32>>,
}

impl DirtyBitmap {
    /// Returns the log of `pages` pages: all written where `all` is set, else none.
    ///
    /// Bits past the last page are never set. Sleeps; fails with `ENOMEM`.
    pub(super) fn new(pages: u64, all: bool) -> Result<Self> {
        let count = usize::try_from(pages.div_ceil(WORD_PAGES))?;
        let mut words = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for first in (0..pages).step_by(WORD_PAGES as usize) {
            let in_word = pages.wrapping_sub(first).min(WORD_PAGES);
            let value = if all { low_bits(in_word) } else { 0 };
            words.push(Atomic::new(value), GFP_KERNEL_ACCOUNT)?;
        }
        let mut pieces = KVVec::with_capacity(count.div_ceil(PIECE_WORDS), GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count.div_ceil(PIECE_WORDS) {
            pieces.push(Atomic::new(u32::from(all)), GFP_KERNEL_ACCOUNT)?;
        }
        let bits = Bits { words, pieces };
        Ok(Self(Arc::new(bits, GFP_KERNEL_ACCOUNT)?))
    }

    /// Returns the number of words.
    pub(crate) fn len(&self) -> usize {
        self.0.words.len()
    }

    /// Records that page `page` of the slot was written. What was written is visible to all who see
    /// the bit, or do not see it any more.
    pub(crate) fn mark(&self, page: u64) {
        let bit = 1 << (page % WORD_PAGES);
        let Ok(index) = usize::try_from(page / WORD_PAGES) else {
            return;
        };
        let bits = &*self.0;
        let (Some(word), Some(piece)) =
            (bits.words.get(index), bits.pieces.get(index / PIECE_WORDS))
        else {
            return;
        };
        let mut old = word.load(Relaxed);
        // Also if the bit is set already: the exchange orders the write before a look at the bit.
        while let Err(now) = word.cmpxchg(old, old | bit, Full) {
            old = now;
        }
        if piece.load(Relaxed) == 0 {
            piece.xchg(1, Full);
        }
    }

    /// Returns whether there may be a bit in the piece of word `index`.
    pub(crate) fn may_have_bits(&self, index: usize) -> bool {
        let piece = self.0.pieces.get(index / PIECE_WORDS);
        piece.is_some_and(|piece| piece.load(Relaxed) != 0)
    }

    /// Forgets that there may be a bit in the piece of word `index`, before all its bits are taken out.
    pub(crate) fn forget_piece(&self, index: usize) {
        if let Some(piece) = self.0.pieces.get(index / PIECE_WORDS) {
            piece.xchg(0, Full);
        }
    }

    /// Returns the words from number `first` on.
    pub(crate) fn words(&self, first: usize) -> impl Iterator<Item = LogWord<'_>> {
        self.0.words.get(first..).unwrap_or(&[]).iter().map(LogWord)
    }
}

// A log is only equal to itself.
impl PartialEq for DirtyBitmap {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for DirtyBitmap {}

impl core::fmt::Debug for DirtyBitmap {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DirtyBitmap of {} words", self.len())
    }
}

/// The bits of 64 pages that follow one another.
pub(crate) struct LogWord<'a>(&'a Atomic<u64>);

impl LogWord<'_> {
    /// Returns the bits.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Takes all bits out and returns them.
    pub(crate) fn take(&self) -> u64 {
        if self.get() == 0 {
            return 0;
        }
        self.0.xchg(0, Full)
    }

    /// Takes those bits out that are in `mask`, and returns which were set.
    pub(crate) fn take_masked(&self, mask: u64) -> u64 {
        let mut old = self.get();
        while old & mask != 0 {
            match self.0.cmpxchg(old, old & !mask, Full) {
                Ok(_) => return old & mask,
                Err(now) => old = now,
            }
        }
        0
    }
}

/// Returns the lowest `n` bits, 1 to 64.
const fn low_bits(n: u64) -> u64 {
    u64::MAX >> (WORD_PAGES.wrapping_sub(n) % WORD_PAGES)
}

kernel::static_assert!(low_bits(1) == 1);
kernel::static_assert!(low_bits(64) == u64::MAX);

#[kunit_tests(kvm_rs_dirty_bitmap)]
mod tests {
    use super::*;

    fn bits(log: &DirtyBitmap) -> [u64; 3] {
        let mut words = log.words(0).map(|word| word.get());
        [(); 3].map(|()| words.next().unwrap_or(0))
    }

    #[test]
    fn marks_are_taken_once() {
        let log = DirtyBitmap::new(130, false).unwrap();
        for page in [0, 63, 64, 129, 5000] {
            log.mark(page);
        }
        assert_eq!(bits(&log), [1 << 63 | 1, 1, 2]);
        assert_eq!(log.words(0).next().unwrap().take(), 1 << 63 | 1);
        assert_eq!(log.words(0).next().unwrap().take(), 0);
        assert_eq!(bits(&log), [0, 1, 2]);
        assert_eq!(log.words(2).next().unwrap().take_masked(!2), 0);
        assert_eq!(log.words(2).next().unwrap().take_masked(3), 2);
        assert_eq!(bits(&log), [0, 1, 0]);
        assert!(log.may_have_bits(2));
        log.forget_piece(0);
        assert!(!log.may_have_bits(2));
        log.mark(1);
        assert!(log.may_have_bits(2));
    }

    #[test]
    fn a_full_log_ends_with_the_slot() {
        let log = DirtyBitmap::new(130, true).unwrap();
        assert_eq!(log.len(), 3);
        assert_eq!(bits(&log), [u64::MAX, u64::MAX, 3]);
    }
}
