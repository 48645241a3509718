// SPDX-License-Identifier: GPL-2.0

//! The system registers of the guest, for instructions that are executed in software.
//!
//! Each method does what the exit of the same instruction does, but for moving on.

use super::{
    super::{
        control::{
            self,
            Written, //
        },
        pending::Pending,
        stats::Event, //
    },
    fault,
    After,
    DeviceExit,
    Machine, //
};
use crate::{
    bindings,
    emulate::{
        DescriptorTable,
        Segment as Name,
        SegmentRegister,
        Shadow,
        Stop,
        System,
        SystemSegment,
        Table, //
    },
    linux::fpu,
    vmx::guest_state,
    x86::{
        control_regs::{
            rules::{
                self,
                GpFault, //
            },
            Cr0,
            Cr4,
            Efer,
            Xcr0, //
        },
        exception::{
            Exception,
            Vector, //
        },
        segment::Segment,
        segment_register::SegmentRegister as Register, //
    }, //
};

/// Returns #GP(0), as what stops an instruction.
fn general_protection() -> Stop {
    fault(Exception::general_protection())
}

/// Returns the segment register with the name `name`.
pub(super) const fn register(name: Name) -> Register {
    match name {
        Name::Es => Register::Es,
        Name::Cs => Register::Cs,
        Name::Ss => Register::Ss,
        Name::Ds => Register::Ds,
        Name::Fs => Register::Fs,
        Name::Gs => Register::Gs,
    }
}

/// Returns the system segment register with the name `name`.
const fn system_register(name: SystemSegment) -> Register {
    match name {
        SystemSegment::Ldt => Register::Ldtr,
        SystemSegment::Task => Register::Tr,
    }
}

/// Returns a segment as the emulator has it.
fn to_emulator(segment: &Segment) -> SegmentRegister {
    SegmentRegister {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        rights: segment.access_rights(),
    }
}

/// Returns a segment as the emulator made it.
fn from_emulator(segment: &SegmentRegister) -> Segment {
    Segment::from_vmcs(
        segment.selector,
        segment.base,
        segment.limit,
        segment.rights,
    )
}

impl Machine<'_> {
    /// Writes CR0, CR3 or CR4, and the PDPTEs if they are read anew with it.
    fn set_paging_control(&mut self, register: u8, value: u64) -> Result<(), Stop> {
        let mut pdptes = None;
        for _ in 0..2 {
            let result = self.owned.with_vmcs(|vmcs, state| match register {
                0 => state.write_cr0(vmcs, value, pdptes),
                3 => state.write_cr3(vmcs, value, pdptes),
                _ => state.write_cr4(vmcs, value, pdptes),
            });
            match result.map_err(|GpFault| general_protection())? {
                Written::Done => break,
                Written::NeedsPdptes(cr3) => pdptes = Some(self.read_pdptes(cr3)?),
            }
        }
        Ok(())
    }

    /// Reads the PDPTEs that `cr3` points to.
    fn read_pdptes(&self, cr3: u64) -> Result<[u64; 4], Stop> {
        control::read_pdptes(self.vm.memory(), &self.owned.state.features, cr3)
            .map_err(|GpFault| general_protection())
    }

    /// Returns what becomes of an access to an MSR that failed for `reason`.
    fn msr_failed(&mut self, reason: u32, index: u32, written: Option<u64>) -> Stop {
        if !self.vm.settings().asks_user(reason) {
            return general_protection();
        }
        let exit = match written {
            None => bindings::KVM_EXIT_X86_RDMSR,
            Some(_) => bindings::KVM_EXIT_X86_WRMSR,
        };
        self.vcpu
            .run_page()
            .set_msr(exit, reason, index, written.unwrap_or(0));
        self.exit = Some(DeviceExit::Prepared(Pending::Msr {
            read: written.is_none(),
            length: self.length,
        }));
        Stop::Pending
    }
}

