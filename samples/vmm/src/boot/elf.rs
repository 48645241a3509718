// SPDX-License-Identifier: GPL-2.0

//! Loads a flat 64-bit ELF file: each segment at its physical address.

use std::fs::File;
use std::path::Path;

use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use linux_loader::loader::elf::Elf;
use linux_loader::loader::KernelLoader;
use vm_memory::Address;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;

use crate::memory::GUEST_START;

/// `\x7fELF`, ELFCLASS64, ELFDATA2LSB.
const MAGIC: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];

/// `e_machine` of x86-64.
const EM_X86_64: u16 = 62;

/// Loads the file at `path` into `memory` and returns its entry address.
pub fn load(memory: &GuestMemoryMmap, path: &Path) -> Result<u64> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot open the guest {name}"))?;
    let loaded = Elf::load(memory, None, &mut file, Some(GUEST_START))
        .with_context(|| format!("cannot load {name} at or above {:#x}", GUEST_START.0))?;
    let size = memory.last_addr().raw_value() + 1;
    ensure!(
        loaded.kernel_end <= size,
        "{name} ends at {:#x}, memory at {size:#x}",
        loaded.kernel_end
    );
    Ok(loaded.kernel_load.raw_value())
}

/// Returns true when `start`, the first bytes of a file, are an ELF header of a 64-bit x86 file.
pub fn is_x86_64(start: &[u8]) -> bool {
    start.starts_with(&MAGIC) && start.get(18..20) == Some(&EM_X86_64.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_machine() {
        let mut ident = [0; 20];
        assert!(!is_x86_64(&ident));
        ident[..MAGIC.len()].copy_from_slice(&MAGIC);
        assert!(!is_x86_64(&ident));
        ident[18] = 62;
        assert!(is_x86_64(&ident));
        assert!(!is_x86_64(&ident[..19]));
        ident[4] = 1;
        assert!(!is_x86_64(&ident));
    }
}
