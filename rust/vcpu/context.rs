// SPDX-License-Identifier: GPL-2.0

//! The guest as its next instruction finds it: segments, paging and mode, and the addresses that follow.

use super::state::State;
use crate::{
    emulate::{
        Mode,
        Segment as Name, //
    },
    mmu::guest_walk::{
        translate,
        GuestPaging,
        WalkAccess, //
    },
    vm::Vm,
    vmx::vmcs::CurrentVmcs,
    x86::{
        addr::{
            Gpa,
            Gva,
            PAGE_SIZE, //
        },
        control_regs::{
            Cr0,
            Cr4,
            Efer,
            Rflags, //
        },
        cpuid::Feature,
        exception::{
            Exception,
            Vector, //
        },
        msr_value::is_canonical,
        segment::Segment,
        segment_register::SegmentRegister, //
    }, //
};

/// The longest instruction.
pub(super) const MAX_INSTRUCTION: usize = 15;

/// What of the guest's state an instruction's meaning depends on, read from the VMCS once.
pub(crate) struct Context {
    /// ES, CS, SS, DS, FS, GS; not in 64-bit mode, see [`Context::complete`].
    segments: Option<[Segment; 6]>,
    /// The first bytes of FS and GS, in 64-bit mode.
    bases: [u64; 2],
    /// How linear addresses are translated.
    pub(crate) paging: GuestPaging,
    pub(super) mode: Mode,
    linear_bits: u8,
}

/// Returns ES, CS, SS, DS, FS, GS.
fn read_segments(state: &State, vmcs: &CurrentVmcs<'_>) -> [Segment; 6] {
    let [es, cs, ss, ds, fs, gs, ..] = SegmentRegister::ALL;
    [es, cs, ss, ds, fs, gs].map(|register| state.segment(vmcs, register))
}

impl Context {
    /// Reads the context, and fetches the cached registers.
    ///
    /// In 64-bit mode, what no address depends on is left out of the segment registers.
    pub(crate) fn read(state: &mut State, vmcs: &CurrentVmcs<'_>) -> Self {
        state.fetch(vmcs);
        let cr0 = state.cr0(vmcs);
        let cr4 = state.cr4(vmcs);
        let rflags = state.fetched_rflags();
        let pae = cr4.contains(Cr4::PAE) && !state.efer.contains(Efer::LMA);
        let mut context = Self {
            segments: None,
            bases: [0; 2],
            paging: GuestPaging {
                cr0,
                cr3: state.cr3(vmcs),
                cr4,
                efer: state.efer,
                pdptrs: if pae { state.pdptes(vmcs) } else { [0; 4] },
                alignment_check: rflags & Rflags::AC.value() != 0,
                cpl: state.cpl_with(vmcs, cr0),
                phys_bits: u32::from(state.features.physical_bits),
                huge_1g: state.features.has(Feature::GBPAGES),
                pkru: state.protection_keys.rights(),
            },
            mode: Mode::Long64,
            linear_bits: if cr4.contains(Cr4::LA57) { 57 } else { 48 },
        };
        if state.is_64bit(vmcs) {
            context.bases = [SegmentRegister::Fs, SegmentRegister::Gs]
                .map(|register| state.segment_base(vmcs, register));
        } else {
            let [_, code, ..] = context.segments.insert(read_segments(state, vmcs));
            context.mode = if !cr0.contains(Cr0::PE) {
                Mode::Real
            } else if rflags & Rflags::VM.value() != 0 {
                Mode::Virtual8086
            } else if code.db {
                Mode::Protected32
            } else {
                Mode::Protected16
            };
        }
        context
    }

    /// Reads what [`Context::read`] left out, for instructions that look at segment registers.
    pub(super) fn complete(&mut self, state: &State, vmcs: &CurrentVmcs<'_>) {
        if self.segments.is_none() {
            self.segments = Some(read_segments(state, vmcs));
        }
    }

    /// Returns RIP of the instruction behind the one at `rip`, of `length` bytes.
    pub(super) fn next_rip(&self, rip: u64, length: u8) -> u64 {
        let next = rip.wrapping_add(u64::from(length));
        match self.mode {
            Mode::Long64 => next,
            _ => next & 0xffff_ffff,
        }
    }

    /// Returns a segment register, an unusable one if it was left out.
    pub(super) fn segment(&self, name: Name) -> &Segment {
        static LEFT_OUT: Segment = Segment::UNUSABLE;
        let Some([es, cs, ss, ds, fs, gs]) = &self.segments else {
            return &LEFT_OUT;
        };
        match name {
            Name::Es => es,
            Name::Cs => cs,
            Name::Ss => ss,
            Name::Ds => ds,
            Name::Fs => fs,
            Name::Gs => gs,
        }
    }

