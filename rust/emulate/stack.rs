// SPDX-License-Identifier: GPL-2.0

//! The stack, and near branches.

use super::{
    bus::{
        Bus,
        Segment,
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
        Size,
        RSP, //
    },
};

impl<B: Bus> Execution<'_, B> {
    /// Returns the bytes of RSP that the stack uses.
    fn stack_pointer(&self) -> Size {
        match self.bus.stack_pointer_size() {
            2 => Size::Word,
            4 => Size::Dword,
            _ => Size::Qword,
        }
    }

    /// Writes `value` to the stack and returns RSP after it, for the caller to set.
    fn push_value(&mut self, value: u64) -> Result<u64, Stop> {
        let size = self.insn.size;
        let pointer = self.stack_pointer();
        let rsp = self.bus.gpr(RSP);
        let rsp = pointer.merge(rsp, rsp.wrapping_sub(u64::from(size.bytes())));
        let offset = rsp & pointer.mask();
        let linear = self.bus.linear(Segment::Ss, offset, size.bytes(), true)?;
        write(self.bus, linear, size, value)?;
        Ok(rsp)
    }

    /// Executes `push`.
    pub(super) fn push(&mut self) -> Result<Outcome, Stop> {
        let source = self.source()?;
        let value = self.read(source)?;
        let rsp = self.push_value(value)?;
        self.bus.set_gpr(RSP, rsp);
        self.done()
    }

    /// Executes `pop`.
    pub(super) fn pop(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let pointer = self.stack_pointer();
        let rsp = self.bus.gpr(RSP);
        let offset = rsp & pointer.mask();
        let linear = self.bus.linear(Segment::Ss, offset, size.bytes(), false)?;
        let value = read(self.bus, linear, size)?;
        let rsp = pointer.merge(rsp, rsp.wrapping_add(u64::from(size.bytes())));
        match &self.insn.destination {
            Operand::Register(register) => {
                // RSP itself may be the destination.
                self.bus.set_gpr(RSP, rsp);
                register.write(self.bus, size, value);
            }
            Operand::Memory(memory) => {
                // An address based on RSP has RSP as it is after the pop.
                let offset = memory.offset(self.next_rip, |register| match register {
                    RSP => rsp,
                    _ => self.bus.gpr(register),
                });
                let linear = self
                    .bus
                    .linear(memory.segment, offset, size.bytes(), true)?;
                write(self.bus, linear, size, value)?;
                self.bus.set_gpr(RSP, rsp);
            }
            Operand::None | Operand::Immediate(_) => return Err(Stop::Unsupported),
        }
        self.done()
    }

    /// Returns the source as an offset that execution can continue at.
    fn target(&mut self) -> Result<u64, Stop> {
        let source = self.source()?;
        let target = self.read(source)?;
        self.bus.check_target(target)?;
        Ok(target)
    }

    /// Executes `call`.
    pub(super) fn call(&mut self) -> Result<Outcome, Stop> {
        let target = self.target()?;
        let rsp = self.push_value(self.next_rip)?;
        self.bus.set_gpr(RSP, rsp);
        self.bus.set_rip(target);
        Ok(Outcome::Done)
    }

    /// Executes `jmp`.
    pub(super) fn jump(&mut self) -> Result<Outcome, Stop> {
        let target = self.target()?;
        self.bus.set_rip(target);
        Ok(Outcome::Done)
    }
}
