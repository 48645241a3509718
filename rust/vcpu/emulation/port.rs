// SPDX-License-Identifier: GPL-2.0

//! Ports, for instructions that are executed in software.

use super::{
    fault,
    DeviceExit,
    Machine, //
};
use crate::{
    emulate::{
        Mode,
        Stop, //
    },
    vm::bus::Space,
    x86::{
        control_regs::Rflags,
        exception::Exception,
        segment_register::SegmentRegister, //
    }, //
};

/// Where a TSS of 32 or 64 bits has the offset of its map of ports.
const MAP_FIELD: u32 = 0x66;
/// The type of a busy TSS that has one.
const BUSY_TSS: u8 = 0xb;

impl Machine<'_> {
    /// Checks that the code may use `size` ports from `port` on: #GP(0) if not.
    fn check_port(&mut self, port: u16, size: usize) -> Result<(), Stop> {
        let level = (self.owned.state.fetched_rflags() & Rflags::IOPL.value()) >> 12;
        let privileged = match self.context.mode {
            Mode::Real => true,
            Mode::Virtual8086 => false,
            _ => u64::from(self.context.paging.cpl) <= level,
        };
        if privileged {
            return Ok(());
        }
        let refused = fault(Exception::general_protection());
        let task = self
            .owned
            .with_vmcs(|vmcs, state| state.segment(vmcs, SegmentRegister::Tr));
        if task.unusable || task.kind != BUSY_TSS || task.limit < MAP_FIELD + 1 {
            return Err(refused);
        }
        let mut field = [0; 2];
        self.read_task(task.base, MAP_FIELD, &mut field)?;
        let first = u32::from(u16::from_le_bytes(field)) + u32::from(port / 8);
        // Two bytes are read always.
        if first + 1 > task.limit {
            return Err(refused);
        }
        let mut map = [0; 2];
        self.read_task(task.base, first, &mut map)?;
        // CAST: 1, 2 or 4.
        let wanted = (1_u16 << size as u32) - 1;
        if (u16::from_le_bytes(map) >> (port % 8)) & wanted != 0 {
            return Err(refused);
        }
        Ok(())
    }

    /// Reads the TSS at `base`.
    fn read_task(&mut self, base: u64, offset: u32, data: &mut [u8]) -> Result<(), Stop> {
        use crate::emulate::System;
        self.read_table(base.wrapping_add(u64::from(offset)), data)
    }

    /// Reads from a port: what a device in the kernel or the client gave, or asks the client for it.
    pub(super) fn read_port(&mut self, port: u16, data: &mut [u8]) -> Result<(), Stop> {
        self.check_port(port, data.len())?;
        if self.read_in_kernel(Space::Pio, port.into(), data) {
            return Ok(());
        }
        self.exit = Some(DeviceExit::PortRead(port, data.len()));
        Err(Stop::Pending)
    }

    /// Writes to a port, unless it was done.
    pub(super) fn write_port(&mut self, port: u16, data: &[u8]) -> Result<(), Stop> {
        self.check_port(port, data.len())?;
        if self.write_in_kernel(Space::Pio, port.into(), data) {
            return Ok(());
        }
        self.vcpu.run_page().write_data(data);
        self.exit = Some(DeviceExit::PortWrite(port, data.len()));
        Err(Stop::Pending)
    }
}
