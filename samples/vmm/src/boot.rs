// SPDX-License-Identifier: GPL-2.0

//! What a guest finds when its first instruction runs.
//!
//! - Long mode with paging on. The lowest 4 GiB are mapped one to one with 2 MiB pages, writable
//!   and executable, which covers all of memory and the devices' addresses.
//! - CS is a 64-bit code segment, the other segments are flat data. There is no IDT, so an
//!   exception ends the machine; interrupts are off.
//! - RIP is the entry address of the ELF file, RSP the top of a small stack below 1 MiB.
//! - RDI holds the size of memory in bytes; the other general registers are zero.
//! - Memory below 1 MiB may be reused once the guest has its own tables and stack.

mod elf;
mod long_mode;

use std::path::Path;

use anyhow::Result;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use vm_memory::Address;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;

use crate::memory::STACK_TOP;

/// RFLAGS with nothing set but the bit that is always one.
const RFLAGS: u64 = 1 << 1;

/// The state in which a vCPU starts.
#[derive(Debug)]
pub struct Entry {
    /// General registers.
    pub regs: kvm_regs,
}

impl Entry {
    /// Puts the system registers from their reset state into the state the guest expects.
    pub fn set_sregs(&self, sregs: &mut kvm_sregs) {
        long_mode::set_sregs(sregs);
    }
}

/// Loads the ELF file `guest` with its boot structures into `memory`, and returns where it starts.
pub fn load(memory: &GuestMemoryMmap, guest: &Path) -> Result<Entry> {
    let rip = elf::load(memory, guest)?;
    long_mode::write_tables(memory)?;
    Ok(Entry {
        regs: kvm_regs {
            rip,
            rflags: RFLAGS,
            rsp: STACK_TOP.raw_value(),
            // Memory starts at 0 and has no holes, so its last address tells its size.
            rdi: memory.last_addr().raw_value() + 1,
            ..Default::default()
        },
    })
}
