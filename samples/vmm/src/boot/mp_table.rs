// SPDX-License-Identifier: GPL-2.0

//! The MP table: what firmware tells of processors, the I/O APIC and interrupts.
//!
//! Its form is that of Intel's MultiProcessor Specification 1.4. A floating pointer comes first, the
//! configuration table right behind it: a processor entry for each vCPU, an ISA bus, the I/O APIC
//! of KVM, one entry for each of its pins, and the two local interrupts. ISA interrupt N arrives at
//! pin N of the I/O APIC, which is how KVM routes interrupt line (GSI) N.

use anyhow::Context;
use anyhow::Result;
use vm_memory::Address;
use vm_memory::Bytes;
use vm_memory::GuestMemoryMmap;

use crate::memory::MP_TABLE;

/// Where KVM has each vCPU's local APIC.
const LOCAL_APIC: u32 = 0xfee0_0000;

/// Where KVM has the I/O APIC.
const IO_APIC: u32 = 0xfec0_0000;

/// Pins of the I/O APIC that devices are wired to.
const PINS: u8 = 24;

/// Version of the APICs, that of an integrated one.
const APIC_VERSION: u8 = 0x14;

/// Version 1.4 of the specification.
const SPECIFICATION: u8 = 4;

/// Bytes of the floating pointer.
const POINTER_SIZE: usize = 16;

/// Bytes of the configuration table's header.
const HEADER_SIZE: usize = 44;

/// Entry types.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const IO_APIC_ENTRY: u8 = 2;
const IO_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

/// Flags of processors and I/O APICs.
const ENABLED: u8 = 1;
const BOOT_PROCESSOR: u8 = 2;

/// Interrupt types.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;

/// The local APICs of all vCPUs.
const ALL_APICS: u8 = 0xff;

/// The number of the only bus.
const ISA: u8 = 0;

/// Writes the table for `cpus` vCPUs into `memory`.
pub fn write(memory: &GuestMemoryMmap, cpus: u8) -> Result<()> {
    let table = configuration(cpus);
    let mut bytes = floating_pointer();
    bytes.extend(table);
    memory
        .write_slice(&bytes, MP_TABLE)
        .context("no memory for the MP table")
}

/// Returns the structure that the kernel looks for.
fn floating_pointer() -> Vec<u8> {
    let mut bytes = b"_MP_".to_vec();
    bytes.extend((MP_TABLE.raw_value() as u32 + POINTER_SIZE as u32).to_le_bytes());
    bytes.extend([1, SPECIFICATION]); // length in units of 16 bytes
    bytes.resize(POINTER_SIZE, 0);
    bytes[10] = checksum(&bytes);
    bytes
}

/// Returns the configuration table.
fn configuration(cpus: u8) -> Vec<u8> {
    let entries = entries(cpus);
    let length = HEADER_SIZE + entries.iter().map(Vec::len).sum::<usize>();

    let mut bytes = b"PCMP".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend([SPECIFICATION, 0]); // checksum below
    bytes.extend(b"KVM-RS  ");
    bytes.extend(b"VMM         ");
    bytes.extend([0; 6]); // no table of an OEM
    bytes.extend((entries.len() as u16).to_le_bytes());
    bytes.extend(LOCAL_APIC.to_le_bytes());
    bytes.resize(HEADER_SIZE, 0); // no extended table
    bytes.extend(entries.concat());
    bytes[7] = checksum(&bytes);
    bytes
}

/// Returns the entries of the configuration table.
fn entries(cpus: u8) -> Vec<Vec<u8>> {
    // An ID that no vCPU has.
    let io_apic = cpus;

    let mut entries = Vec::new();
    for id in 0..cpus {
        let boot = if id == 0 { BOOT_PROCESSOR } else { 0 };
        let mut entry = vec![PROCESSOR, id, APIC_VERSION, ENABLED | boot];
        entry.resize(20, 0); // what else there is, CPUID tells
        entries.push(entry);
    }
    entries.push([&[BUS, ISA], b"ISA   ".as_slice()].concat());
    entries.push(
        [
            &[IO_APIC_ENTRY, io_apic, APIC_VERSION, ENABLED],
            &IO_APIC.to_le_bytes()[..],
        ]
        .concat(),
    );
    // Flags 0: polarity and trigger mode are those of the bus, so edges.
    for pin in 0..PINS {
        entries.push(vec![IO_INTERRUPT, INT, 0, 0, ISA, pin, io_apic, pin]);
    }
    entries.push(vec![LOCAL_INTERRUPT, EXT_INT, 0, 0, ISA, 0, 0, 0]);
    entries.push(vec![LOCAL_INTERRUPT, NMI, 0, 0, ISA, 0, ALL_APICS, 1]);
    entries
}

/// Returns the byte that makes the sum of `bytes`, in which it is still zero, zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length of an entry, by its type.
    fn length(kind: u8) -> usize {
        if kind == PROCESSOR {
            20
        } else {
            8
        }
    }

    #[test]
    fn sums_are_zero() {
        let sum = |bytes: Vec<u8>| bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
        assert_eq!(sum(floating_pointer()), 0);
        assert_eq!(sum(configuration(3)), 0);
    }

    #[test]
    fn entries_fill_the_table() {
        let table = configuration(2);
        assert_eq!(
            usize::from(u16::from_le_bytes([table[4], table[5]])),
            table.len()
        );
        let count = u16::from_le_bytes([table[34], table[35]]);
        let mut rest = &table[HEADER_SIZE..];
        for _ in 0..count {
            rest = &rest[length(rest[0])..];
        }
        assert!(rest.is_empty());
        assert_eq!(table[HEADER_SIZE + 1], 0);
        assert_eq!(table[HEADER_SIZE + 20 + 1], 1);
    }

    #[test]
    fn fits_below_the_next_mebibyte() {
        let size = POINTER_SIZE + configuration(u8::MAX - 1).len();
        assert!(MP_TABLE.raw_value() + size as u64 <= crate::memory::GUEST_START.0);
    }
}
