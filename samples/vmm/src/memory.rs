// SPDX-License-Identifier: GPL-2.0

//! Guest-physical memory: what lies where, and the host memory behind it.
//!
//! ```text
//! 0x0000_0500  GDT                                    \
//! 0x0000_7000  Linux: boot parameters (the zero page)  |
//! 0x0000_9000  page tables (6 pages)                   | written by `boot`
//! 0x0002_0000  Linux: kernel command line              |
//! 0x0008_0000  ELF guest: top of the boot stack        |
//! 0x0009_fc00  Linux: MP table, up to 1 MiB reserved  /
//! 0x0010_0000  the guest's ELF file or kernel, then free memory
//!     ...      Linux: initramfs, at the end of memory
//!     ...      end of memory (--memory)
//! 0xd000_0000  devices: here every access exits to user space
//! 0xfffb_c000  KVM's own page tables and TSS, for CPUs that cannot run a guest without paging
//! ```

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::Address;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion;

/// The global descriptor table.
pub const GDT: GuestAddress = GuestAddress(0x500);

/// The boot parameters of a Linux kernel, one page.
pub const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);

/// The first page of the page tables.
pub const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);

/// The command line of a Linux kernel.
pub const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);

/// End of the boot stack, which grows down from here.
pub const STACK_TOP: GuestAddress = GuestAddress(0x8_0000);

/// The MP table. A kernel looks for it in the last KiB of the lowest 640.
pub const MP_TABLE: GuestAddress = GuestAddress(0x9_fc00);

/// First address at which a guest may be loaded.
pub const GUEST_START: GuestAddress = GuestAddress(0x10_0000);

/// Start of the addresses that belong to devices; memory ends below.
pub const MMIO_HOLE: GuestAddress = GuestAddress(0xd000_0000);

/// A page for the page table with which KVM runs a guest that has paging off.
pub const IDENTITY_MAP: GuestAddress = GuestAddress(0xfffb_c000);

/// Three pages for the task state segment with which KVM runs a guest in real mode.
pub const KVM_TSS: GuestAddress = GuestAddress(0xfffb_d000);

/// Size of the host pages that back the guest's memory, as far as the host grants it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pages {
    /// 4 KiB each.
    Small,
    /// 2 MiB where transparent huge pages are to be had, else 4 KiB.
    Huge,
}

impl Pages {
    /// Returns the advice for madvise() that asks for this size.
    fn advice(self) -> libc::c_int {
        match self {
            Pages::Small => libc::MADV_NOHUGEPAGE,
            Pages::Huge => libc::MADV_HUGEPAGE,
        }
    }
}

/// The memory of one guest, which must outlive the VM that it is registered with.
pub struct Memory(GuestMemoryMmap);

impl Memory {
    /// Reserves `size` bytes of zeroed memory from guest-physical address 0 on.
    pub fn new(size: u64, pages: Pages) -> Result<Self> {
        let bytes = usize::try_from(size).context("too much memory for this host")?;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)])
            .with_context(|| format!("cannot reserve {} MiB for the guest", size >> 20))?;

        for region in memory.iter() {
            // SAFETY: The range is the whole of a mapping that `memory` owns, and neither advice
            // changes what it holds.
            unsafe { libc::madvise(region.as_ptr().cast(), region.size(), pages.advice()) };
            // A kernel without transparent huge pages refuses the advice; it has small pages only.
        }
        Ok(Self(memory))
    }

    /// Returns the memory as the guest addresses it.
    pub fn guest(&self) -> &GuestMemoryMmap {
        &self.0
    }

    /// Gives the memory to `vm`, each region in a memory slot of its own.
    pub fn register(&self, vm: &VmFd) -> Result<()> {
        for (slot, region) in (0..).zip(self.0.iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: The range is a mapping that `self` owns and that nothing in this program
            // refers to by a Rust reference: every access goes through volatile ones.
            unsafe { vm.set_user_memory_region(region) }
                .with_context(|| format!("cannot give memory slot {slot} to the machine"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn is_zeroed_and_bounded() {
        let memory = Memory::new(4 << 20, Pages::Small).unwrap();
        let guest = memory.guest();
        assert_eq!(guest.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), 0);
        assert!(guest.read_obj::<u64>(GuestAddress((4 << 20) - 8)).is_ok());
        assert!(guest.read_obj::<u64>(GuestAddress(4 << 20)).is_err());
    }
}
