// SPDX-License-Identifier: GPL-2.0

//! Boots a Linux bzImage by the 64-bit boot protocol.
//!
//! The protocol is Documentation/arch/x86/boot.rst of the kernel. A boot loader's work is done here:
//! the kernel without its real-mode part lies at 1 MiB, the initramfs at the end of memory, the
//! command line and the boot parameters ("zero page") below 1 MiB. The boot parameters tell where
//! all that is, and which memory there is (the e820 map). RSI points to them; the kernel is entered
//! 0x200 bytes behind its start. What firmware would tell of processors and interrupts is in an MP
//! table, see [`mp_table`].

use std::fs::File;
use std::path::Path;

use anyhow::anyhow;
use anyhow::ensure;
use anyhow::Context;
use anyhow::Result;
use kvm_bindings::kvm_regs;
use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::BootConfigurator;
use linux_loader::configurator::BootParams;
use linux_loader::loader::bootparam::boot_e820_entry;
use linux_loader::loader::bootparam::boot_params;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::load_cmdline;
use linux_loader::loader::BzImage;
use linux_loader::loader::KernelLoader;
use vm_memory::Address;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemory;
use vm_memory::GuestMemoryMmap;

use super::long_mode;
use super::mp_table;
use super::Entry;
use super::RFLAGS;
use crate::memory::COMMAND_LINE;
use crate::memory::GUEST_START;
use crate::memory::MP_TABLE;
use crate::memory::ZERO_PAGE;

/// Bytes of a bzImage that tell what it is.
pub const HEADER_END: u64 = 0x206;

/// Where the magic number of a bzImage stands.
const HEADER_MAGIC: std::ops::Range<usize> = 0x202..0x206;

/// The 64-bit entry point, from the start of the loaded kernel.
const ENTRY_64: u64 = 0x200;

/// `xloadflags`: the kernel has a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1 << 0;

/// `type_of_loader` of a boot loader without a number of its own.
const LOADER_UNKNOWN: u8 = 0xff;

/// Bytes of the command line, including its end.
const COMMAND_LINE_SIZE: usize = 0x800;

/// e820 type of memory that is free to be used.
const E820_RAM: u32 = 1;

/// e820 type of memory that something lies in.
const E820_RESERVED: u32 = 2;

/// Bytes to which the initramfs is aligned.
const PAGE_SIZE: u64 = 0x1000;

/// MSR of switches, and in it the bit that makes string instructions fast.
const IA32_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1 << 0;

/// MSR of the memory type outside of MTRR ranges: MTRRs on, all memory write-back.
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const WRITE_BACK: u64 = 6;

/// What a kernel is booted with.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The bzImage.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initrd: Option<&'a Path>,
    /// Number of vCPUs, whose APIC IDs count from 0.
    pub cpus: u8,
}

/// Returns a command line that names what the machine has: a console, and a reset by the keyboard
/// controller. There are no ACPI tables and no PCI bus, and no timer that the TSC would have to be
/// checked against.
pub fn command_line() -> Result<Cmdline> {
    let mut line = Cmdline::new(COMMAND_LINE_SIZE)?;
    line.insert_str("console=ttyS0 8250.nr_uarts=1 reboot=k panic=-1 acpi=off pci=off")?;
    line.insert_str("tsc=reliable no_timer_check")?;
    Ok(line)
}

