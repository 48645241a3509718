// SPDX-License-Identifier: GPL-2.0

//! Control registers: who owns which bit, and what a write does.
//!
//! A bit of CR0 or CR4 that the *guest owns* is in the guest's register itself: reading and writing it
//! causes no exit. The others the VMM owns: the guest reads them from the read shadow, and a write that
//! would change one exits. The VMM owns those that need its own work (CR0.PG makes EFER.LMA, CR4.OSXSAVE
//! shows in CPUID, both decide about PDPTEs) and those that hardware needs otherwise (CR0.NE and
//! CR4.VMXE must be set, CR0.CD and CR0.NW must not reach the CPU).

use super::state::State;
use crate::{
    linux::host,
    memory::GuestMemory,
    vmx::{
        controls::entry,
        field::{
            self,
            Natural, //
        },
        vmcs::CurrentVmcs, //
    },
    x86::{
        addr::Gpa,
        control_regs::{
            rules::{
                self,
                GpFault,
                Paging, //
            },
            Cr0,
            Cr4,
            Efer, //
        },
        cpuid::GuestFeatures,
        segment_register::SegmentRegister, //
    }, //
};
use kernel::prelude::*;

/// Bits of CR0 that the guest changes without an exit.
pub(crate) const CR0_GUEST_OWNED: Cr0 = Cr0::TS
    .with(Cr0::MP)
    .with(Cr0::EM)
    .with(Cr0::WP)
    .with(Cr0::AM);

/// Bits of CR4 that a guest may change without an exit if it has the feature.
const CR4_GUEST_OWNED: Cr4 = Cr4::VME
    .with(Cr4::PVI)
    .with(Cr4::TSD)
    .with(Cr4::DE)
    .with(Cr4::PGE)
    .with(Cr4::PCE)
    .with(Cr4::OSFXSR)
    .with(Cr4::OSXMMEXCPT)
    .with(Cr4::FSGSBASE);

/// Bits of CR4 whose change drops translations.
const CR4_FLUSHING: Cr4 = Cr4::PSE
    .with(Cr4::PAE)
    .with(Cr4::PGE)
    .with(Cr4::PCIDE)
    .with(Cr4::SMEP)
    .with(Cr4::LA57);

/// Bits of CR0 that are 1 in hardware whatever the guest writes.
const CR0_ALWAYS: Cr0 = Cr0::NE.with(Cr0::ET);

/// Bits of CR0 that are 0 in hardware: caching is the host's affair.
const CR0_NEVER: Cr0 = Cr0::CD.with(Cr0::NW);

/// Bits of CR4 that are 1 in hardware whatever the guest writes.
const CR4_ALWAYS: Cr4 = Cr4::VMXE;

/// Bits of CR4 that are in hardware what the host has: with MCE clear, a machine check in the guest
/// would shut down the host.
const CR4_OF_HOST: Cr4 = Cr4::MCE;

/// Returns the bits of CR4 that this guest changes without an exit.
pub(crate) fn cr4_guest_owned(features: &GuestFeatures) -> Cr4 {
    CR4_GUEST_OWNED.without(features.cr4_reserved)
}

impl State {
    /// Tells the VMCS which bits the guest owns; the guest's CPUID is new.
    pub(crate) fn set_masks(&mut self, vmcs: &CurrentVmcs<'_>) {
        let owned = self.guest_owned();
        vmcs.write(field::CR0_GUEST_HOST_MASK, Natural(!owned.cr0.value()));
        vmcs.write(field::CR4_GUEST_HOST_MASK, Natural(!owned.cr4.value()));
        self.guest_owned = owned;
    }

    /// Loads CR0 as the guest sees it, and what follows from it for hardware.
    ///
    /// EFER.LMA is the caller's to set; see [`State::load_efer`].
    pub(crate) fn load_cr0(&mut self, vmcs: &CurrentVmcs<'_>, value: Cr0) {
        vmcs.write(field::CR0_READ_SHADOW, Natural(value.value()));
        let hardware = value.with(CR0_ALWAYS).without(CR0_NEVER);
        let hardware = self.restrict_cr0(vmcs, value, hardware);
        vmcs.write(field::GUEST_CR0, Natural(hardware.value()));
    }

    /// Loads CR4 as the guest sees it.
    pub(crate) fn load_cr4(&mut self, vmcs: &CurrentVmcs<'_>, value: Cr4) {
        vmcs.write(field::CR4_READ_SHADOW, Natural(value.value()));
        let hardware = value
            .with(CR4_ALWAYS)
            .without(CR4_OF_HOST)
            .with(Cr4::new(host::cr4()).common(CR4_OF_HOST));
        let hardware = self.restrict_cr4(hardware);
        vmcs.write(field::GUEST_CR4, Natural(hardware.value()));
        self.protect_by_cr4(value);
        self.cpuid_stale = true;
    }

    /// Loads EFER, and makes the guest enter or leave IA-32e mode with its LMA bit.
    pub(crate) fn load_efer(&mut self, vmcs: &CurrentVmcs<'_>, value: Efer) {
        let lma = value.contains(Efer::LMA) && !self.is_shadow();
        if lma != self.efer.contains(Efer::LMA) || !self.has_run {
            if lma {
                vmcs.set_bits(field::VM_ENTRY_CONTROLS, entry::IA32E_MODE_GUEST);
            } else {
                vmcs.clear_bits(field::VM_ENTRY_CONTROLS, entry::IA32E_MODE_GUEST);
            }
        }
        self.write_hardware_efer(vmcs, value);
        self.efer = value;
    }

