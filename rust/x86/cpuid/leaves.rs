// SPDX-License-Identifier: GPL-2.0

//! The tables of KVM_GET_SUPPORTED_CPUID and KVM_GET_EMULATED_CPUID, leaf by leaf.
//!
//! They have the order of KVM's: basic leaves, extended leaves, the hypervisor's.

use super::{
    feature::{
        Feature,
        Features,
        Word, //
    },
    supported::Model,
    CpuidEntry,
    HostCpuid,
    TooBig, //
};

/// Highest basic leaf that is told.
const MAX_BASIC: u32 = 0x1f;

/// First and highest extended leaf that is told.
const EXTENDED: u32 = 0x8000_0000;
const MAX_EXTENDED: u32 = 0x8000_0008;

/// First and highest leaf of the hypervisor.
const HYPERVISOR: u32 = 0x4000_0000;
const MAX_HYPERVISOR: u32 = 0x4000_0001;

/// "KVMKVMKVM\0\0\0" as EBX, ECX and EDX.
const SIGNATURE: [u32; 3] = [
    u32::from_le_bytes(*b"KVMK"),
    u32::from_le_bytes(*b"VMKV"),
    u32::from_le_bytes(*b"M\0\0\0"),
];

/// A table that is being filled, in memory of the caller's.
struct Table<'a> {
    entries: &'a mut [CpuidEntry],
    len: usize,
}

impl Table<'_> {
    /// Adds a row.
    fn push(&mut self, entry: CpuidEntry) -> Result<(), TooBig> {
        *self.entries.get_mut(self.len).ok_or(TooBig)? = entry;
        self.len += 1;
        Ok(())
    }

    /// Adds the row of one (sub)leaf.
    fn add(&mut self, leaf: u32, index: u32, regs: [u32; 4]) -> Result<(), TooBig> {
        self.push(CpuidEntry::new(leaf, index, regs))
    }
}

/// Fills `entries` with the table of KVM_GET_SUPPORTED_CPUID and returns the number of its rows.
///
/// `model` was made for the same host.
///
/// # Errors
///
/// [`TooBig`] if `entries` has less room than the table needs.
pub(crate) fn fill(
    host: &impl HostCpuid,
    model: &Model,
    entries: &mut [CpuidEntry],
) -> Result<usize, TooBig> {
    let mut table = Table { entries, len: 0 };

    let [host_max, vendor @ ..] = host.cpuid(0, 0);
    let max = host_max.min(MAX_BASIC);
    let [b, c, d] = vendor;
    table.add(0, 0, [max, b, c, d])?;
    for leaf in 1..=max {
        basic(host, model, leaf, &mut table)?;
    }

    let [host_max, ..] = host.cpuid(EXTENDED, 0);
    let max = host_max.min(MAX_EXTENDED);
    table.add(EXTENDED, 0, [max, 0, 0, 0])?;
    for leaf in EXTENDED + 1..=max {
        table.add(leaf, 0, extended(host, model, leaf))?;
    }

    let [b, c, d] = SIGNATURE;
    table.add(HYPERVISOR, 0, [MAX_HYPERVISOR, b, c, d])?;
    table.add(MAX_HYPERVISOR, 0, [model.supported.kvm_features, 0, 0, 0])?;
    Ok(table.len)
}

/// Adds the rows of one basic leaf from 1 up.
fn basic(
    host: &impl HostCpuid,
    model: &Model,
    leaf: u32,
    table: &mut Table<'_>,
) -> Result<(), TooBig> {
    match leaf {
        1 => {
            let [eax, ebx, ..] = host.cpuid(1, 0);
            let word = |word| model.features.word(word);
            // The initial APIC ID is each vCPU's own; the host's would change with the CPU.
            table.add(
                1,
                0,
                [eax, ebx & 0x00ff_ffff, word(Word::L1Ecx), word(Word::L1Edx)],
            )
        }
        2 => table.add(2, 0, host.cpuid(2, 0)),
        4 => caches(host, table),
        // ARAT: the APIC timer does not stop in deep sleep.
        6 => table.add(6, 0, [4, 0, 0, 0]),
        7 => extended_features(host, &model.features, table),
        0xd => xsave(host, model, table),
        // No processor serial number, MONITOR, performance counters, topology and all else that
        // the module does not virtualise.
        _ => table.add(leaf, 0, [0; 4]),
    }
}