impl System for Machine<'_> {
    fn cpl(&mut self) -> u8 {
        self.context.paging.cpl
    }

    fn long_mode(&mut self) -> bool {
        self.context.paging.efer.contains(Efer::LMA)
    }

    fn segment(&mut self, name: Name) -> SegmentRegister {
        to_emulator(self.context.segment(name))
    }

    fn set_segment(&mut self, name: Name, value: &SegmentRegister) {
        let segment = from_emulator(value);
        self.owned
            .with_vmcs(|vmcs, state| state.load_segment(vmcs, register(name), &segment));
    }

    fn system_segment(&mut self, name: SystemSegment) -> SegmentRegister {
        let segment = self
            .owned
            .with_vmcs(|vmcs, state| state.segment(vmcs, system_register(name)));
        to_emulator(&segment)
    }

    fn set_system_segment(&mut self, name: SystemSegment, value: &SegmentRegister) {
        let segment = from_emulator(value);
        self.owned
            .with_vmcs(|vmcs, state| state.load_segment(vmcs, system_register(name), &segment));
    }

    fn table(&mut self, table: Table) -> DescriptorTable {
        let table = self.owned.with_vmcs(|vmcs, _| match table {
            Table::Global => vmcs.gdtr(),
            Table::Interrupt => vmcs.idtr(),
        });
        DescriptorTable {
            base: table.base,
            limit: table.limit,
        }
    }

    fn set_table(&mut self, table: Table, value: DescriptorTable) {
        let register = guest_state::DescriptorTable {
            base: value.base,
            limit: value.limit,
        };
        self.owned.with_vmcs(|vmcs, state| {
            match table {
                Table::Global => vmcs.set_gdtr(register),
                Table::Interrupt => vmcs.set_idtr(register),
            }
            state.recheck_entry();
        });
    }

    fn read_table(&mut self, linear: u64, data: &mut [u8]) -> Result<(), Stop> {
        for (index, byte) in data.chunks_mut(1).enumerate() {
            let at = self.context.wrap(linear.wrapping_add(index as u64));
            let gpa = self
                .context
                .translate_table(self.vm, at, false)
                .map_err(fault)?;
            self.vm
                .memory()
                .read(gpa, byte)
                .map_err(|_| Stop::Unsupported)?;
        }
        Ok(())
    }

    fn write_table(&mut self, linear: u64, data: u8) -> Result<(), Stop> {
        let at = self.context.wrap(linear);
        let gpa = self
            .context
            .translate_table(self.vm, at, true)
            .map_err(fault)?;
        self.vm
            .memory()
            .write(gpa, &[data])
            .map_err(|_| Stop::Unsupported)
    }

    fn control(&mut self, register: u8) -> Result<u64, Stop> {
        Ok(match register {
            0 => self.context.paging.cr0.value(),
            2 => self.owned.state.regs.cr2 as u64,
            3 => self.context.paging.cr3,
            4 => self.context.paging.cr4.value(),
            _ => u64::from(self.vcpu.cr8(&self.owned.state)),
        })
    }

    fn set_control(&mut self, register: u8, value: u64) -> Result<(), Stop> {
        match register {
            0 | 3 | 4 => self.set_paging_control(register, value),
            2 => {
                self.owned.state.regs.cr2 = value as usize;
                Ok(())
            }
            _ => {
                let new = rules::check_cr8(value).map_err(|GpFault| general_protection())?;
                let state = &mut self.owned.state;
                let old = self.vcpu.cr8(state);
                self.vcpu.set_cr8(state, new);
                if self.vcpu.controller().is_none() && new < old {
                    self.after = Some(After::LowerPriority);
                }
                Ok(())
            }
        }
    }

    fn debug(&mut self, register: u8) -> Result<u64, Stop> {
        self.owned
            .with_vmcs(|vmcs, state| {
                state.check_debug_access(vmcs, register)?;
                Ok(state.read_debug_register(register))
            })
            .map_err(fault)
    }

    fn set_debug(&mut self, register: u8, value: u64) -> Result<(), Stop> {
        self.owned
            .with_vmcs(|vmcs, state| {
                state.check_debug_access(vmcs, register)?;
                state.write_debug_register(vmcs, register, value)
            })
            .map_err(fault)
    }

    fn read_msr(&mut self, index: u32) -> Result<u64, Stop> {
        let (vm, vcpu) = (self.vm, self.vcpu);
        self.owned
            .with_vmcs(|vmcs, state| state.read_filtered_msr(vm, vcpu, vmcs, index))
            .map_err(|reason| self.msr_failed(reason, index, None))
    }

    fn write_msr(&mut self, index: u32, value: u64) -> Result<(), Stop> {
        let (vm, vcpu) = (self.vm, self.vcpu);
        self.owned
            .with_vmcs(|vmcs, state| state.write_filtered_msr(vm, vcpu, vmcs, index, value))
            .map_err(|reason| self.msr_failed(reason, index, Some(value)))
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<[u32; 4], Stop> {
        let (vm, vcpu) = (self.vm, self.vcpu);
        if self.owned.state.msrs.cpuid_faults() && self.cpl() > 0 {
            return Err(general_protection());
        }
        Ok(self.owned.with_vmcs(|vmcs, state| {
            if state.cpuid_stale {
                state.refresh_cpuid(vm, vcpu, vmcs);
            }
            state.cpuid.cpuid(leaf, subleaf)
        }))
    }

    fn time_stamp(&mut self) -> u64 {
        self.owned.state.tsc.now()
    }

    fn invalidate(&mut self, _linear: u64) {
        self.vcpu.count_event(Event::Invalidated);
        self.owned.state.owed.vpid = true;
    }

    fn halt(&mut self) {
        self.after = Some(After::Halt);
    }

    fn shadow(&mut self, shadow: Shadow) {
        self.shadow = Some(shadow);
    }

    fn unblock_nmis(&mut self) {
        self.owned
            .with_vmcs(|vmcs, state| state.set_blocks_nmis(vmcs, false));
    }

    fn check_vectors(&mut self, wide: bool) -> Result<(), Stop> {
        let paging = &self.context.paging;
        let invalid = if wide {
            !paging.cr4.contains(Cr4::OSXSAVE)
                || !self.owned.state.xcr0.contains(Xcr0::SSE.with(Xcr0::YMM))
        } else {
            paging.cr0.contains(Cr0::EM) || !paging.cr4.contains(Cr4::OSFXSR)
        };
        if invalid {
            return Err(fault(Exception::invalid_opcode()));
        }
        if paging.cr0.contains(Cr0::TS) {
            return Err(fault(Exception::plain(Vector::NM)));
        }
        Ok(())
    }

    fn vector(&mut self, index: u8) -> [u8; 32] {
        fpu::read_vector(index)
    }

    fn set_vector(&mut self, index: u8, value: &[u8; 32], wide: bool) {
        fpu::write_vector(index, value, wide);
    }
}