    /// Returns the linear address of `offset` in a segment for an access of `size` bytes.
    pub(crate) fn linear(
        &self,
        name: Name,
        offset: u64,
        size: u64,
        write: bool,
    ) -> Result<u64, Exception> {
        let fault = || {
            let vector = if matches!(name, Name::Ss) {
                Vector::SS
            } else {
                Vector::GP
            };
            Exception::with_error_code(vector, 0)
        };
        let last = size.saturating_sub(1);
        if self.mode == Mode::Long64 {
            let base = match (name, self.bases) {
                (Name::Fs, [fs, _]) => fs,
                (Name::Gs, [_, gs]) => gs,
                _ => 0,
            };
            let linear = base.wrapping_add(offset);
            let end = linear.wrapping_add(last);
            if !is_canonical(linear, self.linear_bits) || !is_canonical(end, self.linear_bits) {
                return Err(fault());
            }
            return Ok(linear);
        }
        let segment = self.segment(name);
        let offset = offset & 0xffff_ffff;
        let end = offset + last;
        if self.mode == Mode::Protected32 || self.mode == Mode::Protected16 {
            let code = segment.kind & 8 != 0;
            let writable_or_readable = segment.kind & 2 != 0;
            if segment.unusable
                || (write && code)
                || (!writable_or_readable && (write || (code && !matches!(name, Name::Cs))))
            {
                return Err(fault());
            }
        }
        let limit = u64::from(segment.limit);
        let expand_down = segment.kind & 0xc == 4 && self.mode != Mode::Real;
        let inside = if expand_down {
            let top = if segment.db { 0xffff_ffff } else { 0xffff };
            offset > limit && end <= top
        } else {
            end <= limit
        };
        if !inside {
            return Err(fault());
        }
        Ok(segment.base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// Returns the guest-physical address behind a linear one.
    pub(crate) fn translate(
        &self,
        vm: &Vm,
        linear: u64,
        write: bool,
        execute: bool,
    ) -> Result<Gpa, Exception> {
        let access = WalkAccess {
            write,
            execute,
            implicit: false,
        };
        translate(vm.memory(), &self.paging, Gva::new(linear), access)
            .map_err(|fault| Exception::page_fault(fault.error_code, fault.gva.value()))
    }

    /// Returns the linear address of the instruction at `rip`.
    pub(super) fn linear_rip(&self, rip: u64) -> u64 {
        match self.mode {
            Mode::Long64 => rip,
            _ => self.segment(Name::Cs).base.wrapping_add(rip) & 0xffff_ffff,
        }
    }

    /// As [`Context::translate`], for an access that the processor makes by itself, as to a
    /// descriptor table.
    pub(super) fn translate_table(
        &self,
        vm: &Vm,
        linear: u64,
        write: bool,
    ) -> Result<Gpa, Exception> {
        let access = WalkAccess {
            write,
            execute: false,
            implicit: true,
        };
        translate(vm.memory(), &self.paging, Gva::new(linear), access)
            .map_err(|fault| Exception::page_fault(fault.error_code, fault.gva.value()))
    }

    /// Returns `linear` without what an address of the mode does not have.
    pub(super) fn wrap(&self, linear: u64) -> u64 {
        if self.paging.efer.contains(Efer::LMA) {
            linear
        } else {
            linear & 0xffff_ffff
        }
    }

    /// Reads up to `N` bytes of code at `rip`, fewer if the next page is not there, or if an instruction
    /// ends before it.
    pub(super) fn fetch<const N: usize>(
        &self,
        vm: &Vm,
        rip: u64,
    ) -> Result<([u8; N], usize), Exception> {
        let mut bytes = [0; N];
        let mut len = 0;
        let linear = self.linear_rip(rip);
        while len < N.min(MAX_INSTRUCTION) {
            let at = linear.wrapping_add(len as u64);
            let gpa = match self.translate(vm, at, false, true) {
                Ok(gpa) => gpa,
                Err(fault) if len == 0 => return Err(fault),
                Err(_) => break,
            };
            // CAST: At most the size of a page.
            let in_page = (PAGE_SIZE - gpa.offset_in_page()) as usize;
            let end = N.min(len + in_page);
            let Some(target) = bytes.get_mut(len..end) else {
                break;
            };
            if vm.memory().read(gpa, target).is_err() {
                break;
            }
            len = end;
        }
        Ok((bytes, len))
    }
}
