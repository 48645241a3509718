// SPDX-License-Identifier: GPL-2.0

//! String instructions, one element at a time.

use super::{
    alu::{
        Binary,
        DF,
        ZF, //
    },
    bus::{
        Bus,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    instruction::Repeat,
    operand::{
        port_in,
        port_out,
        Base,
        Memory,
        Operand,
        Register,
        RCX, //
    },
};

/// What is done with each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StringOperation {
    /// `movs`: memory to memory.
    Move,
    /// `cmps`: memory against memory.
    Compare,
    /// `stos`: accumulator to memory.
    Store,
    /// `lods`: memory to accumulator.
    Load,
    /// `scas`: accumulator against memory.
    Scan,
    /// `ins`: port to memory.
    Input,
    /// `outs`: memory to port.
    Output,
}

impl<B: Bus> Execution<'_, B> {
    /// Executes an iteration of a string instruction: all of it, if it has no repeat prefix.
    pub(super) fn string(&mut self, operation: StringOperation) -> Result<Outcome, Stop> {
        let address = self.insn.address_size;
        let counter = Register::low(RCX);
        let step = u64::from(self.insn.size.bytes());
        let Some(repeat) = self.insn.repeat else {
            self.element(operation)?;
            self.advance(step);
            return self.done();
        };

        let count = counter.read(self.bus, address);
        if count == 0 {
            // Intel's CPUs write these registers nevertheless, which in 64-bit mode with 32-bit
            // addresses clears the upper halves.
            counter.write(self.bus, address, 0);
            if let StringOperation::Move | StringOperation::Store = operation {
                self.advance(0);
            }
            return self.done();
        }
        self.element(operation)?;
        self.advance(step);
        let count = count.wrapping_sub(1);
        counter.write(self.bus, address, count);
        if count == 0 || self.ends(operation, repeat) {
            self.done()
        } else {
            Ok(Outcome::Again)
        }
    }

    /// Returns whether the comparison just done ends the repetition.
    fn ends(&self, operation: StringOperation, repeat: Repeat) -> bool {
        match operation {
            StringOperation::Compare | StringOperation::Scan => {
                let equal = self.bus.rflags() & ZF != 0;
                equal != (repeat == Repeat::WhileEqual)
            }
            _ => false,
        }
    }

    /// Does the accesses of an element. Registers and flags change only after the last of them.
    fn element(&mut self, operation: StringOperation) -> Result<(), Stop> {
        let size = self.insn.size;
        match operation {
            StringOperation::Move | StringOperation::Store | StringOperation::Load => {
                let source = self.source()?;
                let destination = self.writable_destination()?;
                let value = self.read(source)?;
                self.write(destination, value)
            }
            StringOperation::Compare | StringOperation::Scan => {
                let destination = self.destination(false)?;
                let source = self.source()?;
                let left = self.read(destination)?;
                let right = self.read(source)?;
                let rflags = self.bus.rflags();
                let (_, rflags) = Binary::Compare.apply(size, left, right, rflags);
                self.bus.set_rflags(rflags);
                Ok(())
            }
            StringOperation::Input => {
                let port = self.port(&self.insn.source)?;
                let destination = self.writable_destination()?;
                let value = port_in(self.bus, port, size)?;
                self.write(destination, value)
            }
            StringOperation::Output => {
                let port = self.port(&self.insn.destination)?;
                let source = self.source()?;
                let value = self.read(source)?;
                port_out(self.bus, port, size, value)
            }
        }
    }

    /// Moves the pointers in use by `step`, in the direction of RFLAGS.DF.
    fn advance(&mut self, step: u64) {
        for operand in [self.insn.destination, self.insn.source] {
            if let Operand::Memory(Memory {
                base: Base::Register(pointer),
                size: address,
                ..
            }) = operand
            {
                let old = self.bus.gpr(pointer);
                let new = if self.bus.rflags() & DF == 0 {
                    old.wrapping_add(step)
                } else {
                    old.wrapping_sub(step)
                };
                Register::low(pointer).write(self.bus, address, new);
            }
        }
    }
}
