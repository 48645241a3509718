// SPDX-License-Identifier: GPL-2.0

//! Tests of the walk, on page tables in a small memory of their own.

use super::*;

use core::cell::Cell;

/// Memory of 8 pages from address 0, in words of 8 bytes; the last page cannot be written.
struct Memory(KVec<Cell<u64>>);

const SIZE: u64 = 8 << 12;
const READ_ONLY: u64 = 7 << 12;

impl Memory {
    fn new() -> Self {
        let mut words = KVec::new();
        for _ in 0..SIZE / 8 {
            words.push(Cell::new(0), GFP_KERNEL).unwrap();
        }
        Self(words)
    }

    /// Returns the 8 bytes that hold the word at `gpa`, and by how much to shift them for it.
    fn place(&self, gpa: Gpa) -> Result<(&Cell<u64>, u64)> {
        let index = usize::try_from(gpa.value() / 8)?;
        let word = self.0.get(index).ok_or(EFAULT)?;
        Ok((word, gpa.value() % 8 * 8))
    }

    fn put<W: Word>(&self, gpa: u64, value: u64) {
        let (word, shift) = self.place(Gpa::new(gpa)).unwrap();
        let all: u64 = W::truncate(u64::MAX).into();
        word.set((word.get() & !(all << shift)) | value << shift);
    }

    fn get<W: Word>(&self, gpa: u64) -> u64 {
        self.read::<W>(Gpa::new(gpa)).unwrap().into()
    }
}

impl TableMemory for Memory {
    fn read<W: Word>(&self, gpa: Gpa) -> Result<W> {
        let (word, shift) = self.place(gpa)?;
        Ok(W::truncate(word.get() >> shift))
    }

    fn replace<W: Word>(&self, gpa: Gpa, old: W, new: W) -> Result<bool> {
        let found: u64 = self.read::<W>(gpa)?.into();
        if found != old.into() {
            return Ok(false);
        }
        self.put::<W>(gpa.value(), new.into());
        Ok(true)
    }

    fn is_writable(&self, gpa: Gpa) -> bool {
        gpa.value() < READ_ONLY
    }
}

const READ: WalkAccess = WalkAccess {
    write: false,
    execute: false,
    implicit: false,
};
const STORE: WalkAccess = WalkAccess {
    write: true,
    ..READ
};
const FETCH: WalkAccess = WalkAccess {
    execute: true,
    ..READ
};
const IMPLICIT: WalkAccess = WalkAccess {
    implicit: true,
    ..READ
};

fn off() -> GuestPaging {
    GuestPaging {
        cr0: Cr0::PE,
        cr3: 0,
        cr4: Cr4::NONE,
        efer: Efer::NONE,
        pdptrs: [0; 4],
        alignment_check: false,
        cpl: 0,
        phys_bits: 39,
        huge_1g: true,
        pkru: 0,
    }
}

/// Four levels in pages 0 to 3, which map 4 KiB at 0 with `flags` in the last entry.
fn long(memory: &Memory, flags: u64) -> GuestPaging {
    for (table, next) in [(0, 0x1000), (0x1000, 0x2000), (0x2000, 0x3000)] {
        memory.put::<u64>(table, next | PRESENT | WRITE | USER);
    }
    memory.put::<u64>(0x3000, 0x12_3456_7000 & 0x7f_ffff_f000 | flags);
    GuestPaging {
        cr0: Cr0::PE.with(Cr0::PG).with(Cr0::WP),
        cr4: Cr4::PAE,
        efer: Efer::LME.with(Efer::LMA).with(Efer::NX),
        ..off()
    }
}

const PAGE: u64 = 0x12_3456_7000;

fn go(
    memory: &Memory,
    paging: &GuestPaging,
    gva: u64,
    access: WalkAccess,
) -> core::result::Result<u64, u32> {
    match translate_in(memory, paging, Gva::new(gva), access) {
        Ok(gpa) => Ok(gpa.value()),
        Err(fault) => Err(fault.error_code),
    }
}

#[kunit_tests(kvm_rs_guest_walk)]
mod suite {
    use super::*;

