// SPDX-License-Identifier: GPL-2.0

//! Execution of an instruction, and the operations that move and compute.

use super::{
    alu::{
        Binary,
        Unary,
        ZF, //
    },
    bus::{
        Bus,
        Fault,
        Mode,
        Stop, //
    },
    instruction::{
        Instruction,
        Operation, //
    },
    operand::{
        port_in,
        port_out,
        Operand,
        Place,
        Register,
        Size,
        RAX,
        RBX,
        RCX,
        RDX, //
    },
};

/// How far an instruction got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an instruction may have to be executed again"]
pub(crate) enum Outcome {
    /// The instruction is complete: RIP has advanced.
    Done,
    /// RIP has not advanced: execute the instruction once more, maybe after an interrupt.
    ///
    /// Either one iteration of a repeated string instruction is complete, or an atomic access lost
    /// a race and nothing has happened.
    Again,
}

/// Executes `insn`, which was decoded at the RIP and in the mode that `bus` has.
///
/// On [`Stop`] no register, flag or RIP has changed.
pub(crate) fn execute<B: Bus>(insn: &Instruction, bus: &mut B) -> Result<Outcome, Stop> {
    let next_rip = bus.rip().wrapping_add(u64::from(insn.length));
    let next_rip = match bus.mode() {
        Mode::Long64 => next_rip,
        // Code of 16 bits goes on past offset FFFF, too, if its segment does. Only branches
        // truncate to the operand size.
        _ => next_rip & Size::Dword.mask(),
    };
    let mut execution = Execution {
        insn,
        bus,
        next_rip,
    };
    match insn.operation {
        Operation::Move => execution.transfer(insn.size, |value| value),
        Operation::Extend { from, signed: true } => {
            execution.transfer(from, |value| from.sign_extend(value))
        }
        Operation::Extend { from, .. } => execution.transfer(from, |value| value),
        Operation::MoveSwapped => execution.transfer(insn.size, |value| swap(insn.size, value)),
        Operation::Binary(operation) => execution.binary(operation),
        Operation::Unary(operation) => execution.unary(operation),
        Operation::Bit(operation) => execution.bit(operation),
        Operation::Exchange => execution.exchange(),
        Operation::ExchangeAdd => execution.exchange_add(),
        Operation::CompareExchange => execution.compare_exchange(),
        Operation::CompareExchangePair => execution.compare_exchange_pair(),
        Operation::Nothing => execution.done(),
        Operation::LoadAddress => execution.load_address(),
        Operation::Shift(operation) => execution.shift(operation),
        Operation::DoubleShift { right, by_cl } => execution.double_shift(right, by_cl),
        Operation::Multiply { signed } => execution.multiply(signed),
        Operation::MultiplyInto => execution.multiply_into(),
        Operation::Divide { signed } => execution.divide(signed),
        Operation::BitScan { reverse } => execution.bit_scan(reverse),
        Operation::SwapBytes => execution.swap_bytes(),
        Operation::Decimal(operation) => execution.decimal(operation),
        Operation::ConditionalMove(code) => execution.conditional_move(code),
        Operation::Set(code) => execution.set(code),
        Operation::ExtendAccumulator => execution.extend_accumulator(),
        Operation::SignAccumulator => execution.sign_accumulator(),
        Operation::CarryToAl => execution.carry_to_al(),
        Operation::Translate => execution.translate(),
        Operation::Bound => execution.bound(),
        Operation::Flag(operation) => execution.flag(operation),
        Operation::LoadAh => execution.load_ah(),
        Operation::StoreAh => execution.store_ah(),
        Operation::PushFlags => execution.push_flags(),
        Operation::PopFlags => execution.pop_flags(),
        Operation::PushAll => execution.push_all(),
        Operation::PopAll => execution.pop_all(),
        Operation::Enter => execution.enter(),
        Operation::Leave => execution.leave(),
        Operation::Push => execution.push(),
        Operation::PushSegment => execution.push_segment(),
        Operation::PopSegment => execution.pop_segment(),
        Operation::LoadSegment => execution.load_segment(),
        Operation::StoreSegment => execution.store_segment(),
        Operation::LoadFarPointer(name) => execution.load_far_pointer(name),
        Operation::Pop => execution.pop(),
        Operation::Call => execution.call(),
        Operation::Jump => execution.jump(),
        Operation::Branch(code) => execution.branch(code),
        Operation::CountedBranch(counted) => execution.counted_branch(counted),
        Operation::Return => execution.near_return(),
        Operation::FarCall => execution.far_call(),
        Operation::FarJump => execution.far_jump(),
        Operation::FarReturn => execution.far_return(),
        Operation::InterruptReturn => execution.interrupt_return(),
        Operation::Interrupt | Operation::Breakpoint | Operation::Overflow => execution.interrupt(),
        Operation::System(operation) => execution.system(operation),
        Operation::MoveVector(operation) => execution.move_vector(operation),
        Operation::In => execution.port_in(),
        Operation::Out => execution.port_out(),
        Operation::String(operation) => execution.string(operation),
    }
}