/// Loads a kernel with all that belongs to it into `memory`, and returns where vCPU 0 starts. The
/// others wait until the kernel starts them.
pub fn load(memory: &GuestMemoryMmap, boot: &Boot<'_>, line: &Cmdline) -> Result<Entry> {
    let (start, mut header) = load_kernel(memory, boot.kernel)?;
    header.type_of_loader = LOADER_UNKNOWN;
    if let Some(path) = boot.initrd {
        // All that the kernel needs until it has set up its memory lies below this.
        let kernel_end = u64::from(header.init_size) + header.pref_address.max(start.0);
        let (address, size) = load_initrd(memory, path, kernel_end, header.initrd_addr_max.into())?;
        header.ramdisk_image = address;
        header.ramdisk_size = size;
    }
    load_cmdline(memory, COMMAND_LINE, line).context("no memory for the command line")?;
    header.cmd_line_ptr = u32::try_from(COMMAND_LINE.0)?;

    let params = parameters(header, memory.last_addr().raw_value() + 1);
    LinuxBootConfigurator::write_bootparams(&BootParams::new(&params, ZERO_PAGE), memory)
        .context("no memory for the boot parameters")?;
    mp_table::write(memory, boot.cpus)?;
    long_mode::write_tables(memory)?;

    Ok(Entry {
        regs: kvm_regs {
            rip: start.raw_value() + ENTRY_64,
            rsi: ZERO_PAGE.raw_value(),
            rflags: RFLAGS,
            ..Default::default()
        },
        // As firmware leaves them.
        msrs: &[
            (IA32_MISC_ENABLE, FAST_STRINGS),
            (IA32_MTRR_DEF_TYPE, MTRR_ENABLE | WRITE_BACK),
        ],
    })
}

/// Returns true when `start`, the first bytes of a file, are those of a bzImage.
pub fn is_bzimage(start: &[u8]) -> bool {
    start.get(HEADER_MAGIC) == Some(b"HdrS")
}

/// Loads the protected-mode part of the kernel at `path`; returns where, and its setup header.
fn load_kernel(memory: &GuestMemoryMmap, path: &Path) -> Result<(GuestAddress, setup_header)> {
    let name = path.display();
    let mut file = File::open(path).with_context(|| format!("cannot open the kernel {name}"))?;
    let loaded = BzImage::load(memory, Some(GUEST_START), &mut file, Some(GUEST_START))
        .with_context(|| format!("cannot load the kernel {name} at {:#x}", GUEST_START.0))?;
    let header = loaded
        .setup_header
        .ok_or_else(|| anyhow!("{name} has no setup header"))?;
    let flags = header.xloadflags;
    ensure!(
        flags & XLF_KERNEL_64 != 0,
        "{name} has no 64-bit entry point"
    );
    Ok((loaded.kernel_load, header))
}

/// Loads the initramfs at `path` as high as memory and the kernel, by `highest`, allow, but not
/// below `lowest`; returns its address and size.
fn load_initrd(
    memory: &GuestMemoryMmap,
    path: &Path,
    lowest: u64,
    highest: u64,
) -> Result<(u32, u32)> {
    let name = path.display();
    let data = std::fs::read(path).with_context(|| format!("cannot read the initramfs {name}"))?;
    let size = u32::try_from(data.len()).with_context(|| format!("{name} is too large"))?;
    let end = memory.last_addr().raw_value().min(highest) + 1;
    let address = end
        .checked_sub(size.into())
        .map(|address| address & !(PAGE_SIZE - 1))
        .filter(|&address| address >= lowest)
        .with_context(|| format!("no memory for {name} beside the kernel"))?;
    memory
        .write_slice(&data, GuestAddress(address))
        .with_context(|| format!("no memory for {name}"))?;
    Ok((u32::try_from(address)?, size))
}

/// Returns boot parameters with `header` and the map of `size` bytes of memory.
fn parameters(header: setup_header, size: u64) -> boot_params {
    let mut params = boot_params {
        hdr: header,
        ..Default::default()
    };
    let map = memory_map(size);
    params.e820_entries = map.len() as u8;
    for (to, (start, end, type_)) in params.e820_table.iter_mut().zip(map) {
        *to = boot_e820_entry {
            addr: start,
            size: end - start,
            type_,
        };
    }
    params
}

