// SPDX-License-Identifier: GPL-2.0

//! Long mode: descriptors, page tables and control registers.

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::kvm_dtable;
use kvm_bindings::kvm_segment;
use kvm_bindings::kvm_sregs;
use vm_memory::Address;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

use crate::memory::GDT;
use crate::memory::PAGE_TABLES;

const CR0_PE: u64 = 1 << 0;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Page-table entry: present and writable.
const PRESENT_WRITABLE: u64 = 0b11;

/// Page-directory entry: maps a 2 MiB page.
const PAGE_SIZE_BIT: u64 = 1 << 7;

/// Bytes of a page table.
const TABLE_SIZE: u64 = 0x1000;

/// Entries of a page table.
const ENTRIES: usize = 512;

/// GiB that are mapped one to one, each by a page directory.
const MAPPED_GIB: usize = 4;

/// A page table.
type Table = [u64; ENTRIES];

/// Index of the 64-bit code segment in the GDT. Linux' boot protocol wants this one.
const CODE: u16 = 2;

/// Index of the data segment in the GDT. Linux' boot protocol wants this one.
const DATA: u16 = 3;

/// Index of the task state segment, whose descriptor takes two entries.
const TASK: u16 = 4;

/// Returns the flat 64-bit code segment.
fn code_segment() -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: CODE * 8,
        type_: 0b1011, // execute, read, accessed
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    }
}

/// Returns the flat data segment.
fn data_segment() -> kvm_segment {
    kvm_segment {
        selector: DATA * 8,
        type_: 0b0011, // read, write, accessed
        db: 1,
        l: 0,
        ..code_segment()
    }
}

/// Returns the task state segment: VM entry wants one that is busy, though nothing uses it.
fn task_segment() -> kvm_segment {
    kvm_segment {
        limit: 0x67,
        selector: TASK * 8,
        type_: 0b1011, // busy
        present: 1,
        ..Default::default()
    }
}

/// Encodes `segment` as the low 8 bytes of a descriptor, as the guest would write them in its GDT.
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(match segment.g {
        0 => segment.limit,
        _ => segment.limit >> 12,
    });
    let bits = |value: u64, shift: u32| value << shift;
    let flag = |value: u8, shift: u32| u64::from(value) << shift;

    bits(limit & 0xffff, 0)
        | bits(segment.base & 0xff_ffff, 16)
        | flag(segment.type_, 40)
        | flag(segment.s, 44)
        | flag(segment.dpl, 45)
        | flag(segment.present, 47)
        | bits((limit >> 16) & 0xf, 48)
        | flag(segment.avl, 52)
        | flag(segment.l, 53)
        | flag(segment.db, 54)
        | flag(segment.g, 55)
        | bits((segment.base >> 24) & 0xff, 56)
}

/// Returns the GDT that holds the segments in use.
fn gdt() -> [u64; 6] {
    [
        0,
        0,
        descriptor(&code_segment()),
        descriptor(&data_segment()),
        descriptor(&task_segment()),
        0, // bits 63:32 of the task segment's base
    ]
}

/// Returns the address of page table `index`: the PML4, the PDPT, then the page directories.
fn table(index: usize) -> GuestAddress {
    PAGE_TABLES.unchecked_add(index as u64 * TABLE_SIZE)
}

/// Returns a page table of which only the first entries are set, one for each table in `children`.
fn directory(children: std::ops::Range<usize>) -> Table {
    let mut entries = [0; ENTRIES];
    for (entry, child) in entries.iter_mut().zip(children) {
        *entry = table(child).raw_value() | PRESENT_WRITABLE;
    }
    entries
}

/// Returns the page directory that maps the `gib`th GiB one to one.
fn identity(gib: usize) -> Table {
    std::array::from_fn(|index| {
        let page = ((gib * ENTRIES + index) as u64) << 21;
        page | PAGE_SIZE_BIT | PRESENT_WRITABLE
    })
}

/// Returns the page tables in the order in which they lie in memory.
fn page_tables() -> Vec<Table> {
    let mut tables = vec![directory(1..2), directory(2..2 + MAPPED_GIB)];
    tables.extend((0..MAPPED_GIB).map(identity));
    tables
}