/// Returns the low `size` of `value` with its bytes in reverse order.
pub(super) const fn swap(size: Size, value: u64) -> u64 {
    let swapped = value.swap_bytes();
    match size {
        Size::Byte => swapped >> 56,
        Size::Word => swapped >> 48,
        Size::Dword => swapped >> 32,
        Size::Qword => swapped,
    }
}

/// An instruction on its way.
pub(super) struct Execution<'a, B: Bus> {
    pub(super) insn: &'a Instruction,
    pub(super) bus: &'a mut B,
    /// The offset of the next instruction.
    pub(super) next_rip: u64,
}

impl<B: Bus> Execution<'_, B> {
    /// Ends the instruction. All registers but RIP are written.
    pub(super) fn done(&mut self) -> Result<Outcome, Stop> {
        self.bus.set_rip(self.next_rip);
        Ok(Outcome::Done)
    }

    /// Returns the place of `operand`, for an access of `size`.
    pub(super) fn locate(&self, operand: &Operand, size: Size, write: bool) -> Result<Place, Stop> {
        operand.locate(self.bus, self.next_rip, size.bytes(), write)
    }

    /// Returns the place of the source, to be read.
    pub(super) fn source(&self) -> Result<Place, Stop> {
        self.locate(&self.insn.source, self.insn.size, false)
    }

    /// Returns the place of the destination.
    pub(super) fn destination(&self, write: bool) -> Result<Place, Stop> {
        self.locate(&self.insn.destination, self.insn.size, write)
    }

    /// Returns the place of the destination after checking that it can be written.
    pub(super) fn writable_destination(&mut self) -> Result<Place, Stop> {
        self.writable(&self.insn.destination)
    }

    /// Returns the place of `operand` after checking that it can be written.
    pub(super) fn writable(&mut self, operand: &Operand) -> Result<Place, Stop> {
        let place = self.locate(operand, self.insn.size, true)?;
        if let Place::Memory(linear) = place {
            self.bus.check_write(linear, self.insn.size.bytes())?;
        }
        Ok(place)
    }

    /// Reads `place` with the operand size.
    pub(super) fn read(&mut self, place: Place) -> Result<u64, Stop> {
        place.read(self.bus, self.insn.size)
    }

    /// Writes `place` with the operand size.
    pub(super) fn write(&mut self, place: Place, value: u64) -> Result<(), Stop> {
        place.write(self.bus, self.insn.size, value)
    }

    /// Replaces `old` at `place` by `new`. Returns false if the instruction has to start over.
    pub(super) fn replace(&mut self, place: Place, old: u64, new: u64) -> Result<bool, Stop> {
        place.replace(self.bus, self.insn.size, old, new, self.insn.lock)
    }

    /// Writes the destination with `change` of the source, which has the size `from`.
    fn transfer(&mut self, from: Size, change: impl FnOnce(u64) -> u64) -> Result<Outcome, Stop> {
        let source = self.locate(&self.insn.source, from, false)?;
        let destination = self.destination(true)?;
        let value = source.read(self.bus, from)?;
        self.write(destination, change(value))?;
        self.done()
    }

    /// Executes an operation on two values.
    fn binary(&mut self, operation: Binary) -> Result<Outcome, Stop> {
        let source = self.source()?;
        let place = if operation.writes() {
            self.writable_destination()?
        } else {
            self.destination(false)?
        };
        let left = self.read(place)?;
        let right = self.read(source)?;
        let rflags = self.bus.rflags();
        let (result, rflags) = operation.apply(self.insn.size, left, right, rflags);
        if operation.writes() && !self.replace(place, left, result)? {
            return Ok(Outcome::Again);
        }
        self.bus.set_rflags(rflags);
        self.done()
    }

    /// Executes an operation on one value.
    fn unary(&mut self, operation: Unary) -> Result<Outcome, Stop> {
        let place = self.writable_destination()?;
        let old = self.read(place)?;
        let (new, rflags) = operation.apply(self.insn.size, old, self.bus.rflags());
        if !self.replace(place, old, new)? {
            return Ok(Outcome::Again);
        }
        self.bus.set_rflags(rflags);
        self.done()
    }

    /// Executes `xchg`, which is atomic without LOCK prefix, too.
    fn exchange(&mut self) -> Result<Outcome, Stop> {
        let place = self.writable_destination()?;
        let source = self.source()?;
        let old = self.read(place)?;
        let new = self.read(source)?;
        if !place.replace(self.bus, self.insn.size, old, new, true)? {
            return Ok(Outcome::Again);
        }
        self.write(source, old)?;
        self.done()
    }

    /// Executes `xadd`.
    fn exchange_add(&mut self) -> Result<Outcome, Stop> {
        let place = self.writable_destination()?;
        let source = self.source()?;
        let left = self.read(place)?;
        let right = self.read(source)?;
        let (sum, rflags) = Binary::Add.apply(self.insn.size, left, right, self.bus.rflags());
        if let Place::Memory(_) = place {
            if !self.replace(place, left, sum)? {
                return Ok(Outcome::Again);
            }
            self.write(source, left)?;
        } else {
            // Both may be one register: the sum stays.
            self.write(source, left)?;
            self.write(place, sum)?;
        }
        self.bus.set_rflags(rflags);
        self.done()
    }

    /// Executes `cmpxchg`.
    fn compare_exchange(&mut self) -> Result<Outcome, Stop> {
        let size = self.insn.size;
        let place = self.writable_destination()?;
        let source = self.source()?;
        let accumulator = Register::low(RAX);
        let old = self.read(place)?;
        let expected = accumulator.read(self.bus, size);
        let (_, rflags) = Binary::Compare.apply(size, expected, old, self.bus.rflags());
        let equal = expected == old;
        if equal {
            let new = self.read(source)?;
            if !self.replace(place, old, new)? {
                return Ok(Outcome::Again);
            }
        } else {
            // Memory is written all the same, with what it had. A register is not: Intel's CPUs
            // do not even clear its upper half.
            if matches!(place, Place::Memory(_)) && !self.replace(place, old, old)? {
                return Ok(Outcome::Again);
            }
            accumulator.write(self.bus, size, old);
        }
        self.bus.set_rflags(rflags);
        self.done()
    }

    /// Executes `cmpxchg8b` and `cmpxchg16b`. The operand size is of one half.
    fn compare_exchange_pair(&mut self) -> Result<Outcome, Stop> {
        let half = self.insn.size;
        let whole = half.bytes().saturating_mul(2);
        let place = self
            .insn
            .destination
            .locate(self.bus, self.next_rip, whole, true)?;
        let Place::Memory(linear) = place else {
            return Err(Stop::Unsupported);
        };
        if half == Size::Qword && linear & 15 != 0 {
            return Err(Stop::Fault(Fault::general_protection()));
        }
        self.bus.check_write(linear, whole)?;

        let mut data = [0; 16];
        let old = match half {
            Size::Qword => &mut data[..],
            _ => &mut data[..8],
        };
        self.bus.read(linear, old)?;
        let old = u128::from_le_bytes(data);
        let equal = old == self.pair(half, RDX, RAX);
        let new = if equal {
            self.pair(half, RCX, RBX)
        } else {
            old
        };
        if !self.replace_pair(linear, half, old, new)? {
            return Ok(Outcome::Again);
        }

        let rflags = self.bus.rflags();
        if equal {
            self.bus.set_rflags(rflags | ZF);
        } else {
            self.bus.set_rflags(rflags & !ZF);
            // CAST: each half is truncated to its part.
            Register::low(RAX).write(self.bus, half, old as u64);
            Register::low(RDX).write(self.bus, half, (old >> half.bits()) as u64);
        }
        self.done()
    }

    /// Returns the registers `high` and `low` as one number.
    fn pair(&self, half: Size, high: u8, low: u8) -> u128 {
        let high = u128::from(Register::low(high).read(self.bus, half));
        (high << half.bits()) | u128::from(Register::low(low).read(self.bus, half))
    }

    /// Replaces `old` at `linear` by `new`. Returns false if the instruction has to start over.
    fn replace_pair(
        &mut self,
        linear: u64,
        half: Size,
        old: u128,
        new: u128,
    ) -> Result<bool, Stop> {
        let (old, new) = (old.to_le_bytes(), new.to_le_bytes());
        let (old, new) = match half {
            Size::Qword => (&old[..], &new[..]),
            _ => (&old[..8], &new[..8]),
        };
        if self.insn.lock {
            self.bus.compare_exchange(linear, old, new)
        } else {
            self.bus.write(linear, new).map(|()| true)
        }
    }

    /// Executes `in`.
    fn port_in(&mut self) -> Result<Outcome, Stop> {
        let port = self.port(&self.insn.source)?;
        let destination = self.destination(true)?;
        let value = port_in(self.bus, port, self.insn.size)?;
        self.write(destination, value)?;
        self.done()
    }

    /// Executes `out`.
    fn port_out(&mut self) -> Result<Outcome, Stop> {
        let port = self.port(&self.insn.destination)?;
        let source = self.source()?;
        let value = self.read(source)?;
        port_out(self.bus, port, self.insn.size, value)?;
        self.done()
    }

    /// Returns the port number in `operand`.
    pub(super) fn port(&mut self, operand: &Operand) -> Result<u16, Stop> {
        let place = self.locate(operand, Size::Word, false)?;
        // CAST: a value of two bytes.
        Ok(place.read(self.bus, Size::Word)? as u16)
    }
}