    #[test]
    fn without_paging_linear_is_physical() {
        let memory = Memory::new();
        assert_eq!(go(&memory, &off(), 0x1234_5678, STORE), Ok(0x1234_5678));
    }

    #[test]
    fn four_levels_and_marks() {
        let memory = Memory::new();
        let paging = long(&memory, PRESENT | WRITE);
        assert_eq!(go(&memory, &paging, 0xabc, READ), Ok(PAGE | 0xabc));
        for table in [0, 0x1000, 0x2000, 0x3000] {
            assert_eq!(memory.get::<u64>(table) & (ACCESSED | DIRTY), ACCESSED);
        }
        assert_eq!(go(&memory, &paging, 0xabc, STORE), Ok(PAGE | 0xabc));
        assert_eq!(memory.get::<u64>(0x2000) & DIRTY, 0);
        assert_eq!(memory.get::<u64>(0x3000) & DIRTY, DIRTY);
        // The next page is not there.
        assert_eq!(go(&memory, &paging, 0x1000, STORE), Err(code::WRITE));
    }

    #[test]
    fn a_fault_marks_nothing() {
        let memory = Memory::new();
        let paging = long(&memory, PRESENT);
        let error = code::PROTECTION | code::WRITE;
        assert_eq!(go(&memory, &paging, 0, STORE), Err(error));
        assert_eq!(memory.get::<u64>(0) & ACCESSED, 0);
        assert_eq!(memory.get::<u64>(0x3000) & ACCESSED, 0);
    }

    #[test]
    fn write_protection_of_supervisor_needs_wp() {
        let memory = Memory::new();
        let mut paging = long(&memory, PRESENT);
        paging.cr0 = paging.cr0.without(Cr0::WP);
        assert_eq!(go(&memory, &paging, 0, STORE), Ok(PAGE));
        let user = GuestPaging { cpl: 3, ..paging };
        memory.put::<u64>(0x3000, PAGE | PRESENT | USER);
        let error = code::PROTECTION | code::WRITE | code::USER;
        assert_eq!(go(&memory, &user, 0, STORE), Err(error));
        assert_eq!(go(&memory, &user, 0, READ), Ok(PAGE));
    }

    #[test]
    fn user_code_stays_out_of_supervisor_pages() {
        let memory = Memory::new();
        let mut paging = long(&memory, PRESENT | WRITE);
        paging.cpl = 3;
        assert_eq!(
            go(&memory, &paging, 0, READ),
            Err(code::PROTECTION | code::USER)
        );
        assert_eq!(go(&memory, &paging, 0, IMPLICIT), Ok(PAGE));
    }

    #[test]
    fn smap_smep_and_nx() {
        let memory = Memory::new();
        let mut paging = long(&memory, PRESENT | WRITE | USER);
        paging.cr4 = paging.cr4.with(Cr4::SMAP);
        assert_eq!(go(&memory, &paging, 0, READ), Err(code::PROTECTION));
        assert_eq!(go(&memory, &paging, 0, FETCH), Ok(PAGE));
        paging.alignment_check = true;
        assert_eq!(go(&memory, &paging, 0, READ), Ok(PAGE));
        assert_eq!(go(&memory, &paging, 0, IMPLICIT), Err(code::PROTECTION));
        paging.cr4 = Cr4::PAE.with(Cr4::SMEP);
        let fetch = Err(code::PROTECTION | code::FETCH);
        assert_eq!(go(&memory, &paging, 0, FETCH), fetch);
        assert_eq!(go(&memory, &paging, 0, READ), Ok(PAGE));
        paging.cr4 = Cr4::PAE;
        memory.put::<u64>(0x3000, PAGE | PRESENT | NO_EXECUTE);
        assert_eq!(go(&memory, &paging, 0, FETCH), fetch);
        // Without NXE the bit is reserved.
        paging.efer = paging.efer.without(Efer::NX);
        let reserved = Err(code::PROTECTION | code::RESERVED);
        assert_eq!(go(&memory, &paging, 0, READ), reserved);
    }

