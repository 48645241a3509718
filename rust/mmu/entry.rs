// SPDX-License-Identifier: GPL-2.0

//! What an entry of a page table says, apart from how a format writes it.
//!
//! EPT and the tables of a guest that runs without paging hold the same: where a guest frame is in
//! host memory, how large the page is, and what may be done with it. [`EntryFormat`] is the
//! difference between them.

pub(super) use super::memory_type::MemoryType;

use super::level::Level;
use crate::x86::addr::{
    Hpa,
    Pfn, //
};

/// What may be done with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    /// The page may be read. Formats without such a bit allow it to all present pages.
    pub(crate) read: bool,
    /// The page may be written.
    pub(crate) write: bool,
    /// Instructions may be fetched from the page.
    pub(crate) execute: bool,
}

impl Access {
    /// All there is.
    pub(crate) const ALL: Self = Self {
        read: true,
        write: true,
        execute: true,
    };

    /// All but writing.
    pub(crate) const READ_EXECUTE: Self = Self {
        read: true,
        write: false,
        execute: true,
    };

    /// Returns whether everything in `other` is in this.
    pub(crate) const fn includes(self, other: Self) -> bool {
        (self.read || !other.read)
            && (self.write || !other.write)
            && (self.execute || !other.execute)
    }

    /// Returns what is in this or in `other`.
    pub(crate) const fn union(self, other: Self) -> Self {
        Self {
            read: self.read || other.read,
            write: self.write || other.write,
            execute: self.execute || other.execute,
        }
    }
}

/// What a leaf entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// First host frame, aligned to the size of the page.
    pub(crate) pfn: Pfn,
    /// What the guest may do.
    pub(crate) access: Access,
    /// The client may write the page as it is mapped now, so the guest may be let write it too. It is
    /// not while its writes are watched.
    pub(crate) host_writable: bool,
    /// How the page is cached.
    pub(crate) memory_type: MemoryType,
    /// The page was used since this was last cleared.
    pub(crate) accessed: bool,
    /// The page was written since this was last cleared.
    pub(crate) dirty: bool,
}

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// Nothing is there.
    Empty,
    /// A page is there.
    Leaf(Leaf),
    /// A table of the level below is there.
    Table(Hpa),
    /// There is no memory for the page.
    Mmio,
}

/// How entries are written in tables.
///
/// Decoding is the inverse of encoding: `decode(leaf(x), level)` is `Leaf(x)` but for what the format
/// has no bits for, `decode(table(x, level), level)` is `Table(x)` above the lowest level, and 0 is `Empty`.
pub(crate) trait EntryFormat: Send + Sync + 'static {
    /// The bits of an entry that decodes as [`Entry::Mmio`], if there is such: the processor tells an
    /// access through it from one through an empty entry, and caches nothing.
    const MMIO: Option<u64> = None;

    /// The processor finds the root only below 4 GiB of host memory.
    const LOW_ROOT: bool = false;

    /// A fault maps pages that follow, too: see [`super::around`].
    const MAPS_AROUND: bool = false;

    /// Bits that tell the processor's variant apart, chosen once for a VM.
    type Variant: Copy + Send + Sync + 'static;

    /// Returns the bits of a leaf entry for a page of size `level`.
    fn leaf(variant: Self::Variant, leaf: &Leaf, level: Level) -> u64;

    /// Returns the bits of an entry of `level` that leads to the table at `table`.
    fn table(table: Hpa, level: Level) -> u64;

    /// Returns what the bits of an entry of `level` say.
    fn decode(bits: u64, level: Level) -> Entry;

    /// Returns the table that an entry of `level` leads to, as [`Self::decode`] does, if it leads to one.
    fn next_table(bits: u64, level: Level) -> Option<Hpa> {
        match Self::decode(bits, level) {
            Entry::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Returns how many guest frames a tree of `levels` levels can map.
    fn frames(levels: Level) -> u64 {
        levels.table_pages()
    }
}

/// Bits 51 to 12 of an entry: where the page or table is, in every format.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// [`Leaf::host_writable`]. Processors ignore this bit in every format.
pub(super) const HOST_WRITABLE: u64 = bit(11);

/// A table is where a larger page could be, but for an instruction that was fetched there: see
/// [`super::nx`]. Processors ignore this bit in an entry that leads to a table, in every format.
pub(super) const FOR_EXECUTION: u64 = bit(11);

/// Returns bit `n`.
pub(super) const fn bit(n: u32) -> u64 {
    1 << n
}
