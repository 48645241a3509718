// SPDX-License-Identifier: GPL-2.0

//! The system registers of a guest for tests.

use std::collections::BTreeMap;

use super::{
    super::{
        bus::{
            Fault,
            Mode,
            Segment,
            Stop, //
        },
        system::{
            DescriptorTable,
            SegmentRegister,
            Shadow,
            System,
            SystemSegment,
            Table, //
        }, //
    },
    machine::Machine, //
};

/// System registers, as values without meaning to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SystemState {
    pub(super) cpl: u8,
    pub(super) long_mode: bool,
    /// ES, CS, SS, DS, FS, GS, LDTR, TR.
    pub(super) segments: [SegmentRegister; 8],
    /// GDTR and IDTR.
    pub(super) tables: [DescriptorTable; 2],
    pub(super) control: [u64; 9],
    pub(super) debug: [u64; 8],
    pub(super) msrs: BTreeMap<u32, u64>,
    pub(super) vectors: [[u8; 32]; 16],
    pub(super) invalidated: Option<u64>,
    pub(super) halted: bool,
    pub(super) shadow: Option<Shadow>,
    pub(super) nmis_unblocked: bool,
}

impl SystemState {
    /// Returns flat segments of privilege level 0, and the rest 0.
    pub(super) fn new(mode: Mode) -> Self {
        let rights = match mode {
            Mode::Protected32 | Mode::Long64 => 0xc093,
            _ => 0x93,
        };
        let segment = SegmentRegister {
            selector: 0,
            base: 0,
            limit: u32::MAX,
            rights,
        };
        let table = DescriptorTable {
            base: 0,
            limit: 0xffff,
        };
        Self {
            cpl: 0,
            long_mode: mode == Mode::Long64,
            segments: [segment; 8],
            tables: [table; 2],
            control: [0; 9],
            debug: [0; 8],
            msrs: BTreeMap::new(),
            vectors: [[0; 32]; 16],
            invalidated: None,
            halted: false,
            shadow: None,
            nmis_unblocked: false,
        }
    }
}

impl System for Machine {
    fn cpl(&mut self) -> u8 {
        self.system.cpl
    }

    fn long_mode(&mut self) -> bool {
        self.system.long_mode
    }

    fn segment(&mut self, name: Segment) -> SegmentRegister {
        self.system.segments[name as usize]
    }

    fn set_segment(&mut self, name: Segment, value: &SegmentRegister) {
        self.system.segments[name as usize] = *value;
    }

    fn system_segment(&mut self, name: SystemSegment) -> SegmentRegister {
        self.system.segments[6 + name as usize]
    }

    fn set_system_segment(&mut self, name: SystemSegment, value: &SegmentRegister) {
        self.system.segments[6 + name as usize] = *value;
    }

    fn table(&mut self, table: Table) -> DescriptorTable {
        self.system.tables[table as usize]
    }

    fn set_table(&mut self, table: Table, value: DescriptorTable) {
        self.system.tables[table as usize] = value;
    }

    fn read_table(&mut self, linear: u64, data: &mut [u8]) -> Result<(), Stop> {
        data.copy_from_slice(self.bytes(linear, data.len(), false)?);
        Ok(())
    }

    fn write_table(&mut self, linear: u64, data: u8) -> Result<(), Stop> {
        self.bytes(linear, 1, true)?[0] = data;
        Ok(())
    }

    fn control(&mut self, register: u8) -> Result<u64, Stop> {
        Ok(self.system.control[usize::from(register)])
    }

    fn set_control(&mut self, register: u8, value: u64) -> Result<(), Stop> {
        if register == 8 && value > 15 {
            return Err(Stop::Fault(Fault::general_protection()));
        }
        self.system.control[usize::from(register)] = value;
        Ok(())
    }

    fn debug(&mut self, register: u8) -> Result<u64, Stop> {
        Ok(self.system.debug[usize::from(register)])
    }

    fn set_debug(&mut self, register: u8, value: u64) -> Result<(), Stop> {
        self.system.debug[usize::from(register)] = value;
        Ok(())
    }

    fn read_msr(&mut self, index: u32) -> Result<u64, Stop> {
        let fault = Stop::Fault(Fault::general_protection());
        self.system.msrs.get(&index).copied().ok_or(fault)
    }

