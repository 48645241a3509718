// SPDX-License-Identifier: GPL-2.0

//! How the guest's own page tables are written.
//!
//! [`GuestFormat`] is to the guest's tables what [`EntryFormat`](super::entry::EntryFormat) is to ours:
//! the walk is the same for all, the format says how large an entry is, which bits of the address
//! select it, and what its bits mean.

use super::entry::{
    bit,
    ADDRESS, //
};
use crate::{
    memory::Word,
    x86::addr::{
        Gpa,
        Gva, //
    },
};

/// The entry is valid.
pub(super) const PRESENT: u64 = bit(0);
/// The page may be written.
pub(super) const WRITE: u64 = bit(1);
/// User code may use the page.
pub(super) const USER: u64 = bit(2);
/// The entry was used.
pub(super) const ACCESSED: u64 = bit(5);
/// The page was written; in leaf entries.
pub(super) const DIRTY: u64 = bit(6);
/// The entry maps a page although its level is above the lowest.
const LARGE: u64 = bit(7);
/// Instructions may not be fetched from the page.
pub(super) const NO_EXECUTE: u64 = bit(63);

/// Returns the protection key of an entry of 64 bits that maps a page.
pub(super) const fn protection_key(leaf: u64) -> u32 {
    // CAST: Four bits.
    (leaf >> 59) as u32 & 0xf
}

/// What decides which bits of an entry are reserved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Bits of a physical address.
    phys_bits: u32,
    /// CR4.PSE: 32-bit entries can map large pages.
    pse: bool,
    /// The guest's processor has pages of 1 GiB.
    huge_1g: bool,
    /// What is reserved in all 8-byte entries, apart from bits above 51.
    wide: u64,
}

impl Rules {
    /// Returns the rules for addresses of `phys_bits` bits, with EFER.NXE (bit 63 forbids execution, else
    /// it is reserved) and CR4.PSE as given, and for a processor that may have pages of 1 GiB.
    pub(super) fn new(phys_bits: u32, nx: bool, pse: bool, huge_1g: bool) -> Self {
        let high = bits(phys_bits.min(52), 51);
        Self {
            phys_bits,
            pse,
            huge_1g,
            wide: if nx { high } else { high | NO_EXECUTE },
        }
    }
}

/// A format of the guest's page tables.
pub(super) trait GuestFormat {
    /// An entry.
    type Entry: Word;

    /// Number of levels that are walked in memory.
    const LEVELS: u32;

    /// Address bits that one level translates.
    const INDEX_BITS: u32;

    /// Returns the address of the root table that CR3 holds.
    fn root(cr3: u64) -> Gpa;

    /// Returns whether an entry of `level` (from 1) maps a page.
    fn is_leaf(entry: u64, level: u32, rules: &Rules) -> bool;

    /// Returns which bits of a present entry of `level` must be 0.
    fn reserved(entry: u64, level: u32, rules: &Rules) -> u64;

    /// Returns the address of the page or table that an entry of `level` leads to.
    fn address(entry: u64, level: u32, leaf: bool) -> Gpa;

    /// Returns how many address bits lie below the index of `level`.
    fn shift(level: u32) -> u32 {
        level
            .saturating_sub(1)
            .saturating_mul(Self::INDEX_BITS)
            .saturating_add(12)
    }

    /// Returns the address of the entry for `gva` in the table of `level` at `table`.
    fn entry_address(table: Gpa, gva: Gva, level: u32) -> Gpa {
        let index = (gva.value() >> Self::shift(level)) & mask(Self::INDEX_BITS);
        let offset = index.wrapping_mul(u64::from(Self::Entry::SIZE));
        Gpa::new(table.value() | offset)
    }
}

/// Returns the lowest `n` bits, for `n` below 64.
const fn mask(n: u32) -> u64 {
    (1 << n) - 1
}

/// Returns the bits `low..=high`, for `high` below 63; nothing if `low` is above.
const fn bits(low: u32, high: u32) -> u64 {
    mask(high + 1) & !mask(low)
}

/// 32-bit paging: two levels of 4-byte entries, pages of 4 KiB and 4 MiB.
pub(super) struct Legacy;

impl Legacy {
    /// Bits 39 to 32 of a large page's address stand in bits 20 to 13 of its entry.
    const HIGH_ADDRESS: u64 = bits(13, 20);
}

