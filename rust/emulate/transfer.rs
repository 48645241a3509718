// SPDX-License-Identifier: GPL-2.0

//! Instructions that move or test values in registers: conditional moves, extensions of the
//! accumulator, table look-up, bounds.

use super::{
    bus::{
        Bus,
        Fault,
        Stop, //
    },
    execute::{
        swap,
        Execution,
        Outcome, //
    },
    flags::{
        condition,
        CF, //
    },
    operand::{
        read,
        Operand,
        Place,
        Register,
        Size,
        RAX,
        RDX, //
    },
};

impl<B: Bus> Execution<'_, B> {
    /// Executes `lea`.
    pub(super) fn load_address(&mut self) -> Result<Outcome, Stop> {
        let Operand::Memory(memory) = &self.insn.source else {
            return Err(Stop::Unsupported);
        };
        let offset = memory.offset(self.next_rip, |register| self.bus.gpr(register));
        let destination = self.destination(true)?;
        self.write(destination, offset)?;
        self.done()
    }

    /// Executes a move on the condition `code`, which reads its source in any case.
    pub(super) fn conditional_move(&mut self, code: u8) -> Result<Outcome, Stop> {
        let source = self.source()?;
        let destination = self.destination(true)?;
        let new = self.read(source)?;
        let value = if condition(code, self.bus.rflags()) {
            new
        } else {
            // A write of 4 bytes clears the upper half in any case, too.
            self.read(destination)?
        };
        self.write(destination, value)?;
        self.done()
    }

    /// Executes `setcc`.
    pub(super) fn set(&mut self, code: u8) -> Result<Outcome, Stop> {
        let destination = self.destination(true)?;
        let value = u64::from(condition(code, self.bus.rflags()));
        self.write(destination, value)?;
        self.done()
    }

    /// Executes `bswap`.
    pub(super) fn swap_bytes(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let destination = self.destination(true)?;
        let value = match size {
            // Undefined, and 0 on Intel's CPUs.
            Size::Word => 0,
            _ => swap(size, self.read(destination)?),
        };
        self.write(destination, value)?;
        self.done()
    }

    /// Executes `cbw`, `cwde` and `cdqe`.
    pub(super) fn extend_accumulator(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let half = match size {
            Size::Qword => Size::Dword,
            Size::Dword => Size::Word,
            _ => Size::Byte,
        };
        let accumulator = Register::low(RAX);
        let value = half.sign_extend(accumulator.read(self.bus, half));
        accumulator.write(self.bus, size, value);
        self.done()
    }

    /// Executes `cwd`, `cdq` and `cqo`.
    pub(super) fn sign_accumulator(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let negative = Register::low(RAX).read(self.bus, size) & size.sign_bit() != 0;
        let value = if negative { u64::MAX } else { 0 };
        Register::low(RDX).write(self.bus, size, value);
        self.done()
    }

    /// Executes `salc`.
    pub(super) fn carry_to_al(&mut self) -> Result<Outcome, Stop> {
        let carry = self.bus.rflags() & CF;
        Register::low(RAX).write(self.bus, Size::Byte, carry.wrapping_neg());
        self.done()
    }

    /// Executes `xlat`.
    pub(super) fn translate(&mut self) -> Result<Outcome, Stop> {
        let Operand::Memory(memory) = &self.insn.source else {
            return Err(Stop::Unsupported);
        };
        let al = Register::low(RAX);
        let index = al.read(self.bus, Size::Byte);
        let base = memory.offset(self.next_rip, |register| self.bus.gpr(register));
        let offset = base.wrapping_add(index) & memory.size.mask();
        let linear = self.bus.linear(memory.segment, offset, 1, false)?;
        let value = read(self.bus, linear, Size::Byte)?;
        al.write(self.bus, Size::Byte, value);
        self.done()
    }

    /// Executes `bound`.
    pub(super) fn bound(&mut self) -> Result<Outcome, Stop> {
        const BOUND_RANGE: u8 = 5;
        let size = self.insn.size;
        let whole = size.bytes().saturating_mul(2);
        let place = self
            .insn
            .source
            .locate(self.bus, self.next_rip, whole, false)?;
        let Place::Memory(linear) = place else {
            return Err(Stop::Unsupported);
        };
        let destination = self.destination(false)?;
        // CAST: signed comparisons.
        let signed = |value| size.sign_extend(value) as i64;
        let index = signed(self.read(destination)?);
        let lower = signed(read(self.bus, linear, size)?);
        let at = linear.wrapping_add(u64::from(size.bytes()));
        let upper = signed(read(self.bus, at, size)?);
        if index < lower || index > upper {
            return Err(Stop::Fault(Fault::plain(BOUND_RANGE)));
        }
        self.done()
    }
}
