// SPDX-License-Identifier: GPL-2.0

//! Levels of a page-table tree.

use crate::x86::addr::{
    Gfn,
    PAGE_SIZE, //
};

/// Number of address bits that select an entry of a table.
const INDEX_BITS: u32 = 9;

/// Number of entries of a table.
pub(crate) const ENTRIES: usize = 1 << INDEX_BITS;

/// The level of a table or entry: what a leaf entry there maps, and how far it is from the leaves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Level {
    /// Leaf entries map 4 KiB; there are no others.
    Page4K = 1,
    /// Leaf entries map 2 MiB.
    Page2M = 2,
    /// Leaf entries map 1 GiB.
    Page1G = 3,
    /// Entries lead to tables of 512 GiB; the root of a 4-level tree.
    Level4 = 4,
    /// Entries lead to tables of 256 TiB; the root of a 5-level tree.
    Level5 = 5,
}

impl Level {
    /// The sizes that a leaf entry can have, smallest first.
    pub(crate) const SIZES: [Self; 3] = [Self::Page4K, Self::Page2M, Self::Page1G];

    /// Returns the level with number `number`, from 1.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Page4K),
            2 => Some(Self::Page2M),
            3 => Some(Self::Page1G),
            4 => Some(Self::Level4),
            5 => Some(Self::Level5),
            _ => None,
        }
    }

    /// Returns the level's number, from 1.
    pub(crate) const fn number(self) -> u8 {
        // CAST: The discriminants are the numbers.
        self as u8
    }

    /// Returns the level that an entry of this level leads to.
    pub(crate) const fn below(self) -> Option<Self> {
        match self {
            Self::Page4K => None,
            Self::Page2M => Some(Self::Page4K),
            Self::Page1G => Some(Self::Page2M),
            Self::Level4 => Some(Self::Page1G),
            Self::Level5 => Some(Self::Level4),
        }
    }

    /// Returns how many address bits of a frame number lie below this level's index.
    const fn shift(self) -> u32 {
        // Cannot wrap: the number is from 1 to 5.
        INDEX_BITS.wrapping_mul(self.number() as u32 - 1)
    }

    /// Returns how many 4 KiB frames an entry covers.
    pub(crate) const fn pages(self) -> u64 {
        1 << self.shift()
    }

    /// Returns how many bytes an entry covers.
    pub(crate) const fn bytes(self) -> u64 {
        self.pages() * PAGE_SIZE
    }

    /// Returns how many 4 KiB frames a table covers.
    pub(crate) const fn table_pages(self) -> u64 {
        1 << (self.shift() + INDEX_BITS)
    }

    /// Returns the index of `gfn`'s entry in its table, below [`ENTRIES`].
    pub(crate) const fn index(self, gfn: Gfn) -> usize {
        // CAST: The value is below 512.
        ((gfn.value() >> self.shift()) & (ENTRIES as u64 - 1)) as usize
    }

    /// Returns the first frame of the entry that covers `gfn`.
    pub(crate) const fn align(self, gfn: Gfn) -> Gfn {
        Gfn::new(gfn.value() & !(self.pages() - 1))
    }

    /// Returns how far `frame` is into its block of this level's size, in 4 KiB frames.
    pub(crate) const fn offset(self, frame: u64) -> u64 {
        frame & (self.pages() - 1)
    }
}

kernel::static_assert!(Level::Page2M.bytes() == 2 << 20);
kernel::static_assert!(Level::Page1G.bytes() == 1 << 30);
kernel::static_assert!(Level::Level4.table_pages() == 1 << 36);
kernel::static_assert!(Level::Level5.index(Gfn::new(1 << 36)) == 1);
kernel::static_assert!(Level::Page4K.index(Gfn::new(0x3ff)) == 0x1ff);
