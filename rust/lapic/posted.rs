// SPDX-License-Identifier: GPL-2.0

//! The posted-interrupt descriptor: requests for a local APIC whose IRR is the processor's.
//!
//! While a guest runs with virtual-interrupt delivery, the processor reads and writes IRR and ISR on
//! the virtual-APIC page, and nobody else may. What others request they *post*: they set the vector's
//! bit here, then "outstanding notification", and tell the processor if that was not set before. The
//! processor, or the vCPU's thread before it enters the guest, clears the latter and moves the
//! requests to IRR.
//!
//! ```text
//!   sender                                      processor, or the vCPU's thread
//!   ------                                      -------------------------------
//!   set the vector's bit                        clear "outstanding"
//!   set "outstanding"; was it clear? notify     take the bits, add them to IRR
//! ```
//!
//! A bit that is set too late for the right side to see it is followed by a notification.

use super::{
    vectors::Vectors,
    word::Word, //
};

/// "Outstanding notification": the processor was told, or will be, of requests that wait.
const OUTSTANDING: u32 = 1 << 0;

/// A posted-interrupt descriptor as the processor has it.
///
/// The words that say where the notification goes are for devices that post by themselves, through the
/// IOMMU; there are none, and these words stay 0.
#[repr(C, align(64))]
pub(crate) struct PostedInterrupts {
    requests: [Word; 8],
    control: Word,
    _rest: [Word; 7],
}

const _: () = assert!(size_of::<PostedInterrupts>() == 64 && align_of::<PostedInterrupts>() == 64);

impl PostedInterrupts {
    /// Returns a descriptor without requests.
    pub(crate) const fn new() -> Self {
        Self {
            requests: [const { Word::new(0) }; 8],
            control: Word::new(0),
            _rest: [const { Word::new(0) }; 7],
        }
    }

    /// Returns the word of a vector and its bit.
    fn locate(&self, vector: u8) -> (&Word, u32) {
        // The fallback is never taken: there are eight words.
        let [first, ..] = &self.requests;
        let word = self.requests.get(usize::from(vector >> 5)).unwrap_or(first);
        (word, 1 << (vector & 31))
    }

    /// Posts `vector`; returns whether the processor is to be notified. Any thread.
    pub(super) fn post(&self, vector: u8) -> bool {
        let (word, bit) = self.locate(vector);
        // Who posted it before notifies.
        word.set_bits(bit) & bit == 0 && self.control.set_bits(OUTSTANDING) & OUTSTANDING == 0
    }

    /// Returns whether `vector` is posted.
    pub(super) fn contains(&self, vector: u8) -> bool {
        let (word, bit) = self.locate(vector);
        word.get() & bit != 0
    }

    /// Returns whether requests wait.
    #[inline]
    pub(super) fn is_outstanding(&self) -> bool {
        self.control.get() & OUTSTANDING != 0
    }

    /// Moves the requests to `irr`.
    pub(super) fn take(&self, irr: Vectors<'_>) {
        self.control.clear_bits(OUTSTANDING);
        for (index, word) in (0u8..).zip(&self.requests) {
            if word.get() != 0 {
                irr.insert_all(index, word.swap(0));
            }
        }
    }

    /// Forgets the requests.
    pub(super) fn clear(&self) {
        self.control.clear_bits(OUTSTANDING);
        for word in &self.requests {
            word.swap(0);
        }
    }
}
