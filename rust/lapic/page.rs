// SPDX-License-Identifier: GPL-2.0

//! The register page in its architectural layout, which the processor can use directly.

use super::{
    posted::PostedInterrupts,
    register::Register,
    word::Word, //
};

/// Number of 16-byte slots in a page.
const SLOTS: usize = 256;

/// One register's place: its 32 bits, and three more words that only a 64-bit ICR uses.
#[repr(C, align(16))]
struct Slot {
    words: [Word; 4],
}

impl Slot {
    const fn new() -> Self {
        Self {
            words: [const { Word::new(0) }; 4],
        }
    }
}

/// A 4 KiB page of registers, one every 16 bytes, as the virtual-APIC page is laid out.
///
/// # Invariants
///
/// Every bit pattern is valid, so zeroed memory is an `ApicPage`. The words are atomic because
/// other threads and, with the TPR shadow or APICv, the processor write to them.
#[repr(C, align(4096))]
pub(crate) struct ApicPage {
    slots: [Slot; SLOTS],
}

const _: () = assert!(size_of::<ApicPage>() == 4096 && align_of::<ApicPage>() == 4096);

impl ApicPage {
    /// Returns a page of zeroes.
    ///
    /// It is 4 KiB by value: where stacks are small, allocate zeroed memory instead.
    pub(crate) const fn new() -> Self {
        Self {
            slots: [const { Slot::new() }; SLOTS],
        }
    }

    /// Returns word `index` (0 to 3) of slot `number`.
    #[inline]
    pub(crate) fn word(&self, number: u8, index: u8) -> &Word {
        // Neither fallback is ever taken: there are 256 slots, and `index` is masked.
        let [first, ..] = &self.slots;
        let slot = self.slots.get(usize::from(number)).unwrap_or(first);
        let [word, ..] = &slot.words;
        slot.words.get(usize::from(index & 3)).unwrap_or(word)
    }

    /// Returns the word of `register`.
    #[inline]
    pub(crate) fn register(&self, register: Register) -> &Word {
        self.word(register.number(), 0)
    }

    /// Returns the value of `register`.
    #[inline]
    pub(crate) fn get(&self, register: Register) -> u32 {
        self.register(register).get()
    }

    /// Stores `value` in `register`.
    #[inline]
    pub(crate) fn set(&self, register: Register, value: u32) {
        self.register(register).set(value);
    }

    /// Returns the upper half of the x2APIC interrupt command register.
    ///
    /// In x2APIC mode that register is one of 64 bits, which the processor too keeps together.
    pub(crate) fn icr_upper(&self) -> u32 {
        self.word(Register::ICR.number(), 1).get()
    }

    /// Stores the upper half of the x2APIC interrupt command register.
    pub(crate) fn set_icr_upper(&self, value: u32) {
        self.word(Register::ICR.number(), 1).set(value);
    }
}

/// Owns, or refers to, the page that backs a local APIC.
///
/// Implement it for what owns the memory: a plain allocation, or the virtual-APIC page that a
/// VMCS points to.
pub(crate) trait Page {
    /// Returns the registers; always the same page.
    fn page(&self) -> &ApicPage;

    /// Returns where requests are posted, if the processor may work on the page: always the same.
    #[inline]
    fn posted(&self) -> Option<&PostedInterrupts> {
        None
    }
}

impl Page for ApicPage {
    #[inline]
    fn page(&self) -> &ApicPage {
        self
    }
}

impl<P: Page> Page for &P {
    #[inline]
    fn page(&self) -> &ApicPage {
        (**self).page()
    }

    #[inline]
    fn posted(&self) -> Option<&PostedInterrupts> {
        (**self).posted()
    }
}