    #[test]
    fn protection_keys() {
        const NO_ACCESS: u32 = 1;
        const NO_WRITE: u32 = 2;
        const BY_KEY: u32 = code::PROTECTION | code::KEY;
        let memory = Memory::new();
        let mut paging = long(&memory, PRESENT | WRITE | USER | 5 << 59);
        // Another key's rights say nothing.
        paging.pkru = !(3 << 10);
        assert_eq!(go(&memory, &paging, 0, STORE), Ok(PAGE));
        paging.pkru = NO_WRITE << 10;
        assert_eq!(go(&memory, &paging, 0, READ), Ok(PAGE));
        assert_eq!(go(&memory, &paging, 0, STORE), Err(BY_KEY | code::WRITE));
        paging.cr0 = paging.cr0.without(Cr0::WP);
        assert_eq!(go(&memory, &paging, 0, STORE), Ok(PAGE));
        paging.cpl = 3;
        let user = BY_KEY | code::USER;
        assert_eq!(go(&memory, &paging, 0, STORE), Err(user | code::WRITE));
        paging.pkru = NO_ACCESS << 10;
        assert_eq!(go(&memory, &paging, 0, READ), Err(user));
        assert_eq!(go(&memory, &paging, 0, IMPLICIT), Err(BY_KEY));
        assert_eq!(go(&memory, &paging, 0, FETCH), Ok(PAGE));
        // Not for supervisor pages, and only in long mode.
        memory.put::<u64>(0x3000, PAGE | PRESENT | 5 << 59);
        paging.cpl = 0;
        assert_eq!(go(&memory, &paging, 0, READ), Ok(PAGE));
        memory.put::<u64>(0x3000, PAGE | PRESENT | USER | 5 << 59);
        assert_eq!(go(&memory, &paging, 0, READ), Err(BY_KEY));
        paging.pkru = 0;
        assert_eq!(go(&memory, &paging, 0, READ), Ok(PAGE));
    }

    #[test]
    fn large_pages_and_reserved_bits() {
        let memory = Memory::new();
        let paging = long(&memory, PRESENT);
        let large = 1 << 7;
        let reserved = Err(code::PROTECTION | code::RESERVED);
        memory.put::<u64>(0x2000, 0x4060_0000 | PRESENT | large);
        assert_eq!(go(&memory, &paging, 0x1f_abcd, READ), Ok(0x407f_abcd));
        memory.put::<u64>(0x2000, 0x4060_2000 | PRESENT | large);
        assert_eq!(go(&memory, &paging, 0, READ), reserved);
        memory.put::<u64>(0x1000, 0x4000_0000 | PRESENT | large);
        assert_eq!(go(&memory, &paging, 0x3fff_abcd, READ), Ok(0x7fff_abcd));
        let small = GuestPaging {
            huge_1g: false,
            ..paging
        };
        assert_eq!(go(&memory, &small, 0, READ), reserved);
        memory.put::<u64>(0, 0x1000 | PRESENT | large);
        assert_eq!(go(&memory, &paging, 0, READ), reserved);
        memory.put::<u64>(0, 0x1000 | PRESENT | 1 << 39);
        assert_eq!(go(&memory, &paging, 0, READ), reserved);
        // Bits 62 to 52 are the guest's own.
        memory.put::<u64>(0, 0x1000 | PRESENT | 0x7ff << 52);
        assert_eq!(go(&memory, &paging, 0x1234, READ), Ok(0x4000_1234));
    }

    #[test]
    fn read_only_tables_stay_unmarked() {
        let memory = Memory::new();
        let paging = long(&memory, PRESENT);
        memory.put::<u64>(0x2000, READ_ONLY | PRESENT);
        memory.put::<u64>(READ_ONLY, PAGE | PRESENT);
        assert_eq!(go(&memory, &paging, 0, READ), Ok(PAGE));
        assert_eq!(memory.get::<u64>(READ_ONLY) & ACCESSED, 0);
    }

