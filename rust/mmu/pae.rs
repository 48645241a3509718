// SPDX-License-Identifier: GPL-2.0

//! The entry format of PAE paging, for a guest without paging on tables of ours.
//!
//! Below the root an entry is one of long mode. The root is the page-directory-pointer table: four
//! entries for a GiB each, which the processor reads into registers of its own with CR3, at each VM
//! entry. They have no bits for access or use: those are reserved, and VM entry fails with one set.

use super::{
    entry::{
        bit,
        Entry,
        EntryFormat,
        Leaf,
        ADDRESS, //
    },
    level::Level,
    long_mode::LongMode, //
};
use crate::x86::addr::Hpa;
use kernel::prelude::*;

const PRESENT: u64 = bit(0);

/// Number of entries of the root.
const POINTERS: u64 = 4;

/// PAE paging, with the root on level [`Pae::ROOT`].
pub(crate) struct Pae;

impl Pae {
    /// The level of the root, which has no leaf entries in this format.
    pub(crate) const ROOT: Level = Level::Page1G;
}

impl EntryFormat for Pae {
    // CR3 has 32 bits for it.
    const LOW_ROOT: bool = true;

    const MAPS_AROUND: bool = true;

    type Variant = ();

    fn leaf(variant: (), leaf: &Leaf, level: Level) -> u64 {
        LongMode::leaf(variant, leaf, level)
    }

    fn table(table: Hpa, level: Level) -> u64 {
        if level == Self::ROOT {
            (table.value() & ADDRESS) | PRESENT
        } else {
            LongMode::table(table, level)
        }
    }

    fn decode(bits: u64, level: Level) -> Entry {
        LongMode::decode(bits, level)
    }

    fn frames(_levels: Level) -> u64 {
        POINTERS * Self::ROOT.pages()
    }
}

#[kunit_tests(kvm_rs_pae)]
mod tests {
    use super::*;

    #[test]
    fn pointers_have_no_reserved_bits() {
        let hpa = Hpa::new(0xf_ffff_ffff_f000);
        let bits = Pae::table(hpa, Pae::ROOT);
        assert_eq!(bits, 0xf_ffff_ffff_f001);
        assert_eq!(Pae::decode(bits, Pae::ROOT), Entry::Table(hpa));
        let bits = Pae::table(hpa, Level::Page2M);
        assert_eq!(bits & 0xfff, 0x27);
        assert_eq!(Pae::decode(bits, Level::Page2M), Entry::Table(hpa));
    }

    #[test]
    fn maps_what_32_bits_reach() {
        assert_eq!(Pae::frames(Pae::ROOT), 1 << 20);
    }
}