    /// Does a guest's MOV to CR0, LMSW or CLTS, but for the PDPTEs.
    ///
    /// Returns whether the PDPTEs must be loaded before the write counts: then nothing has changed.
    pub(crate) fn write_cr0(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        value: u64,
        pdptes: Option<[u64; 4]>,
    ) -> Result<Written, GpFault> {
        let old = self.cr0(vmcs);
        let cr4 = self.cr4(vmcs);
        let cs_l = self.segment(vmcs, SegmentRegister::Cs).l;
        let new = rules::check_cr0(old, Cr0::new(value), cr4, self.efer, cs_l)?;
        if rules::cr0_loads_pdptes(old, new, cr4, self.efer) {
            let Some(entries) = pdptes else {
                return Ok(Written::NeedsPdptes(self.cr3(vmcs)));
            };
            self.load_pdptes(vmcs, entries);
        }
        self.load_cr0(vmcs, new);
        if old.difference(new).contains(Cr0::PG) {
            // The guest's instruction would have dropped the translations that its VPID tags.
            self.owed.vpid = true;
        }
        let efer = rules::efer_after_cr0(self.efer, new);
        if efer != self.efer {
            self.load_efer(vmcs, efer);
            if efer.contains(Efer::LMA) {
                make_tss_64bit(vmcs);
            }
        }
        Ok(Written::Done)
    }

    /// Does a guest's MOV to CR3 that exits or is executed in software; see [`State::write_cr0`].
    pub(crate) fn write_cr3(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        value: u64,
        pdptes: Option<[u64; 4]>,
    ) -> Result<Written, GpFault> {
        let cr4 = self.cr4(vmcs);
        let paging = Paging::of(self.cr0(vmcs), cr4, self.efer);
        let reserved = if self.efer.contains(Efer::LMA) {
            self.features.reserved_gpa
        } else {
            0
        };
        let write = rules::check_cr3(value, cr4, reserved)?;
        if paging == Paging::Pae {
            let Some(entries) = pdptes else {
                return Ok(Written::NeedsPdptes(write.value));
            };
            self.load_pdptes(vmcs, entries);
        }
        self.load_cr3(vmcs, write.value);
        if paging != Paging::Off && write.flush {
            // As in `write_cr0`.
            self.owed.vpid = true;
        }
        Ok(Written::Done)
    }

    /// Does a guest's MOV to CR4; see [`State::write_cr0`].
    pub(crate) fn write_cr4(
        &mut self,
        vmcs: &CurrentVmcs<'_>,
        value: u64,
        pdptes: Option<[u64; 4]>,
    ) -> Result<Written, GpFault> {
        let old = self.cr4(vmcs);
        let cr0 = self.cr0(vmcs);
        let cr3 = self.cr3(vmcs);
        let reserved = self.features.cr4_reserved;
        let new = rules::check_cr4(old, Cr4::new(value), cr0, cr3, self.efer, reserved)?;
        if rules::cr4_loads_pdptes(old, new, cr0, self.efer) {
            let Some(entries) = pdptes else {
                return Ok(Written::NeedsPdptes(cr3));
            };
            self.load_pdptes(vmcs, entries);
        }
        self.load_cr4(vmcs, new);
        if old.difference(new).intersects(CR4_FLUSHING) {
            // As in `write_cr0`.
            self.owed.vpid = true;
        }
        Ok(Written::Done)
    }
}

/// What became of a write to a control register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Written {
    /// It is done.
    Done,
    /// It needs the PDPTEs that this CR3 points to; do it again with them.
    NeedsPdptes(u64),
}

/// Makes TR a busy 64-bit TSS, which VM entry demands in IA-32e mode.
///
/// A CPU that activates long mode keeps the TSS that it had, of which only the type is wrong; software
/// loads another before it uses it.
fn make_tss_64bit(vmcs: &CurrentVmcs<'_>) {
    const TYPE: u32 = 0xf;
    const BUSY_TSS: u32 = 0xb;
    let rights = vmcs.access_rights(SegmentRegister::Tr);
    if rights & TYPE != BUSY_TSS {
        vmcs.write(field::GUEST_TR_ACCESS_RIGHTS, (rights & !TYPE) | BUSY_TSS);
    }
}

/// Reads the four PDPTEs that `cr3` points to; [`GpFault`] if one of them has reserved bits set or
/// cannot be read.
pub(crate) fn read_pdptes(
    memory: &GuestMemory,
    features: &GuestFeatures,
    cr3: u64,
) -> Result<[u64; 4], GpFault> {
    const PRESENT: u64 = 1;
    // Bits 1:2 and 5:8, and those above the physical-address width.
    let reserved = features.reserved_gpa | 0x1e6;
    let mut entries = [0; 4];
    let mut bytes = [0; 32];
    memory
        .read(Gpa::new(cr3 & 0xffff_ffe0), &mut bytes)
        .map_err(|_| GpFault)?;
    for (entry, chunk) in entries.iter_mut().zip(bytes.chunks_exact(8)) {
        *entry = chunk
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| GpFault)?;
        if *entry & PRESENT != 0 && *entry & reserved != 0 {
            return Err(GpFault);
        }
    }
    Ok(entries)
}