/// Returns what lies where in `size` bytes of memory: start, end (exclusive) and e820 type.
fn memory_map(size: u64) -> [(u64, u64, u32); 3] {
    [
        (0, MP_TABLE.0, E820_RAM),
        (MP_TABLE.0, GUEST_START.0, E820_RESERVED),
        (GUEST_START.0, size, E820_RAM),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(mib: usize) -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), mib << 20)]).unwrap()
    }

    /// Writes a file with `data` and returns its path.
    fn file(name: &str, data: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("vmm-{}-{name}", std::process::id()));
        std::fs::write(&path, data).unwrap();
        path
    }

    /// Returns a bzImage with one sector of setup and `code` behind it.
    fn bzimage(code: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x1f1] = 1; // setup_sects
        image[HEADER_MAGIC].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes()); // version
        image[0x211] = 1; // loadflags: loaded high
        image[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // code32_start
        image[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
        image[0x236] = 1; // xloadflags
        image[0x258..0x260].copy_from_slice(&0x10_0000_u64.to_le_bytes()); // pref_address
        image[0x260..0x264].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // init_size
        image.extend(code);
        image
    }

    /// Returns what `memory` holds at `address`.
    fn bytes<const N: usize>(memory: &GuestMemoryMmap, address: GuestAddress) -> [u8; N] {
        let mut bytes = [0; N];
        memory.read_slice(&mut bytes, address).unwrap();
        bytes
    }

    #[test]
    fn everything_is_where_the_parameters_say() {
        let kernel = file("kernel", &bzimage(&[0xf4; 0x300]));
        let initrd = file("initrd", &[7; 0x1800]);
        let memory = memory(4);
        let mut line = command_line().unwrap();
        line.insert_str("quiet").unwrap();
        let boot = Boot {
            kernel: &kernel,
            initrd: Some(&initrd),
            cpus: 1,
        };
        let entry = load(&memory, &boot, &line).unwrap();
        std::fs::remove_file(kernel).unwrap();
        std::fs::remove_file(initrd).unwrap();

        assert_eq!((entry.regs.rip, entry.regs.rsi), (0x10_0200, 0x7000));
        let code = bytes::<0x300>(&memory, GUEST_START);
        assert_eq!(code, [0xf4; 0x300]);

        let params: boot_params = memory.read_obj(ZERO_PAGE).unwrap();
        let header = params.hdr;
        let (image, size) = (header.ramdisk_image, header.ramdisk_size);
        assert_eq!((image, size), (0x3f_e000, 0x1800));
        let data = bytes::<0x1800>(&memory, GuestAddress(image.into()));
        assert_eq!(data, [7; 0x1800]);

        let mut text = [0; COMMAND_LINE_SIZE];
        let line = GuestAddress(header.cmd_line_ptr.into());
        memory.read_slice(&mut text, line).unwrap();
        assert!(text.starts_with(b"console=ttyS0 "));
        let end = text.iter().position(|&byte| byte == 0).unwrap();
        assert!(text[..end].ends_with(b" quiet"));
        assert_eq!(params.e820_entries, 3);
    }

    #[test]
    fn initrd_must_fit_beside_the_kernel() {
        let initrd = file("large", &[7; 0x30_0000]);
        assert!(load_initrd(&memory(4), &initrd, 0x20_0000, 0x7fff_ffff).is_err());
        assert!(load_initrd(&memory(8), &initrd, 0x20_0000, 0x4f_efff).is_err());
        let (address, _) = load_initrd(&memory(8), &initrd, 0x20_0000, 0x5f_ffff).unwrap();
        assert_eq!(address, 0x30_0000);
        std::fs::remove_file(initrd).unwrap();
    }

    #[test]
    fn map_has_no_gap_below_the_end() {
        let map = memory_map(64 << 20);
        assert_eq!(map[0].0, 0);
        assert_eq!(map[2].1, 64 << 20);
        assert!(map.windows(2).all(|pair| pair[0].1 == pair[1].0));
    }

    #[test]
    fn knows_a_kernel() {
        assert!(is_bzimage(&bzimage(&[])));
        assert!(!is_bzimage(&[0; 0x206]));
        assert!(!is_bzimage(b"HdrS"));
    }
}