impl GuestFormat for Legacy {
    type Entry = u32;

    const LEVELS: u32 = 2;
    const INDEX_BITS: u32 = 10;

    fn root(cr3: u64) -> Gpa {
        Gpa::new(cr3 & bits(12, 31))
    }

    fn is_leaf(entry: u64, level: u32, rules: &Rules) -> bool {
        level == 1 || (rules.pse && entry & LARGE != 0)
    }

    fn reserved(entry: u64, level: u32, rules: &Rules) -> u64 {
        if level == 1 || !Self::is_leaf(entry, level, rules) {
            return 0;
        }
        // What of the high address bits the processor has no pins for is reserved.
        let high = rules.phys_bits.clamp(32, 40) - 32;
        bits(13 + high, 21)
    }

    fn address(entry: u64, level: u32, leaf: bool) -> Gpa {
        if leaf && level == 2 {
            let high = (entry & Self::HIGH_ADDRESS) << (32 - 13);
            return Gpa::new(high | (entry & bits(22, 31)));
        }
        Gpa::new(entry & bits(12, 31))
    }
}

/// What the formats with 8-byte entries have in common.
mod wide {
    use super::*;

    /// Returns whether an entry maps a page.
    pub(super) fn is_leaf(entry: u64, level: u32) -> bool {
        level == 1 || entry & LARGE != 0
    }

    /// Returns which bits must be 0, apart from those above bit 51.
    pub(super) fn reserved(entry: u64, level: u32, rules: &Rules) -> u64 {
        let mut reserved = rules.wide;
        let large_exists = level == 2 || (level == 3 && rules.huge_1g);
        if level > 1 && entry & LARGE != 0 {
            reserved |= if large_exists {
                // Bit 12 is part of the memory type.
                bits(13, size_shift(level) - 1)
            } else {
                LARGE
            };
        }
        reserved
    }

    /// Returns the address of the page or table.
    pub(super) fn address(entry: u64, level: u32, leaf: bool) -> Gpa {
        if leaf && level > 1 {
            return Gpa::new(entry & ADDRESS & !mask(size_shift(level)));
        }
        Gpa::new(entry & ADDRESS)
    }

    /// Returns the address bits inside a page of `level`.
    const fn size_shift(level: u32) -> u32 {
        12 + 9 * (level - 1)
    }
}

/// PAE paging: two levels of 8-byte entries below four page-directory pointers in registers.
pub(super) struct Pae;

impl Pae {
    /// Returns which of the four page-directory pointers `gva` selects.
    pub(super) fn pointer_index(gva: Gva) -> usize {
        // CAST: The value is below 4.
        ((gva.value() >> 30) & 3) as usize
    }
}

impl GuestFormat for Pae {
    type Entry = u64;

    const LEVELS: u32 = 2;
    const INDEX_BITS: u32 = 9;

    /// Takes the page-directory pointer in the place of CR3.
    fn root(pointer: u64) -> Gpa {
        Gpa::new(pointer & ADDRESS)
    }

    fn is_leaf(entry: u64, level: u32, _rules: &Rules) -> bool {
        wide::is_leaf(entry, level)
    }

    fn reserved(entry: u64, level: u32, rules: &Rules) -> u64 {
        wide::reserved(entry, level, rules) | bits(52, 62)
    }

    fn address(entry: u64, level: u32, leaf: bool) -> Gpa {
        wide::address(entry, level, leaf)
    }
}

/// 4- and 5-level paging.
pub(super) struct Long<const LEVELS: u32>;

impl<const LEVELS: u32> GuestFormat for Long<LEVELS> {
    type Entry = u64;

    const LEVELS: u32 = LEVELS;
    const INDEX_BITS: u32 = 9;

    fn root(cr3: u64) -> Gpa {
        Gpa::new(cr3 & ADDRESS)
    }

    fn is_leaf(entry: u64, level: u32, _rules: &Rules) -> bool {
        wide::is_leaf(entry, level)
    }

    fn reserved(entry: u64, level: u32, rules: &Rules) -> u64 {
        wide::reserved(entry, level, rules)
    }

    fn address(entry: u64, level: u32, leaf: bool) -> Gpa {
        wide::address(entry, level, leaf)
    }
}