/// Adds the rows of leaf 4: the host's caches, up to and with the first that does not exist.
fn caches(host: &impl HostCpuid, table: &mut Table<'_>) -> Result<(), TooBig> {
    // The bound keeps a CPU that never says "no more" from filling the table.
    for index in 0..16 {
        let regs = host.cpuid(4, index);
        table.add(4, index, regs)?;
        let [eax, ..] = regs;
        if eax & 0x1f == 0 {
            break;
        }
    }
    Ok(())
}

/// Adds the rows of leaf 7.
fn extended_features(
    host: &impl HostCpuid,
    features: &Features,
    table: &mut Table<'_>,
) -> Result<(), TooBig> {
    let [host_max, ..] = host.cpuid(7, 0);
    let max = host_max.min(2);
    let word = |word| features.word(word);
    table.add(
        7,
        0,
        [max, word(Word::L7Ebx), word(Word::L7Ecx), word(Word::L7Edx)],
    )?;
    if max >= 1 {
        table.add(7, 1, [word(Word::L7s1Eax), 0, 0, word(Word::L7s1Edx)])?;
    }
    if max >= 2 {
        table.add(7, 2, [0, 0, 0, word(Word::L7s2Edx)])?;
    }
    Ok(())
}

/// Adds the rows of leaf 0xd.
fn xsave(host: &impl HostCpuid, model: &Model, table: &mut Table<'_>) -> Result<(), TooBig> {
    let Model {
        supported,
        features,
        layout,
    } = model;
    let xcr0 = supported.xcr0();
    let size = layout.standard_size(xcr0);
    // CAST: the two halves of the mask.
    table.add(0xd, 0, [xcr0 as u32, size, size, (xcr0 >> 32) as u32])?;
    if xcr0 == 0 {
        return Ok(());
    }

    let compact = features.has(Feature::XSAVEC) || features.has(Feature::XSAVES);
    let size = if compact {
        layout.compacted_size(xcr0)
    } else {
        0
    };
    table.add(0xd, 1, [features.word(Word::LDs1Eax), size, 0, 0])?;

    for index in (2..64).filter(|&index| (xcr0 >> index) & 1 != 0 && layout.has(index)) {
        let [eax, ebx, ecx, _] = host.cpuid(0xd, index);
        // Bit 2 of ECX is for extended feature disable (XFD), which no guest has.
        table.add(0xd, index, [eax, ebx, ecx & !(1 << 2), 0])?;
    }
    Ok(())
}

/// Returns the registers of one extended leaf above the first.
fn extended(host: &impl HostCpuid, model: &Model, leaf: u32) -> [u32; 4] {
    let word = |word| model.features.word(word);
    match leaf {
        0x8000_0001 => {
            let [eax, ebx, ..] = host.cpuid(leaf, 0);
            let ebx = ebx & !0x0fff_0000;
            [eax, ebx, word(Word::E1Ecx), word(Word::E1Edx)]
        }
        0x8000_0005 => host.cpuid(leaf, 0),
        0x8000_0006 => {
            let [eax, ebx, ecx, edx] = host.cpuid(leaf, 0);
            [eax, ebx, ecx, edx & !(3 << 16)]
        }
        0x8000_0007 => [0, 0, 0, word(Word::E7Edx)],
        0x8000_0008 => {
            let [eax, ..] = host.cpuid(leaf, 0);
            [model.supported.address_widths(eax), word(Word::E8Ebx), 0, 0]
        }
        // The brand string is for user space to choose.
        _ => [0; 4],
    }
}

/// Fills `entries` with the table of KVM_GET_EMULATED_CPUID and returns the number of its rows.
///
/// The module emulates no instruction that the CPU lacks, so the rows say nothing but that.
///
/// # Errors
///
/// [`TooBig`] if `entries` has less room than the rows and one spare, as KVM demands.
#[allow(dead_code, reason = "for KVM_GET_EMULATED_CPUID")]
pub(crate) fn fill_emulated(entries: &mut [CpuidEntry]) -> Result<usize, TooBig> {
    let mut table = Table { entries, len: 0 };
    table.add(0, 0, [7, 0, 0, 0])?;
    table.add(1, 0, [0; 4])?;
    table.add(7, 0, [0; 4])?;
    if table.len < table.entries.len() {
        Ok(table.len)
    } else {
        Err(TooBig)
    }
}
