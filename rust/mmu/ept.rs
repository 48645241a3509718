// SPDX-License-Identifier: GPL-2.0

//! The entry format of extended page tables.

use super::{
    entry::{
        bit,
        Access,
        Entry,
        EntryFormat,
        Leaf,
        MemoryType,
        ADDRESS,
        HOST_WRITABLE, //
    },
    level::Level,
};
use crate::x86::addr::{
    Hpa,
    Pfn, //
};

const READ: u64 = bit(0);
const WRITE: u64 = bit(1);
const EXECUTE: u64 = bit(2);
const PRESENT: u64 = READ | WRITE | EXECUTE;
const TYPE_SHIFT: u32 = 3;
const TYPE_MASK: u64 = 7 << TYPE_SHIFT;
const TYPE_UNCACHED: u64 = 0;
const TYPE_WRITE_BACK: u64 = 6;
/// The type of the entry holds whatever the guest's PAT says.
const IGNORE_PAT: u64 = bit(6);
const LARGE: u64 = bit(7);
/// The page was used. Without accessed and dirty bits the processor ignores it, and it is ours: what
/// has it not is old.
const ACCESSED: u64 = bit(8);
const DIRTY: u64 = bit(9);
/// Where an old entry that must not be present keeps what it allows. The processor ignores these.
const OLD_SHIFT: u32 = 54;

/// Enables the accessed and dirty bits, in the EPT pointer.
const POINTER_A_D: u64 = bit(6);

/// Extended page tables.
pub(crate) struct Ept;

/// What of EPT a VM uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EptVariant {
    /// The processor maintains accessed and dirty bits.
    pub(crate) a_d: bool,
}

impl Ept {
    /// Returns the EPT pointer for the tree of `levels` levels (4 or 5) at `root`.
    ///
    /// The processor reads the tables themselves as write-back memory.
    pub(crate) const fn pointer(root: Hpa, levels: Level, variant: EptVariant) -> u64 {
        // Cannot wrap: the number is from 1 to 5.
        let length = (levels.number() as u64 - 1) << 3;
        let a_d = if variant.a_d { POINTER_A_D } else { 0 };
        root.value() | length | TYPE_WRITE_BACK | a_d
    }
}

/// Returns the bits that allow `access`.
const fn rights(access: Access) -> u64 {
    let mut bits = 0;
    if access.read {
        bits |= READ;
    }
    if access.write {
        bits |= WRITE;
    }
    if access.execute {
        bits |= EXECUTE;
    }
    bits
}

impl EntryFormat for Ept {
    // Writing without reading is a misconfiguration on every processor. The address is one where no
    // memory is, as some processors read speculatively what such an entry points to.
    const MMIO: Option<u64> = Some(ADDRESS | WRITE | EXECUTE);

    type Variant = EptVariant;

    fn leaf(variant: EptVariant, leaf: &Leaf, level: Level) -> u64 {
        let mut bits = leaf.pfn.to_hpa().value() & ADDRESS;
        let rights = rights(leaf.access);
        if leaf.accessed {
            bits |= rights | ACCESSED;
        } else if variant.a_d {
            bits |= rights;
        } else {
            // The next access has to fault, as nothing else tells of it.
            bits |= rights << OLD_SHIFT;
        }
        bits |= match leaf.memory_type {
            MemoryType::WriteBack => TYPE_WRITE_BACK << TYPE_SHIFT | IGNORE_PAT,
            MemoryType::GuestPat => TYPE_WRITE_BACK << TYPE_SHIFT,
            MemoryType::Uncached => TYPE_UNCACHED << TYPE_SHIFT,
        };
        if leaf.host_writable {
            bits |= HOST_WRITABLE;
        }
        if level != Level::Page4K {
            bits |= LARGE;
        }
        // Without the feature the bit is ignored, and says nothing when it is read back.
        if variant.a_d && leaf.dirty {
            bits |= DIRTY;
        }
        bits
    }

    fn table(table: Hpa, _level: Level) -> u64 {
        // The accessed bit is set so that the processor need not.
        (table.value() & ADDRESS) | PRESENT | ACCESSED
    }

    #[inline]
    fn next_table(bits: u64, level: Level) -> Option<Hpa> {
        let leads_on = level != Level::Page4K && bits & (READ | LARGE) == READ;
        leads_on.then(|| Hpa::new(bits & ADDRESS))
    }

    fn decode(bits: u64, level: Level) -> Entry {
        if let Some(table) = Self::next_table(bits, level) {
            return Entry::Table(table);
        }
        let rights = (bits | bits >> OLD_SHIFT) & PRESENT;
        if rights == 0 {
            return Entry::Empty;
        }
        if Some(bits) == Self::MMIO {
            return Entry::Mmio;
        }
        Entry::Leaf(Leaf {
            pfn: Pfn::new((bits & ADDRESS) >> 12),
            access: Access {
                read: rights & READ != 0,
                write: rights & WRITE != 0,
                execute: rights & EXECUTE != 0,
            },
            host_writable: bits & HOST_WRITABLE != 0,
            memory_type: match (bits & TYPE_MASK) >> TYPE_SHIFT {
                TYPE_WRITE_BACK if bits & IGNORE_PAT != 0 => MemoryType::WriteBack,
                TYPE_WRITE_BACK => MemoryType::GuestPat,
                _ => MemoryType::Uncached,
            },
            accessed: bits & ACCESSED != 0,
            dirty: bits & DIRTY != 0,
        })
    }
}

kernel::static_assert!(
    Ept::pointer(
        Hpa::new(0x1234_5000),
        Level::Level4,
        EptVariant { a_d: true }
    ) == 0x1234_505e
);
kernel::static_assert!(
    Ept::pointer(Hpa::new(0x1000), Level::Level5, EptVariant { a_d: false }) == 0x1026
);