    fn write_msr(&mut self, index: u32, value: u64) -> Result<(), Stop> {
        self.system.msrs.insert(index, value);
        Ok(())
    }

    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<[u32; 4], Stop> {
        Ok([leaf, subleaf, 3, 4])
    }

    fn time_stamp(&mut self) -> u64 {
        0x1234_5678_9abc_def0
    }

    fn invalidate(&mut self, linear: u64) {
        self.system.invalidated = Some(linear);
    }

    fn halt(&mut self) {
        self.system.halted = true;
    }

    fn shadow(&mut self, shadow: Shadow) {
        self.system.shadow = Some(shadow);
    }

    fn unblock_nmis(&mut self) {
        self.system.nmis_unblocked = true;
    }

    fn check_vectors(&mut self, _wide: bool) -> Result<(), Stop> {
        Ok(())
    }

    fn vector(&mut self, index: u8) -> [u8; 32] {
        self.system.vectors[usize::from(index)]
    }

    fn set_vector(&mut self, index: u8, value: &[u8; 32], wide: bool) {
        let size = if wide { 32 } else { 16 };
        self.system.vectors[usize::from(index)][..size].copy_from_slice(&value[..size]);
    }
}

/// Lets a guest that has a machine inside have its system registers.
macro_rules! system_of_machine {
    ($name:ident) => {
        impl System for $name {
            fn cpl(&mut self) -> u8 {
                self.machine.cpl()
            }
            fn long_mode(&mut self) -> bool {
                self.machine.long_mode()
            }
            fn segment(&mut self, name: Segment) -> SegmentRegister {
                System::segment(&mut self.machine, name)
            }
            fn set_segment(&mut self, name: Segment, value: &SegmentRegister) {
                self.machine.set_segment(name, value);
            }
            fn system_segment(&mut self, name: SystemSegment) -> SegmentRegister {
                self.machine.system_segment(name)
            }
            fn set_system_segment(&mut self, name: SystemSegment, value: &SegmentRegister) {
                self.machine.set_system_segment(name, value);
            }
            fn table(&mut self, table: Table) -> DescriptorTable {
                self.machine.table(table)
            }
            fn set_table(&mut self, table: Table, value: DescriptorTable) {
                self.machine.set_table(table, value);
            }
            fn read_table(&mut self, linear: u64, data: &mut [u8]) -> Result<(), Stop> {
                self.machine.read_table(linear, data)
            }
            fn write_table(&mut self, linear: u64, data: u8) -> Result<(), Stop> {
                self.machine.write_table(linear, data)
            }
            fn control(&mut self, register: u8) -> Result<u64, Stop> {
                self.machine.control(register)
            }
            fn set_control(&mut self, register: u8, value: u64) -> Result<(), Stop> {
                self.machine.set_control(register, value)
            }
            fn debug(&mut self, register: u8) -> Result<u64, Stop> {
                self.machine.debug(register)
            }
            fn set_debug(&mut self, register: u8, value: u64) -> Result<(), Stop> {
                self.machine.set_debug(register, value)
            }
            fn read_msr(&mut self, index: u32) -> Result<u64, Stop> {
                self.machine.read_msr(index)
            }
            fn write_msr(&mut self, index: u32, value: u64) -> Result<(), Stop> {
                self.machine.write_msr(index, value)
            }
            fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Result<[u32; 4], Stop> {
                self.machine.cpuid(leaf, subleaf)
            }
            fn time_stamp(&mut self) -> u64 {
                self.machine.time_stamp()
            }
            fn invalidate(&mut self, linear: u64) {
                self.machine.invalidate(linear);
            }
            fn halt(&mut self) {
                self.machine.halt();
            }
            fn shadow(&mut self, shadow: Shadow) {
                self.machine.shadow(shadow);
            }
            fn unblock_nmis(&mut self) {
                self.machine.unblock_nmis();
            }
            fn check_vectors(&mut self, wide: bool) -> Result<(), Stop> {
                self.machine.check_vectors(wide)
            }
            fn vector(&mut self, index: u8) -> [u8; 32] {
                self.machine.vector(index)
            }
            fn set_vector(&mut self, index: u8, value: &[u8; 32], wide: bool) {
                self.machine.set_vector(index, value, wide);
            }
        }
    };
}
pub(super) use system_of_machine;