    #[test]
    fn tables_outside_memory_fault() {
        let memory = Memory::new();
        let paging = long(&memory, PRESENT);
        memory.put::<u64>(0x1000, SIZE | PRESENT);
        assert_eq!(go(&memory, &paging, 0, READ), Err(0));
    }

    #[test]
    fn five_levels() {
        let memory = Memory::new();
        let mut paging = long(&memory, PRESENT);
        paging.cr4 = paging.cr4.with(Cr4::LA57);
        paging.cr3 = 0x4000;
        memory.put::<u64>(0x4008, PRESENT);
        assert_eq!(go(&memory, &paging, 1 << 48 | 5, READ), Ok(PAGE | 5));
        assert_eq!(go(&memory, &paging, 5, READ), Err(0));
    }

    #[test]
    fn pae_walks_from_its_pointers() {
        let memory = Memory::new();
        let mut paging = long(&memory, PRESENT);
        paging.efer = Efer::NX;
        paging.pdptrs = [0, 0x2000 | PRESENT, 0, 0];
        assert_eq!(go(&memory, &paging, 0x4000_0123, READ), Ok(PAGE | 0x123));
        assert_eq!(go(&memory, &paging, 0x123, FETCH), Err(code::FETCH));
        // Bits 62 to 52 are reserved here.
        memory.put::<u64>(0x3000, PAGE | PRESENT | 1 << 52);
        let reserved = Err(code::PROTECTION | code::RESERVED);
        assert_eq!(go(&memory, &paging, 0x4000_0123, READ), reserved);
    }

    #[test]
    fn legacy_pages_small_and_large() {
        let memory = Memory::new();
        let mut paging = GuestPaging {
            cr0: Cr0::PE.with(Cr0::PG),
            ..off()
        };
        memory.put::<u32>(4, 0x1000 | PRESENT | WRITE);
        memory.put::<u32>(0x1004, 0x8765_4000 | PRESENT | WRITE);
        assert_eq!(go(&memory, &paging, 0x40_1abc, STORE), Ok(0x8765_4abc));
        assert_eq!(memory.get::<u32>(4) & (ACCESSED | DIRTY), ACCESSED);
        assert_eq!(memory.get::<u32>(0x1004) & DIRTY, DIRTY);
        // A large page at 12 GiB + 4 MiB; without PSE, its bit says nothing.
        let large = 0x40_0000 | 3 << 13 | 1 << 7 | PRESENT;
        memory.put::<u32>(8, large);
        paging.cr4 = Cr4::PSE;
        assert_eq!(go(&memory, &paging, 0x8a_bcde, READ), Ok(0x3_004a_bcde));
        memory.put::<u32>(8, large | 1 << 21);
        let reserved = Err(code::PROTECTION | code::RESERVED);
        assert_eq!(go(&memory, &paging, 0x8a_bcde, READ), reserved);
        // Fetches are not told apart without SMEP and NX.
        assert_eq!(go(&memory, &paging, 0, FETCH), Err(0));
    }

    #[test]
    fn an_entry_that_changes_restarts_the_walk() {
        /// Refuses the first replacement, as if another processor had marked the entry.
        struct Racing(Memory, Cell<u32>);

        impl TableMemory for Racing {
            fn read<W: Word>(&self, gpa: Gpa) -> Result<W> {
                self.0.read(gpa)
            }

            fn replace<W: Word>(&self, gpa: Gpa, old: W, new: W) -> Result<bool> {
                let n = self.1.get();
                self.1.set(n.wrapping_add(1));
                if n == 0 {
                    let bits: u64 = old.into();
                    self.0.put::<W>(gpa.value(), bits | ACCESSED);
                    return Ok(false);
                }
                self.0.replace(gpa, old, new)
            }

            fn is_writable(&self, _gpa: Gpa) -> bool {
                true
            }
        }

        let racing = Racing(Memory::new(), Cell::new(0));
        let paging = long(&racing.0, PRESENT);
        let found = translate_in(&racing, &paging, Gva::new(7), READ);
        assert_eq!(found, Ok(Gpa::new(PAGE | 7)));
        assert_eq!(racing.1.get(), 4);
    }
}
