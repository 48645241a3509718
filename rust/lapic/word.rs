// SPDX-License-Identifier: GPL-2.0

//! Words that several threads and the processor itself change: the one file with atomics.

use core::sync::atomic::{
    AtomicU32,
    AtomicU64,
    Ordering, //
};

/// A shared 32-bit word.
#[repr(transparent)]
pub(crate) struct Word(AtomicU32);

impl Word {
    /// Returns a word that holds `value`.
    pub(crate) const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    /// Returns the value; what was stored before it is visible after this.
    ///
    /// It is not read before an earlier [`Self::set_bits`] or [`Self::clear_bits`] took effect.
    #[inline]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// Stores `value`; what was stored earlier becomes visible no later than it.
    #[inline]
    pub(crate) fn set(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    /// Returns the old value after `value` took its place.
    #[inline]
    pub(crate) fn swap(&self, value: u32) -> u32 {
        self.0.swap(value, Ordering::AcqRel)
    }

    /// Returns the old value after `bits` were set in one step, which is a full barrier.
    #[inline]
    pub(crate) fn set_bits(&self, bits: u32) -> u32 {
        self.0.fetch_or(bits, Ordering::SeqCst)
    }

    /// Returns the old value after `bits` were cleared in one step, which is a full barrier.
    #[inline]
    pub(crate) fn clear_bits(&self, bits: u32) -> u32 {
        self.0.fetch_and(!bits, Ordering::SeqCst)
    }

    /// Returns the old value after `change` replaced it in one step.
    #[inline]
    pub(crate) fn update(&self, change: impl Fn(u32) -> u32) -> u32 {
        let mut old = self.get();
        loop {
            match self.0.compare_exchange_weak(
                old,
                change(old),
                Ordering::SeqCst,
                Ordering::Acquire,
            ) {
                Ok(value) => return value,
                Err(value) => old = value,
            }
        }
    }
}

/// A shared 64-bit word.
#[repr(transparent)]
pub(crate) struct LongWord(AtomicU64);

impl LongWord {
    /// Returns a word that holds `value`.
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Returns the value; what was stored before it is visible after this.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Stores `value`; what was stored earlier becomes visible no later than it.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }
}
