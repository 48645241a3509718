// SPDX-License-Identifier: GPL-2.0

//! Moves of vector registers, which drivers use to copy from and to devices.

use super::{
    bus::{
        Bus,
        Fault,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    operand::Operand,
};

/// A move between a vector register and another or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VectorMove {
    /// 32 bytes, not 16.
    pub(super) wide: bool,
    /// Memory has to be aligned to the size.
    pub(super) aligned: bool,
    /// Encoded with VEX: the rest of the destination register is cleared.
    pub(super) vex: bool,
}

impl<B: Bus> Execution<'_, B> {
    /// Executes a move of vector registers.
    pub(super) fn move_vector(&mut self, operation: VectorMove) -> Result<Outcome, Stop> {
        self.bus.check_vectors(operation.vex)?;
        let bytes = if operation.wide { 32 } else { 16 };
        let mut data = [0; 32];
        let source = self.vector_place(&self.insn.source, operation, false)?;
        let destination = self.vector_place(&self.insn.destination, operation, true)?;
        match source {
            VectorPlace::Register(index) => data = self.bus.vector(index),
            VectorPlace::Memory(linear) => {
                for (part, at) in data.chunks_mut(16).zip([0, 16]).take(bytes / 16) {
                    self.bus.read(linear.wrapping_add(at), part)?;
                }
            }
        }
        match destination {
            VectorPlace::Register(index) => {
                if let Some(rest) = data.get_mut(bytes..) {
                    rest.fill(0);
                }
                self.bus.set_vector(index, &data, operation.vex);
            }
            VectorPlace::Memory(linear) => {
                if operation.wide {
                    self.bus.check_write(linear, 32)?;
                }
                for (part, at) in data.chunks(16).zip([0, 16]).take(bytes / 16) {
                    self.bus.write(linear.wrapping_add(at), part)?;
                }
            }
        }
        self.done()
    }

    /// Returns where an operand is.
    fn vector_place(
        &self,
        operand: &Operand,
        operation: VectorMove,
        write: bool,
    ) -> Result<VectorPlace, Stop> {
        let bytes = if operation.wide { 32 } else { 16 };
        match operand {
            Operand::Vector(index) => Ok(VectorPlace::Register(*index)),
            Operand::Memory(memory) => {
                let offset = memory.offset(self.next_rip, |register| self.bus.gpr(register));
                let linear = self.bus.linear(memory.segment, offset, bytes, write)?;
                let unaligned = linear & u64::from(bytes).wrapping_sub(1) != 0;
                if operation.aligned && unaligned {
                    return Err(Stop::Fault(Fault::general_protection()));
                }
                Ok(VectorPlace::Memory(linear))
            }
            _ => Err(Stop::Unsupported),
        }
    }
}

/// Where a vector is.
#[derive(Clone, Copy)]
enum VectorPlace {
    /// In a register.
    Register(u8),
    /// At a linear address.
    Memory(u64),
}
