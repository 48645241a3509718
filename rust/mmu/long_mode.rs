// SPDX-License-Identifier: GPL-2.0

//! The entry format of 4- and 5-level paging, for a guest without paging on tables of ours.

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
use kernel::prelude::*;

const PRESENT: u64 = bit(0);
const WRITE: u64 = bit(1);
const USER: u64 = bit(2);
const WRITE_THROUGH: u64 = bit(3);
const CACHE_DISABLE: u64 = bit(4);
const ACCESSED: u64 = bit(5);
const DIRTY: u64 = bit(6);
const LARGE: u64 = bit(7);
const NO_EXECUTE: u64 = bit(63);

/// The entries of 4- and 5-level paging. They have no bit to forbid reading.
pub(crate) struct LongMode;

impl EntryFormat for LongMode {
    type Variant = ();

    fn leaf(_variant: (), leaf: &Leaf, level: Level) -> u64 {
        // Without paging there is no privilege check: the guest's user code may use all pages.
        let mut bits = (leaf.pfn.to_hpa().value() & ADDRESS) | PRESENT | USER;
        if leaf.access.write {
            bits |= WRITE;
        }
        if !leaf.access.execute {
            bits |= NO_EXECUTE;
        }
        if leaf.memory_type == MemoryType::Uncached {
            bits |= CACHE_DISABLE | WRITE_THROUGH;
        }
        if leaf.host_writable {
            bits |= HOST_WRITABLE;
        }
        if level != Level::Page4K {
            bits |= LARGE;
        }
        if leaf.accessed {
            bits |= ACCESSED;
        }
        if leaf.dirty {
            bits |= DIRTY;
        }
        bits
    }

    fn table(table: Hpa, _level: Level) -> u64 {
        (table.value() & ADDRESS) | PRESENT | WRITE | USER | ACCESSED
    }

    fn decode(bits: u64, level: Level) -> Entry {
        if bits & PRESENT == 0 {
            return Entry::Empty;
        }
        if level != Level::Page4K && bits & LARGE == 0 {
            return Entry::Table(Hpa::new(bits & ADDRESS));
        }
        Entry::Leaf(Leaf {
            pfn: Pfn::new((bits & ADDRESS) >> 12),
            access: Access {
                read: true,
                write: bits & WRITE != 0,
                execute: bits & NO_EXECUTE == 0,
            },
            host_writable: bits & HOST_WRITABLE != 0,
            memory_type: if bits & CACHE_DISABLE != 0 {
                MemoryType::Uncached
            } else {
                MemoryType::WriteBack
            },
            accessed: bits & ACCESSED != 0,
            dirty: bits & DIRTY != 0,
        })
    }
}

#[kunit_tests(kvm_rs_entry)]
mod tests {
    use super::*;
    use crate::mmu::ept::{
        Ept,
        EptVariant, //
    };

    /// All leaves that a format can tell apart.
    fn leaves(mut check: impl FnMut(Leaf, Level)) {
        for level in Level::SIZES {
            for n in 0..64_u32 {
                let on = |at: u32| n & (1 << at) != 0;
                check(
                    Leaf {
                        pfn: Pfn::new(0x12_3456_7000 & !(level.pages() - 1)),
                        access: Access {
                            read: true,
                            write: on(0),
                            execute: on(1),
                        },
                        memory_type: if on(2) {
                            MemoryType::WriteBack
                        } else {
                            MemoryType::Uncached
                        },
                        host_writable: on(5),
                        accessed: on(3),
                        dirty: on(4),
                    },
                    level,
                );
            }
        }
    }

    #[test]
    fn leaves_survive_either_format() {
        leaves(|leaf, level| {
            let bits = LongMode::leaf((), &leaf, level);
            assert_eq!(LongMode::decode(bits, level), Entry::Leaf(leaf));
            let bits = Ept::leaf(EptVariant { a_d: true }, &leaf, level);
            assert_eq!(Ept::decode(bits, level), Entry::Leaf(leaf));
        });
    }

    #[test]
    fn ept_without_a_d_has_no_dirty_bit() {
        leaves(|leaf, level| {
            let bits = Ept::leaf(EptVariant { a_d: false }, &leaf, level);
            let clean = Leaf {
                dirty: false,
                ..leaf
            };
            assert_eq!(Ept::decode(bits, level), Entry::Leaf(clean));
        });
    }

    #[test]
    fn ept_can_allow_to_execute_alone() {
        let access = Access {
            read: false,
            write: false,
            execute: true,
        };
        leaves(|leaf, level| {
            let leaf = Leaf { access, ..leaf };
            for a_d in [true, false] {
                let bits = Ept::leaf(EptVariant { a_d }, &leaf, level);
                // What is old, where no bit tells it, is not present.
                let present = leaf.accessed || a_d;
                assert_eq!(bits & 7, if present { 4 } else { 0 });
                let dirty = leaf.dirty && a_d;
                let expected = Entry::Leaf(Leaf { dirty, ..leaf });
                assert_eq!(Ept::decode(bits, level), expected);
                assert_eq!(Ept::next_table(bits, level), None);
            }
        });
    }

    #[test]
    fn tables_survive_either_format() {
        let hpa = Hpa::new(0xf_ffff_ffff_f000);
        for level in [Level::Page2M, Level::Page1G, Level::Level4, Level::Level5] {
            assert_eq!(
                Ept::decode(Ept::table(hpa, level), level),
                Entry::Table(hpa)
            );
            assert_eq!(
                LongMode::decode(LongMode::table(hpa, level), level),
                Entry::Table(hpa)
            );
            assert_eq!(Ept::decode(0, level), Entry::Empty);
            assert_eq!(LongMode::decode(0, level), Entry::Empty);
        }
    }

    #[test]
    fn ept_bits_are_the_manuals() {
        let leaf = Leaf {
            pfn: Pfn::new(0x12345),
            access: Access::ALL,
            host_writable: true,
            memory_type: MemoryType::WriteBack,
            accessed: true,
            dirty: true,
        };
        let bits = Ept::leaf(EptVariant { a_d: true }, &leaf, Level::Page4K);
        assert_eq!(bits, 0x1234_5b77);
        let leaf = Leaf {
            pfn: Pfn::new(0x200),
            access: Access::READ_EXECUTE,
            host_writable: false,
            memory_type: MemoryType::Uncached,
            ..leaf
        };
        let bits = Ept::leaf(EptVariant { a_d: false }, &leaf, Level::Page2M);
        assert_eq!(bits, 0x20_0185);
    }
}
