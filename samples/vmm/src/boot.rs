// SPDX-License-Identifier: GPL-2.0

//! What a guest finds when its first instruction runs.
//!
//! For both kinds of guest:
//!
//! - Long mode with paging on. The lowest 4 GiB are mapped one to one with 2 MiB pages, writable
//!   and executable, which covers all of memory and the devices' addresses.
//! - CS is a 64-bit code segment, the other segments are flat data. There is no IDT, so an
//!   exception ends the machine; interrupts are off.
//! - Memory below 1 MiB may be reused once the guest has its own tables and stack.
//!
//! An ELF file is a program for the bare machine:
//!
//! - RIP is the entry address of the ELF file, RSP the top of a small stack below 1 MiB.
//! - RDI holds the size of memory in bytes; the other general registers are zero.
//!
//! A bzImage is a Linux kernel, which is entered by the 64-bit boot protocol; see [`linux`].

mod elf;
pub mod linux;
mod long_mode;
mod mp_table;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::bail;
use anyhow::Context;
use anyhow::Result;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use vm_memory::Address;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;

use crate::memory::STACK_TOP;

/// RFLAGS with nothing set but the bit that is always one.
const RFLAGS: u64 = 1 << 1;

/// What a guest's file is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A flat ELF file for the bare machine.
    Elf,
    /// A Linux kernel.
    BzImage,
}

impl Kind {
    /// Returns what the file at `path` is.
    pub fn of(path: &Path) -> Result<Self> {
        let name = path.display();
        let mut start = Vec::new();
        File::open(path)
            .and_then(|file| file.take(linux::HEADER_END).read_to_end(&mut start))
            .with_context(|| format!("cannot read the guest {name}"))?;
        if elf::is_x86_64(&start) {
            Ok(Kind::Elf)
        } else if linux::is_bzimage(&start) {
            Ok(Kind::BzImage)
        } else {
            bail!("{name} is neither an ELF file for x86-64 nor a Linux bzImage")
        }
    }
}

/// The state in which vCPUs start.
#[derive(Debug)]
pub struct Entry {
    /// General registers of the first one.
    pub regs: kvm_regs,
    /// Model-specific registers of all that do not keep their reset value: number and value.
    pub msrs: &'static [(u32, u64)],
}

impl Entry {
    /// Puts the system registers from their reset state into the state the guest expects.
    pub fn set_sregs(&self, sregs: &mut kvm_sregs) {
        long_mode::set_sregs(sregs);
    }
}

/// Loads the ELF file `guest` with its boot structures into `memory`, and returns where it starts.
pub fn load_elf(memory: &GuestMemoryMmap, guest: &Path) -> Result<Entry> {
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
        msrs: &[],
    })
}
