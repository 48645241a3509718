// SPDX-License-Identifier: GPL-2.0

//! Instructions on control and debug registers, descriptor tables and MSRs.

use super::{
    bus::{
        Bus,
        Fault,
        Mode,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    operand::{
        read,
        write,
        Operand,
        Register,
        Size,
        RAX,
        RBX,
        RCX,
        RDX, //
    },
    system::{
        DescriptorTable,
        SystemSegment,
        Table, //
    },
};

/// CR0.PE, MP, EM and TS: what LMSW changes.
const MACHINE_STATUS: u64 = 0xf;
/// CR0.PE, which LMSW cannot clear.
const PE: u64 = 1;
/// CR0.TS.
const TASK_SWITCHED: u64 = 1 << 3;
/// CR4.TSD: RDTSC is privileged.
const TIME_STAMP_DISABLE: u64 = 1 << 2;
/// CR4.UMIP: instructions that read system registers are privileged.
const USER_MODE_PREVENTION: u64 = 1 << 11;

/// A system instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SystemOperation {
    /// `mov` to or from a control register.
    MoveControl,
    /// `mov` to or from a debug register.
    MoveDebug,
    /// `lgdt`, `lidt`.
    LoadTable(Table),
    /// `sgdt`, `sidt`.
    StoreTable(Table),
    /// `lldt`, `ltr`.
    LoadSystemSegment(SystemSegment),
    /// `sldt`, `str`.
    StoreSystemSegment(SystemSegment),
    /// `lmsw`.
    LoadMachineStatus,
    /// `smsw`.
    StoreMachineStatus,
    /// `clts`.
    ClearTaskSwitched,
    /// `invlpg`.
    Invalidate,
    /// `invd`, `wbinvd`: nothing to do, since caches are coherent.
    Caches,
    /// `rdmsr`.
    ReadMsr,
    /// `wrmsr`.
    WriteMsr,
    /// `rdtsc`.
    ReadTimeStamp,
    /// `cpuid`.
    Identify,
    /// `hlt`.
    Halt,
}