/// Writes GDT and page tables into `memory`.
pub fn write_tables(memory: &GuestMemoryMmap) -> Result<()> {
    memory
        .write_obj(gdt(), GDT)
        .context("no memory for the guest's GDT")?;
    for (index, entries) in page_tables().into_iter().enumerate() {
        for (slot, entry) in (0u64..).zip(entries) {
            memory
                .write_obj(entry, table(index).unchecked_add(slot * 8))
                .context("no memory for the guest's page tables")?;
        }
    }
    Ok(())
}

/// Turns system registers in reset state into long mode on the tables of [`write_tables`].
pub fn set_sregs(sregs: &mut kvm_sregs) {
    let data = data_segment();
    sregs.cs = code_segment();
    sregs.ds = data;
    sregs.es = data;
    sregs.fs = data;
    sregs.gs = data;
    sregs.ss = data;
    sregs.tr = task_segment();
    sregs.ldt = kvm_segment {
        unusable: 1,
        type_: 0b0010, // LDT
        ..Default::default()
    };
    sregs.gdt = kvm_dtable {
        base: GDT.raw_value(),
        limit: (size_of_val(&gdt()) - 1) as u16,
        ..Default::default()
    };
    sregs.idt = kvm_dtable::default();

    sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    sregs.cr3 = PAGE_TABLES.raw_value();
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::STACK_TOP;
    use vm_memory::GuestMemoryMmap;

    /// Translates `va` through the page tables in `memory`, as the CPU would.
    fn translate(memory: &GuestMemoryMmap, cr3: u64, va: u64) -> Option<u64> {
        let mut table = cr3;
        for shift in [39, 30, 21] {
            let slot = ((va >> shift) & 0x1ff) * 8;
            let entry: u64 = memory.read_obj(GuestAddress(table + slot)).unwrap();
            if entry & PRESENT_WRITABLE != PRESENT_WRITABLE {
                return None;
            }
            if entry & PAGE_SIZE_BIT != 0 {
                let offset = (1 << shift) - 1;
                return Some((entry & !0xfff & !offset) | (va & offset));
            }
            table = entry & !0xfff;
        }
        panic!("a walk that ends in no page");
    }

    #[test]
    fn maps_four_gib_one_to_one() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write_tables(&memory).unwrap();
        let mut sregs = kvm_sregs::default();
        set_sregs(&mut sregs);

        for va in [
            0,
            0x10_0000,
            0x1f_ffff,
            0x20_0000,
            0x3fff_ffff,
            0x4000_0000,
            0xd000_0004,
            0xffff_ffff,
        ] {
            assert_eq!(translate(&memory, sregs.cr3, va), Some(va), "{va:#x}");
        }
        for va in [1 << 32, 1 << 39, 1 << 47] {
            assert_eq!(translate(&memory, sregs.cr3, va), None, "{va:#x}");
        }
    }

    #[test]
    fn descriptors_are_those_of_the_manual() {
        assert_eq!(gdt()[..2], [0, 0]);
        assert_eq!(gdt()[2..4], [0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]);
        assert_eq!(gdt()[4..], [0x0000_8b00_0000_0067, 0]);

        let all_of_base = kvm_segment {
            base: 0x1234_5678,
            limit: 0xf_fffe,
            ..Default::default()
        };
        assert_eq!(descriptor(&all_of_base), 0x120f_0034_5678_fffe);
    }

    #[test]
    fn registers_name_the_tables() {
        let mut sregs = kvm_sregs::default();
        set_sregs(&mut sregs);
        assert_eq!(sregs.gdt.base, GDT.raw_value());
        assert_eq!(sregs.gdt.limit, 47);
        assert_eq!((sregs.cs.selector, sregs.ds.selector), (0x10, 0x18));
        assert!(sregs.cr0 & CR0_PG != 0 && sregs.cr4 & CR4_PAE != 0);
        assert_eq!(sregs.efer, EFER_LME | EFER_LMA);
    }

    #[test]
    fn tables_do_not_meet_the_stack() {
        let end = table(page_tables().len());
        assert!(GDT.raw_value() + 40 <= PAGE_TABLES.raw_value());
        assert!(end.raw_value() + 0x1_0000 <= STACK_TOP.raw_value());
    }
}
