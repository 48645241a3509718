// SPDX-License-Identifier: GPL-2.0

//! The stack, and the instructions that push and pop.

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
        Register,
        Size,
        RBP,
        RSP, //
    },
};

/// Returns the bytes of RSP that the stack uses.
fn pointer<B: Bus>(bus: &B) -> Size {
    match bus.stack_pointer_size() {
        2 => Size::Word,
        4 => Size::Dword,
        _ => Size::Qword,
    }
}

/// Moves `rsp` by `distance`.
pub(super) fn move_pointer<B: Bus>(bus: &B, rsp: u64, distance: u64) -> u64 {
    pointer(bus).merge(rsp, rsp.wrapping_add(distance))
}

/// Returns the linear address of the `size` bytes at `rsp`.
fn top<B: Bus>(bus: &B, rsp: u64, size: Size, write: bool) -> Result<u64, Stop> {
    let offset = rsp & pointer(bus).mask();
    bus.linear(Segment::Ss, offset, size.bytes(), write)
}

/// Writes `value` to the stack below `rsp`, and moves `rsp`, which the caller writes to RSP.
pub(super) fn push<B: Bus>(bus: &mut B, rsp: &mut u64, size: Size, value: u64) -> Result<(), Stop> {
    *rsp = move_pointer(bus, *rsp, u64::from(size.bytes()).wrapping_neg());
    let linear = top(bus, *rsp, size, true)?;
    write(bus, linear, size, value)
}

/// Reads from the stack at `rsp`, and moves `rsp`, which the caller writes to RSP.
pub(super) fn pop<B: Bus>(bus: &mut B, rsp: &mut u64, size: Size) -> Result<u64, Stop> {
    let linear = top(bus, *rsp, size, false)?;
    let value = read(bus, linear, size)?;
    *rsp = move_pointer(bus, *rsp, u64::from(size.bytes()));
    Ok(value)
}

/// Checks that `count` pushes below `rsp` would not fault, so that none of them is done if one is
/// refused.
pub(super) fn check_pushes<B: Bus>(
    bus: &mut B,
    rsp: u64,
    size: Size,
    count: u64,
) -> Result<(), Stop> {
    let mut rsp = rsp;
    for _ in 0..count {
        rsp = move_pointer(bus, rsp, u64::from(size.bytes()).wrapping_neg());
        let linear = top(bus, rsp, size, true)?;
        bus.check_write(linear, size.bytes())?;
    }
    Ok(())
}

impl<B: Bus> Execution<'_, B> {
    /// Executes `push`.
    pub(super) fn push(&mut self) -> Result<Outcome, Stop> {
        let source = self.source()?;
        let value = self.read(source)?;
        let mut rsp = self.bus.gpr(RSP);
        push(self.bus, &mut rsp, self.insn.size, value)?;
        self.bus.set_gpr(RSP, rsp);
        self.done()
    }

    /// Executes `push` of a segment register, which writes 2 bytes to a slot of the operand size.
    pub(super) fn push_segment(&mut self) -> Result<Outcome, Stop> {
        let Operand::Segment(name) = self.insn.source else {
            return Err(Stop::Unsupported);
        };
        let selector = u64::from(self.bus.segment(name).selector);
        let size = self.insn.size;
        let mut rsp = self.bus.gpr(RSP);
        if size == Size::Dword {
            // Intel's CPUs leave the upper half of the slot alone.
            rsp = move_pointer(self.bus, rsp, u64::from(size.bytes()).wrapping_neg());
            let linear = top(self.bus, rsp, Size::Word, true)?;
            write(self.bus, linear, Size::Word, selector)?;
        } else {
            push(self.bus, &mut rsp, size, selector)?;
        }
        self.bus.set_gpr(RSP, rsp);
        self.done()
    }

    /// Executes `pop`.
    pub(super) fn pop(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let mut rsp = self.bus.gpr(RSP);
        let value = pop(self.bus, &mut rsp, size)?;
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
            _ => return Err(Stop::Unsupported),
        }
        self.done()
    }

    /// Executes `pusha`.
    pub(super) fn push_all(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let mut rsp = self.bus.gpr(RSP);
        check_pushes(self.bus, rsp, size, 8)?;
        for index in 0..8 {
            // RSP as it was before.
            let value = self.bus.gpr(index);
            push(self.bus, &mut rsp, size, value)?;
        }
        self.bus.set_gpr(RSP, rsp);
        self.done()
    }

    /// Executes `popa`.
    pub(super) fn pop_all(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let mut rsp = self.bus.gpr(RSP);
        let mut values = [0; 8];
        for value in values.iter_mut().rev() {
            *value = pop(self.bus, &mut rsp, size)?;
        }
        for (index, value) in (0..8).zip(values) {
            if index != RSP {
                Register::low(index).write(self.bus, size, value);
            }
        }
        self.bus.set_gpr(RSP, rsp);
        self.done()
    }

    /// Executes `enter`.
    pub(super) fn enter(&mut self) -> Result<Outcome, Stop> {
        let Operand::Immediate(bytes) = self.insn.source else {
            return Err(Stop::Unsupported);
        };
        let size = self.insn.size;
        let level = self.insn.immediate.unwrap_or(0) & 31;
        let mut rsp = self.bus.gpr(RSP);
        let old = self.bus.gpr(RBP);
        push(self.bus, &mut rsp, size, old)?;
        let frame = rsp;
        if level > 0 {
            let mut outer = old;
            for _ in 1..level {
                outer = move_pointer(self.bus, outer, u64::from(size.bytes()).wrapping_neg());
                let linear = top(self.bus, outer, size, false)?;
                let value = read(self.bus, linear, size)?;
                push(self.bus, &mut rsp, size, value)?;
            }
            push(self.bus, &mut rsp, size, frame)?;
        }
        rsp = move_pointer(self.bus, rsp, (bytes & 0xffff).wrapping_neg());
        // What is below the stack's limit or unmapped shows here already.
        let linear = top(self.bus, rsp, size, true)?;
        self.bus.check_write(linear, size.bytes())?;
        Register::low(RBP).write(self.bus, size, frame);
        self.bus.set_gpr(RSP, rsp);
        self.done()
    }

    /// Executes `leave`.
    pub(super) fn leave(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let rbp = self.bus.gpr(RBP);
        let mut rsp = pointer(self.bus).merge(self.bus.gpr(RSP), rbp);
        let value = pop(self.bus, &mut rsp, size)?;
        Register::low(RBP).write(self.bus, size, value);
        self.bus.set_gpr(RSP, rsp);
        self.done()
    }
}