impl<B: Bus> Execution<'_, B> {
    /// Executes a system instruction.
    pub(super) fn system(&mut self, operation: SystemOperation) -> Result<Outcome, Stop> {
        use SystemOperation::*;
        self.check_privilege(operation)?;
        match operation {
            MoveControl => self.move_control(),
            MoveDebug => self.move_debug(),
            LoadTable(table) => self.load_table(table),
            StoreTable(table) => self.store_table(table),
            LoadSystemSegment(name) => {
                let source = self.locate(&self.insn.source, Size::Word, false)?;
                // CAST: a value of two bytes.
                let selector = source.read(self.bus, Size::Word)? as u16;
                self.system_descriptor(name, selector)?.commit(self.bus)?;
                self.done()
            }
            StoreSystemSegment(name) => {
                let selector = self.bus.system_segment(name).selector;
                self.store_selector(selector)
            }
            LoadMachineStatus => {
                let source = self.locate(&self.insn.source, Size::Word, false)?;
                let word = source.read(self.bus, Size::Word)?;
                let old = self.bus.control(0)?;
                let new = (old & (!MACHINE_STATUS | PE)) | (word & MACHINE_STATUS);
                self.bus.set_control(0, new)?;
                self.done()
            }
            StoreMachineStatus => {
                let value = self.bus.control(0)?;
                self.store_word(value)
            }
            ClearTaskSwitched => {
                let old = self.bus.control(0)?;
                self.bus.set_control(0, old & !TASK_SWITCHED)?;
                self.done()
            }
            Invalidate => {
                if let Operand::Memory(memory) = &self.insn.destination {
                    let offset = memory.offset(self.next_rip, |register| self.bus.gpr(register));
                    // An address that is not canonical has no translation to drop.
                    if let Ok(linear) = self.bus.linear(memory.segment, offset, 1, false) {
                        self.bus.invalidate(linear);
                    }
                }
                self.done()
            }
            Caches => self.done(),
            ReadMsr => {
                let value = self.bus.read_msr(self.low(RCX))?;
                self.set_edx_eax(value);
                self.done()
            }
            WriteMsr => {
                let (index, value) = (self.low(RCX), self.edx_eax());
                self.bus.write_msr(index, value)?;
                self.done()
            }
            ReadTimeStamp => {
                let value = self.bus.time_stamp();
                self.set_edx_eax(value);
                self.done()
            }
            Identify => {
                let values = self.bus.cpuid(self.low(RAX), self.low(RCX))?;
                for (register, value) in [RAX, RBX, RCX, RDX].into_iter().zip(values) {
                    self.bus.set_gpr(register, u64::from(value));
                }
                self.done()
            }
            Halt => {
                self.bus.halt();
                self.done()
            }
        }
    }

    /// Checks that the current privilege level may execute `operation`, in this mode.
    fn check_privilege(&mut self, operation: SystemOperation) -> Result<(), Stop> {
        use SystemOperation::*;
        let unprivileged = match operation {
            Identify => true,
            ReadTimeStamp => self.bus.control(4)? & TIME_STAMP_DISABLE == 0,
            StoreTable(_) | StoreSystemSegment(_) | StoreMachineStatus => {
                self.bus.control(4)? & USER_MODE_PREVENTION == 0
            }
            // The debug registers have faults that come first.
            MoveDebug => true,
            _ => false,
        };
        if let LoadSystemSegment(_) | StoreSystemSegment(_) = operation {
            if !self.has_descriptors() {
                return Err(Stop::Fault(Fault::invalid_opcode()));
            }
        }
        if unprivileged || self.bus.cpl() == 0 {
            Ok(())
        } else {
            Err(Stop::Fault(Fault::general_protection()))
        }
    }

    /// Returns the low 4 bytes of a register.
    fn low(&self, register: u8) -> u32 {
        // CAST: four bytes.
        Register::low(register).read(self.bus, Size::Dword) as u32
    }

    /// Returns EDX:EAX.
    fn edx_eax(&self) -> u64 {
        (u64::from(self.low(RDX)) << 32) | u64::from(self.low(RAX))
    }

    /// Sets EDX:EAX, and the upper halves of RDX and RAX to 0.
    fn set_edx_eax(&mut self, value: u64) {
        Register::low(RAX).write(self.bus, Size::Dword, value);
        Register::low(RDX).write(self.bus, Size::Dword, value >> 32);
    }

    /// Executes `mov` to or from a control register.
    fn move_control(&mut self) -> Result<Outcome, Stop> {
        match (self.insn.destination, self.insn.source) {
            (Operand::Control(number), Operand::Register(source)) => {
                let value = source.read(self.bus, self.insn.size);
                self.bus.set_control(number, value)?;
            }
            (Operand::Register(destination), Operand::Control(number)) => {
                let value = self.bus.control(number)?;
                destination.write(self.bus, self.insn.size, value);
            }
            _ => return Err(Stop::Unsupported),
        }
        self.done()
    }

    /// Executes `mov` to or from a debug register.
    fn move_debug(&mut self) -> Result<Outcome, Stop> {
        match (self.insn.destination, self.insn.source) {
            (Operand::Debug(number), Operand::Register(source)) => {
                let value = source.read(self.bus, self.insn.size);
                self.bus.set_debug(number, value)?;
            }
            (Operand::Register(destination), Operand::Debug(number)) => {
                let value = self.bus.debug(number)?;
                destination.write(self.bus, self.insn.size, value);
            }
            _ => return Err(Stop::Unsupported),
        }
        self.done()
    }

    /// Returns the linear address of the table register in memory, and the size of the base there.
    fn table_in_memory(&self, operand: &Operand, write: bool) -> Result<(u64, Size), Stop> {
        let Operand::Memory(memory) = operand else {
            return Err(Stop::Unsupported);
        };
        let size = if self.bus.mode() == Mode::Long64 {
            Size::Qword
        } else {
            Size::Dword
        };
        let offset = memory.offset(self.next_rip, |register| self.bus.gpr(register));
        let bytes = size.bytes().saturating_add(2);
        let linear = self.bus.linear(memory.segment, offset, bytes, write)?;
        Ok((linear, size))
    }

    /// Executes `lgdt` or `lidt`.
    fn load_table(&mut self, table: Table) -> Result<Outcome, Stop> {
        let (linear, size) = self.table_in_memory(&self.insn.source, false)?;
        // CAST: a value of two bytes.
        let limit = read(self.bus, linear, Size::Word)? as u16;
        let base = read(self.bus, linear.wrapping_add(2), size)?;
        let base = match self.insn.size {
            Size::Word => base & 0xff_ffff,
            // The bits above a canonical address of 57 bits; with 48, an access faults.
            Size::Qword if !matches!(base >> 56, 0 | 0xff) => {
                return Err(Stop::Fault(Fault::general_protection()));
            }
            _ => base,
        };
        self.bus.set_table(table, DescriptorTable { base, limit });
        self.done()
    }

    /// Executes `sgdt` or `sidt`.
    fn store_table(&mut self, table: Table) -> Result<Outcome, Stop> {
        let (linear, size) = self.table_in_memory(&self.insn.destination, true)?;
        let value = self.bus.table(table);
        let bytes = size.bytes().saturating_add(2);
        self.bus.check_write(linear, bytes)?;
        write(self.bus, linear, Size::Word, u64::from(value.limit))?;
        write(self.bus, linear.wrapping_add(2), size, value.base)?;
        self.done()
    }
}
