// SPDX-License-Identifier: GPL-2.0

//! Near branches.

use super::{
    bus::{
        Bus,
        Stop, //
    },
    execute::{
        Execution,
        Outcome, //
    },
    flags::{
        condition,
        ZF, //
    },
    operand::{
        Operand,
        Register,
        RCX,
        RSP, //
    },
    stack,
};

/// When a branch that counts in rCX is taken. The order is that of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// `loopne`: rCX, decremented, is not 0, and ZF is clear.
    WhileNotEqual,
    /// `loope`: rCX, decremented, is not 0, and ZF is set.
    WhileEqual,
    /// `loop`: rCX, decremented, is not 0.
    While,
    /// `jcxz`: rCX is 0.
    IfZero,
}

impl Counted {
    /// Returns the branch with the number `code`, of which two bits count.
    pub(super) const fn encoded(code: u8) -> Self {
        match code & 3 {
            0 => Self::WhileNotEqual,
            1 => Self::WhileEqual,
            2 => Self::While,
            _ => Self::IfZero,
        }
    }
}

impl<B: Bus> Execution<'_, B> {
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
        let mut rsp = self.bus.gpr(RSP);
        stack::push(self.bus, &mut rsp, self.insn.size, self.next_rip)?;
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

    /// Executes `ret`, with or without bytes to take off the stack.
    pub(super) fn near_return(&mut self) -> Result<Outcome, Stop> {
        let mut rsp = self.bus.gpr(RSP);
        let target = stack::pop(self.bus, &mut rsp, self.insn.size)?;
        self.bus.check_target(target)?;
        let rsp = stack::move_pointer(self.bus, rsp, self.bytes_to_drop());
        self.bus.set_gpr(RSP, rsp);
        self.bus.set_rip(target);
        Ok(Outcome::Done)
    }

    /// Returns the bytes that a return takes off the stack besides what it pops.
    pub(super) fn bytes_to_drop(&self) -> u64 {
        match self.insn.source {
            Operand::Immediate(bytes) => bytes & 0xffff,
            _ => 0,
        }
    }

    /// Executes a branch on the condition `code`.
    pub(super) fn branch(&mut self, code: u8) -> Result<Outcome, Stop> {
        if condition(code, self.bus.rflags()) {
            self.jump()
        } else {
            self.done()
        }
    }

    /// Executes a branch on rCX.
    pub(super) fn counted_branch(&mut self, counted: Counted) -> Result<Outcome, Stop> {
        let size = self.insn.address_size;
        let counter = Register::low(RCX);
        let old = counter.read(self.bus, size);
        let new = match counted {
            Counted::IfZero => old,
            _ => old.wrapping_sub(1) & size.mask(),
        };
        let equal = self.bus.rflags() & ZF != 0;
        let taken = match counted {
            Counted::WhileNotEqual => new != 0 && !equal,
            Counted::WhileEqual => new != 0 && equal,
            Counted::While => new != 0,
            Counted::IfZero => new == 0,
        };
        let outcome = if taken { self.jump()? } else { self.done()? };
        if counted != Counted::IfZero {
            counter.write(self.bus, size, new);
        }
        Ok(outcome)
    }
}
